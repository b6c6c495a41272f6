# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What becomes of every block of the plan before a new one is placed, and everything that is wrong.

This module util is PRIVATE to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

from itertools import islice
from operator import attrgetter
from typing import Dict, Iterable, List, NamedTuple, Optional, Sequence, Set, Tuple

from ansible_collections.dn42.compose.plugins.module_utils._address_plan.free_space import Ranges
from ansible_collections.dn42.compose.plugins.module_utils._address_plan.messages import LISTED, at, extent, words
from ansible_collections.dn42.compose.plugins.module_utils._address_plan.model import BITS, FAMILY_NAMES, Ask, Block, Fault, Plan, Prefix, Request, address_text

by_prefix = attrgetter("prefix")


class Resized(NamedTuple):
    """A block that keeps its network and changes its size."""

    before: Block
    after: Block


class Vacated(NamedTuple):
    """A block that its holder gives up for another one, and why."""

    block: Block
    why: str


class Unpermitted(NamedTuple):
    """A renumbering that nobody has allowed: where the wish is written, its value, and why the block cannot stay."""

    key: str
    value: object
    block: Block
    why: str
    instead: str  # what to ask for to leave everything as it is


class Survey:
    """The plan seen with what is asked for. Everything is decided here but the places of `wanted`."""

    def __init__(self, plan: Plan, ask: Ask) -> None:
        self.ask = ask
        self.faults: List[Fault] = []
        self.requests = {request.name: request for request in ask.requests}
        self.pools = {pool.name: pool for pool in ask.pools}
        self.released = sorted(plan.released, key=by_prefix)
        self.stays: List[Block] = []  # as it will be; with adopted and resized ones in the end, not sorted
        self.adopted: List[Block] = []
        self.resized: List[Resized] = []
        self.vacated: Dict[Tuple[str, int], List[Vacated]] = {}
        self.freed: List[Block] = []
        self.unpermitted: List[Unpermitted] = []
        self.in_use = sorted(ask.in_use, key=lambda item: (item.prefix, item.host, item.what))
        self.used = Ranges(item.prefix for item in self.in_use)
        self.closed = Ranges([*self.used.prefixes, *(prefix for pool in ask.pools for prefix in pool.reserved)])
        self._inside = {(pool.name, family): Ranges(prefixes) for pool in ask.pools for family, prefixes in pool.prefixes.items()}
        self._lately = ("", Prefix(0, 0, 0), 0)  # the pool's prefix that the last block was in, since most are in the same one
        self._growing: List[Tuple[Block, int]] = []
        self._settled: Set[Tuple[str, int]] = set()  # holder and family that need no new place

        blocks = sorted(plan.blocks, key=by_prefix)
        self.faults += check_blocks([*blocks, *self.released])
        self._check_releases(blocks)
        self._disturbed = self._check_closed(blocks)
        for block in blocks:
            self._sort_out(block)
        if not self.faults:
            self._pin_and_grow()

    def wanted(self) -> Dict[Tuple[str, int], List[Request]]:
        """Who needs a new place, by pool and family."""
        families = {pool.name: sorted(pool.prefixes) for pool in self.ask.pools}
        found: Dict[Tuple[str, int], List[Request]] = {(pool, family): [] for pool in sorted(families) for family in families[pool]}
        settled = self._settled
        for request in self.ask.requests:
            name, pool = request.name, request.pool
            for family in families[pool]:
                if (name, family) not in settled:
                    found[pool, family].append(request)
        return found

    def is_held(self, block: Block) -> bool:
        """Whether nobody asks for it."""
        request = self.requests.get(block.holder)
        return request is None or request.pool != block.pool

    @property
    def has_held(self) -> bool:
        """Whether there is a block that nobody asks for."""
        return any(self.is_held(block) for block in self.stays)

    def _check_releases(self, blocks: Sequence[Block]) -> None:
        names = {release.holder for release in self.ask.releases}
        has: Dict[str, List[Prefix]] = {name: [] for name in names}
        for block in blocks if names else ():
            if block.holder in names:
                has[block.holder].append(block.prefix)
        for release in sorted(self.ask.releases, key=lambda item: (item.holder, item.prefixes)):
            told = words(str(prefix) for prefix in sorted(release.prefixes))
            found = has[release.holder]
            if release.holder in self.requests:
                message = f"{release.holder} is still asked for ({self.requests[release.holder].key}); take it out of the inventory first, or out of this list"
                self.faults.append(Fault(release.key, told, message))
            elif found and sorted(set(release.prefixes)) != found:
                message = f"{release.holder} has {words(str(prefix) for prefix in found)} in the plan; name exactly this if nothing of it is in use any more"
                self.faults.append(Fault(release.key, told, message))
        self._releasing = {name for name in names if name not in self.requests}

    def _sort_out(self, block: Block) -> None:
        """Say what becomes of a block of the plan."""
        request = self.requests.get(block.holder)
        if request is None:
            if block.holder in self._releasing:
                self.freed.append(block)
                return
            why = self._misplaced(block)
            if why:
                message = f"{block.holder} has this block, {why}, or release the block if nobody uses it"
                self.faults.append(Fault(block.origin or "plan", str(block.prefix), message))
            self.stays.append(block)
            return
        if request.pool != block.pool:
            self._renumber(block, f"{request.key}.pool", request.pool, f"another pool, {request.pool} in place of {block.pool}", f"ask for pool {block.pool}")
            return
        why = self._misplaced(block)
        if why:
            self._renumber(block, block.origin or "plan", str(block.prefix), f"it is in the plan, {why}", "")
        elif block.prefix in self._disturbed:
            self._renumber(block, block.origin or "plan", str(block.prefix), "it is reserved or in use on a host", "")
        else:
            self._fit(block, request)

    def _misplaced(self, block: Block) -> str:
        """Why a block cannot be where it is."""
        family, network, length = block.prefix
        name, outer, end = self._lately
        if block.pool == name and outer.family == family and outer.network <= network < end and outer.length <= length:
            return ""
        inside = self._inside.get((block.pool, family))
        around = inside.around(block.prefix) if inside is not None else None
        if around is not None:
            self._lately = (block.pool, around, around.end)
            return ""
        pool = self.pools.get(block.pool)
        if pool is None:
            return f"in pool {block.pool}, which is not among the pools ({words(sorted(self.pools))}); bring the pool back"
        return f"and it is outside of pool {extent(pool, block.prefix.family)}; put the prefix it came from back"

    def _renumber(self, block: Block, key: str, value: object, why: str, instead: str) -> None:
        if block.holder in self.ask.renumber:
            self.vacated.setdefault((block.holder, block.prefix.family), []).append(Vacated(block, why))
        else:
            self.unpermitted.append(Unpermitted(key, value, block, why, instead))
            self.stays.append(block)
            self._settled.add((block.holder, block.prefix.family))

    def _fit(self, block: Block, request: Request) -> None:
        """A block in the right place: does its size, or its pin, ask for another one?"""
        prefix = block.prefix
        pin = request.pins.get(prefix.family)
        length = request.lengths[prefix.family] if pin is None else pin.length
        if pin is not None and pin.network != prefix.network:
            key = f"{request.pin_key}.{FAMILY_NAMES[prefix.family]}"
            self._renumber(block, key, str(pin), f"{block.holder} has {prefix} in the plan{at(block)}", f"pin {prefix} or nothing")
            return
        self._settled.add((block.holder, prefix.family))
        if length < prefix.length:
            self._growing.append((block, length))
        elif length > prefix.length:
            self._resize(block, length)
        else:
            self.stays.append(block)

    def _resize(self, block: Block, length: int) -> None:
        after = Block(Prefix(block.prefix.family, block.prefix.network, length), block.holder, block.pool)
        self.resized.append(Resized(block, after))
        self.stays.append(after)

    def _check_closed(self, blocks: Sequence[Block]) -> Set[Prefix]:
        """Tell of blocks on reserved space or under a host's network; returns those that their holder may leave."""
        if not self.closed.prefixes:
            return set()
        index = Ranges(block.prefix for block in blocks)
        if len(index.prefixes) < len(blocks):
            return set()  # the plan contradicts itself, which is told already
        for pool in sorted(self.ask.pools, key=lambda item: item.name):
            for prefix in sorted(pool.reserved):
                hit = self._bound(blocks, index, prefix, with_held=True)
                if hit:
                    message = f"overlaps {_named(hit)}; reserve only what nobody has"
                    self.faults.append(Fault(f"{pool.key}.reserved", str(prefix), message))
        for item in self.in_use:
            hit = self._bound(blocks, index, item.prefix, with_held=False)
            if hit:
                message = (
                    f"{item.what} on {item.host} overlaps {_named(hit)}. {item.host} sends this part of the network there,"
                    f" so that it cannot be reached from {item.host}. Remove or move {item.what} on {item.host},"
                    f" or name {words(sorted({block.holder for block in hit}))} in renumber for other addresses"
                )
                self.faults.append(Fault(item.host, str(item.prefix), message))
        closed = (index.span(prefix) for prefix in self.closed.prefixes)
        return {block.prefix for start, end in closed for block in blocks[start:end]}

    def _bound(self, blocks: Sequence[Block], index: Ranges, prefix: Prefix, with_held: bool) -> List[Block]:
        """The first blocks that overlap `prefix` and have to stay where they are."""
        start, end = index.span(prefix)
        bound = (
            block for block in blocks[start:end] if (block.holder not in self.ask.renumber if block.holder in self.requests else with_held and block.holder not in self._releasing)
        )
        return list(islice(bound, LISTED + 1))

    def _pin_and_grow(self) -> None:
        """Adopt pins, then grow what can grow beside them."""
        pinned = any((request.name, family) not in self._settled for request in self.ask.requests if request.pins for family in request.pins)
        if not pinned and not self._growing:
            return
        around = sorted([*self.stays, *(block for block, _length in self._growing)], key=by_prefix)
        if pinned:
            self._adopt_pins(around, Ranges(block.prefix for block in around))
            around = sorted(around + self.adopted, key=by_prefix)
            if self.faults:
                return
        index = Ranges(block.prefix for block in around)
        for block, length in self._growing:
            self._grow(block, length, around, index)

    def _adopt_pins(self, around: Sequence[Block], index: Ranges) -> None:
        """Take pins over; those are told that are outside of their pool or on something that is taken."""
        pinned = sorted(((pin, request) for request in self.ask.requests for pin in request.pins.values()), key=lambda item: (item[0], item[1].name))
        outer: Optional[Tuple[Prefix, Request]] = None
        for pin, request in pinned:
            reasons = []
            if outer is not None and outer[0].covers(pin):
                reasons.append(f"{outer[0]} is pinned for {outer[1].name}")
            else:
                outer = (pin, request)
            if (request.name, pin.family) not in self._settled:
                start, end = index.span(pin)
                reasons += self._pin_outside(pin, request)
                reasons += [f"{other.prefix} belongs to {self._owner(other)}{at(other)}" for other in around[start:end][:LISTED]]
                self.adopted.append(Block(pin, request.name, request.pool))
                self._settled.add((request.name, pin.family))
            if reasons:
                self.faults.append(Fault(f"{request.pin_key}.{FAMILY_NAMES[pin.family]}", str(pin), "; ".join(reasons)))
        self.stays += self.adopted

    def _owner(self, block: Block) -> str:
        return f"{block.holder} (held: no longer asked for; release it if nobody uses it)" if self.is_held(block) else block.holder

    def _pin_outside(self, pin: Prefix, request: Request) -> List[str]:
        inside = self._inside.get((request.pool, pin.family))
        outside = [] if inside and inside.around(pin) else [f"is not inside pool {extent(self.pools[request.pool], pin.family)}"]
        return outside + self._closed_by(pin)

    def _closed_by(self, prefix: Prefix) -> List[str]:
        """What is reserved or in use on a host there."""
        if not self.closed.overlapping(prefix):
            return []
        reasons = [f"{item} of pool {pool.name} is reserved" for pool in self.ask.pools for item in pool.reserved if item.overlaps(prefix)]
        return reasons + [f"{item.prefix} is in use on {item.host}: {item.what}" for item in self.in_use if item.prefix.overlaps(prefix)]

    def _grow(self, block: Block, length: int, around: Sequence[Block], index: Ranges) -> None:
        """Grow a block into the free space above it, or say what is in the way."""
        why = self._in_the_way(block, length, around, index)
        if not why:
            self._resize(block, length)
            return
        request = self.requests[block.holder]
        family = block.prefix.family
        name = FAMILY_NAMES[family]
        if family in request.pins:
            self.faults.append(Fault(f"{request.pin_key}.{name}", str(request.pins[family]), f"{block.holder} has {block.prefix}, which cannot grow in place: {why}"))
            self.stays.append(block)
            return
        self._settled.discard((block.holder, family))
        key = f"{request.size_key or self.pools[request.pool].key + '.block_size'}.{name}"
        self._renumber(block, key, length, f"it cannot grow in place: {why}", f"write {block.prefix.length}")

    def _in_the_way(self, block: Block, length: int, around: Sequence[Block], index: Ranges) -> str:
        family, network, _length = block.prefix
        target = Prefix(family, network, length)
        if network & (target.end - network - 1):
            return f"{address_text(family, network)} is not where a /{length} begins"
        if self._inside[block.pool, family].around(target) is None:
            return f"{target} is not inside pool {extent(self.pools[block.pool], family)}"
        start, end = index.span(target)
        others = [f"{other.prefix} belongs to {self._owner(other)}" for other in around[start:end] if other.prefix != block.prefix]
        return words(others + self._closed_by(target)) if others or self._closed_by(target) else ""


def _named(blocks: Sequence[Block]) -> str:
    return words(f"{block.prefix} of {block.holder}{at(block)}" for block in blocks)


def check_blocks(blocks: Iterable[Block]) -> List[Fault]:
    """What makes a plan contradict itself, whatever the pools: overlaps and second blocks of a holder."""
    faults = []
    first: Dict[Tuple[str, str, int], Block] = {}
    outer: Optional[Block] = None
    outer_family, outer_end = 0, 0
    for block in sorted(blocks, key=by_prefix):
        family, network, length = block.prefix
        if outer is not None and network < outer_end and family == outer_family:
            message = f"overlaps {outer.prefix} of {outer.holder}{at(outer)}; only one of them can own it"
            faults.append(Fault(block.origin or "plan", str(block.prefix), message))
        else:
            outer, outer_family, outer_end = block, family, network + (1 << (BITS[family] - length))
        if block.released:
            continue
        other = first.setdefault((block.holder, block.pool, family), block)
        if other is not block:
            message = f"{block.holder} already has {other.prefix} in pool {block.pool}{at(other)}; keep the one that is in use"
            faults.append(Fault(block.origin or "plan", str(block.prefix), message))
    return faults
