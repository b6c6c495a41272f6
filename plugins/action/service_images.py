# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Controller side of dn42.compose.service_images: send the build contexts of the images that the node lacks."""

from __future__ import annotations

from typing import Any, Dict, List, Optional

from ansible.plugins.action import ActionBase
from ansible_collections.dn42.compose.plugins.module_utils import _service_role as service_role
from ansible_collections.dn42.compose.plugins.module_utils._action import load_service_roles, plain, send_bytes


class ActionModule(ActionBase):
    """Compute the images' tags on the controller, ask the node once, send only what is missing."""

    def run(self, tmp: Optional[str] = None, task_vars: Optional[Dict[str, Any]] = None) -> Dict[str, Any]:
        """Answer with `images`: {role: tag}, and what was loaded or built."""
        result = super().run(tmp, task_vars)
        task_vars = task_vars or {}
        args = plain(self._task.args)
        base_image = str(args.get("base_image"))
        roles = load_service_roles(args.get("services") or [], task_vars)
        tags = {role.name: role.image_tag(base_image) for role in roles}
        if set(tags.values()) <= set(args.get("known") or []):
            result.update(changed=False, missing=[], images=tags)
            return result
        request = {"images": tags, "base_image": base_image, "archive": args.get("archive")}
        answer = self._execute_module(module_name="dn42.compose.service_images", module_args=request, task_vars=task_vars)
        missing = answer.get("missing") or []
        if not answer.get("failed") and missing and not self._task.check_mode:
            answer = self._build(request, [role for role in roles if role.name in missing], task_vars)
        result.update(answer, images=tags)
        return result

    def _build(self, request: Dict[str, Any], roles: List[service_role.ServiceRole], task_vars: Dict[str, Any]) -> Dict[str, Any]:
        contexts = {}
        try:
            for role in roles:
                self._display.display(f"[{task_vars.get('inventory_hostname')}] building image {request['images'][role.name]} on the node")
                contexts[role.name] = send_bytes(self, service_role.image_archive(role), f"{role.name}.tar.gz")
            return self._execute_module(module_name="dn42.compose.service_images", module_args={**request, "contexts": contexts}, task_vars=task_vars)
        finally:
            self._remove_tmp_path(self._connection._shell.tmpdir)
