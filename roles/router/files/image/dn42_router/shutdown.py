# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Take sessions down with a message to the other side (RFC 8203), before BIRD's configuration takes them down without one.

BIRD's configuration has no such message, only its command `disable` has. The sessions are then declared as disabled, so
they stay down when BIRD is configured or started again. The command outlives a configuration that does not mention it: a
release that is taken back has to enable the sessions that it declares as present.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from .health import BIRDC

SESSIONS = Path("/config/current/shutdown.json")
SECONDS = 10.0


def ask(*command: str, birdc: str = BIRDC) -> str:
    """BIRD's answer; OSError or subprocess.SubprocessError when there is none."""
    done = subprocess.run([birdc, *command], stdin=subprocess.DEVNULL, text=True, capture_output=True, timeout=SECONDS, check=True)
    return done.stdout


def states(protocols: str) -> dict[str, bool]:
    """{name: whether it is down} of the BGP protocols in the answer to `show protocols`."""
    lines = [line.split() for line in protocols.splitlines()]
    return {words[0]: words[3] == "down" for words in lines if len(words) > 3 and words[1] == "BGP"}


def apply(declared: dict[str, Any], birdc: str = BIRDC) -> list[str]:
    """Disable the sessions in `down`, {protocol: message}, and enable those in `up`, where they are not so yet; says what was done."""
    down = states(ask("show", "protocols", birdc=birdc))
    ending = sorted(name for name in declared["down"] if down.get(name) is False)
    returning = sorted(name for name in declared["up"] if down.get(name))
    for name in ending:
        ask("disable", name, f'"{declared["down"][name]}"', birdc=birdc)
    for name in returning:
        ask("enable", name, birdc=birdc)
    return [f"{name} is shut down" for name in ending] + [f"{name} is enabled again" for name in returning]


def main() -> int:
    """0, also where BIRD does not answer (`birdc configure` follows and says so): a message is a courtesy."""
    try:
        done = apply(json.loads(SESSIONS.read_text(encoding="utf-8")))
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        print(f"no message sent: {error}", file=sys.stderr)
        return 0
    for line in done:
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
