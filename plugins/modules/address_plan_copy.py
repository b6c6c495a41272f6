#!/usr/bin/python
# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: address_plan_copy
short_description: Copy the address plan from one store into another
description:
  - Copies every block, owned and released, and reads it back to compare.
  - The source is only read. The destination must be empty or hold the same plan already; another plan in it is refused, with
    what differs.
  - Afterwards, name the new store where the plan is used. The copy does not follow the original.
version_added: 0.1.0
author:
  - the dn42.compose contributors
requirements:
  - netaddr, in the Python that runs the module
  - PyYAML, psycopg or pynetbox, for the kinds of store that are used
attributes:
  check_mode:
    description: Compares and decides exactly as a real run would, and writes nothing.
    support: full
  diff_mode:
    description: The blocks of the destination before and after, one in a line.
    support: full
  idempotent:
    description: Where the destination holds the same plan, nothing is written.
    support: full
notes:
  - Nobody should change the plan in the source meanwhile. When that happens the module fails and says so.
seealso:
  - module: dn42.compose.address_blocks
extends_documentation_fragment:
  - dn42.compose.plan_store.copy
"""

EXAMPLES = r"""
- name: Move the plan from its file into NetBox
  dn42.compose.address_plan_copy:
    source:
      path: "{{ playbook_dir }}/plan/addresses.yml"
    destination:
      kind: netbox
      url: https://netbox.example.org
      token: "{{ vault_netbox_token }}"
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
source:
  description: What the store is called that was read.
  returned: success
  type: str
  sample: /srv/dn42/plan/addresses.yml
destination:
  description: What the store is called that has the plan now, or in check mode would have it.
  returned: success
  type: str
  sample: https://netbox.example.org plan dn42
blocks:
  description: The whole plan, sorted by address. C(released) is 0 for a block that somebody owns.
  returned: success
  type: list
  elements: dict
  sample: [{prefix: 172.23.255.0/29, holder: fra1, pool: dn42, released: 0}]
faults:
  description: Everything that is wrong, or that differs in a destination that holds another plan.
  returned: failure
  type: list
  elements: dict
  sample:
    - key: /srv/dn42/plan/addresses.yml
      value: 172.23.255.8/29
      message: belongs to hkg1 (pool dn42) here and to fra1 (pool dn42) in the source
"""

from typing import Any, Dict, List, Optional

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dn42.compose.plugins.module_utils._address_plan.model import Block, Change, Decision, Fault, Plan, Refused
from ansible_collections.dn42.compose.plugins.module_utils._plan_store import Store, StoreError
from ansible_collections.dn42.compose.plugins.module_utils._plan_stores import STORE_SPEC, open_store


def all_blocks(plan: Plan) -> List[Block]:
    """Every block of a plan, sorted by address."""
    return sorted((*plan.blocks, *plan.released), key=lambda block: block.prefix)


def describe(block: Optional[Block]) -> str:
    """Whose a block is."""
    if block is None:
        return "nobody"
    return f"{block.holder} (pool {block.pool}" + (f", release {block.released})" if block.released else ")")


def differences(shown: str, there: Plan, wanted: Plan) -> List[Fault]:
    """What differs between the plan in the destination and the one that is to be copied."""
    mine = {block.prefix: block for block in all_blocks(there)}
    theirs = {block.prefix: block for block in all_blocks(wanted)}
    return [
        Fault(shown, str(prefix), f"belongs to {describe(mine.get(prefix))} here and to {describe(theirs.get(prefix))} in the source")
        for prefix in sorted({*mine, *theirs})
        if mine.get(prefix) != theirs.get(prefix)
    ]


def as_text(plan: Plan) -> str:
    """A plan for the diff."""
    return "".join(f"{block.prefix} {describe(block)}\n" for block in all_blocks(plan))


def copied(plan: Plan, source: Store, destination: Store) -> Any:
    """Decides the whole plan for an empty destination, and refuses one that holds another plan."""

    def decide(before: Plan) -> Decision:
        if before not in (Plan(), plan):
            raise Refused(differences(destination.shown, before, plan))
        added = [] if before == plan else all_blocks(plan)
        changes = tuple(Change("added", block.holder, block.pool, None, block.prefix, f"copied from {source.shown}") for block in added)
        return Decision(plan=plan, changes=changes, held=())

    return decide


def compare(plan: Plan, source: Store, destination: Store) -> None:
    """Read both stores again. Raises `StoreError` when they are not what they should be."""
    if source.read() != plan:
        raise StoreError(f"{source.shown} was changed while it was copied. Let nobody write to it, empty {destination.shown}, and run again.")
    wrong = differences(destination.shown, destination.read(), plan)
    if wrong:
        told = "\n".join(f"- {fault}" for fault in wrong)
        raise StoreError(f"{destination.shown} does not hold what was written; keep using {source.shown}:\n{told}")


def run(params: Dict[str, Any], check_mode: bool) -> Dict[str, Any]:
    """The whole call; returns what the module returns. Raises `Refused` or `StoreError`."""
    source, destination = open_store(params["source"]), open_store(params["destination"])
    plan = source.read()
    if plan == Plan():
        raise Refused([Fault("source", source.shown, "holds no block at all, so there is nothing to copy; is it the right place?")])
    outcome = destination.transact(copied(plan, source, destination), check_mode)
    if outcome.changed and not check_mode:
        compare(plan, source, destination)
    return {
        "changed": outcome.changed,
        "source": source.shown,
        "destination": destination.shown,
        "blocks": [{"prefix": str(block.prefix), "holder": block.holder, "pool": block.pool, "released": block.released} for block in all_blocks(plan)],
        "diff": {
            "before": as_text(outcome.before),
            "after": as_text(plan),
            "before_header": destination.shown,
            "after_header": destination.shown,
        },
    }


def main() -> None:
    """Entry point."""
    store = {"type": "dict", "required": True, "options": STORE_SPEC}
    module = AnsibleModule(argument_spec={"source": store, "destination": store}, supports_check_mode=True)
    try:
        result = run(module.params, module.check_mode)
    except Refused as refusal:
        told = "\n".join(f"- {fault}" for fault in refusal.faults)
        module.fail_json(
            msg=f"The address plan cannot be copied, nothing was changed. A destination must be empty or hold the same plan.\n{told}",
            faults=[fault.as_dict() for fault in refusal.faults],
        )
    except StoreError as error:
        module.fail_json(msg=str(error), faults=[])
    module.exit_json(**result)


if __name__ == "__main__":
    main()
