# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""When an endpoint is set or looked up, and to what."""

from __future__ import annotations

from dataclasses import replace

import pytest
from dn42_router.endpoints import Memo, choose, looked_up, needs_lookup, ordered
from dn42_router.model import Endpoint
from dn42_router.observe import PeerState

NOW = 1_700_000_000.0
FIXED = Endpoint("2001:db8::1", 21002)
NAMED = Endpoint("peer.example.net", 21002)
FRESH = PeerState(None, "[2001:db8::99]:5", frozenset(), int(NOW) - 134, 0)
STALE = replace(FRESH, handshake=int(NOW) - 136)
SILENT = replace(FRESH, endpoint=None, handshake=0)
V4, V6 = "203.0.113.1", "2001:db8::1"


def test_missing_endpoint_is_set() -> None:
    for state in (None, SILENT):
        assert choose(FIXED, state, Memo(), "any", NOW)[0] == "[2001:db8::1]:21002"


def test_roaming_peer_with_fresh_handshake_is_left_alone() -> None:
    wanted, memo = choose(FIXED, FRESH, Memo(), "any", NOW)
    assert wanted is None and memo.declared == "[2001:db8::1]:21002"


def test_stale_handshake_sets_the_declared_address_and_gives_it_time() -> None:
    memo = Memo(declared=str(FIXED))
    wanted, memo = choose(FIXED, STALE, memo, "any", NOW)
    assert wanted == "[2001:db8::1]:21002"
    roamed_again = replace(STALE, endpoint="[2001:db8::98]:5")
    assert choose(FIXED, roamed_again, memo, "any", NOW + 29)[0] is None
    assert choose(FIXED, roamed_again, memo, "any", NOW + 31)[0] == "[2001:db8::1]:21002"


def test_changed_declaration_is_applied_at_once() -> None:
    assert choose(FIXED, FRESH, Memo(declared="198.51.100.7:1"), "any", NOW)[0] == "[2001:db8::1]:21002"


def test_name_is_looked_up_when_it_matters() -> None:
    assert needs_lookup(NAMED, SILENT, Memo(), NOW)
    assert needs_lookup(NAMED, STALE, Memo(declared=str(NAMED)), NOW)
    assert not needs_lookup(NAMED, FRESH, Memo(declared=str(NAMED)), NOW)
    assert not needs_lookup(FIXED, SILENT, Memo(), NOW)


def test_failed_lookup_is_repeated_after_a_pause() -> None:
    memo = looked_up(Memo(), (), "no such name", NOW)
    assert choose(NAMED, SILENT, memo, "any", NOW) == (None, memo)
    assert not needs_lookup(NAMED, SILENT, memo, NOW + 9)
    assert needs_lookup(NAMED, SILENT, memo, NOW + 10)


def test_every_address_gets_its_turn() -> None:
    memo, state, tried = Memo(), SILENT, []
    for number in range(3):
        now = NOW + 31 * number
        assert needs_lookup(NAMED, state, memo, now)
        memo = looked_up(memo, (V6, V4), None, now)
        wanted, memo = choose(NAMED, state, memo, "any", now)
        tried.append(wanted)
        state = replace(state, endpoint=wanted)
    assert tried == ["[2001:db8::1]:21002", "203.0.113.1:21002", "[2001:db8::1]:21002"]


def test_only_address_is_not_set_again() -> None:
    memo = looked_up(Memo(declared=str(NAMED)), (V4,), None, NOW)
    assert choose(NAMED, replace(STALE, endpoint="203.0.113.1:21002"), memo, "any", NOW)[0] is None


@pytest.mark.parametrize(
    ("prefer", "expected"),
    [
        ("any", (V6, V4)),
        ("ipv6", (V6, V4)),
        ("ipv4", (V4, V6)),
    ],
)
def test_preferred_family_first(prefer: str, expected: tuple[str, ...]) -> None:
    assert ordered((V6, V4, V6), prefer) == expected
