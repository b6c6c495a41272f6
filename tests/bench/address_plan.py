#!/usr/bin/env python3
# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""How fast the address plan is, as ratios to the ways people do it today; `make bench-plan` runs it.

Everything that is compared is measured in turn, several times in one process, and the median counts. Computation is
told in CPU time, which other programs disturb least; what reads and writes in time on the clock.
Fails when a goal is missed. Docs: docs/bench.md.
"""

from __future__ import annotations

import gc
import itertools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / ".ansible" / "collections")]

import rivals  # noqa: E402
from ansible_collections.dn42.compose.plugins.module_utils._address_plan import placement  # noqa: E402
from ansible_collections.dn42.compose.plugins.module_utils._address_plan.decide import collector_paused, decide  # noqa: E402
from ansible_collections.dn42.compose.plugins.module_utils._address_plan.free_space import FreeSpace, Ranges  # noqa: E402
from ansible_collections.dn42.compose.plugins.module_utils._address_plan.model import Ask, Block, Plan, Pool, Prefix, Request  # noqa: E402
from ansible_collections.dn42.compose.plugins.module_utils._plan_file import PlanFile  # noqa: E402

LENGTH = 29
WIDE = "10.0.0.0/8"  # 2,097,152 blocks
NARROW = "10.0.0.0/14"  # 32,768 blocks
FIRST = 10 << 24

Seconds = float
Job = Callable[[], Seconds]


def seconds(function: Callable[..., Any], *args: Any, clock: Callable[[], float] = time.process_time) -> Seconds:
    """How long a call takes, with the garbage of others out of the way and the collector as it always is."""
    gc.collect()
    start = clock()
    function(*args)
    return clock() - start


def medians(jobs: dict[str, Job], rounds: int) -> dict[str, Seconds]:
    """The median of each, measured in turn."""
    found: dict[str, list[Seconds]] = {name: [] for name in jobs}
    for _round in range(rounds):
        for name, job in jobs.items():
            found[name].append(job())
    return {name: statistics.median(times) for name, times in found.items()}


def pool_of(text: str) -> Pool:
    return Pool("bench", {4: (Prefix(4, FIRST, int(text.partition("/")[2])),)}, {4: LENGTH})


def ask_for(pool: Pool, count: int) -> Ask:
    """Requests as `_address_request` makes them: those of the pool's own size share its lengths."""
    return Ask((pool,), tuple(Request(f"node{index:07}", pool.name, pool.lengths) for index in range(count)), {})


def plan_of(pool: Pool, count: int, free_every: int) -> Plan:
    """The first `count` holders of `ask_for`, with the same holes as the rivals have."""
    size = 1 << (32 - LENGTH)
    places = enumerate(rivals.positions(count, free_every))
    return Plan(tuple(Block(Prefix(4, FIRST + place * size, LENGTH), f"node{index:07}", pool.name) for index, place in places))


# --- one call that gives everybody a block, from nothing ------------------------------------------------------------------


def whole_decision(count: int, pool_text: str, repeat: int = 1) -> Job:
    """`decide` from an empty plan; seconds per allocation."""
    ask = ask_for(pool_of(pool_text), count)
    return lambda: statistics.median(seconds(decide, Plan(), ask) for _time in range(repeat)) / count


def allocations(count: int, pool_text: str, repeat: int = 1) -> Job:
    """The engine's allocations: everybody in the order that makes the result independent of order, each with a place and a record."""
    pool, requests = pool_of(pool_text), ask_for(pool_of(pool_text), count).requests

    def run() -> None:
        with collector_paused():  # as decide does
            _placed, left = placement.place(placement.Space(pool, 4, [], Ranges(()), [], []), requests)
        assert not left

    return lambda: statistics.median(seconds(run) for _time in range(repeat)) / count


def bare_heap(count: int, pool_text: str, repeat: int = 1) -> Job:
    names = [f"node{index:07}" for index in range(count)]

    def run() -> None:
        heap = rivals.BareHeap(pool_text)
        for name in names:
            heap.take(name, LENGTH)

    return lambda: statistics.median(seconds(run) for _time in range(repeat)) / count


def free_space(count: int, pool_text: str, repeat: int = 1) -> Job:
    """The engine's free space alone: what the choice of a place costs, apart from everything around it."""
    pool = pool_of(pool_text)

    def run() -> None:
        free = FreeSpace(pool.prefixes[4])
        for _request in range(count):
            free.take(LENGTH)

    return lambda: statistics.median(seconds(run) for _time in range(repeat)) / count


# --- the rivals at a fill level -------------------------------------------------------------------------------------------


def further(make: Callable[[], Any], count: int) -> Job:
    """`count` more allocations by something that has its blocks already; seconds per allocation."""

    def run() -> Seconds:
        rival = make()
        return seconds(lambda: [rival.take(f"new{index}", LENGTH) for index in range(count)]) / count

    return run


def further_decisions(blocks: int, new: int, free_every: int) -> Job:
    """One `decide` with a plan of that many blocks and `new` holders more; seconds for the whole call, per new block."""
    pool = pool_of(NARROW)
    plan, ask = plan_of(pool, blocks, free_every), ask_for(pool, blocks + new)
    return lambda: seconds(decide, plan, ask) / new


def rival_jobs(blocks: int, free_every: int) -> dict[str, Job]:
    taken = rivals.lowest_blocks(NARROW, LENGTH, blocks, free_every)
    kept_count = 5 if free_every else 200
    return {
        "netaddr.IPSet, kept": further(lambda: rivals.KeptIPSet(NARROW, taken), kept_count),
        "netaddr.IPSet, rebuilt": further(lambda: rivals.RebuiltIPSet(NARROW, taken), 3),
        "NetBox's algorithm as published": further(lambda: rivals.NetBoxAlgorithm(NARROW, taken), 3),
        "scanned netaddr subnets": further(lambda: rivals.ScannedSubnets(NARROW, taken), 3),
        rivals.SubnetByIndex(NARROW, []).label: further(lambda: rivals.SubnetByIndex(NARROW, taken), 1),
    }


# --- the file store -------------------------------------------------------------------------------------------------------


def file_call(blocks: int, new: int) -> Job:
    """The whole call against a plan file: read, check, decide, lock, write."""
    pool = pool_of(NARROW)
    ask_first, ask_all = ask_for(pool, blocks), ask_for(pool, blocks + new)

    def run() -> Seconds:
        with tempfile.TemporaryDirectory() as folder:
            store = PlanFile(f"{folder}/addresses.yml", 10)
            store.transact(lambda plan: decide(plan, ask_first), False)
            return seconds(store.transact, lambda plan: decide(plan, ask_all), False, clock=time.perf_counter)

    return run


def file_load(blocks: int) -> Job:
    pool = pool_of(WIDE)

    def run() -> Seconds:
        with tempfile.TemporaryDirectory() as folder:
            store = PlanFile(f"{folder}/addresses.yml", 10)
            store.transact(lambda plan: decide(plan, ask_for(pool, blocks)), False)
            return seconds(store.read, clock=time.perf_counter)

    return run


# --- output ---------------------------------------------------------------------------------------------------------------


class Goals:
    """The goals, each told as it is met or missed."""

    def __init__(self) -> None:
        self.missed = 0

    def at_least(self, what: str, value: float, bound: float) -> None:
        self._tell(what, f"{value:,.2f} times", f"at least {bound:,g}", value >= bound)

    def at_most(self, what: str, value: float, bound: float, unit: str) -> None:
        self._tell(what, f"{value:,.2f}{unit}", f"at most {bound:,g}{unit}", value <= bound)

    def _tell(self, what: str, value: str, bound: str, met: bool) -> None:
        self.missed += not met
        print(f"  {'pass' if met else 'MISS'}  {what}: {value} ({bound})", flush=True)


def table(title: str, rows: dict[str, Seconds], base: str) -> None:
    """Microseconds per allocation, and how many times as long as `base` each takes."""
    print(f"\n{title}")
    width = max(map(len, rows))
    for name, value in rows.items():
        print(f"  {name:<{width}}  {value * 1e6:>13,.2f} us  {value / rows[base]:>12,.2f} times", flush=True)


def growth(goals: Goals) -> None:
    first: dict[str, Seconds] = {}
    for count, repeat in ((1_000, 31), (10_000, 7), (100_000, 1), (1_000_000, 1)):
        jobs = {
            "the engine's allocations": allocations(count, WIDE, repeat),
            "decide, all of it": whole_decision(count, WIDE, repeat),
            "bare heap, no checks": bare_heap(count, WIDE, repeat),
            "the engine's free space alone": free_space(count, WIDE, repeat),
        }
        found = medians(jobs, 3)
        table(f"{count:,} blocks from an empty plan in one call, per allocation", found, "bare heap, no checks")
        first = found if count == 1_000 else first
    goals.at_least("allocations at 1,000,000 blocks, speed of the bare heap", found["bare heap, no checks"] / found["the engine's allocations"], 0.5)
    goals.at_most("growth of the cost per allocation from 1,000 to 1,000,000 blocks", found["the engine's allocations"] / first["the engine's allocations"], 2, " times")
    goals.at_least("decide at 1,000,000 blocks, with checks, reasons and the new plan, per second", 1 / found["decide, all of it"], 250_000)
    goals.at_most("growth of the cost of decide per allocation from 1,000 to 1,000,000 blocks", found["decide, all of it"] / first["decide, all of it"], 2, " times")


def against_rivals(goals: Goals) -> None:
    ours = "the engine's allocations, filling to 10,000"
    for free_every, shape in ((0, "filled from below"), (10, "one in ten free, as years leave it"), (2, "every second one free")):
        jobs = {
            ours: allocations(10_000, NARROW, 3),
            "decide, filling to 10,000": whole_decision(10_000, NARROW, 3),
            "decide, one call for 1,000 new": further_decisions(10_000, 1_000, free_every),
            "decide, one call for 1 new": further_decisions(10_000, 1, free_every),
            **rival_jobs(10_000, free_every),
        }
        found = medians(jobs, 3)
        table(f"With 10,000 blocks, {shape}, per allocation (rivals: a few more at that level)", found, ours)
        if free_every:  # filled from below, an IPSet has a dozen pieces: its best case is told, without a goal
            goals.at_least(f"allocations against a kept netaddr.IPSet, {shape}", found["netaddr.IPSet, kept"] / found[ours], 60)
        goals.at_least(f"allocations against a rebuilt netaddr.IPSet, {shape}", found["netaddr.IPSet, rebuilt"] / found[ours], 1000)


def files(goals: Goals) -> None:
    print("\nFile store, the whole call")
    found = medians({"call": file_call(10_000, 100), "load": file_load(100_000)}, 3)
    goals.at_most("10,000 blocks and 100 new ones: read, decide, write", found["call"], 1, " s")
    goals.at_most("loading 100,000 blocks", found["load"], 2, " s")


def databases() -> None:
    """The PostgreSQL store with 1 and 8 writers, one allocation per transaction; no goal, the disk decides."""
    try:
        import postgresql
    except ImportError as error:
        print(f"\nPostgreSQL store: left out ({error})")
        return
    print("\nPostgreSQL store, one allocation per call, each in a transaction of its own")
    for writers in (1, 8):
        print(f"  {writers} writer{'s' if writers > 1 else ' '}  {postgresql.allocations_per_second(writers):,.0f} allocations/s", flush=True)


def main(parts: Sequence[str]) -> int:
    goals = Goals()
    start = time.monotonic()
    print(f"Python {sys.version.split()[0]}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    known: dict[str, Callable[[], None]] = {
        "growth": lambda: growth(goals),
        "rivals": lambda: against_rivals(goals),
        "files": lambda: files(goals),
        "postgresql": databases,
    }
    unknown = sorted(set(parts) - set(known))
    if unknown:
        print(f"no such part: {', '.join(unknown)}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    for name in itertools.filterfalse(lambda name: parts and name not in parts, known):
        known[name]()
    print(f"\n{goals.missed or 'no'} goal{'' if goals.missed == 1 else 's'} missed, {time.monotonic() - start:.0f} s")
    return 1 if goals.missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
