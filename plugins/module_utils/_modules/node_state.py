# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the module node_state does on a node: read what it is like at this moment.

This module util is PRIVATE to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dn42.compose.plugins.module_utils import _guard, _systemd
from ansible_collections.dn42.compose.plugins.module_utils import _node_health as health


def differing(files: dict[str, str]) -> list[str]:
    """The paths whose content is not the declared one."""
    found = []
    for path, content in sorted(files.items()):
        try:
            same = Path(path).read_text(encoding="utf-8") == content
        except (OSError, UnicodeDecodeError):
            same = False
        found += [] if same else [path]
    return found


def guard_state(module: AnsibleModule, rules: str) -> str:
    """Compare the loaded table with what the rules make of it."""
    listing = _guard.listing()
    # A bare host may have no nft.
    code, running, _err = module.run_command(listing) if module.get_bin_path("nft") else (127, "", "")
    if code != 0:
        return "missing"
    # Without the file nothing can be compared; that it is missing is told with the files.
    if not os.path.exists(rules):
        return "same"
    code, wanted, _err = module.run_command(_guard.listing_of(rules, listing))
    return "same" if code == 0 and wanted == running else "differs"


def unit_states(module: AnsibleModule, units: list[str]) -> dict[str, str]:
    """{unit: what it is} of those that are not active and enabled."""
    found = {}
    states = _systemd.units(module.run_command, ["ActiveState", "UnitFileState"], *units) if units else {}
    for unit in units:
        state = states.get(unit, {})
        if state.get("ActiveState") != "active" or state.get("UnitFileState") not in ("enabled", "static"):
            found[unit] = f"{state.get('ActiveState') or 'unknown'}, {state.get('UnitFileState') or 'not there'}"
    return found


def refuse_worse(module: AnsibleModule, reading: health.Reading) -> None:
    """Fail where the node is worse than in the earlier reading."""
    params = module.params
    tolerances = {name: params[name] for name in ("lost_sessions", "lost_routes")}
    found = health.worse(health.only(params["before"], params["sessions"], params["tunnels"]), reading, tolerances)
    if found:
        cause = f" since {', '.join(params['changed'])} changed" if params["changed"] else ""
        module.fail_json(msg="\n".join([f"{params['name']} is worse than before{cause}; no further node is changed:", *found]), worse=found)


_NAMES = {"type": "list", "elements": "str", "default": []}
ARGUMENT_SPEC: dict[str, Any] = {
    "containers": _NAMES,
    "resolver": {"type": "dict", "default": {}},
    "files": {"type": "dict", "default": {}},
    "guard": {"type": "path"},
    "guard_rules": {"type": "dict", "default": {}},
    "guard_check": {"type": "str", "default": ""},
    "units": _NAMES,
    "absent": _NAMES,
    "before": {"type": "dict"},
    "name": {"type": "str", "default": "the node"},
    "changed": _NAMES,
    "lost_sessions": {"type": "int", "default": 0},
    "lost_routes": {"type": "float", "default": 50},
    "sessions": _NAMES,
    "tunnels": _NAMES,
}


def run(module: AnsibleModule) -> dict[str, Any]:
    """Read the node."""
    params = module.params

    def command(argv: list[str]) -> tuple[int, str, str]:
        return module.run_command(list(argv), environ_update={"LC_ALL": "C.UTF-8"})

    reading = health.read(command, module.get_bin_path("docker"), params["containers"], params["resolver"])
    if params["before"]:
        refuse_worse(module, reading)
    declared = dict(params["files"])
    if params["guard_rules"]:
        declared[params["guard"]] = params["guard_rules"].get(params["guard_check"], "")
    files = differing(declared) + [path for path in params["absent"] if os.path.lexists(path)]
    result = {"changed": False, "reading": reading, "resolver": params["resolver"], "files": files, "units": unit_states(module, params["units"])}
    if params["guard"]:
        result["guard"] = guard_state(module, params["guard"])
    return result
