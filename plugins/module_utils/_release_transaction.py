# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a node was before a release, kept on its disk until the release is confirmed or undone.

    .transaction/record.json            the previous release as it was declared, its `current` links, its reading, who releases
    .transaction/phase                  how far the release has come: switching, starting, confirming, undoing
    .transaction/compose.yaml           the previous one
    .transaction/secrets/<role>/...     the previous secrets; second names of the same files, the directory is root's alone

It appears and disappears whole, by a rename. As long as it is there, the release is not confirmed, and whoever finds it
and holds the node's lock puts back what was before. Runs on nodes: Python 3.9, standard library only.

This module util is PRIVATE to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from pathlib import Path
from typing import Any, Dict, Mapping, Optional

from ansible_collections.dn42.compose.plugins.module_utils import _release_history as history
from ansible_collections.dn42.compose.plugins.module_utils._release_files import hard_copy, point_link, put_back, sync_directory, write_atomically

NAME = ".transaction"


class Transaction:
    """The unconfirmed release of a node."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.path = directory / NAME

    @property
    def open(self) -> bool:
        """Whether there is an unconfirmed release."""
        return self.path.is_dir()

    @property
    def record(self) -> Dict[str, Any]:
        """What begin() wrote."""
        return dict(json.loads((self.path / "record.json").read_text()))

    def sweep(self) -> None:
        """Take away what a process left that died while it began or ended a transaction."""
        for leftover in self.directory.glob(f"{NAME}-*"):
            shutil.rmtree(leftover, ignore_errors=True)

    def begin(self, previous: Optional[Mapping[str, Any]], before: Mapping[str, Any], who: str, renumbered: bool) -> None:
        """Keep what it takes to go back, before anything is switched. previous: None where there is nothing to go back to.

        Raises OSError where there is no room for it; then nothing is left of it.
        """
        self.sweep()
        beside = self.directory / f"{NAME}-new"
        try:
            beside.mkdir(mode=0o700)
            record = {"previous": previous, "links": history.links(self.directory), "before": before, "who": who, "renumbered": renumbered}
            write_atomically(beside / "record.json", json.dumps(record, indent=1, sort_keys=True).encode(), 0o600)
            if (self.directory / "compose.yaml").exists():
                hard_copy(self.directory / "compose.yaml", beside / "compose.yaml")
            for role in sorted(path for path in (self.directory / "secrets").glob("*") if path.is_dir()):
                saved = beside / "secrets" / role.name
                saved.mkdir(mode=0o700, parents=True)
                for path in role.iterdir():
                    hard_copy(path, saved / path.name)
            sync_directory(beside)
            os.rename(beside, self.path)
            sync_directory(self.directory)
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise

    def phase(self, name: str) -> None:
        """Note how far it is. Nothing depends on it, so a full disk does not matter."""
        with contextlib.suppress(OSError):
            write_atomically(self.path / "phase", name.encode(), 0o600)

    def restore_files(self) -> None:
        """Put back compose.yaml, links and secrets. Writes no data, so that it works on a full disk, and may be repeated."""
        record = self.record
        compose = self.directory / "compose.yaml"
        if (self.path / "compose.yaml").exists():
            put_back(self.path / "compose.yaml", compose)
        else:
            compose.unlink(missing_ok=True)
        for link in (self.directory / "services").glob("*/current"):
            # What the running container was told is not known for sure any more.
            (link.parent / "loaded.json").unlink(missing_ok=True)
            if link.parent.name not in record["links"]:
                link.unlink()
        for role, release in sorted(record["links"].items()):
            link = self.directory / "services" / role / "current"
            if not link.is_symlink() or os.path.basename(os.readlink(link)) != release:
                link.parent.mkdir(parents=True, exist_ok=True)
                point_link(link, f"releases/{release}")
        self._restore_secrets()

    def _restore_secrets(self) -> None:
        for role in [path for path in (self.directory / "secrets").glob("*") if path.is_dir() and not (self.path / "secrets" / path.name).is_dir()]:
            shutil.rmtree(role)  # of a service that came with the release
        for saved in (self.path / "secrets").glob("*"):
            role = self.directory / "secrets" / saved.name
            for path in role.iterdir():
                if not (saved / path.name).exists():
                    path.unlink()
            for path in saved.iterdir():
                put_back(path, role / path.name)

    def end(self) -> None:
        """It is confirmed or undone."""
        done = self.directory / f"{NAME}-done"
        shutil.rmtree(done, ignore_errors=True)
        os.rename(self.path, done)
        sync_directory(self.directory)
        shutil.rmtree(done, ignore_errors=True)
