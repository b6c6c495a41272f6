# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Places inside a block: the same offset for a service in every block, in both families.

This module util is PRIVATE to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

from typing import Dict, List, Mapping, Optional, Tuple

from ansible_collections.dn42.compose.plugins.module_utils._address_plan.model import (
    BITS,
    FAMILIES,
    FAMILY_NAMES,
    NODE,
    Ask,
    Fault,
    Prefix,
    address_text,
)


def last_offset(family: int, length: int) -> int:
    """The highest offset a container can have in a block; 0 when there is room for none.

    Offset 0 is the network (in IPv6 the anycast address of its routers), and IPv4's last one is the broadcast.
    """
    size = 1 << (BITS[family] - length)
    return max(size - 2, 0) if family == 4 else size - 1


def largest_length(family: int, offset: int) -> int:
    """The length of the smallest block that holds an offset."""
    return next(length for length in range(BITS[family], -1, -1) if last_offset(family, length) >= offset)


def addresses(given: Mapping[int, Prefix], offsets: Mapping[str, int]) -> Dict[str, Dict[str, Optional[str]]]:
    """The address of every service in a holder's blocks, null in a family that it has not."""
    return {
        name: {FAMILY_NAMES[family]: address_text(family, given[family].network + offset) if family in given else None for family in FAMILIES} for name, offset in offsets.items()
    }


def check_offsets(ask: Ask) -> List[Fault]:
    """Offsets that do not fit into a block that a node gets, by the size of its pool, its own size or a pin.

    Only the smallest block of a family is told.
    """
    faults = []
    for family, (length, key) in sorted(_smallest_blocks(ask).items()):
        last = last_offset(family, length)
        room = f"host offsets 1 to {last}" if last else "no host offset"
        for name, offset in sorted(ask.offsets.items(), key=lambda item: (item[1], item[0])):
            if offset > last:
                message = f"a /{length} ({key}) has {room}; a /{largest_length(family, offset)} would do"
                faults.append(Fault(f"offsets.{name}", offset, message))
    return faults


def _smallest_blocks(ask: Ask) -> Dict[int, Tuple[int, str]]:
    """The greatest prefix length per family among the blocks of nodes, and the key that says it."""
    nodes = {pool.name: pool for pool in ask.pools if pool.purpose == NODE}
    smallest: Dict[int, Tuple[int, str]] = {}

    def note(family: int, length: int, key: str) -> None:
        if family not in smallest or (length, smallest[family][1]) > (smallest[family][0], key):
            smallest[family] = (length, key)

    for pool in nodes.values():
        for family in pool.prefixes:
            note(family, pool.lengths[family], f"{pool.key}.block_size.{FAMILY_NAMES[family]}")
    for request in ask.requests:
        pool = nodes.get(request.pool)
        if pool is None:
            continue
        for family, pin in request.pins.items():
            note(family, pin.length, f"{request.pin_key}.{FAMILY_NAMES[family]}")
        if request.lengths is not pool.lengths:
            for family, length in request.lengths.items():
                if family not in request.pins and length != pool.lengths.get(family):
                    note(family, length, f"{request.size_key or request.key}.{FAMILY_NAMES[family]}")
    return smallest
