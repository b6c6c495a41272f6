# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the integration tests share: runs of the playbook, and waits that follow from the timers of both sides."""

from __future__ import annotations

import subprocess
from pathlib import Path

from network_probe import Lab, wait_for

CHECKOUT = Path(__file__).resolve().parent.parent.parent
NODES = ["fra1", "hkg1"]

# Waits follow from the timers of both sides: peer1's BIRD (tests/lab/peer1/etc/bird/bird.conf) holds a session for 30 s, retries
# every 5 s and waits at most 20 s after an error; ours retries every 10 s and waits at most 60 s after errors; a
# WireGuard that lost its peer tries a new handshake every 5 s, for up to 90 s. Sum of one of each, and as much again.
SESSION_WAIT = 2 * (30 + 60 + 15)


def wait_for_node(lab: Lab, node: str, sessions: int = 2) -> None:
    """Wait until a node's sessions are established and a packet crosses to peer1 in both families."""
    wait_for(f"{sessions} sessions of {node}", lambda: len(lab.established(node)) >= sessions, SESSION_WAIT)
    if node in NODES:
        # A node whose peer died believes in the session until its hold time is over; the peer knows better.
        wait_for(f"peer1's session with {node}", lambda: node in lab.established("peer1"), SESSION_WAIT)
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
