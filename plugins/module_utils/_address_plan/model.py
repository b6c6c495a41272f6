# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The words of the address plan: prefixes, blocks, pools, what is asked for and what is decided.

Nothing here knows of Ansible, files or spelling. A prefix is three integers; the standard library only prints it.

This module util is PRIVATE to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import ipaddress
import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Dict, FrozenSet, Iterable, Mapping, NamedTuple, Optional, Tuple

BITS = {4: 32, 6: 128}
FAMILY_NAMES = {4: "ipv4", 6: "ipv6"}
FAMILIES = (4, 6)

# Docker takes the first address of a network for the bridge on the host, in both families.
HOST = "host"
HOST_OFFSET = 1

# What the blocks of a pool are for. Only those of nodes hold the addresses of services; users may have words of their own.
NODE = "node"
ANYCAST = "anycast"
LOOPBACK = "loopback"

# Where a new block goes: as close as possible to the others, or with the space above it kept free to grow into.
COMPACT = "compact"
GROWABLE = "growable"
PLACEMENTS = (COMPACT, GROWABLE)


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


class Block(NamedTuple):
    """A prefix and whose it is.

    `released` is 0 for a block that somebody owns. Above 0 nobody owns it any more: it was the plan's n-th release,
    its space is free again, reused after all other space and oldest release first, and its former holder gets it
    back when it asks again before that. `origin` says where it was read from, for messages.
    """

    prefix: Prefix
    holder: str
    pool: str
    released: int = 0
    origin: str = ""

    def __eq__(self, other: object) -> bool:
        """Where a block was read from makes no difference."""
        return isinstance(other, Block) and self[:4] == other[:4]

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(self[:4])


class Plan(NamedTuple):
    """What a store keeps, both parts sorted by address. No two of all these blocks overlap."""

    blocks: Tuple[Block, ...] = ()
    released: Tuple[Block, ...] = ()


@dataclass(frozen=True)
class Pool:
    """Prefixes to take blocks from. `lengths` is the block size per family as a prefix length.

    `aggregates` are the registered prefixes that other networks are told about, where they are not the pool's own.
    """

    name: str
    prefixes: Mapping[int, Tuple[Prefix, ...]]
    lengths: Mapping[int, int]
    reserved: Tuple[Prefix, ...] = ()
    purpose: str = NODE
    placement: str = COMPACT
    aggregates: Tuple[Prefix, ...] = ()
    key: str = field(default="pools", compare=False)


@dataclass(frozen=True)
class Request:
    """One holder that wants a block of `lengths[family]` per family, at `pins[family]` where given.

    `size_key` is where a size of its own is written, empty when its pool says it.
    """

    name: str
    pool: str
    lengths: Mapping[int, int]
    pins: Mapping[int, Prefix] = field(default_factory=dict)
    key: str = field(default="holders", compare=False)
    pin_key: str = field(default="pins", compare=False)
    size_key: str = field(default="", compare=False)


@dataclass(frozen=True)
class Release:
    """Give up the blocks of a holder that is no longer asked for; `prefixes` are those that the caller expects it to have."""

    holder: str
    prefixes: Tuple[Prefix, ...]
    key: str = field(default="release", compare=False)


@dataclass(frozen=True)
class InUse:
    """A network that exists on a host outside of the plan, such as `Docker network web` or `route through eth1`."""

    host: str
    prefix: Prefix
    what: str


@dataclass(frozen=True)
class Ask:
    """Everything that is asked for in one call; its order means nothing."""

    pools: Tuple[Pool, ...]
    requests: Tuple[Request, ...]
    offsets: Mapping[str, int]
    releases: Tuple[Release, ...] = ()
    renumber: FrozenSet[str] = frozenset()  # holders that may get other addresses than they have
    reuse_held: bool = False  # take the blocks of those that are no longer asked for when nothing else is left
    in_use: Tuple[InUse, ...] = ()


class Change(NamedTuple):
    """One line of the diff: what moves from where to where, and why."""

    kind: str  # added, adopted, returned, grown, shrunk, renumbered or released
    holder: str
    pool: str
    before: Optional[Prefix]
    after: Optional[Prefix]
    reason: str


@dataclass(frozen=True)
class Decision:
    """The whole plan after a call, what changed, who holds a block without asking for it, and who asked."""

    plan: Plan
    changes: Tuple[Change, ...] = ()
    held: Tuple[Block, ...] = ()
    asked: Tuple[str, ...] = field(default=(), compare=False)  # in the order of the ask

    @cached_property
    def given(self) -> Dict[str, Dict[int, Prefix]]:
        """What everybody who asked has, by family."""
        given: Dict[str, Dict[int, Prefix]] = {name: {} for name in self.asked}
        held = {block.prefix for block in self.held}
        for block in self.plan.blocks:
            if block.prefix not in held:
                given[block.holder][block.prefix.family] = block.prefix
        return given
