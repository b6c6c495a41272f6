# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where new blocks go in one pool and family.

Preferences are soft, and each is given up only when somebody would get nothing otherwise: space that was never
used, then what was kept free above growable blocks, then released space from the oldest release on, then the blocks
of those that are no longer asked for, where that is allowed. In the end everything is packed anew as one space.

This module util is PRIVATE to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

from itertools import groupby
from operator import attrgetter
from typing import Callable, Dict, Iterable, List, NamedTuple, Sequence, Tuple

from ansible_collections.dn42.compose.plugins.module_utils._address_plan.free_space import FreeSpace, Ranges
from ansible_collections.dn42.compose.plugins.module_utils._address_plan.model import GROWABLE, Block, Pool, Prefix, Request

# Why a block is where it is.
BEST_FIT = "new: the smallest free space that fits, the lowest address among equals"
BUDDY_FREE = "new: the space above it is free to grow into"
NO_BUDDY = "new: no place is left whose space above is free"
KEPT = "new: in the space above a growable block, nothing else is free"
REUSED = "new: nothing else is free, so it reuses released space"
FROM_HELD = "new: nothing else is free, so it takes the space of a block that was held (reuse_held)"
PACKED = "new: the only way that everybody has room"


class Batch(NamedTuple):
    """New blocks and why they are where they are."""

    reason: str
    blocks: List[Block]


class Space(NamedTuple):
    """What is known about one family of a pool before somebody is placed."""

    pool: Pool
    family: int
    owned: Sequence[Prefix]  # by somebody, those that are held too
    closed: Ranges  # reserved, or in use on a host
    released: Sequence[Block]
    held: Sequence[Prefix]  # that may be taken in need

    @property
    def within(self) -> Tuple[Prefix, ...]:
        return tuple(self.pool.prefixes[self.family])

    @property
    def taken(self) -> List[Prefix]:
        return [*self.owned, *(prefix for prefix in self.closed.prefixes if prefix.family == self.family)]


def place(space: Space, wanted: Iterable[Request]) -> Tuple[List[Batch], List[Request]]:
    """Place as many as possible; returns them and those that are left."""
    queue = _Queue(space, wanted)
    unused = [*space.taken, *(block.prefix for block in space.released)]
    kept: List[Prefix] = []
    if space.pool.placement == GROWABLE:
        kept = _growth_room(space)
        free = FreeSpace(space.within, unused + kept)
        kept += queue.place_growable(free)
        queue.place(free.take_many, NO_BUDDY)
    else:
        free = FreeSpace(space.within, unused)
        queue.place(free.take_many, BEST_FIT)
    for pieces, reason in _reserves(space, kept) if queue else ():
        for prefix in pieces:
            free.give(prefix)
        queue.place(free.take_many, reason)
        if not queue:
            break
    return queue.placed, queue.left()


def pack(space: Space, wanted: Iterable[Request]) -> Tuple[List[Batch], List[Request]]:
    """Place large ones first into everything that can be had. When somebody is left then, there is no way."""
    queue = _Queue(space, wanted)
    may_go = set(space.held)
    stays = space._replace(owned=[prefix for prefix in space.owned if prefix not in may_go])  # what a host uses of the rest stays closed
    queue.place(FreeSpace(space.within, stays.taken).take_many, PACKED)
    return queue.placed, queue.left()


class _Queue:
    """Those who wait for a block, large ones first so that they are not cut off by small ones, then by name."""

    def __init__(self, space: Space, wanted: Iterable[Request]) -> None:
        self._family, self._pool = space.family, space.pool.name
        by_length: Dict[int, List[Request]] = {}
        for request in wanted:
            by_length.setdefault(request.lengths[space.family], []).append(request)
        self._waiting = [(length, sorted(requests, key=attrgetter("name"))) for length, requests in sorted(by_length.items())]
        self.placed: List[Batch] = []

    def __bool__(self) -> bool:
        return any(requests for _length, requests in self._waiting)

    def left(self) -> List[Request]:
        return [request for _length, requests in self._waiting for request in requests]

    def place(self, take_many: Callable[[int, int], List[int]], reason: str) -> List[Block]:
        """Let all who can take a place; returns their blocks."""
        family, pool = self._family, self._pool
        blocks: List[Block] = []
        make = tuple.__new__  # a named tuple's own constructor takes twice the time, and this runs for every block
        for length, requests in self._waiting:
            networks = take_many(length, len(requests))
            blocks += [make(Block, (make(Prefix, (family, network, length)), request.name, pool, 0, "")) for network, request in zip(networks, requests)]
            del requests[: len(networks)]
        if blocks:
            self.placed.append(Batch(reason, blocks))
        return blocks

    def place_growable(self, free: FreeSpace) -> List[Prefix]:
        """Take twice the space and use its lower half; returns the upper halves."""
        new = self.place(lambda length, count: free.take_many(length - 1, count) if length else [], BUDDY_FREE)
        return [_above(block.prefix) for block in new]


def _above(prefix: Prefix) -> Prefix:
    return Prefix(prefix.family, prefix.end, prefix.length)


def _growth_room(space: Space) -> List[Prefix]:
    """The free space above those blocks that can double in place."""
    within = Ranges(space.within)
    taken = Ranges(space.taken)
    room = []
    for prefix in space.owned:
        above = _above(prefix)
        double = Prefix(prefix.family, prefix.network, prefix.length - 1)
        if not prefix.network & (above.end - above.network) and within.around(double) and not taken.overlapping(above):
            room.append(above)
    return room


def _reserves(space: Space, kept: Sequence[Prefix]) -> Iterable[Tuple[List[Prefix], str]]:
    """What is given up in need, in this order. Only free space inside of the pool is in it, each part once."""
    released = Ranges(block.prefix for block in space.released)
    if kept:
        yield [piece for prefix in kept for piece in released.rest_of(prefix)], KEPT
    within = Ranges(space.within)
    taken = Ranges([*space.closed.prefixes, *space.owned])  # a pin or growth in this call may have come upon released space
    for _number, group in groupby(sorted(space.released, key=lambda block: (block.released, block.prefix)), key=lambda block: block.released):
        yield [piece for block in group for piece in _usable(block.prefix, within, taken)], REUSED
    for prefix in space.held:
        yield _usable(prefix, within, space.closed), FROM_HELD


def _usable(prefix: Prefix, within: Ranges, closed: Ranges) -> List[Prefix]:
    return [piece for outer in within.overlapping(prefix) for piece in closed.rest_of(max(outer, prefix, key=lambda item: item.length))]
