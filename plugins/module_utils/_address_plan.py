# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The engine of the address plan: who gets which block.

Everything here is a pure function of the plan so far, the pools and the requests. It knows nothing of
Ansible, files or spelling. A prefix is three integers; the standard library only prints it.

Free space is derived from what is taken, never stored, so it cannot disagree with the plan.
It is kept as the largest aligned free pieces, one heap of network addresses per prefix length:
the best fit is the longest length not above the wanted one, and its lowest address is the heap's head.

This module util is PRIVATE to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import bisect
import heapq
import ipaddress
import json
from dataclasses import dataclass, field
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Tuple

BITS = {4: 32, 6: 128}
FAMILY_NAMES = {4: "ipv4", 6: "ipv6"}
FAMILIES = (4, 6)

# Docker takes the first address of a network for the bridge on the host, in both families.
HOST = "host"
HOST_OFFSET = 1

LISTED = 24  # owners that a message names before it says "and N more"


class Prefix(NamedTuple):
    """An aligned block of addresses; sorts by family and address, a larger block before its parts."""

    family: int
    network: int
    length: int

    @property
    def end(self) -> int:
        """The first address behind the prefix."""
        return self.network + (1 << (BITS[self.family] - self.length))

    def covers(self, other: Prefix) -> bool:
        """Whether `other` lies wholly inside."""
        return self.family == other.family and self.network <= other.network and other.end <= self.end

    def overlaps(self, other: Prefix) -> bool:
        """Whether the two share an address."""
        return self.covers(other) or other.covers(self)

    def __str__(self) -> str:
        return f"{address_text(self.family, self.network)}/{self.length}"


def address_text(family: int, number: int) -> str:
    """The canonical spelling of an address, IPv6 in lower case and compressed."""
    return str(ipaddress.IPv4Address(number) if family == 4 else ipaddress.IPv6Address(number))


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong: where, the value as written, and what is right."""

    key: str
    value: Any
    message: str

    def __str__(self) -> str:
        return f"{self.key}: {json.dumps(self.value, ensure_ascii=False, default=str)}: {self.message}"

    def as_dict(self) -> Dict[str, Any]:
        """For a module's return value."""
        return {"key": self.key, "value": self.value, "message": self.message}


class Refused(Exception):
    """The request cannot be met; `faults` holds every reason, in a stable order."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = list(faults)
        super().__init__("\n".join(str(fault) for fault in self.faults))


@dataclass(frozen=True)
class Block:
    """A prefix that somebody owns. `origin` says where it was read from, for messages."""

    prefix: Prefix
    holder: str
    pool: str
    origin: str = field(default="", compare=False)


@dataclass(frozen=True)
class Pool:
    """Prefixes to take blocks from. `lengths` is the block size per family as a prefix length."""

    name: str
    prefixes: Mapping[int, Tuple[Prefix, ...]]
    lengths: Mapping[int, int]
    reserved: Tuple[Prefix, ...] = ()
    key: str = field(default="pools", compare=False)


@dataclass(frozen=True)
class Request:
    """One holder that wants a block of `lengths[family]` per family, at `pins[family]` where given."""

    name: str
    pool: str
    lengths: Mapping[int, int]
    pins: Mapping[int, Prefix] = field(default_factory=dict)
    key: str = field(default="holders", compare=False)
    pin_key: str = field(default="pins", compare=False)


@dataclass(frozen=True)
class Decision:
    """The whole plan after a call, sorted by address, and what is new or no longer asked for."""

    blocks: Tuple[Block, ...]
    added: Tuple[Block, ...]
    held: Tuple[Block, ...]
    given: Mapping[str, Mapping[int, Prefix]]


class FreeSpace:
    """The free aligned pieces of some prefixes of one family, without what is taken.

    The prefixes do not overlap each other; what is taken may lie outside of them or overlap.
    Two neighbouring prefixes are not joined: a block is always inside one of them.
    """

    def __init__(self, prefixes: Iterable[Prefix], taken: Iterable[Prefix] = ()) -> None:
        self._pieces: Dict[int, List[int]] = {}
        self._lengths = 0  # bit n is set while there is a piece of length n
        self._bits = 0
        occupied = sorted(taken)
        position = 0
        for prefix in sorted(prefixes):
            self._bits = BITS[prefix.family]
            start = prefix.network
            while position < len(occupied) and occupied[position].network < prefix.end:
                block = occupied[position]
                self._add_gap(start, min(block.network, prefix.end))
                start = max(start, block.end)
                if block.end > prefix.end:
                    break  # it reaches into the next prefix too
                position += 1
            self._add_gap(start, prefix.end)
        for heap in self._pieces.values():
            heapq.heapify(heap)

    def _add_gap(self, start: int, end: int) -> None:
        """Cut a free range into its largest aligned pieces."""
        while start < end:
            size_bits = min((end - start).bit_length() - 1, (start & -start).bit_length() - 1 if start else self._bits)
            self._push(self._bits - size_bits, start)
            start += 1 << size_bits

    def _push(self, length: int, network: int) -> None:
        self._pieces.setdefault(length, []).append(network)
        self._lengths |= 1 << length

    def take(self, length: int) -> Optional[int]:
        """Take the smallest piece that fits, the lowest among equals; None when there is none."""
        fitting = self._lengths & ((1 << (length + 1)) - 1)
        if not fitting:
            return None
        found = fitting.bit_length() - 1
        heap = self._pieces[found]
        network = heapq.heappop(heap)
        if not heap:
            self._lengths &= ~(1 << found)
        for rest in range(found + 1, length + 1):  # keep the low half, give the high half back
            heapq.heappush(self._pieces.setdefault(rest, []), network + (1 << (self._bits - rest)))
            self._lengths |= 1 << rest
        return network

    def count(self, length: int) -> int:
        """How many blocks of that length are free."""
        return sum(len(heap) << (length - piece) for piece, heap in self._pieces.items() if piece <= length)


def decide(plan: Iterable[Block], pools: Sequence[Pool], requests: Sequence[Request], offsets: Mapping[str, int]) -> Decision:
    """Give every request its blocks, or raise `Refused` with every reason why not.

    `offsets` is what every block has to hold; it decides nothing about the place of a block.
    The result is the same for every order of `plan`, `pools` and `requests`.
    """
    blocks = sorted(plan, key=lambda block: block.prefix)
    faults = examine(blocks, pools, requests) + check_offsets(offsets, pools, requests)
    if faults:
        raise Refused(faults)
    own = {(block.holder, block.pool, block.prefix.family): block.prefix for block in blocks}
    added = [Block(pin, request.name, request.pool) for request in requests for family, pin in request.pins.items() if (request.name, request.pool, family) not in own]
    own.update({(block.holder, block.pool, block.prefix.family): block.prefix for block in added})
    for pool in sorted(pools, key=lambda item: item.name):
        for family in sorted(pool.prefixes):
            wanted = [item for item in requests if item.pool == pool.name and (item.name, pool.name, family) not in own]
            present = [block for block in blocks + added if block.pool == pool.name and block.prefix.family == family]
            placed, left = _place(pool, family, present, wanted)
            added += placed
            if left:
                faults.append(_too_small(pool, family, present, placed, left, requests, offsets))
    if faults:
        raise Refused(faults)
    return _decision(blocks, added, requests)


def _place(pool: Pool, family: int, present: Iterable[Block], wanted: Iterable[Request]) -> Tuple[List[Block], List[Request]]:
    """Place new blocks, large ones first so that they are not cut off by small ones, then by name."""
    free = FreeSpace(pool.prefixes[family], _taken(pool, family, present))
    placed: List[Block] = []
    left: List[Request] = []
    for request in sorted(wanted, key=lambda item: (item.lengths[family], item.name)):
        length = request.lengths[family]
        network = free.take(length)
        if network is None:
            left.append(request)
        else:
            placed.append(Block(Prefix(family, network, length), request.name, pool.name))
    return placed, left


def _taken(pool: Pool, family: int, present: Iterable[Block]) -> List[Prefix]:
    """What a new block must keep away from."""
    return [block.prefix for block in present] + [item for item in pool.reserved if item.family == family]


def _decision(blocks: List[Block], added: List[Block], requests: Sequence[Request]) -> Decision:
    asked = {(request.name, request.pool) for request in requests}
    after = tuple(sorted(blocks + added, key=lambda block: block.prefix))
    given: Dict[str, Dict[int, Prefix]] = {request.name: {} for request in requests}
    for block in after:
        if (block.holder, block.pool) in asked:
            given[block.holder][block.prefix.family] = block.prefix
    return Decision(
        blocks=after,
        added=tuple(sorted(added, key=lambda block: block.prefix)),
        held=tuple(block for block in after if (block.holder, block.pool) not in asked),
        given=given,
    )


def examine(blocks: Iterable[Block], pools: Sequence[Pool], requests: Sequence[Request]) -> List[Fault]:
    """Everything that is wrong before a single new block is placed."""
    blocks = sorted(blocks, key=lambda block: block.prefix)
    faults = check_blocks(blocks)
    faults += _blocks_against_pools(blocks, pools)
    by_name = {request.name: request for request in requests}
    faults += _moved_pool(blocks, by_name, pools)
    faults += _changed_size(blocks, by_name, pools)
    faults += _pins(blocks, pools, requests, by_name)
    return faults


def check_blocks(blocks: Iterable[Block]) -> List[Fault]:
    """What makes a plan contradict itself, whatever the pools: overlaps and second blocks."""
    faults = []
    first: Dict[Tuple[str, str, int], Block] = {}
    outer: Optional[Block] = None
    for block in sorted(blocks, key=lambda item: item.prefix):
        if outer is not None and outer.prefix.covers(block.prefix):
            message = f"overlaps {outer.prefix} of {outer.holder}{_at(outer)}; only one of them can own it"
            faults.append(Fault(block.origin or "plan", str(block.prefix), message))
        else:
            outer = block
        key = (block.holder, block.pool, block.prefix.family)
        if key in first:
            other = first[key]
            message = f"{block.holder} already has {other.prefix} in pool {block.pool}{_at(other)}; keep the one that is in use"
            faults.append(Fault(block.origin or "plan", str(block.prefix), message))
        first.setdefault(key, block)
    return faults


def _at(block: Block) -> str:
    return f" ({block.origin})" if block.origin else ""


def _blocks_against_pools(blocks: Iterable[Block], pools: Sequence[Pool]) -> List[Fault]:
    by_name = {pool.name: pool for pool in pools}
    faults = []
    for block in blocks:
        key = block.origin or "plan"
        pool = by_name.get(block.pool)
        if pool is None:
            message = f"{block.holder} has this block in pool {block.pool}, which is not among the pools ({_words(sorted(by_name))}); bring the pool back, or remove the line if nobody uses it"
            faults.append(Fault(key, str(block.prefix), message))
            continue
        inside = pool.prefixes.get(block.prefix.family, ())
        if not any(prefix.covers(block.prefix) for prefix in inside):
            message = f"{block.holder} has this block, and it is outside of pool {_extent(pool, block.prefix.family)}; put the prefix it came from back, or remove the line if nobody uses it"
            faults.append(Fault(key, str(block.prefix), message))
        for reserved in pool.reserved:
            if reserved.overlaps(block.prefix):
                message = f"overlaps the block {block.prefix} of {block.holder}{_at(block)}; reserve only what nobody has"
                faults.append(Fault(f"{pool.key}.reserved", str(reserved), message))
    return faults


def _extent(pool: Pool, family: int) -> str:
    inside = pool.prefixes.get(family)
    return f"{pool.name} ({_words(str(prefix) for prefix in inside) if inside else 'no ' + FAMILY_NAMES[family]})"


def _moved_pool(blocks: Iterable[Block], by_name: Mapping[str, Request], pools: Sequence[Pool]) -> List[Fault]:
    known = {pool.name for pool in pools}
    moved: Dict[Tuple[str, str], List[str]] = {}
    for block in blocks:
        request = by_name.get(block.holder)
        if request is not None and request.pool != block.pool and block.pool in known:
            moved.setdefault((block.holder, block.pool), []).append(str(block.prefix))
    faults = []
    for (name, pool), prefixes in sorted(moved.items()):
        request = by_name[name]
        message = (
            f"{name} has {' and '.join(prefixes)} in pool {pool}; another pool means renumbering it: new addresses for all"
            f" of its services and a new Docker network, and this version does not do that. Ask for pool {pool}"
        )
        faults.append(Fault(f"{request.key}.pool", request.pool, message))
    return faults


def _changed_size(blocks: Iterable[Block], by_name: Mapping[str, Request], pools: Sequence[Pool]) -> List[Fault]:
    """Recorded blocks of another size than asked; one fault per pool and family, since the pool says the size."""
    changed: Dict[Tuple[str, int, int], List[Block]] = {}
    for block in blocks:
        request = by_name.get(block.holder)
        if request is None or request.pool != block.pool:
            continue
        family = block.prefix.family
        wanted = request.lengths.get(family, block.prefix.length)
        if family not in request.pins and wanted != block.prefix.length:
            changed.setdefault((block.pool, family, wanted), []).append(block)
    keys = {pool.name: pool.key for pool in pools}
    faults = []
    for (pool, family, wanted), owners in sorted(changed.items()):
        recorded = " or ".join(str(length) for length in sorted({block.prefix.length for block in owners}))
        message = (
            f"the plan has {_owners(owners, set(by_name))}. Another size means renumbering: the addresses change unless"
            " the block can grow in place, the Docker networks of these nodes are made anew, and this version does not"
            f" do that. Write {recorded}, or pin the blocks that differ"
        )
        key = f"{keys.get(pool, 'pools')}.block_size.{FAMILY_NAMES[family]}"
        faults.append(Fault(key, wanted, message))
    return faults


def _pins(blocks: Sequence[Block], pools: Sequence[Pool], requests: Sequence[Request], by_name: Mapping[str, Request]) -> List[Fault]:
    """Pins that cannot be adopted: outside of their pool, on something that is taken, or not where the plan says."""
    prefixes = [block.prefix for block in blocks]
    own = {(block.holder, block.pool, block.prefix.family): block for block in blocks}
    pool_of = {pool.name: pool for pool in pools}
    pinned = sorted(
        ((pin, request) for request in requests for pin in request.pins.values()),
        key=lambda item: (item[0], item[1].name),
    )
    faults = []
    outer: Optional[Tuple[Prefix, Request]] = None
    for pin, request in pinned:
        reasons = []
        if outer is not None and outer[0].covers(pin):
            reasons.append(f"{outer[0]} is pinned for {outer[1].name}")
        else:
            outer = (pin, request)
        mine = own.get((request.name, request.pool, pin.family))
        if mine is None or mine.prefix != pin:
            reasons += _pin_outside(pin, pool_of[request.pool])
            reasons += _pin_taken(pin, request, blocks, prefixes, by_name)
        if mine is not None and mine.prefix != pin:
            reasons.append(f"{request.name} has {mine.prefix} in the plan{_at(mine)}; moving it is renumbering, which this version does not do. Pin {mine.prefix} or nothing")
        if reasons:
            faults.append(Fault(f"{request.pin_key}.{FAMILY_NAMES[pin.family]}", str(pin), "; ".join(reasons)))
    return faults


def _pin_taken(pin: Prefix, request: Request, blocks: Sequence[Block], prefixes: List[Prefix], by_name: Mapping[str, Request]) -> List[str]:
    """The blocks of others under a pin. In a plan without overlaps only the one before it can cover it."""
    start = bisect.bisect_left(prefixes, pin)
    end = bisect.bisect_left(prefixes, Prefix(pin.family, pin.end, 0))
    return [
        f"{other.prefix} belongs to {_owner(other, by_name)}{_at(other)}"
        for other in blocks[max(start - 1, 0) : end]
        if (other.holder, other.pool) != (request.name, request.pool) and other.prefix.overlaps(pin)
    ]


def _pin_outside(pin: Prefix, pool: Pool) -> List[str]:
    reasons = []
    inside = pool.prefixes.get(pin.family, ())
    if not any(prefix.covers(pin) for prefix in inside):
        reasons.append(f"is not inside pool {_extent(pool, pin.family)}")
    reasons += [f"{item} of pool {pool.name} is reserved" for item in pool.reserved if item.overlaps(pin)]
    return reasons


def _too_small(
    pool: Pool,
    family: int,
    recorded: Sequence[Block],
    placed: Sequence[Block],
    left: Sequence[Request],
    requests: Sequence[Request],
    offsets: Mapping[str, int],
) -> Fault:
    """The message of a full pool: what fits, who has it, who got none and what would do."""
    present = [*recorded, *placed]
    asked = {request.name for request in requests if request.pool == pool.name}
    prefixes = [str(prefix) for prefix in pool.prefixes[family]]
    reserved = [item for item in pool.reserved if item.family == family]
    length = min(request.lengths[family] for request in left)
    fits = FreeSpace(pool.prefixes[family], reserved).count(length)
    taken = f"{len(present)}, by {_owners(present, asked)}" if present else "0"
    message = (
        f"pool {pool.name} is too small: {fits} blocks of /{length} fit in {_words(prefixes)}"
        f"{' apart from what is reserved' if reserved else ''}; taken: {taken};"
        f" none is left for {_words(sorted(request.name for request in left))}."
        f" What would do: {'; or '.join(_remedies(pool, family, recorded, placed, left, offsets))}"
    )
    return Fault(f"{pool.key}.{FAMILY_NAMES[family]}", prefixes, message)


def _remedies(
    pool: Pool,
    family: int,
    recorded: Sequence[Block],
    placed: Sequence[Block],
    left: Sequence[Request],
    offsets: Mapping[str, int],
) -> List[str]:
    """What an operator can do about a full pool: more space, all of it in one prefix, smaller blocks."""
    sizes = [1 << (BITS[family] - request.lengths[family]) for request in left]
    count = len(recorded) + len(placed) + len(left)
    remedies = [f"a free /{_length_for(family, sum(sizes))} more in this list ({len(left)} blocks)"]
    grown = _grown_length(pool, family, _taken(pool, family, [*recorded, *placed]), left)
    if grown is not None:
        remedies.append(f"a /{grown} in place of {pool.prefixes[family][0]}, which holds all {count}")
    smaller = smaller_size(pool, family, count)
    if smaller is not None:
        length, fits = smaller
        largest = largest_length(family, max(offsets.values()))
        text = f"block_size {FAMILY_NAMES[family]}: {length} for {fits} blocks"
        if length > largest:
            text += f", too small for {len(offsets)} addresses, which need a /{largest}"
        elif recorded:
            text += ", which renumbers those that have one"
        remedies.append(text)
    return remedies


def _grown_length(pool: Pool, family: int, taken: Sequence[Prefix], left: Sequence[Request]) -> Optional[int]:
    """How far the pool's only prefix has to grow so that everybody fits; tried, since what is taken stays."""
    prefixes = pool.prefixes[family]
    lengths = sorted(request.lengths[family] for request in left)
    for length in range(prefixes[0].length - 1, -1, -1) if len(prefixes) == 1 else ():
        network = prefixes[0].network >> (BITS[family] - length) << (BITS[family] - length)
        free = FreeSpace([Prefix(family, network, length)], taken)
        if all(free.take(wanted) is not None for wanted in lengths):
            return length
    return None


def _length_for(family: int, addresses: int) -> int:
    """The length of the smallest prefix with that many addresses."""
    return BITS[family] - (addresses - 1).bit_length()


def smaller_size(pool: Pool, family: int, blocks: int) -> Optional[Tuple[int, int]]:
    """The largest block size below the pool's with which that many fit in it when empty, and how many then fit."""
    free = FreeSpace(pool.prefixes[family], _taken(pool, family, ()))
    for length in range(pool.lengths[family] + 1, BITS[family] + 1):
        if free.count(length) >= blocks:
            return length, free.count(length)
    return None


def last_offset(family: int, length: int) -> int:
    """The highest offset a container can have in a block; 0 when there is room for none.

    Offset 0 is the network (in IPv6 the anycast address of its routers), and IPv4's last one is the broadcast.
    """
    size = 1 << (BITS[family] - length)
    return max(size - 2, 0) if family == 4 else size - 1


def largest_length(family: int, offset: int) -> int:
    """The length of the smallest block that holds an offset."""
    return next(length for length in range(BITS[family], -1, -1) if last_offset(family, length) >= offset)


def check_offsets(offsets: Mapping[str, int], pools: Iterable[Pool], requests: Iterable[Request]) -> List[Fault]:
    """Offsets that do not fit into a block that somebody gets, by the size of the pool or by a pin."""
    places = [(f"{pool.key}.block_size.{FAMILY_NAMES[family]}", family, pool.lengths[family]) for pool in pools for family in pool.prefixes]
    places += [(f"{request.pin_key}.{FAMILY_NAMES[family]}", family, pin.length) for request in requests for family, pin in request.pins.items()]
    worst: Dict[int, Tuple[int, str]] = {}
    for key, family, length in sorted(places):
        if family not in worst or length > worst[family][0]:
            worst[family] = (length, key)
    faults = []
    for family, (length, key) in sorted(worst.items()):
        last = last_offset(family, length)
        room = f"host offsets 1 to {last}" if last else "no host offset"
        for name, offset in sorted(offsets.items(), key=lambda item: (item[1], item[0])):
            if offset > last:
                message = f"a /{length} ({key}) has {room}; a /{largest_length(family, offset)} would do"
                faults.append(Fault(f"offsets.{name}", offset, message))
    return faults


def addresses(given: Mapping[int, Prefix], offsets: Mapping[str, int]) -> Dict[str, Dict[str, Optional[str]]]:
    """The address of every service in a holder's blocks, null in a family that it has not."""
    return {
        name: {FAMILY_NAMES[family]: address_text(family, given[family].network + offset) if family in given else None for family in FAMILIES} for name, offset in offsets.items()
    }


def _owner(block: Block, asked: Iterable[str]) -> str:
    return block.holder if block.holder in asked else f"{block.holder} (held: no longer asked for)"


def _owners(blocks: Sequence[Block], asked: Iterable[str]) -> str:
    asked = set(asked)
    ordered = sorted(blocks, key=lambda block: block.prefix)
    return _words(f"{_owner(block, asked)} {block.prefix}" for block in ordered)


def _words(items: Iterable[str]) -> str:
    """A list for a message, cut where nobody reads on."""
    words = list(items)
    more = f" and {len(words) - LISTED} more" if len(words) > LISTED else ""
    return ", ".join(words[:LISTED]) + more if words else "none"
