# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kinds of sessions: which families they carry, with traffic, and what may change without a reset."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import rendering
from foreign import BOTH, IPV4, IPV6, Announcement, session
from laboratory import AGGREGATES, OUR_ASN, Foreign, Node, foreign_network, join, network, peer
from routers import Router, address, wait_for

# Routes are in BIRD's table first and then in the kernel's, with the next scan (10 s) at the latest.
KERNEL_WAIT = 15
ASN = 4200429002
ROUTES = ("172.20.1.0/24", "fd11:1:1::/48")
ADDRESSES = ("172.20.1.1", "fd11:1:1::1")
OUR_ADDRESSES = ("172.23.255.2", "fd99:4242:1::2")
OUR_IPV4, THEIR_IPV4 = "172.20.240.1", "172.20.240.2"
# Of the peer's own network, as his address on all of his tunnels.
FAR_IPV4 = "172.20.1.9"
IPV4_ON_TUNNEL = {"peer_ipv4": THEIR_IPV4, "local_ipv4": OUR_IPV4}
NEXT_HOP = f"ipv4 {{ import all; export where source = RTS_STATIC; next hop address {THEIR_IPV4}; }};"


def one_peer(
    make: Callable[..., Router], channels: str = BOTH, options: str = "", version: str = "", routes: tuple[Announcement, ...] = (), **settings: Any
) -> tuple[Node, Foreign]:
    """A node with the peer `peer1`, everything but BIRD running."""
    us = network(make, {"fra1": {"dn42_peers": [peer("peer1", ASN, **settings)]}}, version=version)["fra1"]
    other = foreign_network(make, "peer1", ASN, *ADDRESSES, routes or [Announcement(route) for route in ROUTES])
    join(us, "peer1", other, channels, options)
    us.bring_up()
    return us, other


@dataclass(frozen=True)
class Kind:
    """One row of the table in docs/routing.md: our options, and the other side's sessions by name."""

    options: dict[str, Any]
    sessions: dict[str, str]
    families: tuple[str, ...] = ("ipv4", "ipv6")
    next_hop: str = "fe80::2"
    their_address: str = f"{THEIR_IPV4}/30"


def over_ipv6(channels: str) -> str:
    """A session of the other side over link-local addresses."""
    return session("us", "fe80::2", "fe80::1", "us-fra1", OUR_ASN, channels)


def over_ipv4(name: str, theirs: str = THEIR_IPV4, ours: str = OUR_IPV4) -> str:
    """A session of the other side over IPv4."""
    return session(name, theirs, ours, "", OUR_ASN, IPV4)


KINDS = {
    "one session with both families, IPv6 only on the tunnel": Kind({}, {"us": over_ipv6(BOTH)}),
    "IPv6 alone": Kind({"multiprotocol": False}, {"us": over_ipv6(IPV6)}, ("ipv6",)),
    "both families and extended next hop, with IPv4 on the tunnel": Kind({**IPV4_ON_TUNNEL, "extended_next_hop": True}, {"us": over_ipv6(BOTH)}),
    "both families with an IPv4 next hop": Kind({**IPV4_ON_TUNNEL, "multiprotocol": True}, {"us": over_ipv6(f"{NEXT_HOP} {IPV6}")}, next_hop=THEIR_IPV4),
    "a session for each family": Kind({**IPV4_ON_TUNNEL, "multiprotocol": False}, {"us": over_ipv6(IPV6), "us4": over_ipv4("us4")}, next_hop=THEIR_IPV4),
    "IPv4 alone": Kind({**IPV4_ON_TUNNEL, "peer_address": None}, {"us4": over_ipv4("us4")}, ("ipv4",), THEIR_IPV4),
    "IPv4 alone, each side with its own address": Kind(
        {"peer_ipv4": FAR_IPV4, "local_ipv4": f"{OUR_ADDRESSES[0]}/32", "peer_address": None},
        {"us4": over_ipv4("us4", FAR_IPV4, OUR_ADDRESSES[0])},
        ("ipv4",),
        FAR_IPV4,
        f"{FAR_IPV4} peer {OUR_ADDRESSES[0]}/32",
    ),
    "both families, each side with its own IPv4 address": Kind(
        {"peer_ipv4": FAR_IPV4, "local_ipv4": f"{OUR_ADDRESSES[0]}/32", "multiprotocol": True},
        {"us": over_ipv6(f"{NEXT_HOP.replace(THEIR_IPV4, FAR_IPV4)} {IPV6}")},
        next_hop=FAR_IPV4,
        their_address=f"{FAR_IPV4} peer {OUR_ADDRESSES[0]}/32",
    ),
}


@pytest.mark.parametrize("name", KINDS)
def test_kinds_of_sessions_carry_routes_and_traffic(router: Callable[..., Router], name: str) -> None:
    """B50: routes of each family on both sides, and packets there and back."""
    kind = KINDS[name]
    us, other = one_peer(router, **kind.options)
    other.sessions = "".join(kind.sessions.values())
    address(other.router, "us-fra1", kind.their_address)
    us.start()
    other.start()
    other.router.wait_established(*kind.sessions)
    wanted = [index for index, family in enumerate(("ipv4", "ipv6")) if family in kind.families]
    wait_for("both sides' routes", lambda: len(us.router.routes("where source = RTS_BGP")) == len(wanted) == len(other.router.routes("where source = RTS_BGP")))
    found = us.router.routes("where source = RTS_BGP")
    assert set(found) == {ROUTES[index] for index in wanted}
    for index in wanted:
        wait_for("traffic there", lambda index=index: us.ping(ADDRESSES[index]), KERNEL_WAIT)
        wait_for("traffic back", lambda index=index: other.router.reaches(ADDRESSES[index], OUR_ADDRESSES[index]), KERNEL_WAIT)
    if "ipv4" in kind.families:
        assert found[ROUTES[0]][0].attributes["via"] == kind.next_hop


def test_bfd_where_both_sides_have_it(router: Callable[..., Router]) -> None:
    us, other = one_peer(router, options="bfd on;", bfd=True)
    other.sessions = f"protocol bfd {{ }}\n{other.sessions}"
    us.start()
    other.start()
    us.router.wait_established("peer_peer1")
    for one in (us.router, other.router):
        wait_for("BFD session", lambda one=one: " Up " in one.birdc("show bfd sessions"), told=lambda one=one: one.birdc("show bfd sessions"))


def test_roles_that_do_not_fit_together_make_no_session(router: Callable[..., Router]) -> None:
    """RFC 9234: a customer's neighbour is a provider and nothing else."""
    us, other = one_peer(router, options="local role customer;", role="customer")
    us.start()
    other.start()
    wait_for("refusal", lambda: "Role mismatch" in us.router.birdc("show protocols all peer_peer1"), 15)
    other.sessions = other.sessions.replace("role customer", "role provider")
    other.start()
    us.router.wait_established("peer_peer1")


def test_what_a_provider_tells_is_not_told_to_another(router: Callable[..., Router]) -> None:
    """RFC 9234: a leak ends here, also where the other side says nothing of its role; a customer has it all."""
    roles = {"provider": ("customer", "local role provider;"), "side": ("peer", ""), "customer": ("provider", "local role customer;")}
    peers = [peer(name, ASN + index, role=ours) for index, (name, (ours, _theirs)) in enumerate(roles.items())]
    us = network(router, {"fra1": {"dn42_peers": peers}})["fra1"]
    others = {name: foreign_network(router, name, ASN + index, f"172.20.{index + 1}.1", f"fd11:1:{index + 1}::1") for index, name in enumerate(roles)}
    others["provider"].announcements = [Announcement(route) for route in ROUTES]
    for name, (_ours, theirs) in roles.items():
        join(us, name, others[name], BOTH, theirs)
    us.bring_up()
    for one in (us, *others.values()):
        one.start()
    us.router.wait_established(*(f"peer_{name}" for name in roles))
    wait_for("the customer's routes", lambda: set(others["customer"].table()) == AGGREGATES | set(ROUTES))
    wait_for("the other peer's routes", lambda: set(others["side"].table()) >= AGGREGATES)
    assert set(others["side"].table()) == AGGREGATES


def test_a_peer_in_shutdown_keeps_its_tunnel_and_has_no_session(router: Callable[..., Router]) -> None:
    """RFC 8203: the reason comes from birdc; the inventory then makes it last."""
    us, other = one_peer(router)
    us.start()
    other.start()
    us.router.wait_established("peer_peer1")
    wait_for("our routes", lambda: set(other.table()) == AGGREGATES)
    us.router.birdc('disable peer_peer1 "new cable, back at noon"')
    wait_for("the reason", lambda: "new cable, back at noon" in other.router.log(), told=other.router.log)
    us.router.birdc("enable peer_peer1")
    us.router.wait_established("peer_peer1")
    tunnels = us.model["tunnels"]
    us.model = rendering.models({"fra1": {"dn42_peers": [peer("peer1", ASN, state="shutdown")]}})["fra1"]
    us.start()
    wait_for("our routes gone", lambda: not other.table())
    assert not us.table("peer_peer1")
    assert us.router.session("peer_peer1").startswith("down")
    assert us.model["tunnels"] == tunnels


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_more_routes_than_the_limit_are_refused_and_told(router: Callable[..., Router], family: str) -> None:
    """B47: the session stays, the state is there to see, a higher limit and a reload get the others without a reset."""
    routes = tuple(Announcement(f"172.20.1.{8 * index}/29" if family == "ipv4" else f"fd11:1:{index + 1}::/48") for index in range(8))
    us, other = one_peer(router, routes=routes, import_limit=5)
    us.start()
    other.start()
    us.router.wait_established("peer_peer1")
    wait_for("the limit", lambda: "import limit (5), action: block" in us.router.log(), told=us.router.log)
    assert "receive limit (4), action: warn" in us.router.log()
    assert len(us.table("peer_peer1")) == 5
    assert "[HIT]" in us.router.birdc("show protocols all peer_peer1")
    since = us.router.since("peer_peer1")
    for limit, count in ((7, 7), (0, 8)):
        us.model = rendering.models({"fra1": {"dn42_peers": [peer("peer1", ASN, import_limit=limit)]}})["fra1"]
        us.start()
        us.router.birdc("reload in peer_peer1")
        wait_for(f"{count} routes", lambda count=count: len(us.table("peer_peer1")) == count, told=lambda: us.router.birdc("show protocols all peer_peer1"))
    assert us.router.since("peer_peer1") == since


def test_sessions_keep_their_age_when_others_change(router: Callable[..., Router]) -> None:
    """B44: a peer more, another order, other words, another policy: no reset for anybody."""
    peers = [peer(f"peer{number}", ASN + number) for number in range(3)]
    us = network(router, {"fra1": {"dn42_peers": peers}})["fra1"]
    for number in range(3):
        other = foreign_network(router, f"peer{number}", ASN + number, f"172.20.{number}.1", f"fd11:1:{number + 1}::1", [Announcement(f"fd11:1:{number + 1}::/48")])
        join(us, f"peer{number}", other)
        other.start()
    us.bring_up()
    us.start()
    sessions = [f"peer_peer{number}" for number in range(3)]
    us.router.wait_established(*sessions)
    since = {name: us.router.since(name) for name in sessions}
    changed: list[list[dict[str, Any]]] = [
        [*peers, peer("peer9", ASN + 9)],
        random.Random(7).sample(peers, 3),
        [{**peers[0], "description": "other words"}, *peers[1:]],
        [{**peers[0], "latency": 200, "local_preference": 50, "prepend": 1, "import_limit": 100}, *peers[1:]],
    ]
    for inventory in changed:
        us.model = rendering.models({"fra1": {"dn42_peers": inventory}})["fra1"]
        us.start()
        wait_for("sessions", lambda: all(us.router.session(name).startswith("Established") for name in sessions), 5)
        assert {name: us.router.since(name) for name in sessions} == since
    assert "other words" not in us.router.birdc("show protocols all peer_peer0")
    assert us.table("peer_peer0")["fd11:1:1::/48"].attributes["BGP.local_pref"] == "50"


@pytest.mark.parametrize("version", ["2.0", "2.17", "3"])
def test_every_bird_reads_everything_without_a_warning(router: Callable[..., Router], version: str) -> None:
    everything = {
        "dn42_peers": [
            peer("a", ASN, bfd=True, role="peer", local_preference=50, prepend=3, import_limit=0, latency=1, bandwidth=1, crypto=36, link_type="ixp", packet_loss=9),
            peer("b", ASN + 1, multiprotocol=False, state="shutdown", **IPV4_ON_TUNNEL),
            peer("c", ASN + 2, multiprotocol=True, peer_ipv4="172.20.240.6", local_ipv4="172.20.240.5/30"),
        ],
        "dn42_router_bird_version": version,
        "dn42_stack_services": ["router", "dns"],
        "dn42_router_region": 57,
        "dn42_router_country": 276,
        "dn42_router_rtr_servers": ["172.20.1.1:8082", "[fd11:1:1::1]:8082", "rpki.example.dn42:8082"],
    }
    model = rendering.models({"fra1": everything, "hkg1": {}})["fra1"]
    one = router("fra1", version)
    for roa in ("off", "files", "rtr"):
        assert one.parse(rendering.configuration(model, {"dn42_router_roa": roa, "dn42_router_bird_version": version})) == ""


@pytest.mark.parametrize("version", ["2.0", "3"])
def test_older_and_newer_birds_do_the_same(router: Callable[..., Router], version: str) -> None:
    """Not only read: a good route with a community, and a bad one."""
    routes = (Announcement(ROUTES[0], communities=((64511, 8),)), Announcement(ROUTES[1]), Announcement("172.17.0.0/16"))
    us, other = one_peer(router, version=version, routes=routes, latency=10)
    us.start()
    other.start()
    us.router.wait_established("peer_peer1")
    wait_for("our routes", lambda: set(other.table()) == AGGREGATES)
    wait_for("their routes", lambda: set(us.table("peer_peer1")) == set(ROUTES))
    assert us.table("peer_peer1")[ROUTES[0]].communities == {(64511, 8), (64511, 34)}
    wait_for("traffic", lambda: us.ping(ADDRESSES[0]), KERNEL_WAIT)


@pytest.mark.parametrize("kind_name", ["one session with both families, IPv6 only on the tunnel", "both families with an IPv4 next hop"])
def test_next_hops_and_traffic_across_three_nodes(router: Callable[..., Router], kind_name: str) -> None:
    """B48: a peer of one node is reached from the others, in both families and whatever its next hop, and knows the way back."""
    kind = KINDS[kind_name]
    nodes = network(router, {"fra1": {"dn42_peers": [peer("peer1", ASN, **kind.options)]}, "hkg1": {}, "nrt1": {}})
    other = foreign_network(router, "peer1", ASN, *ADDRESSES, [Announcement(route) for route in ROUTES])
    join(nodes["fra1"], "peer1", other)
    other.sessions = "".join(kind.sessions.values())
    address(other.router, "us-fra1", f"{THEIR_IPV4}/30")
    for node in nodes.values():
        node.bring_up()
        node.start()
    other.start()
    nodes["fra1"].router.wait_established("peer_peer1", "ibgp_hkg1", "ibgp_nrt1")
    nodes["hkg1"].router.wait_established("ibgp_nrt1")
    for name in ("hkg1", "nrt1"):
        wait_for(f"routes of {name}", lambda name=name: set(ROUTES) <= set(nodes[name].table("ibgp_fra1")))
        for destination in ADDRESSES:
            wait_for(f"{name} to {destination}", lambda name=name, destination=destination: nodes[name].ping(destination), KERNEL_WAIT)
    # Blocks of nodes are for our nodes: the peer has the aggregates.
    assert "172.23.255.8/29" in nodes["nrt1"].table("backbone")
    assert set(other.table()) == AGGREGATES


def test_a_bird_that_is_killed_keeps_its_peers_routes_and_its_own(router: Callable[..., Router]) -> None:
    """Graceful restart: at no moment of it has either side withdrawn anything, and traffic flows throughout."""
    graceful = "graceful restart on;"
    us, other = one_peer(router, options=graceful)
    us.start()
    other.start()
    us.router.wait_established("peer_peer1")
    wait_for("routes of both", lambda: set(other.table()) == AGGREGATES and set(us.table("peer_peer1")) == set(ROUTES))
    kernel = us.router.run("ip", "route", "show", "proto", "bird").stdout
    assert ROUTES[0] in kernel
    us.router.kill()
    wait_for("the peer's notice", lambda: not other.router.session("us").startswith("Established"), 15)
    assert set(other.table()) == AGGREGATES
    assert us.ping(ADDRESSES[0])
    us.start()
    seen = []

    def back() -> bool:
        seen.append((set(other.table()) == AGGREGATES, us.router.run("ip", "route", "show", "proto", "bird").stdout == kernel))
        return us.router.session("peer_peer1").startswith("Established") and "recovery in progress" not in us.router.birdc("show status").lower()

    wait_for("the session again", back, told=lambda: us.router.birdc("show status"))
    assert all(here and there for here, there in seen), seen
    assert set(us.table("peer_peer1")) == set(ROUTES)
    assert us.ping(ADDRESSES[0])


STALE = (65535, 6)
SHORT = "graceful restart on; graceful restart time 1;"  # seconds, in place of 60 and BIRD's 120


def test_routes_of_one_that_stays_away_are_the_last_choice(router: Callable[..., Router]) -> None:
    """Long-lived graceful restart, both ways: a second after it should have been back, its routes are there and marked."""
    us, other = one_peer(router, options=f"{SHORT} long lived graceful restart on;")
    files = rendering.configuration(us.model)
    files["bird.conf"] = files["bird.conf"].replace("graceful restart time 60;", "graceful restart time 1;")
    assert "restart time 1;" in files["bird.conf"]

    def ours_stale() -> bool:
        return any(STALE in route.communities for route in other.table().values())

    def theirs_stale() -> bool:
        return STALE in us.table("peer_peer1")[ROUTES[0]].communities

    us.router.start(files)
    other.start()
    us.router.wait_established("peer_peer1")
    wait_for("routes", lambda: set(us.table("peer_peer1")) == set(ROUTES) and set(other.table()) == AGGREGATES)
    us.router.kill()
    wait_for("the mark on ours", ours_stale)
    us.router.start(files)
    us.router.wait_established("peer_peer1")
    wait_for("the mark on ours gone", lambda: not ours_stale() and set(us.table("peer_peer1")) == set(ROUTES))
    other.router.kill()
    wait_for("the mark on theirs", theirs_stale)
    assert us.ping(ADDRESSES[0])
    other.start()
    us.router.wait_established("peer_peer1")
    wait_for("the mark on theirs gone", lambda: not theirs_stale())
