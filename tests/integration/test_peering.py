# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Routes, traffic and names between our nodes and a foreign network, asserted on what the other side really has."""

from __future__ import annotations

import pytest
from network_probe import Lab, wait_for
from support import NODES, SESSION_WAIT

PEER_PREFIXES = {"172.22.200.0/25", "172.22.200.128/27", "fdc0:ffee:9002::/48"}
OUR_AGGREGATES = {"172.23.255.0/26", "fd99:4242:1::/48"}
BEHIND_PEER = ["172.22.200.80", "fdc0:ffee:9002::80"]


@pytest.mark.parametrize("node", NODES)
def test_node_has_exactly_the_good_routes_of_a_careless_peer(lab: Lab, node: str) -> None:
    """peer1 announces bogons, too specific routes, a default route and our own prefixes besides its good ones."""
    announced = lab.prefixes("peer1", "export", f"{node}.ipv4") | lab.prefixes("peer1", "export", f"{node}.ipv6")
    assert announced > PEER_PREFIXES, "peer1 announces nothing bad, so this test could not fail"
    received = lab.prefixes(node, "protocol", "peer_peer1", "table", "master4") | lab.prefixes(node, "protocol", "peer_peer1", "table", "master6")
    assert received == PEER_PREFIXES


@pytest.mark.parametrize("node", NODES)
def test_peer_has_our_aggregates_and_nothing_else(lab: Lab, node: str) -> None:
    """Blocks of nodes, Docker's and the host's networks stay inside."""
    received = lab.prefixes("peer1", "protocol", node, "table", "master4") | lab.prefixes("peer1", "protocol", node, "table", "master6")
    # What peer1 itself announced comes back to it nowhere: BIRD refuses its own ASN in the path.
    assert received == OUR_AGGREGATES


def test_ipv4_crosses_a_tunnel_without_ipv4_addresses(lab: Lab) -> None:
    """Extended next hop: the next hop of an IPv4 route is the peer's link-local IPv6 address."""
    assert "via inet6 fe80::9002 dev wg-peer1" in lab.in_router("hkg1", "ip", "route", "show", "172.22.200.0/25").stdout


@pytest.mark.parametrize("address", BEHIND_PEER)
@pytest.mark.parametrize("node", NODES)
def test_sibling_reaches_an_address_behind_the_peer(lab: Lab, node: str, address: str) -> None:
    """From a container that knows nothing of DN42 but its default gateway."""
    assert lab.ping(node, "dn42-dns", address)


@pytest.mark.parametrize("address", BEHIND_PEER)
def test_other_node_is_the_second_path(lab: Lab, address: str) -> None:
    """With its own session to the peer down, hkg1 goes through fra1."""
    lab.birdc("hkg1", "disable", "peer_peer1")
    try:
        wait_for("hkg1 through fra1", lambda: lab.ping("hkg1", "dn42-dns", address, count=1), SESSION_WAIT)
        assert "dev in-fra1" in lab.in_router("hkg1", "ip", "-6" if ":" in address else "-4", "route", "get", address).stdout
        assert lab.ping("hkg1", "dn42-dns", address)
    finally:
        lab.birdc("hkg1", "enable", "peer_peer1")
        wait_for("hkg1's own session again", lambda: len(lab.established("hkg1")) == 2, SESSION_WAIT)


@pytest.mark.parametrize("node", NODES)
def test_peer_reaches_every_service_address(lab: Lab, node: str) -> None:
    """The other direction, in both families, without anything having been sent from our side first."""
    for container in ("dn42-router", "dn42-dns", "dn42-looking-glass"):
        for address in lab.addresses(node, container):
            done = lab.run("peer1", "ping", "-n", "-c", "2", "-W", "2", address, check=False)
            assert done.returncode == 0, f"peer1 -> {container} {address}: {done.stdout}"


@pytest.mark.parametrize("node", NODES)
@pytest.mark.parametrize(("kind", "answer"), [("A", "172.22.200.80"), ("AAAA", "fdc0:ffee:9002::80")])
def test_resolver_answers_for_the_peers_zone(lab: Lab, node: str, kind: str, answer: str) -> None:
    """On both fixed addresses, asked from DN42."""
    for server in lab.addresses(node, "dn42-dns"):
        assert lab.resolve(server, "www.peer1.dn42", kind) == answer


def test_resolver_refuses_the_internet(lab: Lab) -> None:
    """It is no way out for anybody: names outside DN42 are refused, not looked up."""
    server = lab.addresses("fra1", "dn42-dns")[0]
    answer = lab.run("peer1", "dig", "+time=2", "+tries=1", f"@{server}", "example.net", "A", check=False).stdout
    assert "status: REFUSED" in answer


@pytest.mark.parametrize("node", NODES)
def test_looking_glass_shows_both_nodes_and_a_route(lab: Lab, node: str) -> None:
    """Its page has every node's sessions, its lookup the path to the peer."""
    for address in lab.addresses(node, "dn42-looking-glass"):
        host = f"[{address}]" if ":" in address else address
        page = lab.run("peer1", "curl", "-sS", "-m", "10", f"http://{host}/").stdout
        assert all(word in page for word in ("fra1", "hkg1", "peer_peer1", "ibgp_", "Established"))
        route = lab.run("peer1", "curl", "-sS", "-m", "10", f"http://{host}/route?target=172.22.200.80").stdout
        assert "172.22.200.0/25" in route
        assert "4200429002" in route


def test_looking_glass_takes_addresses_and_nothing_else(lab: Lab) -> None:
    """B52: what a visitor types never reaches BIRD as a command."""
    host = lab.addresses("fra1", "dn42-looking-glass")[0]
    argv = ["curl", "-sS", "-m", "10", "-o", "/dev/null", "-w", "%{http_code}", "-G", "--data-urlencode"]
    assert lab.run("peer1", *argv, "target=172.20.0.53; id", f"http://{host}/route").stdout == "400"
    lab.run("fra1", "docker", "exec", "dn42-looking-glass", "test", "-S", "/run/bird-readonly/bird.ctl")
