# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What git remembers of a plan file. One line per block makes every commit's diff a list of what happened.

Nothing here writes, and whatever goes wrong with git means only that nothing is remembered.

This module util is PRIVATE to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import datetime
import os
import subprocess
from pathlib import Path
from typing import Dict, List

from ansible_collections.dn42.compose.plugins.module_utils._address_plan.model import Block
from ansible_collections.dn42.compose.plugins.module_utils._plan_store import Event, differences
from ansible_collections.dn42.compose.plugins.module_utils._plan_text import read_line

GIT_TIMEOUT = 30  # seconds
_COMMIT = "\x01"
_FORMAT = "%x01%ct%x00%an%x00%h %s"
# Nothing of the user's configuration may change the output or start a program.
_LOG = ("log", "--patch", "--unified=0", "--no-color", "--no-ext-diff", "--no-textconv", "--no-show-signature", "--no-decorate", f"--format={_FORMAT}")


def file_history(path: Path, limit: int) -> List[Event]:
    """The last `limit` events of a plan file, the latest first."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment.update(GIT_OPTIONAL_LOCKS="0", LC_ALL="C.UTF-8")
    command = ["git", "--no-pager", "-c", "core.fsmonitor=false", *_LOG, f"--max-count={limit}", "--", path.name]
    try:
        done = subprocess.run(command, cwd=path.parent, env=environment, capture_output=True, timeout=GIT_TIMEOUT, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    events: List[Event] = []
    for commit in done.stdout.decode("utf-8", "replace").split(_COMMIT)[1:]:
        events += _commit_events(commit)
    return events[:limit]


def _commit_events(commit: str) -> List[Event]:
    """What one commit did, from its header and the lines of its diff."""
    header, _newline, diff = commit.partition("\n")
    seconds, who, note = header.split("\0")
    when = datetime.datetime.fromtimestamp(int(seconds), datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    lines: Dict[str, List[Block]] = {"-": [], "+": []}
    for line in diff.split("\n"):
        block = read_line(line[1:]) if line[:1] in lines else None
        if block is not None:
            lines[line[0]].append(block)
    found = differences(lines["-"], lines["+"])
    return [Event(when, who, item.kind, str(item.block.prefix), item.block.holder, item.block.pool, "; ".join(filter(None, (item.note, note)))) for item in found]
