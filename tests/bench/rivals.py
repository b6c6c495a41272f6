# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""How people give out blocks today, each as short as they write it.

None of them checks, remembers who asked before, or refuses anything: what they leave out is in their favour.
All of them cut one IPv4 pool into blocks of any length.
"""

from __future__ import annotations

import heapq
import ipaddress
import itertools
from collections.abc import Callable, Iterable
from itertools import islice

import netaddr

BITS = 32


class BareHeap:
    """One heap of free networks per length, and who has what. The fastest that Python does without a check."""

    def __init__(self, pool: str) -> None:
        outer = ipaddress.ip_network(pool)
        self.free: list[list[int]] = [[] for _length in range(BITS + 1)]
        self.free[outer.prefixlen].append(int(outer.network_address))
        self.owned: dict[str, tuple[int, int]] = {}

    def take(self, name: str, length: int) -> None:
        free = self.free
        found = length
        while not free[found]:
            found -= 1
        network = heapq.heappop(free[found])
        for rest in range(found + 1, length + 1):
            heapq.heappush(free[rest], network + (1 << (BITS - rest)))
        self.owned[name] = (network, length)


class KeptIPSet:
    """Free space in a `netaddr.IPSet` that lives as long as the program; the first free space that fits."""

    def __init__(self, pool: str, taken: Iterable[netaddr.IPNetwork]) -> None:
        self.free = netaddr.IPSet([pool]) - netaddr.IPSet(taken)
        self.owned: dict[str, netaddr.IPNetwork] = {}

    def take(self, name: str, length: int) -> None:
        found = next(piece for piece in self.free.iter_cidrs() if piece.prefixlen <= length)
        block = next(found.subnet(length))
        self.free.remove(block)
        self.owned[name] = block


class RebuiltIPSet:
    """The same, with the free space worked out anew for each request: a script that is run once per node."""

    def __init__(self, pool: str, taken: Iterable[netaddr.IPNetwork]) -> None:
        self.pool = pool
        self.taken = list(taken)

    def take(self, name: str, length: int) -> None:
        free = netaddr.IPSet([self.pool]) - netaddr.IPSet(self.taken)
        found = next(piece for piece in free.iter_cidrs() if piece.prefixlen <= length)
        self.taken.append(next(found.subnet(length)))


class NetBoxAlgorithm:
    """`available-prefixes` of NetBox's API without its database: the prefix minus its children, the first that fits.

    As in `netbox/ipam/models/ip.py` (`get_available_prefixes`): an IPSet of the pool less an IPSet of all children,
    per request. The children are what a query would have returned.
    """

    def __init__(self, pool: str, taken: Iterable[netaddr.IPNetwork]) -> None:
        self.prefix = netaddr.IPNetwork(pool)
        self.children = list(taken)

    def take(self, name: str, length: int) -> None:
        available = netaddr.IPSet(self.prefix) - netaddr.IPSet(list(self.children))
        for piece in available.iter_cidrs():
            if length >= piece.prefixlen:
                block = netaddr.IPNetwork(f"{piece.network}/{length}")
                break
        available.remove(block)
        self.children.append(block)


class ScannedSubnets:
    """Go through the pool's subnets and take the first that nobody has; one size only."""

    def __init__(self, pool: str, taken: Iterable[netaddr.IPNetwork]) -> None:
        self.pool = netaddr.IPNetwork(pool)
        self.taken = set(taken)

    def take(self, name: str, length: int) -> None:
        self.taken.add(next(subnet for subnet in self.pool.subnet(length) if subnet not in self.taken))


class SubnetByIndex:
    """`pool | ansible.utils.ipsubnet(29, index)` per node, with the node's place in the inventory as the index."""

    def __init__(self, pool: str, taken: Iterable[netaddr.IPNetwork]) -> None:
        self.pool = pool
        self.index = len(list(taken))
        self.subnet, self.label = _ipsubnet()
        self.owned: dict[str, str] = {}

    def take(self, name: str, length: int) -> None:
        self.owned[name] = self.subnet(self.pool, length, self.index)
        self.index += 1


def _ipsubnet() -> tuple[Callable[[str, int, int], str], str]:
    """The filter itself where its collection is installed, else the calls that it makes."""
    try:
        from ansible_collections.ansible.utils.plugins.plugin_utils.base.ipaddr_utils import ipaddr  # noqa: F401
        from ansible_collections.ansible.utils.plugins.filter.ipsubnet import ipsubnet  # isort: skip
    except ImportError:
        return _like_ipsubnet, "ansible.utils.ipsubnet (not installed: the netaddr calls that it makes)"
    return ipsubnet, "ansible.utils.ipsubnet"


def _like_ipsubnet(value: str, length: int, index: int) -> str:
    # The filter writes str(list(value.subnet(query))[index]); islice would be quicker, and is not what it does.
    return str(list(netaddr.IPNetwork(value).subnet(length))[index])


def positions(count: int, free_every: int) -> Iterable[int]:
    """The places of the first `count` blocks when every `free_every`-th is left free; 0 leaves none."""
    return islice((place for place in itertools.count() if not free_every or place % free_every), count)


def lowest_blocks(pool: str, length: int, count: int, free_every: int) -> list[netaddr.IPNetwork]:
    """Those blocks of a pool."""
    first = int(ipaddress.ip_network(pool).network_address)
    size = 1 << (BITS - length)
    return [netaddr.IPNetwork((first + place * size, length)) for place in positions(count, free_every)]
