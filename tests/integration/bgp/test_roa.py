# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where ROAs come from, and what there is without them. How they apply to single routes is in test_import.py."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from foreign import Announcement
from laboratory import AGGREGATES, Foreign, Node, foreign_network, join, network, peer
from routers import Router, wait_for

ASN = 4200429002
VALID = ("172.20.1.0/24", "fd11:1:1::/48")
UNKNOWN = ("172.20.2.0/24", "fd11:2:2::/48")
ROAS = (f"{VALID[0]},24,{ASN}", f"{VALID[1]},48,{ASN}")
PORT = 8282


def pair(make: Callable[..., Router], roa: str) -> tuple[Node, Foreign]:
    """A node that takes its ROAs from somewhere, and a peer that announces routes with and without one; not started."""
    variables = {"dn42_peers": [peer("peer1", ASN)], "dn42_router_roa": roa, "dn42_router_rtr_servers": [f"127.0.0.1:{PORT}"]}
    us = network(make, {"fra1": variables}, {"dn42_router_roa": roa})["fra1"]
    other = foreign_network(make, "peer1", ASN, "172.20.1.1", "fd11:1:1::1", [Announcement(route) for route in (*VALID, *UNKNOWN)])
    join(us, "peer1", other)
    us.bring_up()
    return us, other


def up(us: Node, other: Foreign) -> None:
    """Start both and wait until everything was told."""
    us.start()
    other.start()
    us.router.wait_established("peer_peer1")
    wait_for("all routes told", lambda: us.router.received("peer_peer1") >= len(VALID + UNKNOWN))


@pytest.mark.parametrize(("roa", "accepted"), [("off", VALID + UNKNOWN), ("files", ())])
def test_without_any_roa_data(router: Callable[..., Router], roa: str, accepted: tuple[str, ...]) -> None:
    """Off believes everybody; on, without data, nobody. The session is up either way."""
    us, other = pair(router, roa)
    up(us, other)
    assert set(us.table("peer_peer1")) == set(accepted)
    wait_for("our routes", lambda: set(other.table()) == AGGREGATES)


def test_roas_of_an_rtr_server_are_kept_when_it_is_gone(router: Callable[..., Router]) -> None:
    us, other = pair(router, "rtr")
    with us.router.running(sys.executable, str(Path(__file__).with_name("rtr_server.py")), "127.0.0.1", str(PORT), *ROAS):
        up(us, other)
        wait_for("valid routes", lambda: set(us.table("peer_peer1")) == set(VALID), told=lambda: us.router.birdc("show protocols all rtr_1"))
        since = us.router.since("peer_peer1")
    wait_for("the server missed", lambda: "Established" not in us.router.session("rtr_1"), told=lambda: us.router.session("rtr_1"))
    us.router.birdc("reload in peer_peer1")
    wait_for("routes told again", lambda: us.router.received("peer_peer1") >= 2 * len(VALID + UNKNOWN))
    assert set(us.table("peer_peer1")) == set(VALID)
    assert us.router.since("peer_peer1") == since
