# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Controller side of dn42.compose.host_facts: a host that was read already is judged here, without asking it again."""

from __future__ import annotations

from typing import Any, Dict, Optional

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.dn42.compose.plugins.module_utils import _host
from ansible_collections.dn42.compose.plugins.module_utils._action import plain


class ActionModule(ActionBase):
    """Read the host, or judge what is known of it."""

    def run(self, tmp: Optional[str] = None, task_vars: Optional[Dict[str, Any]] = None) -> Dict[str, Any]:
        """Answer as the module does."""
        result = super().run(tmp, task_vars)
        args = dict(self._task.args)
        known = args.pop("known", None)
        if known is None:
            result.update(self._execute_module(module_args=args, task_vars=task_vars))
            return result
        try:
            judged = _host.judge(plain(known), plain(args.get("wanted") or {}))
        except ValueError as error:
            raise AnsibleActionFail(f"wanted: {error}") from error
        result.update(changed=False, host=known, warnings=judged["notices"], **judged)
        return result
