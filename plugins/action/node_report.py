# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Put together what the playbook verify has read of all nodes: a table, a file for machines, and whether all is well."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict, List, Optional

from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase
from ansible_collections.dn42.compose.plugins.module_utils import _node_report as report
from ansible_collections.dn42.compose.plugins.module_utils._action import plain
from ansible_collections.dn42.compose.plugins.module_utils._release import write_atomically


class ActionModule(ActionBase):
    """Runs on the controller alone; the nodes were read by other tasks."""

    _VALID_ARGS = frozenset(("json", "peers"))

    def run(self, tmp: Optional[str] = None, task_vars: Optional[Dict[str, Any]] = None) -> Dict[str, Any]:
        """Print the table; failed when something is not as declared or a node was not reached, with `report` when all is well."""
        result = super().run(tmp, task_vars)
        task_vars = task_vars or {}
        peers = boolean(self._task.args.get("peers", True))
        nodes = {str(node): self._findings(str(node), task_vars, peers) for node in task_vars["ansible_play_hosts_all"]}
        found = report.as_json(nodes)
        self._display.display("\n".join(["", *report.table(nodes), ""]))
        path = self._task.args.get("json")
        if path:
            write_atomically(Path(str(path)).expanduser(), (json.dumps(found, indent=2, sort_keys=True) + "\n").encode(), 0o644)
        result.update(changed=False, failed=not found["ok"], msg=report.summary(nodes))
        if found["ok"]:
            # Ansible prints all of a failed result, and the table has just said it.
            result["report"] = found
        return result

    @staticmethod
    def _findings(node: str, task_vars: Dict[str, Any], peers: bool) -> Optional[List[report.Finding]]:
        """What is not as declared on a node, None where it was not reached."""
        hostvars = task_vars["hostvars"][node]
        results = {name: plain(hostvars[name]) for name in report.RESULTS if name in hostvars}
        if node not in task_vars["ansible_play_hosts"] and report.STATE not in results:
            return None
        return report.findings(node, results, peers)
