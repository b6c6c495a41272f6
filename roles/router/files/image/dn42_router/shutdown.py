# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Take sessions down with a message to the other side (RFC 8203), before BIRD's configuration takes them down without one.

BIRD's configuration has no such message, only its command `disable` has. The sessions are then declared as disabled, so
they stay down when BIRD is configured or started again.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from .health import BIRDC

MESSAGES = Path("/config/current/shutdown.json")
SECONDS = 10.0


def ask(*command: str, birdc: str = BIRDC) -> str:
    """BIRD's answer; OSError or subprocess.SubprocessError when there is none."""
    done = subprocess.run([birdc, *command], stdin=subprocess.DEVNULL, text=True, capture_output=True, timeout=SECONDS, check=True)
    return done.stdout


def running(protocols: str) -> set[str]:
    """Names in the answer to `show protocols` whose protocol is not down."""
    lines = [line.split() for line in protocols.splitlines()]
    return {words[0] for words in lines if len(words) > 3 and words[1] == "BGP" and words[3] != "down"}


def take_down(messages: dict[str, str], birdc: str = BIRDC) -> list[str]:
    """Disable the sessions in {protocol: message} that are not down yet; returns their names, sorted."""
    names = sorted(set(messages) & running(ask("show", "protocols", birdc=birdc))) if messages else []
    for name in names:
        ask("disable", name, f'"{messages[name]}"', birdc=birdc)
    return names


def main() -> int:
    """0, also where BIRD does not answer (`birdc configure` follows and says so): a message is a courtesy."""
    try:
        names = take_down(json.loads(MESSAGES.read_text(encoding="utf-8")))
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        print(f"no message sent: {error}", file=sys.stderr)
        return 0
    for name in names:
        print(f"{name} is shut down")
    return 0


if __name__ == "__main__":
    sys.exit(main())
