# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Route collectors, and nodes and peers that are about to go."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import rendering
from foreign import Announcement, session
from laboratory import AGGREGATES, OUR_ASN, Foreign, Node, foreign_network, join, network, peer
from routers import Router, wait_for

sys.path.insert(0, str(Path(__file__).parents[3] / "roles/router/files/image"))
from dn42_router import shutdown

ASN = 4200429001
ROUTES = ("172.20.1.0/24", "fd11:1:1::/48")
SHUTDOWN = (65535, 0)
COLLECTOR = {"name": "lab-1", "address": "fd11:1:9::1", "asn": 4200429099}


def two_sides(router: Callable[..., Router], version: str = "", **variables: Any) -> tuple[Node, Foreign]:
    """Our node and a peer of it, up."""
    us = network(router, {"fra1": {"dn42_peers": [peer("peer1", ASN)], **variables}}, version=version)["fra1"]
    other = foreign_network(router, "peer1", ASN, "172.20.1.1", "fd11:1:1::1", [Announcement(route) for route in ROUTES])
    join(us, "peer1", other)
    us.bring_up()
    us.start()
    other.start()
    us.router.wait_established("peer_peer1")
    wait_for("routes of both", lambda: set(other.table()) == AGGREGATES and set(us.table("peer_peer1")) == set(ROUTES))
    return us, other


@pytest.mark.parametrize("way", ["peer", "node"])
def test_what_is_about_to_go_is_the_last_choice_and_keeps_its_sessions(router: Callable[..., Router], way: str) -> None:
    """RFC 8326, sent: on the other side's routes and on ours, and all of it taken back."""
    us, other = two_sides(router)
    since = us.router.since("peer_peer1")

    def drained() -> tuple[set[bool], set[bool]]:
        return {SHUTDOWN in route.communities for route in other.table().values()}, {route.attributes["BGP.local_pref"] == "0" for route in us.table("peer_peer1").values()}

    assert drained() == ({False}, {False})
    for wanted in (True, False):
        state = "draining" if wanted and way == "peer" else "present"
        us.model = rendering.models({"fra1": {"dn42_peers": [peer("peer1", ASN, state=state)]}})["fra1"]
        us.options["dn42_router_graceful_shutdown"] = wanted and way == "node"
        us.start()
        wait_for("both sides' routes", lambda wanted=wanted: drained() == ({wanted}, {wanted}))
        assert set(other.table()) == AGGREGATES
        assert us.router.since("peer_peer1") == since


def test_a_collector_has_all_our_routes_and_tells_none(router: Callable[..., Router]) -> None:
    """It is two hops away, behind a peer, and one session carries both families."""
    us, other = two_sides(router, dn42_router_collectors=[COLLECTOR])
    gateway = us.model["addresses"]["gateway"]
    other.router.run("ip", "address", "add", f"{COLLECTOR['address']}/128", "dev", "lo")
    other.announcements.append(Announcement("fd11:1:9::/48"))
    channels = "ipv4 { add paths rx; import table on; import all; export all; }; ipv6 { add paths rx; import table on; import all; export all; };"
    # The collector is a BIRD session of the peer's router with an ASN of its own.
    text = session("collector", COLLECTOR["address"], gateway["ipv6"], "", OUR_ASN, channels, f"local as {COLLECTOR['asn']}; multihop; passive on;")
    other.sessions += text
    other.start()
    session_name = us.model["collectors"][0]["protocol"]
    us.router.wait_established(session_name)
    wait_for(
        "our routes",
        lambda: set(ROUTES) | AGGREGATES <= set(other.router.routes("protocol collector")),
        told=lambda: other.router.birdc("show protocols all collector"),
    )
    found = other.router.routes("protocol collector")
    assert "172.23.255.0/29" not in found
    assert found["172.23.255.0/26"][0].attributes["BGP.next_hop"].split()[0] == gateway["ipv4"]
    assert not us.router.routes(f"protocol {session_name}")


def shut_down_sessions(us: Node, directory: Path) -> list[str]:
    """What the first step of a reload does, with the image's own program and BIRD's own client."""
    program = directory / "birdc"
    program.write_text(f'#!/bin/sh\nexec {shlex.join(us.router.inside("/usr/sbin/birdc", "-s", "/run/bird/bird.ctl"))} "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    return shutdown.apply(json.loads(rendering.rendered(us.model, "shutdown.json", us.options)), str(program))


@pytest.mark.parametrize("version", ["2.0", "2.17", "3"])
def test_a_shutdown_is_told_with_its_message_and_lasts(router: Callable[..., Router], tmp_path: Path, version: str) -> None:
    """RFC 8203: the other side sees the reason; the session stays down over a reload and a restart, and comes back when asked."""
    us, other = two_sides(router, version)
    message = "new cable, back at noon: müde"
    us.model = rendering.models({"fra1": {"dn42_peers": [peer("peer1", ASN, state="shutdown", shutdown_message=message)]}})["fra1"]
    assert shut_down_sessions(us, tmp_path) == ["peer_peer1 is shut down"]
    us.start()
    wait_for("the message", lambda: message in other.router.birdc("show protocols all us") + other.router.log(), told=lambda: other.router.birdc("show protocols all us"))
    assert shut_down_sessions(us, tmp_path) == []
    us.start()
    assert us.router.session("peer_peer1").startswith("down")
    us.router.kill()
    us.start()
    assert us.router.session("peer_peer1").startswith("down")
    us.model = rendering.models({"fra1": {"dn42_peers": [peer("peer1", ASN)]}})["fra1"]
    assert shut_down_sessions(us, tmp_path) == ["peer_peer1 is enabled again"]
    us.start()
    us.router.wait_established("peer_peer1")


def test_a_session_that_was_just_shut_down_comes_back_without_a_restart(router: Callable[..., Router], tmp_path: Path) -> None:
    """BIRD remembers its command `disable`; declaring the peer as present again undoes that, too."""
    us, _other = two_sides(router)
    for state in ("shutdown", "present"):
        us.model = rendering.models({"fra1": {"dn42_peers": [peer("peer1", ASN, state=state, shutdown_message="soon back")]}})["fra1"]
        shut_down_sessions(us, tmp_path)
        us.start()
    us.router.wait_established("peer_peer1")


def test_a_release_that_is_taken_back_takes_the_shutdown_back(router: Callable[..., Router], tmp_path: Path) -> None:
    """The session was told to go, but BIRD never got the configuration that says so."""
    us, _other = two_sides(router)
    before = us.model
    us.model = rendering.models({"fra1": {"dn42_peers": [peer("peer1", ASN, state="shutdown", shutdown_message="soon back")]}})["fra1"]
    shut_down_sessions(us, tmp_path)
    us.model = before
    shut_down_sessions(us, tmp_path)
    us.start()
    us.router.wait_established("peer_peer1")


@pytest.mark.parametrize("version", ["2.0", "2.17", "3"])
def test_every_bird_reads_it(router: Callable[..., Router], version: str) -> None:
    everything = {
        "dn42_peers": [peer("a", ASN, state="draining")],
        "dn42_router_collectors": ["grc", COLLECTOR, {"name": "four", "address": "172.20.0.179", "asn": 4200429098}],
    }
    model = rendering.models({"fra1": everything})["fra1"]
    for node in (False, True):
        assert router("fra1", version).parse(rendering.configuration(model, {"dn42_router_graceful_shutdown": node, "dn42_router_bird_version": version})) == ""
