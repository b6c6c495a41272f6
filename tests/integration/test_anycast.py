# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""An address that both nodes announce: a resolver that stops takes its node's prefix along, and the other one answers.

The router asks every second for a second; three lost answers withdraw, two answers bring back. Policy and packets in
detail are in bgp/test_anycast.py.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import yaml
from inventory_copy import InventoryCopy
from network_probe import Lab, wait_for
from support import NODES, SESSION_WAIT, changed_hosts, playbook, wait_for_node

ADDRESSES = ("172.23.254.1", "fd99:4242:2::53")
PREFIXES = {"172.23.254.0/28", "fd99:4242:2::/48"}
POOL = {"name": "anycast", "purpose": "anycast", "ipv4": ["172.23.254.0/28"], "ipv6": ["fd99:4242:2::/48"], "block_size": {"ipv4": 32, "ipv6": 128}}
SERVICE = {"name": "dns", "service": "dns", "ipv4": ADDRESSES[0], "ipv6": ADDRESSES[1]}
# Three probes of two seconds at most, and a pass of the keeper (2 s); twice.
CHANGE = 2 * (3 * 2 + 2)


@pytest.fixture(scope="module")
def inventory(lab: Lab) -> Iterator[InventoryCopy]:
    """The demo with anycast; afterwards the nodes are as the demo's own inventory says."""
    copy = InventoryCopy("anycast", lab.name)
    group = copy.folder / "group_vars" / "dn42_nodes" / "dn42.yml"
    variables = yaml.safe_load(group.read_text())
    group.write_text(yaml.safe_dump({**variables, "dn42_pools": [*variables["dn42_pools"], POOL], "dn42_anycast": [SERVICE]}))
    try:
        copy.run()
        for node in NODES:
            wait_for_node(lab, node)
        yield copy
    finally:
        for node in NODES:
            lab.run(node, "docker", "unpause", "dn42-dns", check=False)
        playbook("site.yml")
        copy.remove()
        for node in NODES:
            wait_for_node(lab, node)


def announced(lab: Lab, node: str) -> set[str]:
    """The anycast prefixes that peer1 has from a node."""
    return PREFIXES & lab.prefixes("peer1", "protocol", node)


def ages(lab: Lab) -> dict[str, object]:
    """Since when every session on every side is up."""
    return {node: lab.ages(node) for node in [*NODES, "peer1"]}


def test_a_stopped_resolver_withdraws_its_prefix_and_returns_with_it(lab: Lab, inventory: InventoryCopy) -> None:
    for node in NODES:
        wait_for(f"both prefixes from {node}", lambda node=node: announced(lab, node) == PREFIXES, SESSION_WAIT)
    before = ages(lab)
    for address in ADDRESSES:
        assert lab.resolve(address, "www.peer1.dn42", "A") == "172.22.200.80"
    for node, other in (NODES, NODES[::-1]):
        lab.run(node, "docker", "pause", "dn42-dns")
        wait_for(f"nothing from {node}", lambda node=node: not announced(lab, node), CHANGE, interval=0.5)
        assert announced(lab, other) == PREFIXES
        for address in ADDRESSES:
            assert lab.resolve(address, "www.peer1.dn42", "A") == "172.22.200.80", "the other node's resolver answers"
        lab.run(node, "docker", "unpause", "dn42-dns")
        wait_for(f"both prefixes from {node} again", lambda node=node: announced(lab, node) == PREFIXES, CHANGE, interval=0.5)
    assert ages(lab) == before


@pytest.mark.full
def test_a_second_run_changes_nothing(lab: Lab, inventory: InventoryCopy) -> None:
    before = ages(lab)
    assert changed_hosts(inventory.run().stdout) == dict.fromkeys(NODES, 0)
    assert ages(lab) == before
    for node in NODES:
        assert announced(lab, node) == PREFIXES
