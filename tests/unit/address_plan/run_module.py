# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run the module address_blocks in a process of its own: `run_module.py '{"path": ...}' [moment to die at]`.

The moment is one of the names in `_plan_file` that a write goes through, with `before` or `after`; there the
process kills itself with SIGKILL, as nothing else stops between two system calls on purpose.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

if sys.argv[2:3] == ["without netaddr"]:
    sys.modules["netaddr"] = None  # type: ignore[assignment]  # an import now fails as if it were not installed

from ansible.module_utils.testing import patch_module_args
from ansible_collections.dn42.compose.plugins.module_utils import _plan_file
from ansible_collections.dn42.compose.plugins.modules import address_blocks

MOMENTS = {"fsync": (os, "fsync"), "rename": (Path, "rename"), "directory": (_plan_file, "_sync_directory"), "unlock": (Path, "unlink")}


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def deadly(function: Callable[..., Any], when: str) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        if when == "before":
            die()
        result = function(*args, **kwargs)
        die()
        return result

    return call


def arm(moment: str) -> None:
    name, when = moment.split()
    if name == "unlock":
        original = Path.unlink

        def unlink(self: Path, *args: Any, **kwargs: Any) -> None:
            if self.name.endswith(".lock"):
                deadly(original, when)(self, *args, **kwargs)
            original(self, *args, **kwargs)

        Path.unlink = unlink  # type: ignore[method-assign]
        return
    owner, attribute = MOMENTS[name]
    setattr(owner, attribute, deadly(getattr(owner, attribute), when))


if __name__ == "__main__":
    if len(sys.argv) > 2 and sys.argv[2] != "without netaddr":
        arm(sys.argv[2])
    with patch_module_args(json.loads(sys.argv[1])):
        address_blocks.main()
