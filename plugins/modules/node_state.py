#!/usr/bin/python
# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: node_state
short_description: Read what a node is like at this moment
description:
  - Reads containers, sessions, tunnels, addresses and the resolver, and compares the guard's files and its loaded table with what is
    declared. Changes nothing.
author:
  - the dn42.compose contributors
attributes:
  check_mode:
    description: Reads in check mode as well.
    support: full
  diff_mode:
    description: There is nothing to compare.
    support: none
options:
  containers:
    description: Names of the node's containers.
    type: list
    elements: str
    default: []
  resolver:
    description: Addresses of the node's resolver by family, C(ipv4) and C(ipv6). Empty for none.
    type: dict
    default: {}
  files:
    description: Declared files with their contents, by path.
    type: dict
    default: {}
  guard:
    description: The file with the guard's rules. Its table is compared with the one that is loaded.
    type: path
  units:
    description: Units that have to be active, and enabled unless another one brings them.
    type: list
    elements: str
    default: []
  absent:
    description: Files that must not be there.
    type: list
    elements: str
    default: []
  before:
    description: An earlier C(reading). The module fails where the node is worse now.
    type: dict
  name:
    description: The node's name, for the message of O(before).
    type: str
    default: the node
  changed:
    description: The nodes that were changed since O(before), for its message.
    type: list
    elements: str
    default: []
  lost_sessions:
    description: How many sessions may be lost, with O(before).
    type: int
    default: 0
  lost_routes:
    description: Percent of a session's routes of one family that may be gone, with O(before).
    type: float
    default: 50
  sessions:
    description: Sessions that are to be up, with O(before). Others are about to leave, or were shut down on purpose, and are not compared.
    type: list
    elements: str
    default: []
  tunnels:
    description: Tunnels that are to be there, with O(before). Others are about to leave and are not compared.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Read the node
  dn42.compose.node_state:
    containers: [dn42-router, dn42-dns]
    resolver: {ipv4: 172.23.255.4}
    guard: /etc/dn42/guard.nft
    units: [dn42-guard.service]

- name: Fail where the node is worse than before
  dn42.compose.node_state:
    containers: [dn42-router, dn42-dns]
    before: "{{ before.reading }}"
"""

RETURN = r"""
reading:
  description: Containers, sessions, tunnels, keeper, resolver, addresses, and problems of reading.
  returned: success
  type: dict
resolver:
  description: What was given as O(resolver), for the next reading.
  returned: success
  type: dict
files:
  description: Those of O(files) that are missing or have other contents, and those of O(absent) that are there.
  returned: success
  type: list
  elements: str
guard:
  description: V(same), V(differs) or V(missing).
  returned: when O(guard) is given
  type: str
units:
  description: Those of O(units) that are not active and enabled, and what they are.
  returned: success
  type: dict
"""

import os
from pathlib import Path

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


def main() -> None:
    """Read the node."""
    names = {"type": "list", "elements": "str", "default": []}
    module = AnsibleModule(
        argument_spec={
            "containers": names,
            "resolver": {"type": "dict", "default": {}},
            "files": {"type": "dict", "default": {}},
            "guard": {"type": "path"},
            "units": names,
            "absent": names,
            "before": {"type": "dict"},
            "name": {"type": "str", "default": "the node"},
            "changed": names,
            "lost_sessions": {"type": "int", "default": 0},
            "lost_routes": {"type": "float", "default": 50},
            "sessions": names,
            "tunnels": names,
        },
        supports_check_mode=True,
    )
    params = module.params

    def run(argv: list[str]) -> tuple[int, str, str]:
        return module.run_command(list(argv), environ_update={"LC_ALL": "C.UTF-8"})

    reading = health.read(run, module.get_bin_path("docker"), params["containers"], params["resolver"])
    if params["before"]:
        refuse_worse(module, reading)
    files = differing(params["files"]) + [path for path in params["absent"] if os.path.lexists(path)]
    result = {"reading": reading, "resolver": params["resolver"], "files": files, "units": unit_states(module, params["units"])}
    if params["guard"]:
        result["guard"] = guard_state(module, params["guard"])
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
