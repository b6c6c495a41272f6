# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run the module packet_trace such that the trace on the node ends soon when ansible-playbook is killed."""

from __future__ import annotations

import ctypes
import signal
import sys
from typing import Any, Dict, Optional

from ansible.plugins.action import ActionBase

_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Let the kernel kill this process when the one that started it ends. Linux only; elsewhere the trace ends at its deadline."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


class ActionModule(ActionBase):
    """Run the module.

    A task runs in a process of its own, which outlives ansible-playbook when that is killed, and so does its connection. The
    module writes blank lines while it works: with nobody to read them the connection breaks, and the module ends.
    """

    def run(self, tmp: Optional[str] = None, task_vars: Optional[Dict[str, Any]] = None) -> Dict[str, Any]:
        """Return the module's answer."""
        die_with_parent()
        result = super().run(tmp, task_vars)
        result.update(self._execute_module(task_vars=task_vars))
        return result
