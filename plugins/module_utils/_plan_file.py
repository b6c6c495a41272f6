# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The address plan in a file that is made for git.

One line per block, keyed by prefix and sorted by address: two branches that take the same space write the
same line and conflict in the merge. No dates, so equal plans are equal files. The last line is YAML's end
of document, without which a file that was cut short would look like a plan with fewer owners.

A change is made under a lock on a file of its own, since the plan itself is replaced by rename, and with it
a lock on it. Readers need no lock: they see the old file or the new one.

This module util is PRIVATE to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Tuple

from ansible_collections.dn42.compose.plugins.module_utils._address_plan import (
    FAMILY_NAMES,
    Block,
    Decision,
    Fault,
    Refused,
    check_blocks,
)
from ansible_collections.dn42.compose.plugins.module_utils._address_text import Unreadable, read_name, read_prefix

try:
    import yaml
except ImportError as error:
    MISSING_YAML: Optional[str] = str(error)
else:
    MISSING_YAML = None

VERSION = 1
HEADER = """\
# Address plan of this network, written by dn42.compose.address_blocks.
# Keep it in git. A block belongs to its holder until its line is removed.
---
version: 1
"""
END = "...\n"
PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9._-]*")
# What some YAML reader or other takes for a boolean or null, in lower case.
WORDS = frozenset(("y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf", "none"))
MARKER = re.compile(r"(<{7}|>{7}|\|{7}|={7})( |$)")
LOCK_PAUSE = 0.05  # seconds between two attempts to get the lock

Decide = Callable[[Tuple[Block, ...]], Decision]


class Outcome(NamedTuple):
    """What a call decided and the text of the plan before and after it."""

    decision: Decision
    before: str
    after: str


class LockTimeout(Exception):
    """Somebody else kept the lock for too long."""


def render(blocks: Iterable[Block]) -> str:
    """The text of a plan."""
    ordered = sorted(blocks, key=lambda block: block.prefix)
    lines = [HEADER]
    for family, name in sorted(FAMILY_NAMES.items()):
        few = [block for block in ordered if block.prefix.family == family]
        lines.append(f"{name}:\n" if few else f"{name}: {{}}\n")
        for block in few:
            prefix = str(block.prefix) if family == 4 else f'"{block.prefix}"'
            lines.append(f"  {prefix}: {{holder: {scalar(block.holder)}, pool: {scalar(block.pool)}}}\n")
    return "".join(lines) + END


def scalar(name: str) -> str:
    """A name as YAML text, in quotes wherever a reader could take it for something else."""
    if PLAIN.fullmatch(name) and name.lower() not in WORDS:
        return name
    return json.dumps(name, ensure_ascii=False)


def parse(text: str, path: str) -> Tuple[Block, ...]:
    """The blocks of a plan; raises `Refused` with the lines of everything that is wrong in it."""
    faults = _unfinished(text, path)
    if faults:
        raise Refused(faults)
    try:
        root = yaml.compose(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as error:
        raise Refused([_yaml_fault(error, text, path)]) from None
    reader = _Reader(path)
    blocks = reader.plan(root)
    faults = reader.faults or check_blocks(blocks)
    if faults:
        raise Refused(faults)
    return tuple(blocks)


def _unfinished(text: str, path: str) -> List[Fault]:
    """Merge markers, and a file that is cut short."""
    faults = []
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        if MARKER.match(line):
            message = "is a merge marker, finish the merge: keep one line per block"
            faults.append(Fault(_place(path, number), line, message))
    if not faults and (not lines or lines[-1] != END.strip()):
        message = 'the last line is not "...", so the file is cut short; take it from git, or add the line if it is complete'
        faults.append(Fault(_place(path, max(len(lines), 1)), lines[-1] if lines else "", message))
    return faults


def _place(path: str, line: int) -> str:
    return f"{path} line {line}"


def _yaml_fault(error: Any, text: str, path: str) -> Fault:
    """Where and why a file is no YAML."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    line = mark.line + 1 if mark else text.count("\n", 0, getattr(error, "position", 0) or 0) + 1
    lines = text.splitlines()
    reason = getattr(error, "problem", None) or getattr(error, "reason", None) or "cannot be read"
    return Fault(_place(path, line), lines[line - 1] if line <= len(lines) else "", f"is no valid YAML: {reason}")


class _Reader:
    """Reads the nodes of a YAML file, which know their lines and their spelling, and collects faults."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.faults: List[Fault] = []

    def plan(self, root: Any) -> List[Block]:
        """The whole file."""
        top = self.mapping(root, ("version", *FAMILY_NAMES.values()))
        if not self.version(top.get("version"), root):
            return []
        blocks = []
        for family, name in sorted(FAMILY_NAMES.items()):
            if name not in top:
                self.fault(root, "", f"the key {name} is missing; write {name}: {{}} when it has no blocks")
                continue
            for key, node in self.entries(top[name]):
                block = self.block(key, node, family)
                if block is not None:
                    blocks.append(block)
        return blocks

    def version(self, node: Any, root: Any) -> bool:
        """Whether this is a version that we know."""
        if node is None:
            self.fault(root, "", f"the key version is missing; this is version: {VERSION}")
        elif node.value == str(VERSION) and node.tag == "tag:yaml.org,2002:int":
            return True
        elif str(node.value).isdigit() and int(node.value) > VERSION:
            message = f"was written by a newer version of dn42.compose, this one knows version {VERSION}; upgrade it"
            self.fault(node, node.value, message)
        else:
            self.fault(node, str(node.value), f"must be version: {VERSION}")
        return False

    def block(self, key: Any, node: Any, family: int) -> Optional[Block]:
        """One line: a prefix with its owner."""
        origin = _place(self.path, key.start_mark.line + 1)
        owner = self.mapping(node, ("holder", "pool"))
        names = {name: self.name(owner.get(name), name, node) for name in ("holder", "pool")}
        try:
            prefix = read_prefix(self.text(key), family)
        except Unreadable as error:
            self.fault(key, key.value, str(error))
            return None
        holder, pool = names["holder"], names["pool"]
        return None if holder is None or pool is None else Block(prefix, holder, pool, origin)

    def name(self, node: Any, key: str, parent: Any) -> Optional[str]:
        """A holder or pool."""
        if node is None:
            if isinstance(parent, yaml.MappingNode):
                self.fault(parent, "", f"the key {key} is missing")
            return None
        try:
            return read_name(self.text(node))
        except Unreadable as error:
            self.fault(node, self.text(node), str(error))
            return None

    def text(self, node: Any) -> Any:
        """The value of a node as YAML reads it, so that an unquoted `no` is seen as what it is."""
        if isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:str":
            return node.value
        try:
            return yaml.safe_load(yaml.serialize(node))
        except yaml.YAMLError:
            return None

    def mapping(self, node: Any, known: Tuple[str, ...]) -> Dict[str, Any]:
        """A mapping with no other than the known keys."""
        found = {}
        for key, value in self.entries(node):
            if key.value in known:
                found[key.value] = value
            else:
                self.fault(key, self.text(key), f"unknown key, known are {', '.join(known)}")
        return found

    def entries(self, node: Any) -> List[Tuple[Any, Any]]:
        """The keys and values of a mapping, each key once."""
        if not isinstance(node, yaml.MappingNode):
            self.fault(node, self.text(node) if node is not None else None, "must be a mapping")
            return []
        seen: Dict[Any, int] = {}
        for key, _value in node.value:
            name = str(key.value)
            if name in seen:
                self.fault(key, name, f"is the same key as in line {seen[name]}; keep the one that is in use")
            seen.setdefault(name, key.start_mark.line + 1)
        return node.value

    def fault(self, node: Any, value: Any, message: str) -> None:
        line = node.start_mark.line + 1 if node is not None else 1
        self.faults.append(Fault(_place(self.path, line), value, message))


class PlanFile:
    """The file store. `transact` is the whole interface; other stores have the same."""

    def __init__(self, path: str, lock_timeout: float) -> None:
        self.path = Path(path).resolve()  # a rename would replace a link by a file
        self.shown = path
        self.lock_timeout = lock_timeout

    def transact(self, decide: Decide, dry_run: bool) -> Outcome:
        """Let `decide` see the plan and keep what it adds. With `dry_run` nothing is written at all.

        A call that changes nothing takes no lock and writes nothing, so it works where the plan is read-only.
        Raises `Refused`, `LockTimeout` or OSError.
        """
        text = self._read()
        outcome = self._decide(decide, text)
        if dry_run or outcome.before == outcome.after:
            return outcome
        with self._locked():
            current = self._read()
            if current != text:  # somebody was faster
                outcome = self._decide(decide, current)
            if outcome.before != outcome.after:
                self._replace(outcome.after)
        return outcome

    def _decide(self, decide: Decide, before: Optional[str]) -> Outcome:
        decision = decide(parse(before, self.shown) if before is not None else ())
        text = before or ""
        return Outcome(decision, text, render(decision.blocks) if decision.added else text)

    def _read(self) -> Optional[str]:
        """The text of the file; None when there is none."""
        try:
            with open(self.path, "rb") as file:
                content = file.read()
        except FileNotFoundError:
            return None
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            raise Refused([Fault(_place(self.shown, line), "", "is no UTF-8 text")]) from None

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
                    message = f"another run holds {lock} for more than {self.lock_timeout:g} s; wait for it to end and run again"
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
