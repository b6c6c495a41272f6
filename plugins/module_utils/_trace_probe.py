# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Send one packet from a namespace, and see whether an answer comes.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
No program of the container is used: the sockets are made in its network namespace.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import Optional

from ansible_collections.dn42.compose.plugins.module_utils._trace_capture import Namespace

DNS_PORT = 53
# A question for the root's name servers, which every name server understands.
_DNS_QUESTION = struct.pack("!HHHHHH", 0xD42, 0x0100, 1, 0, 0, 0) + b"\0" + struct.pack("!HH", 2, 1)
_ECHO = {4: (8, 0), 6: (128, 129)}


def source_address(namespace: Namespace, destination: str, version: int) -> str:
    """Return the address that the namespace sends from. Raises OSError without a route."""
    with namespace.socket(_family(version), socket.SOCK_DGRAM) as probe:
        probe.connect((destination, 9))
        return str(probe.getsockname()[0]).partition("%")[0]


def _family(version: int) -> int:
    return socket.AF_INET6 if version == 6 else socket.AF_INET


def checksum(data: bytes) -> int:
    """Return the Internet checksum."""
    padded = data + b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


class Probe:
    """A packet of ours. `ident` is its ICMP identifier or its source port."""

    def __init__(self, namespace: Namespace, protocol: str, source: str, destination: str, port: Optional[int], size: int) -> None:
        """Open the socket. Raises OSError."""
        self.version = 6 if ":" in destination else 4
        self.protocol, self.destination, self.port, self.size = protocol, destination, port, size
        self.sent = 0
        kinds = {
            "icmp": (socket.SOCK_RAW, socket.IPPROTO_ICMPV6 if self.version == 6 else socket.IPPROTO_ICMP),
            "udp": (socket.SOCK_DGRAM, 0),
            "tcp": (socket.SOCK_STREAM, 0),
        }
        self.socket = namespace.socket(_family(self.version), *kinds[protocol])
        self.socket.bind((source, 0))
        self.socket.setblocking(False)
        self.ident = int.from_bytes(os.urandom(2), "big") if protocol == "icmp" else self.socket.getsockname()[1]

    @property
    def repeats(self) -> bool:
        """Whether each try is a packet of its own; TCP repeats by itself."""
        return self.protocol != "tcp"

    def send(self) -> None:
        """Send the packet. Raises OSError when the sender's own kernel refuses."""
        self.sent += 1
        if self.protocol == "icmp":
            self.socket.sendto(self._echo(), (self.destination, 0))
        elif self.protocol == "udp":
            self.socket.connect((self.destination, self.port))
            self.socket.send(_DNS_QUESTION if self.port == DNS_PORT else bytes(self.size))
        else:
            code = self.socket.connect_ex((self.destination, self.port))
            if code not in (0, errno.EINPROGRESS, errno.ECONNREFUSED):
                raise OSError(code, os.strerror(code))

    def _echo(self) -> bytes:
        """Return an echo request; for IPv6 the kernel adds the checksum."""
        kind = _ECHO[self.version][0]
        data = bytes(self.size)
        header = struct.pack("!BBHHH", kind, 0, 0, self.ident, self.sent)
        return struct.pack("!BBHHH", kind, 0, 0 if self.version == 6 else checksum(header + data), self.ident, self.sent) + data

    def answered(self) -> str:
        """Return what came back, empty for nothing yet; called when the socket has something."""
        try:
            if self.protocol == "tcp":
                return self._connected()
            data, sender = self.socket.recvfrom(65536)
        except BlockingIOError:
            return ""
        except OSError:
            # An ICMP error; the trace shows it and who sent it.
            return ""
        if self.protocol == "udp":
            return f"{len(data)} bytes over UDP"
        message = data if self.version == 6 else data[(data[0] & 15) * 4 :]
        kind, _code, _sum, ident, _sequence = struct.unpack_from("!BBHHH", message + bytes(8))
        same = sender[0].partition("%")[0] == self.destination and ident == self.ident
        return "echo-reply" if same and kind == _ECHO[self.version][1] else ""

    def _connected(self) -> str:
        """Return how a connection ended up."""
        code = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code == 0:
            try:
                self.socket.getpeername()
            except OSError:
                return ""
            return "a connection"
        return "a refusal (nothing listens on that port)" if code == errno.ECONNREFUSED else ""

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()
