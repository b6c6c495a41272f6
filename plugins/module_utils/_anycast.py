# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Anycast: addresses that several nodes have, each for as long as its own service answers.

Pure computation on the controller; `_network` calls `read` for the variables of one node, `check_network` for all nodes
and `entries` once the addresses of the node are known. `reader` is always `_network`'s.

This module util is PRIVATE to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Tuple

from ansible_collections.dn42.compose.plugins.module_utils import _inventory_values as values

OPTION = "dn42_anycast"
KEYS = frozenset(("name", "service", "ipv4", "ipv6", "ports"))
FAMILIES = ("ipv4", "ipv6")
PURPOSE = "anycast"
# A part of BIRD's symbols and of file names; no underscore, so that no name begins like another one's file.
NAME = re.compile(r"[a-z][a-z0-9]{0,15}")
PORT = re.compile(r"([0-9]{1,5})/(tcp|udp)")
DNS = "dns"
DEFAULT_PORTS = {DNS: ["53/udp", "53/tcp"]}
# The router makes anycast; what stands in front of a service cannot be one.
NO_SERVICES = ("router",)

# (host, key, value, problem), to be made a fault by whoever calls.
Problem = Tuple[str, str, Any, str]


class Pools(NamedTuple):
    """The prefixes of the pools as they are written, those for anycast and the others."""

    anycast: List[Any]
    others: List[Any]


def _networks(pool: Mapping[str, Any]) -> List[Any]:
    found = []
    for family in FAMILIES:
        for text in pool.get(family) or []:
            try:
                found.append(ipaddress.ip_network(text))
            except ValueError:
                continue  # the address plan says so
    return found


def read_pools(written: Any) -> Pools:
    """The prefixes of `dn42_pools`. What is wrong with it the address plan says."""
    pools = Pools([], [])
    for pool in written if isinstance(written, list) else []:
        if isinstance(pool, Mapping):
            (pools.anycast if pool.get("purpose") == PURPOSE else pools.others).extend(_networks(pool))
    return pools


def _name(value: Any) -> str:
    name = values.text(value)
    if not NAME.fullmatch(name):
        raise values.BadValue("must be 1 to 16 characters of a-z and 0-9, beginning with a letter")
    return name


def _service(services: Any) -> Callable[[Any], str]:
    """Reads the name of a service role that the node has; `services` is its `dn42_stack_services`, None for the default."""

    def read(value: Any) -> str:
        service = values.text(value)
        if service in NO_SERVICES:
            raise values.BadValue("is no service that an anycast address can stand for; name the one that answers, such as dns")
        if isinstance(services, list) and service not in services:
            raise values.BadValue(f"is not a service of this node (dn42_stack_services has {', '.join(map(str, services))})")
        return service

    return read


def _address(pools: Pools, version: int) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        address = values.ip_address(value, version)
        if not any(address in network for network in pools.anycast):
            where = next((network for network in pools.others if address in network), None)
            cause = f"is in {where}, whose pool is not for anycast" if where else "is in no pool of purpose anycast"
            have = ", ".join(str(network) for network in pools.anycast if network.version == version)
            raise values.BadValue(f"{cause}; {'take one of ' + have if have else 'add a pool with purpose: anycast to dn42_pools'}")
        return str(address)

    return read


def _ports(value: Any) -> Dict[str, List[int]]:
    """`["53/udp", "53/tcp"]` as {protocol: ports}."""
    if not isinstance(value, list) or not value:
        raise values.BadValue('must be a list such as ["53/udp", "53/tcp"]')
    found: Dict[str, List[int]] = {"tcp": [], "udp": []}
    for text in value:
        match = PORT.fullmatch(text.strip()) if isinstance(text, str) else None
        if not match:
            raise values.BadValue(f'must be a list such as ["53/udp", "53/tcp"]; {text!r} is no port with its protocol')
        number, protocol = values.port(int(match[1])), match[2]
        if number in found[protocol]:
            raise values.BadValue(f"has {text} twice")
        found[protocol].append(number)
    return {protocol: sorted(numbers) for protocol, numbers in found.items()}


def _probe(service: str, ports: Mapping[str, List[int]]) -> Optional[Dict[str, Any]]:
    """How to ask whether the service answers; None where there is no way."""
    if service == DNS and ports["udp"]:
        return {"kind": DNS, "port": ports["udp"][0]}
    return {"kind": "tcp", "port": ports["tcp"][0]} if ports["tcp"] else None


def _read_one(reader: Any, item: Mapping[str, Any], key: str, pools: Pools, services: Any) -> Optional[Dict[str, Any]]:
    before = len(reader.faults)
    for unknown in sorted(str(name) for name in item if name not in KEYS):
        reader.fault(f"{key}.{unknown}", item[unknown], f"is not an option of an anycast service (there are {', '.join(sorted(KEYS))})")
    service = reader.read(item, "service", f"{key}.service", _service(services))
    read = {
        "name": reader.read(item, "name", f"{key}.name", _name),
        "service": service,
        "ipv4": reader.read(item, "ipv4", f"{key}.ipv4", _address(pools, 4), default=None),
        "ipv6": reader.read(item, "ipv6", f"{key}.ipv6", _address(pools, 6), default=None),
    }
    if item.get("ipv4") is None and item.get("ipv6") is None:
        reader.fault(f"{key}.ipv4", None, "is required, or ipv6: the address that is announced")
    written = {**item, "ports": item["ports"] if item.get("ports") is not None else DEFAULT_PORTS.get(str(service))}
    ports = reader.read(written, "ports", f"{key}.ports", _ports) if service else None
    if ports and service:
        read.update(ports=ports, probe=_probe(service, ports))
        if read["probe"] is None:
            reader.fault(f"{key}.ports", item.get("ports"), "needs a TCP port: connecting to it is how the router finds out whether the service answers")
    return read if len(reader.faults) == before else None


def _check_unique(reader: Any, read: List[Tuple[int, Dict[str, Any]]]) -> None:
    """No name and no address twice on a node."""
    for what in ("name", *FAMILIES):
        seen: Dict[str, int] = {}
        for index, item in read:
            value = item[what]
            if value is not None and value in seen:
                reader.fault(f"{OPTION}[{index}].{what}", value, f"is that of {OPTION}[{seen[value]}] too; give it one of its own")
            seen.setdefault(value, index)


def read(reader: Any, host_vars: Mapping[str, Any]) -> List[Dict[str, Any]]:
    """The node's anycast services as they are meant, sorted by name; faults go to the reader."""
    written = host_vars.get(OPTION)
    if written is None:
        return []
    if not isinstance(written, list):
        reader.fault(OPTION, written, "must be a list of mappings with name, service, ipv4, ipv6")
        return []
    pools = read_pools(host_vars.get("dn42_pools"))
    found = []
    for index, item in enumerate(written):
        key = f"{OPTION}[{index}]"
        if not isinstance(item, Mapping):
            reader.fault(key, item, "must be a mapping with name, service, ipv4, ipv6")
            continue
        one = _read_one(reader, item, key, pools, host_vars.get("dn42_stack_services"))
        if one:
            found.append((index, one))
    _check_unique(reader, found)
    return sorted((one for _index, one in found), key=lambda one: one["name"])


def _registered(address: str, pools: Pools, aggregates: Mapping[str, List[str]]) -> Optional[str]:
    """The prefix that follows the service at this address: the registered one, where all of it is for anycast."""
    ip = ipaddress.ip_address(address)
    for text in aggregates.get(f"ipv{ip.version}") or []:
        network = ipaddress.ip_network(text)
        if ip in network and network in pools.anycast:
            return text
    return None


def _prefix(address: str, pools: Pools, aggregates: Mapping[str, List[str]]) -> str:
    """What is announced for an address: a registered prefix to everybody, else the address alone to our own nodes."""
    return _registered(address, pools, aggregates) or str(ipaddress.ip_network(address))


def prefixes(nodes: Mapping[str, Mapping[str, Any]], pools: Pools, aggregates: Mapping[str, List[str]]) -> Dict[str, List[str]]:
    """{family: prefixes that follow a service of some node}, sorted; no node announces them without one."""
    return {family: sorted({_prefix(one[family], pools, aggregates) for node in nodes.values() for one in node["anycast"] if one[family]}) for family in FAMILIES}


def check_network(nodes: Mapping[str, Mapping[str, Any]], pools: Pools, aggregates: Mapping[str, List[str]]) -> List[Problem]:
    """What does not fit between nodes: an address or a registered prefix is of one service, whichever node it is on."""
    owners: Dict[str, Tuple[str, str]] = {}
    problems: List[Problem] = []
    for host in sorted(nodes):
        for one in nodes[host]["anycast"]:
            for family in FAMILIES:
                address = one[family]
                if address is None:
                    continue
                what = _registered(address, pools, aggregates) or address
                name, other = owners.setdefault(what, (one["name"], host))
                if name != one["name"]:
                    problem = f"is in {what}, which follows {name} of {other}" if what != address else f"is the address of {name} of {other}"
                    problems.append(
                        (host, f"{OPTION} {one['name']}.{family}", address, f"{problem}; one prefix can only follow one service, so give this one another, or the same name")
                    )
    return problems


def check_targets(host: str, node: Mapping[str, Any], addresses: Mapping[str, Mapping[str, Any]]) -> List[Problem]:
    """Services that have no fixed address in the node's block, so nothing can be handed to them."""
    return [
        (host, f"{OPTION} {one['name']}.service", one["service"], f"has no {family} address in the node's block; take a service that is in DN42")
        for one in node["anycast"]
        for family in FAMILIES
        if one[family] and not (addresses.get(one["service"]) or {}).get(family)
    ]


def entries(node: Mapping[str, Any], addresses: Mapping[str, Mapping[str, Any]], pools: Pools, aggregates: Mapping[str, List[str]]) -> List[Dict[str, Any]]:
    """What the templates print, an entry for each address, sorted by name and family; `prefix` is announced while the service answers."""
    return [
        {
            "name": one["name"],
            "family": family,
            "protocol": f"anycast_{one['name']}_{family}",
            "address": one[family],
            "prefix": _prefix(one[family], pools, aggregates),
            "target": addresses[one["service"]][family],
            "ports": one["ports"],
            "probe": one["probe"],
        }
        for one in node["anycast"]
        for family in FAMILIES
        if one[family]
    ]
