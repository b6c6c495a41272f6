# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How far away the other ends are: measured now and then, told to BIRD twice a day at most.

BIRD's filters include one file for each measured link, which holds the call that puts the community on; no file is no community.
A route whose communities change is told to the whole network, so a value lasts, and what lies on the border of two stays with the last.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Callable

from .loading import Loader, Runner, digest
from .model import Latency, Target
from .system import CommandError, run, write_json

INCLUDED = Path("/roa")  # a tmpfs that only the keeper writes
STATE = Path("/run/keeper/latency.json")
PING = ("ping", "-n", "-q", "-c", "3", "-i", "0.5", "-W", "5", "-w", "12")
PING_SECONDS = 20.0  # after which a ping is ended
PARALLEL = 4
# One sample is the fastest of three pings; a value is the median of the samples of an interval.
SAMPLES_PER_INTERVAL = 48
SHORTEST_PAUSE = 10.0  # seconds between two samples of a link
FIRST_PAUSE = 20.0
ENOUGH_SAMPLES = 3
# A value is left when the latency is this factor beyond its border.
MARGIN = 1.1
FASTEST = re.compile(r"^(?:rtt|round-trip) \S+ = ([0-9.]+)/", re.MULTILINE)


def value_of(milliseconds: float, limits: tuple[float, ...]) -> int:
    """The community's value: 1 up to the first limit."""
    return 1 + sum(milliseconds > limit for limit in limits)


def settled(before: int | None, milliseconds: float, limits: tuple[float, ...]) -> int:
    """The value after a new measurement; the one before stays unless the latency is clearly another."""
    new = value_of(milliseconds, limits)
    if before is None or new == before:
        return new
    if new > before:
        return max(before, value_of(milliseconds / MARGIN, limits))
    return min(before, value_of(milliseconds * MARGIN, limits))


@dataclass
class Link:
    """What is known of one link. Times are those of the monotonic clock, in seconds; samples are pairs of time and milliseconds."""

    address: str
    value: int | None = None
    milliseconds: float | None = None
    decided: float | None = None
    samples: list[tuple[float, float]] = field(default_factory=list)
    failures: int = 0
    due: float = 0.0

    def pause(self, interval: float) -> float:
        """Seconds until the next sample: soon before the first value, less and less often without an answer."""
        usual = max(SHORTEST_PAUSE, interval / SAMPLES_PER_INTERVAL)
        return usual if self.value is not None else min(usual, FIRST_PAUSE * 2 ** min(self.failures, 10))

    def take(self, milliseconds: float | None, now: float, interval: float) -> None:
        """Note a sample, or that there was no answer."""
        if milliseconds is None:
            self.failures += 1
        else:
            self.failures = 0
            self.samples.append((now, milliseconds))
        self.samples = [sample for sample in self.samples if now - sample[0] <= interval][-SAMPLES_PER_INTERVAL:]
        self.due = now + self.pause(interval)

    def decide(self, now: float, interval: float, limits: tuple[float, ...]) -> bool:
        """Work out the value when it is time for it; True when it has changed."""
        early = self.decided is not None and now - self.decided < interval
        if early or len(self.samples) < ENOUGH_SAMPLES:
            return False
        before = self.value
        self.milliseconds = statistics.median(milliseconds for _time, milliseconds in self.samples)
        self.value = settled(before, self.milliseconds, limits)
        self.decided, self.samples = now, []
        return self.value != before


class Latencies:
    """The measured links. Nothing here is ever waited for."""

    def __init__(self, command: Runner = run) -> None:
        """Take up what an earlier keeper of this container measured."""
        self._links = _read_state()
        self._pings: dict[str, tuple[subprocess.Popen[bytes], float]] = {}
        self.loader = Loader(digest(b""), command)

    def keep(self, wanted: Latency, bird_may_be_down: bool, log: Callable[[str], None]) -> None:
        """Take finished measurements, begin those that are due, and have BIRD load new values. Raises CommandError."""
        now = time.monotonic()
        changed = self._adopt(wanted.targets)
        for name, milliseconds in self._finished(now).items():
            if name not in self._links:
                continue
            link = self._links[name]
            link.take(milliseconds, now, wanted.interval)
            if link.decide(now, wanted.interval, wanted.limits):
                log(f"{name}: {link.milliseconds:.1f} ms, told as (64511, {link.value})")
            changed = True
        try:
            if changed:
                write_json(STATE, {name: asdict(link) for name, link in self._links.items()})
            contents = self._write_files()
        except OSError as error:
            raise CommandError(f"{error.filename}: {error.strerror}") from error
        self._begin(now)
        self.loader.load(contents, bird_may_be_down, log)

    def status(self) -> dict[str, Any]:
        """For the keeper's status file."""
        links = {name: {"value": link.value, "milliseconds": link.milliseconds, "unanswered": link.failures} for name, link in self._links.items()}
        return {"loaded": self.loader.loaded, "links": links}

    def _adopt(self, targets: tuple[Target, ...]) -> bool:
        """Make the links those that are declared; True when that is a change. One with another address begins anew."""
        declared = {target.name: target.address for target in targets}
        kept = {name: link for name, link in self._links.items() if declared.get(name) == link.address}
        new = {name: Link(address) for name, address in declared.items() if name not in kept}
        changed = bool(new) or len(kept) != len(self._links)
        self._links = {**kept, **new}
        return changed

    def _begin(self, now: float) -> None:
        """Start pings for the links that wait longest."""
        waiting = sorted((link.due, name) for name, link in self._links.items() if link.due <= now and name not in self._pings)
        for _due, name in waiting[: PARALLEL - len(self._pings)]:
            command = [*PING, self._links[name].address]
            try:
                # What it says fits into the pipe.
                process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"}
                )
            except OSError as error:
                raise CommandError(f"{PING[0]}: {error.strerror}") from error
            self._pings[name] = (process, now)

    def _finished(self, now: float) -> dict[str, float | None]:
        """Results of the pings that have ended: milliseconds, None without an answer."""
        results: dict[str, float | None] = {}
        for name, (process, began) in list(self._pings.items()):
            if process.poll() is None:
                if now - began < PING_SECONDS:
                    continue
                process.kill()
            said, _nothing = process.communicate()
            fastest = FASTEST.search(said.decode("ascii", "replace"))
            results[name] = float(fastest[1]) if fastest else None
            del self._pings[name]
        return results

    def _write_files(self) -> bytes:
        """Make the files what the values are; all of them in one, to tell whether BIRD knows them."""
        contents = {_file(name): f"link_latency({link.value});\n".encode() for name, link in self._links.items() if link.value is not None}
        for path in INCLUDED.glob("latency-*.conf"):
            if path not in contents:
                path.unlink()
        for path, content in contents.items():
            if not path.exists() or path.read_bytes() != content:
                beside = path.with_name(f".{path.name}.new")
                beside.write_bytes(content)
                beside.chmod(0o644)
                beside.rename(path)
        return b"".join(f"{path.name}\n".encode() + content for path, content in sorted(contents.items()))


def _file(name: str) -> Path:
    return INCLUDED / f"latency-{name}.conf"


def _read_state() -> dict[str, Link]:
    """What is in the state file; nothing when it is from nowhere."""
    try:
        read = {name: Link(**link) for name, link in json.loads(STATE.read_bytes()).items()}
        for link in read.values():
            link.samples = [(float(when), float(milliseconds)) for when, milliseconds in link.samples]
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
    return read
