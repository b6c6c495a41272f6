# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Chains of calls as a network's life brings them, for the tests of the stores: add, leave, release, grow, pin, renumber."""

from __future__ import annotations

import random

from ansible_collections.dn42.compose.plugins.module_utils._address_plan.decide import decide
from ansible_collections.dn42.compose.plugins.module_utils._address_plan.model import BITS, Ask, Decision, Plan, Pool, Prefix, Refused, Release, Request

SPACE = {4: Prefix(4, 0xAC17FF00, 24), 6: Prefix(6, 0xFD994242 << 96, 56)}
LENGTHS = {4: 29, 6: 64}
NAMES = ("fra1", "hkg1", "nrt1", "sjc1", "no", "日本", 'a"b', "edge-7")


def any_ask(plan: Plan, chance: random.Random, names: tuple[str, ...] = NAMES) -> Ask:
    """Something that could be asked for next; the engine may well refuse it."""
    holders = chance.sample(names, chance.randint(1, len(names)))
    left = sorted({block.holder for block in plan.blocks} & set(names) - set(holders))
    given_up = chance.sample(left, chance.randint(0, len(left)))
    releases = tuple(Release(name, tuple(block.prefix for block in plan.blocks if block.holder == name)) for name in given_up)
    pool = Pool("dn42", {family: (prefix,) for family, prefix in SPACE.items()}, LENGTHS, placement=chance.choice(("compact", "growable")))
    requests = tuple(_request(name, chance) for name in holders)
    renumber = frozenset(holders if chance.random() < 0.7 else ())
    return Ask((pool,), requests, {"host": 1}, releases, renumber, chance.random() < 0.3)


def _request(name: str, chance: random.Random) -> Request:
    lengths = {family: length - chance.choice((0, 0, 0, 1, 2)) for family, length in LENGTHS.items()}
    pins = {}
    if chance.random() < 0.15:
        size = BITS[4] - lengths[4]
        pins[4] = Prefix(4, SPACE[4].network + (chance.randrange(256 >> size) << size), lengths[4])
    return Request(name, "dn42", lengths, pins)


def try_decide(plan: Plan, ask: Ask) -> Decision | None:
    """The decision; None when the engine refuses."""
    try:
        return decide(plan, ask)
    except Refused:
        return None


def grown_plan(chance: random.Random, calls: int, plan: Plan | None = None, names: tuple[str, ...] = NAMES) -> Plan:
    """The plan after some calls."""
    plan = plan or Plan()
    for _ in range(calls):
        decision = try_decide(plan, any_ask(plan, chance, names))
        plan = decision.plan if decision else plan
    return plan
