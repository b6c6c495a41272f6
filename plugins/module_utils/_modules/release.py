# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the module release does on a node: look at what a release would change, or have one carried out.

This module util is PRIVATE to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any, Dict, List, Sequence, Tuple

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dn42.compose.plugins.module_utils._release import Node, ReleaseError
from ansible_collections.dn42.compose.plugins.module_utils._release_history import History
from ansible_collections.dn42.compose.plugins.module_utils._release_transaction import Transaction
from ansible_collections.dn42.compose.plugins.module_utils._release_unit import TOLERANCE_SPEC, ask, missing_parts, seconds, told


def inspect(node: Node) -> Tuple[List[Dict[str, Any]], List[str]]:
    """What a release would change, and what the operator should know of the node. Raises ReleaseError for what it may not do."""
    found = node.changes()
    if Transaction(node.directory).open:
        found.append({"what": "an unconfirmed release is undone first"})
    found += [{"what": what} for what in missing_parts(node.directory)]
    if found:
        node.refuse_removal()
    warnings = node.remarks()
    undone = History(node.directory).undone()
    if undone:
        warnings.append("\n  ".join([f"The last release to this node was undone ({undone['when']}, by {undone['who']}):", *undone["report"]]))
    return found, warnings


ARGUMENT_SPEC: dict[str, Any] = {
    "services": {"type": "list", "elements": "str"},
    "model": {"type": "dict"},
    "images": {"type": "dict"},
    "directory": {"type": "path"},
    "project": {"type": "str"},
    "bridge": {"type": "str"},
    "wait": {"type": "int", "default": 120},
    "renumber": {"type": "bool", "default": False},
    **TOLERANCE_SPEC,
    "removal_limit": {"type": "int", "default": 50},
    "allow_removal": {"type": "bool", "default": False},
    "network_only": {"type": "bool", "default": False},
    "known": {"type": "dict"},
    "also": {"type": "dict"},
    "inspected": {"type": "dict"},
    "operation": {"type": "str", "choices": ["inspect", "inspect_network", "apply"]},
    "declared": {"type": "dict"},
    "archive": {"type": "str", "no_log": True},
    "who": {"type": "str"},
    "what": {"type": "list", "elements": "str"},
}


def run(module: AnsibleModule) -> Dict[str, Any]:
    """Inspect the node, or apply the release that was sent."""

    def command(argv: Sequence[str]) -> Tuple[int, str, str]:
        code, out, err = module.run_command(list(argv))
        return code, out, err

    params = module.params
    declared: Dict[str, Any] = params["declared"]
    node = Node(declared, command, module.get_bin_path("docker"))
    try:
        if params["operation"] == "inspect":
            found, warnings = inspect(node)
            for warning in warnings:
                module.warn(warning)
            return {"changed": bool(found), "found": found}
        if params["operation"] == "inspect_network":
            change = node.network_change()
            return {"changed": False, "found": [change] if change else []}
        asked = {"operation": "release", "declared": declared, "who": params["who"], "what": params["what"]}
        result = ask(Path(declared["directory"]), asked, base64.b64decode(params["archive"]), seconds(declared), command)
    except (ReleaseError, OSError) as error:
        module.fail_json(msg=str(error))
    return told(module, result)
