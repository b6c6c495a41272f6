# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pages and the API, over one node's BIRD, another looking glass, and nodes that misbehave."""

from __future__ import annotations

import json
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import waitress
from flask import Flask
from flask.testing import FlaskClient
from looking_glass.bird import BirdClient
from looking_glass.cluster import ANSWER_LIMIT, PAGE_SECONDS, Cluster
from looking_glass.settings import SettingsFile
from looking_glass.web import create_app
from looking_glass_birds import RealBird, RecordedBird


def write_config(path: Path, node: str, port: int, addresses: dict[str, str]) -> None:
    nodes = [{"name": name, "ipv6": address, "ipv4": address} for name, address in addresses.items()]
    path.write_text(json.dumps({"title": "Our <glass>", "node": node, "port": port, "nodes": nodes}), "utf-8")


def application(config: Path, bird_socket: str) -> Flask:
    return create_app(SettingsFile(config), Cluster(BirdClient(bird_socket, 1.5)))


@dataclass
class Glass:
    """A looking glass on fra1; hkg1 is a real one over HTTP, nrt1 has nobody who listens."""

    client: FlaskClient
    config: Path
    port: int


@pytest.fixture
def glass(bird: RecordedBird | RealBird, directory: Path) -> Iterator[Glass]:
    config, other = directory / "fra1.json", directory / "hkg1.json"
    addresses = {"fra1": "127.0.0.11", "hkg1": "127.0.0.1", "nrt1": "127.0.0.13"}
    write_config(other, "hkg1", 1, addresses)
    server = waitress.create_server(application(other, bird.socket), listen="127.0.0.1:0")
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    port = int(server.effective_port)
    write_config(config, "fra1", port, addresses)
    yield Glass(application(config, bird.socket).test_client(), config, port)
    server.close()


def test_the_sessions_page_shows_all_nodes(glass: Glass) -> None:
    response = glass.client.get("/")
    text = response.get_data(as_text=True)
    assert response.status_code == 200
    assert text.count("peer-1") == 2
    assert text.count("Established") == 2 * text.split('id="hkg1"')[0].count("Established")
    assert "unreachable: Connection refused" in text.split('id="nrt1"')[1]
    assert "4200429002" in text


def test_what_others_wrote_is_escaped(glass: Glass) -> None:
    text = glass.client.get("/").get_data(as_text=True)
    assert "internal: hkg1 &lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "Our &lt;glass&gt;" in text
    text = glass.client.get("/route", query_string={"target": '"><script>'}).get_data(as_text=True)
    assert "<script>" not in text


def test_a_route_is_looked_up_on_all_nodes_or_on_one(glass: Glass) -> None:
    text = glass.client.get("/route?target=172.22.200.5").get_data(as_text=True)
    assert text.count("172.22.200.0/27") >= 2
    assert 'id="nrt1"' in text
    text = glass.client.get("/route?target=172.22.200.5&node=hkg1").get_data(as_text=True)
    assert "172.22.200.0/27" in text
    assert 'id="fra1"' not in text
    assert '<option value="hkg1" selected>' in text
    assert "No route." in glass.client.get("/route?target=10.1.2.3&node=fra1").get_data(as_text=True)


def test_the_api_answers_for_its_own_node_unless_told(glass: Glass) -> None:
    answer = glass.client.get("/api/v1/sessions").get_json()
    assert answer["node"] == "fra1"
    assert answer["sessions"][0]["info"] == "Established"
    answer = glass.client.get("/api/v1/sessions?node=hkg1").get_json()
    assert (answer["node"], answer["sessions"][0]["name"]) == ("hkg1", "peer-1")
    answer = glass.client.get("/api/v1/route?target=172.22.200.5&node=all").get_json()
    assert [(node["node"], "routes" in node) for node in answer["nodes"]] == [
        ("fra1", True),
        ("hkg1", True),
        ("nrt1", False),
    ]
    assert answer["nodes"][0]["routes"] == answer["nodes"][1]["routes"]
    assert glass.client.get("/api/v1/sessions?node=nrt1").status_code == 502
    assert [node["name"] for node in glass.client.get("/api/v1/nodes").get_json()["nodes"]] == ["fra1", "hkg1", "nrt1"]


@pytest.mark.parametrize("target", ["172.20.0.53; id", "172.20.0.53\nconfigure", "fe80::1%eth0", "", "all"])
@pytest.mark.parametrize("path", ["/route", "/api/v1/route"])
def test_anything_but_a_target_is_a_friendly_400(directory: Path, path: str, target: str) -> None:
    server = RecordedBird(directory)
    server.start()
    write_config(directory / "c.json", "fra1", 80, {"fra1": "127.0.0.11"})
    app = application(directory / "c.json", server.socket)
    response = app.test_client().get(path, query_string={"target": target})
    assert response.status_code == 400
    assert "Please give one" in response.get_data(as_text=True)
    assert server.commands == []
    server.stop()


@pytest.mark.parametrize(("path", "status"), [("/nothing", 404), ("/?node=zzz", 404), ("/api/v1/sessions?node=zzz", 404), ("/health", 200)])
def test_every_answer_has_the_security_headers(glass: Glass, path: str, status: int) -> None:
    response = glass.client.get(path)
    assert response.status_code == status
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["X-Frame-Options"] == "DENY"
    assert ("error" in (response.get_json(silent=True) or {})) == path.startswith("/api/")


def test_only_reading_is_possible(glass: Glass) -> None:
    for method in ("post", "put", "delete", "patch"):
        assert getattr(glass.client, method)("/").status_code == 405


def test_a_dead_bird_is_an_error_of_its_node_only(glass: Glass, bird: RecordedBird | RealBird) -> None:
    bird.stop()
    response = glass.client.get("/")
    assert response.status_code == 200
    assert response.get_data(as_text=True).count("BIRD is not running") == 2
    bird.start()


def _drip(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
    for _ in range(40):
        connection.sendall(b" ")
        time.sleep(0.1)


def _endless(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n[")
    for _ in range(ANSWER_LIMIT // 100_000 + 100):
        connection.sendall(b"1" * 100_000)


def _say(text: str) -> Callable[[socket.socket], None]:
    return lambda connection: connection.sendall(text.encode())


OK = "HTTP/1.0 200 OK\r\n\r\n"


@pytest.mark.parametrize(
    ("behave", "message"),
    [
        (_drip, "unreachable: no answer in time"),
        (_endless, "answer longer than"),
        (_say(""), "unreachable: no valid HTTP"),
        (_say("\0garbage\n"), "unreachable: no valid HTTP"),
        (_say(OK + "["), "answer cannot be used"),
        (_say(OK + "[" * 100_000), "answer cannot be used"),
        (_say(OK + "[]"), "answer cannot be used"),
        (_say(OK + '{"sessions": [{"name": 1e999}]}'), "answer cannot be used"),
        (_say("HTTP/1.0 302 Found\r\nLocation: http://127.0.0.1/\r\n\r\n{}"), "HTTP status 302"),
        (_say('HTTP/1.0 502 Bad\r\n\r\n{"error": "<b>BIRD</b>"}'), "&lt;b&gt;BIRD&lt;/b&gt;"),
    ],
)
def test_a_node_that_misbehaves_is_shown_and_delays_nobody(directory: Path, behave: Callable[[socket.socket], None], message: str) -> None:
    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(4096)
            try:
                behave(self.request)
            except OSError:
                return

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        config = directory / "c.json"
        write_config(config, "fra1", server.server_address[1], {"fra1": "127.0.0.11", "hkg1": "127.0.0.1"})
        app = application(config, str(directory / "none"))
        start = time.monotonic()
        text = app.test_client().get("/").get_data(as_text=True)
        assert time.monotonic() - start < PAGE_SECONDS + 0.5
        assert message in text.split('id="hkg1"')[1]
        server.shutdown()


def test_the_same_question_is_asked_once(directory: Path) -> None:
    server = RecordedBird(directory)
    server.start()
    write_config(directory / "c.json", "fra1", 80, {"fra1": "127.0.0.11"})
    app = application(directory / "c.json", server.socket)
    for _ in range(5):
        assert app.test_client().get("/api/v1/sessions").status_code == 200
    assert server.commands == ["restrict", "show protocols all"]
    server.stop()
