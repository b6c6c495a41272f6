# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Crash rounds: 8 processes ask for blocks while some of them are killed and the server crashes.

DN42_TEST_ROUNDS is how many full rounds of 50 blocks per process to run (20 are the whole measure); without it there
are two short ones. DN42_TEST_SEED repeats what chance decided.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dn42.compose.plugins.module_utils._address_plan.decide import check_blocks, decide
from ansible_collections.dn42.compose.plugins.module_utils._plan_stores import open_store
from postgresql_server import Server
from writer import MOMENTS, ask_for, store_options

WRITERS = 8
ROUNDS = int(os.environ.get("DN42_TEST_ROUNDS", "2"))
CALLS = 50 if "DN42_TEST_ROUNDS" in os.environ else 10
SEED = int(os.environ.get("DN42_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
ROUND_TIMEOUT = 180  # seconds
KILLS = 6  # random kills from outside per round, besides those at a chosen moment


class Writer:
    """One writer; made anew from its first unacknowledged call when it was killed."""

    def __init__(self, name: str, store: dict[str, Any], folder: Path, die: list | None) -> None:
        self.name = name
        self.store = store
        self.acknowledged = folder / f"{name}.acknowledged"
        self.killed = 0
        self.start(die)

    def lines(self) -> list[str]:
        return self.acknowledged.read_text().splitlines() if self.acknowledged.exists() else []

    def start(self, die: list | None) -> None:
        options = {"store": self.store, "name": self.name, "first": len(self.lines()), "count": CALLS, "acknowledged": str(self.acknowledged), "die": die}
        command = [sys.executable, str(Path(__file__).parent / "writer.py"), json.dumps(options)]
        path = str(Path(__file__).parents[2] / ".ansible" / "collections")
        self.process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def done(self) -> bool:
        """Whether all calls are acknowledged; starts it anew when it was killed. Any other end is a failure."""
        status = self.process.poll()
        if status is None:
            return False
        errors = self.process.stderr.read()
        self.process.stderr.close()
        if status == 0:
            return True
        assert status == -signal.SIGKILL, f"{self.name} ended with status {status}:\n{errors}"
        self.killed += 1
        self.start(None)
        return False


def run_round(store: dict[str, Any], folder: Path, chance: random.Random, crash: Callable[[], None] | None) -> None:
    moments = [f"{name} {when}" for name in MOMENTS[store["kind"]] for when in ("before", "after")]
    # Half of the writers die at a chosen moment of a chosen call; over the rounds every moment has its turn.
    dying = [[chance.randrange(CALLS), chance.choice(moments)] if number % 2 else None for number in range(WRITERS)]
    writers = [Writer(f"w{number}", store, folder, die) for number, die in enumerate(dying)]
    marks = sorted(chance.randrange(10, WRITERS * CALLS - 10) for _ in range(KILLS))  # kill when so many are acknowledged
    crashes = [chance.randrange(WRITERS * CALLS // 8, WRITERS * CALLS * 3 // 4)] if crash else []
    running = list(writers)
    deadline = time.monotonic() + ROUND_TIMEOUT
    try:
        while running:
            assert time.monotonic() < deadline, "the round takes too long"
            running = [writer for writer in running if not writer.done()]
            count = sum(len(writer.lines()) for writer in writers)
            if marks and running and count >= marks[0]:
                marks.pop(0)
                chance.choice(running).process.kill()
            if crashes and count >= crashes[0]:
                crashes.pop()
                crash()
            time.sleep(0.02)
    finally:
        for writer in writers:
            writer.process.kill()
            writer.process.wait(30)
    assert not crashes
    assert sum(writer.killed for writer in writers) >= WRITERS // 2
    verify(store, writers)


def verify(store: dict[str, Any], writers: list[Writer]) -> None:
    plan = open_store(store).read()
    found = {block.holder: str(block.prefix) for block in plan.blocks}
    assert not check_blocks(plan.blocks)
    assert len(plan.blocks) == len(found) == WRITERS * CALLS and not plan.released
    told = dict(line.split() for writer in writers for line in writer.lines())
    assert told == found


@pytest.mark.parametrize("number", range(ROUNDS))
def test_file(number: int, tmp_path: Path) -> None:
    print(f"DN42_TEST_SEED={SEED}, round {number}")
    store = store_options(kind="file", path=str(tmp_path / "plan" / "addresses.yml"))
    run_round(store, tmp_path, random.Random(f"{SEED} file {number}"), None)
    open_store(store).transact(lambda plan: decide(plan, ask_for("last")), False)
    assert [path.name for path in (tmp_path / "plan").iterdir()] == ["addresses.yml"], "what killed writers left is still there"


@pytest.mark.parametrize("number", range(ROUNDS))
def test_postgresql(number: int, tmp_path: Path, server: Server) -> None:
    print(f"DN42_TEST_SEED={SEED}, round {number}")
    store = store_options(kind="postgresql", dsn=server.dsn, network=f"crash {SEED} {number}")
    run_round(store, tmp_path, random.Random(f"{SEED} postgresql {number}"), server.restart)
    events = open_store(store).history(WRITERS * CALLS + 1)
    assert len(events) == len({event.holder for event in events}) == WRITERS * CALLS, "every block is given once in the history"
