# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What there is without ROAs. How they apply to single routes is in test_import.py, an RTR server in test_rtr.py."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from foreign import Announcement
from laboratory import AGGREGATES, Foreign, Node, foreign_network, join, network, peer
from routers import Router, wait_for

ASN = 4200429002
VALID = ("172.20.1.0/24", "fd11:1:1::/48")
UNKNOWN = ("172.20.2.0/24", "fd11:2:2::/48")


def pair(make: Callable[..., Router], roa: str) -> tuple[Node, Foreign]:
    """A node that takes its ROAs from somewhere, and a peer that announces routes with and without one; not started."""
    variables = {"dn42_peers": [peer("peer1", ASN)], "dn42_router_roa": roa, "dn42_stack_services": ["router", "rpki"]}
    us = network(make, {"fra1": variables}, {"dn42_router_roa": roa, "dn42_stack_services": ["router", "rpki"]})["fra1"]
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
