# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask systemd about units, for the modules that run on nodes.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

from typing import Callable, Dict

# Runs a command: argv in, exit code, stdout and stderr out; 127 for a program that is not there.
Runner = Callable[[list], "tuple[int, str, str]"]


def parse_show(text: str) -> Dict[str, Dict[str, str]]:
    """Return {unit: {property: value}} of the output of ``systemctl show`` with the property Id among those asked for."""
    found = {}
    for block in text.strip().split("\n\n"):
        values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if values.get("Id"):
            found[values["Id"]] = values
    return found


def units(run: Runner, properties: list, *names: str) -> Dict[str, Dict[str, str]]:
    """Return {unit: {property: value}} of units; nothing of one that systemd does not tell about, and nothing at all without systemd."""
    code, out, _err = run(["systemctl", "show", f"--property={','.join(['Id', *properties])}", *names])
    return parse_show(out) if code == 0 else {}


def is_active(run: Runner, name: str) -> bool:
    """Tell whether a unit is active. One that is stopped is not started by the question."""
    return units(run, ["ActiveState"], name).get(name, {}).get("ActiveState") in ("active", "reloading")
