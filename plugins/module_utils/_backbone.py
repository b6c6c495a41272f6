# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The network of our own nodes: which of them are joined by a tunnel, and which exchange routes.

Everything follows from the inventory of all nodes, so every node comes to the same answer, whatever `--limit` says.
Pure computation on the controller.

This module util is PRIVATE to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

from typing import Any, Callable, Collection, Dict, FrozenSet, Iterable, List, Mapping, Optional, Set, Tuple

OPTIONS = ("dn42_router_backbone_igp", "dn42_router_backbone_links", "dn42_router_backbone_route_reflectors", "dn42_router_backbone_full_mesh_limit")
FULL_MESH_LIMIT = 10  # nodes; 45 sessions are few, and each node's own 9 too
AUTOMATIC_REFLECTORS = 2  # one may be away

Link = FrozenSet[str]
# Reports (key, value, problem).
Report = Callable[[str, Any, str], None]


def neighbors(links: Iterable[Link], node: str) -> List[str]:
    """Nodes that a node has a tunnel to, sorted."""
    return sorted(other for link in links if node in link for other in link - {node})


def sessions(reflectors: Collection[str], node: str, nodes: Iterable[str]) -> List[str]:
    """Nodes that a node exchanges routes with, sorted; without reflectors, which pass routes on between others, all of them."""
    others = sorted(set(nodes) - {node})
    if not reflectors or node in reflectors:
        return others
    return [other for other in others if other in reflectors]


def full_mesh(nodes: Iterable[str]) -> FrozenSet[Link]:
    """A tunnel between any two."""
    names = sorted(set(nodes))
    return frozenset(frozenset((one, other)) for position, one in enumerate(names) for other in names[position + 1 :])


def parts(nodes: Iterable[str], links: Iterable[Link]) -> List[Set[str]]:
    """The nodes in groups that reach each other over links, the largest first."""
    found: List[Set[str]] = [{node} for node in nodes]
    for link in links:
        touched = [part for part in found if part & link]
        found = [part for part in found if not part & link] + ([set().union(*touched)] if touched else [])
    return sorted(found, key=lambda part: (-len(part), sorted(part)))


def _read_pair(pair: Any, nodes: Mapping[str, Any], key: str, report: Report) -> Optional[Tuple[str, str]]:
    if not isinstance(pair, (list, tuple)) or len(pair) != 2 or not all(isinstance(name, str) for name in pair):
        report(key, pair, "must be a pair of nodes such as [fra1, hkg1]")
        return None
    unknown = [name for name in pair if name not in nodes]
    if unknown:
        report(key, pair, f"names {' and '.join(unknown)}, which is no node of the inventory (there are {', '.join(sorted(nodes))})")
        return None
    if pair[0] == pair[1]:
        report(key, pair, "joins a node with itself")
        return None
    return pair[0], pair[1]


def read_links(written: Any, nodes: Mapping[str, Any], report: Report) -> FrozenSet[Link]:
    """`dn42_router_backbone_links`: pairs of nodes; without any, a full mesh. Every fault is reported."""
    if not written:
        return full_mesh(nodes)
    key = OPTIONS[1]
    if not isinstance(written, list):
        report(key, written, "must be a list of pairs of nodes such as [[fra1, hkg1], [hkg1, nrt1]]")
        return full_mesh(nodes)
    found: Dict[Link, int] = {}
    complete = True
    for index, pair in enumerate(written):
        names = _read_pair(pair, nodes, f"{key}[{index}]", report)
        complete = complete and names is not None
        if names and frozenset(names) in found:
            report(f"{key}[{index}]", pair, f"is {key}[{found[frozenset(names)]}] again; a tunnel works in both directions")
        elif names:
            found[frozenset(names)] = index
    apart = parts(nodes, found)
    if complete and len(apart) > 1:
        report(key, written, f"leaves nodes without a way to the others: {'; '.join(', '.join(sorted(part)) for part in apart[1:])}")
    return frozenset(found)


def read_reflectors(written: Any, limit: int, nodes: Mapping[str, Any], report: Report) -> Optional[FrozenSet[str]]:
    """`dn42_router_backbone_route_reflectors` as far as it is given, and empty below the limit; None where they are to be chosen."""
    key = OPTIONS[2]
    if not written:
        return None if len(nodes) > limit else frozenset()
    if not isinstance(written, list) or not all(isinstance(name, str) for name in written):
        report(key, written, "must be a list of nodes such as [fra1, hkg1]")
        return frozenset()
    for index, name in enumerate(written):
        if name not in nodes:
            report(f"{key}[{index}]", name, f"is no node of the inventory (there are {', '.join(sorted(nodes))})")
    return frozenset(written)


def choose_reflectors(numbers: Mapping[str, int]) -> FrozenSet[str]:
    """The nodes with the lowest numbers: they stay the same whatever nodes come or go, except for themselves."""
    return frozenset(sorted(numbers, key=lambda name: (numbers[name], name))[:AUTOMATIC_REFLECTORS])


def igp(variables: Mapping[str, Mapping[str, Any]]) -> Dict[str, Any]:
    """Which protocol finds the ways, and whether it carries IPv4 too: {name: babel or ospf, ipv4: bool}.

    The tunnels have no IPv4 address. Babel takes IPv6 next hops for IPv4 from BIRD 2.15 on, OSPF does not; then IPv4 blocks
    come by iBGP on all nodes, with next hops that the protocol resolves.
    """
    first = min(variables)
    name = str(variables[first].get(OPTIONS[0]) or "babel")
    old = any(str(each.get("dn42_router_bird_version")) == "2.0" for each in variables.values())
    return {"name": name, "ipv4": name == "babel" and not old}
