# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One of three nodes loses its power. The other two find each other and peer1 without Ansible, and it finds back by itself.

How long that takes is measured by tests/bench/outage.py. Here it is bounded by the timers (seconds): Babel hears nothing of a dead
neighbour for 3 hellos of 4; iBGP holds a session for 30; peer1 holds it for 30 (tests/lab/peer1/etc/bird/bird.conf) and then keeps
the dead node's routes for our restart time of 60 (roles/router/templates/config/bird.conf.j2), in which it may still prefer them.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from inventory_copy import InventoryCopy
from network_probe import Lab, wait_for
from support import NODES, SESSION_WAIT, playbook, wait_for_node

THIRD, ADDRESS = "nrt1", "203.0.113.13"
EVERYBODY = [*NODES, THIRD]
FOREIGN = ("172.22.200.80", "fdc0:ffee:9002::80")
# The sum of what peer1 needs, and as much again.
RECOVERY = 2 * (30 + 60)


@pytest.fixture(scope="module")
def three_nodes(lab: Lab) -> Iterator[dict[str, tuple[str, str]]]:
    """The demo's network with a third node that has no peer of its own; answers the nodes' looking glasses."""
    inventory = InventoryCopy("failure", lab.name)
    inventory.hosts({**inventory.addresses(), THIRD: ADDRESS})
    lab.lab("add", THIRD)
    try:
        inventory.run()
        for node in EVERYBODY:
            wait_for_node(lab, node)
        yield {node: lab.addresses(node, "dn42-looking-glass") for node in EVERYBODY}
    finally:
        inventory.remove()
        lab.lab("remove", THIRD)
        playbook()


def unreachable(lab: Lab, node: str, addresses: list[str]) -> list[str]:
    """Addresses that do not answer a container of a node."""
    return [address for address in addresses if not lab.ping(node, "dn42-dns", address, count=1)]


@pytest.mark.parametrize("dead", [NODES[0], pytest.param(NODES[1], marks=pytest.mark.full)])
def test_the_others_route_around_a_dead_node(lab: Lab, three_nodes: dict[str, tuple[str, str]], dead: str) -> None:
    """Whoever had the way through it takes another, the session of the survivors is not touched, and it returns with its plan."""
    first, second = (node for node in EVERYBODY if node != dead)
    targets = {first: [*three_nodes[second], *FOREIGN], second: [*three_nodes[first], *FOREIGN]}
    for node, addresses in targets.items():
        assert unreachable(lab, node, [*addresses, *three_nodes[dead]]) == []
    before = {first: lab.ages(first)[f"ibgp_{second}"], second: lab.ages(second)[f"ibgp_{first}"]}
    lab.lab("kill", dead)
    try:
        assert unreachable(lab, first, list(three_nodes[dead])) == list(three_nodes[dead]), "it still answers, so nothing was tested"
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
        assert unreachable(lab, node, list(three_nodes[dead])) == []
