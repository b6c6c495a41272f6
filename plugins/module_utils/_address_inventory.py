# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From the variables and facts of all nodes to the options of the module `address_blocks`. Controller only.

Pure computation. What single values mean is read by the module; here they are only put together.

This module util is PRIVATE to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import ipaddress
from typing import Any, Dict, Iterable, List, Mapping, Optional, Set

from ansible_collections.dn42.compose.plugins.module_utils._address_plan.model import Fault, Pool
from ansible_collections.dn42.compose.plugins.module_utils._address_request import read_pools
from ansible_collections.dn42.compose.plugins.module_utils._address_text import read_prefix

FACTS = "__dn42_host"  # what the role preflight registers
PREFIX = "dn42_address_plan_"
PER_NODE = {"pins": f"{PREFIX}pin", "sizes": f"{PREFIX}size"}
OUR_NETWORK = "dn42"
OUR_BRIDGE = "br-dn42"

Variables = Mapping[str, Mapping[str, Any]]


def options(args: Mapping[str, Any], nodes: Variables) -> Dict[str, Any]:
    """The module's options. `args` is what the network says, `nodes` {node: its variables and facts}."""
    own = {key: args.get(key) for key in ("pools", "offsets", "release", "renumber", "reuse_held", "profile", "domain")}
    extra = args.get("extra_holders")
    holders: Any = [*sorted(nodes), *(extra or [])] if extra is None or isinstance(extra, list) else extra
    read: Dict[str, Any] = {key: value for key, value in own.items() if value is not None}
    read["holders"] = holders
    for option, variable in PER_NODE.items():
        read[option] = {name: nodes[name][variable] for name in sorted(nodes) if nodes[name].get(variable)}
    adopted = args.get("adopt_network") or None
    pools = read_pools(args.get("pools"), [])  # what is wrong with them is told by the module
    read["adopt"] = {name: found for name in sorted(nodes) for found in [_subnets(nodes[name], adopted)] if found}
    read["in_use"] = [entry for name in sorted(nodes) for entry in _in_use(name, nodes[name], adopted, pools)]
    read["store"] = _store(args.get("store"), args.get("path"))
    return read


def differences(nodes: Variables) -> List[Fault]:
    """Variables that are for the whole network and not the same on all nodes: which counted would be chance."""
    faults = []
    for name in sorted({name for variables in nodes.values() for name in variables if name.startswith(PREFIX) and name not in PER_NODE.values()}):
        first = min(nodes)
        for node in sorted(nodes):
            if nodes[node].get(name) != nodes[first].get(name):
                faults.append(Fault(f"{name} of {node}", "(not shown)", f"differs from that of {first}; set it once for the group dn42_nodes"))
    return faults


def held_by(names: Iterable[str], held: Iterable[Mapping[str, Any]]) -> Dict[str, List[str]]:
    """{holder: the prefixes it holds} of these names, as a release names them; `held` is what the module answered."""
    prefixes: Dict[str, List[str]] = {}
    for block in held:
        if block["holder"] in names:
            prefixes.setdefault(block["holder"], []).append(block["prefix"])
    return prefixes


def _store(store: Any, path: Any) -> Any:
    """The store, a file at the role's path unless it says otherwise."""
    if isinstance(store, Mapping) and store.get("kind", "file") == "file" and not store.get("path"):
        return {**store, "path": path}
    return store or {"path": path}


def _facts(variables: Mapping[str, Any]) -> Mapping[str, Any]:
    """What was read from a node in this run; empty for nodes that the run is not limited to."""
    found = variables.get(FACTS)
    host = found.get("host") if isinstance(found, Mapping) else None
    return host if isinstance(host, Mapping) else {}


def _networks(variables: Mapping[str, Any]) -> List[Mapping[str, Any]]:
    return list((_facts(variables).get("docker") or {}).get("networks") or [])


def _network_text(prefix: Any) -> Optional[str]:
    """A prefix of the facts without host bits; None for what no pool can hold."""
    try:
        network = ipaddress.ip_network(str(prefix), strict=False)
    except ValueError:
        return None
    return None if network.version == 6 and network.network_address.ipv4_mapped else str(network)


def _subnets(variables: Mapping[str, Any], name: Optional[str]) -> List[str]:
    """The subnets of one Docker network of a node."""
    found = [_network_text(subnet) for network in _networks(variables) if name and network["name"] == name for subnet in network["subnets"]]
    return sorted(subnet for subnet in found if subnet)


def _takes_away(route: Mapping[str, Any], bridges: Set[str], pools: Iterable[Pool]) -> bool:
    """Whether a route takes a part of a pool away. The longer one of our bridge wins over one that is as wide as the pool, and
    one that leads nowhere is what an aggregate looks like."""
    text = _network_text(route["prefix"])
    if text is None or route["interface"] is None or route["interface"] in bridges:
        return False
    prefix = read_prefix(text)
    return not any(prefix.covers(other) for pool in pools for other in pool.prefixes.get(prefix.family, ()))


def _in_use(node: str, variables: Mapping[str, Any], adopted: Optional[str], pools: Iterable[Pool]) -> List[Dict[str, str]]:
    """Networks, addresses and routes of a node that are not of our own network, nor of the one that is adopted."""
    # What is on the bridge of a Docker network is told by the network itself.
    bridges = {OUR_BRIDGE} | {network["bridge"] for network in _networks(variables) if network["bridge"]}
    used = []
    for network in _networks(variables):
        if network["name"] not in (OUR_NETWORK, adopted) and network["bridge"] != OUR_BRIDGE:
            used += [(subnet, f"Docker network {network['name']}") for subnet in network["subnets"]]
    facts = _facts(variables)
    used += [(entry["prefix"], f"{entry['address']} on {entry['interface']}") for entry in facts.get("addresses") or [] if entry["interface"] not in bridges]
    used += [(entry["prefix"], f"route through {entry['interface']}") for entry in facts.get("routes") or [] if _takes_away(entry, bridges, pools)]
    read = sorted({(text, what) for prefix, what in used for text in [_network_text(prefix)] if text})
    return [{"host": node, "prefix": prefix, "what": what} for prefix, what in read]
