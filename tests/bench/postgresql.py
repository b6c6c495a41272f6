# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The PostgreSQL store on a real server of its own, with several writers at the same time."""

from __future__ import annotations

import multiprocessing
import sys
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "stores"))

import psycopg  # noqa: F401  # the store imports without it
from ansible_collections.dn42.compose.plugins.module_utils._address_plan.decide import decide
from ansible_collections.dn42.compose.plugins.module_utils._address_plan.model import Ask, Pool, Prefix, Request
from ansible_collections.dn42.compose.plugins.module_utils._plan_postgresql import PlanPostgreSQL
from postgresql_server import running_server

POOL = Pool("bench", {4: (Prefix(4, 10 << 24, 14),)}, {4: 29})
CALLS = 200  # in all, shared among the writers
PATIENCE = 60  # seconds


def write(dsn: str, network: str, writer: int, calls: int, ready: Barrier) -> None:
    """One writer: a call per new holder, each a transaction of its own."""
    store = PlanPostgreSQL(dsn, None, network, PATIENCE)
    ready.wait(PATIENCE)
    for index in range(calls):
        ask = Ask((POOL,), (Request(f"w{writer}-{index}", POOL.name, POOL.lengths),), {})
        store.transact(lambda plan, ask=ask: decide(plan, ask), False)


def allocations_per_second(writers: int) -> float:
    """All writers together, from an empty plan on a new server. Raises RuntimeError when a block is missing."""
    with running_server() as server:
        network = f"bench{writers}"
        PlanPostgreSQL(server.dsn, None, network, PATIENCE).transact(lambda plan: decide(plan, Ask((POOL,), (Request("first", POOL.name, POOL.lengths),), {})), False)
        context = multiprocessing.get_context("spawn")
        ready = context.Barrier(writers + 1)
        processes = [context.Process(target=write, args=(server.dsn, network, number, CALLS // writers, ready)) for number in range(writers)]
        for process in processes:
            process.start()
        ready.wait(PATIENCE)
        start = time.perf_counter()
        for process in processes:
            process.join(PATIENCE)
            process.kill()
        took = time.perf_counter() - start
        kept = len(PlanPostgreSQL(server.dsn, None, network, PATIENCE).read().blocks) - 1
    expected = CALLS // writers * writers
    if kept != expected:
        raise RuntimeError(f"{kept} of {expected} blocks were kept")
    return kept / took
