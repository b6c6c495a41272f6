# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Controller side of dn42.compose.node_key: a key that is known needs no question to the node."""

from __future__ import annotations

from typing import Any, Dict, Optional

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """Answer with the known key, or have the module make or read it."""

    def run(self, tmp: Optional[str] = None, task_vars: Optional[Dict[str, Any]] = None) -> Dict[str, Any]:
        """Answer as the module does."""
        result = super().run(tmp, task_vars)
        known = str(self._task.args.get("known") or "")
        if known and not self._task.args.get("private_key"):
            result.update(changed=False, public_key=known)
        else:
            result.update(self._execute_module(task_vars=task_vars))
        return result
