# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nodes are added, renamed, removed and come back; the others keep blocks, containers and sessions.

New nodes without a host of their own are told by their keys: the nodes that exist are all that a run reaches then, by
`--limit`, and they get a tunnel and a session for each newcomer all the same. Each test leaves the nodes to the next.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from inventory_copy import InventoryCopy
from network_probe import Age, Lab, wait_for
from support import NODES, SESSION_WAIT, changed_hosts, playbook, wait_for_node

# Names that sort before, between and behind those of the two nodes.
NEWCOMERS = {
    "ams1": ("203.0.113.21", "YW1zMS1hbXMxLWFtczEtYW1zMS1hbXMxLWFtczEtYW0="),
    "gru1": ("203.0.113.22", "Z3J1MS1ncnUxLWdydTEtZ3J1MS1ncnUxLWdydTEtZ3I="),
    "zrh1": ("203.0.113.23", "enJoMS16cmgxLXpyaDEtenJoMS16cmgxLXpyaDEtenI="),
}
NEW_SESSIONS = [f"ibgp_{name}" for name in NEWCOMERS]
REACHED = ("--limit", ",".join(NODES))
# Three of a node's tunnels leave at once with the newcomers; without this word a release refuses that as a likely mistake.
REMOVAL = ("-e", "dn42_stack_allow_removal=true")


class Life(NamedTuple):
    """What a node must keep: its containers' starts, and since when its sessions are as they are."""

    containers: dict[str, str]
    sessions: dict[str, Age]


@pytest.fixture(scope="module")
def inventory(lab: Lab) -> Iterator[InventoryCopy]:
    """A copy of the demo's inventory; afterwards the nodes are as the demo's own says."""
    for node in NODES:
        wait_for_node(lab, node)
    copy = InventoryCopy("changes", lab.name)
    yield copy
    playbook("site.yml", *REMOVAL)  # without the newcomers, and under the first name
    copy.remove()
    for node in NODES:
        wait_for_node(lab, node)


def life(lab: Lab, node: str, *without: str) -> Life:
    """A node's life, without the sessions that a test means to change."""
    return Life(lab.container_starts(node), {name: age for name, age in lab.ages(node).items() if name not in without})


def test_nodes_that_are_added_leave_and_come_back_move_nobody(lab: Lab, inventory: InventoryCopy) -> None:
    """First, in the middle and last; then gone, and back again in another order."""
    present, blocks = inventory.addresses(), inventory.blocks()
    before = {node: life(lab, node, *NEW_SESSIONS) for node in NODES}
    everybody = {**present, **{name: address for name, (address, _key) in NEWCOMERS.items()}}
    for name, (_address, key) in NEWCOMERS.items():
        inventory.know_key(name, key)

    inventory.hosts(dict(sorted(everybody.items())))
    inventory.run(*REACHED)
    plan, after = inventory.plan.read_text(), inventory.blocks()
    assert {node: after[node] for node in NODES} == blocks
    assert set(after) == set(everybody)
    assert set(NEW_SESSIONS) <= set(lab.sessions("fra1"))
    assert {node: life(lab, node, *NEW_SESSIONS) for node in NODES} == before

    inventory.hosts(present)
    inventory.run("--limit", "fra1", *REMOVAL)
    assert inventory.plan.read_text() == plan, "a node that leaves holds its block"
    assert not set(NEW_SESSIONS) & set(lab.sessions("fra1"))

    inventory.hosts(dict(sorted(everybody.items(), reverse=True)))
    inventory.run("--limit", "fra1")
    assert inventory.plan.read_text() == plan
    assert set(NEW_SESSIONS) <= set(lab.sessions("fra1"))
    assert {node: life(lab, node, *NEW_SESSIONS) for node in NODES} == before
    inventory.hosts(present)


@pytest.mark.full
def test_a_real_node_leaves_the_inventory_and_comes_back(lab: Lab, inventory: InventoryCopy) -> None:
    """The other one loses nothing but the session with it; it finds itself as it was."""
    present, plan = inventory.addresses(), inventory.plan.read_text()
    inventory.run(*REMOVAL)
    before = {"fra1": life(lab, "fra1", "ibgp_hkg1"), "hkg1": life(lab, "hkg1", "ibgp_fra1")}
    inventory.hosts({"hkg1": present["hkg1"]})
    inventory.run()
    assert inventory.plan.read_text() == plan
    assert "ibgp_fra1" not in lab.sessions("hkg1")
    inventory.hosts(present)
    assert changed_hosts(inventory.run().stdout)["fra1"] == 0
    assert inventory.plan.read_text() == plan
    assert {"fra1": life(lab, "fra1", "ibgp_hkg1"), "hkg1": life(lab, "hkg1", "ibgp_fra1")} == before


@pytest.mark.full
def test_a_renamed_node_keeps_its_block_when_told(lab: Lab, inventory: InventoryCopy) -> None:
    """A name is the holder: another one gets another block, and the run stops before that renumbers the node.

    Releasing the old name's block and pinning it for the new name, in one run, is what keeps it.
    """
    blocks, plan = inventory.blocks(), inventory.plan.read_text()
    others = ("ibgp_hkg1", "ibgp_sin1", *NEW_SESSIONS)
    before = life(lab, "fra1", *others), lab.container_starts("hkg1")
    inventory.rename("hkg1", "sin1")
    refused = inventory.run("--check", check=False)
    assert refused.returncode != 0
    assert "dn42_stack_renumber" in refused.stdout
    assert all(prefix in refused.stdout for prefix in blocks["hkg1"])
    assert inventory.plan.read_text() == plan

    ipv4, ipv6 = sorted(blocks["hkg1"])
    release = ("-e", json.dumps({"dn42_address_plan_release": {"hkg1": [ipv4, ipv6]}}))
    inventory.set("sin1", dn42_address_plan_pin={"ipv4": ipv4, "ipv6": ipv6})
    inventory.run(*release, *REMOVAL)
    assert inventory.blocks() == {**{name: block for name, block in blocks.items() if name != "hkg1"}, "sin1": blocks["hkg1"]}
    wait_for("the session of the two", lambda: "ibgp_sin1" in lab.established("fra1"), SESSION_WAIT)
    # BIRD begins the renamed node's own sessions anew, as its name is in its configuration.
    assert (life(lab, "fra1", *others), lab.container_starts("hkg1")) == before
