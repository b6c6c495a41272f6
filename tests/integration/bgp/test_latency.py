# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measured latencies: the keeper's own code with real pings, and what they make of routes in real BIRDs.

Half a day is a few seconds here: a value lasts INTERVAL, and a sample is taken every PAUSE.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import birds
import pytest
import rendering
from foreign import Announcement
from laboratory import AGGREGATES, Foreign, Node, foreign_network, join, network, peer
from routers import Router, wait_for

IMAGE = Path(__file__).resolve().parents[3] / "roles" / "router" / "files" / "image"
sys.path.insert(0, str(IMAGE))

from dn42_router import latency, model  # noqa: E402

ASN = 4200429002
ROUTE = "172.20.1.0/24"
INTERVAL = 8.0  # seconds
PAUSE = 0.3
# Samples take a second each, for the three pings of one are half a second apart.
VALUE_WAIT = 60
SLOW_ECHO = str(Path(__file__).with_name("slow_echo.py"))


class Keeper:
    """The part of a node's keeper that measures, with the time scale of the tests."""

    def __init__(self, node: Node, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Measures what the node's tunnels.json says."""
        self.node = node
        self.changes: list[tuple[float, str]] = []
        self.loads = 0
        self._places = (node.router.files.parent / "roa", directory / f"{node.name}.json", node.router.command(birds.root("tools"), "ping"))
        self._monkeypatch = monkeypatch
        self.measured: latency.Latencies | None = None
        self.begin()

    def begin(self) -> None:
        """Start, or start again as after a crash; what BIRD has loaded is in the keeper's status file."""
        self._choose()
        loaded = self.measured.status()["loaded"] if self.measured else None
        self.measured = latency.Latencies(self._birdc)
        self.measured.loader.loaded = loaded or self.measured.loader.loaded

    def _choose(self) -> None:
        """The module's paths are one container's."""
        included, state, ping = self._places
        for name, value in (("INCLUDED", included), ("STATE", state), ("PING", (*ping, *latency.PING[latency.PING.index("-n") :]))):
            self._monkeypatch.setattr(latency, name, value)
        self._monkeypatch.setattr(latency, "SHORTEST_PAUSE", PAUSE)
        self._monkeypatch.setattr(latency, "FIRST_PAUSE", PAUSE)

    def _birdc(self, argv: list[str], timeout: float = 5) -> str:
        self.loads += 1
        return self.node.router.birdc(" ".join(argv[1:]))

    def _log(self, text: str) -> None:
        if "told as" in text:
            self.changes.append((time.monotonic(), text))

    def keep(self) -> bool:
        """One pass; true, so that it can stand before a condition."""
        self._choose()
        declared = model.parse_latency({**self.node.model["latency"], "interval": int(INTERVAL)})
        self.measured.keep(declared, False, self._log)
        return True

    def wait(self, what: str, condition: Callable[[], object]) -> None:
        """Go on measuring until something holds."""
        wait_for(what, lambda: self.keep() and condition(), VALUE_WAIT, lambda: f"{self.measured.status()} {self.changes}")


@pytest.fixture
def keeper_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Node], Keeper]]:
    """Makes keepers."""
    yield lambda node: Keeper(node, tmp_path, monkeypatch)


def path_latency(route: Any) -> set[int]:
    """What a route says of the latency."""
    return {value for asn, value in route.communities if asn == 64511 and 1 <= value <= 9}


def up(us: Node, *others: Foreign) -> None:
    """Start all, with sessions."""
    us.bring_up()
    us.start()
    for other in others:
        other.start()
    us.router.wait_established(*(protocol["protocol"] for each in us.model["peers"] for protocol in each["sessions"]))


def test_a_measured_latency_is_told_and_lasts(router: Callable[..., Router], keeper_of: Callable[[Node], Keeper]) -> None:
    """Into routes of that peer and out of them, without a reset; a change of the latency shows when the value before has lasted long enough."""
    us = network(router, {"fra1": {"dn42_peers": [peer("up", ASN, latency="measured"), peer("down", ASN + 1, latency="none")], "dn42_router_measure_latency": False}})["fra1"]
    far = foreign_network(router, "up", ASN, "172.20.1.1", "fd11:1:1::1", [Announcement(ROUTE), Announcement("172.20.2.0/24", communities=((64511, 6),))])
    down = foreign_network(router, "down", ASN + 1, "172.22.1.1", "fd22:1:1::1")
    join(us, "up", far)
    join(us, "down", down)
    up(us, far, down)
    wait_for("routes", lambda: {ROUTE, "172.20.2.0/24"} | AGGREGATES <= set(down.table()) and set(far.table()) >= AGGREGATES)
    assert path_latency(down.table()[ROUTE]) == path_latency(far.table()["172.23.255.0/26"]) == set()
    since = {name: us.router.since(name) for name in ("peer_up", "peer_down")}
    keeper = keeper_of(us)
    with far.router.running(sys.executable, SLOW_ECHO, "fe80::2", "us-fra1", "30"):
        keeper.wait("the first value", lambda: path_latency(down.table()[ROUTE]) == {4})
        wait_for("ours with it", lambda: path_latency(far.table()["172.23.255.0/26"]) == {4})
    assert path_latency(down.table()["172.20.2.0/24"]) == {6}, "the worst link counts"
    assert path_latency(down.table()["172.23.255.0/26"]) == set(), "that tunnel is not measured"
    keeper.begin()
    with far.router.running(sys.executable, SLOW_ECHO, "fe80::2", "us-fra1", "200"):
        keeper.wait("the next value", lambda: path_latency(down.table()[ROUTE]) == {6})
    # Among samples of before and after, a value between is right, too.
    moments = [moment for moment, _text in keeper.changes]
    assert all(after - before >= INTERVAL for before, after in zip(moments, moments[1:])), keeper.changes
    assert keeper.loads == len(moments), "BIRD is told of changes, and not of a keeper that was started again"
    # Nobody answers any more: the last value stays.
    keeper.wait("unanswered pings", lambda: keeper.measured.status()["links"]["peer_up"]["unanswered"] > 0)
    assert path_latency(down.table()[ROUTE]) == {6}
    assert {name: us.router.since(name) for name in since} == since


def test_a_peer_that_does_not_answer_has_no_latency(router: Callable[..., Router], keeper_of: Callable[[Node], Keeper]) -> None:
    """And one that gave its own has that, measured or not."""
    peers = [peer("silent", ASN), peer("given", ASN + 1, latency=100)]
    us = network(router, {"fra1": {"dn42_peers": peers}})["fra1"]
    silent = foreign_network(router, "silent", ASN, "172.20.1.1", "fd11:1:1::1", [Announcement(ROUTE)])
    given = foreign_network(router, "given", ASN + 1, "172.22.1.1", "fd22:1:1::1", [Announcement("172.22.1.0/24")])
    join(us, "silent", silent)
    join(us, "given", given)
    silent.router.run("sysctl", "-qw", "net.ipv6.icmp.echo_ignore_all=1")
    up(us, silent, given)
    keeper = keeper_of(us)
    assert list(us.model["latency"]["targets"]) == [{"name": "peer_silent", "address": "fe80::2%wg-silent"}]
    keeper.wait("some pings", lambda: keeper.measured.status()["links"]["peer_silent"]["unanswered"] >= 2)
    wait_for("routes", lambda: ROUTE in us.table("peer_silent") and "172.22.1.0/24" in us.table("peer_given"))
    assert path_latency(us.table("peer_silent")[ROUTE]) == set()
    assert path_latency(us.table("peer_given")["172.22.1.0/24"]) == {5}
    assert keeper.loads == 0


def test_a_tunnel_with_ipv4_alone_is_measured_too(router: Callable[..., Router], keeper_of: Callable[[Node], Keeper]) -> None:
    us = network(router, {"fra1": {"dn42_peers": [peer("old", ASN, peer_address=None, peer_ipv4="172.20.240.2", local_ipv4="172.20.240.1/30")]}})["fra1"]
    old = foreign_network(router, "old", ASN, "172.20.1.1", "fd11:1:1::1")
    join(us, "old", old)
    old.router.run("ip", "address", "add", "172.20.240.2/30", "dev", "us-fra1")
    us.bring_up()
    keeper = keeper_of(us)
    us.start()
    keeper.wait("a value", lambda: keeper.measured.status()["links"]["peer_old"]["value"] == 1)


def test_between_our_nodes_the_way_to_the_other_one_counts(router: Callable[..., Router], keeper_of: Callable[[Node], Keeper]) -> None:
    """A route from the other node gets the latency of the way there where it comes in."""
    nodes = network(router, {"fra1": {"dn42_peers": [peer("peer1", ASN, latency="none")]}, "hkg1": {}})
    other = foreign_network(router, "peer1", ASN, "172.20.1.1", "fd11:1:1::1", [Announcement(ROUTE), Announcement("fd11:1:1::/48")])
    join(nodes["fra1"], "peer1", other)
    for node in nodes.values():
        node.bring_up()
        node.start()
    other.start()
    near, far = nodes["fra1"], nodes["hkg1"]
    # Over the IGP: its first routes, and then a session that may have tried too early.
    far.router.wait_established("ibgp_fra1")
    wait_for("routes", lambda: {ROUTE, "fd11:1:1::/48"} <= set(far.router.routes("where source = RTS_BGP")), told=lambda: far.router.birdc("show protocols"))
    keeper = keeper_of(far)
    # The kernel's answers take no time; the other node's are slow.
    gateway = near.model["addresses"]["gateway"]["ipv6"]
    with near.router.running(sys.executable, SLOW_ECHO, gateway, "lo", "60"):
        keeper.wait("a value", lambda: all(path_latency(far.router.routes("where source = RTS_BGP")[route][0]) == {5} for route in (ROUTE, "fd11:1:1::/48")))
    assert path_latency(near.table("peer_peer1")[ROUTE]) == set()


@pytest.mark.parametrize("version", ["2.0", "2.17", "3"])
def test_every_bird_reads_the_keepers_files(router: Callable[..., Router], version: str) -> None:
    """In each filter that includes one; and a name that begins another's has its own alone."""
    variables = {"dn42_router_bird_version": version, "dn42_stack_services": ["router"]}
    nodes = rendering.models({"fra1": {"dn42_peers": [peer("a", ASN), peer("ab", ASN + 1, multiprotocol=False, latency="none")], **variables}, "hkg1": variables})
    one = router("fra1", version)
    names = [target["name"] for target in nodes["fra1"]["latency"]["targets"]]
    assert names == ["node_hkg1", "peer_a"]
    files = rendering.configuration(nodes["fra1"], {"dn42_router_bird_version": version})
    for value, name in enumerate(names, 1):
        one.write_roa(f"latency-{name}.conf", f"link_latency({value});")
    one.write_roa("latency-peer_ab.conf", "nonsense;")
    assert one.parse(files) == ""
    for name in names:
        one.write_roa(f"latency-{name}.conf", "nonsense;")
        assert f"latency-{name}.conf" in one.parse(files), "it is really included"
        one.write_roa(f"latency-{name}.conf", "link_latency(1);")
