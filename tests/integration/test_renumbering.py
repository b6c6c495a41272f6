# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""B15: a node gets other addresses or a larger block. Docker cannot change a network in place, so the node goes down for it
when it was told, and else stays as it is.

The tests go on from each other: fra1 moves, grows where it is then, and goes back by a run that is killed on the way.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest
import test_isolation as isolation
from inventory_copy import InventoryCopy
from network_probe import Lab, wait_for
from support import CHECKOUT, NODES, SESSION_WAIT, changed_hosts, playbook, wait_for_node

NODE, NEIGHBOUR = "fra1", "hkg1"
ALONE = ("--limit", NODE)
TOLD = ("-e", "dn42_stack_renumber=true")
MAY_MOVE = ("-e", json.dumps({"dn42_address_plan_renumber": [NODE]}))
HOME = ["172.23.255.0/29", "fd99:4242:1::/64"]
MOVED = ["172.23.255.16/29", "fd99:4242:1:2::/64"]
GROWN = ["172.23.255.16/28", "fd99:4242:1:2::/64"]
# On the node: the process that holds the release's lock dies as soon as it has removed the network.
KILL_WITHOUT_NETWORK = """
while docker network inspect dn42 >/dev/null 2>&1; do sleep 0.02; done
kill -9 $(lslocks --noheadings --output PID,PATH | awk '$2 == "/opt/dn42/.lock" { print $1 }')
"""


@pytest.fixture(scope="module")
def inventory(lab: Lab) -> Iterator[InventoryCopy]:
    """A copy of the demo's inventory; afterwards the nodes are as the demo's own says."""
    copy = InventoryCopy("renumbering", lab.name)
    yield copy
    if subnets(lab) != HOME:  # the last test was left out, or has failed
        playbook("site.yml", *TOLD)
    copy.remove()
    for node in NODES:
        wait_for_node(lab, node)


def life(lab: Lab) -> dict[str, object]:
    """Containers and sessions of both nodes, with their ages."""
    return {node: (lab.container_starts(node), lab.ages(node)) for node in NODES}


def neighbours_life(lab: Lab) -> tuple[object, object]:
    """What the neighbour keeps when the node is renumbered: its containers, and its session with its peer."""
    return lab.container_starts(NEIGHBOUR), lab.ages(NEIGHBOUR)["peer_peer1"]


def subnets(lab: Lab) -> list[str]:
    """The subnets of the node's Docker network."""
    network = json.loads(lab.run(NODE, "docker", "network", "inspect", "dn42").stdout)[0]
    return sorted(entry["Subnet"] for entry in network["IPAM"]["Config"])


def assert_alive(lab: Lab) -> None:
    """Sessions and traffic are back, and the bridge has its name, its zone and its guard."""
    wait_for_node(lab, NODE)
    wait_for("the session of the two", lambda: f"ibgp_{NODE}" in lab.established(NEIGHBOUR), SESSION_WAIT)
    for address in lab.addresses(NODE, "dn42-looking-glass"):
        wait_for(f"the neighbour reaches {address}", lambda address=address: lab.ping(NEIGHBOUR, "dn42-dns", address, count=1), SESSION_WAIT)
    assert lab.run(NODE, "firewall-cmd", "--get-zone-of-interface=br-dn42").stdout.strip() == "docker"
    isolation.test_private_service_answers_over_the_internet_and_not_over_dn42(lab, NODE)


def refused(lab: Lab, inventory: InventoryCopy, *arguments: str) -> str:
    """What a run says that does not begin, and proof that it changed no node."""
    before = life(lab)
    done = inventory.run(*arguments, check=False)
    assert done.returncode != 0, done.stdout[-3000:]
    assert changed_hosts(done.stdout).get(NEIGHBOUR, 0) == 0
    assert life(lab) == before
    return done.stdout


@pytest.mark.full
def test_a_node_moves_when_told(lab: Lab, inventory: InventoryCopy) -> None:
    """Without permission, or with a container of somebody else in the network, everything goes on as it was."""
    for node in NODES:
        wait_for_node(lab, node)
    inventory.set(NODE, dn42_address_plan_pin={"ipv4": MOVED[0], "ipv6": MOVED[1]})
    said = refused(lab, inventory, *MAY_MOVE)
    for words in (f"IPv4 subnet: {HOME[0]}, declared {MOVED[0]}", f"IPv6 subnet: {HOME[1]}, declared {MOVED[1]}", "dn42_stack_renumber: true"):
        assert words in said, said[-3000:]

    image = lab.run(NODE, "docker", "inspect", "--format", "{{.Config.Image}}", "dn42-dns").stdout.strip()
    lab.run(NODE, "docker", "create", "--name", "probe", "--network", "dn42", image)
    said = refused(lab, inventory, *TOLD, *ALONE)
    assert "probe (of no project, not running)" in said, said[-3000:]
    lab.run(NODE, "docker", "rm", "probe")

    before = life(lab)
    predicted = inventory.run(*TOLD, *ALONE, "--check", "--diff").stdout
    assert f"-IPv4 subnet: {HOME[0]}" in predicted
    assert f"+IPv4 subnet: {MOVED[0]}" in predicted
    assert life(lab) == before

    neighbour = neighbours_life(lab)
    inventory.run(*TOLD)
    assert subnets(lab) == MOVED
    assert lab.addresses(NODE, "dn42-dns") == ("172.23.255.20", "fd99:4242:1:2::4")
    assert_alive(lab)
    assert neighbours_life(lab) == neighbour


@pytest.mark.full
def test_a_block_grows_in_place_when_told(lab: Lab, inventory: InventoryCopy) -> None:
    """Every address stays, and yet the network must be made anew."""
    inventory.set(NODE, dn42_address_plan_pin=None, dn42_address_plan_size={"ipv4": 28})
    assert f"IPv4 subnet: {MOVED[0]}, declared {GROWN[0]}" in refused(lab, inventory)
    addresses, neighbour = lab.addresses(NODE, "dn42-dns"), neighbours_life(lab)
    inventory.run(*TOLD)
    assert subnets(lab) == GROWN
    assert lab.addresses(NODE, "dn42-dns") == addresses
    assert_alive(lab)
    assert neighbours_life(lab) == neighbour
    assert changed_hosts(inventory.run().stdout) == dict.fromkeys(NODES, 0)


@pytest.mark.full
def test_a_release_that_was_killed_without_a_network_is_undone_by_the_node(lab: Lab, inventory: InventoryCopy) -> None:
    """The node makes the network anew that it had, with all its containers; the next run moves it home."""
    before = subnets(lab)
    command = ["ansible-playbook", "-i", "inventories/demo", "site.yml", *TOLD]
    with subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as running:
        lab.run(NODE, "timeout", "120", "sh", "-c", KILL_WITHOUT_NETWORK, timeout=150)
        output, _nothing = running.communicate(timeout=600)
    assert running.returncode != 0, output[-3000:]
    assert "What was not confirmed is undone by the node itself" in output
    assert subnets(lab) == before
    assert_alive(lab)
    done = playbook("site.yml", *TOLD)
    assert changed_hosts(done.stdout)[NODE] > 0
    assert subnets(lab) == HOME
    assert_alive(lab)
    assert changed_hosts(playbook().stdout) == dict.fromkeys(NODES, 0)
