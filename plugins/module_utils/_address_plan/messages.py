# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is said about a plan: lists of owners, and what would do when a pool is full.

This module util is PRIVATE to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

from typing import Iterable, List, NamedTuple, Optional, Sequence, Tuple

from ansible_collections.dn42.compose.plugins.module_utils._address_plan.free_space import FreeSpace
from ansible_collections.dn42.compose.plugins.module_utils._address_plan.model import BITS, FAMILY_NAMES, NODE, Ask, Block, Fault, InUse, Pool, Prefix, Request
from ansible_collections.dn42.compose.plugins.module_utils._address_plan.offsets import largest_length

LISTED = 24  # owners that a message names before it says "and N more"


def words(items: Iterable[str]) -> str:
    """A list for a message, cut where nobody reads on."""
    all_items = list(items)
    more = f" and {len(all_items) - LISTED} more" if len(all_items) > LISTED else ""
    return ", ".join(all_items[:LISTED]) + more if all_items else "none"


def at(block: Block) -> str:
    """Where a block was read from, in brackets."""
    return f" ({block.origin})" if block.origin else ""


def extent(pool: Pool, family: int) -> str:
    """A pool's name and its prefixes of a family."""
    inside = pool.prefixes.get(family)
    return f"{pool.name} ({words(str(prefix) for prefix in inside) if inside else 'no ' + FAMILY_NAMES[family]})"


def owned(blocks: Iterable[Block], held: Iterable[Block] = ()) -> str:
    """Who has which block, by address; those that are held are told as such."""
    idle = set(held)
    ordered = sorted(blocks, key=lambda block: block.prefix)
    return words(f"{block.holder}{' (held: no longer asked for)' if block in idle else ''} {block.prefix}" for block in ordered)


class Full(NamedTuple):
    """A pool that has no room for everybody, in one family."""

    pool: Pool
    family: int
    present: Sequence[Block]  # with those that were placed in the attempt
    held: Sequence[Block]
    in_use: Sequence[InUse]  # on hosts, inside the pool
    left: Sequence[Request]

    @property
    def reserved(self) -> List[Prefix]:
        return [prefix for prefix in self.pool.reserved if prefix.family == self.family]

    @property
    def closed(self) -> List[Prefix]:
        """What nobody can get."""
        return [*self.reserved, *(item.prefix for item in self.in_use)]

    @property
    def taken(self) -> List[Prefix]:
        return [*self.closed, *(block.prefix for block in self.present)]

    @property
    def lengths(self) -> List[int]:
        """The sizes that did not fit, the largest block first."""
        return sorted(request.lengths[self.family] for request in self.left)


def too_small(full: Full, ask: Ask) -> Fault:
    """The message of a full pool: what fits, who has it, who got none and what would do."""
    pool, family = full.pool, full.family
    prefixes = [str(prefix) for prefix in pool.prefixes[family]]
    length = full.lengths[0]
    fits = FreeSpace(pool.prefixes[family], full.closed).count(length)
    taken = f"{len(full.present)}, by {owned(full.present, full.held)}" if full.present else "0"
    message = (
        f"pool {pool.name} is too small: {fits} blocks of /{length} fit in {words(prefixes)}{_apart_from(full)}; taken: {taken};"
        f" none is left for {words(sorted(request.name for request in full.left))}{_in_pieces(full)}."
        f" What would do: {'; or '.join(_remedies(full, ask))}"
    )
    return Fault(f"{pool.key}.{FAMILY_NAMES[family]}", prefixes, message)


def _apart_from(full: Full) -> str:
    reasons = ["what is reserved"] if full.reserved else []
    if full.in_use:
        reasons.append(f"networks on hosts ({words(sorted({f'{item.what} on {item.host}: {item.prefix}' for item in full.in_use}))})")
    return f" apart from {' and '.join(reasons)}" if reasons else ""


def _in_pieces(full: Full) -> str:
    """Space that is free and of no use, since it is in pieces."""
    bits = BITS[full.family]
    free = FreeSpace(full.pool.prefixes[full.family], full.taken)
    addresses = free.count(bits)
    if addresses < sum(1 << (bits - length) for length in full.lengths):
        return ""
    largest = min(piece.length for piece in free.pieces())
    return f" ({addresses} addresses are free, but in pieces of at most a /{largest})"


def _remedies(full: Full, ask: Ask) -> List[str]:
    """What an operator can do about a full pool: more space, all of it in one prefix, held blocks, smaller blocks."""
    family, pool = full.family, full.pool
    sizes = [1 << (BITS[family] - length) for length in full.lengths]
    count = len(full.present) + len(full.left)
    remedies = [f"a free /{_length_for(family, sum(sizes))} more in this list ({len(full.left)} block{'s' if len(full.left) > 1 else ''})"]
    grown = _grown_length(full)
    if grown is not None:
        remedies.append(f"a /{grown} in place of {pool.prefixes[family][0]}, which holds all {count}")
    return remedies + _from_held(full, ask) + _smaller(full, ask, count)


def _from_held(full: Full, ask: Ask) -> List[str]:
    """How far the space of those that are no longer asked for goes."""
    if not full.held or ask.reuse_held:
        return []
    idle = set(full.held)
    free = FreeSpace(full.pool.prefixes[full.family], [*full.closed, *(block.prefix for block in full.present if block not in idle)])
    helped = sum(free.take(length) is not None for length in full.lengths)
    if not helped:
        return []
    part = "" if helped == len(full.left) else f" (enough for {helped} of {len(full.left)})"
    return [f"release {words(f'{block.prefix} of {block.holder}' for block in full.held)}, no longer asked for, or set reuse_held{part}"]


def _smaller(full: Full, ask: Ask, count: int) -> List[str]:
    found = smaller_size(full, count)
    if found is None:
        return []
    length, fits = found
    family = full.family
    text = f"block_size {FAMILY_NAMES[family]}: {length} for {fits} blocks"
    largest = largest_length(family, max(ask.offsets.values())) if full.pool.purpose == NODE and ask.offsets else BITS[family]
    if length > largest:
        text += f", too small for {len(ask.offsets)} addresses, which need a /{largest}"
    return [text]


def smaller_size(full: Full, blocks: int) -> Optional[Tuple[int, int]]:
    """The largest block size below the pool's with which that many fit in it when empty, and how many then fit."""
    free = FreeSpace(full.pool.prefixes[full.family], full.closed)
    for length in range(full.pool.lengths[full.family] + 1, BITS[full.family] + 1):
        if free.count(length) >= blocks:
            return length, free.count(length)
    return None


def _grown_length(full: Full) -> Optional[int]:
    """How far the pool's only prefix has to grow so that everybody fits; tried, since what is taken stays."""
    family, prefixes = full.family, full.pool.prefixes[full.family]
    for length in range(prefixes[0].length - 1, -1, -1) if len(prefixes) == 1 else ():
        network = prefixes[0].network >> (BITS[family] - length) << (BITS[family] - length)
        free = FreeSpace([Prefix(family, network, length)], full.taken)
        if all(free.take(wanted) is not None for wanted in full.lengths):
            return length
    return None


def _length_for(family: int, addresses: int) -> int:
    """The length of the smallest prefix with that many addresses."""
    return BITS[family] - (addresses - 1).bit_length()
