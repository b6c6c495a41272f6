# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""BIRD's answers: recorded ones are read, others are refused."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import pytest
from looking_glass import bird as bird_module
from looking_glass.bird import BirdClient, BirdError, Line, parse_lines, parse_routes, parse_sessions
from looking_glass_birds import RealBird, RecordedBird, recorded


def sessions() -> list[bird_module.Session]:
    return parse_sessions(parse_lines(recorded("protocols.txt")))


def test_lines_carry_their_code() -> None:
    lines = parse_lines("1007-Table master4:\n 10.0.0.0/8 x\n+unasked\n \tvia y\n0000 \n")
    assert lines == [
        Line(1007, "Table master4:"),
        Line(1007, "10.0.0.0/8 x"),
        Line(1007, "\tvia y"),
        Line(0, ""),
    ]


@pytest.mark.parametrize("text", ["", "1002-cut off\n", " no code\n0000 \n", "hello\n0000 \n", "12 x\n"])
def test_lines_outside_the_protocol_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"cut off|protocol"):
        parse_lines(text)


def test_only_bgp_protocols_are_sessions() -> None:
    assert [session.name for session in sessions()] == ["peer-1", "peer1_second_long_name", "ibgp_hkg1", "peer2"]


def test_an_established_session() -> None:
    session = sessions()[0]
    assert session.established
    assert (session.state, session.since, session.info) == ("up", "07:00:52.760", "Established")
    assert (session.neighbor, session.neighbor_as, session.local_as) == ("fe80::9002%eth0", 4200429002, 4200420001)
    assert session.description == "peer1, first session"
    assert [(channel.name, channel.table, channel.state) for channel in session.channels] == [
        ("ipv4", "master4", "UP"),
        ("ipv6", "master6", "UP"),
    ]
    assert [(channel.imported, channel.filtered, channel.exported) for channel in session.channels] == [
        (1, 0, 1),
        (1, 0, 1),
    ]


def test_sessions_that_are_down_have_no_counts() -> None:
    internal, disabled = sessions()[2:]
    assert not internal.established
    assert internal.info == "Active Socket: Connection closed"
    assert internal.channels[0].imported is None
    assert (disabled.state, disabled.info, disabled.established) == ("down", "", False)


def test_the_time_of_a_session_may_hold_a_date() -> None:
    text = "1002-p1         BGP        ---        up     2026-11-25 07:00:52  Established   \n0000 \n"
    [session] = parse_sessions(parse_lines(text))
    assert (session.since, session.info) == ("2026-11-25 07:00:52", "Established")


def test_routes_of_several_sessions() -> None:
    best, other = parse_routes(parse_lines(recorded("route4.txt")))
    assert (best.prefix, best.protocol, best.best, best.preference) == ("172.22.200.0/27", "peer-1", True, 100)
    assert (other.prefix, other.protocol, other.best) == ("172.22.200.0/27", "peer1_second_long_name", False)
    assert best.via == ["via fe80::9002 on eth0"]
    assert best.as_path == "4200429002"
    assert ("BGP.large_community", "(4200429002, 1, 2)") in best.attributes
    assert best.origin == "AS4200429002i"


def test_routes_of_ipv6_and_without_next_hop() -> None:
    assert parse_routes(parse_lines(recorded("route6.txt")))[0].prefix == "fdc0:ffee:9002::/48"
    [own] = parse_routes(parse_lines(recorded("unreachable.txt")))
    assert (own.prefix, own.type, own.protocol, own.via, own.as_path) == (
        "172.23.255.0/26",
        "unreachable",
        "own4",
        [],
        "",
    )


def test_the_source_and_a_longer_preference_are_read() -> None:
    text = "1007-Table master4:\n 10.0.0.0/8           unicast [ibgp 2026-11-25 07:00:52 from fd99::2] * (100/20) [AS4200429002i]\n0000 \n"
    [route] = parse_routes(parse_lines(text))
    assert (route.since, route.source, route.preference) == ("2026-11-25 07:00:52", "fd99::2", 100)


def test_no_route_is_an_empty_answer_and_an_error_is_an_error() -> None:
    assert parse_routes(parse_lines(recorded("not_found.txt"))) == []
    for name in ("denied.txt", "syntax_error.txt"):
        with pytest.raises(BirdError, match="BIRD says: "):
            parse_routes(parse_lines(recorded(name)))


def test_many_routes_are_cut() -> None:
    row = "1007-10.0.0.0/8           unicast [p 07:00:52.760] (100)\n"
    routes = parse_routes(parse_lines(row * 1000 + row.replace("]", "] *") + "0000 \n"))
    assert len(routes) == bird_module.ROUTES_LIMIT
    assert routes[0].best


def test_a_bird_is_asked(bird: RecordedBird | RealBird) -> None:
    client = BirdClient(bird.socket, 2.0)
    assert client.sessions()[0].established
    [route] = [route for route in client.routes("172.22.200.5") if route.best]
    assert (route.prefix, route.protocol, route.as_path) == ("172.22.200.0/27", "peer-1", "4200429002")
    assert client.routes("10.1.2.3") == []


def test_a_bird_may_restart(bird: RecordedBird | RealBird) -> None:
    client = BirdClient(bird.socket, 2.0)
    bird.stop()
    with pytest.raises(BirdError, match="not running"):
        client.sessions()
    bird.start()
    assert client.sessions()[0].established


def test_the_connection_is_restricted_before_anything_else(directory: Path) -> None:
    server = RecordedBird(directory)
    server.start()
    BirdClient(server.socket, 2.0).routes("172.22.200.5")
    assert server.commands == ["restrict", "show route for 172.22.200.5 all"]
    server.stop()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"", "did not answer in time"),
        (b"0001 BIRD 2.17.6 ready.\n0000 \n", "cannot be used"),
        (b"0001 BIRD 2.17.6 ready.\n8007 Access denied\n", "cannot be used"),
        (b"garbage\n0000 \n", "cannot be used"),
    ],
)
def test_a_socket_that_misbehaves(directory: Path, answer: bytes, message: str) -> None:
    path = str(directory / "silent.ctl")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        held: list[socket.socket] = []

        def accept() -> None:
            connection, _ = server.accept()
            held.append(connection)
            connection.sendall(answer)

        threading.Thread(target=accept, daemon=True).start()
        start = time.monotonic()
        with pytest.raises(BirdError, match=message):
            BirdClient(path, 0.5).sessions()
        assert time.monotonic() - start < 1.5
        for connection in held:
            connection.close()
