# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The keeper's side of name look-ups: one child process at a time, never waited for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import IO

from .system import IN_HOST

LOOKUP_SECONDS = 20.0
# The child needs the namespace only; it keeps no capability.
WITHOUT_CAPABILITIES = ("setpriv", "--inh-caps=-all", "--ambient-caps=-all")


class Lookups:
    """Look-ups in the background. Results are taken with `results`."""

    def __init__(self) -> None:
        """Start with no child."""
        self._process: subprocess.Popen[bytes] | None = None
        self._output: IO[bytes] | None = None
        self._names: set[str] = set()
        self._started = 0.0

    @property
    def busy(self) -> bool:
        """Tell whether a child is at work."""
        return self._process is not None

    def start(self, names: set[str]) -> None:
        """Look up these names, unless a child is at work already."""
        if self._process is not None or not names:
            return
        # a file, not a pipe: a long answer can never block the child
        self._output = os.fdopen(os.memfd_create("lookups"), "w+b")
        self._process = subprocess.Popen([*IN_HOST, *WITHOUT_CAPABILITIES, sys.executable, "-I", "-m", "dn42_router.resolver"], stdin=subprocess.PIPE, stdout=self._output)
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(sorted(names)).encode())
        self._process.stdin.close()
        self._names = names
        self._started = time.monotonic()

    def results(self) -> dict[str, tuple[tuple[str, ...], str | None]]:
        """Addresses and error of each name of a finished child; empty while one is at work."""
        if self._process is None or self._output is None:
            return {}
        if self._process.poll() is None:
            if time.monotonic() - self._started < LOOKUP_SECONDS:
                return {}
            self._process.kill()
            self._process.wait()
        self._output.seek(0)
        found = _parse(self._output.read().decode())
        self._output.close()
        self._process = None
        return {name: found.get(name, ((), "the look-up did not end in time")) for name in self._names}


def _parse(text: str) -> dict[str, tuple[tuple[str, ...], str | None]]:
    """Read the child's lines."""
    items = [json.loads(line) for line in text.splitlines()]
    return {item["name"]: (tuple(item["addresses"]), item["error"]) for item in items}
