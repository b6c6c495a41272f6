# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""ROA files: taken over from the volume of the service that fetches them, checked, and given to BIRD.

BIRD includes copies, which only the keeper writes. Whatever happens to the volume, BIRD starts and has the last good set;
and that service, which talks to the Internet, can put nothing but ROAs into BIRD's configuration.
"""

from __future__ import annotations

import os
import re
import stat
import time
from pathlib import Path
from typing import Any, Callable

from .loading import RETRY_SECONDS, Loader, Runner
from .system import CommandError, run

PUBLISHED = Path("/run/roa")  # the volume
INCLUDED = Path("/roa")  # what bird.conf includes
BIRD_CONF = Path("/config/current/bird.conf")
SCRATCH = Path("/run/keeper/roa-check.conf")
FILES = {"ipv4": "roa4.conf", "ipv6": "roa6.conf"}
NAMES = {"ipv4": "IPv4", "ipv6": "IPv6"}
SIZE_LIMIT = 16 * 1024 * 1024  # bytes
LINE = re.compile(rb"route [0-9a-f.:]+/\d{1,3} max \d{1,3} as \d{1,10};")
CHECK_SECONDS = 20.0


class RoaError(Exception):
    """A file that is not given to BIRD; the message says why, without what is in it."""


def read_published(path: Path) -> bytes:
    """The content of a regular file that another container wrote. Raises RoaError, FileNotFoundError."""
    # Neither a link to something of ours nor a pipe that nobody writes to.
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(handle, "rb") as stream:
        state = os.fstat(stream.fileno())
        if not stat.S_ISREG(state.st_mode) or state.st_size > SIZE_LIMIT:
            raise RoaError("no regular file, or too large")
        return stream.read(SIZE_LIMIT)


def count(content: bytes) -> int:
    """How many ROAs a file holds. Raises RoaError if it holds anything else."""
    found = 0
    if content and not content.endswith(b"\n"):
        raise RoaError("its last line is not complete")
    for number, line in enumerate(content.split(b"\n"), 1):
        if not line or line.startswith(b"#"):
            continue
        if LINE.fullmatch(line) is None:
            raise RoaError(f"line {number} is no ROA")
        found += 1
    return found


def judged_by_files() -> bool:
    """Whether the bird.conf in place includes our copies."""
    return f"{INCLUDED}/".encode() in _read(BIRD_CONF)


class RoaFiles:
    """The files that BIRD includes, and whether it knows them."""

    def __init__(self, loaded: str | None = None, command: Runner = run) -> None:
        """`loaded`: what an earlier keeper of this container had BIRD load."""
        self.loader = Loader(loaded, command)
        self._run = command
        self._seen: dict[Path, tuple[int, int, int]] = {}
        self._counts: dict[str, int] = {}
        self._faults: dict[str, str] = {}
        self._used = False
        self._look_again_at = 0.0

    def keep(self, bird_may_be_down: bool, log: Callable[[str], None], untold: bool = False) -> None:
        """Take over what is new and have BIRD load it. Raises CommandError with everything that is wrong.

        untold: a release is in place that BIRD has not been told of; whoever brings it does that in his own time, after the ROAs are here.
        """
        for family in FILES:
            self._keep_file(family, log)
        if untold:
            return
        if self._changed(BIRD_CONF):
            self._used = judged_by_files()
        if not self._used:
            return
        problems = [f"{NAMES[family]}: {fault}" for family, fault in self._faults.items()]
        problems += [f"no ROA data for {NAMES[family]}, every {NAMES[family]} route from peers is refused" for family in FILES if not self._counts[family]]
        try:
            self.loader.load(b"\0".join(_read(INCLUDED / name) for name in FILES.values()), bird_may_be_down, log)
        except CommandError as error:
            problems.append(str(error))
        if problems:
            raise CommandError("; ".join(problems))

    def status(self) -> dict[str, Any]:
        """For the keeper's status file."""
        return {"used": self._used, "loaded": self.loader.loaded, "counts": self._counts}

    def _keep_file(self, family: str, log: Callable[[str], None]) -> None:
        """Copy one file if it is new and good; one that was not is looked at again from time to time."""
        published, included = PUBLISHED / FILES[family], INCLUDED / FILES[family]
        if family not in self._counts:
            self._counts[family] = _count_included(included)
        again = family in self._faults and time.monotonic() >= self._look_again_at
        if not self._changed(published) and not again:
            return
        try:
            content = read_published(published)
            found = count(content)
            # The fetcher never replaces a set by an empty one: this is a new volume.
            if (found or not self._counts[family]) and content != _read(included):
                self._take(family, content)
                log(f"{NAMES[family]}: {found} ROAs")
                self._counts[family] = found
            self._faults.pop(family, None)
        except FileNotFoundError:
            self._faults.pop(family, None)
        except (RoaError, CommandError, OSError) as error:
            self._faults[family] = f"{published} is not used, {self._counts[family]} ROAs stay: {error}"
            self._look_again_at = time.monotonic() + RETRY_SECONDS

    def _take(self, family: str, content: bytes) -> None:
        """Replace what BIRD includes, once BIRD's own parser has accepted it. Raises CommandError."""
        included = INCLUDED / FILES[family]
        beside = included.with_name(f".{included.name}.new")
        beside.write_bytes(content)
        table = f"roa{family[-1]}"
        SCRATCH.write_text(f'router id 127.0.0.1;\n{table} table t;\nprotocol static {{\n  {table} {{ table t; }};\n  include "{beside}";\n}}\n', "ascii")
        self._run(["bird", "-p", "-c", str(SCRATCH)], timeout=CHECK_SECONDS)
        beside.chmod(0o644)
        beside.rename(included)

    def _changed(self, path: Path) -> bool:
        """Tell whether a file is another one than at the last look."""
        try:
            state = path.lstat()
        except OSError:
            return self._seen.pop(path, None) is not None
        version = (state.st_ino, state.st_mtime_ns, state.st_size)
        changed = self._seen.get(path) != version
        self._seen[path] = version
        return changed


def _read(path: Path) -> bytes:
    """Content of a file of our own, nothing where there is none."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _count_included(path: Path) -> int:
    try:
        return count(_read(path))
    except RoaError:
        return 0
