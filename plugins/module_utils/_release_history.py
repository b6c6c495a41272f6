# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A node's last releases: who, when, what changed, and what it takes to go back.

    history/<number>-<id>/release.json      who, when, what, and the release as the controller declared it: paths and hashes
    history/<number>-<id>/compose.yaml      what Docker Compose ran
    history/undone.json                     a release that was undone, until another one is confirmed

Configuration stays in services/<role>/releases as long as an entry refers to it. No secret is here, only hashes of them, and
the directory is root's alone all the same. Runs on nodes: Python 3.9, standard library only.

This module util is PRIVATE to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import time
from pathlib import Path
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Optional, Set

from ansible_collections.dn42.compose.plugins.module_utils._release_files import hard_copy, sha256, write_atomically

KEPT = 10
_NAME = re.compile(r"^(\d{6})-([0-9a-f]{12})$")


class Entry(NamedTuple):
    """One release of the past, or the present one."""

    number: int
    id: str
    path: Path
    content: Dict[str, Any]

    @property
    def declared(self) -> Dict[str, Any]:
        """The release as the controller declared it."""
        return dict(self.content["declared"])

    def public(self) -> Dict[str, Any]:
        """What an operator is shown."""
        return {"id": self.id, **{key: self.content.get(key) for key in ("when", "who", "what")}}


def release_id(compose_sha256: Optional[str], releases: Mapping[str, Optional[str]]) -> str:
    """Name of a node's release: a hash over compose.yaml and {service role: release}. Secrets are no part of it."""
    lines = "".join(f"{role}\0{release}\n" for role, release in sorted(releases.items()))
    return hashlib.sha256(f"compose\0{compose_sha256}\n{lines}".encode()).hexdigest()[:12]


def declared_id(declared: Mapping[str, Any]) -> str:
    """The id of a release as the controller declares it."""
    return release_id(declared["compose_sha256"], {role: service["release"] for role, service in declared["services"].items()})


def links(directory: Path) -> Dict[str, str]:
    """{service role: the release that its `current` points to} on this node."""
    found = {}
    for link in (directory / "services").glob("*/current"):
        with contextlib.suppress(OSError):
            found[link.parent.name] = os.path.basename(os.readlink(link))
    return found


def present_id(directory: Path) -> Optional[str]:
    """The id of the release that is in use on this node, None where there is none."""
    compose = sha256(directory / "compose.yaml")
    return release_id(compose, links(directory)) if compose else None


class History:
    """The history below a node's directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.path = directory / "history"

    def entries(self) -> List[Entry]:
        """All entries that can be read, oldest first."""
        found = []
        for path in self.path.iterdir() if self.path.is_dir() else []:
            match = _NAME.match(path.name)
            if not match:
                continue
            with contextlib.suppress(OSError, ValueError):
                content = json.loads((path / "release.json").read_text())
                found.append(Entry(int(match[1]), match[2], path, content))
        return sorted(found, key=lambda entry: entry.number)

    def find(self, wanted: Optional[str]) -> Optional[Entry]:
        """The newest entry with this id; without one, the newest that is not the release in use."""
        present = present_id(self.directory)
        for entry in reversed(self.entries()):
            if entry.id == wanted or (not wanted and entry.id != present):
                return entry
        return None

    def latest(self) -> Optional[Entry]:
        """The entry of the release in use, None where it is not the newest of the history."""
        entries = self.entries()
        return entries[-1] if entries and entries[-1].id == present_id(self.directory) else None

    def add(self, declared: Mapping[str, Any], who: str, what: Iterable[str]) -> None:
        """Note the release that is in use now. Appears whole, by a rename; only the last ones stay."""
        identifier = present_id(self.directory)
        if not identifier:
            return
        entries = self.entries()
        number = entries[-1].number + 1 if entries else 1
        self.path.mkdir(mode=0o700, exist_ok=True)
        self.path.chmod(0o700)
        beside = self.path / ".new"
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(mode=0o700)
        hard_copy(self.directory / "compose.yaml", beside / "compose.yaml")
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        content = {"id": identifier, "when": when, "who": who, "what": list(what), "declared": declared}
        write_atomically(beside / "release.json", json.dumps(content, indent=1, sort_keys=True).encode(), 0o600)
        os.rename(beside, self.path / f"{number:06}-{identifier}")
        for entry in self.entries()[:-KEPT]:
            shutil.rmtree(entry.path, ignore_errors=True)

    def releases(self) -> Dict[str, Set[str]]:
        """{service role: its releases that entries refer to}."""
        found: Dict[str, Set[str]] = {}
        for entry in self.entries():
            for role, service in entry.declared["services"].items():
                found.setdefault(role, set()).add(service["release"])
        return found

    def images(self) -> Set[str]:
        """Tags of the images that entries refer to."""
        return {service["image"] for entry in self.entries() for service in entry.declared["services"].values()}

    # The last release that was undone

    def note_undone(self, who: str, report: Iterable[str]) -> None:
        """Keep the reason for the operator, who may not have been there. On a full disk it is only in the unit's journal."""
        content = {"when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "who": who, "report": list(report)}
        with contextlib.suppress(OSError):
            self.path.mkdir(mode=0o700, exist_ok=True)
            write_atomically(self.path / "undone.json", json.dumps(content).encode(), 0o600)

    def undone(self) -> Optional[Dict[str, Any]]:
        """{when, who, report} of a release that was undone since the last one was confirmed, None if there was none."""
        try:
            return dict(json.loads((self.path / "undone.json").read_text()))
        except (OSError, ValueError):
            return None

    def forget_undone(self) -> None:
        """Another release was confirmed."""
        with contextlib.suppress(FileNotFoundError):
            (self.path / "undone.json").unlink()


def table(releases: Iterable[Mapping[str, Any]], present: Optional[str]) -> List[str]:
    """Releases as lines for people, in the order given; an asterisk marks the one in use, the newest of its name."""
    rows = [["", "release", "when (UTC)", "who", "what changed"]]
    marked = False
    for release in releases:
        here = release["id"] == present and not marked
        marked |= here
        rows.append(["*" if here else "", release["id"], release["when"], release["who"] or "-", shortened(release["what"])])
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return ["  ".join([*(cell.ljust(width) for cell, width in zip(row, widths)), row[4]]).rstrip() for row in rows]


def shortened(what: List[str]) -> str:
    """The first of several changes, and how many there are beside them."""
    first = ", ".join(line.splitlines()[0] for line in what[:3])
    return first if len(what) <= 3 else f"{first} and {len(what) - 3} more"
