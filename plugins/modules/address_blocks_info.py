#!/usr/bin/python
# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: address_blocks_info
short_description: Show how the address plan stands, and explain a holder's block
description:
  - Reads the plan that M(dn42.compose.address_blocks) keeps. Says for each pool and family how full it is, which blocks are
    held and released, how large the free blocks are, and what happened lately.
  - Explains one holder, also one that does not exist yet. Draws the pools as text and as SVG.
  - Changes nothing and writes nothing.
version_added: 0.1.0
author:
  - the dn42.compose contributors
requirements:
  - netaddr, in the Python that runs the module
  - what the store needs, as for M(dn42.compose.address_blocks)
attributes:
  check_mode:
    description: Does the same.
    support: full
  diff_mode:
    description: There is never a difference.
    support: none
  idempotent:
    description: Changes nothing.
    support: full
options:
  pools:
    description: The pools, as for M(dn42.compose.address_blocks).
    type: raw
    required: true
  holders:
    description:
      - Everybody who is asked for, as for M(dn42.compose.address_blocks). Who has a block and is not among them is told as held.
      - Without it nobody is known to have left, and nothing is told as held.
    type: raw
  pins:
    description: Pins by the name of the holder, so that O(explain) can tell them.
    type: raw
  sizes:
    description: Sizes by the name of the holder, so that O(explain) knows what a new holder would get.
    type: raw
  explain:
    description: The name of a holder, one that has a block or any other.
    type: str
  history:
    description: How many of the latest events to tell, as far as the store remembers them.
    type: int
    default: 0
  picture:
    description: Whether to draw the pools.
    type: bool
    default: false
  picture_width:
    description: How many columns the terminal has for RV(picture.text).
    type: int
    default: 100
notes:
  - Run it on the controller.
extends_documentation_fragment:
  - dn42.compose.plan_store
"""

EXAMPLES = r"""
- name: How full is the address plan, and what would a new node get?
  dn42.compose.address_blocks_info:
    pools: "{{ dn42_pools }}"
    holders: "{{ groups['dn42_nodes'] }}"
    store: {path: "{{ inventory_dir }}/plan/addresses.yml"}
    explain: nrt1
    picture: true
  delegate_to: localhost
  run_once: true
  register: plan_info

- name: Keep a picture for the documentation
  ansible.builtin.copy:
    content: "{{ plan_info.picture.svg }}"
    dest: "{{ inventory_dir }}/plan/addresses.svg"
    mode: "0644"
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
pools:
  description:
    - Every family of every pool, in addresses. C(in_use), C(held), C(released), C(reserved) and C(free) add up to C(size).
    - C(utilisation) is the share that somebody owns of what is not reserved, from 0 to 1.
    - C(largest_free) is the largest block that can still be had, released space included, V(null) when the pool is full.
    - C(free_blocks) has for each prefix length how many blocks of it can be had, down to the smallest size in use.
    - >-
      C(fragmentation) is 0 when the free space is as good as one piece, and nears 1 when it is in small ones: 1 - largest free
      block / the largest power of two that is not above the free space.
    - Numbers above 2^53 are exact in Ansible, and in a JSON reader that knows large integers.
  returned: success
  type: list
  elements: dict
  sample:
    - pool: dn42
      family: ipv4
      prefixes: [172.23.255.0/26]
      purpose: node
      block_size: 29
      size: 64
      in_use: 24
      held: 8
      released: 8
      reserved: 8
      free: 16
      utilisation: 0.571
      largest_free: 172.23.255.32/28
      free_blocks: {"28": 1, "29": 3}
      fragmentation: 0.0
summary:
  description: The same as a table for people, with the held and the released blocks below it.
  returned: success
  type: str
held:
  description: The blocks of those that are no longer asked for, by address. Empty without O(holders).
  returned: success
  type: list
  elements: dict
  sample: [{prefix: 172.23.255.16/29, holder: lax1, pool: dn42}]
released:
  description: What was given up and is free, by address. C(release) counts the plan's releases, the lowest is the oldest.
  returned: success
  type: list
  elements: dict
  sample: [{prefix: 172.23.255.40/29, holder: old1, pool: dn42, release: 1}]
outside:
  description: Blocks that lie in none of the pools.
  returned: success
  type: list
  elements: dict
  sample: []
explanation:
  description: What there is to say about O(explain), as sentences. C(known) is whether it has or had a block, or is asked for.
  returned: when O(explain) is given
  type: dict
  sample:
    holder: fra1
    known: true
    lines: ["It cannot grow in place: a /28 would need the space of 172.23.255.8/29 of hkg1."]
history:
  description: The latest events, the latest first. Empty where the store remembers none.
  returned: when O(history) is above 0
  type: list
  elements: dict
  sample: [{when: "2026-11-25T10:00:00Z", who: alice, kind: given, prefix: 172.23.255.0/29, holder: fra1, pool: dn42, note: 1a2b3c4}]
picture:
  description: The pools as C(text) for a terminal and as C(svg), a whole SVG document.
  returned: when O(picture) is true
  type: dict
faults:
  description: Everything that is wrong, each with its key, its value and what would be right.
  returned: failure
  type: list
  elements: dict
"""

from typing import Any, Dict, Iterable, List, Optional, Set, Tuple

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dn42.compose.plugins.module_utils import _address_text as text
from ansible_collections.dn42.compose.plugins.module_utils._address_plan import picture, report
from ansible_collections.dn42.compose.plugins.module_utils._address_plan.model import FAMILY_NAMES, Ask, Block, Fault, Plan, Refused
from ansible_collections.dn42.compose.plugins.module_utils._address_request import read_request
from ansible_collections.dn42.compose.plugins.module_utils._plan_store import Event, StoreError
from ansible_collections.dn42.compose.plugins.module_utils._plan_stores import STORE_SPEC, open_store

REMEMBERED = 200  # events that are looked through for who had a block before


def describe_block(block: Block) -> Dict[str, Any]:
    """A block in a list."""
    described: Dict[str, Any] = {"prefix": str(block.prefix), "holder": block.holder, "pool": block.pool}
    if block.released:
        described["release"] = block.released
    return described


def describe_usage(usage: report.Usage) -> Dict[str, Any]:
    """One family of a pool."""
    pool, family = usage.pool, usage.family
    return {
        "pool": pool.name,
        "family": FAMILY_NAMES[family],
        "prefixes": [str(prefix) for prefix in pool.prefixes[family]],
        "purpose": pool.purpose,
        "block_size": pool.lengths[family],
        "size": usage.size,
        "in_use": usage.addresses[report.USED],
        "held": usage.addresses[report.HELD],
        "released": usage.addresses[report.RELEASED],
        "reserved": usage.addresses[report.RESERVED],
        "free": usage.addresses[report.FREE],
        "utilisation": round(usage.utilisation, 4),
        "largest_free": str(usage.largest) if usage.largest else None,
        "free_blocks": {str(length): count for length, count in usage.blocks.items()},
        "fragmentation": round(usage.fragmentation, 4),
    }


def outside(plan: Plan, ask: Ask) -> List[Block]:
    """Blocks that no pool holds."""
    prefixes = [prefix for pool in ask.pools for few in pool.prefixes.values() for prefix in few]
    return [block for block in plan.blocks if not any(prefix.covers(block.prefix) for prefix in prefixes)]


def past_of(events: Iterable[Event]) -> List[report.Past]:
    """What a store remembers, in the words of the report."""
    return [report.Past(event.when, event.kind, text.read_prefix(event.prefix), event.holder) for event in events]


def read_ask(params: Dict[str, Any]) -> Ask:
    """The pools and who is asked for; raises `Refused` with everything that cannot be read."""
    wanted = read_request({**{name: params[name] for name in ("pools", "pins", "sizes")}, "holders": [] if params["holders"] is None else params["holders"]})
    faults = list(wanted.faults)
    for name, least in (("history", 0), ("picture_width", 40)):
        if params[name] < least:
            faults.append(Fault(name, params[name], f"must be {least} or more"))
    if faults:
        raise Refused(faults)
    return wanted.ask


def run(params: Dict[str, Any]) -> Dict[str, Any]:
    """The whole call; returns what the module returns, or raises `Refused` or `StoreError`."""
    ask = read_ask(params)
    store = open_store(params["store"])
    plan = store.read()
    asked: Optional[Set[Tuple[str, str]]] = None if params["holders"] is None else {(request.name, request.pool) for request in ask.requests}
    usages = report.usage(plan, ask.pools, asked)
    result: Dict[str, Any] = {
        "changed": False,
        "pools": [describe_usage(usage) for usage in usages],
        "summary": report.summary(usages, plan, asked),
        "held": [describe_block(block) for block in plan.blocks if report.is_held(block, asked)],
        "released": [describe_block(block) for block in plan.released],
        "outside": [describe_block(block) for block in outside(plan, ask)],
    }
    if params["explain"]:
        past = past_of(store.history(REMEMBERED))
        result["explanation"] = report.explain(params["explain"], plan, ask, asked, past)._asdict()
    if params["history"]:
        result["history"] = [event._asdict() for event in store.history(params["history"])]
    if params["picture"]:
        result["picture"] = {
            "text": picture.text(plan, ask.pools, asked, params["picture_width"]),
            "svg": picture.svg(plan, ask.pools, asked),
        }
    return result


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "pools": {"type": "raw", "required": True},
            "store": {"type": "dict", "required": True, "options": STORE_SPEC},
            "holders": {"type": "raw"},
            "pins": {"type": "raw"},
            "sizes": {"type": "raw"},
            "explain": {"type": "str"},
            "history": {"type": "int", "default": 0},
            "picture": {"type": "bool", "default": False},
            "picture_width": {"type": "int", "default": 100},
        },
        supports_check_mode=True,
    )
    if text.MISSING_NETADDR:
        module.fail_json(msg=text.netaddr_missing_message())
    try:
        result = run(module.params)
    except Refused as refusal:
        told = "\n".join(f"- {fault}" for fault in refusal.faults)
        module.fail_json(msg=f"The address plan cannot be shown:\n{told}", faults=[fault.as_dict() for fault in refusal.faults])
    except StoreError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
