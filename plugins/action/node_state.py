# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Controller side of dn42.compose.node_state: sent as part of `together`, which the run has packed already."""

from __future__ import annotations

from typing import Any, Dict, Optional

from ansible.plugins.action import ActionBase
from ansible_collections.dn42.compose.plugins.module_utils._action import plain, together


class ActionModule(ActionBase):
    """Run the module."""

    def run(self, tmp: Optional[str] = None, task_vars: Optional[Dict[str, Any]] = None) -> Dict[str, Any]:
        """Answer as the module does."""
        result = super().run(tmp, task_vars)
        result.update(together(self, {"node_state": plain(self._task.args)}, task_vars or {})["node_state"])
        return result
