# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The container's health check: BIRD answers, the keeper is at work, every interface is there."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from pathlib import Path

from .keeper import CONFIG, STATUS
from .model import ConfigError, load

FRESH_SECONDS = 30
# A wrapper of the image: it takes BIRD's user, the only one who may talk to the socket.
BIRDC = "/usr/local/sbin/birdc"


def keeper_problems(status: Path, now: float) -> list[str]:
    """What is wrong with the keeper's status file; `now` in seconds since 1970."""
    try:
        written = json.loads(status.read_bytes())["written"]
    except (OSError, ValueError, KeyError, TypeError):
        return ["the tunnel keeper has written no status"]
    age = int(now - written)
    return [f"the tunnel keeper's status is {age} s old"] if age > FRESH_SECONDS else []


def interface_problems(config: Path, present: set[str]) -> list[str]:
    """Declared interfaces that are not among those present."""
    try:
        declared = [tunnel.name for tunnel in load(config).tunnels]
    except ConfigError as error:
        return [str(error)]
    missing = sorted(set(declared) - present)
    return [f"missing interfaces: {' '.join(missing)}"] if missing else []


def remarks(status: Path) -> list[str]:
    """What an operator should know of a router that does its work: no ROA data, a service that does not answer, a tunnel that could not be made."""
    try:
        told = json.loads(status.read_bytes())
        roa = told["problems"].get("roa")
        silent = sorted(address for address, up in (told.get("anycast") or {}).items() if not up)
        failed = {name: tunnel["error"] for name, tunnel in (told.get("tunnels") or {}).items() if not tunnel["ok"] and tunnel["error"] not in (None, "starting")}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
    return (
        ([f"roa: {roa}"] if roa else [])
        + [f"anycast {address}: not announced, its service does not answer" for address in silent]
        + [f"{name}: {error}" for name, error in sorted(failed.items())]
    )


def bird_problems() -> list[str]:
    """What is wrong with BIRD."""
    try:
        result = subprocess.run([BIRDC, "show", "status"], stdin=subprocess.DEVNULL, text=True, capture_output=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ["BIRD does not answer"]
    return [] if "Daemon is up and running" in result.stdout else ["BIRD does not answer"]


def main() -> int:
    """0: healthy. 1: not, with the reasons on standard output."""
    present = {name for _index, name in socket.if_nameindex()}
    problems = bird_problems() + keeper_problems(STATUS, time.time()) + interface_problems(CONFIG, present)
    print("; ".join([*(problems or ["healthy"]), *remarks(STATUS)]))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
