# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small RTR server (RFC 8210): `rtr_server.py <address> <port> <prefix,length,asn>...` tells these ROAs until it is ended."""

from __future__ import annotations

import contextlib
import ipaddress
import socketserver
import struct
import sys

VERSION, SESSION, SERIAL = 1, 7, 1
SERIAL_QUERY, RESET_QUERY, CACHE_RESPONSE, IPV4, IPV6, END_OF_DATA, CACHE_RESET = 1, 2, 3, 4, 6, 7, 8
HEADER = struct.Struct("!BBHI")  # version, type, session, length
INTERVALS = (3600, 600, 7200)  # seconds: refresh, retry, expire


def prefix_pdu(text: str) -> bytes:
    """One ROA."""
    prefix, length, asn = text.split(",")
    network = ipaddress.ip_network(prefix)
    body = struct.pack("!BBBB", 1, network.prefixlen, int(length), 0) + network.network_address.packed + struct.pack("!I", int(asn))
    return HEADER.pack(VERSION, IPV4 if network.version == 4 else IPV6, 0, HEADER.size + len(body)) + body


def everything(roas: list[str]) -> bytes:
    """The answer to a reset query."""
    end = struct.pack("!IIII", SERIAL, *INTERVALS)
    pdus = [HEADER.pack(VERSION, CACHE_RESPONSE, SESSION, HEADER.size), *map(prefix_pdu, roas), HEADER.pack(VERSION, END_OF_DATA, SESSION, HEADER.size + len(end)) + end]
    return b"".join(pdus)


class Handler(socketserver.StreamRequestHandler):
    """One client."""

    def handle(self) -> None:
        """Answer its queries."""
        while len(header := self.rfile.read(HEADER.size)) == HEADER.size:
            _version, kind, _session, length = HEADER.unpack(header)
            self.rfile.read(length - HEADER.size)
            if kind == RESET_QUERY:
                self.wfile.write(everything(sys.argv[3:]))
            elif kind == SERIAL_QUERY:
                self.wfile.write(HEADER.pack(VERSION, CACHE_RESET, 0, HEADER.size))


class Server(socketserver.ThreadingTCPServer):
    """Can be started again at once."""

    allow_reuse_address = True
    daemon_threads = True


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt), Server((sys.argv[1], int(sys.argv[2])), Handler) as server:
        print("ready", flush=True)
        server.serve_forever()
