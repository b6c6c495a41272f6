# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Properties of the allocator, compared with the plainest search that there is."""

from __future__ import annotations

import ipaddress
import random

import netaddr
import pytest
from ansible_collections.dn42.compose.plugins.module_utils import _address_plan as engine
from hypothesis import given, settings
from hypothesis import strategies as st

Prefix = engine.Prefix
BASE = {4: int(ipaddress.ip_address("172.23.255.0")), 6: int(ipaddress.ip_address("fd99:4242:1::"))}
NAMES = ["ams1", "fra1", "hkg1", "lax1", "nrt1", "sgp1", "syd1", "waw1"]
OFFSETS = {"host": 1}  # a /30 holds it


def sub(family: int, start: int, bits: int) -> Prefix:
    """The block of 2**bits addresses that holds BASE + start."""
    return Prefix(family, BASE[family] + (start >> bits << bits), engine.BITS[family] - bits)


@st.composite
def pools(draw: st.DrawFn, families: tuple = (4, 6)) -> engine.Pool:
    """A pool of a few prefixes among 256 addresses, so that everything can be tried out."""
    prefixes, reserved, lengths = {}, [], {}
    for family in families:
        bits = draw(st.sampled_from([5, 6]))
        slots = draw(st.lists(st.integers(0, (256 >> bits) - 1), min_size=1, max_size=3, unique=True))
        prefixes[family] = tuple(sorted(sub(family, slot << bits, bits) for slot in slots))
        lengths[family] = engine.BITS[family] - draw(st.integers(2, 4))
        for _ in range(draw(st.integers(0, 2))):
            inside = draw(st.sampled_from(prefixes[family])).network - BASE[family]
            reserved.append(sub(family, inside + draw(st.integers(0, (1 << bits) - 1)), draw(st.integers(0, 4))))
    return engine.Pool("dn42", prefixes, lengths, tuple(reserved))


def request(pool: engine.Pool, name: str, lengths: dict | None = None) -> engine.Request:
    return engine.Request(name, pool.name, lengths or pool.lengths)


@st.composite
def requests(draw: st.DrawFn, pool: engine.Pool, names: list | None = None) -> list:
    """Requests of different sizes."""
    chosen = names if names is not None else draw(st.lists(st.sampled_from(NAMES), unique=True))
    sizes = {family: st.integers(engine.BITS[family] - 4, engine.BITS[family] - 2) for family in pool.prefixes}
    return [request(pool, name, {family: draw(size) for family, size in sizes.items()}) for name in chosen]


def free_addresses(pool: engine.Pool, family: int, blocks: list) -> set:
    free = {address for prefix in pool.prefixes[family] for address in range(prefix.network, prefix.end)}
    for prefix in [*(block.prefix for block in blocks), *pool.reserved]:
        if prefix.family == family:
            free -= set(range(prefix.network, prefix.end))
    return free


def brute_force(pool: engine.Pool, family: int, blocks: list, length: int) -> Prefix | None:
    """The best aligned free block, by trying every one: the tightest surroundings, then the lowest address."""
    free = free_addresses(pool, family, blocks)
    size = 1 << (engine.BITS[family] - length)
    candidates = []
    for outer in pool.prefixes[family]:
        for start in range(outer.network, outer.end - size + 1, size):
            if not free.issuperset(range(start, start + size)):
                continue
            around = Prefix(family, start, length)
            while around.length > outer.length:
                parent_size = 1 << (engine.BITS[family] - around.length + 1)
                parent = Prefix(family, around.network // parent_size * parent_size, around.length - 1)
                if not free.issuperset(range(parent.network, parent.end)):
                    break
                around = parent
            candidates.append((-around.length, start))
    return Prefix(family, min(candidates)[1], length) if candidates else None


def assert_sound(pool: engine.Pool, blocks: tuple) -> None:
    """No overlap, aligned, inside one prefix of the pool, nothing reserved, one block per holder and family."""
    for family in pool.prefixes:
        taken: set = set()
        for block in (item for item in blocks if item.prefix.family == family):
            prefix = block.prefix
            addresses = set(range(prefix.network, prefix.end))
            assert not taken & addresses
            taken |= addresses
            assert prefix.network % len(addresses) == 0
            assert any(outer.network <= prefix.network and prefix.end <= outer.end for outer in pool.prefixes[family])
            for reserved in pool.reserved:
                if reserved.family == family:
                    assert not addresses & set(range(reserved.network, reserved.end))
    keys = [(block.holder, block.prefix.family) for block in blocks]
    assert len(keys) == len(set(keys))


@settings(max_examples=250, deadline=None)
@given(st.data())
def test_places_where_brute_force_does_and_fails_only_when_it_does(data: st.DataObject) -> None:
    pool = data.draw(pools())
    wanted = data.draw(requests(pool))
    expected, missing = [], set()
    for family in pool.prefixes:
        for item in sorted(wanted, key=lambda item: (item.lengths[family], item.name)):
            found = brute_force(pool, family, expected, item.lengths[family])
            if found is None:
                missing.add(item.name)
            else:
                expected.append(engine.Block(found, item.name, pool.name))
    if missing:
        with pytest.raises(engine.Refused) as refusal:
            engine.decide([], [pool], wanted, OFFSETS)
        told = " ".join(str(fault).split("none is left for ")[1].split(".")[0] for fault in refusal.value.faults)
        assert {name for name in NAMES if name in told} == missing
    else:
        decision = engine.decide([], [pool], wanted, OFFSETS)
        assert sorted(block.prefix for block in expected) == [block.prefix for block in decision.blocks]
        assert set(decision.blocks) == set(expected)
        assert_sound(pool, decision.blocks)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_sticky_whoever_comes_and_goes(data: st.DataObject) -> None:
    pool = data.draw(pools())
    blocks: tuple = ()
    for _ in range(data.draw(st.integers(1, 6))):
        names = data.draw(st.lists(st.sampled_from(NAMES), unique=True))
        try:
            decision = engine.decide(blocks, [pool], [request(pool, name) for name in names], OFFSETS)
        except engine.Refused as refusal:
            assert all("too small" in fault.message for fault in refusal.faults)
            for family in pool.prefixes:
                owners = {block.holder for block in blocks if block.prefix.family == family}
                fitting = sum(1 for _ in iter_free(pool, family, blocks))
                if any(fault.key.endswith(engine.FAMILY_NAMES[family]) for fault in refusal.faults):
                    assert fitting < len(set(names) - owners)
            continue
        assert set(blocks) <= set(decision.blocks)
        assert set(decision.added) == set(decision.blocks) - set(blocks)
        assert {block.holder for block in decision.held} == {block.holder for block in blocks} - set(names)
        assert {name: set(few) for name, few in decision.given.items()} == {name: set(pool.prefixes) for name in names}
        assert_sound(pool, decision.blocks)
        again = engine.decide(decision.blocks, [pool], [request(pool, name) for name in names], OFFSETS)
        assert again.blocks == decision.blocks
        assert not again.added
        blocks = decision.blocks


def iter_free(pool: engine.Pool, family: int, blocks: tuple):
    """Take free blocks of the pool's size one by one, by brute force."""
    taken = list(blocks)
    while (found := brute_force(pool, family, taken, pool.lengths[family])) is not None:
        taken.append(engine.Block(found, "x", pool.name))
        yield found


@settings(max_examples=150, deadline=None)
@given(st.data(), st.randoms(use_true_random=False))
def test_order_never_matters(data: st.DataObject, shuffler: random.Random) -> None:
    first = data.draw(pools())
    few = data.draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=4))
    other = engine.Pool("anycast", {4: (Prefix(4, BASE[4] + 1024, 27),)}, {4: 30})
    wanted = data.draw(requests(first, few)) + [request(other, f"any-{name}") for name in few]

    def outcome(plan: list, order: list, all_pools: list) -> object:
        try:
            return engine.decide(plan, all_pools, order, OFFSETS)
        except engine.Refused as refusal:
            return sorted(str(fault) for fault in refusal.faults)

    half = wanted[: len(wanted) // 2]
    before = outcome([], half, [first, other])
    plan = list(before.blocks) if isinstance(before, engine.Decision) else []
    expected = outcome(plan, wanted, [first, other])
    for _ in range(3):
        shuffler.shuffle(wanted)
        shuffler.shuffle(plan)
        assert outcome(plan, wanted, [other, first]) == expected


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_pins_are_adopted_or_refused_with_the_owner(data: st.DataObject) -> None:
    pool = data.draw(pools(families=(4,)))
    plan = []
    outer = data.draw(st.sampled_from(pool.prefixes[4]))
    pin = sub(4, data.draw(st.integers(outer.network, outer.end - 1)) - BASE[4], data.draw(st.integers(2, 4)))
    try:
        plan = list(engine.decide([], [pool], [request(pool, name) for name in NAMES[:3]], OFFSETS).blocks)
    except engine.Refused:
        return
    pinned = engine.Request("new1", pool.name, {4: pin.length}, {4: pin})
    owners = {block.holder for block in plan if block.prefix.overlaps(pin)}
    reserved = any(item.overlaps(pin) for item in pool.reserved)
    try:
        decision = engine.decide(plan, [pool], [pinned], OFFSETS)
    except engine.Refused as refusal:
        assert owners or reserved
        assert all(owner in str(refusal) for owner in owners)
    else:
        assert not owners
        assert not reserved
        assert decision.given["new1"][4] == pin
        assert set(plan) <= set(decision.blocks)
        assert_sound(pool, decision.blocks)


@given(st.integers(0, 2**128 - 1), st.integers(0, 128))
def test_spelling_is_that_of_netaddr(number: int, length: int) -> None:
    number = number >> (128 - length) << (128 - length)
    if length > 90 and number >> 32 in (0, 0xFFFF):
        return  # spelled with dots by one and without by the other
    assert str(Prefix(6, number, length)) == str(netaddr.IPNetwork((number, length), version=6))


@given(st.lists(st.tuples(st.integers(0, 255), st.integers(0, 6)), max_size=12))
def test_free_space_is_the_difference_of_sets(taken: list) -> None:
    outer = Prefix(4, BASE[4], 24)
    blocks = [sub(4, start, bits) for start, bits in taken]
    rest = netaddr.IPSet([str(outer)]) - netaddr.IPSet([str(block) for block in blocks])
    free = engine.FreeSpace([outer], blocks)
    assert free.count(32) == len(rest)
    found = set()
    for network in rest.iter_cidrs():
        found.add((network.prefixlen, int(network.network)))
    assert {(length, start) for length, heap in free._pieces.items() for start in heap} == found


POOL = engine.Pool("dn42", {4: (Prefix(4, BASE[4], 26),)}, {4: 29}, key="pools[0]")
ALL = {"host": 1, "gateway": 2, "router": 3, "dns": 4, "looking_glass": 5}


def refused(plan: list, wanted: list, offsets: dict = ALL, some: list | None = None) -> str:
    with pytest.raises(engine.Refused) as refusal:
        engine.decide(plan, some or [POOL], wanted, offsets)
    return str(refusal.value)


def test_ten_nodes_in_a_pool_for_eight() -> None:
    text = refused([], [request(POOL, f"n{number:02}") for number in range(1, 11)])
    assert text == (
        'pools[0].ipv4: ["172.23.255.0/26"]: pool dn42 is too small: 8 blocks of /29 fit in 172.23.255.0/26;'
        " taken: 8, by n01 172.23.255.0/29, n02 172.23.255.8/29, n03 172.23.255.16/29, n04 172.23.255.24/29,"
        " n05 172.23.255.32/29, n06 172.23.255.40/29, n07 172.23.255.48/29, n08 172.23.255.56/29;"
        " none is left for n09, n10. What would do: a free /28 more in this list (2 blocks);"
        " or a /25 in place of 172.23.255.0/26, which holds all 10;"
        " or block_size ipv4: 30 for 16 blocks, too small for 5 addresses, which need a /29"
    )


def test_the_remedies_of_a_full_pool_do() -> None:
    wanted = [request(POOL, f"n{number:02}") for number in range(1, 11)]
    blocks = engine.decide([], [POOL], wanted[:8], ALL).blocks
    more = engine.Pool("dn42", {4: (Prefix(4, BASE[4], 26), Prefix(4, BASE[4] + 256, 28))}, {4: 29})
    grown = engine.Pool("dn42", {4: (Prefix(4, BASE[4] - 128, 24),)}, {4: 29})
    for remedy in (more, grown):
        assert set(blocks) < set(engine.decide(blocks, [remedy], wanted, ALL).blocks)


def test_held_blocks_are_named_as_such_in_a_full_pool() -> None:
    blocks = engine.decide([], [POOL], [request(POOL, f"n{number}") for number in range(8)], ALL).blocks
    assert "n0 (held: no longer asked for) 172.23.255.0/29" in refused(list(blocks), [request(POOL, "new")])


def test_another_size_is_renumbering() -> None:
    blocks = engine.decide([], [POOL], [request(POOL, "fra1"), request(POOL, "hkg1")], ALL).blocks
    bigger = engine.Pool("dn42", POOL.prefixes, {4: 28}, key="pools[0]")
    text = refused(list(blocks), [request(bigger, "fra1"), request(bigger, "hkg1"), request(bigger, "nrt1")], some=[bigger])
    assert text.startswith("pools[0].block_size.ipv4: 28: the plan has fra1 172.23.255.0/29, hkg1 172.23.255.8/29. Another size means renumbering")
    assert "Write 29" in text


def test_another_pool_is_renumbering() -> None:
    blocks = engine.decide([], [POOL], [request(POOL, "fra1")], ALL).blocks
    other = engine.Pool("other", {4: (Prefix(4, BASE[4] + 1024, 26),)}, {4: 29}, key="pools[1]")
    assert "fra1 has 172.23.255.0/29 in pool dn42; another pool means renumbering" in refused(list(blocks), [request(other, "fra1")], some=[POOL, other])


def test_a_pool_that_is_gone_or_shrunk_is_told_by_block() -> None:
    blocks = [engine.Block(Prefix(4, BASE[4], 29), "fra1", "dn42", "plan line 6")]
    other = engine.Pool("other", {4: (Prefix(4, BASE[4] + 1024, 26),)}, {4: 29})
    shrunk = engine.Pool("dn42", {4: (Prefix(4, BASE[4] + 32, 27),)}, {4: 29})
    assert refused(blocks, [], some=[other]).startswith('plan line 6: "172.23.255.0/29": fra1 has this block in pool dn42, which is not among the pools (other)')
    assert refused(blocks, [], some=[shrunk]).startswith('plan line 6: "172.23.255.0/29": fra1 has this block, and it is outside of pool dn42 (172.23.255.32/27)')


def test_a_reserved_range_that_somebody_has() -> None:
    blocks = [engine.Block(Prefix(4, BASE[4] + 8, 29), "fra1", "dn42", "plan line 6")]
    pool = engine.Pool("dn42", POOL.prefixes, POOL.lengths, (Prefix(4, BASE[4], 28),), "pools[0]")
    assert "overlaps the block 172.23.255.8/29 of fra1 (plan line 6)" in refused(blocks, [], some=[pool])


@pytest.mark.parametrize(
    ("length", "offsets", "expected"),
    [
        (29, {"dns": 6}, None),
        (29, {"dns": 7}, "offsets.dns: 7: a /29 (pools[0].block_size.ipv4) has host offsets 1 to 6; a /28 would do"),
        (30, {"dns": 3}, "offsets.dns: 3: a /30 (pools[0].block_size.ipv4) has host offsets 1 to 2; a /29 would do"),
        (31, {}, "offsets.host: 1: a /31 (pools[0].block_size.ipv4) has no host offset; a /30 would do"),
        (32, {}, "offsets.host: 1: a /32 (pools[0].block_size.ipv4) has no host offset; a /30 would do"),
        (27, {"dns": 200}, "offsets.dns: 200: a /27 (pools[0].block_size.ipv4) has host offsets 1 to 30; a /24 would do"),
    ],
)
def test_offsets_fit_into_ipv4_blocks(length: int, offsets: dict, expected: str | None) -> None:
    pool = engine.Pool("dn42", POOL.prefixes, {4: length}, key="pools[0]")
    if expected is None:
        engine.decide([], [pool], [request(pool, "fra1")], {"host": 1, **offsets})
    else:
        assert expected in refused([], [request(pool, "fra1")], {"host": 1, **offsets}, [pool])


@pytest.mark.parametrize(("length", "offset", "fits"), [(64, 1 << 32, True), (126, 3, True), (126, 4, False), (127, 1, True), (127, 2, False), (128, 1, False)])
def test_offsets_fit_into_ipv6_blocks(length: int, offset: int, fits: bool) -> None:
    pool = engine.Pool("dn42", {6: (Prefix(6, BASE[6], 48),)}, {6: length})
    assert (not engine.check_offsets({"dns": offset}, [pool], [])) is fits


def test_a_pin_is_measured_by_its_own_size() -> None:
    pinned = engine.Request("fra1", "dn42", {4: 30}, {4: Prefix(4, BASE[4], 30)}, "holders[0]", "holders[0].pin")
    assert "offsets.dns: 4: a /30 (holders[0].pin.ipv4) has host offsets 1 to 2" in refused([], [pinned])


def test_addresses_have_the_same_offset_in_both_families() -> None:
    given_blocks = {4: Prefix(4, BASE[4] + 8, 29), 6: Prefix(6, BASE[6] + (1 << 64), 64)}
    assert engine.addresses(given_blocks, ALL)["dns"] == {"ipv4": "172.23.255.12", "ipv6": "fd99:4242:1:1::4"}
    assert engine.addresses({4: given_blocks[4]}, ALL)["host"] == {"ipv4": "172.23.255.9", "ipv6": None}
