# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Put together what all nodes say about their addresses, and decide them with one call of `address_blocks`."""

from __future__ import annotations

from typing import Any, Dict, Optional

from ansible.errors import AnsibleActionFail
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.common.parameters import remove_values
from ansible.plugins.action import ActionBase
from ansible_collections.dn42.compose.plugins.module_utils import _address_inventory as inventory
from ansible_collections.dn42.compose.plugins.module_utils._action import LEAVING, NODES_GROUP, node_variables, plain
from ansible_collections.dn42.compose.plugins.modules import address_blocks


class ActionModule(ActionBase):
    """Runs on the controller, in this process: it has all that the module needs, and starting another one takes a second."""

    _VALID_ARGS = frozenset(("pools", "offsets", "extra_holders", "release", "renumber", "reuse_held", "profile", "domain", "store", "path", "adopt_network", "leaving"))

    def run(self, tmp: Optional[str] = None, task_vars: Optional[Dict[str, Any]] = None) -> Dict[str, Any]:
        """Answer with the result of the module `address_blocks`."""
        result = super().run(tmp, task_vars)
        task_vars = task_vars or {}
        nodes = node_variables(task_vars)
        leaving = [str(name) for name in self._task.args.get("leaving") or []]
        if not nodes and not task_vars.get(LEAVING):
            raise AnsibleActionFail(f"the inventory has no host in the group {NODES_GROUP}; put every node into it")
        for name, variables in nodes.items():
            variables[inventory.FACTS] = task_vars["hostvars"][name].get(inventory.FACTS)
        faults = inventory.differences(nodes)
        if faults:
            raise AnsibleActionFail("\n  ".join([f"The nodes do not agree on {len(faults)} of the address plan's variables; nothing was touched:", *map(str, faults)]))
        options = inventory.options(self._task.args, nodes)
        answer = self._address_blocks(options)
        released = inventory.held_by(leaving, answer.get("held") or [])
        if released:
            changed = bool(answer.get("changed"))
            options["release"] = {**(options.get("release") or {}), **released}
            answer = self._address_blocks(options)
            answer["changed"] = changed or bool(answer.get("changed"))
        result.update(answer)
        return result

    def _address_blocks(self, options: Dict[str, Any]) -> Dict[str, Any]:
        """What the module `address_blocks` answers to these options."""
        valid = ArgumentSpecValidator(address_blocks.ARGUMENT_SPEC).validate(plain(options))
        if valid.error_messages:
            raise AnsibleActionFail("; ".join(valid.error_messages))
        answer = address_blocks.answer(valid.validated_parameters, self._task.check_mode)
        result = dict(answer.values, warnings=answer.warnings) if answer.warnings else dict(answer.values)
        # As a module does: the secrets of a store are in no answer, an error of its server's included.
        return dict(remove_values(result, valid._no_log_values))
