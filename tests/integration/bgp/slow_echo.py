# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Answers pings late, in place of the kernel: `slow_echo.py <address> <interface> <milliseconds>` in the namespace it is about, until it is ended.

Not every machine's kernel can delay packets; a ping cannot tell the difference.
"""

from __future__ import annotations

import socket
import sys
import threading
from pathlib import Path

REQUEST, REPLY = 128, 129


def main(address: str, interface: str, milliseconds: float) -> None:
    """Answer for ever. The kernel puts in the checksum."""
    Path("/proc/sys/net/ipv6/icmp/echo_ignore_all").write_text("1", encoding="ascii")
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as connection:
        connection.bind((address, 0, 0, socket.if_nametoindex(interface)))
        print("ready", flush=True)
        while True:
            content, sender = connection.recvfrom(2048)
            if content[0] == REQUEST:
                answer = bytes([REPLY, 0, 0, 0]) + content[4:]
                threading.Timer(milliseconds / 1000, connection.sendto, (answer, sender)).start()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
