# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What communities do: those that tell what a path is like, those that ask for something, and those that are ours."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from foreign import Announcement
from laboratory import OUR_ASN, Foreign, Node, foreign_network, join, network, peer
from routers import Router, wait_for

# What the tunnel to `up` is like, as an operator writes it, and as communities. That to `down` is encrypted better.
LINK = {"latency": 19.5, "bandwidth": 150, "link_type": "tunnel", "packet_loss": 0.5}
LINK_VALUES = {"latency": 3, "bandwidth": 24, "crypto": 34, "link_type": 83, "packet_loss": 92}
PSK = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXMhISE="
GROUPS = {
    "latency": (range(1, 10), max),
    "bandwidth": (range(21, 30), min),
    "crypto": (range(31, 37), min),
    "link_type": ((81, 82, 83, 84, 85, 89), max),
    "packet_loss": (range(91, 95), max),
}
CASES = [(group, value) for group, (values, _worst) in GROUPS.items() for value in values]


def prefix(side: int, index: int) -> str:
    """A prefix for a case, from the space of one of the two sides."""
    return f"172.20.{side + index // 32}.{index % 32 * 8}/29" if side % 2 == 0 else f"fd{side}:{index + 1:x}::/48"


def of_group(communities: set[tuple[int, int]], group: str) -> set[int]:
    """The values of one group."""
    first, last = {"latency": (1, 9), "bandwidth": (21, 29), "crypto": (31, 36), "link_type": (81, 89), "packet_loss": (91, 94)}[group]
    return {value for asn, value in communities if asn == 64511 and first <= value <= last}


NONE, SEVERAL, REGION, BLACKHOLE, SHUTDOWN, LARGE = (f"172.22.{third}.0/24" for third in range(10, 16))
BLACKHOLE_IPV6 = "fd55:1:1::/48"
# Every region, and countries from the first to the last.
PLACES = {(64511, value) for value in (*range(41, 58), 1004, 1156, 1276, 1392, 1840, 1894)}
PLACES_BACK = "fd56:1:1::/48"
SPECIAL = [
    Announcement(NONE),
    Announcement(SEVERAL, communities=((64511, 2), (64511, 7), (64511, 5), (64511, 22), (64511, 25))),
    Announcement(REGION, communities=tuple(PLACES)),
    Announcement(BLACKHOLE, communities=((65535, 666),)),
    Announcement(BLACKHOLE_IPV6, communities=((65535, 666),)),
    Announcement(SHUTDOWN, communities=((65535, 0),)),
    Announcement(LARGE, large=((OUR_ASN, 100, 7), (OUR_ASN, 1, 1), (4200429002, 1, 2))),
]


class World:
    """Us between two foreign networks that announce a route with each value."""

    def __init__(self, make: Callable[..., Router]) -> None:
        peers = [peer("up", 4200429002, local_preference=250, **LINK), peer("down", 4200429003, preshared_key=PSK, prepend=2)]
        self.us: Node = network(make, {"fra1": {"dn42_peers": peers, "dn42_router_region": 41}})["fra1"]
        announced = {side: [Announcement(prefix(side, index), communities=((64511, value),)) for index, (_group, value) in enumerate(CASES)] for side in (40, 44)}
        self.up: Foreign = foreign_network(make, "up", 4200429002, "172.22.10.1", "fd22:1:1::1", [*announced[40], *SPECIAL])
        self.down: Foreign = foreign_network(make, "down", 4200429003, "172.22.1.1", "fd22:1:1::1", [*announced[44], Announcement(PLACES_BACK, communities=tuple(PLACES))])
        join(self.us, "up", self.up)
        join(self.us, "down", self.down)
        self.us.bring_up()
        for one in (self.us, self.up, self.down):
            one.start()
        self.us.router.wait_established("peer_up", "peer_down")
        beyond = {one.prefix for one in (*announced[40], *SPECIAL)} - {BLACKHOLE, BLACKHOLE_IPV6}
        wait_for("routes beyond us", lambda: set(self.down.table()) >= beyond, told=lambda: str(beyond - set(self.down.table())))
        back = {one.prefix for one in announced[44]} | {PLACES_BACK}
        wait_for("routes back", lambda: set(self.up.table()) >= back, told=lambda: str(back - set(self.up.table())))


@pytest.fixture(scope="module")
def world(lasting_router: Callable[..., Router]) -> World:
    """Made once, looked at by every case."""
    return World(lasting_router)


@pytest.mark.parametrize("index", range(len(CASES)), ids=[f"{group} {value}" for group, value in CASES])
def test_the_worst_link_counts_when_a_route_comes_in_and_when_it_goes_out(world: World, index: int) -> None:
    """From `up` the values of its tunnel are put on when we accept, towards `up` when we announce."""
    group, value = CASES[index]
    worst = GROUPS[group][1](value, LINK_VALUES[group])
    beyond = world.down.table()[prefix(40, index)].communities
    assert of_group(beyond, group) == {worst}
    assert all(of_group(beyond, other) == {LINK_VALUES[other]} for other in GROUPS if other != group)
    back = world.up.table()[prefix(44, index)].communities
    assert of_group(back, group) == {worst}
    assert all(of_group(back, other) == {LINK_VALUES[other]} for other in GROUPS if other != group)


def test_a_link_that_says_nothing_leaves_values_alone(world: World) -> None:
    """`down` gives nothing but its encryption, which a preshared key makes 35."""
    here = world.us.table("peer_down")
    for index, (group, value) in enumerate(CASES):
        values = of_group(here[prefix(44, index)].communities, group)
        assert values == ({min(value, 35)} if group == "crypto" else {value})
        assert of_group(here[prefix(44, index)].communities, "crypto") == ({min(value, 35)} if group == "crypto" else {35})


def test_a_route_without_values_gets_those_of_our_link(world: World) -> None:
    assert {value for asn, value in world.down.table()[NONE].communities if asn == 64511} == set(LINK_VALUES.values())


def test_of_several_values_the_worst_stays(world: World) -> None:
    beyond = world.down.table()[SEVERAL].communities
    assert of_group(beyond, "latency") == {7}
    assert of_group(beyond, "bandwidth") == {22}


def test_region_and_country_of_others_pass_untouched(world: World) -> None:
    """All of them, in both directions; and ours stay off."""
    for table, route in ((world.down.table(), REGION), (world.up.table(), PLACES_BACK)):
        assert {pair for pair in table[route].communities if 41 <= pair[1] <= 70 or pair[1] >= 1000} == PLACES
        assert (64511, 41) not in table[NONE if route == REGION else prefix(44, 0)].communities
        assert (64511, 41) in table["172.23.255.0/26"].communities


@pytest.mark.parametrize("route", [BLACKHOLE, BLACKHOLE_IPV6])
def test_a_blackhole_is_made_here_and_told_to_nobody(world: World, route: str) -> None:
    family = "-6" if ":" in route else "-4"
    assert world.us.router.run("ip", family, "route", "show", "type", "blackhole", "proto", "bird").stdout.split()[:2] == ["blackhole", route]
    assert route not in world.down.table()


def test_graceful_shutdown_makes_a_route_the_last_choice(world: World) -> None:
    """Whatever the peer's local preference is; other routes have it."""
    here = world.us.table("peer_up")
    assert here[SHUTDOWN].attributes["BGP.local_pref"] == "0"
    assert here[NONE].attributes["BGP.local_pref"] == "250"
    assert (65535, 0) in world.down.table()[SHUTDOWN].communities


def test_a_route_in_graceful_shutdown_gives_way_to_another(router: Callable[..., Router]) -> None:
    """A neighbour beyond us is told the other way, before anything is withdrawn; and the first again when that is over."""
    route, first, second = "172.20.1.0/24", 4200429002, 4200429003
    us = network(router, {"fra1": {"dn42_peers": [peer("first", first, local_preference=250), peer("second", second), peer("down", 4200429004)]}})["fra1"]
    ways = {
        name: foreign_network(router, name, asn, f"172.22.{asn % 10}.1", f"fd22:1:{asn % 10}::1", [Announcement(route)]) for name, asn in (("first", first), ("second", second))
    }
    down = foreign_network(router, "down", 4200429004, "172.22.4.1", "fd22:1:4::1")
    for name, other in (*ways.items(), ("down", down)):
        join(us, name, other)
    us.bring_up()
    for one in (us, *ways.values(), down):
        one.start()
    us.router.wait_established("peer_first", "peer_second", "peer_down")
    wait_for("the preferred way", lambda: route in down.table() and down.table()[route].as_path == [OUR_ASN, first] and route in us.table("peer_second"))
    for communities, way in ((((65535, 0),), second), ((), first)):
        ways["first"].announcements = [Announcement(route, communities=communities)]
        ways["first"].start()
        wait_for(f"the way by AS{way}", lambda way=way: down.table()[route].as_path == [OUR_ASN, way], told=lambda: str(us.router.birdc(f"show route {route} all")))
        assert route in us.table("peer_first")


def test_our_own_large_communities_are_taken_off_and_others_kept(world: World) -> None:
    assert world.us.table("peer_up")[LARGE].large_communities == {(4200429002, 1, 2)}
    assert world.down.table()[LARGE].large_communities == {(4200429002, 1, 2)}


def test_prepending_lengthens_every_path_to_that_peer_alone(world: World) -> None:
    assert world.down.table()["172.23.255.0/26"].as_path == [OUR_ASN] * 3
    assert world.down.table()[NONE].as_path == [OUR_ASN, OUR_ASN, OUR_ASN, 4200429002]
    assert world.up.table()["172.23.255.0/26"].as_path == [OUR_ASN]
