# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The container's health: there is data, it is not stale, and the fetcher is at work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .roas import FAMILIES, NAMES
from .settings import Settings
from .store import STATUS


def problems(directory: Path, settings: Settings, now: float) -> list[str]:
    """What is wrong, nothing if all is well; `now` in seconds since 1970."""
    try:
        status = json.loads((directory / STATUS).read_bytes())
        # A look may try every source in vain.
        late = now - status["next"] - 60 - 2 * len(settings.sources) * settings.timeout
        found = [f"the fetcher has not looked at its sources for {now - status['written']:.0f} s"] if late > 0 else []
        return found + [problem for family in FAMILIES for problem in _family(family, status[family], settings, now)]
    except (OSError, ValueError, KeyError, TypeError):
        return ["the fetcher has written no status yet"]


def _family(family: str, status: dict[str, Any], settings: Settings, now: float) -> list[str]:
    why = "".join(f"; {problem}" for problem in status["problems"])
    if not status["count"]:
        return [f"no ROA data for {NAMES[family]}, every {NAMES[family]} route is refused{why}"]
    age = now - status["confirmed"]
    if age > settings.stale_after:
        return [f"the {NAMES[family]} ROAs are {age / 3600:.1f} h old (limit {settings.stale_after / 3600:.1f} h){why}"]
    return []
