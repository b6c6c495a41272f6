# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Running commands, showing progress, locking."""

from __future__ import annotations

import contextlib
import fcntl
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Optional, TextIO

from .facts import NETNS_DIRECTORY, RUNTIME, LabError

LOCK_WAIT = 900  # seconds; a first run builds four images


def run(
    argv: Sequence[str],
    *,
    stdin: Optional[bytes] = None,
    check: bool = True,
    timeout: float = 300,
) -> subprocess.CompletedProcess[bytes]:
    """Run a command and keep its output; with check, raise LabError with that output when it fails."""
    source = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
    try:
        result = subprocess.run(argv, capture_output=True, timeout=timeout, check=False, **source)
    except FileNotFoundError as error:
        raise LabError(f"{argv[0]} is not installed; run: tests/lab/lab require") from error
    except subprocess.TimeoutExpired as error:
        raise LabError(f"no end after {timeout:g} s: {shlex.join(argv)}") from error
    if check and result.returncode != 0:
        said = (result.stderr or result.stdout).decode(errors="replace").strip()
        raise LabError(f"exit status {result.returncode}: {shlex.join(argv)}\n{said}")
    return result


def output(argv: Sequence[str], *, check: bool = True, timeout: float = 300) -> str:
    """Return what a command printed, stripped."""
    return run(argv, check=check, timeout=timeout).stdout.decode(errors="replace").strip()


def in_netns(netns: str, *argv: str) -> list[str]:
    """Return the command that runs argv in a network namespace (and only that namespace)."""
    return ["nsenter", f"--net={NETNS_DIRECTORY / netns}", *argv]


class Progress:
    """Prints steps as '[ 12.3 s] 4/9 what'. The number of steps is known before the first one."""

    def __init__(self, total: int, stream: TextIO = sys.stdout) -> None:
        self.total, self.done, self.stream = total, 0, stream
        self.start = time.monotonic()

    def _print(self, text: str) -> None:
        print(f"[{time.monotonic() - self.start:6.1f} s] {text}", file=self.stream, flush=True)

    def step(self, text: str) -> None:
        """Announce the next step."""
        self.done += 1
        self._print(f"{self.done}/{self.total} {text}")

    def detail(self, text: str) -> None:
        """Say how far the current step is."""
        self._print(f"    {text}")


def wait_until(condition: Callable[[], bool], seconds: float, interval: float = 0.5) -> bool:
    """Ask until condition is true; False when it was not within that many seconds."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= end:
            return False
        time.sleep(interval)
    return True


@contextlib.contextmanager
def lock(name: str) -> Iterator[TextIO]:
    """Hold the lock of that name. The kernel drops it when the holder dies, however it dies."""
    directory = RUNTIME / "locks"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(directory / name, "w", encoding="utf-8") as handle:
        if not _try_lock(handle):
            print(f"waiting for another run that uses {name} ...", file=sys.stderr, flush=True)
            if not wait_until(lambda: _try_lock(handle), LOCK_WAIT):
                raise LabError(f"another run still holds {directory / name} after {LOCK_WAIT} s")
        yield handle


def _try_lock(handle: TextIO) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
