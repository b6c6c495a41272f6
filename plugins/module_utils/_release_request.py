# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How a module asks the node's release program for something: a directory with the question, later with the answer.

    .incoming-<name>/request.json, release.tar.gz, tree/, result.json; root's alone, since the archive may hold secrets

Module and program both hold a shared lock on it as long as they live, so that whoever sweeps sees which one nobody needs any more.
Runs on nodes: Python 3.9, standard library only.

This module util is PRIVATE to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, Mapping, Optional

from ansible_collections.dn42.compose.plugins.module_utils._release_files import write_atomically

PREFIX = ".incoming-"
YOUNG = 10.0  # seconds in which a request may have no lock yet


class Request:
    """One request, seen from either side."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.archive = path / "release.tar.gz"
        self._lock: Optional[int] = None

    @classmethod
    def create(cls, directory: Path, asked: Mapping[str, Any], archive: Optional[bytes]) -> Request:
        """A new request, held, with the release's archive. Raises OSError; then nothing is left of it."""
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        request = cls(Path(tempfile.mkdtemp(prefix=PREFIX, dir=directory)))
        try:
            (request.path / "lock").touch(mode=0o600)
            request.hold()
            write_atomically(request.path / "request.json", json.dumps(asked).encode(), 0o600)
            if archive:
                write_atomically(request.archive, archive, 0o600)
            return request
        except BaseException:
            request.remove()
            raise

    def hold(self) -> None:
        """Say that it is needed. Raises OSError where it is gone."""
        self._lock = os.open(self.path / "lock", os.O_RDWR)
        fcntl.flock(self._lock, fcntl.LOCK_SH)

    @property
    def asked(self) -> Dict[str, Any]:
        """What is asked for."""
        return dict(json.loads((self.path / "request.json").read_text()))

    def scratch(self) -> Path:
        """An empty directory in it."""
        tree = self.path / "tree"
        shutil.rmtree(tree, ignore_errors=True)
        tree.mkdir(mode=0o700)
        return tree

    def answer(self, result: Mapping[str, Any]) -> None:
        """Write the result for whoever waits; where nobody does any more, the request goes away."""
        shutil.rmtree(self.path / "tree", ignore_errors=True)
        self.archive.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # on a full disk the module says that there was no answer
            write_atomically(self.path / "result.json", json.dumps(result).encode(), 0o600)
        self._release()
        remove_if_unused(self.path)

    def result(self) -> Optional[Dict[str, Any]]:
        """The answer, None as long as there is none."""
        try:
            return dict(json.loads((self.path / "result.json").read_text()))
        except (OSError, ValueError):
            return None

    def remove(self) -> None:
        """Take it away."""
        self._release()
        shutil.rmtree(self.path, ignore_errors=True)

    def _release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def remove_if_unused(path: Path) -> None:
    """Remove a request that nobody holds; one that has just been made is left alone."""
    try:
        lock = os.open(path / "lock", os.O_RDWR)
    except FileNotFoundError:
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > YOUNG:
                shutil.rmtree(path, ignore_errors=True)
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(path, ignore_errors=True)
    except BlockingIOError:
        pass
    finally:
        os.close(lock)


def sweep(directory: Path, own: Optional[Path]) -> None:
    """Remove the requests of processes that died."""
    for path in directory.glob(f"{PREFIX}*"):
        if path != own:
            remove_if_unused(path)
