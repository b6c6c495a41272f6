# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One ping, for machines without that program: `echo.py <source> <destination>` in the namespace it is about; exit 0 for an answer."""

from __future__ import annotations

import os
import socket
import struct
import sys
import time

ANSWER_WAIT = 1.0  # seconds
REQUEST = {socket.AF_INET: 8, socket.AF_INET6: 128}
REPLY = {socket.AF_INET: 0, socket.AF_INET6: 129}


def checksum(data: bytes) -> int:
    """The Internet's checksum; for ICMPv6 the kernel puts its own in its place."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def answered(source: str, destination: str) -> bool:
    """Send one echo request and wait for its reply."""
    family = socket.AF_INET6 if ":" in destination else socket.AF_INET
    protocol = socket.IPPROTO_ICMPV6 if family == socket.AF_INET6 else socket.IPPROTO_ICMP
    identity = struct.pack("!HH", os.getpid() & 0xFFFF, 1)
    packet = struct.pack("!BBH", REQUEST[family], 0, checksum(struct.pack("!BBH", REQUEST[family], 0, 0) + identity)) + identity
    deadline = time.monotonic() + ANSWER_WAIT
    with socket.socket(family, socket.SOCK_RAW, protocol) as connection:
        connection.bind((source, 0))
        connection.sendto(packet, (destination, 0))
        while (left := deadline - time.monotonic()) > 0:
            connection.settimeout(left)
            try:
                received, sender = connection.recvfrom(2048)
            except TimeoutError:
                return False
            content = received[(received[0] & 15) * 4 :] if family == socket.AF_INET else received
            if sender[0] == destination and content[0] == REPLY[family] and content[4:8] == identity:
                return True
    return False


if __name__ == "__main__":
    try:
        sys.exit(0 if answered(*sys.argv[1:3]) else 1)
    except OSError as error:  # no route, for one
        sys.exit(f"{sys.argv[1]} to {sys.argv[2]}: {error}")
