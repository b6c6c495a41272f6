# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""ROAs from a real RTR server, StayRTR as Debian has it, and what its faults do to routes.

StayRTR reads its file every second here, and tells BIRD of a change. A node's BIRD asks by itself every 15 minutes, and every second where a test says so.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import birds
import pytest
import rendering
from foreign import Announcement
from laboratory import Foreign, Node, foreign_network, join, network, peer
from routers import MORTAL, Router, wait_for

ASN = 4200429002
KEPT = ("172.20.1.0/24", "fd11:1:1::/48")
OTHERS = ("172.20.2.0/24", "fd11:2:2::/48")
PORT = 8282
# The role's times of a protocol, and those of the tests; 600 is the shortest that BIRD takes for the last.
NODES_TIMES = "retry keep 90;\n  refresh keep 900;\n  expire keep 172800;"
SHORT_TIMES = "retry keep 1;\n  refresh keep 1;\n  expire keep 600;"


class Server:
    """A StayRTR in a node's namespace, with a file of ROAs."""

    def __init__(self, where: Router) -> None:
        """Not running yet; the file is below the tools' root file system."""
        root = birds.root("tools")
        self._where = where
        self._directory = Path(tempfile.mkdtemp(dir=root / "tmp"))
        self._inside = f"/{self._directory.relative_to(root)}"
        self._command = where.command(root, "stayrtr", "-bind", f"127.0.0.1:{PORT}", "-cache", f"{self._inside}/roa.json", "-checktime=false", "-refresh", "1", "-metrics.addr", "")
        self._process: subprocess.Popen[bytes] | None = None

    def publish(self, *prefixes: str) -> None:
        """ROAs for the prefixes exactly."""
        roas = [{"prefix": prefix, "maxLength": int(prefix.rpartition("/")[2]), "asn": f"AS{ASN}"} for prefix in prefixes]
        self.write(json.dumps({"metadata": {}, "roas": roas}))

    def write(self, text: str) -> None:
        """Replace the file."""
        beside = self._directory / "new"
        beside.write_text(text, encoding="utf-8")
        beside.rename(self._directory / "roa.json")

    def start(self) -> None:
        """Run it and wait until it has data: a node's BIRD that comes too early tries again after 90 seconds."""
        with open(self._directory / "log", "ab") as log:
            self._process = subprocess.Popen([*MORTAL, *self._command], stdout=log, stderr=log)
        # A reset query; 3 is the answer of a cache that has data (RFC 8210), other answers send BIRD away for as long.
        query = "connection.sendall(bytes([1, 2, 0, 0, 0, 0, 0, 8])); sys.exit(connection.recv(8)[1] != 3)"
        connect = f"import socket, sys; connection = socket.create_connection(('127.0.0.1', {PORT}), 3); {query}"
        wait_for("StayRTR", lambda: self._where.run(sys.executable, "-c", connect, check=False).returncode == 0, told=self.log)

    def log(self) -> str:
        """What it said."""
        return (self._directory / "log").read_text(encoding="utf-8", errors="replace")

    def signal(self, number: int) -> None:
        """Send the program a signal."""
        os.kill(self._process.pid, number)

    def end(self, clean: bool = False) -> None:
        """Kill it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        if clean:
            shutil.rmtree(self._directory)


class World:
    """A node that asks a StayRTR, and a peer that announces routes with and without a ROA."""

    def __init__(self, make: Callable[..., Router], short: bool) -> None:
        """`short`: with short times, instead of the role's."""
        options = {"dn42_router_roa": "rtr"}
        self.us: Node = network(make, {"fra1": {"dn42_peers": [peer("peer1", ASN), peer("down", ASN + 1)], **options, "dn42_router_rtr_servers": [f"127.0.0.1:{PORT}"]}}, options)[
            "fra1"
        ]
        self.other: Foreign = foreign_network(make, "peer1", ASN, "172.20.1.1", "fd11:1:1::1", [Announcement(route) for route in (*KEPT, *OTHERS)])
        self.down: Foreign = foreign_network(make, "down", ASN + 1, "172.22.1.1", "fd22:1:1::1")
        join(self.us, "peer1", self.other)
        join(self.us, "down", self.down)
        self.us.bring_up()
        self.server = Server(self.us.router)
        self.server.publish(*KEPT)
        self.server.start()
        files = rendering.configuration(self.us.model, options)
        assert NODES_TIMES in files["bird.conf"]
        if short:
            files["bird.conf"] = files["bird.conf"].replace(NODES_TIMES, SHORT_TIMES)
        self.us.router.start(files)
        for one in (self.other, self.down):
            one.start()
        self.us.router.wait_established("peer_peer1", "peer_down")
        self.wait_routes("those with a ROA", KEPT)
        self.since = self.us.router.since("peer_peer1")

    def told(self) -> str:
        """What there is to know when something does not happen."""
        return self.us.router.birdc("show protocols all rtr_1") + self.server.log()[-2000:]

    def wait_routes(self, what: str, wanted: tuple[str, ...]) -> None:
        """Wait until these are what the neighbour beyond us has of the peer's routes."""
        wait_for(what, lambda: self.beyond() == set(wanted), told=self.told)

    def beyond(self) -> set[str]:
        """The peer's routes that the neighbour beyond us has."""
        return {prefix for prefix, route in self.down.table().items() if ASN in route.as_path}

    def judge_again(self) -> None:
        """Have the peer's routes told and judged once more."""
        before = self.us.router.received("peer_peer1")
        self.us.router.birdc("reload in peer_peer1")
        wait_for("routes judged again", lambda: self.us.router.received("peer_peer1") >= before + len(KEPT + OTHERS))

    def check(self, wanted: tuple[str, ...] = KEPT) -> None:
        """Nothing was lost, and no session either."""
        self.judge_again()
        assert self.beyond() == set(wanted)
        assert set(self.us.table("peer_peer1")) == set(wanted)
        assert self.us.router.since("peer_peer1") == self.since


@pytest.fixture
def world(router: Callable[..., Router], request: pytest.FixtureRequest) -> Iterator[World]:
    """All of it, with sessions up and valid routes accepted. Its parameter says whether times are short."""
    made = World(router, getattr(request, "param", False))
    yield made
    made.server.end(clean=True)


def test_changed_roas_apply_both_ways_without_a_reset(world: World) -> None:
    """In both families: a refused route comes in with its ROA, and goes with it."""
    world.server.publish(*KEPT, *OTHERS)
    world.wait_routes("routes with new ROAs", (*KEPT, *OTHERS))
    world.server.publish(*OTHERS)
    world.wait_routes("routes whose ROAs have ended gone", OTHERS)
    world.check(OTHERS)


def test_a_cache_that_turns_into_rubbish_takes_nothing_away(world: World) -> None:
    for number, rubbish in enumerate(('{"roas": [{"prefix": "172.20.1.0/24", "maxLe', "<html>It works!</html>")):
        before = len(world.server.log())
        world.server.write(rubbish)
        wait_for("the server's complaint", lambda before=before: "error" in world.server.log()[before:].lower(), told=world.told)
        world.check()
        if number == 0:
            world.server.publish(*KEPT)


@pytest.mark.parametrize("world", [True], indirect=True, ids=["short times"])
def test_a_server_that_ends_or_falls_silent_takes_nothing_away(world: World) -> None:
    """BIRD notices, keeps the data, and takes up the server when it is back."""
    world.server.signal(signal.SIGSTOP)
    wait_for("silence noticed", lambda: "Established" not in world.us.router.session("rtr_1"), told=world.told)
    world.check()
    world.server.end()
    world.check()
    world.server.publish(*KEPT, *OTHERS)
    world.server.start()
    world.wait_routes("routes of the server that is back", (*KEPT, *OTHERS))
    assert world.us.router.since("peer_peer1") == world.since
