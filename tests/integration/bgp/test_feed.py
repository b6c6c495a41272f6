# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A feed of DN42's size, from a registry that is generated here: what is accepted and refused, to the route."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator

from foreign import Announcement
from laboratory import AGGREGATES, OUR_ASN, foreign_network, join, network, peer
from routers import Router, wait_for

FEED_WAIT = 60  # seconds; a few are usual
VALID = 1400  # routes of each family
REFUSED = 300
UPSTREAM = 4200429002
FIRST_ORIGIN = 4201000000


def networks(whole: str, length: int, count: int) -> Iterator[str]:
    """The first networks of a length."""
    subnets = ipaddress.ip_network(whole).subnets(new_prefix=length)
    return (str(next(subnets)) for _number in range(count))


def registry() -> dict[str, int]:
    """{prefix: origin}: 1,400 of each family, of the lengths that networks of DN42 have."""
    four = [*networks("172.20.64.0/18", 24, 60), *networks("172.21.64.0/18", 26, 250), *networks("172.22.64.0/18", 27, 500), *networks("172.23.64.0/18", 28, 590)]
    six = [*networks("fd40::/16", 48, VALID - 200), *networks("fd41::/16", 56, 150), *networks("fd42:4242::/32", 64, 50)]
    assert (len(four), len(six)) == (VALID, VALID)
    return {prefix: FIRST_ORIGIN + index % 900 for index, prefix in enumerate([*four, *six])}


def bad(origins: dict[str, int]) -> list[Announcement]:
    """300 routes, sixty of each kind: no DN42, too specific, no ROA, another's network, ourselves in the path."""
    registered = list(origins)
    kinds = [
        [Announcement(prefix, (FIRST_ORIGIN,)) for prefix in [*networks("192.168.0.0/16", 24, 30), *networks("2001:db8::/32", 48, 30)]],
        [Announcement(prefix, (FIRST_ORIGIN,)) for prefix in [*networks("172.20.64.0/24", 30, 30), *networks("fd40::/48", 65, 30)]],
        [Announcement(prefix, (FIRST_ORIGIN,)) for prefix in [*networks("172.20.128.0/18", 27, 30), *networks("fd50::/16", 48, 30)]],
        [Announcement(f"{prefix.rpartition('/')[0]}/29", (FIRST_ORIGIN + 950,)) for prefix in registered[100:130]]
        + [Announcement(prefix, (FIRST_ORIGIN + 950,)) for prefix in networks("fd40:700::/32", 48, 30)],
        [Announcement(prefix, (OUR_ASN, FIRST_ORIGIN)) for prefix in [*networks("172.20.192.0/18", 26, 30), *networks("fd51::/16", 48, 30)]],
    ]
    return [one for kind in kinds for one in kind]


def test_a_feed_of_dn42s_size_is_accepted_and_refused_to_the_route(router: Callable[..., Router]) -> None:
    origins = registry()
    wrong = bad(origins)
    assert len({one.prefix for one in wrong} - set(origins)) == REFUSED
    us = network(router, {"fra1": {"dn42_peers": [peer("up", UPSTREAM), peer("down", 4200429003)]}}, {"dn42_router_roa": "files"})["fra1"]
    up = foreign_network(router, "up", UPSTREAM, "172.22.10.1", "fd22:1:1::1", [*(Announcement(prefix, (origin,)) for prefix, origin in origins.items()), *wrong])
    down = foreign_network(router, "down", 4200429003, "172.22.1.1", "fd22:2:2::1")
    # Networks with a ROA that announce ourselves in their path are among those to be refused.
    allowed = {**origins, **{one.prefix: one.path[-1] for one in wrong[240:]}, **dict.fromkeys(networks("fd40:700::/32", 48, 30), FIRST_ORIGIN)}
    for family in (4, 6):
        statements = [f"route {prefix} max {prefix.rpartition('/')[2]} as {origin};" for prefix, origin in allowed.items() if (":" in prefix) == (family == 6)]
        us.router.write_roa(f"roa{family}.conf", *statements)
    join(us, "up", up)
    join(us, "down", down)
    us.bring_up()
    for one in (us, up, down):
        one.start()
    us.router.wait_established("peer_up", "peer_down")
    wait_for("the feed beyond us", lambda: _count(down.router) >= len(origins) + len(AGGREGATES), FEED_WAIT, lambda: us.router.birdc("show protocols all peer_up"))
    assert len(up.router.exported("us")) == len(origins) + REFUSED
    assert set(us.table("peer_up")) == set(origins)
    assert set(down.table()) == set(origins) | AGGREGATES
    assert {prefix: route.as_path[-1] for prefix, route in us.table("peer_up").items()} == origins


def _count(router: Router) -> int:
    """Routes that a router has from its session with us."""
    answer = router.birdc("show route protocol us count")
    return sum(int(line.split()[0]) for line in answer.splitlines() if " of " in line and "in table" in line)
