# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a plan looks like from outside: who has which part of a pool, how full it is, and why a holder is where it is.

This module util is PRIVATE to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import difflib
from typing import Collection, Dict, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from ansible_collections.dn42.compose.plugins.module_utils._address_plan.decide import decide
from ansible_collections.dn42.compose.plugins.module_utils._address_plan.free_space import FreeSpace, Ranges
from ansible_collections.dn42.compose.plugins.module_utils._address_plan.messages import words
from ansible_collections.dn42.compose.plugins.module_utils._address_plan.model import (
    BITS,
    FAMILY_NAMES,
    NODE,
    Ask,
    Block,
    Plan,
    Pool,
    Prefix,
    Refused,
    Request,
    address_text,
)

# What a part of a pool is. Every address of a pool is exactly one of these.
USED = "used"
HELD = "held"  # owned by somebody who is no longer asked for
RELEASED = "released"
RESERVED = "reserved"
FREE = "free"  # never used, as far as the plan knows
KINDS = (USED, HELD, RELEASED, RESERVED, FREE)


class Part(NamedTuple):
    """A range of a pool's prefix that is one thing. Ends before `end`; sorts by address."""

    start: int
    end: int
    kind: str
    holder: str = ""
    prefix: Optional[Prefix] = None  # of the block, which may reach out of the range


class Usage(NamedTuple):
    """How full one family of a pool is, in addresses.

    `largest` is the largest block that can still be had, released space included, and `blocks` says how many of each
    prefix length can be had instead of one another. `fragmentation` is 0 when the free space is as good as one piece:
    1 - largest / (the largest power of two that is not above the space that can be had).
    """

    pool: Pool
    family: int
    size: int
    addresses: Mapping[str, int]  # per kind
    largest: Optional[Prefix]
    blocks: Mapping[int, int]
    fragmentation: float

    @property
    def available(self) -> int:
        """What a new holder could get: never used and released."""
        return self.addresses[FREE] + self.addresses[RELEASED]

    @property
    def utilisation(self) -> float:
        """The share that somebody owns, of what is not reserved."""
        usable = self.size - self.addresses[RESERVED]
        return (self.addresses[USED] + self.addresses[HELD]) / usable if usable else 1.0


class Past(NamedTuple):
    """What a store remembers of a prefix."""

    when: str
    kind: str
    prefix: Prefix
    holder: str


class Explanation(NamedTuple):
    """What there is to say about one holder. `lines` are sentences."""

    holder: str
    known: bool
    lines: List[str]


def is_held(block: Block, asked: Optional[Collection[Tuple[str, str]]]) -> bool:
    """Whether its holder is no longer asked for. Where nobody says who is asked for, all are."""
    return asked is not None and (block.holder, block.pool) not in asked


def parts(plan: Plan, prefix: Prefix, reserved: Iterable[Prefix], asked: Optional[Collection[Tuple[str, str]]]) -> List[Part]:
    """All of a pool's prefix, by address and without gaps."""
    owned = _inside(plan.blocks, prefix)
    own = Ranges(block.prefix for block in owned)
    closed = [rest for entry in Ranges(reserved).overlapping(prefix) for rest in own.rest_of(entry)]
    taken = Ranges([*own.prefixes, *closed])
    found = [Part(block.prefix.network, block.prefix.end, HELD if is_held(block, asked) else USED, block.holder, block.prefix) for block in owned]
    found += [Part(entry.network, entry.end, RESERVED) for entry in closed]
    for block in _inside(plan.released, prefix):
        found += [Part(rest.network, rest.end, RELEASED, block.holder, block.prefix) for rest in taken.rest_of(block.prefix)]
    return _with_free(prefix, sorted(found, key=lambda part: part.start))


def _inside(blocks: Sequence[Block], prefix: Prefix) -> List[Block]:
    return [block for block in blocks if block.prefix.overlaps(prefix)]


def _with_free(prefix: Prefix, found: Iterable[Part]) -> List[Part]:
    """Cut at the ends of the prefix, and with the free ranges in between."""
    whole: List[Part] = []
    position = prefix.network
    for part in found:
        start, end = max(part.start, position), min(part.end, prefix.end)
        if start >= end:
            continue
        if start > position:
            whole.append(Part(position, start, FREE))
        whole.append(part._replace(start=start, end=end))
        position = end
    if position < prefix.end:
        whole.append(Part(position, prefix.end, FREE))
    return whole


def usage(plan: Plan, pools: Iterable[Pool], asked: Optional[Collection[Tuple[str, str]]]) -> List[Usage]:
    """Every family of every pool, by name."""
    return [_usage(plan, pool, family, asked) for pool in sorted(pools, key=lambda item: item.name) for family in sorted(pool.prefixes)]


def _usage(plan: Plan, pool: Pool, family: int, asked: Optional[Collection[Tuple[str, str]]]) -> Usage:
    addresses = dict.fromkeys(KINDS, 0)
    lengths = [pool.lengths[family]] if family in pool.lengths else []
    for prefix in pool.prefixes[family]:
        for part in parts(plan, prefix, pool.reserved, asked):
            addresses[part.kind] += part.end - part.start
            if part.prefix is not None and part.kind in (USED, HELD):
                lengths.append(part.prefix.length)
    free = FreeSpace(pool.prefixes[family], _taken(plan, pool, family))
    pieces = free.pieces()
    largest = min(pieces, key=lambda piece: (piece.length, piece.network)) if pieces else None
    blocks = {length: free.count(length) for length in range(largest.length, max([largest.length, *lengths]) + 1)} if largest else {}
    available = addresses[FREE] + addresses[RELEASED]
    best = 1 << (available.bit_length() - 1) if available else 0
    fragmentation = 1 - (1 << (BITS[family] - largest.length)) / best if largest and best else 0.0
    return Usage(pool, family, sum(addresses.values()), addresses, largest, blocks, max(fragmentation, 0.0))


def _taken(plan: Plan, pool: Pool, family: int) -> List[Prefix]:
    """What nobody else can get, wherever it is written."""
    return [*(block.prefix for block in plan.blocks if block.prefix.family == family), *(entry for entry in pool.reserved if entry.family == family)]


def summary(usages: Sequence[Usage], plan: Plan, asked: Optional[Collection[Tuple[str, str]]]) -> str:
    """The table, and below it whose blocks are held or released."""
    held = [f"{block.prefix}  {block.holder}" for block in plan.blocks if is_held(block, asked)]
    released = [f"{block.prefix}  {block.holder}, release {block.released}" for block in plan.released]
    sections = [
        ("Held: nobody asks for them any more, and they stay until they are released by name", held),
        ("Released: free again, reused after all other space, and given back to a holder that returns in time", released),
    ]
    return "\n".join([table(usages), *(f"{title}:\n" + "".join(f"  {line}\n" for line in lines) for title, lines in sections if lines)])


def table(usages: Sequence[Usage]) -> str:
    """All pools as a table for a terminal, in blocks of each pool's size."""
    rows = [("pool", "family", "block", "in use", "held", "released", "reserved", "free", "utilisation", "largest free", "fragmentation")]
    for item in usages:
        length = item.pool.lengths[item.family]
        counts = [_blocks(item.addresses[kind], BITS[item.family] - length) for kind in KINDS]
        largest = f"/{item.largest.length}" if item.largest else "none"
        rows.append((item.pool.name, FAMILY_NAMES[item.family], f"/{length}", *counts, f"{item.utilisation:.1%}", largest, f"{item.fragmentation:.2f}"))  # type: ignore[arg-type]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(f"{cell:<{width}}" if column < 3 else f"{cell:>{width}}" for column, (cell, width) in enumerate(zip(row, widths))).rstrip() for row in rows) + "\n"


def _blocks(addresses: int, block_bits: int) -> str:
    """How many blocks that is, with a decimal where it is not whole."""
    whole, rest = divmod(addresses, 1 << block_bits)
    return f"{whole:,}{f'.{rest * 10 >> block_bits}' if rest else ''}"


# --- explain ----------------------------------------------------------------------------------------------------------------


def explain(name: str, plan: Plan, ask: Ask, asked: Optional[Collection[Tuple[str, str]]] = None, past: Sequence[Past] = ()) -> Explanation:
    """What is known about a holder: what it has and why, whether it can grow, who is beside it, what it would get anew.

    `ask` says the pools, and how the holder asks if it does; `asked` who is asked for at all, None where nobody says.
    `past` is what the store remembers.
    """
    return _Explain(name, plan, ask, asked, past).told()


class _Explain:
    """The sentences about one holder."""

    def __init__(self, name: str, plan: Plan, ask: Ask, asked: Optional[Collection[Tuple[str, str]]], past: Sequence[Past]) -> None:
        self.name, self.plan, self.ask, self.asked, self.past = name, plan, ask, asked, past
        self.pools = {pool.name: pool for pool in ask.pools}
        self.request = next((request for request in ask.requests if request.name == name), None)
        self.own = [block for block in plan.blocks if block.holder == name]
        self.left = [block for block in plan.released if block.holder == name]

    def told(self) -> Explanation:
        lines: List[str] = []
        for block in self.own:
            lines += self._owned(block)
        for block in self.left:
            lines.append(self._given_up(block))
        if not self.own:
            lines += self._newcomer()
        return Explanation(self.name, bool(self.own or self.left or self.request), lines)

    def _owned(self, block: Block) -> List[str]:
        pool = self.pools.get(block.pool)
        lines = [f"{self.name} has {block.prefix} of pool {block.pool}{self._why(block)}."]
        if is_held(block, self.asked):
            lines.append(f"It is held: nobody asks for {self.name} any more. It stays until it is released by name, with this prefix.")
        outer = _outer(pool, block.prefix)
        if pool is None or outer is None:
            where = f"Pool {block.pool} is not among the pools ({words(sorted(self.pools))})" if pool is None else f"No prefix of pool {block.pool} holds it"
            return [*lines, f"{where}, so nothing more can be said about its surroundings."]
        lines.append(self._growth(block, pool, outer))
        lines.append(self._neighbours(block, outer))
        lines += self._before(block)
        lines.append(self._anew(block, pool))
        return lines

    def _why(self, block: Block) -> str:
        pin = self.request.pins.get(block.prefix.family) if self.request else None
        if pin == block.prefix:
            return f", where {self.request.pin_key if self.request else 'a pin'} pins it"
        return ", and keeps it because it has it; the plan does not note what was free when it was given"

    def _growth(self, block: Block, pool: Pool, outer: Prefix) -> str:
        """How far it can grow upwards with every address kept, and what ends that."""
        others = [(other.prefix, f"{other.prefix} of {other.holder}") for other in self.plan.blocks if other != block and other.prefix.family == block.prefix.family]
        others += [(entry, f"{entry}, which is reserved") for entry in pool.reserved if entry.family == block.prefix.family]
        reached = block.prefix
        while reached.length:
            larger = Prefix(reached.family, reached.network, reached.length - 1)
            obstacle = _obstacle(larger, outer, others)
            if obstacle:
                able = f"It can grow in place to {reached}, with all its addresses kept" if reached != block.prefix else "It cannot grow in place"
                return f"{able}{'; no further' if reached != block.prefix else ''}: {obstacle}."
            reached = larger
        return f"It can grow in place to {reached}."

    def _neighbours(self, block: Block, outer: Prefix) -> str:
        everything = parts(self.plan, outer, self.pools[block.pool].reserved, self.asked)
        index = next(number for number, part in enumerate(everything) if part.start == max(block.prefix.network, outer.network))
        below = _side(everything[index - 1], outer.family) if index else f"the pool's prefix {outer} begins"
        above = _side(everything[index + 1], outer.family) if index + 1 < len(everything) else f"the pool's prefix {outer} ends"
        return f"Below it: {below}. Above it: {above}."

    def _before(self, block: Block) -> List[str]:
        """Who had the space earlier: what the store remembers, and pieces of released blocks that are left beside it."""
        events = [event for event in self.past if event.holder != self.name and event.prefix.overlaps(block.prefix)]
        return [f"Before, {event.holder} had {event.prefix} ({event.kind} {event.when})." for event in events[:3]]

    def _anew(self, block: Block, pool: Pool) -> str:
        family = block.prefix.family
        rest = Plan(tuple(other for other in self.plan.blocks if other != block), self.plan.released)
        found, trouble = self._would_get(rest, pool, {family: block.prefix.length})
        if not found:
            return f"Placed anew today, it would get no /{block.prefix.length}: {trouble}"
        return f"Placed anew today, it would get {'the same block' if found[family] == block.prefix else found[family]}."

    def _given_up(self, block: Block) -> str:
        return f"{self.name} gave up {block.prefix} of pool {block.pool} (release {block.released} of this plan); it is free, and reused after all other space."

    def _newcomer(self) -> List[str]:
        """What somebody without a block would get."""
        if self.request is not None:
            lines = [f"{self.name} is asked for and has no block yet."]
            chosen = [self.pools[self.request.pool]]
        else:
            lines = [] if self.left else [f"Nobody called {self.name} has a block or had one{self._close()}"]
            former = {block.pool for block in self.left}
            chosen = sorted((pool for pool in self.pools.values() if not former or pool.name in former), key=lambda pool: (pool.purpose != NODE, pool.key))
        for pool in chosen:
            found, trouble = self._would_get(self.plan, pool, self.request.lengths if self.request else pool.lengths)
            got = f"it would get {' and '.join(str(found[family]) for family in sorted(found))}" if found else f"there is no room: {trouble}"
            lines.append(f"If it asked now, in pool {pool.name} {got}.")
        return lines

    def _close(self) -> str:
        names = sorted({block.holder for block in (*self.plan.blocks, *self.plan.released)})
        close = difflib.get_close_matches(self.name, names, n=1)
        return f"; do you mean {close[0]}?" if close else "."

    def _would_get(self, plan: Plan, pool: Pool, lengths: Mapping[int, int]) -> Tuple[Dict[int, Prefix], str]:
        """The engine's own answer for this holder alone, everybody else where they are."""
        families = {family: length for family, length in lengths.items() if family in pool.prefixes}
        alone = pool if set(families) == set(pool.prefixes) else _only(pool, families)
        others = tuple(other for other in self.ask.pools if other.name != pool.name)
        kept = Plan(tuple(block for block in plan.blocks if block.prefix.family in families or block.pool != pool.name), plan.released)
        pins = {family: pin for family, pin in self.request.pins.items() if family in families} if self.request and not self.own else {}
        try:
            decision = decide(kept, Ask((alone, *others), (Request(self.name, pool.name, families, pins),), {}, in_use=self.ask.in_use))
        except Refused as refusal:
            return {}, refusal.faults[0].message
        return dict(decision.given[self.name]), ""


def _only(pool: Pool, families: Collection[int]) -> Pool:
    """A pool without its other families."""
    return Pool(
        name=pool.name,
        prefixes={family: prefixes for family, prefixes in pool.prefixes.items() if family in families},
        lengths={family: length for family, length in pool.lengths.items() if family in families},
        reserved=tuple(entry for entry in pool.reserved if entry.family in families),
        purpose=pool.purpose,
        placement=pool.placement,
        key=pool.key,
    )


def _outer(pool: Optional[Pool], prefix: Prefix) -> Optional[Prefix]:
    return next((outer for outer in pool.prefixes.get(prefix.family, ()) if outer.covers(prefix)), None) if pool else None


def _obstacle(larger: Prefix, outer: Prefix, others: Iterable[Tuple[Prefix, str]]) -> str:
    """What keeps a block from becoming that large, empty when nothing does."""
    size = 1 << (BITS[larger.family] - larger.length)
    if larger.length < outer.length:
        return f"it is all of the pool's prefix {outer}" if larger.network == outer.network else f"the pool's prefix ends at {outer}"
    if larger.network % size:
        aligned = larger._replace(network=larger.network - larger.network % size)
        return f"a /{larger.length} cannot begin at {address_text(larger.family, larger.network)}; the one around it is {aligned}"
    blocking = [text for prefix, text in others if prefix.overlaps(larger)]
    return f"a /{larger.length} would need the space of {words(blocking)}" if blocking else ""


def _side(part: Part, family: int) -> str:
    """A neighbour in words."""
    if part.kind == USED:
        return f"{part.prefix} of {part.holder}"
    if part.kind == HELD:
        return f"{part.prefix} of {part.holder} (held)"
    reach = f"{address_text(family, part.start)} to {address_text(family, part.end - 1)}"
    if part.kind == RELEASED:
        return f"free since {part.holder} gave it up, {reach}"
    return f"{part.kind}, {reach}"
