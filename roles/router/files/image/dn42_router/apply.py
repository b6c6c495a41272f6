# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Have the keeper apply the present release and wait until it has; run by root in the container."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

from .keeper import CONFIG, NFTABLES, STATUS
from .model import ConfigError, load
from .system import sha256

DEFAULT_SECONDS = 30.0
# More for each tunnel: on a small server without WireGuard in the kernel, each starts a program of its own.
SECONDS_PER_TUNNEL = 0.5


def applied(status: dict[str, Any], since: float) -> bool:
    """Tell whether a pass begun after `since` put the present release into effect, with nothing starting."""
    return (
        status.get("began", 0) >= since
        and status.get("configuration") == sha256(CONFIG)
        and status.get("nftables") == sha256(NFTABLES)
        and not any(state["error"] == "starting" for state in status.get("tunnels", {}).values())
    )


def problems(status: dict[str, Any]) -> list[str]:
    """All that the keeper could not do, sorted."""
    found = [f"{what}: {error}" for what, error in status.get("problems", {}).items()]
    found += [f"{name}: {state['error']}" for name, state in status.get("tunnels", {}).items() if state["error"]]
    return sorted(found)


def tunnel_count() -> int:
    """Number of tunnels that the present release declares; 0 where it cannot be read, which the keeper reports."""
    try:
        return len(load(CONFIG).tunnels)
    except ConfigError:
        return 0


def main(base: float) -> int:
    """0: applied, even if single tunnels fail (said on standard error). 1: not within `base` seconds and some for each tunnel."""
    start = time.time()
    seconds = base + SECONDS_PER_TUNNEL * tunnel_count()
    subprocess.run(["s6-svc", "-h", "/run/service/keeper"], timeout=5, check=True)
    status: dict[str, Any] = {}
    while time.time() - start < seconds:
        time.sleep(0.2)
        try:
            status = json.loads(STATUS.read_bytes())
        except (OSError, ValueError):
            continue
        if applied(status, start):
            break
    for line in problems(status):
        print(line, file=sys.stderr)
    if applied(status, start):
        return 0
    print(f"the keeper has not applied the release within {seconds:g} s", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_SECONDS))
