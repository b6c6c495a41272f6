# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Adding a node is adding a host: one run, and the first two nodes notice nothing but a new neighbour. Then one of the three dies.

How long traffic stops then is measured by tests/bench/outage.py. Here it is bounded by the timers (seconds): Babel hears nothing of a dead
neighbour for 3 hellos of 4; iBGP holds a session for 30; peer1 holds it for 30 (tests/lab/peer1/etc/bird/bird.conf) and then keeps
the dead node's routes for our restart time of 60 (roles/router/templates/config/bird.conf.j2), in which it may still prefer them.
"""

from __future__ import annotations

import difflib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from network_probe import Lab, wait_for
from support import CHECKOUT, NODES, SESSION_WAIT, changed_hosts, playbook, wait_for_node

HOST, ADDRESS = "nrt1", "203.0.113.13"
EVERYBODY = [*NODES, HOST]
FOREIGN = ("172.22.200.80", "fdc0:ffee:9002::80")
# The sum of what peer1 needs, and as much again.
RECOVERY = 2 * (30 + 60)


@pytest.fixture(scope="module")
def inventory(lab: Lab) -> Iterator[Path]:
    """The demo's inventory with one host more, in a folder beside it, so that its paths still hold."""
    folder = CHECKOUT / "inventories" / "demo-third-node"
    shutil.copytree(CHECKOUT / "inventories" / "demo", folder, dirs_exist_ok=True)
    (folder / "third.yml").write_text(f"---\ndn42_nodes:\n  hosts:\n    {HOST}:\n      ansible_host: {ADDRESS}\n")
    lab.lab("remove", HOST)  # other tests leave theirs with Docker on it
    lab.lab("add", HOST)
    yield folder
    # Back to two nodes, for whatever is tested after this.
    lab.lab("remove", HOST)
    playbook()
    shutil.rmtree(folder)


def snapshot(lab: Lab) -> list[str]:
    """Everything that a run could leave on the bare host: files, packages, rules, network, settings."""
    script = (
        "find /etc /opt /usr /root /home /srv /var/lib/dpkg /var/lib/apt -xdev -printf '%p %U %m %s %l\\n' | sort;"
        "find /etc /opt -xdev -type f | sort | xargs sha256sum; nft list ruleset; ip -br address; ip route; ip -6 route;"
        "sysctl -a 2>/dev/null | grep -E 'forwarding|accept_ra|rp_filter'"
    )
    return [line for line in lab.run(HOST, "sh", "-c", script).stdout.splitlines() if not line.startswith("/root/.ansible")]


def test_check_mode_on_the_bare_host_changes_nothing(lab: Lab, inventory: Path) -> None:
    """B59: a first run with --check --diff reports what would be done, and neither fails nor does any of it."""
    before, plan = snapshot(lab), (inventory / "plan" / lab.name / "addresses.yml").read_text()
    done = playbook("site.yml", "--check", "--diff", inventory=str(inventory))
    changes = changed_hosts(done.stdout)
    assert changes[HOST] > 0
    assert "+++ after: router/bird.conf" in done.stdout
    assert list(difflib.unified_diff(before, snapshot(lab), "before", "after", n=0, lineterm="")) == []
    assert (inventory / "plan" / lab.name / "addresses.yml").read_text() == plan


def test_third_node_joins_without_disturbing_the_others(lab: Lab, inventory: Path) -> None:
    """Addresses, containers and sessions of the first two are the same; pings cross all three."""
    before = {node: (lab.addresses(node, "dn42-dns"), lab.container_starts(node), lab.ages(node)) for node in NODES}
    playbook(inventory=str(inventory))
    for node in NODES:
        wait_for(f"{node} and {HOST}", lambda node=node: f"ibgp_{HOST}" in lab.established(node), SESSION_WAIT)
        sessions = {name: session for name, session in lab.ages(node).items() if name != f"ibgp_{HOST}"}
        assert (lab.addresses(node, "dn42-dns"), lab.container_starts(node), sessions) == before[node]
    wait_for_node(lab, HOST)
    for source in EVERYBODY:
        for target in EVERYBODY:
            for address in lab.addresses(target, "dn42-looking-glass"):
                assert lab.ping(source, "dn42-dns", address), f"{source} -> {target} {address}"


def unreachable(lab: Lab, node: str, addresses: list[str]) -> list[str]:
    """Addresses that do not answer a container of a node."""
    return [address for address in addresses if not lab.ping(node, "dn42-dns", address, count=1)]


@pytest.mark.full
@pytest.mark.usefixtures("inventory")
@pytest.mark.parametrize("dead", NODES)
def test_the_others_route_around_a_dead_node(lab: Lab, dead: str) -> None:
    """Whoever had the way through it takes another, the session of the survivors is not touched, and it returns with its plan."""
    glasses = {node: lab.addresses(node, "dn42-looking-glass") for node in EVERYBODY}
    first, second = (node for node in EVERYBODY if node != dead)
    targets = {first: [*glasses[second], *FOREIGN], second: [*glasses[first], *FOREIGN]}
    for node, addresses in targets.items():
        assert unreachable(lab, node, [*addresses, *glasses[dead]]) == []
    before = {first: lab.ages(first)[f"ibgp_{second}"], second: lab.ages(second)[f"ibgp_{first}"]}
    lab.lab("kill", dead)
    try:
        assert unreachable(lab, first, list(glasses[dead])) == list(glasses[dead]), "it still answers, so nothing was tested"
        for node, addresses in targets.items():
            wait_for(f"{node} without {dead}", lambda node=node, addresses=addresses: not unreachable(lab, node, addresses), RECOVERY)
        wait_for(f"peer1 without {dead}", lambda: dead not in lab.established("peer1"), RECOVERY)
        assert [unreachable(lab, node, addresses) for node, addresses in targets.items()] == [[], []]
        assert {first: lab.ages(first)[f"ibgp_{second}"], second: lab.ages(second)[f"ibgp_{first}"]} == before
    finally:
        lab.lab("add", dead)
    wait_for_node(lab, dead)
    for node in (first, second):
        wait_for(f"{node} and {dead}", lambda node=node: f"ibgp_{dead}" in lab.established(node), SESSION_WAIT)
        assert unreachable(lab, node, list(glasses[dead])) == []
