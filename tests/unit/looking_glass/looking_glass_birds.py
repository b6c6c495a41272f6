# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""BIRDs to ask: recorded answers of a real one, and a real one where there is one."""

from __future__ import annotations

import os
import socketserver
import subprocess
import threading
import time
from pathlib import Path

from looking_glass.bird import BirdClient, BirdError

ROLE = Path(__file__).parents[3] / "roles" / "looking_glass"
FIXTURES = Path(__file__).parent / "fixtures"

COMMANDS = {
    "restrict": "restrict.txt",
    "show protocols all": "protocols.txt",
    "show route for 172.22.200.5 all": "route4.txt",
    "show route for fdc0:ffee:9002::53 all": "route6.txt",
    "show route for 172.23.255.1 all": "unreachable.txt",
    "show route for 10.1.2.3 all": "not_found.txt",
}

NODE = """
router id 172.23.255.2;
protocol device {{}}
protocol static own4 {{ ipv4; route 172.23.255.0/26 unreachable; }}
protocol bgp 'peer-1' {{
  description "peer1, first session";
  local 127.0.0.1 port {ports[0]} as 4200420001;
  neighbor 127.0.0.2 port {ports[1]} as 4200429002;
  strict bind on; multihop; connect delay time 1; connect retry time 1; error wait time 1, 1;
  ipv4 {{ import all; export where source = RTS_STATIC; }};
}}
protocol bgp ibgp_hkg1 {{
  description "internal: hkg1 <script>alert(1)</script>";
  local 127.0.0.1 port {ports[0]} as 4200420001;
  neighbor 127.0.0.3 port {ports[1]} as 4200420001;
  strict bind on; multihop;
  ipv4 {{ import all; export all; }};
}}
"""
PEER = """
router id 172.22.200.1;
protocol device {{}}
protocol static own4 {{ ipv4; route 172.22.200.0/27 unreachable {{ bgp_community.add((64511, 3)); }}; }}
protocol bgp node {{
  local 127.0.0.2 port {ports[1]} as 4200429002;
  neighbor 127.0.0.1 port {ports[0]} as 4200420001;
  strict bind on; multihop; connect delay time 1; connect retry time 1; error wait time 1, 1;
  ipv4 {{ import all; export where source = RTS_STATIC; }};
}}
"""


def recorded(name: str) -> str:
    """Return one recorded answer."""
    return (FIXTURES / name).read_text("utf-8")


class Replay(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Gives recorded answers at a socket; what was not recorded is a syntax error, as it is for BIRD."""

    daemon_threads = True

    def __init__(self, path: str) -> None:
        super().__init__(path, _Session)
        self.commands: list[str] = []


class _Session(socketserver.StreamRequestHandler):
    server: Replay

    def handle(self) -> None:
        self.wfile.write(recorded("greeting.txt").encode())
        for line in self.rfile:
            command = line.decode("ascii").removesuffix("\n")
            self.server.commands.append(command)
            self.wfile.write(recorded(COMMANDS.get(command, "syntax_error.txt")).encode())


class RecordedBird:
    """A BIRD that can be stopped and started, made of recorded answers."""

    def __init__(self, directory: Path) -> None:
        self.socket = str(directory / "bird.ctl")
        self._server: Replay | None = None

    def start(self) -> None:
        self._server = Replay(self.socket)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            os.unlink(self.socket)
            self._server = None

    @property
    def commands(self) -> list[str]:
        """What was asked so far."""
        return self._server.commands if self._server is not None else []


class RealBird:
    """A real BIRD with a real session to another one over the loopback; ports from `port` on."""

    def __init__(self, directory: Path, port: int, command: list[str]) -> None:
        self._command = command
        self.socket = str(directory / "bird.ctl")
        self._directory = directory
        self._ports = (port, port + 1)
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        for name, text, path in (("peer", PEER, str(self._directory / "peer.ctl")), ("node", NODE, self.socket)):
            config = self._directory / f"{name}.conf"
            config.write_text(text.format(ports=self._ports), "utf-8")
            self._processes.append(subprocess.Popen([*self._command, "-f", "-c", str(config), "-s", path, "-P", f"{path}.pid"]))
        self._wait_for_session()

    def stop(self) -> None:
        for process in self._processes:
            process.terminate()
            process.wait(timeout=10)
        self._processes.clear()

    def _wait_for_session(self) -> None:
        """Two connect attempts, a second apart, are more than a session over the loopback needs."""
        end = time.monotonic() + 20
        while time.monotonic() < end:
            try:
                session = BirdClient(self.socket, 1.0).sessions()[0]
            except BirdError:
                session = None
            if session is not None and session.established and session.channels[0].imported == 1:
                return
            time.sleep(0.2)
        raise AssertionError("the session of the two BIRDs did not come up in 20 s")
