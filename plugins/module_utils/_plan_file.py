# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The address plan in a file that is made for git. Its text is the matter of `_plan_text`.

A change is made under a lock on a file of its own, since the plan itself is replaced by rename, and with it
a lock on it. Readers need no lock: they see the old file or the new one.

This module util is PRIVATE to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import time
from pathlib import Path
from typing import Iterator, List, Optional

from ansible_collections.dn42.compose.plugins.module_utils._address_plan.model import Fault, Plan, Refused
from ansible_collections.dn42.compose.plugins.module_utils._plan_git import file_history
from ansible_collections.dn42.compose.plugins.module_utils._plan_store import Decide, Event, LockTimeout, Outcome, Store, StoreError, client_name, decided
from ansible_collections.dn42.compose.plugins.module_utils._plan_text import MISSING_YAML, parse, read_comments, render

LOCK_PAUSE = 0.01  # seconds between two attempts to get the lock


class PlanFile(Store):
    """The store that is a file."""

    def __init__(self, path: str, lock_timeout: float) -> None:
        if MISSING_YAML:
            raise StoreError(f"The Python library PyYAML is missing in {sys.executable} ({MISSING_YAML}). Install it there: {sys.executable} -m pip install PyYAML")
        self.path = Path(path).resolve()  # a rename would replace a link by a file
        self.shown = path
        self.lock_timeout = lock_timeout

    def read(self) -> Plan:
        """The plan as it is; needs no lock."""
        return self._parse(self._read())

    def transact(self, decide: Decide, dry_run: bool) -> Outcome:
        """See `Store`. A call that changes nothing takes no lock and writes nothing, so it works where the plan is read-only."""
        text = self._read()
        outcome = self._decide(decide, text)
        if dry_run or not outcome.changed:
            return outcome
        with _told(self.shown), self._locked():
            current = self._read()
            if current != text:  # somebody was faster
                outcome = self._decide(decide, current)
            if outcome.changed:
                comments = None if current is None else read_comments(current, outcome.before)
                self._replace(render(outcome.decision.plan, comments))
        return outcome

    def history(self, limit: int) -> List[Event]:
        """What git knows of the file, without what is not committed yet; nothing where there is no git."""
        return file_history(self.path, limit)

    def _decide(self, decide: Decide, text: Optional[str]) -> Outcome:
        return decided(decide, self._parse(text))

    def _parse(self, text: Optional[str]) -> Plan:
        return Plan() if text is None else parse(text, self.shown)

    def _read(self) -> Optional[str]:
        """The text of the file; None when there is none."""
        with _told(self.shown):
            try:
                content = self.path.read_bytes()
            except FileNotFoundError:
                return None
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            raise Refused([Fault(f"{self.shown} line {line}", "", "is no UTF-8 text")]) from None

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Be the only writer. The lock's file is removed again, so that git does not see it.

        Who waited for the lock may get it on a file that its owner has removed meanwhile: that lock counts for
        nothing and is taken anew on the file that is there.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lock = self.path.with_name(self.path.name + ".lock")
        deadline = time.monotonic() + self.lock_timeout
        while True:
            handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
            try:
                self._wait(handle, lock, deadline)
                if _same_file(handle, lock):
                    break
            except BaseException:
                os.close(handle)
                raise
            os.close(handle)
        try:
            os.ftruncate(handle, 0)
            os.write(handle, f"{client_name()}, process {os.getpid()}".encode())
            yield
        finally:
            lock.unlink()
            os.close(handle)

    def _wait(self, handle: int, lock: Path, deadline: float) -> None:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    who = os.pread(handle, 500, 0).decode("utf-8", "replace") or "it does not say who"
                    message = f"another run holds {lock} for more than {self.lock_timeout:g} s ({who}); wait for it to end and run again"
                    raise LockTimeout(message) from None
            time.sleep(LOCK_PAUSE)

    def _replace(self, text: str) -> None:
        """Put a new file in the old one's place, so that every moment has a whole one, also after a power cut.

        The file beside has a fixed name: we are the only writer, and what a killed one left is overwritten.
        """
        beside = self.path.with_name(self.path.name + ".new")
        with contextlib.suppress(FileNotFoundError):
            beside.unlink()
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            with os.fdopen(handle, "wb") as file:
                os.fchmod(file.fileno(), 0o644)  # whatever the umask
                file.write(text.encode("utf-8"))
                file.flush()
                os.fsync(file.fileno())
            beside.rename(self.path)
        except BaseException:
            with contextlib.suppress(OSError):
                beside.unlink()
            raise
        _sync_directory(self.path.parent)


@contextlib.contextmanager
def _told(path: str) -> Iterator[None]:
    """Say which plan a system call failed for."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"The plan file {path} cannot be read or written: {error}") from error


def _same_file(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _sync_directory(path: Path) -> None:
    """Make a rename durable."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
