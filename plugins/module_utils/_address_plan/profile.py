# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What DN42 expects of the pools of a network. For other networks nobody asks.

A fault is what would not work or would take what belongs to others: routes that nobody accepts, shared addresses in a
node's block. A warning is what the registry gives to nobody today, and may have given to somebody years ago.

How long a route may be is taken from the route filters of the routers, the one place that knows.

This module util is PRIVATE to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import ipaddress
from typing import Iterable, List, NamedTuple, Optional, Sequence

from ansible_collections.dn42.compose.plugins.module_utils._address_plan.model import ANYCAST, FAMILY_NAMES, NODE, Fault, Pool, Prefix
from ansible_collections.dn42.compose.plugins.module_utils._dn42 import ROUTE_FILTERS

NONE = "none"
DN42 = "dn42"
PROFILES = (NONE, DN42)

NETWORK_LENGTH = 64  # DN42's plan for IPv6: a /64 per network
ROOM = 256  # networks that make a longer block needless


class Range(NamedTuple):
    """Part of an address space: what it is called, and how short and how long a route into it may be."""

    prefix: Prefix
    what: str
    shortest: int = 0
    longest: int = 128


def _prefix(text: str) -> Prefix:
    network = ipaddress.ip_network(text)
    return Prefix(network.version, int(network.network_address), network.prefixlen)


def _filters() -> List[Range]:
    return [Range(_prefix(item.prefix), item.prefix, item.shortest, item.longest) for filters in ROUTE_FILTERS.values() for item in filters]


# DN42's own space. Of the filters, what lies inside it is its anycast ranges, and what lies outside belongs to affiliates.
OWN = (_prefix("172.20.0.0/14"), _prefix("fd00::/8"))
UNICAST = tuple(item for item in _filters() if item.prefix in OWN)
ANYCASTS = tuple(item for item in _filters() if item.prefix not in OWN and any(own.covers(item.prefix) for own in OWN))

AFFILIATES = (
    Range(_prefix("10.100.0.0/14"), "ChaosVPN"),
    Range(_prefix("10.127.0.0/16"), "NeoNetwork"),
    Range(_prefix("10.0.0.0/8"), "ICVPN and Freifunk"),
    Range(_prefix("172.31.0.0/16"), "ChaosVPN"),
    Range(_prefix("fd10:127::/32"), "NeoNetwork"),
)

# Addresses that every network of DN42 shares, for its common services.
SHARED = (*ANYCASTS, Range(_prefix("fd42:d42:d42::/48"), "fd42:d42:d42::/48", 48, 128))

# Where the registry gives nothing today.
CLOSED = (
    Range(_prefix("172.20.240.0/20"), "is for transfer networks between operators"),
    Range(_prefix("172.22.240.0/20"), "is for transfer networks between operators"),
    Range(_prefix("172.21.0.0/18"), "is reserved for the future"),
    Range(_prefix("172.21.128.0/17"), "is reserved for the future"),
    Range(_prefix("172.22.192.0/18"), "is reserved for the future"),
    Range(_prefix("172.23.16.0/21"), "is closed to new networks"),
)


class Findings(NamedTuple):
    """What DN42 has against the pools."""

    faults: List[Fault]
    warnings: List[Fault]


def examine(pools: Iterable[Pool]) -> Findings:
    """Everything about these pools that does not fit into DN42, in the order of the pools."""
    findings = Findings([], [])
    for pool in pools:
        for prefix in (prefix for family in sorted(pool.prefixes) for prefix in pool.prefixes[family]):
            _examine_prefix(pool, prefix, findings)
        for prefix in pool.aggregates:
            key = f"{pool.key}.aggregates"
            findings.faults.extend(Fault(key, str(prefix), reason) for reason in [_place(prefix) or _announced(prefix)] if reason)
        findings.warnings.extend(_long_blocks(pool))
    return findings


def _examine_prefix(pool: Pool, prefix: Prefix, findings: Findings) -> None:
    key = f"{pool.key}.{FAMILY_NAMES[prefix.family]}"
    reason = _place(prefix) or _purpose(pool, prefix)
    if not reason and not any(entry.family == prefix.family for entry in pool.aggregates):
        reason = _announced(prefix)
    if reason:
        findings.faults.append(Fault(key, str(prefix), reason))
        return
    item = next((entry for entry in CLOSED if entry.prefix.overlaps(prefix)), None)
    if item is not None:
        message = f"{item.prefix} {item.what}, so the registry gives no new prefixes there; check that it has this one as yours"
        findings.warnings.append(Fault(key, str(prefix), message))


def _inside(prefix: Prefix, ranges: Sequence[Range]) -> Optional[Range]:
    return next((item for item in ranges if item.prefix.covers(prefix)), None)


def _place(prefix: Prefix) -> Optional[str]:
    """Why a prefix is not one that a network of DN42 can have."""
    affiliate = _inside(prefix, AFFILIATES)
    if affiliate is not None:
        return f"belongs to {affiliate.what} ({affiliate.prefix}), whose routes DN42 takes from them alone; use a prefix that the DN42 registry gave you"
    if not any(own.covers(prefix) for own in OWN):
        own = [str(item) for item in OWN if item.family == prefix.family]
        return f"is outside of DN42 ({', '.join(own)}), where no other network accepts it; for a network of another kind set the profile to none"
    return None


def _purpose(pool: Pool, prefix: Prefix) -> Optional[str]:
    """Shared addresses are for anycast alone; one of them in a node's block would draw everybody's traffic there."""
    shared = next((item for item in SHARED if item.prefix.overlaps(prefix)), None)
    if shared is None:
        return None
    if pool.purpose != ANYCAST:
        return f"overlaps {shared.prefix}, DN42's range for anycast, which all networks share; use another prefix, or purpose: anycast for a pool of such addresses"
    if not shared.prefix.covers(prefix):
        return f"is more than {shared.prefix}, DN42's range for anycast; name only the addresses that you were given in it"
    return None


def _announced(prefix: Prefix) -> Optional[str]:
    """Why other networks refuse a route for exactly this prefix."""
    item = _inside(prefix, SHARED) or _inside(prefix, UNICAST)
    if item is None or item.shortest <= prefix.length <= item.longest:
        return None
    if prefix.length < item.shortest:
        return f"is larger than a network can announce: /{item.shortest} to /{item.longest} in {item.prefix}; name the prefixes that are registered for you"
    return (
        f"is smaller than other networks accept: /{item.shortest} to /{item.longest} in {item.prefix};"
        f" if it is part of a registered prefix, name that in the pool's aggregates, such as {_around(prefix, item.longest)}"
    )


def _around(prefix: Prefix, length: int) -> str:
    bits = (32 if prefix.family == 4 else 128) - length
    return str(Prefix(prefix.family, prefix.network >> bits << bits, length))


def _long_blocks(pool: Pool) -> List[Fault]:
    """Blocks of nodes longer than /64 work, but save nothing where there is room, and reverse DNS is delegated by nibbles."""
    length = pool.lengths.get(6, 0)
    networks = sum(1 << (NETWORK_LENGTH - prefix.length) for prefix in pool.prefixes.get(6, ()) if prefix.length <= NETWORK_LENGTH)
    if pool.purpose != NODE or length <= NETWORK_LENGTH or networks < ROOM:
        return []
    message = f"DN42 plans a /{NETWORK_LENGTH} per network, and the pool has room for {networks} of them; a longer block cannot grow into one without moving"
    return [Fault(f"{pool.key}.block_size.ipv6", length, message)]
