# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a node is like, read from what its programs print, and when one reading is worse than another."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest
from ansible_collections.dn42.compose.plugins.module_utils import _node_health as health

# As BIRD 2.17 prints it; 2.0.12 has no "preferred" in some lines, and an older session has a date.
PROTOCOLS = """\
BIRD 2.17.6 ready.
Name       Proto      Table      State  Since         Info
device1    Device     ---        up     14:42:18.260

own_ipv4   Static     master4    up     14:42:18.260
  Channel ipv4
    State:          UP
    Routes:         2 imported, 0 exported, 2 preferred

peer_peer1 BGP        ---        start  14:42:18.260  Connect
  Description:    peer1 (AS4200429002)
  BGP state:          Connect
    Neighbor address: fe80::9002%wg-peer1
    Neighbor AS:      4200429002
    Local AS:         4200420001
  Channel ipv4
    State:          DOWN
  Channel ipv6
    State:          DOWN

ibgp_hkg1  BGP        ---        up     2026-11-26 14:42:20  Established
  Description:    node hkg1
  BGP state:          Established
    Neighbor AS:      4200420001
  Channel ipv4
    State:          UP
    Routes:         12 imported, 3 filtered, 7 exported, 1 preferred
    Route change stats:     received   rejected   filtered    ignored   accepted
      Import updates:              1          0          0          0          1
  Channel ipv6
    State:          UP
    Routes:         1 imported, 2 exported

peer_gone  BGP        ---        down   14:42:20.169  Error: Route limit exceeded
"""


def test_sessions_are_read_with_state_age_and_routes() -> None:
    sessions = health.parse_protocols(PROTOCOLS)
    assert sorted(sessions) == ["ibgp_hkg1", "peer_gone", "peer_peer1"]
    up = sessions["ibgp_hkg1"]
    assert (up["state"], up["since"], up["info"], up["established"]) == ("up", "2026-11-26 14:42:20", "Established", True)
    assert up["channels"]["ipv4"] == {"imported": 12, "filtered": 3, "exported": 7, "preferred": 1}
    assert up["channels"]["ipv6"] == {"imported": 1, "filtered": 0, "exported": 2, "preferred": 0}
    down = sessions["peer_peer1"]
    assert (down["established"], down["info"], down["neighbor_as"], down["description"]) == (False, "Connect", 4200429002, "peer1 (AS4200429002)")
    assert sessions["peer_gone"]["info"] == "Error: Route limit exceeded"


def test_tunnels_are_read_from_wireguard_and_the_keeper() -> None:
    keeper = {
        "written": 995,
        "problems": {"roa": "none"},
        "tunnels": {"wg-b": {"ok": False, "error": "no address", "mode": None}, "wg-a": {"ok": True, "error": None, "mode": "kernel"}},
    }
    tunnels = health.parse_tunnels("wg-a\tKEY=\t900\nwg-c\tKEY=\t0\n", keeper, 1000.5)
    assert tunnels["wg-a"] == {"handshake": 100, "ok": True, "error": None, "mode": "kernel"}
    assert tunnels["wg-b"] == {"handshake": None, "ok": False, "error": "no address", "mode": None}
    assert tunnels["wg-c"]["handshake"] is None
    assert health.parse_keeper(keeper, 1000.5) == {"age": 5, "problems": {"roa": "none"}}
    assert health.parse_keeper(None, 1000.5) is None


def inspected(name: str, **state: Any) -> dict[str, Any]:
    """A container as Docker describes it."""
    return {"Name": f"/{name}", "Id": "1", "Config": {"Image": f"{name}:0"}, "State": {"Running": True, "StartedAt": "t", **state}}


def test_a_reading_costs_two_commands() -> None:
    commands: list[Sequence[str]] = []
    told = {
        "now": 1000,
        "keeper": None,
        "resolver": {"ipv4": "answers"},
        "protocols": {"text": PROTOCOLS, "error": ""},
        "handshakes": {"text": "wg-a\tKEY=\t990\n", "error": ""},
        "addresses": {"text": '[{"ifname": "eth0", "addr_info": [{"local": "fd99::2", "prefixlen": 64}]}]', "error": ""},
    }

    def run(command: Sequence[str]) -> tuple[int, str, str]:
        commands.append(command)
        containers = [inspected("dn42-router", Health={"Status": "healthy"}), inspected("dn42-dns", Running=False)]
        return (0, json.dumps(told), "") if "exec" in command else (0, json.dumps(containers), "")

    reading = health.read(run, "docker", ["dn42-dns", "dn42-router"], {"ipv4": "172.23.255.12"})
    assert len(commands) == 2
    assert reading["problems"] == []
    assert reading["containers"]["dn42-router"]["health"] == "healthy"
    assert reading["tunnels"]["wg-a"]["handshake"] == 10
    assert reading["addresses"] == {"eth0": ["fd99::2/64"]}
    assert health.unhealthy(reading) == ["container dn42-dns is not running"]


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ((1, "[]\n", "Error: No such container: dn42-router"), "the container dn42-router does not run"),
        ((1, "[]\n", "Cannot connect to the Docker daemon"), "the container dn42-router does not run: Cannot connect to the Docker daemon"),
        ((0, json.dumps([inspected("dn42-router", Paused=True)]), ""), "the container dn42-router does not run"),
    ],
)
def test_a_node_that_cannot_be_read_says_why(answer: tuple[int, str, str], problem: str) -> None:
    reading = health.read(lambda _command: answer, "docker", ["dn42-router"], {})
    assert reading["problems"] == [problem]


def test_the_program_that_runs_in_the_router_prints_what_is_read() -> None:
    """Here without any of the programs that it asks: each failure is told, none is silent. Nothing listens at the address."""
    done = subprocess.run([sys.executable, "-I", "-c", health.READER, '{"ipv4": "127.0.0.1"}'], capture_output=True, text=True, check=True, env={"PATH": "/nowhere"})
    told = json.loads(done.stdout)
    assert told["keeper"] is None
    assert told["resolver"]["ipv4"].startswith("no answer")
    assert all("No such file" in told[part]["error"] for part in ("protocols", "handshakes", "addresses"))


def good() -> health.Reading:
    """A node on which everything works."""
    channel = {"imported": 100, "filtered": 0, "exported": 10, "preferred": 100}
    session = {"state": "up", "since": "1", "info": "Established", "established": True, "description": "one", "neighbor_as": 1}
    return {
        **health.empty(),
        "containers": {name: {"running": True, "health": "healthy", "image": "i", "id": "1", "started": "t"} for name in ("dn42-router", "dn42-dns")},
        "sessions": {name: {**session, "channels": {"ipv4": dict(channel), "ipv6": dict(channel)}} for name in ("peer_a", "peer_b")},
        "tunnels": {"wg-a": {"handshake": 30, "ok": True, "error": None, "mode": "kernel"}},
        "resolver": {"ipv4": "answers", "ipv6": "answers"},
    }


def test_equal_readings_are_not_worse() -> None:
    assert health.worse(good(), good()) == []
    assert health.unhealthy(good()) == []


def changed(path: str, value: Any) -> health.Reading:
    """A good reading with one thing otherwise."""
    reading = good()
    *way, last = path.split("/")
    target = reading
    for step in way:
        target = target[step]
    target[last] = value
    return reading


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("containers/dn42-dns/running", False, "container dn42-dns ran before"),
        ("containers/dn42-dns/health", "unhealthy", "container dn42-dns was healthy before and is unhealthy now"),
        ("sessions/peer_a", {**good()["sessions"]["peer_a"], "established": False, "info": "Active"}, "session peer_a (one) was established, now: Active"),
        ("sessions/peer_b/channels/ipv4/imported", 49, "49 ipv4 routes imported instead of 100"),
        ("sessions/peer_b/channels/ipv6/exported", 0, "0 ipv6 routes exported instead of 10"),
        ("sessions/peer_b/channels", {}, "0 ipv4 routes imported instead of 100"),
        ("tunnels/wg-a/handshake", None, "tunnel wg-a had a handshake 30 s ago, now: no handshake yet"),
        ("tunnels/wg-a/handshake", 181, "last handshake 181 s ago"),
        ("tunnels/wg-a", {"handshake": 30, "ok": False, "error": "no such key", "mode": None}, "tunnel wg-a worked before, now: no such key"),
        ("resolver/ipv6", "no answer", "the resolver (ipv6) answered before, now: no answer"),
        ("problems", ["BIRD does not answer"], "the node cannot be read: BIRD does not answer"),
    ],
)
def test_what_got_worse_is_said_and_what_got_better_is_not(path: str, value: Any, sentence: str) -> None:
    bad = changed(path, value)
    assert any(sentence in found for found in health.worse(good(), bad)), health.worse(good(), bad)
    assert health.worse(bad, good()) == []
    assert health.worse(bad, copy.deepcopy(bad)) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("sessions", {"peer_b": good()["sessions"]["peer_b"]}),
        ("tunnels", {}),
        ("containers", {"dn42-router": good()["containers"]["dn42-router"]}),
        ("resolver", {}),
        ("sessions/peer_b/channels/ipv4/imported", 50),
        ("tunnels/wg-a/handshake", 180),
        ("tunnels/wg-a", {"handshake": 3, "ok": False, "error": "starting", "mode": None}),
    ],
)
def test_what_was_taken_away_or_is_tolerable_is_not_worse(path: str, value: Any) -> None:
    assert health.worse(good(), changed(path, value)) == []


def test_tolerances_are_the_users() -> None:
    down = changed("sessions/peer_a", {**good()["sessions"]["peer_a"], "established": False, "info": ""})
    assert len(health.worse(good(), down)) == 1
    assert health.worse(good(), down, {"expected_down": ["peer_a"]}) == []
    assert health.worse(good(), down, {"lost_sessions": 1}) == []
    silent = changed("tunnels/wg-a/handshake", None)
    assert len(health.worse(good(), silent)) == 1
    assert health.worse(good(), silent, {"lost_sessions": 1}) == []
    fewer = changed("sessions/peer_a/channels/ipv4/imported", 85)
    assert health.worse(good(), fewer, {"lost_routes": 15}) == []
    assert len(health.worse(good(), fewer, {"lost_routes": 10})) == 1
    assert health.worse(good(), changed("sessions/peer_a/channels/ipv4/imported", 0), {"lost_routes": 100}) == []
