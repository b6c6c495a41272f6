# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""When a service counts as answering, how it is asked, and what the keeper makes of it. With BIRD and packets: tests/integration/bgp."""

from __future__ import annotations

import dataclasses
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from dn42_router import anycast, model, prober, system

SERVICE = model.Anycast("dns", "anycast_dns_ipv4", "172.23.254.1", "172.23.254.0/28", "127.0.0.1", "tcp", 1)
# A child that says nothing and ends with its standard input.
SILENT = (sys.executable, "-c", "import sys; sys.stdin.read()")


def states(up: bool, results: str) -> str:
    """The states after probes: `+` answered, `-` not."""
    health = prober.Health(up)
    told = ""
    for result in results:
        health.seen(result == "+")
        told += "+" if health.up else "-"
    return told


def test_one_lost_answer_is_no_failure_and_one_answer_no_recovery() -> None:
    assert states(True, "--+--+---+") == "++++++++--"
    assert states(False, "+-+-++") == "-----+"


def test_only_changes_are_told() -> None:
    health = prober.Health(False)
    assert [health.seen(answered) for answered in (True, True, True, False, False, False, False)] == [False, True, False, False, False, True, False]


@pytest.fixture
def udp() -> Iterator[socket.socket]:
    """A server that answers nothing by itself."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        yield server


@pytest.mark.parametrize(("answer", "expected"), [("same", True), ("other id", False), ("question", False), ("short", False), ("none", False)])
def test_only_an_answer_to_the_question_counts(udp: socket.socket, answer: str, expected: bool) -> None:
    def serve() -> None:
        query, client = udp.recvfrom(512)
        response = query[:2] + bytes([query[2] | 0x80]) + query[3:]
        made = {"same": response, "other id": bytes([query[0] ^ 1]) + response[1:], "question": query, "short": response[:8], "none": None}[answer]
        if made:
            udp.sendto(made, client)

    thread = threading.Thread(target=serve)
    thread.start()
    assert prober.dns_answers("127.0.0.1", udp.getsockname()[1], timeout=0.5) is expected
    thread.join()


def test_a_port_that_nobody_listens_on_does_not_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert prober.tcp_answers("127.0.0.1", port)
    assert not prober.tcp_answers("127.0.0.1", port)
    assert not prober.dns_answers("127.0.0.1", port)


class Node:
    """The keeper's part with commands that are only noted, and may fail."""

    def __init__(self, folder: Path) -> None:
        """Nothing is up."""
        self.said: list[str] = []
        self.commands: list[str] = []
        self.failing = ""
        self.services = anycast.AnycastServices(lambda: None, folder, self.command, SILENT)

    def command(self, argv: Sequence[str], **_options: Any) -> str:
        """Note it."""
        self.commands.append(argv[0])
        if argv[0] == self.failing:
            raise system.CommandError(f"{argv[0]} failed")
        return "Reconfigured"

    def keep(self, *up: str, services: tuple[model.Anycast, ...] = (SERVICE,), down: bool = False) -> list[str]:
        """A pass with these addresses up; the commands that it ran."""
        self.commands.clear()
        self.services._prober.up = set(up)
        self.services.keep(services, down, self.said.append)
        return list(self.commands)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """A keeper whose child ends with the test."""
    made = Node(tmp_path)
    yield made
    made.services._prober._end()


def files(folder: Path) -> dict[str, str]:
    """What BIRD and nftables include."""
    return {path.name: path.read_text() for path in sorted(folder.iterdir())}


def test_a_new_container_without_anycast_tells_nobody_anything(node: Node, tmp_path: Path) -> None:
    assert node.keep(services=()) == []
    assert files(tmp_path) == {}


def test_up_and_down_and_only_once(node: Node, tmp_path: Path) -> None:
    assert node.keep() == ["nft"]
    assert node.keep(SERVICE.address) == ["nft", "birdc"]
    assert files(tmp_path)["anycast_dns_ipv4.conf"] == "route 172.23.254.0/28 unreachable;\n"
    assert "add element inet dn42_router anycast_ipv4 { 172.23.254.1 }" in files(tmp_path)["anycast.nft"]
    assert node.keep(SERVICE.address) == []
    assert node.keep() == ["nft", "birdc"]
    assert list(files(tmp_path)) == ["anycast.nft"]
    assert node.said == ["dns 172.23.254.1: answers, is announced", "dns 172.23.254.1: does not answer, is withdrawn"]


def test_a_packet_filter_that_fails_keeps_a_service_from_being_announced_but_not_from_being_withdrawn(node: Node, tmp_path: Path) -> None:
    node.failing = "nft"
    with pytest.raises(system.CommandError, match="nft failed"):
        node.keep(SERVICE.address)
    assert "anycast_dns_ipv4.conf" not in files(tmp_path)
    node.failing = ""
    node.keep(SERVICE.address)
    node.failing = "nft"
    with pytest.raises(system.CommandError, match="nft failed"):
        node.keep()
    assert "anycast_dns_ipv4.conf" not in files(tmp_path)


def test_a_bird_that_fails_is_told_again(node: Node) -> None:
    node.keep()
    node.failing = "birdc"
    with pytest.raises(system.CommandError, match="birdc failed"):
        node.keep(SERVICE.address)
    node.failing = ""
    assert node.keep(SERVICE.address) == ["birdc"]
    assert node.keep(SERVICE.address) == []


def test_a_keeper_that_starts_anew_believes_what_was_announced(node: Node, tmp_path: Path) -> None:
    node.keep(SERVICE.address)
    again = Node(tmp_path)
    again.services.keep((SERVICE,), False, again.said.append)
    assert again.services.status() == {SERVICE.address: True}
    assert again.said == []
    again.services._prober._end()


def test_a_service_that_left_the_declaration_is_withdrawn(node: Node, tmp_path: Path) -> None:
    node.keep(SERVICE.address)
    assert node.keep(SERVICE.address, services=()) == ["birdc"]
    assert files(tmp_path) == {}


def test_a_child_that_ended_is_started_again(node: Node) -> None:
    node.keep()
    node.services._prober._process.kill()
    node.services._prober._process.wait()
    with pytest.raises(system.CommandError, match="was started again"):
        node.keep()
    node.keep()


def test_the_child_says_what_it_found_and_ends_with_its_keeper() -> None:
    woken = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        service = dataclasses.replace(SERVICE, port=server.getsockname()[1])
        child = anycast.Prober(woken.set, (sys.executable, prober.__file__))
        child.keep((service,))
        assert woken.wait(20)
        assert child.up == {SERVICE.address}
        process = child._process
        process.stdin.close()
        assert process.wait(20) == 0


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"protocol": "../x"}, "is no name of a protocol"),
        ({"address": "172.23.254"}, "does not appear to be"),
        ({"probe": {"kind": "http", "port": 80}}, "is not one of dns, tcp"),
        ({"probe": {"kind": "tcp", "port": 0}}, "0 is no port"),
    ],
)
def test_a_declaration_that_is_wrong_is_refused(declaration: dict[str, Any], change: dict[str, Any], expected: str) -> None:
    good = {"name": "dns", "protocol": "anycast_dns_ipv4", "address": "172.23.254.1", "prefix": "172.23.254.0/28", "target": "172.23.255.4", "probe": {"kind": "dns", "port": 53}}
    assert model.parse({**declaration, "anycast": [good]}).anycast[0].port == 53
    with pytest.raises(model.ConfigError, match=expected):
        model.parse({**declaration, "anycast": [{**good, **change}]})
