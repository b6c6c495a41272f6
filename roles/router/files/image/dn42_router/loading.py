# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of the keeper that BIRD includes: BIRD reads its configuration again when they have changed."""

from __future__ import annotations

import hashlib
import time
from typing import Callable

from .system import CommandError

RETRY_SECONDS = 30.0
NOT_LOADED = "BIRD has not loaded the present files"

# Runs a command, answers with its output. Raises CommandError.
Runner = Callable[..., str]


def accepted(answer: str) -> bool:
    """Tell whether BIRD took its configuration, from what birdc says."""
    return any(line.startswith(("Reconfigured", "Reconfiguration in progress", "Reconfiguration already in progress")) for line in answer.splitlines())


def configure(command: Runner, bird_may_be_down: bool, problem: str) -> bool:
    """Have BIRD read its configuration; False where it is down, as it may be: it starts when the keeper is ready, and reads it then.

    Raises CommandError: what birdc said, or `problem` with BIRD's answer.
    """
    try:
        answer = command(["birdc", "configure"])
        if not accepted(answer):
            raise CommandError(f"{problem}: {' '.join(answer.split()[-40:])}")
    except CommandError:
        if not bird_may_be_down:
            raise
        return False
    return True


def digest(contents: bytes) -> str:
    """What `loaded` is for these contents."""
    return hashlib.sha256(contents).hexdigest()


class Loader:
    """Knows which contents BIRD has read; `loaded` is what an earlier keeper of this container had it read."""

    def __init__(self, loaded: str | None, command: Runner) -> None:
        """Nothing is run yet."""
        self.loaded = loaded
        self._run = command
        self._tell_again_at = 0.0

    def load(self, contents: bytes, bird_may_be_down: bool, log: Callable[[str], None]) -> None:
        """Have BIRD read its configuration if it does not know these contents of the files. Raises CommandError."""
        present = digest(contents)
        if present == self.loaded:
            return
        if time.monotonic() < self._tell_again_at:
            raise CommandError(NOT_LOADED)
        try:
            loaded = configure(self._run, bird_may_be_down, NOT_LOADED)
        except CommandError:
            self._tell_again_at = time.monotonic() + RETRY_SECONDS
            raise
        if loaded:
            log("BIRD has loaded the present files")
        self.loaded = present
