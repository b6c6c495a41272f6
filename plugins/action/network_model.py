# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Read the inventory of all nodes, refuse it with every fault at once, or answer with the network it describes."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional

from ansible.errors import AnsibleActionFail
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase
from ansible_collections.dn42.compose.plugins.module_utils import _address_request as address_request
from ansible_collections.dn42.compose.plugins.module_utils import _address_text as address_text
from ansible_collections.dn42.compose.plugins.module_utils import _network, _options
from ansible_collections.dn42.compose.plugins.module_utils import _service_role as service_role
from ansible_collections.dn42.compose.plugins.module_utils._action import NODES_GROUP, load_service_roles, node_variables


def _prefixes(variables: Mapping[str, Mapping[str, Any]], faults: List[_network.Fault]) -> List[str]:
    """The prefixes of the operator's pools, both families; what is wrong with pools is told before anything is touched."""
    node = min(variables)
    found: List[Any] = []
    pools = address_request.read_pools(variables[node].get("dn42_pools"), found, "dn42_pools")
    faults += [_network.Fault(node, fault.key, fault.value, fault.message) for fault in found]
    return [str(prefix) for pool in pools for family in sorted(pool.prefixes) for prefix in pool.prefixes[family]]


class ActionModule(ActionBase):
    """Runs on the controller alone; nothing is sent to a node."""

    _VALID_ARGS = frozenset(("plan", "public_keys", "check_options"))

    def run(self, tmp: Optional[str] = None, task_vars: Optional[Dict[str, Any]] = None) -> Dict[str, Any]:
        """Answer with `nodes`: {node: model}; without a plan, {node: what the inventory says}."""
        result = super().run(tmp, task_vars)
        # The first task of a run is the place to say what the controller lacks; the address plan needs it later.
        if address_text.MISSING_NETADDR:
            raise AnsibleActionFail(address_text.netaddr_missing_message())
        task_vars = task_vars or {}
        variables = node_variables(task_vars)
        if not variables:
            raise AnsibleActionFail(f"the inventory has no host in the group {NODES_GROUP}; put every node into it")
        faults = self._option_faults(variables, task_vars)
        prefixes = _prefixes(variables, faults)
        nodes: Dict[str, Any] = {}
        try:
            nodes = self._nodes(variables)
        except _network.InventoryFaults as error:
            faults += error.faults
        if faults:
            heading = f"The inventory has {len(faults)} {'fault' if len(faults) == 1 else 'faults'}; nothing was touched:"
            raise AnsibleActionFail("\n  ".join([heading, *map(str, faults)]))
        result.update(changed=False, nodes=nodes, prefixes=prefixes)
        return result

    def _nodes(self, variables: Mapping[str, Mapping[str, Any]]) -> Dict[str, Any]:
        plan = self._task.args.get("plan")
        if not plan:
            return _network.read_inventory(variables)
        return _network.build(variables, plan["blocks"], plan["aggregates"], self._task.args.get("public_keys") or {})

    def _option_faults(self, variables: Mapping[str, Mapping[str, Any]], task_vars: Mapping[str, Any]) -> List[_network.Fault]:
        """Options that no role has, or whose value their role does not take."""
        if not boolean(self._task.args.get("check_options", False)):
            return []
        default = service_role.role_defaults(service_role.COLLECTION_ROLES / "stack")["dn42_stack_services"]
        services = sorted({str(name) for host in variables.values() for name in host.get("dn42_stack_services", default)})
        paths = [role.path for role in load_service_roles(services, task_vars)]
        without = [host for host in sorted(variables) if "router" not in variables[host].get("dn42_stack_services", default)]
        faults = [_network.Fault(host, "dn42_stack_services", variables[host]["dn42_stack_services"], "must hold 'router': it is what makes a node") for host in without]
        roles = {path.name: path for path in [*service_role.COLLECTION_ROLES.iterdir(), *paths]}
        options = _options.read_options(roles.values())
        return faults + [fault for host in sorted(variables) for fault in _options.check(host, variables[host], options, roles)]
