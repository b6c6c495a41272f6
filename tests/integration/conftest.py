# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The converged lab that the integration tests work on. Molecule's default scenario leaves it behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(CHECKOUT / "tests" / "lab"))

from network_probe import Lab, wait_for  # noqa: E402  (the path is set above)

NODES = ["fra1", "hkg1"]

# Waits follow from the timers of both sides: peer1's BIRD (tests/lab/peer1/bird.conf) holds a session for 30 s, retries
# every 5 s and waits at most 20 s after an error; ours retries every 10 s and waits at most 60 s after errors; a
# WireGuard that lost its peer tries a new handshake every 5 s, for up to 90 s. Sum of one of each, and as much again.
SESSION_WAIT = 2 * (30 + 60 + 15)


@pytest.fixture(scope="session")
def lab() -> Lab:
    """The lab, with peer1 knowing our keys and every session established."""
    found = Lab(os.environ.get("DN42_LAB", "molecule"))
    found.introduce_all(NODES)
    for node in NODES:
        wait_for_node(found, node)
    return found


def wait_for_node(lab: Lab, node: str, sessions: int = 2) -> None:
    """Wait until a node's sessions are established and a packet crosses to peer1 in both families."""
    wait_for(f"{sessions} sessions of {node}", lambda: len(lab.established(node)) >= sessions, SESSION_WAIT)
    for address in ("172.22.200.80", "fdc0:ffee:9002::80"):
        wait_for(f"{node}: answer from {address}", lambda address=address: lab.ping(node, "dn42-dns", address, count=1), SESSION_WAIT)


def playbook(*arguments: str, check: bool = True, inventory: str = "inventories/demo") -> subprocess.CompletedProcess[str]:
    """Run site.yml, or another playbook, against the lab as an operator does."""
    command = ["ansible-playbook", "-i", inventory, *(arguments or ("site.yml",))]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=900, check=False)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-6000:]}{done.stderr[-2000:]}")
    return done


def changed_hosts(output: str) -> dict[str, int]:
    """{host: changed=N} from the recap of a playbook run."""
    recap = output.partition("PLAY RECAP")[2]
    return {line.split()[0]: int(line.partition("changed=")[2].split()[0]) for line in recap.splitlines() if "changed=" in line}
