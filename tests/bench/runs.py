#!/usr/bin/env python3
# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""How long runs of site.yml take on real hosts of the lab, as ratios to Ansible's own floor; `make bench-runs` runs it.

The floor is a playbook that gathers facts and runs one command on the same hosts. It is measured in turn with what it is
compared with, and medians count. Fails when a goal is missed. Docs: docs/bench.md.
"""

from __future__ import annotations

import base64
import hashlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(CHECKOUT / "tests" / "lab"), str(CHECKOUT / "tests" / "integration")]

from inventory_copy import InventoryCopy  # noqa: E402
from network_probe import Lab  # noqa: E402

FLOOR = "tests/bench/floor.yml"
SITE = "site.yml"
HOSTS = {"fra1": "203.0.113.11", "hkg1": "203.0.113.12", "nrt1": "203.0.113.13", "syd1": "203.0.113.14"}
NODE = "fra1"
PEERS = (1, 10, 100, 300)
ROUNDS = 3
# In times the floor, except for the last.
GOAL_SECOND_RUN = 3.0
GOAL_ADDED_PEER = 5.0
GOAL_100_TO_1_PEER = 1.3

Seconds = float


class Row(NamedTuple):
    """One line of the table: what was run, how long it took, and the floor on the same hosts."""

    what: str
    seconds: Seconds
    floor: Seconds

    @property
    def ratio(self) -> float:
        """In times the floor."""
        return self.seconds / self.floor


def say(text: str) -> None:
    """One line of progress."""
    print(f"    {text}", flush=True)


class Runs:
    """Runs of playbooks on the lab with an inventory of the bench's own."""

    def __init__(self, inventory: InventoryCopy) -> None:
        self.inventory = inventory
        self.rows: list[Row] = []

    def seconds(self, playbook: str, *arguments: str) -> Seconds:
        """How long one run takes on the clock. Ends the bench when it fails."""
        command = ["ansible-playbook", "-i", str(self.inventory.folder), playbook, *arguments]
        start = time.monotonic()
        done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=1800, check=False)
        if done.returncode != 0:
            sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-6000:]}{done.stderr[-2000:]}")
        return time.monotonic() - start

    def compared(self, what: str, *arguments: str) -> Row:
        """A run that changes nothing, in turn with the floor."""
        floors, runs = [], []
        for _round in range(ROUNDS):
            floors.append(self.seconds(FLOOR, *arguments))
            runs.append(self.seconds(SITE, *arguments))
        return self.row(what, statistics.median(runs), statistics.median(floors))

    def row(self, what: str, seconds: Seconds, floor: Seconds) -> Row:
        """Remember and show a line."""
        self.rows.append(Row(what, seconds, floor))
        say(f"{what:44} {seconds:7.1f} s   floor {floor:5.1f} s   {seconds / floor:6.2f}")
        return self.rows[-1]


def stranger(number: int) -> dict[str, Any]:
    """A peer that never answers: what a run costs does not depend on that."""
    key = base64.b64encode(hashlib.sha256(f"peer {number}".encode()).digest()).decode()
    return {"name": f"b{number}", "asn": 4200430000 + number, "public_key": key, "listen_port": 10000 + number, "peer_address": f"fe80::b:{number:x}"}


def peers(real: Sequence[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """`count` peers, the real ones first."""
    return [*real, *[stranger(number) for number in range(count - len(real))]]


def one_node(runs: Runs, lab: Lab, real: Sequence[dict[str, Any]]) -> dict[int, tuple[Row, Row]]:
    """{number of peers: (second run, one peer more)} on one node."""
    found = {}
    for count in PEERS:
        runs.inventory.set(NODE, dn42_peers=peers(real, count))
        changing = runs.seconds(SITE, "--limit", NODE)
        second = runs.compared(f"{count} peers: second run", "--limit", NODE)
        runs.row(f"{count} peers: the run that brought them", changing, second.floor)
        before, interfaces = lab.ages(NODE), lab.interfaces(NODE)
        runs.inventory.set(NODE, dn42_peers=peers(real, count + 1))
        added = runs.row(f"{count} peers: one peer more", runs.seconds(SITE, "--limit", NODE), second.floor)
        after = lab.ages(NODE)
        moved = sorted(name for name, age in before.items() if after.get(name) != age)
        moved += sorted(interfaces.items() - lab.interfaces(NODE).items())
        if moved or len(after) != len(before) + 1:
            sys.exit(f"one peer more, and others did not stay as they were: {moved}")
        found[count] = (second, added)
    return found


def several_nodes(runs: Runs, real: Sequence[dict[str, Any]], count: int) -> None:
    """The second run of several nodes with ten peers each."""
    names = list(HOSTS)[:count]
    runs.inventory.hosts({name: HOSTS[name] for name in names})
    for number, name in enumerate(names):
        written = peers(real if name == NODE else [], 10)
        runs.inventory.set(name, dn42_peers=[{**peer, "listen_port": peer["listen_port"] + number} for peer in written])
    # The first node has had hundreds of tunnels; that most of them leave is meant.
    changing = runs.seconds(SITE, "-e", "dn42_stack_allow_removal=true")
    second = runs.compared(f"{count} nodes of 10 peers: second run")
    runs.row(f"{count} nodes of 10 peers: the run that brought them", changing, second.floor)


def judge(what: str, value: float, goal: float) -> bool:
    """Say whether a goal is met."""
    print(f"{'ok  ' if value <= goal else 'MISS'}  {what}: {value:.2f}, at most {goal:.2f}")
    return value <= goal


def main() -> int:
    """0: every goal is met."""
    lab = Lab(os.environ.get("DN42_LAB", "bench"))
    inventory = InventoryCopy("bench", lab.name)
    real = yaml.safe_load((inventory.folder / "host_vars" / f"{NODE}.yml").read_text())["dn42_peers"]
    for name in ("nrt1", "syd1"):
        (inventory.folder / "host_vars" / f"{name}.yml").write_text("---\n{}\n")
    runs = Runs(inventory)
    try:
        first = runs.seconds(SITE)
        runs.row("2 bare hosts: first run", first, runs.seconds(FLOOR))
        found = one_node(runs, lab, real)
        several_nodes(runs, real, 2)
        several_nodes(runs, real, 4)
    finally:
        inventory.remove()
    print(f"{'':44} {'seconds':>8} {'floor':>8} {'ratio':>8}")
    for row in runs.rows:
        print(f"{row.what:44} {row.seconds:8.1f} {row.floor:8.1f} {row.ratio:8.2f}")
    met = [
        judge("second run with 100 peers, in times the floor", found[100][0].ratio, GOAL_SECOND_RUN),
        judge("second run with 100 peers, in times that with 1", found[100][0].ratio / found[1][0].ratio, GOAL_100_TO_1_PEER),
        judge("one peer more of 100, in times the floor", found[100][1].ratio, GOAL_ADDED_PEER),
    ]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
