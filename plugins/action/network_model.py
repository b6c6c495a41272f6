# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Read the inventory of all nodes, refuse it with every fault at once, or answer with the network it describes."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.dn42.compose.plugins.module_utils import _network
from ansible_collections.dn42.compose.plugins.module_utils._action import NODES_GROUP, node_variables


def _prefixes(variables: Mapping[str, Mapping[str, Any]]) -> List[str]:
    """The operator's registered prefixes of both families, as the inventory has them."""
    pools = next(iter(variables.values())).get("dn42_pools") or []
    return [prefix for pool in pools for family in ("ipv4", "ipv6") for prefix in pool.get(family) or []]


class ActionModule(ActionBase):
    """Runs on the controller alone; nothing is sent to a node."""

    _VALID_ARGS = frozenset(("plan", "public_keys"))

    def run(self, tmp: Optional[str] = None, task_vars: Optional[Dict[str, Any]] = None) -> Dict[str, Any]:
        """Answer with `nodes`: {node: model}; without a plan, {node: what the inventory says}."""
        result = super().run(tmp, task_vars)
        variables = node_variables(task_vars or {})
        if not variables:
            raise AnsibleActionFail(f"the inventory has no host in the group {NODES_GROUP}; put every node into it")
        plan = self._task.args.get("plan")
        keys = self._task.args.get("public_keys") or {}
        try:
            nodes = _network.build(variables, plan["blocks"], plan["aggregates"], keys) if plan else _network.read_inventory(variables)
        except _network.InventoryFaults as error:
            count = len(error.faults)
            heading = f"The inventory has {count} {'fault' if count == 1 else 'faults'}; nothing was touched:"
            raise AnsibleActionFail("\n  ".join([heading, *map(str, error.faults)])) from error
        result.update(changed=False, nodes=nodes, prefixes=_prefixes(variables))
        return result
