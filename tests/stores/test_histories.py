# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Any history, made by the real engine: stores agree, check mode tells the truth, files are read back and merge."""

from __future__ import annotations

import itertools
import random
import subprocess
from pathlib import Path

import pytest
from ansible_collections.dn42.compose.plugins.module_utils import _plan_text as plan_text
from ansible_collections.dn42.compose.plugins.module_utils._address_plan.decide import check_blocks, decide
from ansible_collections.dn42.compose.plugins.module_utils._address_plan.model import Ask, Plan, Pool, Prefix, Refused, Request
from ansible_collections.dn42.compose.plugins.module_utils._plan_file import PlanFile
from ansible_collections.dn42.compose.plugins.module_utils._plan_postgresql import PlanPostgreSQL
from ansible_collections.dn42.compose.plugins.module_utils._plan_store import Store
from histories import NAMES, SPACE, any_ask, grown_plan
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from postgresql_server import Server

seeds = st.integers(0, 1 << 32)
networks = (f"history {number}" for number in itertools.count())


def step(store: Store, seed: int, dry_run: bool) -> object:
    """One call with whatever chance asks for; the outcome, or the faults."""

    def decide_any(plan: Plan) -> object:
        return decide(plan, any_ask(plan, random.Random(seed)))

    try:
        outcome = store.transact(decide_any, dry_run)
    except Refused as refusal:
        return [fault.value for fault in refusal.faults]
    changes = [change[:5] for change in outcome.decision.changes]  # the reason names the place in the store
    return outcome.changed, outcome.before, outcome.decision.plan, changes, outcome.decision.held, outcome.decision.given


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(seeds, min_size=1, max_size=8))
def test_file_and_postgresql_agree_and_check_mode_predicts(server: Server, tmp_path_factory: pytest.TempPathFactory, calls: list[int]) -> None:
    path = tmp_path_factory.mktemp("plan") / "addresses.yml"
    stores = (PlanFile(str(path), 10), PlanPostgreSQL(server.dsn, None, next(networks), 10))
    for seed in calls:
        outcomes = []
        for store in stores:
            before = store.read()
            predicted = step(store, seed, True)
            assert store.read() == before, "check mode has written something"
            outcomes.append(step(store, seed, False))
            assert predicted == outcomes[-1]
        assert outcomes[0] == outcomes[1]
        assert stores[0].read() == stores[1].read()


@settings(max_examples=200, deadline=None)
@given(seeds, st.integers(1, 8))
def test_what_is_written_is_read_again_both_ways(seed: int, calls: int) -> None:
    plan = grown_plan(random.Random(seed), calls)
    text = plan_text.render(plan)
    assert plan_text._own_text(text, "plan.yml") is not None, "what we write is not read the fast way"
    assert plan_text.parse(text, "plan.yml") == plan
    assert sorted(plan_text._any_text(text, "plan.yml")) == sorted(plan_text._own_text(text, "plan.yml"))
    assert plan_text.render(plan_text.parse(text, "plan.yml")) == text


def merge(folder: Path, **plans: Plan) -> tuple[str, bool]:
    """The text that git makes of two changed plans, and whether there was a conflict."""
    for name, plan in plans.items():
        (folder / name).write_text(plan_text.render(plan))
    done = subprocess.run(["git", "merge-file", "-p", "ours", "base", "theirs"], cwd=folder, capture_output=True, text=True, timeout=30, check=False)
    assert 0 <= done.returncode < 128, done.stderr
    return done.stdout, done.returncode > 0


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seeds, seeds, seeds, st.integers(1, 5), st.integers(1, 3), st.integers(1, 3))
def test_a_merge_conflicts_or_is_a_valid_plan(tmp_path_factory: pytest.TempPathFactory, base: int, ours: int, theirs: int, calls: int, mine: int, yours: int) -> None:
    common = grown_plan(random.Random(base), calls)
    plans = {
        "base": common,
        "ours": grown_plan(random.Random(ours), mine, common, (*NAMES[:4], "ours")),
        "theirs": grown_plan(random.Random(theirs), yours, common, (*NAMES[4:], "theirs")),
    }
    assume(plans["ours"] != common != plans["theirs"])
    text, conflict = merge(tmp_path_factory.mktemp("merge"), **plans)
    if conflict:
        with pytest.raises(Refused, match="is a merge marker"):
            plan_text.parse(text, "merged")
        return
    merged = plan_text.parse(text, "merged")
    assert not check_blocks([*merged.blocks, *merged.released])
    owned = {name: set(plan.blocks) for name, plan in plans.items()}
    assert owned["ours"] - owned["base"] <= set(merged.blocks)
    assert owned["theirs"] - owned["base"] <= set(merged.blocks)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 9), min_size=2, max_size=2))
def test_a_new_node_that_two_branches_place_differently_is_refused_with_both_lines(tmp_path_factory: pytest.TempPathFactory, places: list[int]) -> None:
    """To git the two lines are two additions; without a check the node would have two blocks."""
    pool = Pool("dn42", {4: (SPACE[4],)}, {4: 29}, purpose="loopback")
    slots = [Prefix(4, SPACE[4].network + 8 * slot, 29) for slot in range(20)]
    pins = [Request(f"n{number}", "dn42", pool.lengths, {4: slot}) for number, slot in enumerate(slots[::2])]
    common = decide(Plan(), Ask((pool,), tuple(pins), {})).plan
    ours, theirs = (decide(common, Ask((pool,), (Request("new", "dn42", pool.lengths, {4: slots[2 * place + 1]}),), {})).plan for place in places)
    text, conflict = merge(tmp_path_factory.mktemp("merge"), base=common, ours=ours, theirs=theirs)
    above, below = sorted(slots[2 * place + 1] for place in places)
    if above == below:
        assert not conflict and plan_text.parse(text, "merged") == ours == theirs
        return
    with pytest.raises(Refused) as refusal:
        plan_text.parse(text, "merged")
    if conflict:
        assert "is a merge marker" in str(refusal.value)
        return
    lines = {line.partition(":")[0].strip(): number for number, line in enumerate(text.splitlines(), 1)}
    assert [str(fault) for fault in refusal.value.faults] == [
        f'merged line {lines[str(below)]}: "{below}": new already has {above} in pool dn42 (merged line {lines[str(above)]}); keep the one that is in use'
    ]
