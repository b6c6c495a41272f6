#!/usr/bin/env python3
# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""How long traffic stops when a node dies, in a converged lab of three nodes; `make bench-outage` runs it.

Each survivor sends ten packets a second to the other one and to peer1, in both families, while the node is killed without a
word. What is told is the longest gap between two answers. There is no goal: the figures follow from the timers of both sides.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(CHECKOUT / "tests" / "lab"), str(CHECKOUT / "tests" / "integration")]

from inventory_copy import InventoryCopy  # noqa: E402
from network_probe import Lab, wait_for  # noqa: E402
from support import NODES, playbook, wait_for_node  # noqa: E402
from test_third_node import ADDRESS, EVERYBODY, FOREIGN, HOST, RECOVERY  # noqa: E402

Seconds = float
# Between two packets.
INTERVAL: Seconds = 0.1
ANSWER = re.compile(r"^\[(\d+\.\d+)\] .*icmp_seq=", re.MULTILINE)


def say(text: str) -> None:
    """One line of progress."""
    print(text, flush=True)


def longest_gap(log: str) -> Seconds:
    """Longest time between two answers in the output of `ping -D`. Raises ValueError without two answers."""
    moments = [float(moment) for moment in ANSWER.findall(log)]
    return max(later - earlier for earlier, later in zip(moments, moments[1:], strict=False))


@contextmanager
def pings(lab: Lab, streams: dict[str, tuple[str, str]]) -> Iterator[dict[str, Seconds]]:
    """Send packets while the body runs; {stream: longest gap} is filled in afterwards. A stream is (node, address)."""
    gaps: dict[str, Seconds] = {}
    logs = {name: f"/run/outage-{number}.log" for number, name in enumerate(streams)}
    for name, (node, address) in streams.items():
        command = f"docker exec dn42-dns timeout 600 ping -D -n -i {INTERVAL} {address} > {logs[name]} 2>&1"
        lab.run(node, "systemd-run", "--quiet", "--collect", "sh", "-c", command)
    time.sleep(2)
    try:
        yield gaps
    finally:
        for node in {node for node, _address in streams.values()}:
            lab.run(node, "pkill", "-x", "ping", check=False)
    for name, (node, _address) in streams.items():
        gaps[name] = longest_gap(lab.run(node, "cat", logs[name]).stdout)


def measure(lab: Lab, dead: str) -> None:
    """Kill one node, print the gaps of the others, start it again."""
    first, second = (node for node in EVERYBODY if node != dead)
    streams = {}
    for node, other in ((first, second), (second, first)):
        for address in lab.addresses(other, "dn42-looking-glass"):
            streams[f"{node} -> {other} {address}"] = (node, address)
        for address in FOREIGN:
            streams[f"{node} -> peer1 {address}"] = (node, address)
    with pings(lab, streams) as gaps:
        lab.lab("kill", dead)
        time.sleep(2 * INTERVAL)
        for node, address in streams.values():
            wait_for(f"{node} -> {address}", lambda node=node, address=address: lab.ping(node, "dn42-dns", address, count=1), RECOVERY)
        time.sleep(2)
    for name, gap in sorted(gaps.items()):
        say(f"  {name:40} {gap:6.1f} s without an answer")
    lab.lab("add", dead)
    wait_for_node(lab, dead)


def main() -> int:
    """Deploy three nodes and kill each one once."""
    lab = Lab(os.environ["DN42_LAB"])
    inventory = InventoryCopy("outage", lab.name)
    inventory.hosts({**inventory.addresses(), HOST: ADDRESS})
    try:
        playbook("site.yml")
        lab.introduce_all(NODES)
        inventory.run()
        for dead in EVERYBODY:
            for node in EVERYBODY:
                wait_for_node(lab, node)
            say(f"{dead} dies:")
            measure(lab, dead)
    finally:
        inventory.remove()
    return 0


if __name__ == "__main__":
    sys.exit(main())
