# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is told about a plan, compared with counting single addresses and with the engine's own decisions."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

import pytest
from ansible_collections.dn42.compose.plugins.module_utils._address_plan import report
from ansible_collections.dn42.compose.plugins.module_utils._address_plan.decide import decide
from ansible_collections.dn42.compose.plugins.module_utils._address_plan.model import Ask, Block, Plan, Pool, Prefix, Refused, Request
from hypothesis import given
from hypothesis import strategies as st


def prefix(text: str) -> Prefix:
    network = ipaddress.ip_network(text)
    return Prefix(network.version, int(network.network_address), network.prefixlen)


OUTER = prefix("172.23.255.0/26")
BASE = OUTER.network
POOL = Pool("dn42", {4: (OUTER,)}, {4: 29}, (prefix("172.23.255.56/29"),))
BOTH = Pool("dn42", {4: (OUTER,), 6: (prefix("fd99:4242:1::/48"),)}, {4: 29, 6: 64})


def plan(*owned: tuple, released: tuple = (), pool: str = "dn42") -> Plan:
    return Plan(
        tuple(sorted(Block(prefix(text), name, pool) for name, text in owned)),
        tuple(sorted(Block(prefix(text), name, pool, number) for name, text, number in released)),
    )


def ask(pool: Pool, *names: str, **pins: str) -> Ask:
    requests = [Request(name, pool.name, pool.lengths, {4: prefix(pins[name])} if name in pins else {}, pin_key=f"pins.{name}") for name in names]
    return Ask((pool,), tuple(requests), {})


@st.composite
def situations(draw: st.DrawFn) -> tuple[Plan, Pool, set]:
    """A pool of 64 addresses cut at random: blocks with and without somebody who asks, released ones, reservations."""
    pieces, stack = [], [OUTER]
    while stack:
        piece = stack.pop()
        if piece.length < 32 and draw(st.booleans()):
            stack += [Prefix(4, piece.network + half * (1 << (31 - piece.length)), piece.length + 1) for half in (0, 1)]
        else:
            pieces.append((piece, draw(st.sampled_from(report.KINDS))))
    named = [(piece, kind, f"n{index}") for index, (piece, kind) in enumerate(pieces)]
    blocks = tuple(sorted(Block(piece, name, "dn42") for piece, kind, name in named if kind in (report.USED, report.HELD)))
    released = tuple(sorted(Block(piece, name, "dn42", 1) for piece, kind, name in named if kind == report.RELEASED))
    pool = Pool("dn42", {4: (OUTER,)}, {4: 29}, tuple(sorted(piece for piece, kind in pieces if kind == report.RESERVED)))
    return Plan(blocks, released), pool, {(name, "dn42") for _piece, kind, name in named if kind == report.USED}


def kinds_by_address(found: Plan, pool: Pool, asked: set) -> list[str]:
    kinds = [report.FREE] * 64
    sources = [*((entry, report.RESERVED) for entry in pool.reserved), *((block.prefix, report.RELEASED) for block in found.released)]
    sources += [(block.prefix, report.USED if (block.holder, block.pool) in asked else report.HELD) for block in found.blocks]
    for item, kind in sources:
        for address in range(item.network, item.end):
            kinds[address - BASE] = kind
    return kinds


@given(situations())
def test_the_parts_of_a_prefix_are_its_addresses(situation: tuple) -> None:
    found, pool, asked = situation
    told = report.parts(found, OUTER, pool.reserved, asked)
    assert [kind for part in told for kind in [part.kind] * (part.end - part.start)] == kinds_by_address(found, pool, asked)
    assert [part.start for part in told[1:]] == [part.end for part in told[:-1]]


def test_a_block_inside_of_a_reservation_is_seen() -> None:
    told = report.parts(plan(("fra1", "172.23.255.8/29")), OUTER, (prefix("172.23.255.0/27"),), None)
    assert [(part.kind, part.start - BASE) for part in told] == [(report.RESERVED, 0), (report.USED, 8), (report.RESERVED, 16), (report.FREE, 32)]


@given(situations())
def test_usage_counts_single_addresses(situation: tuple) -> None:
    found, pool, asked = situation
    (usage,) = report.usage(found, [pool], asked)
    kinds = kinds_by_address(found, pool, asked)
    assert usage.addresses == {kind: kinds.count(kind) for kind in report.KINDS}
    for length, count in usage.blocks.items():
        size = 1 << (32 - length)
        assert count == sum(set(kinds[start : start + size]) <= {report.FREE, report.RELEASED} for start in range(0, 64, size))
    assert (usage.largest is None) == (usage.available == 0)
    if usage.largest is not None:
        assert set(kinds[usage.largest.network - BASE : usage.largest.end - BASE]) <= {report.FREE, report.RELEASED}
        assert usage.blocks[usage.largest.length] >= 1
        twice = usage.largest.length - 1
        assert twice < 26 or not any(set(kinds[start : start + (1 << (32 - twice))]) <= {report.FREE, report.RELEASED} for start in range(0, 64, 1 << (32 - twice)))


def test_fragmentation() -> None:
    whole = report.usage(Plan(), [BOTH], None)
    assert [usage.fragmentation for usage in whole] == [0, 0]
    (three_quarters,) = report.usage(plan(("fra1", "172.23.255.0/28")), [replace(POOL, reserved=())], None)
    assert (three_quarters.available, three_quarters.fragmentation) == (48, 0)  # no more than a /27 could be one block
    every_second = plan(*((f"n{index}", f"172.23.255.{16 * index}/29") for index in range(4)))
    (usage,) = report.usage(every_second, [replace(POOL, reserved=())], None)
    assert usage.blocks == {29: 4}
    assert usage.fragmentation == pytest.approx(0.75)  # a /29 of what could be a /27
    assert usage.utilisation == pytest.approx(0.5)


@given(situations(), st.data())
def test_the_growth_that_is_promised_is_the_growth_that_the_engine_gives(situation: tuple, data: st.DataObject) -> None:
    found, pool, asked = situation
    if not found.blocks:
        return
    block = data.draw(st.sampled_from(found.blocks))
    told = " ".join(report.explain(block.holder, found, Ask((pool,), (), {}), asked).lines)
    reached = 32
    for length in range(block.prefix.length - 1, 25, -1):
        try:
            decision = decide(found, Ask((pool,), (Request(block.holder, "dn42", {4: length}),), {}))
        except Refused:
            break
        assert decision.given[block.holder][4] == Prefix(4, block.prefix.network, length)
        reached = length
    if reached == 32:
        assert "cannot grow in place" in told
    else:
        assert f"can grow in place to {Prefix(4, block.prefix.network, reached)}," in told


def test_explain_names_neighbours_and_what_is_in_the_way() -> None:
    found = plan(("fra1", "172.23.255.0/29"), ("hkg1", "172.23.255.8/29"), ("nrt1", "172.23.255.32/29"), released=(("old1", "172.23.255.16/29", 1),))
    asks = ask(POOL, "fra1", "nrt1")
    asked = {("fra1", "dn42"), ("nrt1", "dn42")}
    assert report.explain("fra1", found, asks, asked).lines == [
        "fra1 has 172.23.255.0/29 of pool dn42, and keeps it because it has it; the plan does not note what was free when it was given.",
        "It cannot grow in place: a /28 would need the space of 172.23.255.8/29 of hkg1.",
        "Below it: the pool's prefix 172.23.255.0/26 begins. Above it: 172.23.255.8/29 of hkg1 (held).",
        "Placed anew today, it would get the same block.",
    ]
    held = report.explain("hkg1", found, asks, asked).lines
    assert held[1] == "It is held: nobody asks for hkg1 any more. It stays until it is released by name, with this prefix."
    assert held[3] == "Below it: 172.23.255.0/29 of fra1. Above it: free since old1 gave it up, 172.23.255.16 to 172.23.255.23."
    assert report.explain("nrt1", found, asks, asked).lines[1] == (
        "It can grow in place to 172.23.255.32/28, with all its addresses kept; no further: a /27 would need the space of 172.23.255.56/29, which is reserved."
    )


def test_explain_tells_a_pin_and_who_had_the_space() -> None:
    found = plan(("fra1", "172.23.255.16/29"))
    past = [report.Past("2026-11-01T10:00:00Z", "released", prefix("172.23.255.16/29"), "old1"), report.Past("2026-11-01T09:00:00Z", "given", prefix("172.23.255.24/29"), "old2")]
    told = report.explain("fra1", found, ask(POOL, "fra1", fra1="172.23.255.16/29"), None, past).lines
    assert told[0] == "fra1 has 172.23.255.16/29 of pool dn42, where pins.fra1 pins it."
    assert [line for line in told if "Before" in line] == ["Before, old1 had 172.23.255.16/29 (released 2026-11-01T10:00:00Z)."]
    assert told[-1] == "Placed anew today, it would get 172.23.255.48/29."  # the smallest free space that fits


def test_explain_for_those_without_a_block() -> None:
    found = plan(("fra1", "172.23.255.0/29"), released=(("old1", "172.23.255.16/29", 3),))
    gone = report.explain("old1", found, ask(POOL))
    assert gone.known
    assert gone.lines == [
        "old1 gave up 172.23.255.16/29 of pool dn42 (release 3 of this plan); it is free, and reused after all other space.",
        "If it asked now, in pool dn42 it would get 172.23.255.16/29.",
    ]
    stranger = report.explain("fra2", found, ask(POOL))
    assert not stranger.known
    assert stranger.lines[0] == "Nobody called fra2 has a block or had one; do you mean fra1?"
    assert stranger.lines[1] == f"If it asked now, in pool dn42 it would get {decide(found, ask(POOL, 'fra2')).given['fra2'][4]}."
    asked_for = report.explain("nrt1", found, ask(POOL, "nrt1"))
    assert asked_for.known
    assert asked_for.lines[0] == "nrt1 is asked for and has no block yet."


def test_explain_in_a_full_pool_says_why_there_is_no_room() -> None:
    full = plan(*((f"n{index}", f"172.23.255.{8 * index}/29") for index in range(7)))
    (_nobody, told) = report.explain("nrt1", full, ask(POOL)).lines
    assert told.startswith("If it asked now, in pool dn42 there is no room: pool dn42 is too small: 7 blocks of /29 fit")


def test_explain_of_a_block_outside_of_the_pools() -> None:
    told = report.explain("fra1", plan(("fra1", "172.23.254.0/29")), ask(POOL)).lines
    assert told[-1] == "No prefix of pool dn42 holds it, so nothing more can be said about its surroundings."
    told = report.explain("fra1", plan(("fra1", "172.23.255.0/29"), pool="lost"), ask(POOL)).lines
    assert told[-1] == "Pool lost is not among the pools (dn42), so nothing more can be said about its surroundings."
