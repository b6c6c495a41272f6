# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Several nodes of ours: ways to each other by the IGP, routes by iBGP, and what happens when a tunnel or a node goes.

Timers of ours: Babel greets every 2 s and gives a tunnel up after four that were lost, OSPF every 5 s and after 15 s; iBGP holds 30 s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import rendering
from foreign import Announcement
from laboratory import AGGREGATES, Foreign, Node, foreign_network, join, network, peer
from routers import Router, connect, wait_for

ASN = 4200429002
ROUTES = ("172.22.200.0/25", "fdc0:ffee:9002::/48")
ADDRESSES = ("172.22.200.1", "fdc0:ffee:9002::1")
SIDE = ("172.22.210.1", "fdc0:ffee:9003::1")  # of another foreign network
# Twice the longest of: lost greetings, an update of Babel (8 s), BIRD's look at the kernel (10 s).
WAY_WAIT = 40.0
LINE = [["fra1", "hkg1"], ["hkg1", "nrt1"]]
IGPS = ["babel", pytest.param("ospf", marks=pytest.mark.full)]


def blocks(*positions: int) -> set[str]:
    """The blocks of nodes by their position, both families."""
    return {rendering.block(position)[family]["prefix"] for position in positions for family in ("ipv4", "ipv6")}


def built(router: Callable[..., Router], igp: str, nodes: Mapping[str, Mapping[str, Any]], **common: Any) -> tuple[dict[str, Node], Foreign]:
    """Running nodes of ours with variables of the group, the first of them with a peer."""
    first = min(nodes)
    inventory = {
        name: {"dn42_router_backbone_igp": igp, **common, **({"dn42_peers": [peer("peer1", ASN)]} if name == first else {}), **variables} for name, variables in nodes.items()
    }
    ours = network(router, inventory)
    other = foreign_network(router, "peer1", ASN, *ADDRESSES, [Announcement(route) for route in ROUTES])
    for node in ours.values():
        if node.model["peers"]:
            join(node, "peer1", other)
    for node in ours.values():
        node.bring_up()
        node.start()
    other.start()
    ours[first].router.wait_established("peer_peer1")
    return ours, other


def way(node: Node) -> str:
    """The kernel's route to the peer's network, empty while there is none."""
    return node.router.run("ip", "route", "get", ADDRESSES[0], check=False).stdout


def wait_for_traffic(node: Node, addresses: tuple[str, ...] = ADDRESSES) -> None:
    """Both families get through."""
    for destination in addresses:
        wait_for(f"{node.name} to {destination}", lambda destination=destination: node.ping(destination), WAY_WAIT, lambda: node.router.birdc("show route all"))


@pytest.mark.parametrize("igp", IGPS)
def test_nodes_in_a_line_reach_everything(router: Callable[..., Router], igp: str) -> None:
    """The last of three reaches a peer of the first over the one in between; the IGP has blocks, iBGP has the world."""
    nodes, other = built(router, igp, {"fra1": {}, "hkg1": {}, "nrt1": {}}, dn42_router_backbone_links=LINE)
    far = nodes["nrt1"]
    assert "in-fra1" not in far.router.run("ip", "-br", "link").stdout
    far.router.wait_established("ibgp_fra1", "ibgp_hkg1")
    wait_for("routes", lambda: set(ROUTES) <= set(far.table("ibgp_fra1")))
    wait_for_traffic(far)
    wait_for_traffic(far, tuple(nodes["fra1"].model["addresses"]["gateway"].values()))
    own_blocks = {prefix for prefix in blocks(0, 1) if igp == "babel" or ":" in prefix}
    assert set(far.table("backbone")) == own_blocks
    assert set(far.table("ibgp_fra1")) == {*ROUTES, *(blocks(0) - own_blocks)}
    # Blocks of nodes are for our nodes: the peer has the aggregates.
    assert set(other.table()) == AGGREGATES


@pytest.mark.parametrize("igp", IGPS)
def test_a_lost_tunnel_moves_traffic_and_no_session(router: Callable[..., Router], igp: str) -> None:
    """The direct tunnel dies silently; packets take the way over the third node, and iBGP has not noticed."""
    nodes, _other = built(router, igp, {"fra1": {}, "hkg1": {}, "nrt1": {}})
    far = nodes["nrt1"]
    far.router.wait_established("ibgp_fra1", "ibgp_hkg1")
    wait_for_traffic(far)
    assert "in-fra1" in way(far)
    before = {name: far.router.since(name) for name in ("ibgp_fra1", "ibgp_hkg1")}
    # A tunnel has no carrier to lose: both ends stay up, and packets vanish.
    for node, interface in ((far, "in-fra1"), (nodes["fra1"], "in-nrt1")):
        node.router.run("nft", f"add table netdev cut; add chain netdev cut out {{ type filter hook egress device {interface} priority 0; policy drop; }}")
    wait_for("the other way", lambda: "in-hkg1" in way(far), WAY_WAIT)
    wait_for_traffic(far)
    assert {name: far.router.since(name) for name in before} == before
    assert all(far.router.session(name).startswith("Established") for name in before)


def test_a_dead_node_is_routed_around(router: Callable[..., Router]) -> None:
    """Two nodes have the same peer; the nearer one dies, and the third reaches the peer through the other."""
    nodes, _other = built(router, "babel", {"fra1": {}, "hkg1": {"dn42_peers": [peer("peer1", ASN)]}, "nrt1": {}})
    nodes["hkg1"].router.wait_established("peer_peer1")
    far = nodes["nrt1"]
    far.router.wait_established("ibgp_fra1", "ibgp_hkg1")
    wait_for("routes from both", lambda: set(ROUTES) <= set(far.table("ibgp_fra1")) and set(ROUTES) <= set(far.table("ibgp_hkg1")))
    wait_for_traffic(far)
    nearer = "fra1" if "in-fra1" in way(far) else "hkg1"
    survivor = {"fra1": "hkg1", "hkg1": "fra1"}[nearer]
    before = far.router.since(f"ibgp_{survivor}")
    nodes[nearer].router.end()
    wait_for(f"the way through {survivor}", lambda: f"in-{survivor}" in way(far), WAY_WAIT)
    wait_for_traffic(far)
    assert far.router.since(f"ibgp_{survivor}") == before


@pytest.mark.full
def test_reflectors_pass_on_what_others_have(router: Callable[..., Router]) -> None:
    """Five nodes, sessions with the two reflectors alone: everybody has the route, with the next hop of the node that heard it."""
    names = ("ams1", "fra1", "hkg1", "nrt1", "syd1")
    nodes, _other = built(router, "babel", {name: {} for name in names}, dn42_router_backbone_route_reflectors=["fra1", "hkg1"])
    for name in ("ams1", "nrt1", "syd1"):
        assert [session["name"] for session in nodes[name].model["ibgp"]] == ["fra1", "hkg1"]
        nodes[name].router.wait_established("ibgp_fra1", "ibgp_hkg1")
    gateway = nodes["ams1"].model["addresses"]["gateway"]["ipv6"]
    for name in names[1:]:
        node = nodes[name]
        wait_for(f"routes of {name}", lambda node=node: set(ROUTES) <= set(node.router.routes()))
        assert {route.attributes["BGP.next_hop"].split()[0] for prefix in ROUTES for route in node.router.routes()[prefix]} == {gateway}
        wait_for_traffic(node)


@pytest.mark.parametrize("igp", ["babel", "ospf"])
@pytest.mark.parametrize("version", ["2.0", "2.17", "3"])
def test_every_bird_reads_it(router: Callable[..., Router], version: str, igp: str) -> None:
    """Without a warning."""
    variables = {"dn42_router_bird_version": version, "dn42_router_backbone_igp": igp, "dn42_stack_services": ["router", "dns"]}
    models = rendering.models({"fra1": variables, "hkg1": variables})
    assert router("fra1", version).parse(rendering.configuration(models["fra1"], variables)) == ""


def test_a_node_with_an_old_bird_has_the_same_network(router: Callable[..., Router]) -> None:
    """BIRD 2.0 hears no IPv4 from Babel; as soon as one node has it, IPv4 blocks come by iBGP everywhere."""
    old = {"dn42_router_bird_version": "2.0", "dn42_stack_services": ["router", "dns"]}
    models = rendering.models({"fra1": old, "hkg1": {}})
    assert {name: model["igp"]["ipv4"] for name, model in models.items()} == {"fra1": False, "hkg1": False}
    nodes = {name: Node(name, router(name, version), models[name], variables) for name, version, variables in (("fra1", "2.0", old), ("hkg1", "2.17", {}))}
    connect(nodes["fra1"].router, "in-hkg1", nodes["hkg1"].router, "in-fra1")
    for node in nodes.values():
        node.bring_up()
        node.start()
    nodes["fra1"].router.wait_established("ibgp_hkg1")
    for name, other in (("fra1", "hkg1"), ("hkg1", "fra1")):
        wait_for_traffic(nodes[name], tuple(models[other]["addresses"]["gateway"].values()))


def test_what_leaks_into_the_igp_is_refused(router: Callable[..., Router]) -> None:
    """A node that tells the IGP of a default, a foreign prefix, an aggregate and another node's block is not believed in any of them."""
    nodes = network(router, {"fra1": {}, "hkg1": {}})
    files = rendering.configuration(nodes["hkg1"].model, nodes["hkg1"].options)
    leaks = ["0.0.0.0/0", "172.22.100.0/24", "172.23.255.0/26", "172.23.255.0/29", "203.0.113.0/24"]
    leaky = "protocol static leaks { ipv4; " + "".join(f"route {leak} unreachable; " for leak in leaks) + "}\n"
    files["bird.conf"] += leaky
    files["bird-policy.conf"] = files["bird-policy.conf"].replace("filter backbone_export {", "filter backbone_export {\n  accept;\n")
    for node in nodes.values():
        node.bring_up()
    nodes["fra1"].start()
    nodes["hkg1"].router.start(files)
    wait_for("the block", lambda: blocks(1) <= set(nodes["fra1"].table("backbone")))
    assert "172.22.100.0/24" in nodes["hkg1"].router.exported("backbone")
    assert set(nodes["fra1"].table("backbone")) == blocks(1)


@pytest.mark.parametrize("igp", IGPS)
def test_a_dead_node_is_not_announced_for(router: Callable[..., Router], igp: str) -> None:
    """What came in at a node that is away goes from our peers with the IGP's notice, not after hold time and graceful restart."""
    variables = {"fra1": {"dn42_peers": [peer("peer1", ASN)]}, "hkg1": {"dn42_peers": [peer("side", ASN + 1)]}}
    nodes = network(router, {name: {"dn42_router_backbone_igp": igp, **each} for name, each in variables.items()})
    others = {"peer1": foreign_network(router, "peer1", ASN, *ADDRESSES, [Announcement(route) for route in ROUTES]), "side": foreign_network(router, "side", ASN + 1, *SIDE)}
    join(nodes["fra1"], "peer1", others["peer1"])
    join(nodes["hkg1"], "side", others["side"])
    for node in nodes.values():
        node.bring_up()
    for one in (*nodes.values(), *others.values()):
        one.start()
    here = nodes["hkg1"].router
    here.wait_established("peer_side", "ibgp_fra1")
    wait_for("routes of the other node's peer", lambda: set(others["side"].table()) == AGGREGATES | set(ROUTES), WAY_WAIT)
    before = here.since("peer_side")
    nodes["fra1"].router.run("nft", "add table netdev cut; add chain netdev cut out { type filter hook egress device in-hkg1 priority 0; policy drop; }")
    # Babel misses it after four greetings (8 s), OSPF after 15 s, the session only after its hold time (30 s).
    wait_for("them gone", lambda: set(others["side"].table()) == AGGREGATES, WAY_WAIT, lambda: here.birdc("show route all"))
    assert here.session("ibgp_fra1").startswith("Established")
    assert here.since("peer_side") == before


@pytest.mark.parametrize("igp", IGPS)
def test_a_new_container_waits_for_no_timeout(router: Callable[..., Router], igp: str) -> None:
    """BIRD in recovery gives the kernel no routes before its sessions are back, and iBGP needs a route to come back."""
    nodes, _other = built(router, igp, {"fra1": {}, "hkg1": {}, "nrt1": {}}, dn42_router_backbone_links=LINE)
    far = nodes["nrt1"]
    far.router.wait_established("ibgp_fra1", "ibgp_hkg1")
    far.router.kill()
    for family, table in (("-4", "main"), ("-6", "main"), ("-6", "253")):
        far.router.run("ip", family, "route", "flush", "table", table, "proto", "bird", check=False)
    files = rendering.configuration(far.model, far.options)
    patient = files["bird.conf"].replace("graceful restart wait 30;", "graceful restart wait 3600;")
    assert patient != files["bird.conf"]
    far.router.start({**files, "bird.conf": patient})
    far.router.wait_established("ibgp_fra1", "ibgp_hkg1")
    wait_for("the end of the recovery", lambda: "recovery" not in far.router.birdc("show status").lower(), told=lambda: far.router.birdc("show status"))
    wait_for_traffic(far)


@pytest.mark.full
def test_changes_of_the_backbone_are_a_reload(router: Callable[..., Router]) -> None:
    """Another IGP, other tunnels, reflectors: the session with a peer keeps its age, and everything is reached again."""
    names = ("fra1", "hkg1", "nrt1")
    nodes, other = built(router, "babel", {name: {} for name in names})
    for node in nodes.values():
        wait_for_traffic(node)
    before = nodes["fra1"].router.since("peer_peer1"), other.router.since("us")
    for options in ({"igp": "ospf"}, {"igp": "ospf", "links": LINE}, {"links": LINE, "route_reflectors": ["hkg1"]}):
        common = {f"dn42_router_backbone_{name}": value for name, value in options.items()}
        models = rendering.models({name: {**common, "dn42_peers": [peer("peer1", ASN)] if name == "fra1" else []} for name in names})
        for name, node in nodes.items():
            node.model = models[name]
            node.start()
        for name, node in nodes.items():
            node.router.wait_established(*(session["protocol"] for session in models[name]["ibgp"]))
            wait_for_traffic(node)
        assert (nodes["fra1"].router.since("peer_peer1"), other.router.since("us")) == before
