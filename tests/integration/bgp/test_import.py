# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What we accept from a foreign network, and what a second one beyond us then has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from foreign import BOTH, Announcement
from laboratory import AGGREGATES, OUR_ASN, Foreign, Node, foreign_network, join, network, peer
from routers import Router, stub, wait_for

UPSTREAM, DOWNSTREAM, SERVER = 4200429002, 4200429003, 4200429004
FAR, FARTHER = 4200429010, 4200429011

ACCEPTED = {
    "valid": Announcement("172.20.1.0/24"),
    "valid IPv6": Announcement("fd11:1:1::/48"),
    "the shortest of DN42": Announcement("172.20.8.0/21"),
    "the longest of DN42": Announcement("172.20.2.8/29"),
    "anycast": Announcement("172.21.0.1/32"),
    "ICVPN": Announcement("10.16.0.0/15"),
    "ChaosVPN": Announcement("172.31.5.1/32"),
    "NeoNetwork": Announcement("10.127.1.1/32"),
    "the shortest of IPv6": Announcement("fd12:10::/44"),
    "the longest of IPv6": Announcement("fd12:20:1:2::/64"),
    "from behind the peer": Announcement("172.20.3.0/24", (FAR, FARTHER)),
    "the longest path": Announcement("172.20.4.0/24", (FAR,) * 31),
    "the longest path of IPv6": Announcement("fd12:50::/48", (FAR,) * 31),
}
REFUSED = {
    "too specific": Announcement("172.20.2.16/30"),
    "a host of DN42": Announcement("172.20.2.1/32"),
    "too specific for ICVPN": Announcement("10.18.5.0/25"),
    "too specific IPv6": Announcement("fd12:30::/65"),
    "too general": Announcement("172.20.16.0/20"),
    "too general IPv6": Announcement("fd12:40::/43"),
    "all of DN42": Announcement("172.20.0.0/14"),
    "all of IPv6": Announcement("fd00::/8"),
    "all of 10": Announcement("10.0.0.0/8"),
    "default": Announcement("0.0.0.0/0"),
    "default IPv6": Announcement("::/0"),
    "Docker's": Announcement("172.17.0.0/16"),
    "private": Announcement("192.168.77.0/24"),
    "beside DN42": Announcement("172.24.1.0/24"),
    "the Internet's": Announcement("198.51.100.0/24"),
    "the Internet's IPv6": Announcement("2001:db8:77::/48"),
    "not assigned locally": Announcement("fc00:1:1::/48"),
    "ours": Announcement("172.23.255.0/26"),
    "a part of ours": Announcement("172.23.255.56/29"),
    "ours IPv6": Announcement("fd99:4242:1::/48"),
    "a part of ours IPv6": Announcement("fd99:4242:1:77::/64"),
    "path too long": Announcement("172.20.5.0/24", (FAR,) * 32),
    "path too long IPv6": Announcement("fd12:60::/48", (FAR,) * 32),
    "our ASN in the path": Announcement("172.20.6.0/24", (FAR, OUR_ASN, FARTHER)),
    "our ASN in the path IPv6": Announcement("fd12:70::/48", (FAR, OUR_ASN, FARTHER)),
}
# Those have no ROA for this origin and length.
WITHOUT_ROA = {
    "no ROA": Announcement("172.20.32.0/24"),
    "no ROA IPv6": Announcement("fd13:1:1::/48"),
    "another origin": Announcement("172.20.33.0/24"),
    "another origin IPv6": Announcement("fd13:2:2::/48"),
    "longer than its ROA": Announcement("172.20.34.0/25"),
    "origin behind another": Announcement("172.20.35.0/24", (FAR, FARTHER)),
}
WRONG_ROAS = {
    4: ["route 172.20.33.0/24 max 24 as 4200429099;", "route 172.20.34.0/24 max 24 as 4200429002;", f"route 172.20.35.0/24 max 24 as {FAR};"],
    6: ["route fd13:2:2::/48 max 48 as 4200429099;"],
}


def roas(announcements: list[Announcement], origin: int) -> dict[int, list[str]]:
    """Statements that allow announcements, by family."""
    found: dict[int, list[str]] = {4: [], 6: []}
    for one in announcements:
        length = one.prefix.rpartition("/")[2]
        found[6 if ":" in one.prefix else 4].append(f"route {one.prefix} max {length} as {one.path[-1] if one.path else origin};")
    return found


class World:
    """Us between two foreign networks; a third leaves its own ASN out of the path, as a route server does."""

    def __init__(self, make: Callable[..., Router]) -> None:
        inventory = {"fra1": {"dn42_peers": [peer("up", UPSTREAM), peer("down", DOWNSTREAM), peer("server", SERVER)], "dn42_router_region": 41, "dn42_router_country": 276}}
        self.us: Node = network(make, inventory, {"dn42_router_roa": "files"})["fra1"]
        wrong = [*REFUSED.values(), *WITHOUT_ROA.values()]
        self.up: Foreign = foreign_network(make, "up", UPSTREAM, "172.20.1.1", "fd11:1:1::1", [*ACCEPTED.values(), *wrong])
        self.down: Foreign = foreign_network(make, "down", DOWNSTREAM, "172.22.1.1", "fd22:1:1::1")
        self.server: Foreign = foreign_network(
            make, "server", SERVER, "172.22.2.1", "fd22:2:2::1", [Announcement("172.22.2.0/24", (FAR,)), Announcement("172.22.3.0/24", (SERVER,))]
        )
        join(self.us, "up", self.up)
        join(self.us, "down", self.down)
        join(self.us, "server", self.server, BOTH, "rs client;")
        self.leak()
        for family, statements in roas([*ACCEPTED.values(), *REFUSED.values()], UPSTREAM).items():
            self.us.router.write_roa(f"roa{family}.conf", *statements, *WRONG_ROAS[family])
        self.us.router.write_roa("roa4-server.conf", f"route 172.22.2.0/24 max 24 as {FAR};", f"route 172.22.3.0/24 max 24 as {SERVER};")
        self.us.bring_up()
        for one in (self.us, self.up, self.down, self.server):
            one.start()
        self.us.router.wait_established("peer_up", "peer_down", "peer_server")
        announced = len(self.up.router.exported("us"))
        wait_for("all of upstream's routes", lambda: self.us.router.received("peer_up") >= announced, told=lambda: self.us.router.birdc("show protocols all peer_up"))
        good = AGGREGATES | {one.prefix for one in ACCEPTED.values()} | {"172.22.3.0/24"}
        wait_for("the good ones beyond us", lambda: set(self.down.table()) >= good, told=lambda: str(good - set(self.down.table())))

    def leak(self) -> None:
        """Networks of Docker and the host, as they are in a careless router's namespace."""
        stub(self.us.router, "docker0", "172.17.0.1/16", "10.99.0.1/24", "172.22.77.1/24", "fd77:1:1::1/48")
        for text in ("172.22.78.0/24", "fd78:1:1::/48", "default"):
            self.us.router.run("ip", "-6" if ":" in text else "-4", "route", "add", text, "dev", "docker0")


@pytest.fixture(scope="module")
def world(lasting_router: Callable[..., Router]) -> World:
    """Made once, looked at by every case."""
    return World(lasting_router)


@pytest.mark.parametrize("case", ACCEPTED)
def test_accepted_and_passed_on(world: World, case: str) -> None:
    announced = ACCEPTED[case]
    path = [UPSTREAM, *announced.path]
    assert world.us.table("peer_up")[announced.prefix].as_path == path
    assert world.down.table()[announced.prefix].as_path == [OUR_ASN, *path]


@pytest.mark.parametrize("case", [*REFUSED, *WITHOUT_ROA])
def test_refused(world: World, case: str) -> None:
    prefix = {**REFUSED, **WITHOUT_ROA}[case].prefix
    assert prefix in world.up.router.exported("us"), "it is not even announced, so this could not fail"
    assert prefix not in world.us.table("peer_up")
    beyond = world.down.table().get(prefix)
    assert beyond is None or UPSTREAM not in beyond.as_path


def test_a_first_asn_that_is_not_the_peers_is_refused(world: World) -> None:
    assert set(world.server.router.exported("us")) >= {"172.22.2.0/24", "172.22.3.0/24"}
    assert set(world.us.table("peer_server")) == {"172.22.3.0/24"}


def test_a_peer_has_our_aggregates_and_the_accepted_routes_and_nothing_else(world: World) -> None:
    """Neither Docker's and the host's networks nor blocks of nodes."""
    kernel = world.us.router.run("ip", "-4", "route").stdout
    assert "172.22.78.0/24" in kernel
    assert set(world.down.table()) == AGGREGATES | {one.prefix for one in ACCEPTED.values()} | {"172.22.3.0/24"}
    assert all(world.down.table()[prefix].as_path == [OUR_ASN] for prefix in AGGREGATES)


def test_region_and_country_are_told_of_our_own_prefixes_alone(world: World) -> None:
    """Every other route has what its path is like, and here that is the encryption."""
    table = world.down.table()
    assert all(table[prefix].communities == {(64511, 41), (64511, 1276), (64511, 34)} for prefix in AGGREGATES)
    assert table["172.20.1.0/24"].communities == {(64511, 34)}


def test_the_kernel_has_what_was_accepted_and_no_more(world: World) -> None:
    run = world.us.router.run
    routes = [line.split()[0] for family in ("-4", "-6") for line in run("ip", family, "route", "show", "proto", "bird").stdout.splitlines()]
    expected = {one.prefix.removesuffix("/32") for one in ACCEPTED.values()} | {"172.22.3.0/24"}
    assert set(routes) == expected


CHANGES: list[tuple[str, Any]] = [("172.20.32.0/24", 4), ("fd13:1:1::/48", 6)]


@pytest.mark.parametrize(("prefix", "family"), CHANGES)
def test_changed_roas_apply_to_what_was_refused_and_accepted_without_a_reset(world: World, prefix: str, family: int) -> None:
    """B45: in both directions, for routes that came long before."""
    since = {name: world.us.router.since(name) for name in ("peer_up", "peer_down", "peer_server")}
    world.us.router.write_roa(f"roa{family}-new.conf", f"route {prefix} max {prefix.rpartition('/')[2]} as {UPSTREAM};")
    world.us.start()
    wait_for(f"{prefix} beyond us", lambda: prefix in world.down.table())
    world.us.router.write_roa(f"roa{family}-new.conf")
    world.us.start()
    wait_for(f"{prefix} gone beyond us", lambda: prefix not in world.down.table())
    assert prefix not in world.us.table("peer_up")
    assert {name: world.us.router.since(name) for name in since} == since
