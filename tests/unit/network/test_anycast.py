# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Anycast in an inventory: what follows from it, and every fault of a bad one."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.dn42.compose.plugins.module_utils import _network

NODES = [{"name": "dn42", "ipv4": ["172.23.255.0/26"], "ipv6": ["fd99:4242:1::/48"], "block_size": {"ipv4": 29, "ipv6": 64}}]
ANYCAST = {"name": "any", "ipv4": ["172.23.254.0/28"], "ipv6": ["fd99:4242:2::/48"], "block_size": {"ipv4": 32, "ipv6": 128}, "purpose": "anycast"}
# A part of what is registered for the nodes: other networks know nothing smaller.
INSIDE = {**ANYCAST, "ipv4": ["172.23.255.32/28"], "ipv6": None, "aggregates": ["172.23.255.0/26"]}
AGGREGATES = {"ipv4": ["172.23.254.0/28", "172.23.255.0/26"], "ipv6": ["fd99:4242:1::/48", "fd99:4242:2::/48"]}
DNS = {"name": "dns", "service": "dns", "ipv4": "172.23.254.1", "ipv6": "FD99:4242:2:0::53"}
WEB = {"name": "web", "service": "looking_glass", "ipv4": "172.23.254.2", "ports": ["80/tcp"]}


def block(index: int) -> dict[str, Any]:
    """A node's block as the address plan returns it."""
    services = {"gateway": 2, "router": 3, "dns": 4, "looking_glass": 5}
    return {
        "ipv4": {"prefix": f"172.23.255.{8 * index}/29", "prefix_length": 29},
        "ipv6": {"prefix": f"fd99:4242:1:{index}::/64", "prefix_length": 64},
        "addresses": {name: {"ipv4": f"172.23.255.{8 * index + offset}", "ipv6": f"fd99:4242:1:{index}::{offset}"} for name, offset in services.items()},
    }


def build(*written: Any, pools: list[dict[str, Any]] | None = None, aggregates: Any = None, **variables: Any) -> dict[str, dict[str, Any]]:
    """The models of nodes with these values of `dn42_anycast`, called n0, n1, …; None is no value."""
    common = {"dn42_asn": 4200420001, "dn42_pools": [*NODES, ANYCAST] if pools is None else pools, **variables}
    inventory = {f"n{index}": {**common, "ansible_host": f"192.0.2.{index}", **({} if value is None else {"dn42_anycast": value})} for index, value in enumerate(written)}
    return _network.build(inventory, {name: block(index) for index, name in enumerate(inventory)}, aggregates or AGGREGATES, {})


def faults(*written: Any, **options: Any) -> list[str]:
    """What is wrong with such an inventory."""
    with pytest.raises(_network.InventoryFaults) as caught:
        build(*written, **options)
    return [str(fault) for fault in caught.value.faults]


def test_a_registered_prefix_follows_the_service() -> None:
    models = build([DNS], None)
    assert [(entry["protocol"], entry["address"], entry["prefix"], entry["target"]) for entry in models["n0"]["anycast"]] == [
        ("anycast_dns_ipv4", "172.23.254.1", "172.23.254.0/28", "172.23.255.4"),
        ("anycast_dns_ipv6", "fd99:4242:2::53", "fd99:4242:2::/48", "fd99:4242:1:0::4"),
    ]
    assert models["n1"]["anycast"] == []
    assert models["n1"]["anycast_prefixes"] == models["n0"]["anycast_prefixes"]


def test_what_is_not_registered_by_itself_is_told_to_our_own_nodes_alone() -> None:
    models = build(
        [{**DNS, "ipv4": "172.23.255.33", "ipv6": None}], pools=[{**NODES[0], "ipv4": ["172.23.255.0/27"]}, INSIDE], aggregates={"ipv4": ["172.23.255.0/26"], "ipv6": []}
    )
    assert models["n0"]["anycast"][0]["prefix"] == "172.23.255.33/32"
    assert models["n0"]["anycast_prefixes"] == {"ipv4": ["172.23.255.33/32"], "ipv6": []}


def test_ports_and_how_the_service_is_asked() -> None:
    entries = {
        entry["protocol"]: entry
        for entry in build([DNS, {**WEB, "ipv4": None, "ipv6": "fd99:4242:3::1", "ports": ["443/tcp", "80/tcp", "443/udp"]}], **WITH_THIRD)["n0"]["anycast"]
    }
    assert entries["anycast_dns_ipv4"]["ports"] == {"tcp": [53], "udp": [53]}
    assert entries["anycast_dns_ipv4"]["probe"] == {"kind": "dns", "port": 53}
    assert entries["anycast_web_ipv6"]["ports"] == {"tcp": [80, 443], "udp": [443]}
    assert entries["anycast_web_ipv6"]["probe"] == {"kind": "tcp", "port": 80}


THIRD = {**ANYCAST, "name": "third", "ipv4": None, "ipv6": ["fd99:4242:3::/48"]}
WITH_THIRD = {"pools": [*NODES, ANYCAST, THIRD], "aggregates": {**AGGREGATES, "ipv6": [*AGGREGATES["ipv6"], "fd99:4242:3::/48"]}}


def test_nobody_who_does_not_use_it_is_changed() -> None:
    model = build(None)["n0"]
    assert (model["anycast"], model["anycast_prefixes"]) == ([], {"ipv4": [], "ipv6": []})


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("dns", "n0: dn42_anycast = 'dns': must be a list"),
        (["dns"], "n0: dn42_anycast[0] = 'dns': must be a mapping"),
        ([{**DNS, "port": 53}], "dn42_anycast[0].port = 53: is not an option of an anycast service (there are ipv4, ipv6, name, ports, service)"),
        ([{**DNS, "name": "my_dns"}], "dn42_anycast[0].name = 'my_dns': must be 1 to 16 characters of a-z and 0-9"),
        ([{"name": "dns", "service": "dns"}], "dn42_anycast[0].ipv4 = None: is required, or ipv6"),
        ([{**DNS, "ipv4": "172.23.255.33"}], "dn42_anycast[0].ipv4 = '172.23.255.33': is in 172.23.255.0/26, whose pool is not for anycast; take one of 172.23.254.0/28"),
        ([{**DNS, "ipv4": "172.20.0.53"}], "dn42_anycast[0].ipv4 = '172.20.0.53': is in no pool of purpose anycast"),
        ([{**DNS, "ipv4": "fd99:4242:2::53"}], "dn42_anycast[0].ipv4 = 'fd99:4242:2::53': must be an IPv4 address"),
        ([{**DNS, "service": "router"}], "dn42_anycast[0].service = 'router': is no service that an anycast address can stand for"),
        ([{**DNS, "service": "rpki", "ports": ["53/tcp"]}], "dn42_anycast dns.service = 'rpki': has no ipv4 address in the node's block"),
        ([{**WEB, "ports": None}], "dn42_anycast[0].ports = None: is required"),
        ([{**WEB, "ports": ["80"]}], "dn42_anycast[0].ports = ['80']: must be a list such as"),
        ([{**WEB, "ports": ["80/tcp", "80/tcp"]}], "dn42_anycast[0].ports = ['80/tcp', '80/tcp']: has 80/tcp twice"),
        ([{**WEB, "ports": ["123/udp"]}], "dn42_anycast[0].ports = ['123/udp']: needs a TCP port"),
        ([DNS, {**WEB, "name": "dns"}], "dn42_anycast[1].name = 'dns': is that of dn42_anycast[0] too"),
        ([DNS, {**WEB, "ipv4": "172.23.254.1"}], "dn42_anycast[1].ipv4 = '172.23.254.1': is that of dn42_anycast[0] too"),
    ],
)
def test_faults(written: Any, expected: str) -> None:
    assert any(expected in fault for fault in faults(written)), faults(written)


def test_a_service_that_the_node_does_not_have() -> None:
    assert (
        "dn42_anycast[0].service = 'dns': is not a service of this node (dn42_stack_services has router)" in faults([DNS], dn42_router_roa="off", dn42_stack_services=["router"])[0]
    )


def test_one_prefix_follows_one_service_in_the_whole_network() -> None:
    """Two services behind one route: when one fails there is no right answer."""
    found = faults([DNS], [WEB])
    assert len(found) == 1
    assert "n1: dn42_anycast web.ipv4 = '172.23.254.2': is in 172.23.254.0/28, which follows dns of n0" in found[0]


def test_all_faults_at_once() -> None:
    assert len(faults([{**DNS, "name": "A", "ipv4": "10.0.0.1", "ports": []}, 5])) == 4
