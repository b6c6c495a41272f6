# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Properties of the allocator, compared with the plainest search that there is. DN42_TEST_ROUNDS multiplies the examples."""

from __future__ import annotations

import ipaddress
import os
import random

import netaddr
import pytest
from ansible_collections.dn42.compose.plugins.module_utils._address_plan.decide import decide
from ansible_collections.dn42.compose.plugins.module_utils._address_plan.free_space import FreeSpace, Ranges
from ansible_collections.dn42.compose.plugins.module_utils._address_plan.model import (
    BITS,
    COMPACT,
    FAMILY_NAMES,
    GROWABLE,
    PLACEMENTS,
    Ask,
    Block,
    Decision,
    InUse,
    Plan,
    Pool,
    Prefix,
    Refused,
    Release,
    Request,
)
from hypothesis import HealthCheck, settings
from hypothesis import given as given_by
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

ROUNDS = int(os.environ.get("DN42_TEST_ROUNDS", "1"))
BASE = {4: int(ipaddress.ip_address("172.23.255.0")), 6: int(ipaddress.ip_address("fd99:4242:1::"))}
NAMES = ["ams1", "fra1", "hkg1", "lax1", "nrt1", "sgp1", "syd1", "waw1"]
OFFSETS = {"host": 1}  # a /30 holds it


def examples(count: int) -> settings:
    return settings(max_examples=count * ROUNDS, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])


def sub(family: int, start: int, bits: int) -> Prefix:
    """The block of 2**bits addresses that holds BASE + start."""
    return Prefix(family, BASE[family] + (start >> bits << bits), BITS[family] - bits)


@st.composite
def pools(draw: st.DrawFn, families: tuple = (4, 6), placements: tuple = PLACEMENTS) -> Pool:
    """A pool of a few prefixes among 256 addresses, so that everything can be tried out."""
    prefixes, reserved, lengths = {}, [], {}
    for family in families:
        bits = draw(st.sampled_from([5, 6]))
        slots = draw(st.lists(st.integers(0, (256 >> bits) - 1), min_size=1, max_size=3, unique=True))
        prefixes[family] = tuple(sorted(sub(family, slot << bits, bits) for slot in slots))
        lengths[family] = BITS[family] - draw(st.integers(2, 4))
        for _ in range(draw(st.integers(0, 2))):
            inside = draw(st.sampled_from(prefixes[family])).network - BASE[family]
            reserved.append(sub(family, inside + draw(st.integers(0, (1 << bits) - 1)), draw(st.integers(0, 4))))
    return Pool("dn42", prefixes, lengths, tuple(reserved), placement=draw(st.sampled_from(placements)))


@st.composite
def requests(draw: st.DrawFn, pool: Pool) -> list:
    """Requests of different sizes."""
    sizes = {family: st.integers(BITS[family] - 4, BITS[family] - 2) for family in pool.prefixes}
    names = draw(st.lists(st.sampled_from(NAMES), unique=True))
    return [Request(name, pool.name, {family: draw(size) for family, size in sizes.items()}) for name in names]


def addresses_of(prefixes: object, family: int) -> set:
    return {address for prefix in prefixes if prefix.family == family for address in range(prefix.network, prefix.end)}


def free_addresses(pool: Pool, family: int, blocks: object) -> set:
    free = addresses_of(pool.prefixes[family], family)
    return free - addresses_of([block.prefix for block in blocks], family) - addresses_of(pool.reserved, family)


def free_places(pool: Pool, family: int, blocks: object, length: int) -> list:
    """Every aligned free block, by trying all."""
    free, size = free_addresses(pool, family, blocks), 1 << (BITS[family] - length)
    starts = [start for outer in pool.prefixes[family] for start in range(outer.network, outer.end - size + 1, size)]
    return [Prefix(family, start, length) for start in starts if free.issuperset(range(start, start + size))]


def best_fit(pool: Pool, family: int, blocks: list, length: int) -> Prefix | None:
    """The free block with the tightest surroundings, and of these the lowest."""
    free = free_addresses(pool, family, blocks)

    def surroundings(place: Prefix) -> int:
        outer = next(prefix for prefix in pool.prefixes[family] if prefix.covers(place))
        around = place
        while around.length > outer.length:
            wider = around.length - 1
            parent = Prefix(family, around.network >> (BITS[family] - wider) << (BITS[family] - wider), wider)
            if not free.issuperset(range(parent.network, parent.end)):
                break
            around = parent
        return -around.length

    return min(free_places(pool, family, blocks, length), key=lambda place: (surroundings(place), place), default=None)


def assert_sound(plan: Plan, some: list) -> None:
    """No overlap, aligned, inside one prefix of its pool, nothing reserved, one block per holder, pool and family."""
    everything = [*plan.blocks, *plan.released]
    assert len(netaddr.IPSet(str(block.prefix) for block in everything)) == sum(block.prefix.end - block.prefix.network for block in everything)
    by_name = {pool.name: pool for pool in some}
    for block in everything:
        assert str(netaddr.IPNetwork(str(block.prefix)).cidr) == str(block.prefix)
        assert any(outer.covers(block.prefix) for outer in by_name[block.pool].prefixes[block.prefix.family])
    for block in plan.blocks:
        assert block.released == 0
        assert not any(reserved.overlaps(block.prefix) for reserved in by_name[block.pool].reserved)
    assert all(block.released > 0 for block in plan.released)
    keys = [(block.holder, block.pool, block.prefix.family) for block in plan.blocks]
    assert len(keys) == len(set(keys))
    for part in plan:
        assert list(part) == sorted(part, key=lambda block: block.prefix)


@examples(150)
@given_by(st.data())
def test_compact_places_where_brute_force_does_and_fails_only_when_it_does(data: st.DataObject) -> None:
    pool = data.draw(pools(placements=(COMPACT,)))
    wanted = data.draw(requests(pool))
    expected, missing = [], set()
    for family in pool.prefixes:
        for item in sorted(wanted, key=lambda item: (item.lengths[family], item.name)):
            found = best_fit(pool, family, expected, item.lengths[family])
            if found is None:
                missing.add(item.name)
            else:
                expected.append(Block(found, item.name, pool.name))
    ask = Ask((pool,), tuple(wanted), OFFSETS)
    if missing:
        with pytest.raises(Refused) as refusal:
            decide(Plan(), ask)
        told = " ".join(str(fault).split("none is left for ")[1].split(".")[0] for fault in refusal.value.faults)
        assert {name for name in NAMES if name in told} == missing
    else:
        decision = decide(Plan(), ask)
        assert set(decision.plan.blocks) == set(expected)
        assert_sound(decision.plan, [pool])


OTHER = Pool("other", {4: (Prefix(4, BASE[4] + 1024, 27),), 6: (Prefix(6, BASE[6] + 1024, 123),)}, {4: 29, 6: 125}, placement=GROWABLE)


CHANGES = st.sampled_from([-3, -1, 1])  # of a prefix length; the first one is often more than a prefix of the pool has


def resized(lengths: dict, change: int) -> dict:
    return {family: min(max(length + change, BITS[family] - 6), BITS[family] - 2) for family, length in lengths.items()}


class Operator(RuleBasedStateMachine):
    """Whatever an operator does, in any order: nobody else's block moves."""

    @initialize(pool=pools(), count=st.integers(2, 6))
    def begin(self, pool: Pool, count: int) -> None:
        self.pools = {pool.name: pool, OTHER.name: OTHER}
        self.asked: dict = {}  # name: pool, lengths, pins
        self.plan = Plan()
        for name in NAMES[:count]:
            self.attempt({**self.asked, name: (pool.name, pool.lengths, {})}, set())

    def somebody(self, number: int) -> str:
        return sorted(self.asked)[number % len(self.asked)]

    def attempt(self, asked: dict, touched: set, releases: tuple = (), **more: object) -> Decision | None:
        wanted = tuple(Request(name, pool, lengths, pins) for name, (pool, lengths, pins) in asked.items())
        ask = Ask(tuple(self.pools.values()), wanted, OFFSETS, releases, **more)
        try:
            decision = decide(self.plan, ask)
        except Refused as refusal:
            self.refused_rightly(refusal, ask)
            return None
        before = {block for block in self.plan.blocks if block.holder not in touched}
        if not ask.reuse_held:
            assert before <= set(decision.plan.blocks)
        asked_for = {block for block in before if block.holder in asked}
        assert asked_for <= set(decision.plan.blocks)
        assert_sound(decision.plan, list(self.pools.values()))
        for family in BITS:
            known, still = (addresses_of([block.prefix for block in [*plan.blocks, *plan.released]], family) for plan in (self.plan, decision.plan))
            assert known <= still, "the plan forgets what was in use once"
        self.assert_changes(decision)
        for name, (pool, lengths, pins) in asked.items():
            for family in self.pools[pool].prefixes:
                got = decision.given[name][family]
                assert got.length == (pins[family].length if family in pins else lengths[family])
                assert got == pins.get(family, got)
        kept = {block for block in decision.plan.blocks if block.holder not in asked}
        assert set(decision.held) == kept
        again = decide(decision.plan, Ask(ask.pools, ask.requests, OFFSETS))
        assert again.plan == decision.plan
        assert not again.changes
        self.plan, self.asked = decision.plan, asked
        return decision

    def assert_changes(self, decision: Decision) -> None:
        """The changes lead from the plan before to the plan after."""
        owned = {(block.prefix, block.holder, block.pool) for block in self.plan.blocks}
        left = {(change.before, change.holder) for change in decision.changes if change.before}
        got = {(change.after, change.holder, change.pool) for change in decision.changes if change.after}
        assert {item for item in owned if item[:2] not in left} | got == {(block.prefix, block.holder, block.pool) for block in decision.plan.blocks}
        assert all(change.reason for change in decision.changes)

    def refused_rightly(self, refusal: Refused, ask: Ask) -> None:
        """A full pool has no aligned free block of a size that is wanted there."""
        for fault in refusal.faults:
            if "is too small" not in fault.message or ask.renumber or any("would renumber" in other.message for other in refusal.faults):
                continue
            pool = next(pool for pool in ask.pools if f"pool {pool.name} is" in fault.message)
            family = next(number for number, name in FAMILY_NAMES.items() if fault.key.endswith(name))
            owners = {(block.holder, block.prefix.family) for block in self.plan.blocks if block.pool == pool.name}
            news = [request for request in ask.requests if request.pool == pool.name and (request.name, family) not in owners and family not in request.pins]
            leaving = {release.holder for release in ask.releases}
            names = {request.name for request in ask.requests}
            stay = [block for block in self.plan.blocks if block.holder in names or (not ask.reuse_held and block.holder not in leaving)]
            stay += [Block(pin, request.name, pool.name) for request in ask.requests for pin in request.pins.values()]
            sizes = {request.name: request.lengths for request in ask.requests if not request.pins}
            stay = [block._replace(prefix=block.prefix._replace(length=sizes.get(block.holder, {}).get(block.prefix.family, block.prefix.length))) for block in stay]
            if len(news) == 1:
                assert not free_places(pool, family, stay, news[0].lengths[family])

    @rule(name=st.sampled_from(NAMES), pool=st.sampled_from(["dn42", "other"]), reuse_held=st.booleans())
    def add(self, name: str, pool: str, reuse_held: bool) -> None:
        self.attempt({**self.newcomer(name, pool), **self.asked}, set(), reuse_held=reuse_held)

    def newcomer(self, name: str, pool: str) -> dict:
        """A holder that asks for what it has already, or for the pool's size; nothing when that is in another pool."""
        if any(block.holder == name and block.pool != pool for block in self.plan.blocks):
            return {}
        has = {block.prefix.family: block.prefix.length for block in self.plan.blocks if block.holder == name}
        return {name: (pool, {**self.pools[pool].lengths, **has}, {})}

    @rule(come=st.sets(st.sampled_from(NAMES)), leave=st.sets(st.sampled_from(NAMES), max_size=3), resize=st.sets(st.sampled_from(NAMES), max_size=2), data=st.data())
    def do_much_at_once(self, come: set, leave: set, resize: set, data: st.DataObject) -> None:
        """People come, one of them with a pin on space that was released, while others leave, grow or shrink."""
        releases = tuple(Release(name, tuple(block.prefix for block in self.plan.blocks if block.holder == name)) for name in sorted(leave))
        asked = {name: entry for name, entry in self.asked.items() if name not in leave}
        for name in sorted(resize & set(asked)):
            pool, lengths, pins = asked[name]
            if not pins:
                change = data.draw(CHANGES)
                asked[name] = (pool, resized(lengths, change), pins)
        strangers = [name for name in sorted(come - leave - set(asked)) if not any(block.holder == name for block in self.plan.blocks)]
        old = [block.prefix for block in self.plan.released if block.pool == "dn42" and block.prefix.family == 4]
        for name in sorted(come - leave - set(asked)):
            asked.update(self.newcomer(name, "dn42"))
        if strangers and old:
            pin = sub(4, data.draw(st.sampled_from(old)).network - BASE[4], data.draw(st.integers(2, 4)))
            pool, lengths, _pins = asked[strangers[0]]
            asked[strangers[0]] = (pool, lengths, {4: pin})
        self.attempt(asked, leave | resize, releases, reuse_held=data.draw(st.booleans()))

    @rule(leave=st.sets(st.sampled_from(NAMES), min_size=1, max_size=4), number=st.integers(0, 7), bits=st.integers(2, 4), reuse_held=st.booleans())
    def release_and_crowd(self, leave: set, number: int, bits: int, reuse_held: bool) -> None:
        """As many as find room come at once into what others have left, the first of them with a pin there."""
        has = {name: tuple(block.prefix for block in self.plan.blocks if block.holder == name) for name in sorted(leave)}
        self.attempt({name: entry for name, entry in self.asked.items() if name not in leave}, leave, tuple(Release(*item) for item in has.items()))
        old = [block.prefix for block in self.plan.released if block.pool == "dn42" and block.prefix.family == 4]
        strangers = [name for name in NAMES if name not in self.asked and not any(block.holder == name for block in self.plan.blocks)]
        if not old:
            return
        pool, pin = self.pools["dn42"], sub(4, old[number % len(old)].network - BASE[4], bits)
        for count in range(len(strangers), 0, -1):
            come = {name: ("dn42", pool.lengths, {} if index else {4: pin}) for index, name in enumerate(strangers[:count])}
            if self.attempt({**self.asked, **come}, set(), reuse_held=reuse_held):
                break

    @precondition(lambda self: self.asked)
    @rule(number=st.integers(0, 7))
    def remove(self, number: int) -> None:
        name = self.somebody(number)
        decision = self.attempt({key: value for key, value in self.asked.items() if key != name}, set())
        assert decision is not None
        assert not decision.changes

    @precondition(lambda self: self.asked)
    @rule(number=st.integers(0, 7), change=CHANGES, permitted=st.booleans())
    def resize(self, number: int, change: int, permitted: bool) -> None:
        name = self.somebody(number)
        pool, lengths, pins = self.asked[name]
        new = resized(lengths, change)
        before = {block.prefix.family: block.prefix for block in self.plan.blocks if block.holder == name}
        decision = self.attempt({**self.asked, name: (pool, new, pins)}, {name}, renumber=frozenset([name] if permitted else []))
        if decision is not None and not permitted:
            assert {family: prefix.network for family, prefix in decision.given[name].items()} == {family: prefix.network for family, prefix in before.items()}

    @rule(name=st.sampled_from(NAMES), start=st.integers(0, 255), bits=st.integers(2, 4))
    def pin(self, name: str, start: int, bits: int) -> None:
        pin = sub(4, start, bits)
        if name in self.asked or any(block.holder == name for block in self.plan.blocks):
            return
        pool = self.pools["dn42"]
        decision = self.attempt({**self.asked, name: (pool.name, pool.lengths, {4: pin})}, set())
        free = any(outer.covers(pin) for outer in pool.prefixes[4]) and pin in free_places(pool, 4, self.plan.blocks, pin.length) if decision is None else True
        assert decision is not None or not free or self.full_in(6)

    def full_in(self, family: int) -> bool:
        pool = self.pools["dn42"]
        return not free_places(pool, family, self.plan.blocks, pool.lengths[family])

    @rule(start=st.integers(0, 255), bits=st.integers(0, 4))
    def reserve(self, start: int, bits: int) -> None:
        pool, prefix = self.pools["dn42"], sub(4, start, bits)
        free = free_addresses(pool, 4, self.plan.blocks)
        if free.issuperset(range(prefix.network, prefix.end)):
            self.pools["dn42"] = Pool(pool.name, pool.prefixes, pool.lengths, (*pool.reserved, prefix), placement=pool.placement)

    @precondition(lambda self: self.asked)
    @rule(number=st.integers(0, 7), permitted=st.booleans())
    def reserve_what_somebody_wants_to_grow_into(self, number: int, permitted: bool) -> None:
        name = self.somebody(number)
        for block in self.plan.blocks:
            if block.holder == name and block.pool == "dn42" and block.prefix.family == 4:
                self.reserve(block.prefix.end - BASE[4], 0)
        self.resize(number, -1, permitted)

    @rule(name=st.sampled_from(NAMES))
    def release(self, name: str) -> None:
        """Released blocks come back when their holder asks again and nothing else has happened."""
        has = tuple(sorted(block.prefix for block in self.plan.blocks if block.holder == name))
        asked = {key: value for key, value in self.asked.items() if key != name}
        before, entry = self.plan, self.asked.get(name)
        decision = self.attempt(asked, {name}, (Release(name, has),))
        assert decision is not None
        assert not any(block.holder == name for block in self.plan.blocks)
        if entry is not None:
            back = decide(self.plan, Ask(tuple(self.pools.values()), tuple(Request(key, *value) for key, value in {**asked, name: entry}.items()), OFFSETS))
            assert tuple(sorted(back.given[name].values())) == has
            assert back.plan.blocks == before.blocks

    @precondition(lambda self: self.asked)
    @rule(number=st.integers(0, 7))
    def change_pool(self, number: int) -> None:
        name = self.somebody(number)
        pool = "other" if self.asked[name][0] == "dn42" else "dn42"
        moved = {**self.asked, name: (pool, self.pools[pool].lengths, {})}
        with pytest.raises(Refused):
            decide(self.plan, Ask(tuple(self.pools.values()), tuple(Request(key, *value) for key, value in moved.items()), OFFSETS))
        self.attempt(moved, {name}, renumber=frozenset([name]))

    @invariant()
    def nobody_shares(self) -> None:
        if hasattr(self, "plan"):
            assert_sound(Plan(self.plan.blocks, self.plan.released), list(self.pools.values()))


TestOperator = Operator.TestCase
TestOperator.settings = settings(examples(60), stateful_step_count=20)


def halves(prefix: Prefix) -> list:
    lower = Prefix(prefix.family, prefix.network, prefix.length + 1)
    return [lower, Prefix(prefix.family, lower.end, prefix.length + 1)]


@examples(80)
@given_by(st.data(), st.randoms(use_true_random=False))
def test_order_never_matters(data: st.DataObject, shuffler: random.Random) -> None:
    pool = data.draw(pools())
    wanted = [*data.draw(requests(pool)), *(Request(f"any-{name}", OTHER.name, OTHER.lengths) for name in NAMES[:4])]

    def outcome(plan: Plan, order: list, some: list, **more: object) -> object:
        try:
            return decide(plan, Ask(tuple(some), tuple(order), OFFSETS, **more))
        except Refused as refusal:
            return [str(fault) for fault in refusal.faults]

    half = data.draw(st.integers(0, len(wanted)))
    before = outcome(Plan(), wanted[:half], [pool, OTHER])
    plan = before.plan if isinstance(before, Decision) else Plan()
    some = data.draw(st.sets(st.sampled_from([item.name for item in wanted]), max_size=4))
    pieces = [Block(half, block.holder, block.pool, 1) for block in plan.blocks if block.holder in some for half in halves(block.prefix)]
    plan = Plan(tuple(block for block in plan.blocks if block.holder not in some), tuple(pieces))
    gone = data.draw(st.sets(st.sampled_from([item.name for item in wanted]), max_size=4))
    releases = [Release(name, tuple(block.prefix for block in plan.blocks if block.holder == name)) for name in sorted(gone)]
    smaller = {item.name: {family: min(length + 1, BITS[family] - 2) for family, length in item.lengths.items()} for item in wanted if item.name in some}
    later = [Request(item.name, item.pool, smaller.get(item.name, item.lengths)) for item in wanted if item.name not in gone]
    blocks, released = list(plan.blocks), list(plan.released)
    expected = outcome(plan, later, [pool, OTHER], releases=tuple(releases), renumber=frozenset(NAMES))
    for _ in range(3):
        for items in (later, blocks, released, releases):
            shuffler.shuffle(items)
        assert outcome(Plan(tuple(blocks), tuple(released)), later, [OTHER, pool], releases=tuple(releases), renumber=frozenset(NAMES)) == expected


@examples(150)
@given_by(st.lists(st.integers(0, 4), min_size=1, max_size=24), st.sampled_from([4, 6]))
def test_one_compact_pool_is_full_only_when_less_is_free_than_asked(sizes: list, family: int) -> None:
    pool = Pool("dn42", {family: (sub(family, 0, 6),)}, {family: BITS[family] - 2}, purpose="loopback")
    plan, wanted, free = Plan(), [], 64
    for number, bits in enumerate(sizes):
        more = [*wanted, Request(f"n{number}", "dn42", {family: BITS[family] - bits})]
        if 1 << bits > free:
            with pytest.raises(Refused):
                decide(plan, Ask((pool,), tuple(more), OFFSETS))
            continue
        plan, wanted, free = decide(plan, Ask((pool,), tuple(more), OFFSETS)).plan, more, free - (1 << bits)


@examples(100)
@given_by(pools(placements=(GROWABLE,), families=(4,)), st.integers(1, 8))
def test_growable_keeps_the_space_above_free_while_there_is_room(pool: Pool, count: int) -> None:
    length = pool.lengths[4]
    doubles = len(free_places(pool, 4, [], length - 1))
    plan = Plan()
    for number in range(min(count, doubles)):  # one after the other, as nodes come
        plan = decide(plan, Ask((pool,), tuple(Request(f"n{i}", "dn42", pool.lengths) for i in range(number + 1)), OFFSETS)).plan
    assert plan == (decide(Plan(), Ask((pool,), tuple(Request(f"n{i}", "dn42", pool.lengths) for i in range(min(count, doubles))), OFFSETS)).plan)
    larger = tuple(Request(f"n{i}", "dn42", {4: length - 1}) for i in range(min(count, doubles)))
    grown = decide(plan, Ask((pool,), larger, OFFSETS))
    assert {change.kind for change in grown.changes} <= {"grown"}
    assert [block.prefix.network for block in grown.plan.blocks] == [block.prefix.network for block in plan.blocks]


@examples(100)
@given_by(pools(placements=(GROWABLE,), families=(4,)), st.lists(st.integers(28, 30), max_size=8))
def test_newcomers_of_any_size_leave_the_space_above_the_others_free(pool: Pool, lengths: list) -> None:
    plan, wanted, rooms = Plan(), [], []
    for number, length in enumerate(lengths):
        if not free_places(pool, 4, [*plan.blocks, *rooms], length - 1):
            break  # no room is left to keep the rooms
        wanted.append(Request(f"n{number}", "dn42", {4: length}))
        plan = decide(plan, Ask((pool,), tuple(wanted), OFFSETS)).plan
        rooms = [block._replace(prefix=Prefix(4, block.prefix.end, block.prefix.length)) for block in plan.blocks]
    larger = tuple(Request(request.name, request.pool, {4: request.lengths[4] - 1}) for request in wanted)
    grown = decide(plan, Ask((pool,), larger, OFFSETS))
    assert [change.kind for change in grown.changes] == ["grown"] * len(wanted)


@st.composite
def plans(draw: st.DrawFn, pool: Pool) -> Plan:
    """Any plan of a pool in IPv4 at all, with released blocks."""
    taken: list = []
    for number in range(draw(st.integers(0, 10))):
        places = free_places(pool, 4, taken, 32 - draw(st.integers(0, 4)))
        if places:
            taken.append(Block(draw(st.sampled_from(places)), f"n{number}", "dn42", draw(st.sampled_from([0, 0, 1, 2]))))
    return Plan(tuple(block for block in taken if not block.released), tuple(block for block in taken if block.released))


@examples(100)
@given_by(st.data())
def test_a_block_fails_only_when_no_place_is_free(data: st.DataObject) -> None:
    """Any plan at all, with released and held blocks, and one more request."""
    pool = data.draw(pools(families=(4,)))
    plan = data.draw(plans(pool))
    taken = [*plan.blocks, *plan.released]
    length, reuse_held = data.draw(st.integers(28, 30)), data.draw(st.booleans())
    asked = [block for block in plan.blocks if block.prefix.length <= 30 and data.draw(st.booleans())]
    wanted = [Request(block.holder, "dn42", {4: block.prefix.length}) for block in asked]
    on_hosts = [block for block in plan.blocks if block not in asked and data.draw(st.booleans())]
    in_use = tuple(InUse("somewhere", block.prefix, "Docker network web") for block in on_hosts)
    ask = Ask((pool,), (*wanted, Request("new", "dn42", {4: length})), OFFSETS, reuse_held=reuse_held, in_use=in_use)
    stay = asked + on_hosts if reuse_held else list(plan.blocks)
    levels = (taken, plan.blocks, stay)
    try:
        decision = decide(plan, ask)
    except Refused:
        assert not free_places(pool, 4, stay, length)
        return
    got = decision.given["new"][4]
    preferred = next(places for level in levels if (places := free_places(pool, 4, level, length)))
    assert got in preferred  # never used first, then released, then held
    assert_sound(decision.plan, [pool])
    kept = addresses_of([block.prefix for block in [*decision.plan.blocks, *decision.plan.released]], 4)
    assert kept == addresses_of([block.prefix for block in taken], 4) | addresses_of([got], 4)


@examples(150)
@given_by(st.data(), st.lists(st.integers(28, 30), min_size=2, max_size=6))
def test_newcomers_fail_only_when_there_is_no_way_for_all(data: st.DataObject, lengths: list) -> None:
    """Whatever is preferred, the last resort is to put large ones first into all that is free."""
    pool = data.draw(pools(families=(4,)))
    plan = data.draw(plans(pool))
    packed = list(plan.blocks)
    places = []
    for length in sorted(lengths):
        places.append(best_fit(pool, 4, packed, length))
        packed += [Block(place, "new", "dn42") for place in places[-1:] if place]
    try:
        decision = decide(plan, Ask((pool,), tuple(Request(f"new{number}", "dn42", {4: length}) for number, length in enumerate(lengths)), OFFSETS))
    except Refused:
        assert None in places
    else:
        assert None not in places
        assert_sound(decision.plan, [pool])


@examples(100)
@given_by(st.lists(st.tuples(st.integers(0, 255), st.integers(0, 6)), max_size=12), st.data())
def test_free_space_is_the_difference_of_sets(taken: list, data: st.DataObject) -> None:
    outer = Prefix(4, BASE[4], 24)
    blocks = [sub(4, start, bits) for start, bits in taken]
    given_back = data.draw(st.lists(st.sampled_from(blocks), unique=True)) if blocks else []
    rest = netaddr.IPSet([str(outer)]) - netaddr.IPSet([str(block) for block in blocks])
    free = FreeSpace([outer], blocks)
    assert free.count(32) == len(rest)
    assert [str(piece) for piece in free.pieces()] == [str(network) for network in rest.iter_cidrs()]
    for block in Ranges(given_back).prefixes:
        for piece in Ranges(free.pieces()).rest_of(block):
            free.give(piece)
        rest |= netaddr.IPSet([str(block)])
        assert [str(piece) for piece in free.pieces()] == [str(network) for network in rest.iter_cidrs()]
    count = 0
    while free.take(29) is not None:
        count += 1
    assert count == sum(1 << (29 - network.prefixlen) for network in rest.iter_cidrs() if network.prefixlen <= 29)


@given_by(st.integers(0, 2**128 - 1), st.integers(0, 128))
def test_spelling_is_that_of_netaddr(number: int, length: int) -> None:
    number = number >> (128 - length) << (128 - length)
    if length > 90 and number >> 32 in (0, 0xFFFF):
        return  # spelled with dots by one and without by the other
    assert str(Prefix(6, number, length)) == str(netaddr.IPNetwork((number, length), version=6))
