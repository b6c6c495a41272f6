# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A source of ROAs on 127.0.0.1 that answers as it is told to, badly for the most part."""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
from typing import Callable

ASN = 4242420000


def prefixes(family: str, number: int) -> list[str]:
    """So many prefixes of a family."""
    if family == "ipv4":
        return [f"172.{20 + (index >> 11)}.{index >> 3 & 255}.{(index & 7) * 32}/27" for index in range(number)]
    return [f"fd42:{index:x}::/48" for index in range(number)]


def lines(family: str, number: int) -> bytes:
    """ROAs as BIRD reads them, with the decoration that public sources have."""
    longest = 29 if family == "ipv4" else 64
    head = "#\n# dn42 ROAs\n# Last Updated: Mon, 02 Nov 2026 10:00:00\n#\n"
    return (head + "".join(f"route {prefix} max {longest} as {ASN + index};\n" for index, prefix in enumerate(prefixes(family, number)))).encode()


def as_json(ipv4: int, ipv6: int) -> bytes:
    """ROAs of both families as the JSON of public sources."""
    roas = [
        {"prefix": prefix, "maxLength": longest, "asn": f"AS{ASN + index}"}
        for family, number, longest in (("ipv4", ipv4, 29), ("ipv6", ipv6, 64))
        for index, prefix in enumerate(prefixes(family, number))
    ]
    return json.dumps({"metadata": {"counts": len(roas), "generated": 1762077600, "valid": 1762682400}, "roas": roas}).encode()


class Source:
    """A running web server. `answer` is what it does with every request; `asked` counts them by path."""

    def __init__(self) -> None:
        """Begin with /both (JSON), /v4 and /v6 (lines for BIRD), a hundred ROAs each."""
        self.asked: dict[str, int] = {}
        self.contents = {"/both": as_json(100, 100), "/v4": lines("ipv4", 100), "/v6": lines("ipv6", 100)}
        self.answer: Callable[[Handler], None] = lambda handler: handler.send(self.contents[handler.path])
        self.closing = threading.Event()
        source = self

        class Bound(Handler):
            owner = source

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Bound)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def url(self, path: str) -> str:
        """The URL of a path."""
        return f"http://127.0.0.1:{self._server.server_address[1]}{path}"

    def close(self) -> None:
        """Answer nobody any more."""
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


class Handler(http.server.BaseHTTPRequestHandler):
    """One request."""

    owner: Source

    def do_GET(self) -> None:
        """Do what the source was told to."""
        self.owner.asked[self.path] = self.owner.asked.get(self.path, 0) + 1
        with contextlib.suppress(ConnectionError):
            self.owner.answer(self)

    def send(self, content: bytes, status: int = 200, length: int | None = None, **headers: str) -> None:
        """A plain answer; `length` is what it claims to be long."""
        self.send_response(status)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on standard error."""
