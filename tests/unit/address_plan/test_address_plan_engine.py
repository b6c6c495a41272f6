# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the engine decides, case by case, and its messages."""

from __future__ import annotations

import ipaddress

import pytest
from ansible_collections.dn42.compose.plugins.module_utils._address_plan.decide import addresses, check_blocks, check_offsets, decide
from ansible_collections.dn42.compose.plugins.module_utils._address_plan.model import (
    ANYCAST,
    GROWABLE,
    LOOPBACK,
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

ALL = {"host": 1, "gateway": 2, "router": 3, "dns": 4, "looking_glass": 5}


def prefix(text: str) -> Prefix:
    """`.8/29` is short for 172.23.255.8/29."""
    network = ipaddress.ip_network(f"172.23.255{text}" if text.startswith(".") else text)
    return Prefix(network.version, int(network.network_address), network.prefixlen)


def short(some: Prefix | None) -> str:
    return str(some).replace("172.23.255", "") if some else "-"


POOL = Pool("dn42", {4: (prefix(".0/26"),)}, {4: 29}, key="pools[0]")
OTHER = Pool("other", {4: (prefix("172.23.254.0/26"),)}, {4: 29}, key="pools[1]")


def plan_of(owned: str = "", released: str = "") -> Plan:
    """`fra1 .0/29, hkg1 .8/29`; a released block has its number behind it."""
    both = [tuple(Block(prefix(part.split()[1]), part.split()[0], "dn42", int([*part.split(), "0"][2])) for part in text.split(",") if part) for text in (owned, released)]
    return Plan(*both)


def requests(text: str, pool: Pool = POOL) -> tuple:
    """`fra1, hkg1/28, nrt1=.8/29`: the pool's size, a size of its own, a pin."""
    found = []
    for number, item in enumerate(text.replace(",", " ").split()):
        name, _, pin = item.partition("=")
        name, _, size = name.partition("/")
        pins = {4: prefix(pin)} if pin else {}
        lengths = {4: int(size)} if size else pool.lengths
        key = f"holders[{number}]"
        found.append(Request(name, pool.name, lengths, pins, key, f"{key}.pin", f"{key}.block_size" if size else ""))
    return tuple(found)


def run(plan: Plan, wanted: str | tuple, pools: tuple = (POOL,), offsets: dict = ALL, **more: object) -> Decision:
    return decide(plan, Ask(pools, requests(wanted) if isinstance(wanted, str) else wanted, offsets, **more))


def refused(plan: Plan, wanted: str | tuple, *args: object, **more: object) -> str:
    with pytest.raises(Refused) as refusal:
        run(plan, wanted, *args, **more)
    return str(refusal.value)


def changes(decision: Decision) -> list:
    return [f"{change.kind} {change.holder} {short(change.before)} {short(change.after)}" for change in decision.changes]


def listed(blocks: tuple) -> str:
    return ", ".join(f"{block.holder} {short(block.prefix)}{f' {block.released}' if block.released else ''}" for block in blocks)


def release(name: str, *prefixes: str) -> Release:
    return Release(name, tuple(prefix(item) for item in prefixes), "release[0]")


CASES = {
    # what is asked: plan, released, requests, more, changes, released after
    "nothing to do": ("fra1 .0/29", "", "fra1", {}, [], ""),
    "lowest of the best fitting": ("fra1 .0/29, hkg1 .16/28", "", "fra1 hkg1/28 nrt1", {}, ["added nrt1 - .8/29"], ""),
    "a pin is adopted": ("", "", "fra1=.16/29 hkg1", {}, ["adopted fra1 - .16/29", "added hkg1 - .24/29"], ""),
    "held is kept": ("old1 .0/29", "", "fra1", {}, ["added fra1 - .8/29"], ""),
    "grows into free space": ("fra1 .0/29", "", "fra1/28", {}, ["grown fra1 .0/29 .0/28"], ""),
    "grows into released space": ("fra1 .0/29", "old1 .8/30 3, old2 .12/30 1", "fra1/28", {}, ["grown fra1 .0/29 .0/28"], ""),
    "grows into what is released now": (
        "fra1 .0/29, old1 .8/29",
        "",
        "fra1/28",
        {"releases": (release("old1", ".8/29"),)},
        ["grown fra1 .0/29 .0/28", "released old1 .8/29 -"],
        "",
    ),
    "grows as its pin says": ("fra1 .0/29", "", "fra1=.0/28", {}, ["grown fra1 .0/29 .0/28"], ""),
    "shrinks and keeps its network": ("fra1 .16/28", "", "fra1", {}, ["shrunk fra1 .16/28 .16/29"], "fra1 .24/29 1"),
    "a new pin on what a shrink leaves": ("fra1 .0/28", "", "fra1 hkg1=.8/29", {}, ["shrunk fra1 .0/28 .0/29", "adopted hkg1 - .8/29"], ""),
    "renumbered when it cannot grow": (
        "fra1 .0/29, hkg1 .8/29",
        "old1 .32/29 4",
        "fra1/28 hkg1",
        {"renumber": frozenset(["fra1"])},
        ["renumbered fra1 .0/29 .16/28"],
        "fra1 .0/29 5, old1 .32/29 4",
    ),
    "may be renumbered and need not": ("fra1 .0/29", "", "fra1/28", {"renumber": frozenset(["fra1"])}, ["grown fra1 .0/29 .0/28"], ""),
    "two change places": (
        "fra1 .0/29, hkg1 .8/29",
        "",
        "fra1=.8/29 hkg1=.0/29",
        {"renumber": frozenset(["fra1", "hkg1"])},
        ["renumbered hkg1 .8/29 .0/29", "renumbered fra1 .0/29 .8/29"],
        "",
    ),
    "released": ("old1 .0/29, old2 .8/29", "", "", {"releases": (release("old1", ".0/29"),)}, ["released old1 .0/29 -"], "old1 .0/29 1"),
    "released already": ("", "old1 .0/29 1", "", {"releases": (release("old1", ".0/29"),)}, [], "old1 .0/29 1"),
    "returned": ("", "old1 .8/29 1, old2 .16/29 2", "old1", {}, ["returned old1 - .8/29"], "old2 .16/29 2"),
    "the last of several comes back": ("", "old1 .8/29 1, old1 .16/29 2", "old1", {}, ["returned old1 - .16/29"], "old1 .8/29 1"),
    "of another size by now": ("", "old1 .0/28 1", "old1", {}, ["added old1 - .16/29"], "old1 .0/28 1"),
    "never used space first": ("a .16/28, b .32/27", "old1 .0/29 1", "a/28 b/27 new", {}, ["added new - .8/29"], "old1 .0/29 1"),
    "the oldest release first": ("b .32/27", "old2 .0/29 2, old3 .8/29 3, old1 .16/28 1", "b/27 new", {}, ["added new - .16/29"], "old2 .0/29 2, old3 .8/29 3, old1 .24/29 1"),
    "all of it in need": ("b .32/27", "old1 .0/29 1, old2 .8/29 2, old3 .16/28 3", "b/27 new/28", {}, ["added new - .0/28"], "old3 .16/28 3"),
    "held space in need": (
        "b .32/27, old1 .0/28, old2 .16/28",
        "",
        "b/27 new",
        {"reuse_held": True},
        ["released old1 .0/28 -", "added new - .0/29"],
        "old1 .8/29 1",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_case(name: str) -> None:
    owned, released, wanted, more, expected, after = CASES[name]
    decision = run(plan_of(owned, released), wanted, **more)
    assert changes(decision) == expected
    assert listed(decision.plan.released) == after
    again = run(decision.plan, wanted)
    assert (changes(again), again.plan) == ([], decision.plan)


def test_every_change_says_why() -> None:
    decision = run(plan_of("b .32/27, c .16/28", "old1 .0/29 1, old2 .8/29 2"), "b/27 c/28 new")
    assert decision.changes[0].reason == "new: nothing else is free, so it reuses released space of old1"
    decision = run(plan_of("fra1 .0/29, hkg1 .8/29"), "fra1/28 hkg1", renumber=frozenset(["fra1"]))
    assert decision.changes[0].reason == "it cannot grow in place: 172.23.255.8/29 belongs to hkg1"


def test_growable_leaves_room_above_and_gives_it_up_in_need() -> None:
    pool = Pool("dn42", {4: (prefix(".0/27"),)}, {4: 29}, placement=GROWABLE, key="pools[0]")
    two = run(Plan(), requests("a b", pool), (pool,))
    assert listed(two.plan.blocks) == "a .0/29, b .16/29"
    three = run(two.plan, requests("a b c", pool), (pool,))
    assert listed(three.plan.blocks) == "a .0/29, c .8/29, b .16/29"
    assert "in the space above" in three.changes[0].reason


def test_another_pool_when_permitted() -> None:
    plan = plan_of("fra1 .0/29, old1 .8/29")
    wanted = requests("fra1", OTHER)
    assert refused(plan, wanted, (POOL, OTHER)) == (
        'holders[0].pool: "other": would renumber fra1 from 172.23.255.0/29 to 172.23.254.0/29 (another pool, other in place of dn42).'
        " All addresses in a renumbered block change, and its Docker network is made anew. Name fra1 in renumber to allow it, or ask for pool dn42"
    )
    decision = run(plan, wanted, (POOL, OTHER), renumber=frozenset(["fra1"]))
    assert changes(decision) == ["renumbered fra1 .0/29 172.23.254.0/29"]
    assert listed(decision.plan.released) == "fra1 .0/29 1"
    assert listed(decision.held) == "old1 .8/29"
    back = run(decision.plan, "fra1", (POOL, OTHER), renumber=frozenset(["fra1"]))
    assert back.given["fra1"][4] == prefix(".0/29")


def test_another_prefix_of_the_pool_when_permitted() -> None:
    moved = Pool("dn42", OTHER.prefixes, {4: 29}, key="pools[0]")
    plan = Plan((Block(prefix(".0/29"), "fra1", "dn42", origin="plan line 6"),))
    text = refused(plan, "fra1", (moved,))
    assert text.startswith(
        'plan line 6: "172.23.255.0/29": would renumber fra1 from 172.23.255.0/29 to 172.23.254.0/29 (it is in the plan, and it is outside of pool dn42 (172.23.254.0/26)'
    )
    assert changes(run(plan, "fra1", (moved,), renumber=frozenset(["fra1"]))) == ["renumbered fra1 .0/29 172.23.254.0/29"]


REFUSED = {
    "ten nodes in a pool for eight": (
        "",
        " ".join(f"n{number:02}" for number in range(1, 11)),
        {},
        'pools[0].ipv4: ["172.23.255.0/26"]: pool dn42 is too small: 8 blocks of /29 fit in 172.23.255.0/26;'
        " taken: 8, by n01 172.23.255.0/29, n02 172.23.255.8/29, n03 172.23.255.16/29, n04 172.23.255.24/29,"
        " n05 172.23.255.32/29, n06 172.23.255.40/29, n07 172.23.255.48/29, n08 172.23.255.56/29;"
        " none is left for n09, n10. What would do: a free /28 more in this list (2 blocks);"
        " or a /25 in place of 172.23.255.0/26, which holds all 10;"
        " or block_size ipv4: 30 for 16 blocks, too small for 5 addresses, which need a /29",
    ),
    "held blocks could be released": (
        "old1 .0/27, b .32/27",
        "b/27 new",
        {},
        "or release 172.23.255.0/27 of old1, no longer asked for, or set reuse_held; or block_size",
    ),
    "free space in pieces": ("a .0/29, b .16/28, c .32/28, d .56/29", "a b/28 c/28 d new/28", {}, "none is left for new (16 addresses are free, but in pieces of at most a /29)"),
    "cannot grow": (
        "fra1 .0/29, hkg1 .8/29",
        "fra1/28 hkg1",
        {},
        "holders[0].block_size.ipv4: 28: would renumber fra1 from 172.23.255.0/29 to 172.23.255.16/28 (it cannot grow in place: 172.23.255.8/29 belongs to hkg1)."
        " All addresses in a renumbered block change, and its Docker network is made anew. Name fra1 in renumber to allow it, or write 29",
    ),
    "cannot grow, and there is no room elsewhere": (
        "fra1 .0/29, hkg1 .8/29, a .16/28, b .32/27",
        "fra1/28 hkg1 a/28 b/27",
        {},
        "Name fra1 in renumber to allow it, or write 29. There is no room for that yet, see the other faults\npools[0].ipv4",
    ),
    "cannot grow downward": ("fra1 .8/29", "fra1/28", {}, "it cannot grow in place: 172.23.255.8 is not where a /28 begins"),
    "cannot grow over a held block": ("fra1 .0/29, old1 .8/29", "fra1/28", {}, "172.23.255.8/29 belongs to old1 (held: no longer asked for; release it if nobody uses it)"),
    "a pin that moved": (
        "fra1 .0/29",
        "fra1=.8/29",
        {},
        'holders[0].pin.ipv4: "172.23.255.8/29": would renumber fra1 from 172.23.255.0/29 to 172.23.255.8/29 (fra1 has 172.23.255.0/29 in the plan).',
    ),
    "a pin on a block of somebody else": ("hkg1 .8/29", "fra1=.0/28 hkg1", {}, 'holders[0].pin.ipv4: "172.23.255.0/28": 172.23.255.8/29 belongs to hkg1'),
    "a pin on a held block": ("old1 .8/29", "fra1=.8/29", {}, "172.23.255.8/29 belongs to old1 (held: no longer asked for; release it if nobody uses it)"),
    "two pins on one place": ("", "fra1=.0/28 hkg1=.8/29", {}, 'holders[1].pin.ipv4: "172.23.255.8/29": 172.23.255.0/28 is pinned for fra1'),
    "a pin outside": ("", "fra1=172.23.254.0/29", {}, 'holders[0].pin.ipv4: "172.23.254.0/29": is not inside pool dn42 (172.23.255.0/26)'),
    "release of somebody who is asked for": (
        "fra1 .0/29",
        "fra1",
        {"releases": (release("fra1", ".0/29"),)},
        'release[0]: "172.23.255.0/29": fra1 is still asked for (holders[0]); take it out of the inventory first, or out of this list',
    ),
    "release of something else": (
        "old1 .0/29",
        "",
        {"releases": (release("old1", ".8/29"),)},
        'release[0]: "172.23.255.8/29": old1 has 172.23.255.0/29 in the plan; name exactly this if nothing of it is in use any more',
    ),
    "a network of a host under a block": (
        "fra1 .0/29",
        "fra1",
        {"in_use": (InUse("hkg1", prefix(".0/27"), "Docker network web"),)},
        'hkg1: "172.23.255.0/27": Docker network web on hkg1 overlaps 172.23.255.0/29 of fra1. hkg1 sends this part of the network there,'
        " so that it cannot be reached from hkg1. Remove or move Docker network web on hkg1, or name fra1 in renumber for other addresses",
    ),
    "a pin on a network of a host": (
        "",
        "fra1=.0/29",
        {"in_use": (InUse("hkg1", prefix(".0/27"), "route through eth1"),)},
        "172.23.255.0/27 is in use on hkg1: route through eth1",
    ),
    "networks of hosts fill the pool": (
        "",
        "fra1",
        {"in_use": (InUse("hkg1", prefix("172.20.0.0/14"), "route through eth1"),)},
        "0 blocks of /29 fit in 172.23.255.0/26 apart from networks on hosts (route through eth1 on hkg1: 172.20.0.0/14)",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusal(name: str) -> None:
    owned, wanted, more, expected = REFUSED[name]
    assert expected in refused(plan_of(owned), wanted, **more)


def test_the_remedies_of_a_full_pool_do() -> None:
    ten = " ".join(f"n{number:02}" for number in range(1, 11))
    plan = run(Plan(), ten[: 8 * 4]).plan
    for prefixes in ((prefix(".0/26"), prefix("172.23.254.0/28")), (prefix(".0/25"),)):
        remedy = Pool("dn42", {4: prefixes}, {4: 29})
        assert set(plan.blocks) < set(run(plan, ten, (remedy,)).plan.blocks)


def test_a_size_of_the_pool_is_one_fault() -> None:
    bigger = Pool("dn42", POOL.prefixes, {4: 28}, key="pools[0]")
    text = refused(plan_of("fra1 .0/29, hkg1 .8/29, nrt1 .16/29"), requests("fra1 hkg1 nrt1", bigger), (bigger,))
    assert text.startswith("pools[0].block_size.ipv4: 28: would renumber fra1 from 172.23.255.0/29 to 172.23.255.32/28")
    assert "hkg1 from 172.23.255.8/29 to 172.23.255.48/28" in text
    assert "Name fra1, hkg1 in renumber" in text
    assert "nrt1" not in text


def test_networks_on_hosts_are_avoided() -> None:
    in_use = (InUse("hkg1", prefix(".0/30"), "Docker network web"), InUse("fra1", prefix(".8/29"), "route through eth1"))
    assert changes(run(Plan(), "fra1", in_use=in_use)) == ["added fra1 - .16/29"]
    moved = run(plan_of("fra1 .0/29"), "fra1", in_use=in_use, renumber=frozenset(["fra1"]))
    assert changes(moved) == ["renumbered fra1 .0/29 .16/29"]
    assert changes(run(plan_of("old1 .0/29"), "", in_use=in_use)) == []  # nobody uses it any more
    assert changes(run(plan_of("", "old1 .0/29 1"), "old1", in_use=in_use)) == ["added old1 - .16/29"]
    assert "172.23.255.8/29 is in use on fra1" in refused(plan_of("hkg1 .0/29"), "hkg1/28", in_use=in_use[1:])


def test_a_pool_that_is_gone_or_shrunk_is_told_by_block() -> None:
    plan = Plan((Block(prefix(".0/29"), "old1", "dn42", origin="plan line 6"),))
    shrunk = Pool("dn42", {4: (prefix(".32/27"),)}, {4: 29})
    assert refused(plan, "", (OTHER,)).startswith('plan line 6: "172.23.255.0/29": old1 has this block, in pool dn42, which is not among the pools (other)')
    assert refused(plan, "", (shrunk,)).startswith('plan line 6: "172.23.255.0/29": old1 has this block, and it is outside of pool dn42 (172.23.255.32/27)')
    freed = run(plan, (), (OTHER,), releases=(release("old1", ".0/29"),))
    assert changes(freed) == ["released old1 .0/29 -"]
    assert changes(run(freed.plan, (), (OTHER,))) == []


def test_a_reserved_range_that_somebody_has() -> None:
    plan = Plan((Block(prefix(".8/29"), "old1", "dn42", origin="plan line 6"),))
    pool = Pool("dn42", POOL.prefixes, POOL.lengths, (prefix(".0/28"),), key="pools[0]")
    assert refused(plan, "", (pool,)) == 'pools[0].reserved: "172.23.255.0/28": overlaps 172.23.255.8/29 of old1 (plan line 6); reserve only what nobody has'


@pytest.mark.parametrize(
    ("owned", "released", "expected"),
    [
        ("a .0/28, b .8/29", "", "172.23.255.8/29: overlaps 172.23.255.0/28 of a; only one of them can own it"),
        ("a .0/28, b .16/29", "c .8/29 1", "172.23.255.8/29: overlaps 172.23.255.0/28 of a"),
        ("a .0/29, a .8/29", "", "172.23.255.8/29: a already has 172.23.255.0/29 in pool dn42"),
        ("a .0/29", "a .8/29 1, a .16/29 1", ""),
    ],
)
def test_plans_that_contradict_themselves(owned: str, released: str, expected: str) -> None:
    plan = plan_of(owned, released)
    told = " ".join(str(fault) for fault in check_blocks([*plan.blocks, *plan.released])).replace('"', "")
    assert (expected in told) if expected else not told


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
    pool = Pool("dn42", POOL.prefixes, {4: length}, key="pools[0]")
    if expected is None:
        run(Plan(), requests("fra1", pool), (pool,), {"host": 1, **offsets})
    else:
        assert expected in refused(Plan(), requests("fra1", pool), (pool,), {"host": 1, **offsets})


@pytest.mark.parametrize(("length", "offset", "fits"), [(64, 1 << 32, True), (126, 3, True), (126, 4, False), (127, 1, True), (127, 2, False), (128, 1, False)])
def test_offsets_fit_into_ipv6_blocks(length: int, offset: int, fits: bool) -> None:
    pool = Pool("dn42", {6: (prefix("fd99:4242:1::/48"),)}, {6: length})
    assert (not check_offsets(Ask((pool,), (), {"dns": offset}))) is fits


@pytest.mark.parametrize("purpose", [ANYCAST, LOOPBACK, "tunnels"])
def test_only_blocks_of_nodes_hold_services(purpose: str) -> None:
    pool = Pool("dn42", POOL.prefixes, {4: 32}, purpose=purpose)
    assert run(Plan(), requests("fra1", pool), (pool,)).given["fra1"][4] == prefix(".0/32")


def test_a_size_of_ones_own_and_a_pin_are_measured() -> None:
    assert "offsets.dns: 4: a /30 (holders[0].pin.ipv4) has host offsets 1 to 2" in refused(Plan(), "fra1=.0/30")
    assert "offsets.dns: 4: a /30 (holders[0].block_size.ipv4) has host offsets 1 to 2" in refused(plan_of("fra1 .0/29"), "fra1/30")


def test_addresses_have_the_same_offset_in_both_families() -> None:
    blocks = {4: prefix(".8/29"), 6: prefix("fd99:4242:1:1::/64")}
    assert addresses(blocks, ALL)["dns"] == {"ipv4": "172.23.255.12", "ipv6": "fd99:4242:1:1::4"}
    assert addresses({4: blocks[4]}, ALL)["host"] == {"ipv4": "172.23.255.9", "ipv6": None}


def test_a_pin_on_released_space_is_not_given_away_in_the_same_call() -> None:
    decision = run(plan_of("", "x .0/27 1"), "a/27, b=.0/29, c/28")
    assert not check_blocks([*decision.plan.blocks, *decision.plan.released])
    assert changes(decision) == ["adopted b - .0/29", "added c - .16/28", "added a - .32/27"]
