# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a look at the sources does: the first good answer of each family is published, anything else changes nothing."""

from __future__ import annotations

import hashlib
import sys
import time
from typing import Callable

from .download import DownloadError, fetch
from .roas import FAMILIES, NAMES, RoaSet, SetError, parse
from .settings import Settings, Source
from .store import Entry, Store

FIRST_RETRY = 60  # seconds; doubles up to the interval


def log(text: str) -> None:
    """One line on standard error."""
    print(f"rpki: {text}", file=sys.stderr, flush=True)


def spread(node: str) -> float:
    """A factor from 0.9 to 1.1, always the same for a node, so that nodes do not ask a source together."""
    return 0.9 + 0.2 * int.from_bytes(hashlib.sha256(node.encode()).digest()[:4], "big") / (1 << 32)


def pause(settings: Settings, failures: int) -> float:
    """Seconds until the next look, after so many looks in a row that left a family without a good answer."""
    seconds = min(FIRST_RETRY * 2 ** min(failures - 1, 10), settings.interval) if failures else settings.interval
    return seconds * spread(settings.node)


def take(found: dict[str, RoaSet], family: str, source: Source, before: RoaSet, settings: Settings) -> RoaSet:
    """The set of one family from a source's answer, if it may replace the one before. Raises SetError."""
    roas = found[family]
    if not source.both:
        other = next(name for name in FAMILIES if name != family)
        if found[other]:
            raise SetError(f"it holds {NAMES[other]} prefixes such as {min(found[other]).prefix}, though it is the source for {NAMES[family]}")
    if not roas:
        raise SetError(f"it holds no {NAMES[family]} ROA")
    if not before and len(roas) < settings.smallest_first:
        raise SetError(f"it holds {len(roas)} {NAMES[family]} ROAs, and a first set must have {settings.smallest_first} (dn42_rpki_smallest_first)")
    if len(roas) * 100 < len(before) * settings.smallest_share:
        raise SetError(f"it holds {len(roas)} {NAMES[family]} ROAs, less than {settings.smallest_share} % of the {len(before)} there are (dn42_rpki_smallest_share)")
    return roas


class Fetcher:
    """Looks at the sources, and knows what was published last."""

    def __init__(self, store: Store, get: Callable[[str, float], bytes] = fetch) -> None:
        """Take up what was published before; it is served from now on, whatever the network does."""
        self._store = store
        self._get = get
        self._failures = 0
        self.entries = store.load()
        for family, entry in self.entries.items():
            log(f"{NAMES[family]}: {len(entry.roas)} ROAs kept from before" if entry.roas else f"{NAMES[family]}: no ROA data yet, every {NAMES[family]} route is refused")
            for problem in entry.problems:
                log(f"{NAMES[family]}: {problem}")

    def look(self, settings: Settings) -> float:
        """Ask the sources once; the seconds until the next time."""
        answers: dict[str, dict[str, RoaSet] | str] = {}
        good = [self._look(family, settings, answers) for family in FAMILIES]
        self._failures = 0 if all(good) else self._failures + 1
        seconds = pause(settings, self._failures)
        now = time.time()
        try:
            self._store.write_status(self.entries, now, now + seconds)
        except OSError as error:
            log(f"the status cannot be written: {error}")
        return seconds

    def _look(self, family: str, settings: Settings, answers: dict[str, dict[str, RoaSet] | str]) -> bool:
        """Publish the first good set of a family; True when there was one."""
        entry = self.entries[family]
        problems: list[str] = []
        good = False
        for source in settings.sources:
            url = source.urls.get(family)
            if url is None:
                continue
            answer = self._answer(url, settings.timeout, answers)
            try:
                if isinstance(answer, str):
                    raise SetError(answer)
                self._accept(family, entry, take(answer, family, source, entry.roas, settings), url)
            except SetError as error:
                problems.append(f"{url}: {error}")
                continue
            good = True
            break
        self._tell(family, entry, problems, good)
        return good

    def _answer(self, url: str, timeout: int, answers: dict[str, dict[str, RoaSet] | str]) -> dict[str, RoaSet] | str:
        """What a URL sends, asked once a look: its sets, or what is wrong with it."""
        if url not in answers:
            try:
                answers[url] = parse(self._get(url, timeout))
            except (DownloadError, SetError) as error:
                answers[url] = str(error)
        return answers[url]

    def _accept(self, family: str, entry: Entry, roas: RoaSet, url: str) -> None:
        if roas != entry.roas:
            # First the file: what the status tells is never ahead of it.
            try:
                self._store.publish(family, roas)
            except OSError as error:
                raise SetError(f"it cannot be stored: {error}") from error
            log(f"{NAMES[family]}: {len(roas)} ROAs from {url} ({len(roas - entry.roas)} new, {len(entry.roas - roas)} gone)")
        elif entry.source != url:
            log(f"{NAMES[family]}: now from {url}, nothing new")
        entry.roas, entry.source, entry.confirmed = roas, url, time.time()

    @staticmethod
    def _tell(family: str, entry: Entry, problems: list[str], good: bool) -> None:
        """One line for each change for the worse or the better, none for what stays."""
        for problem in problems:
            if problem not in entry.problems:
                kept = "" if good else f"; the {len(entry.roas)} ROAs there are stay" if entry.roas else "; there is no ROA data, every route is refused"
                log(f"{NAMES[family]}: {problem}{kept}")
        if entry.problems and not problems:
            log(f"{NAMES[family]}: no problem any more")
        entry.problems = problems
