# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Facts of the DN42 network: which prefixes belong to it, how long a route may be, what its communities mean.

Source: the DN42 wiki (Address-Space, howto/Bird2, howto/BGP-communities) and the registry's filter.txt and filter6.txt.

This module util is PRIVATE to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

from typing import Dict, List, NamedTuple, Tuple


class RouteFilter(NamedTuple):
    """Routes inside `prefix` are accepted when their length is `shortest`..`longest` bits."""

    prefix: str
    shortest: int
    longest: int


ROUTE_FILTERS: Dict[str, List[RouteFilter]] = {
    "ipv4": [
        RouteFilter("10.0.0.0/8", 15, 24),  # ICVPN, Freifunk
        RouteFilter("10.100.0.0/14", 14, 32),  # ChaosVPN
        RouteFilter("10.127.0.0/16", 16, 32),  # NeoNetwork
        RouteFilter("172.20.0.0/14", 21, 29),  # DN42
        RouteFilter("172.20.0.0/24", 28, 32),  # DN42 anycast
        RouteFilter("172.21.0.0/24", 28, 32),  # DN42 anycast
        RouteFilter("172.22.0.0/24", 28, 32),  # DN42 anycast
        RouteFilter("172.23.0.0/24", 28, 32),  # DN42 anycast
        RouteFilter("172.31.0.0/16", 16, 32),  # ChaosVPN
    ],
    "ipv6": [
        RouteFilter("fd00::/8", 44, 64),
    ],
}

# Everything that may be a source or a destination of DN42 traffic, overlaps removed.
PREFIXES: Dict[str, List[str]] = {
    "ipv4": ["10.0.0.0/8", "172.20.0.0/14", "172.31.0.0/16"],
    "ipv6": ["fd00::/8"],
}

# What a tunnel may carry (WireGuard's AllowedIPs): DN42 and the link itself.
TUNNEL_PREFIXES: List[str] = PREFIXES["ipv4"] + PREFIXES["ipv6"] + ["fe80::/64"]

# Routing protocols of an internal tunnel need link-local multicast besides.
INTERNAL_TUNNEL_PREFIXES: List[str] = [*TUNNEL_PREFIXES, "ff02::/16"]


class PathGroup(NamedTuple):
    """Communities (64511, first..last) that tell what a path is like; `worst` is the comparison that a worse value passes.

    Along a path the worst link counts, which is the highest value of some groups and the lowest of others.
    """

    name: str
    first: int
    last: int
    worst: str


PATH_GROUPS: Tuple[PathGroup, ...] = (
    PathGroup("latency", 1, 9, ">"),
    PathGroup("bandwidth", 21, 29, "<"),
    PathGroup("crypto", 31, 36, "<"),
    PathGroup("link_type", 81, 89, ">"),
    PathGroup("packet_loss", 91, 94, ">"),
)
# Forward secrecy is WireGuard's own; a preshared key keeps it safe from later quantum computers.
CRYPTO_WIREGUARD = 34
CRYPTO_WIREGUARD_PSK = 35
LINK_TYPES: Dict[str, int] = {"physical": 81, "ixp": 82, "tunnel": 83, "virtual_ix_meshed": 84, "virtual_ix_central": 85, "unknown": 89}
REGIONS = (41, 70)
COUNTRY_BASE = 1000  # plus the country's number in ISO 3166-1

LATENCY_LIMITS = (2.7, 7.3, 20, 55, 148, 403, 1097, 2981)  # ms
_LOSS_LIMITS = (0, 1, 5)  # per cent


def latency_value(milliseconds: float) -> int:
    """1 to 9."""
    return 1 + sum(milliseconds > limit for limit in LATENCY_LIMITS)


def bandwidth_value(megabits: float) -> int:
    """21 for 0.1 Mbit/s and more, one more for each factor of ten, 29 at most."""
    return min(29, 21 + sum(megabits >= 10**power for power in range(8)))


def packet_loss_value(percent: float) -> int:
    """91 (none) to 94 (more than 5 per cent)."""
    return 91 + sum(percent > limit for limit in _LOSS_LIMITS)
