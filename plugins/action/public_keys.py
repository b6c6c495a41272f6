# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Keep the nodes' public keys in a file beside the inventory, so that a run with --limit still knows all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Mapping, Optional

import yaml
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.dn42.compose.plugins.module_utils import _inventory_values as values
from ansible_collections.dn42.compose.plugins.module_utils._release import write_atomically

HEADER = "# Public keys of the nodes, written by dn42.compose.public_keys. Keep this file in git.\n"


def read_keys(path: Path) -> Dict[str, str]:
    """The keys a file holds, {} where there is no file. Raises AnsibleActionFail with the file's name."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except FileNotFoundError:
        return {}
    except (OSError, yaml.YAMLError) as error:
        raise AnsibleActionFail(f"{path}: {error}") from error
    if not isinstance(content, dict):
        raise AnsibleActionFail(f"{path}: must be a mapping of node names to public keys")
    for name, key in content.items():
        try:
            values.wireguard_key(key)
        except values.BadValue as error:
            raise AnsibleActionFail(f"{path}: {name}: {error}") from error
    return {str(name): key for name, key in content.items()}


def keys_text(keys: Mapping[str, str]) -> str:
    """One line for each node, sorted: branches of the inventory merge without conflict."""
    return HEADER + "".join(yaml.safe_dump({name: keys[name]}, width=200) for name in sorted(keys))


class ActionModule(ActionBase):
    """Merge the keys of this run's nodes into the file. Runs on the controller alone."""

    _VALID_ARGS = frozenset(("path", "result", "forget"))

    def run(self, tmp: Optional[str] = None, task_vars: Optional[Dict[str, Any]] = None) -> Dict[str, Any]:
        """Answer with `public_keys`: {node: key} of all nodes that ever had one, and `known`: those that the file had before."""
        result = super().run(tmp, task_vars)
        task_vars = task_vars or {}
        path = Path(str(self._task.args["path"]))
        before = read_keys(path)
        forgotten = [str(name) for name in self._task.args.get("forget") or []]
        keys = {name: key for name, key in {**before, **self._reported(task_vars)}.items() if name not in forgotten}
        changed = keys != before
        if changed and not self._task.check_mode:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, keys_text(keys).encode(), 0o644)
        if self._task.diff and changed:
            result["diff"] = {"before_header": str(path), "after_header": str(path), "before": keys_text(before), "after": keys_text(keys)}
        result.update(changed=changed, public_keys=keys, known=before)
        return result

    def _reported(self, task_vars: Mapping[str, Any]) -> Dict[str, str]:
        """The keys that this run's nodes told, from the result that was registered under the name `result`."""
        name = self._task.args.get("result")
        found = {}
        for host in task_vars["ansible_play_hosts"]:
            hostvars = task_vars["hostvars"][host]
            key = hostvars[name].get("public_key") if name and name in hostvars else None
            if key:
                found[str(host)] = str(key)
        return found
