# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What our action plugins share. Controller only.

This module util is PRIVATE to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import base64
import getpass
import os
import socket
import tempfile
from typing import Any, Dict, Iterable, List, Mapping, Optional

from ansible import constants
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.dn42.compose.plugins.module_utils import _service_role as service_role

NODES_GROUP = "dn42_nodes"
LEAVING = "__dn42_leaving"  # a fact of the playbook remove: the names of the nodes that leave in this run


def role_search_path(task_vars: Mapping[str, Any]) -> List[str]:
    """Directories where a user's own service roles may be: beside the playbook, beside the inventory, `roles_path`."""
    beside = [os.path.join(str(task_vars[name]), "roles") for name in ("playbook_dir", "inventory_dir") if task_vars.get(name)]
    return beside + [str(path) for path in constants.DEFAULT_ROLES_PATH or []]


def load_service_roles(names: Iterable[str], task_vars: Mapping[str, Any]) -> List[service_role.ServiceRole]:
    """The service roles of these names, in their order. Fails the task with the name and file that is wrong."""
    try:
        return [service_role.load(str(name), role_search_path(task_vars)) for name in names]
    except service_role.ServiceRoleError as error:
        raise AnsibleActionFail(str(error)) from error


def plain(value: Any) -> Any:
    """A value as plain Python: ansible-core 2.19 tags strings, and YAML's safe dumper refuses subclasses."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, str) else value


def operator() -> str:
    """Who runs this on which controller, for a node's history."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


def send_bytes(action: ActionBase, content: bytes, name: str) -> str:
    """Put `content` into the task's temporary directory on the node (mode 0700) and return its path there."""
    if not action._connection._shell.tmpdir:
        action._make_tmp_path()
    remote = action._connection._shell.join_path(action._connection._shell.tmpdir, name)
    with tempfile.NamedTemporaryFile(prefix="dn42-", dir=constants.DEFAULT_LOCAL_TMP) as local:
        local.write(content)
        local.flush()
        action._transfer_file(local.name, remote)
    return remote


def together(
    action: ActionBase, parts: Mapping[str, Mapping[str, Any]], task_vars: Dict[str, Any], check_mode: Iterable[str] = (), archive: bytes = b""
) -> Dict[str, Dict[str, Any]]:
    """Run modules of ours on the node in one exchange: {module: its result}, with `failed` where it failed.

    parts: {module: options}, of those that the module `together` knows; check_mode: the modules that change nothing in any run;
    archive: what `release` brings, secrets included, which goes with the module over the connection and into no file on the way. The same packed module serves all exchanges of a run, so a single part is sent this way too.
    """
    request: Dict[str, Any] = {"modules": {name: dict(options) for name, options in parts.items()}, "check_mode": sorted(check_mode)}
    if archive:
        request["archive"] = base64.b64encode(archive).decode()
    answer = action._execute_module(module_name="dn42.compose.together", module_args=request, task_vars=task_vars)
    # An exchange that failed is a failure of everything in it.
    return answer["answers"] if "answers" in answer else {name: dict(answer) for name in parts}


class OnePart(ActionBase):
    """The action of a module that is sent as the only part of `together`, which the run may have packed already."""

    PART = ""

    def run(self, tmp: Optional[str] = None, task_vars: Optional[Dict[str, Any]] = None) -> Dict[str, Any]:
        """Answer as the module does."""
        result = super().run(tmp, task_vars)
        result.update(together(self, {self.PART: plain(self._task.args)}, task_vars or {})[self.PART])
        return dict(result)


def with_others(result: Dict[str, Any], others: Mapping[str, Dict[str, Any]]) -> Dict[str, Any]:
    """A module's result with those of the modules that were asked beside it, as `also`. What failed beside it fails it, and says why."""
    warnings = [*result.get("warnings", []), *[text for other in others.values() for text in other.get("warnings", [])]]
    # An exchange that failed as a whole says the same for each.
    failures = list(dict.fromkeys(str(other.get("msg")) for other in others.values() if other.get("failed") and other.get("msg") != result.get("msg")))
    joined = {**result, "also": {name: {**other, "warnings": []} for name, other in others.items()}}
    if warnings:
        joined["warnings"] = warnings
    if failures:
        joined.update(failed=True, msg="\n".join([*([str(result["msg"])] if result.get("failed") else []), *failures]))
    return joined


def node_variables(task_vars: Mapping[str, Any]) -> Dict[str, Dict[str, Any]]:
    """{node: its variables of ours} of every node of the inventory that stays, whatever `--limit` says.

    Only variables of our own are templated, so that a fault in a foreign variable of a host cannot stop us.
    """
    hostvars = task_vars["hostvars"]
    nodes = {}
    for name in task_vars["groups"].get(NODES_GROUP) or []:
        if name in (task_vars.get(LEAVING) or []):
            continue
        host = hostvars[name]
        nodes[str(name)] = {str(variable): host[variable] for variable in host if str(variable).startswith("dn42_") or variable == "ansible_host"}
    return nodes
