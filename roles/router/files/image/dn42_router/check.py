# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check a release before it counts: BIRD's configuration, the tunnels, the packet filter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from .model import ConfigError, load

CAP_NET_ADMIN = 12


def tunnels(directory: Path) -> str | None:
    """What is wrong with tunnels.json, None if nothing."""
    try:
        load(directory / "tunnels.json")
    except ConfigError as error:
        return str(error)
    return None


def command(*argv: str) -> str | None:
    """What a checking program says, None if it is content."""
    result = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=False)
    return None if result.returncode == 0 else f"{argv[0]}: {result.stdout.strip()}"


def may_check_nftables() -> bool:
    """Tell whether nft can be asked: it talks to the kernel even for a dry run."""
    for line in Path("/proc/self/status").read_text("ascii").splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> CAP_NET_ADMIN & 1)
    return False


def main(directory: str) -> int:
    """0: the release can be used. 1: not, with the reasons on standard error."""
    release = Path(directory)
    os.chdir("/")
    problems = [tunnels(release), command("bird", "-p", "-c", str(release / "bird.conf"))]
    if may_check_nftables():
        problems.append(command("nft", "--check", "--file", str(release / "nftables.conf")))
    found = [problem for problem in problems if problem]
    for problem in found:
        print(problem, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
