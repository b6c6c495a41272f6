# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The last good sets, in the files that are published, and a status file beside them."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .roas import FAMILIES, RoaSet, SetError, parse, render

FILES = {"ipv4": "roa4.conf", "ipv6": "roa6.conf"}
STATUS = "status.json"


@dataclass
class Entry:
    """What is published for one family. `confirmed`: when a source last sent a good set, seconds since 1970."""

    roas: RoaSet = frozenset()
    source: str | None = None
    confirmed: float | None = None
    problems: list[str] = field(default_factory=list)


class Store:
    """A directory with the published files; who reads them sees an old file or a new one, nothing between."""

    def __init__(self, directory: Path) -> None:
        """Nothing is read or written yet."""
        self._directory = directory

    def load(self) -> dict[str, Entry]:
        """What was published last. Where there is nothing, an empty set is, which is a file that BIRD can read."""
        status = self._read_status()
        return {family: self._load(family, status.get(family)) for family in FAMILIES}

    def publish(self, family: str, roas: RoaSet) -> None:
        """Replace the file of one family."""
        self._write(FILES[family], render(roas, family))

    def write_status(self, entries: dict[str, Entry], now: float, following: float) -> None:
        """Say how things are; `now` and `following`, the time of the next look, in seconds since 1970."""
        status: dict[str, Any] = {"written": int(now), "next": int(following)}
        for family, entry in entries.items():
            status[family] = {
                "count": len(entry.roas),
                "source": entry.source,
                "confirmed": None if entry.confirmed is None else int(entry.confirmed),
                "age": None if entry.confirmed is None else max(0, int(now - entry.confirmed)),
                "problems": entry.problems,
            }
        self._write(STATUS, (json.dumps(status, indent=1, sort_keys=True) + "\n").encode())

    def _load(self, family: str, status: Any) -> Entry:
        path = self._directory / FILES[family]
        try:
            content, written = path.read_bytes(), path.stat().st_mtime
        except FileNotFoundError:
            self.publish(family, frozenset())
            return Entry()
        try:
            roas = parse(content)[family]
        except SetError as error:
            # It stays as it is until there is something better: the router does not take it, and keeps what it has.
            return Entry(problems=[f"{path} is broken: {error}"])
        if not roas:
            return Entry()
        known = status if isinstance(status, dict) else {}
        confirmed = known.get("confirmed")
        return Entry(roas, known.get("source"), float(confirmed) if isinstance(confirmed, (int, float)) else written)

    def _read_status(self) -> dict[str, Any]:
        try:
            status = json.loads((self._directory / STATUS).read_bytes())
        except (OSError, ValueError):
            return {}
        return status if isinstance(status, dict) else {}

    def _write(self, name: str, content: bytes) -> None:
        """Write beside, flush to disk, rename: whole after a kill, and after a power cut."""
        beside = self._directory / f".{name}.new"
        with open(beside, "wb") as target:
            os.fchmod(target.fileno(), 0o644)
            target.write(content)
            target.flush()
            os.fsync(target.fileno())
        os.replace(beside, self._directory / name)
        with contextlib.suppress(OSError):
            directory = os.open(self._directory, os.O_RDONLY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
