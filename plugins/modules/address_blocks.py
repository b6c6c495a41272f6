#!/usr/bin/python
# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: address_blocks
short_description: Give every node its own block of addresses, and keep it
description:
  - Takes pools of addresses and the names of all that want a block of them, and gives each one a block per address family,
    with the address of every service in it.
  - All holders are given in one call. What was given is kept in a plan, in a file that belongs into git, or in a database. The
    result depends on that plan and on the set of holders, never on their order, on their place in the inventory, or on
    C(--limit).
  - A holder keeps its block, whatever happens to the others. One that is no longer asked for keeps it too, and is listed in
    RV(held), until O(release) gives it up.
  - A new holder gets the smallest free block that fits, and the lowest of these. Space that was released is used last.
version_added: 0.1.0
author:
  - the dn42.compose contributors
requirements:
  - netaddr, in the Python that runs the module
  - PyYAML with a store of kind C(file)
  - psycopg with a store of kind C(postgresql), pynetbox with one of kind C(netbox)
attributes:
  check_mode:
    description: Decides exactly what a real run would, and writes nothing.
    support: full
  diff_mode:
    description: A table of what moves from where to where, and why.
    support: full
  idempotent:
    description: The same request again changes nothing.
    support: full
options:
  pools:
    description:
      - The pools as a list of mappings. Pools do not overlap. The first one of purpose V(node) is for all holders that do not
        name another.
      - C(name) is the pool's name. The plan refers to it, so it does not change.
      - C(ipv4) and C(ipv6) are lists of prefixes such as V("172.23.255.0/26") and V("fd99:4242:1::/48"). One of the two may be
        missing. A block always lies inside one of them.
      - >-
        C(block_size) has the prefix length of a block for each family that the pool has, such as V({ipv4: 29, ipv6: 64}).
      - C(reserved) is a list of prefixes inside the pool that nobody gets.
      - C(purpose) is V(node) (the default), V(anycast), V(loopback) or a word of your own. Only blocks of nodes have addresses
        of services in them.
      - C(placement) is V(compact) (the default), which packs blocks closely, or V(growable), which keeps the space above each
        block free to grow into as long as there is room.
      - C(aggregates) is the list of the registered prefixes that the pool is part of. Without it the pool's own prefixes are
        those.
      - Prefixes are strings. Anything else is refused, since YAML makes V(172.2) of C(172.20).
    type: raw
    required: true
  holders:
    description:
      - Everybody who wants a block, as a list of names or of mappings.
      - C(name) is the holder's name, usually the inventory's name of the node.
      - C(pool) is the name of its pool.
      - >-
        C(size) is the prefix length of its block where it is another than the pool's, such as V({ipv4: 28}).
      - >-
        C(pin) says which block the holder has already, such as V({ipv4: "172.23.255.16/29"}). It is adopted with the size that
        it has, or refused when it belongs to somebody else.
    type: raw
    required: true
  pins:
    description:
      - Pins by the name of the holder, for when O(holders) is a list of names.
    type: raw
  sizes:
    description:
      - Sizes by the name of the holder, for when O(holders) is a list of names.
    type: raw
  adopt:
    description:
      - Lists of prefixes by the name of the holder, the networks that it has already outside of the plan.
      - The one inside its pool becomes its block while it has none there. Later it means nothing.
    type: raw
  offsets:
    description:
      - The place of every service in a block, as a mapping of names to numbers from 2 on. It is the same in both families.
      - In the block V(172.23.255.8/29) the service at offset 4 has V(172.23.255.12).
      - C(host) is always 1, the bridge address that Docker takes on the node.
    type: raw
  release:
    description:
      - Holders whose blocks are given up, as a mapping of names to the prefixes that you expect each to have.
      - It is refused when the holder is still asked for or has other prefixes. Released before, it changes nothing.
    type: raw
  renumber:
    description:
      - Names of holders that may get other addresses than they have, when their size, pool or pin asks for it.
    type: raw
  reuse_held:
    description:
      - Whether blocks of holders that are no longer asked for may be taken when nothing else is left.
    type: bool
    default: false
  in_use:
    description:
      - Networks that exist on hosts outside of the plan, which new blocks keep away from.
      - A list of mappings with C(host), C(prefix), and C(what), which messages call it.
    type: raw
  profile:
    description:
      - V(dn42) checks that the pools are what a network of DN42 can have and announce. V(none) takes any prefixes.
    type: str
    choices: [none, dn42]
    default: none
  domain:
    description:
      - The DNS domain below which addresses get names. Without it RV(names) is empty.
    type: raw
notes:
  - Run it once for all holders, on the controller.
extends_documentation_fragment:
  - dn42.compose.plan_store
"""

EXAMPLES = r"""
- name: Decide every node's addresses
  dn42.compose.address_blocks:
    pools:
      - name: dn42
        ipv4: ["172.23.255.0/26"]
        ipv6: ["fd99:4242:1::/48"]
        block_size: {ipv4: 29, ipv6: 64}
        reserved: ["172.23.255.56/29"]
    holders:
      - name: fra1
      - name: hkg1
        pin: {ipv4: "172.23.255.16/29"}
      - name: nrt1
        size: {ipv4: 28}
    offsets: {gateway: 2, router: 3, dns: 4, looking_glass: 5}
    profile: dn42
    domain: example.dn42
    store:
      path: "{{ inventory_dir }}/plan/addresses.yml"
  run_once: true
  delegate_to: localhost
  register: plan

- name: Show the address of a service
  ansible.builtin.debug:
    msg: "{{ plan.blocks[inventory_hostname].addresses.dns.ipv4 }}"

- name: Give up the blocks of a node that is gone
  dn42.compose.address_blocks:
    pools: "{{ dn42_pools }}"
    holders: [fra1, hkg1]
    release:
      old1: ["172.23.255.8/29", "fd99:4242:1:1::/64"]
    store:
      path: "{{ inventory_dir }}/plan/addresses.yml"
  run_once: true
  delegate_to: localhost
"""

RETURN = r"""
blocks:
  description:
    - For every holder its pool, the pool's purpose, its block in each family and the address of each service.
    - A family that the pool has not is V(null). Holders in pools of another purpose than V(node) have no addresses.
  returned: success
  type: dict
  sample:
    fra1:
      pool: dn42
      purpose: node
      ipv4: {prefix: 172.23.255.0/29, prefix_length: 29, network: 172.23.255.0}
      ipv6: {prefix: "fd99:4242:1::/64", prefix_length: 64, network: "fd99:4242:1::"}
      addresses:
        host: {ipv4: 172.23.255.1, ipv6: "fd99:4242:1::1"}
        gateway: {ipv4: 172.23.255.2, ipv6: "fd99:4242:1::2"}
aggregates:
  description: The registered prefixes of all pools, which is what other networks are told about. None is part of another.
  returned: success
  type: dict
  sample: {ipv4: [172.23.255.0/26], ipv6: ["fd99:4242:1::/48"]}
roa:
  description: What belongs into the registry's route objects. A block of a node is never announced alone, hence the lengths.
  returned: success
  type: list
  elements: dict
  sample: [{prefix: 172.23.255.0/26, max_length: 26}]
names:
  description:
    - Names for DNS and their addresses, C(<service>.<node>.<domain>), and the node's own name for its C(gateway) address.
    - Underscores became hyphens. Docker's bridge on the host has no name.
  returned: success
  type: dict
  sample:
    dns.fra1.example.dn42: {ipv4: 172.23.255.4, ipv6: "fd99:4242:1::4"}
    fra1.example.dn42: {ipv4: 172.23.255.2, ipv6: "fd99:4242:1::2"}
changes:
  description:
    - What this call changed. C(kind) is V(added), V(adopted), V(returned), V(grown), V(shrunk), V(renumbered) or V(released).
    - C(before) and C(after) are prefixes, or V(null).
  returned: success
  type: list
  elements: dict
  sample: [{kind: added, holder: fra1, pool: dn42, before: null, after: 172.23.255.0/29, reason: new holder}]
added:
  description: The blocks that this call gave to those who had none, sorted by address.
  returned: success
  type: list
  elements: dict
  sample: [{prefix: 172.23.255.0/29, holder: fra1, pool: dn42}]
held:
  description: The blocks of those that are no longer asked for, sorted by address.
  returned: success
  type: list
  elements: dict
  sample: [{prefix: 172.23.255.8/29, holder: old1, pool: dn42}]
released:
  description: The blocks that nobody owns any more and nobody has got since, sorted by address. The lower the number, the longer ago.
  returned: success
  type: list
  elements: dict
  sample: [{prefix: 172.23.255.16/29, holder: old2, pool: dn42, released: 1}]
faults:
  description: Everything that is wrong, each with its key, its value and what would be right.
  returned: failure
  type: list
  elements: dict
  sample: [{key: "pools[0].ipv4[0]", value: 172.2, message: YAML made a number of it}]
"""

from typing import Any, Dict, Iterable, List, Mapping, NamedTuple

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dn42.compose.plugins.module_utils import _address_names as names
from ansible_collections.dn42.compose.plugins.module_utils import _address_request as request
from ansible_collections.dn42.compose.plugins.module_utils import _address_text as text
from ansible_collections.dn42.compose.plugins.module_utils._address_plan import profile
from ansible_collections.dn42.compose.plugins.module_utils._address_plan.decide import decide, examine
from ansible_collections.dn42.compose.plugins.module_utils._address_plan.model import (
    FAMILY_NAMES,
    NODE,
    Ask,
    Block,
    Change,
    Decision,
    Fault,
    Plan,
    Pool,
    Prefix,
    Refused,
    address_text,
)
from ansible_collections.dn42.compose.plugins.module_utils._address_plan.offsets import addresses
from ansible_collections.dn42.compose.plugins.module_utils._plan_store import StoreError
from ansible_collections.dn42.compose.plugins.module_utils._plan_stores import STORE_SPEC, open_store

ARGUMENT_SPEC: Dict[str, Any] = {
    "pools": {"type": "raw", "required": True},
    "holders": {"type": "raw", "required": True},
    "pins": {"type": "raw"},
    "sizes": {"type": "raw"},
    "adopt": {"type": "raw"},
    "offsets": {"type": "raw"},
    "release": {"type": "raw"},
    "renumber": {"type": "raw"},
    "reuse_held": {"type": "bool", "default": False},
    "in_use": {"type": "raw"},
    "profile": {"type": "str", "choices": list(profile.PROFILES), "default": profile.NONE},
    "domain": {"type": "raw"},
    "store": {"type": "dict", "required": True, "options": STORE_SPEC},
}


class Result(NamedTuple):
    """What the module returns, and what it warns of."""

    values: Dict[str, Any]
    warnings: List[str]


def describe_block(block: Block) -> Dict[str, Any]:
    """A block in a list."""
    described: Dict[str, Any] = {"prefix": str(block.prefix), "holder": block.holder, "pool": block.pool}
    if block.released:
        described["released"] = block.released
    return described


def describe_prefix(prefix: Prefix) -> Dict[str, Any]:
    """A holder's block in one family."""
    network = address_text(prefix.family, prefix.network)
    return {"prefix": str(prefix), "prefix_length": prefix.length, "network": network}


def describe_holders(ask: Ask, decision: Decision) -> Dict[str, Any]:
    """Everything that a template wants to know about each holder."""
    pools = {pool.name: pool for pool in ask.pools}
    holders: Dict[str, Any] = {}
    for item in sorted(ask.requests, key=lambda entry: entry.name):
        given, purpose = decision.given[item.name], pools[item.pool].purpose
        entry: Dict[str, Any] = {"pool": item.pool, "purpose": purpose}
        for family, name in FAMILY_NAMES.items():
            entry[name] = describe_prefix(given[family]) if family in given else None
        if purpose == NODE:
            entry["addresses"] = addresses(given, ask.offsets)
        holders[item.name] = entry
    return holders


def describe_change(change: Change) -> Dict[str, Any]:
    """A change with its prefixes as text."""
    before, after = (None if prefix is None else str(prefix) for prefix in (change.before, change.after))
    return {**change._asdict(), "before": before, "after": after}


def aggregates(pools: Iterable[Pool]) -> Dict[str, List[str]]:
    """The registered prefixes of all pools by family, sorted by address, without those inside others."""
    found: Dict[str, List[str]] = {name: [] for name in FAMILY_NAMES.values()}
    last = None
    for prefix in sorted({prefix for pool in pools for prefixes in request.announced(pool).values() for prefix in prefixes}):
        if last is None or not last.covers(prefix):
            found[FAMILY_NAMES[prefix.family]].append(str(prefix))
            last = prefix
    return found


def route_objects(announced: Mapping[str, List[str]]) -> List[Dict[str, Any]]:
    """Origin authorisations that fit what is announced, and nothing longer."""
    return [{"prefix": prefix, "max_length": int(prefix.partition("/")[2])} for prefixes in announced.values() for prefix in prefixes]


def table(changes: Iterable[Change]) -> str:
    """What moves from where to where and why, a line each; empty when nothing does."""
    rows = [(change.kind, change.holder, change.pool, str(change.before or "-"), str(change.after or "-"), change.reason) for change in changes]
    if not rows:
        return ""
    rows.insert(0, ("change", "holder", "pool", "from", "to", "why"))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    return "".join("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths)), row[5]]).rstrip() + "\n" for row in rows)


def decide_all(wanted: request.Wanted, faults: List[Fault], plan: Plan) -> Decision:
    """Decide; faults in what was asked for are raised together with those that the plan shows about the rest."""
    ask, adoption = request.adopt(wanted, plan) if wanted.pools_complete else (wanted.ask, [])
    faults = faults + adoption
    if faults:
        raise Refused(faults + (examine(plan, ask) if wanted.pools_complete else []))
    return decide(plan, ask)


def run(params: Dict[str, Any], check_mode: bool) -> Result:
    """The whole call. Raises `Refused`, `StoreError` or OSError."""
    wanted = request.read_request(params)
    faults = list(wanted.faults)
    rules = profile.examine(wanted.ask.pools) if params["profile"] == profile.DN42 else profile.Findings([], [])
    faults += rules.faults
    domain = names.read_domain(params["domain"], faults)
    named, wrong = names.owners(wanted.ask, domain) if domain else ({}, [])
    faults += wrong
    try:
        outcome = open_store(params["store"]).transact(lambda plan: decide_all(wanted, faults, plan), check_mode)
    except Refused as refusal:
        # A plan that cannot be read hides what is wrong with the request, so both are told.
        told = [fault for fault in faults if fault not in refusal.faults]
        raise Refused(told + refusal.faults) from None
    decision = outcome.decision
    holders = describe_holders(wanted.ask, decision)
    announced = aggregates(wanted.ask.pools)
    values = {
        "changed": outcome.changed,
        "blocks": holders,
        "aggregates": announced,
        "roa": route_objects(announced),
        "names": names.names(named, holders),
        "changes": [describe_change(change) for change in decision.changes],
        "added": [
            {"prefix": str(change.after), "holder": change.holder, "pool": change.pool}
            for change in sorted((item for item in decision.changes if item.before is None), key=lambda item: item.after or ())
        ],
        "held": [describe_block(block) for block in decision.held],
        "released": [describe_block(block) for block in decision.plan.released],
        "diff": {"prepared": table(decision.changes)},
    }
    return Result(values, [str(warning) for warning in rules.warnings])


def answer(params: Dict[str, Any], check_mode: bool) -> Result:
    """The whole call with its failures told as a module tells them: `failed` and `msg` among the values."""
    if text.MISSING_NETADDR:
        return Result({"failed": True, "msg": text.netaddr_missing_message()}, [])
    try:
        return run(params, check_mode)
    except Refused as refusal:
        told = "\n".join(f"- {fault}" for fault in refusal.faults)
        faults = [fault.as_dict() for fault in refusal.faults]
        return Result({"failed": True, "msg": f"The address plan cannot be made, nothing was changed:\n{told}", "faults": faults}, [])
    except StoreError as error:
        return Result({"failed": True, "msg": str(error)}, [])
    except OSError as error:
        return Result({"failed": True, "msg": f"The plan cannot be read or written: {error}"}, [])


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    result = answer(module.params, module.check_mode)
    if result.values.get("failed"):
        module.fail_json(**result.values)
    for warning in result.warnings:
        module.warn(warning)
    module.exit_json(**result.values)


if __name__ == "__main__":
    main()
