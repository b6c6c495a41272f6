# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask services again and again whether they answer.

The keeper starts this without any capability. The first line of standard input is a JSON list of what to ask; for
each that begins or ceases to answer a JSON line is printed. It ends when standard input is closed.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import struct
import sys
import threading
import time
from typing import Any, Callable

INTERVAL_SECONDS = 1.0
TIMEOUT_SECONDS = 1.0
DOWN_AFTER = 3  # failures in a row
UP_AFTER = 2  # answers in a row

# A resolver knows this name itself, whatever it is connected to: localhost, A, IN.
QUESTION = b"\x09localhost\x00\x00\x01\x00\x01"
RECURSION_DESIRED, RESPONSE = 0x0100, 0x8000


class Health:
    """Whether a service counts as up: one answer, or one that is lost, says nothing yet."""

    def __init__(self, up: bool) -> None:
        """Begin with what is known."""
        self.up = up
        self._against = 0

    def seen(self, answered: bool) -> bool:
        """Take in the result of a probe; True when the service has changed its state."""
        self._against = 0 if answered == self.up else self._against + 1
        if self._against < (DOWN_AFTER if self.up else UP_AFTER):
            return False
        self.up, self._against = answered, 0
        return True


def dns_answers(address: str, port: int, timeout: float = TIMEOUT_SECONDS) -> bool:
    """Tell whether there is an answer, of whatever kind, to a DNS query over UDP."""
    number = secrets.randbelow(1 << 16)
    deadline = time.monotonic() + timeout
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as query:
        try:
            query.settimeout(timeout)
            query.connect((address, port))
            query.send(struct.pack("!6H", number, RECURSION_DESIRED, 1, 0, 0, 0) + QUESTION)
            while (left := deadline - time.monotonic()) > 0:
                query.settimeout(left)
                answer = query.recv(4096)
                if len(answer) >= 12 and struct.unpack("!2H", answer[:4])[0] == number and struct.unpack("!2H", answer[:4])[1] & RESPONSE:
                    return True
        except OSError:
            pass
    return False


def tcp_answers(address: str, port: int, timeout: float = TIMEOUT_SECONDS) -> bool:
    """Tell whether a TCP connection is accepted."""
    try:
        with socket.create_connection((address, port), timeout):
            return True
    except OSError:
        return False


PROBES: dict[str, Callable[[str, int], bool]] = {"dns": dns_answers, "tcp": tcp_answers}


def watch(item: dict[str, Any]) -> None:
    """Ask one service for ever."""
    ask, health = PROBES[item["probe"]], Health(item["up"])
    while True:
        began = time.monotonic()
        if health.seen(ask(item["address"], item["port"])):
            # one write, so that lines of several threads stay whole
            os.write(sys.stdout.fileno(), (json.dumps({"id": item["id"], "up": health.up}) + "\n").encode())
        time.sleep(max(0.0, began + INTERVAL_SECONDS - time.monotonic()))


def main() -> int:
    """Run until standard input ends, which it does with the keeper."""
    for item in json.loads(sys.stdin.readline()):
        threading.Thread(target=watch, args=(item,), daemon=True).start()
    sys.stdin.read()
    return 0


if __name__ == "__main__":
    sys.exit(main())
