# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Facts of the DN42 network: which prefixes belong to it and how long a route may be.

Source: the DN42 wiki (Address-Space, howto/Bird2) and the registry's filter.txt and filter6.txt.

This module util is PRIVATE to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

from typing import Dict, List, NamedTuple


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
