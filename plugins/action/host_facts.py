# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Controller side of dn42.compose.host_facts: a host that was read already is judged here, without asking it again."""

from __future__ import annotations

from typing import Any, Dict, Optional

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.dn42.compose.plugins.module_utils import _host
from ansible_collections.dn42.compose.plugins.module_utils._action import plain, together, with_others


class ActionModule(ActionBase):
    """Read the host, or judge what is known of it."""

    def run(self, tmp: Optional[str] = None, task_vars: Optional[Dict[str, Any]] = None) -> Dict[str, Any]:
        """Answer as the module does."""
        result = super().run(tmp, task_vars)
        args = dict(self._task.args)
        known = args.pop("known", None)
        if known is None:
            result.update(self._read(args, task_vars or {}))
            return result
        try:
            judged = _host.judge(plain(known), plain(args.get("wanted") or {}))
        except ValueError as error:
            raise AnsibleActionFail(f"wanted: {error}") from error
        result.update(changed=False, host=known, warnings=judged["notices"], **judged)
        return result

    def _read(self, args: Dict[str, Any], task_vars: Dict[str, Any]) -> Dict[str, Any]:
        also = plain(args.pop("also", None) or {})
        others = together(self, {"host_facts": plain(args), **also}, task_vars, check_mode=also)
        found = others.pop("host_facts")
        if found.get("problems"):
            # A host that cannot be a node: what else was asked of it adds to the list.
            found["problems"] += [str(others.pop(name).get("msg")) for name in sorted(others) if others[name].get("failed")]
        return with_others(found, others) if also else found
