# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Controller side of dn42.compose.release_rollback: tell the node who goes back."""

from __future__ import annotations

from typing import Any, Dict, Optional

from ansible.plugins.action import ActionBase
from ansible_collections.dn42.compose.plugins.module_utils._action import operator, plain


class ActionModule(ActionBase):
    """Call the module with the name of whoever runs the playbook."""

    def run(self, tmp: Optional[str] = None, task_vars: Optional[Dict[str, Any]] = None) -> Dict[str, Any]:
        """Answer as the module does."""
        result = super().run(tmp, task_vars)
        args = {**plain(self._task.args), "who": operator()}
        result.update(self._execute_module(module_name="dn42.compose.release_rollback", module_args=args, task_vars=task_vars or {}))
        return result
