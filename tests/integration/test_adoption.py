# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A network whose addresses were typed by hand: what its Docker networks have becomes the plan, and nothing moves."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from inventory_copy import InventoryCopy
from network_probe import Lab
from support import changed_hosts, playbook

NETWORK = "mynet"
# One node has both families, the other a larger block than the pool's nodes get, and no IPv6 yet.
BY_HAND = {"fra1": ["172.23.255.40/29", "fd99:4242:1:77::/64"], "hkg1": ["172.23.255.48/28"]}
ADOPT = ("playbooks/adopt.yml", "-e", f"dn42_address_plan_adopt_network={NETWORK}")


@pytest.fixture
def inventory(lab: Lab) -> Iterator[InventoryCopy]:
    """A copy of the demo's inventory that has no plan yet, on nodes that have a network."""
    copy = InventoryCopy("adoption", lab.name)
    copy.plan.unlink()
    try:
        for node, subnets in BY_HAND.items():
            family = ["--ipv6"] if len(subnets) > 1 else []
            lab.run(node, "docker", "network", "create", *family, *(f"--subnet={subnet}" for subnet in subnets), NETWORK)
        yield copy
    finally:
        for node in BY_HAND:
            lab.run(node, "docker", "network", "rm", "--force", NETWORK)
        copy.remove()


def docker_networks(lab: Lab) -> dict[str, str]:
    """All Docker networks of the nodes, with their ids."""
    return {node: lab.run(node, "docker", "network", "ls", "--no-trunc").stdout for node in BY_HAND}


@pytest.mark.full
def test_the_networks_of_running_nodes_become_the_plan(lab: Lab, inventory: InventoryCopy) -> None:
    """Check mode and diff tell it before; a node gets a block by itself only where it has none."""
    before = docker_networks(lab), {node: lab.container_starts(node) for node in BY_HAND}
    refused = playbook(*ADOPT, check=False, inventory=str(inventory.folder)).stdout
    assert 'adopt.hkg1: "172.23.255.48/28": is a /28, and hkg1 is to have a /29' in refused, refused[-3000:]
    inventory.set("hkg1", dn42_address_plan_size={"ipv4": 28})
    predicted = playbook(*ADOPT, "--check", "--diff", inventory=str(inventory.folder)).stdout
    assert not inventory.plan.exists()
    for subnets in BY_HAND.values():
        for subnet in subnets:
            assert subnet in predicted, predicted[-3000:]

    playbook(*ADOPT, inventory=str(inventory.folder))
    blocks = inventory.blocks()
    assert blocks["fra1"] == set(BY_HAND["fra1"])
    (new,) = blocks["hkg1"] - set(BY_HAND["hkg1"])
    assert new in predicted
    assert new.startswith("fd99:4242:1:") and new.endswith("/64") and new not in BY_HAND["fra1"]
    assert (docker_networks(lab), {node: lab.container_starts(node) for node in BY_HAND}) == before

    text = inventory.plan.read_text()
    assert set(changed_hosts(playbook(*ADOPT, inventory=str(inventory.folder)).stdout).values()) == {0}
    assert inventory.plan.read_text() == text
