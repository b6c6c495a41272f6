# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which space is free.

Free space is derived from what is taken, never stored, so it cannot disagree with the plan.
It is kept as the largest aligned free pieces, one heap of network addresses per prefix length:
the best fit is the longest length not above the wanted one, and its lowest address is the heap's head.

This module util is PRIVATE to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from typing import Collection, Dict, Iterable, Iterator, List, Optional, Set, Tuple

from ansible_collections.dn42.compose.plugins.module_utils._address_plan.model import BITS, Prefix


def aligned_pieces(bits: int, start: int, end: int) -> Iterator[Tuple[int, int]]:
    """Cut a range of addresses into its largest aligned pieces, as pairs of prefix length and network."""
    while start < end:
        size_bits = min((end - start).bit_length() - 1, (start & -start).bit_length() - 1 if start else bits)
        yield bits - size_bits, start
        start += 1 << size_bits


class Ranges:
    """A set of addresses as prefixes that do not overlap, for questions in logarithmic time."""

    def __init__(self, prefixes: Iterable[Prefix]) -> None:
        self.prefixes: List[Prefix] = []
        family, end = 0, 0
        for prefix in sorted(prefixes):
            if prefix.family != family or prefix.network >= end:
                self.prefixes.append(prefix)
                family, end = prefix.family, prefix.end

    def span(self, prefix: Prefix) -> Tuple[int, int]:
        """From where to where, as indexes, those lie that share an address with `prefix`."""
        start = bisect_left(self.prefixes, prefix)
        if start and self.prefixes[start - 1].covers(prefix):
            return start - 1, start
        return start, bisect_left(self.prefixes, Prefix(prefix.family, prefix.end, 0), start)

    def overlapping(self, prefix: Prefix) -> List[Prefix]:
        """Those that share an address with `prefix`, sorted by address."""
        start, end = self.span(prefix)
        return self.prefixes[start:end]

    def around(self, prefix: Prefix) -> Optional[Prefix]:
        """The one that covers `prefix`."""
        start, end = self.span(prefix)
        return self.prefixes[start] if end - start == 1 and self.prefixes[start].length <= prefix.length else None

    def rest_of(self, prefix: Prefix) -> List[Prefix]:
        """What is left of `prefix` without all of these."""
        found = self.overlapping(prefix)
        if not found:
            return [prefix]
        rest = []
        start, bits = prefix.network, BITS[prefix.family]
        for taken in found:
            rest += [Prefix(prefix.family, network, length) for length, network in aligned_pieces(bits, start, taken.network)]
            start = taken.end
        return rest + [Prefix(prefix.family, network, length) for length, network in aligned_pieces(bits, start, prefix.end)]


class FreeSpace:
    """The free aligned pieces of some prefixes of one family, without what is taken.

    The prefixes do not overlap each other; what is taken may lie outside of them or overlap.
    Two neighbouring prefixes are not joined: a block is always inside one of them.
    """

    def __init__(self, prefixes: Iterable[Prefix], taken: Iterable[Prefix] = ()) -> None:
        self._within = Ranges(prefixes)
        self._pieces: Dict[int, List[int]] = {}
        self._free: Optional[Dict[int, Set[int]]] = None  # what of the heaps is still free, once space was given back
        self._lengths = 0  # bit n is set while there is a piece of length n
        self._bits = BITS[self._within.prefixes[0].family] if self._within.prefixes else 0
        occupied = sorted(taken)
        position, count = 0, len(occupied)
        for prefix in self._within.prefixes:
            start, outer_end = prefix.network, prefix.end
            while position < count:
                family, network, length = occupied[position]
                if network >= outer_end or family != prefix.family:
                    if family >= prefix.family:
                        break
                    position += 1
                    continue
                if network > start:
                    self._add_gap(start, network)
                end = network + (1 << (self._bits - length))
                start = max(start, end)
                if end > outer_end:
                    break  # it reaches into the next prefix too
                position += 1
            self._add_gap(start, outer_end)
        for heap in self._pieces.values():
            heapq.heapify(heap)

    def _add_gap(self, start: int, end: int) -> None:
        for length, network in aligned_pieces(self._bits, start, end):
            self._pieces.setdefault(length, []).append(network)
            self._lengths |= 1 << length

    def take(self, length: int) -> Optional[int]:
        """Take the smallest piece that fits, the lowest among equals; None when there is none."""
        return next(iter(self.take_many(length, 1)), None)

    def take_many(self, length: int, count: int) -> List[int]:
        """Take up to `count` blocks, the same ones as with one `take` after the other.

        What is left of a piece is smaller than all other pieces that fit, so the next blocks come from there in any case.
        """
        networks: List[int] = []
        size = 1 << (self._bits - length)
        while count:
            piece = self._pop(length)
            if piece is None:
                break
            found, network = piece
            fitting = min(count, 1 << (length - found))
            end = network + fitting * size
            networks.extend(range(network, end, size))
            count -= fitting
            for rest_length, rest in aligned_pieces(self._bits, end, network + (1 << (self._bits - found))):
                self._push(rest_length, rest)
        return networks

    def _pop(self, length: int) -> Optional[Tuple[int, int]]:
        """Take the whole of the smallest piece that fits: its prefix length and network."""
        fitting = self._lengths & ((2 << length) - 1)
        if not fitting:
            return None
        found = fitting.bit_length() - 1
        heap = self._pieces[found]
        network = heapq.heappop(heap)
        left: Collection[int] = heap
        if self._free is not None:
            left = self._free[found]
            while network not in left:  # joined with its neighbour since
                network = heapq.heappop(heap)
            self._free[found].remove(network)
        if not left:
            self._lengths &= ~(1 << found)
        return found, network

    def _push(self, length: int, network: int) -> None:
        heapq.heappush(self._pieces.setdefault(length, []), network)
        self._lengths |= 1 << length
        if self._free is not None:
            self._free.setdefault(length, set()).add(network)

    def give(self, prefix: Prefix) -> None:
        """Make taken space free. It lies inside one of the prefixes and is joined with its free neighbours."""
        outer = self._within.around(prefix)
        assert outer is not None
        if self._free is None:
            self._free = {length: set(heap) for length, heap in self._pieces.items()}
        network, length = prefix.network, prefix.length
        while length > outer.length:
            size = 1 << (self._bits - length)
            same = self._free.get(length)
            if not same or network ^ size not in same:
                break
            same.remove(network ^ size)
            if not same:
                self._lengths &= ~(1 << length)
            network &= ~size
            length -= 1
        self._push(length, network)

    def count(self, length: int) -> int:
        """How many blocks of that length are free."""
        return sum(len(pieces) << (length - piece) for piece, pieces in self._current().items() if piece <= length)

    def pieces(self) -> List[Prefix]:
        """All free pieces, sorted by address."""
        if not self._within.prefixes:
            return []
        family = self._within.prefixes[0].family
        return sorted(Prefix(family, network, length) for length, pieces in self._current().items() for network in pieces)

    def _current(self) -> Dict[int, Iterable[int]]:
        return self._pieces if self._free is None else self._free  # type: ignore[return-value]
