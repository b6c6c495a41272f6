# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading from a socket with a limit on time and size that the other side cannot stretch."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

CHUNK = 65536


class Deadline:
    """A point in time, measured on the monotonic clock."""

    def __init__(self, seconds: float) -> None:
        """Lie `seconds` in the future."""
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Return the seconds that are left; raise TimeoutError when there are none."""
        seconds = self._end - time.monotonic()
        if seconds <= 0:
            raise TimeoutError("timed out")
        return seconds


def read_until(
    connection: socket.socket,
    deadline: Deadline,
    limit: int,
    complete: Callable[[bytearray], bool],
) -> bytes:
    """Read until `complete` says so or the other side closes.

    Raise TimeoutError at the deadline, ValueError beyond `limit` bytes and OSError when the
    connection breaks.
    """
    data = bytearray()
    while not complete(data):
        connection.settimeout(deadline.left())
        chunk = connection.recv(CHUNK)
        if not chunk:
            break
        data += chunk
        if len(data) > limit:
            raise ValueError(f"answer longer than {limit} bytes")
    return bytes(data)
