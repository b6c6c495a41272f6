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
  - All holders are given in one call. What was given is kept in a plan file that belongs into git. The result depends on that
    plan and on the set of holders, never on their order, on their place in the inventory, or on C(--limit).
  - A holder keeps its block, whatever happens to the others. One that is no longer asked for keeps it too, and is listed in
    RV(held).
  - A new holder gets the smallest free block that fits, and the lowest of these.
version_added: 0.1.0
author:
  - the dn42.compose contributors
requirements:
  - netaddr, in the Python that runs the module
  - PyYAML
attributes:
  check_mode:
    description: Decides exactly what a real run would, and writes nothing.
    support: full
  diff_mode:
    description: The text of the plan before and after.
    support: full
  idempotent:
    description: The same request again changes nothing.
    support: full
options:
  pools:
    description:
      - The pools as a list of mappings. Pools do not overlap. The first one is for all holders that do not name another.
      - C(name) is the pool's name. The plan refers to it, so it does not change.
      - C(ipv4) and C(ipv6) are lists of prefixes such as V("172.23.255.0/26") and V("fd99:4242:1::/48"). One of the two may be
        missing. A block always lies inside one of them.
      - >-
        C(block_size) has the prefix length of a block for each family that the pool has, such as V({ipv4: 29, ipv6: 64}).
      - C(reserved) is a list of prefixes inside the pool that nobody gets.
      - Prefixes are strings. Anything else is refused, since YAML makes V(172.2) of C(172.20).
    type: raw
    required: true
  holders:
    description:
      - Everybody who wants a block, as a list of names or of mappings.
      - C(name) is the holder's name, usually the inventory's name of the node.
      - C(pool) is the name of its pool.
      - >-
        C(pin) says which block the holder has already, such as V({ipv4: "172.23.255.16/29"}). It is adopted with the size that
        it has, or refused when it belongs to somebody else.
    type: raw
    required: true
  pins:
    description:
      - Pins by the name of the holder, for when O(holders) is a list of names.
    type: raw
  offsets:
    description:
      - The place of every service in a block, as a mapping of names to numbers from 2 on. It is the same in both families.
      - In the block V(172.23.255.8/29) the service at offset 4 has V(172.23.255.12).
      - C(host) is always 1, the bridge address that Docker takes on the node.
    type: raw
  path:
    description:
      - The plan file, with an absolute path. It is made when the first block is given.
      - While it is written, a lock lies beside it with C(.lock) behind its name.
    type: path
    required: true
  lock_timeout:
    description: How many seconds to wait for another run that writes the plan.
    type: int
    default: 60
notes:
  - Run it once for all nodes, on the controller.
  - Comments in the plan file are lost when a block is added.
  - A block is released by removing its line from the plan file.
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
    offsets: {gateway: 2, router: 3, dns: 4, looking_glass: 5}
    path: "{{ inventory_dir }}/plan/addresses.yml"
  run_once: true
  delegate_to: localhost
  register: plan

- name: Show the address of a service
  ansible.builtin.debug:
    msg: "{{ plan.blocks[inventory_hostname].addresses.dns.ipv4 }}"
"""

RETURN = r"""
blocks:
  description:
    - For every holder its pool, its block in each family and the address of each service.
    - A family that the pool has not is V(null).
  returned: success
  type: dict
  sample:
    fra1:
      pool: dn42
      ipv4: {prefix: 172.23.255.0/29, prefix_length: 29, network: 172.23.255.0}
      ipv6: {prefix: "fd99:4242:1::/64", prefix_length: 64, network: "fd99:4242:1::"}
      addresses:
        host: {ipv4: 172.23.255.1, ipv6: "fd99:4242:1::1"}
        gateway: {ipv4: 172.23.255.2, ipv6: "fd99:4242:1::2"}
aggregates:
  description: The prefixes of all pools, which is what other networks are told about.
  returned: success
  type: dict
  sample: {ipv4: [172.23.255.0/26], ipv6: ["fd99:4242:1::/48"]}
added:
  description: The blocks that this call gave, sorted by address.
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
faults:
  description: Everything that is wrong, each with its key, its value and what would be right.
  returned: failure
  type: list
  elements: dict
  sample: [{key: "pools[0].ipv4[0]", value: 172.2, message: YAML made a number of it}]
"""

from pathlib import Path
from typing import Any, Dict, List, Tuple

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dn42.compose.plugins.module_utils import _address_plan as engine
from ansible_collections.dn42.compose.plugins.module_utils import _address_text as text
from ansible_collections.dn42.compose.plugins.module_utils import _plan_file as plan_file


def describe_block(block: engine.Block) -> Dict[str, str]:
    """A block in a list."""
    return {"prefix": str(block.prefix), "holder": block.holder, "pool": block.pool}


def describe_prefix(prefix: engine.Prefix) -> Dict[str, Any]:
    """A holder's block in one family."""
    network = engine.address_text(prefix.family, prefix.network)
    return {"prefix": str(prefix), "prefix_length": prefix.length, "network": network}


def describe_holders(wanted: text.Wanted, decision: engine.Decision) -> Dict[str, Any]:
    """Everything that a template wants to know about each holder."""
    holders: Dict[str, Any] = {}
    for request in sorted(wanted.requests, key=lambda item: item.name):
        given = decision.given[request.name]
        entry: Dict[str, Any] = {"pool": request.pool, "addresses": engine.addresses(given, wanted.offsets)}
        for family, name in engine.FAMILY_NAMES.items():
            entry[name] = describe_prefix(given[family]) if family in given else None
        holders[request.name] = entry
    return holders


def aggregates(pools: List[engine.Pool]) -> Dict[str, List[str]]:
    """The prefixes of all pools by family, sorted by address."""
    return {name: [str(prefix) for prefix in sorted(prefix for pool in pools for prefix in pool.prefixes.get(family, ()))] for family, name in engine.FAMILY_NAMES.items()}


def decide_all(wanted: text.Wanted, blocks: Tuple[engine.Block, ...]) -> engine.Decision:
    """Decide; faults in what was asked for are raised together with those that the plan shows about the rest."""
    if wanted.faults:
        found = engine.examine(blocks, wanted.pools, wanted.requests) if wanted.pools_complete else []
        found += engine.check_offsets(wanted.offsets, wanted.pools, wanted.requests) if wanted.pools_complete else []
        raise engine.Refused(wanted.faults + found)
    return engine.decide(blocks, wanted.pools, wanted.requests, wanted.offsets)


def run(params: Dict[str, Any], check_mode: bool) -> Dict[str, Any]:
    """The whole call; returns what the module returns, or raises `Refused`, `LockTimeout` or OSError."""
    wanted = text.read_request(params["pools"], params["holders"], params["offsets"], params["pins"])
    if not Path(params["path"]).is_absolute():
        wanted.faults.append(engine.Fault("path", params["path"], "must be absolute, such as /srv/dn42/addresses.yml"))
        raise engine.Refused(wanted.faults)
    store = plan_file.PlanFile(params["path"], params["lock_timeout"])
    try:
        outcome = store.transact(lambda blocks: decide_all(wanted, blocks), check_mode)
    except engine.Refused as refusal:
        # A plan that cannot be read hides what is wrong with the request, so both are told.
        told = [fault for fault in wanted.faults if fault not in refusal.faults]
        raise engine.Refused(told + refusal.faults) from None
    decision = outcome.decision
    return {
        "changed": outcome.before != outcome.after,
        "blocks": describe_holders(wanted, decision),
        "aggregates": aggregates(wanted.pools),
        "added": [describe_block(block) for block in decision.added],
        "held": [describe_block(block) for block in decision.held],
        "diff": {
            "before": outcome.before,
            "after": outcome.after,
            "before_header": params["path"],
            "after_header": params["path"],
        },
    }


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "pools": {"type": "raw", "required": True},
            "holders": {"type": "raw", "required": True},
            "pins": {"type": "raw"},
            "offsets": {"type": "raw"},
            "path": {"type": "path", "required": True},
            "lock_timeout": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    if text.MISSING_NETADDR:
        module.fail_json(msg=text.netaddr_missing_message())
    if plan_file.MISSING_YAML:
        module.fail_json(msg=f"The Python library PyYAML is missing: {plan_file.MISSING_YAML}")
    try:
        result = run(module.params, module.check_mode)
    except engine.Refused as refusal:
        told = "\n".join(f"- {fault}" for fault in refusal.faults)
        module.fail_json(
            msg=f"The address plan cannot be made, nothing was changed:\n{told}",
            faults=[fault.as_dict() for fault in refusal.faults],
        )
    except plan_file.LockTimeout as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"The plan file {module.params['path']} cannot be read or written: {error}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
