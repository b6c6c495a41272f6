# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From an inventory to the network it describes: every node, peer, tunnel and session, or every fault at once.

Pure computation on the controller. Input are the `dn42_*` variables of all nodes, the address plan and the
public keys; output is what the templates print, so that no template has to decide or compute anything.
Nothing here depends on the order of the inventory, on `--limit` or on facts of a node.

This module util is PRIVATE to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from typing import Any, Callable, Dict, FrozenSet, List, Mapping, NamedTuple, Optional, Tuple

from ansible_collections.dn42.compose.plugins.module_utils import _anycast, _backbone, _collectors, _dn42, _latency, _peering
from ansible_collections.dn42.compose.plugins.module_utils import _inventory_values as values

NODE_PORT_BASE = 30000  # internal tunnels listen on this plus the other node's number
NODE_NUMBER_LIMIT = 2047  # keeps them below 32768, where the kernel picks ports for outgoing connections
PEER_PORT_BASE = 20000  # DN42's custom: 2 and the last four digits of the peer's ASN
DEFAULT_MTU = 1420
SECRETS = frozenset(("preshared_key", "private_key", "dn42_router_private_key", "dn42_address_plan_store"))
PEER_STATES = ("present", "draining", "shutdown", "absent")
TUNNEL_KEYS = ("name", "state", "asn", "description", "public_key", "preshared_key", "endpoint", "listen_port", "local_address", "peer_address", "mtu", "keepalive")
PEER_KEYS = frozenset(TUNNEL_KEYS) | _peering.SESSION_KEYS | _peering.POLICY_KEYS
# BIRD 2.0 cannot restrict a control socket, and the looking glass gets no other one.
BIRD_WITHOUT_RESTRICTED_SOCKET = "2.0"
# As roles/router/defaults/main.yml says; a test compares.
DEFAULT_ROA = "files"


class Fault(NamedTuple):
    """One thing wrong with the inventory: where, what was written, and what would be right."""

    host: str
    key: str
    value: Any
    problem: str

    def __str__(self) -> str:
        if self.key.rpartition(".")[2] in SECRETS:
            return f"{self.host}: {self.key}: {self.problem} (its value is secret and not shown)"
        shown = "" if self.value is MISSING else f" = {self.value!r}"
        return f"{self.host}: {self.key}{shown}: {self.problem}"


class _Missing:
    def __repr__(self) -> str:
        return "(missing)"


MISSING = _Missing()


class InventoryFaults(ValueError):
    """The inventory cannot be used; `faults` lists everything that is wrong with it."""

    def __init__(self, faults: List[Fault]) -> None:
        self.faults = faults
        super().__init__("\n".join(str(fault) for fault in faults))


class _Reader:
    """Reads the variables of one host and collects faults instead of stopping at the first."""

    def __init__(self, host: str, faults: List[Fault]) -> None:
        self.host = host
        self.faults = faults

    def fault(self, key: str, value: Any, problem: str) -> None:
        self.faults.append(Fault(self.host, key, value, problem))

    def read(self, source: Mapping[str, Any], name: str, key: str, reader: Callable[[Any], Any], default: Any = MISSING) -> Any:
        """The value of `name` through `reader`; `default` where it is absent or null, a fault where there is none."""
        value = source.get(name)
        if value is None:
            if default is MISSING:
                self.fault(key, MISSING if name not in source else None, "is required")
                return None
            return default
        try:
            return reader(value)
        except values.BadValue as error:
            self.fault(key, value, str(error))
            return None


def interface_name(prefix: str, name: str) -> str:
    """`<prefix>-<name>` when the kernel allows it, else a short name with a hash, stable and practically unique.

    Node names come from the inventory and may be long host names, while an interface has at most 15 characters.
    """
    plain = f"{prefix}-{name}"
    if len(plain) <= 15 and re.fullmatch(r"[a-z0-9_-]+", plain):
        return plain
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    letters = re.sub(r"[^a-z0-9]", "", name.lower())[:3]
    return f"{prefix}-{letters}{digest}"


def protocol_name(prefix: str, name: str) -> str:
    """A BIRD symbol for a name: letters, digits and underscores, different for different names."""
    if re.fullmatch(r"[a-z0-9_]+", name):
        return f"{prefix}_{name}"
    symbol = re.sub(r"[^A-Za-z0-9_]", "_", name)
    return f"{prefix}_{symbol}_{hashlib.sha256(name.encode()).hexdigest()[:4]}"


def default_link_local(asn: int) -> str:
    """`fe80::` and the last four digits of the ASN, as DN42 operators do."""
    return str(ipaddress.IPv6Address(f"fe80::{asn % 10000 or 1}"))


def _endpoint(reader: _Reader, peer: Mapping[str, Any], key: str) -> Optional[Dict[str, Any]]:
    pair = reader.read(peer, "endpoint", f"{key}.endpoint", values.endpoint, default=None)
    return {"host": pair[0], "port": pair[1]} if pair else None


def _read_peer(reader: _Reader, peer: Mapping[str, Any], key: str, own_asn: Optional[int]) -> Optional[Dict[str, Any]]:
    before = len(reader.faults)
    for unknown in sorted(str(name) for name in peer if name not in PEER_KEYS):
        reader.fault(f"{key}.{unknown}", peer[unknown], f"is not an option of a peer (there are {', '.join(sorted(PEER_KEYS))})")
    name = reader.read(peer, "name", f"{key}.name", values.peer_name)
    state = peer.get("state") or "present"
    if state not in PEER_STATES:
        reader.fault(f"{key}.state", state, f"must be one of {', '.join(PEER_STATES)}")
    if state == "absent":
        return None
    interface = interface_name("wg", name) if name else "wg-?"
    asn = reader.read(peer, "asn", f"{key}.asn", values.asn)
    if asn is not None and asn == own_asn:
        reader.fault(f"{key}.asn", peer["asn"], "is our own ASN; nodes of our own are connected by being in the inventory")
    protocol = protocol_name("peer", name) if name else ""
    read = {
        "name": name,
        "shutdown": state == "shutdown",
        "shutdown_message": reader.read(peer, "shutdown_message", f"{key}.shutdown_message", _peering.shutdown_message, default=None),
        "draining": state == "draining",
        "asn": asn,
        "interface": interface,
        "protocol": protocol,
        "description": reader.read(peer, "description", f"{key}.description", values.text, default=None) or f"{name} (AS{asn})",
        "public_key": reader.read(peer, "public_key", f"{key}.public_key", values.wireguard_key),
        # The key itself stays in the inventory: the model is registered and may be printed.
        "preshared": bool(reader.read(peer, "preshared_key", f"{key}.preshared_key", values.wireguard_key, default=None)),
        "endpoint": _endpoint(reader, peer, key),
        "listen_port": reader.read(peer, "listen_port", f"{key}.listen_port", values.port, default=PEER_PORT_BASE + (asn or 0) % 10000),
        "local_address": reader.read(peer, "local_address", f"{key}.local_address", lambda value: values.link_local(value, interface), default_link_local(own_asn or 1)),
        "peer_address": reader.read(peer, "peer_address", f"{key}.peer_address", lambda value: values.link_local(value, interface), default=None),
        **_peering.read_ipv4(reader, peer, key),
        **_peering.check_session_options(reader, peer, key),
        **_peering.read_policy(reader, peer, key),
        # IPv6 needs 1280; above 1420 a tunnel does not fit into a usual path of 1500.
        "mtu": reader.read(peer, "mtu", f"{key}.mtu", lambda value: values.integer(value, 1280, 1500), default=DEFAULT_MTU),
        "keepalive": reader.read(peer, "keepalive", f"{key}.keepalive", lambda value: values.integer(value, 0, 65535), default=0),
    }
    if read["peer_address"] and read["peer_address"] == read["local_address"]:
        reader.fault(f"{key}.peer_address", peer.get("peer_address"), "is the address of our own side; the two sides of a tunnel need different ones")
    if '"' in read["description"] or "\n" in read["description"]:
        reader.fault(f"{key}.description", peer.get("description"), "must be one line without double quotes")
    if len(reader.faults) > before:
        return None
    return {**read, "sessions": _peering.sessions(read, protocol, protocol_name("peer4", str(name)))}


def _read_peers(reader: _Reader, host_vars: Mapping[str, Any], own_asn: Optional[int]) -> List[Dict[str, Any]]:
    written = host_vars.get("dn42_peers")
    if written is None:
        return []
    if not isinstance(written, list):
        reader.fault("dn42_peers", written, "must be a list of peers, each beginning with '- name: ...'")
        return []
    peers, seen = [], {}
    for index, peer in enumerate(written):
        key = f"dn42_peers[{index}]"
        if not isinstance(peer, Mapping):
            reader.fault(key, peer, f"must be a mapping such as {{name: ..., asn: ...}}; YAML read {values.kind_of(peer)}")
            continue
        name = peer.get("name")
        if isinstance(name, str):
            if name in seen:
                reader.fault(f"{key}.name", name, f"is the name of dn42_peers[{seen[name]}] too; names are unique on a node")
            seen[name] = index
        read = _read_peer(reader, peer, key, own_asn)
        if read:
            peers.append(read)
    ports: Dict[int, str] = {}
    for peer in peers:
        port = peer["listen_port"]
        if port in ports:
            reader.fault(f"dn42_peers[{seen[peer['name']]}].listen_port", port, f"is used by peer {ports[port]} too; give one of them another listen_port")
        ports[port] = peer["name"]
    return sorted(peers, key=lambda peer: peer["name"])


def _node_endpoint(reader: _Reader, host_vars: Mapping[str, Any]) -> Optional[str]:
    """Where the other nodes reach this one: `dn42_node_endpoint`, else `ansible_host`, else the name in the inventory."""
    for name in ("dn42_node_endpoint", "ansible_host", "inventory_hostname"):
        if host_vars.get(name) is not None:
            return reader.read(host_vars, name, name, lambda value: values.endpoint(f"[{value}]:1" if ":" in values.text(value) else f"{value}:1")[0])
    return reader.host


def _none_or(low: int, high: int) -> Callable[[Any], int]:
    """Reads a number in low..high, or 0 for none."""

    def read(value: Any) -> int:
        number = values.integer(value, 0, high)
        if 0 < number < low:
            raise values.BadValue(f"must be from {low} to {high}, or 0 for none")
        return number

    return read


def _own_value(reader: _Reader, host_vars: Mapping[str, Any], name: str, read: Callable[[Any], Any], default: Any = MISSING) -> Any:
    return reader.read(host_vars, name, name, read, default)


def _read_rtr_servers(reader: _Reader, host_vars: Mapping[str, Any]) -> List[Dict[str, Any]]:
    written = host_vars.get("dn42_router_rtr_servers") or []
    if not isinstance(written, list):
        reader.fault("dn42_router_rtr_servers", written, 'must be a list such as ["172.20.1.1:8082"]')
        return []
    if host_vars.get("dn42_router_roa") == "rtr" and not written:
        reader.fault("dn42_router_rtr_servers", written, "names no server, and without one no route is valid: every route of every peer would be refused")
    servers = [reader.read({"server": server}, "server", f"dn42_router_rtr_servers[{index}]", values.endpoint) for index, server in enumerate(written)]
    return [{"host": server[0], "port": server[1], "is_name": not _is_address(server[0])} for server in servers if server]


def _is_address(host: str) -> bool:
    try:
        return bool(ipaddress.ip_address(host))
    except ValueError:
        return False


def _check_bird(reader: _Reader, host_vars: Mapping[str, Any]) -> None:
    """Refuse by name what the node's BIRD does not have."""
    services = host_vars.get("dn42_stack_services")
    if str(host_vars.get("dn42_router_bird_version")) == BIRD_WITHOUT_RESTRICTED_SOCKET and (services is None or "looking_glass" in services):
        problem = "has no control socket that may only ask, and the looking glass needs one: take looking_glass out of dn42_stack_services, or use a newer BIRD"
        reader.fault("dn42_router_bird_version", host_vars["dn42_router_bird_version"], problem)


def _check_roa(reader: _Reader, host_vars: Mapping[str, Any]) -> None:
    """Refuse a router that would wait for ROAs which nobody fetches: it refuses every route until there are some."""
    services = host_vars.get("dn42_stack_services")
    roa = host_vars.get("dn42_router_roa", DEFAULT_ROA)
    if roa == "files" and services is not None and "rpki" not in services:
        problem = (
            "needs the service that fetches ROAs, for without any every route of every peer is refused: add rpki to dn42_stack_services, or set"
            ' dn42_router_roa: rtr, or "off" to believe every origin'
        )
        reader.fault("dn42_router_roa", roa, problem)


def _read_node(name: str, host_vars: Mapping[str, Any], faults: List[Fault]) -> Dict[str, Any]:
    reader = _Reader(name, faults)
    asn = _own_value(reader, host_vars, "dn42_asn", values.asn)
    _check_bird(reader, host_vars)
    _check_roa(reader, host_vars)
    return {
        "name": name,
        "asn": asn,
        "region": _own_value(reader, host_vars, "dn42_router_region", _none_or(*_dn42.REGIONS), default=0),
        "country": _own_value(reader, host_vars, "dn42_router_country", _none_or(1, 999), default=0),
        "rtr_servers": _read_rtr_servers(reader, host_vars),
        "latency": _latency.read_options(lambda option, read, default: _own_value(reader, host_vars, option, read, default)),
        "collectors": _collectors.read(reader, host_vars),
        "endpoint": _node_endpoint(reader, host_vars),
        "number": _own_value(reader, host_vars, "dn42_node_number", lambda value: values.integer(value, 1, NODE_NUMBER_LIMIT), default=None),
        "peers": _read_peers(reader, host_vars, asn),
        "anycast": _anycast.read(reader, host_vars),
    }


def _same_everywhere(nodes: Mapping[str, Mapping[str, Any]], variables: Mapping[str, Mapping[str, Any]], faults: List[Fault]) -> None:
    """The network has one ASN and one set of pools; a node with others would be a different network."""
    first = min(nodes)
    for name in sorted(nodes):
        if nodes[name]["asn"] not in (None, nodes[first]["asn"]):
            faults.append(Fault(name, "dn42_asn", nodes[name]["asn"], f"differs from the ASN of {first} ({nodes[first]['asn']}); one inventory is one autonomous system"))
        if variables[name].get("dn42_pools") != variables[first].get("dn42_pools"):
            faults.append(Fault(name, "dn42_pools", MISSING, f"differs from the pools of {first}; set it once for the group dn42_nodes"))


def _read_backbone(variables: Mapping[str, Mapping[str, Any]], faults: List[Fault]) -> Tuple[FrozenSet[_backbone.Link], Optional[FrozenSet[str]]]:
    """Links and route reflectors, None for those that are still to be chosen. All nodes say the same, which is read from the first."""
    first = min(variables)
    for name in sorted(variables):
        for option in _backbone.OPTIONS:
            if variables[name].get(option) != variables[first].get(option):
                faults.append(Fault(name, option, variables[name].get(option, MISSING), f"differs from {first}; set it once for the group dn42_nodes"))

    def report(key: str, value: Any, problem: str) -> None:
        faults.append(Fault(first, key, value, problem))

    reader = _Reader(first, faults)
    limit = _own_value(reader, variables[first], _backbone.OPTIONS[3], lambda value: values.integer(value, 2, NODE_NUMBER_LIMIT), default=_backbone.FULL_MESH_LIMIT)
    links = _backbone.read_links(variables[first].get(_backbone.OPTIONS[1]), variables, report)
    return links, _backbone.read_reflectors(variables[first].get(_backbone.OPTIONS[2]), limit or _backbone.FULL_MESH_LIMIT, variables, report)


def read_inventory(variables: Mapping[str, Mapping[str, Any]]) -> Dict[str, Dict[str, Any]]:
    """Read the variables of all nodes: {node: {variable: value}} to {node: {name, asn, endpoint, number, peers}}.

    Raises InventoryFaults with every fault of every node.
    """
    faults: List[Fault] = []
    nodes = {name: _read_node(name, variables[name], faults) for name in sorted(variables)}
    if nodes:
        _same_everywhere(nodes, variables, faults)
        links, reflectors = _read_backbone(variables, faults)
        for name, node in nodes.items():
            node["igp"] = _backbone.igp(variables)
            node["neighbors"] = _backbone.neighbors(links, name)
            node["reflectors"] = None if reflectors is None else sorted(reflectors)
            node["interfaces"] = sorted([peer["interface"] for peer in node["peers"]] + [interface_name("in", other) for other in node["neighbors"]])
    if faults:
        raise InventoryFaults(faults)
    return nodes


def _number(node: Mapping[str, Any], block: Mapping[str, Any], pools: List[Mapping[str, Any]]) -> int:
    """A small number that belongs to a node as long as its block does: the block's position in the operator's pools.

    It names the node's end of internal tunnels (port and link-local address). Deriving it from the block makes it
    unique wherever blocks are, in every branch of the inventory, without a second register.
    """
    if node["number"]:
        return node["number"]
    family = "ipv4" if block.get("ipv4") else "ipv6"
    prefix = ipaddress.ip_network(block[family]["prefix"])
    position = 0
    for pool in pools:
        if (pool.get("purpose") or "node") != "node":
            continue  # no node has a block there
        size = 1 << (prefix.max_prefixlen - int((pool.get("block_size") or {}).get(family) or prefix.prefixlen))
        for text in pool.get(family) or []:
            network = ipaddress.ip_network(text)
            if prefix.subnet_of(network):
                return position + (int(prefix.network_address) - int(network.network_address)) // size + 1
            position += max(1, network.num_addresses // size)
    return position + 1


def _check_numbers(nodes: Mapping[str, Dict[str, Any]]) -> None:
    taken: Dict[int, str] = {}
    faults = []
    for name, node in sorted(nodes.items()):
        number = node["number"]
        if number > NODE_NUMBER_LIMIT:
            faults.append(
                Fault(name, "dn42_node_number", MISSING, f"the block's position in the pools is {number}; give the node a number from 1 to {NODE_NUMBER_LIMIT} of its own")
            )
        elif number in taken:
            faults.append(Fault(name, "dn42_node_number", number, f"is the number of {taken[number]} too; give one of them another"))
        taken[number] = name
    if faults:
        raise InventoryFaults(faults)


def _internal_tunnel(node: Mapping[str, Any], other: Mapping[str, Any], key: Optional[str]) -> Dict[str, Any]:
    """Our end of the tunnel to another node of our own. Both ends follow from the two nodes' numbers alone."""
    return {
        "name": other["name"],
        "interface": interface_name("in", other["name"]),
        "public_key": key,
        "preshared": False,
        "endpoint": {"host": other["endpoint"], "port": NODE_PORT_BASE + node["number"]},
        "listen_port": NODE_PORT_BASE + other["number"],
        "local_address": str(ipaddress.IPv6Address(f"fe80::{node['number']:x}")),
        "peer_address": str(ipaddress.IPv6Address(f"fe80::{other['number']:x}")),
        "mtu": DEFAULT_MTU,
        "keepalive": 0,
    }


def _tunnel(link: Mapping[str, Any], addresses: List[str], allowed_ips: List[str]) -> Dict[str, Any]:
    return {
        "name": link["interface"],
        "listen_port": link["listen_port"],
        "mtu": link["mtu"],
        "addresses": addresses,
        "peer": {
            "public_key": link["public_key"],
            "endpoint": link["endpoint"],
            "preshared_key_file": f"/secrets/psk-{link['interface']}" if link["preshared"] else None,
            "allowed_ips": allowed_ips,
            "keepalive": link["keepalive"],
        },
    }


def _check_families(name: str, block: Mapping[str, Any]) -> List[Fault]:
    missing = [family for family in ("ipv4", "ipv6") if not block.get(family)]
    if not missing:
        return []
    return [Fault(name, "dn42_pools", MISSING, f"gives the node no {' and no '.join(missing)} block; a node of DN42 has both families")]


def _check_links(name: str, links: List[Mapping[str, Any]], own_key: Optional[str]) -> List[Fault]:
    """Faults that only show once internal tunnels are known: shared ports or interfaces, a peer with our own key."""
    faults = []
    ports: Dict[int, str] = {}
    for link in links:
        if link["listen_port"] in ports:
            faults.append(Fault(name, f"peer {link['name']}: listen_port", link["listen_port"], f"is used by the tunnel to {ports[link['listen_port']]} too"))
        ports[link["listen_port"]] = link["name"]
        if own_key and link["public_key"] == own_key:
            faults.append(Fault(name, f"peer {link['name']}: public_key", link["public_key"], "is this node's own public key; ask the peer for theirs"))
    return faults


def _check_tunnel_ipv4(name: str, peers: List[Mapping[str, Any]], own: List[str], gateway: Optional[str]) -> List[Fault]:
    """Packets from outside with an address of ours are dropped, and BGP's would be among them.

    gateway: the node's own address; a tunnel whose ends have no network in common may have it.
    """

    def ours(network: Any) -> Optional[str]:
        return next((prefix for prefix in own if network.overlaps(ipaddress.ip_network(prefix))), None)

    faults = []
    for peer in peers:
        if not peer["local_ipv4"]:
            continue
        interface = ipaddress.ip_interface(peer["local_ipv4"])
        if interface.network.prefixlen == 32:
            if ours(interface.network) and str(interface.ip) != gateway:
                problem = f"is in {ours(interface.network)}, which is ours, and is not this node's own address; of our addresses use {gateway}/32"
                faults.append(Fault(name, f"peer {peer['name']}: local_ipv4", peer["local_ipv4"], problem))
            clash = ours(ipaddress.ip_network(peer["peer_ipv4"]))
            if clash:
                problem = f"is in {clash}, which is ours, and packets from a peer with such addresses are dropped; it must be the other side's address"
                faults.append(Fault(name, f"peer {peer['name']}: peer_ipv4", peer["peer_ipv4"], problem))
            continue
        clash = ours(interface.network)
        if clash:
            problem = f"is in {clash}, which is ours, and packets from a peer with such addresses are dropped; use a transfer network, or the extended next hop without peer_ipv4"
            faults.append(Fault(name, f"peer {peer['name']}: local_ipv4", peer["local_ipv4"], problem))
    return faults


def _on_link(block: Mapping[str, Any], service: str) -> Dict[str, Optional[str]]:
    """A service's addresses with the length of the block, as they are configured on an interface."""
    addresses = block["addresses"][service]
    return {family: f"{addresses[family]}/{block[family]['prefix_length']}" if addresses.get(family) else None for family in ("ipv4", "ipv6")}


def _addresses(plan: Mapping[str, Any], name: str) -> Dict[str, Any]:
    block = plan[name]
    return {
        "block": {family: block.get(family) for family in ("ipv4", "ipv6")},
        "addresses": block["addresses"],
    }


def _check_anycast(nodes: Mapping[str, Mapping[str, Any]], plan: Mapping[str, Any], pools: _anycast.Pools, aggregates: Mapping[str, List[str]]) -> None:
    problems = _anycast.check_network(nodes, pools, aggregates)
    problems += [problem for name, node in nodes.items() for problem in _anycast.check_targets(name, node, plan[name]["addresses"])]
    if problems:
        raise InventoryFaults([Fault(*problem) for problem in problems])


def _internal_session(node: Mapping[str, Any], other: Mapping[str, Any], plan: Mapping[str, Any]) -> Dict[str, Any]:
    """Our BGP session with another node, between the nodes' own addresses: it does not depend on any one tunnel."""
    reflectors = node["reflectors"]
    return {
        "name": other["name"],
        "protocol": protocol_name("ibgp", other["name"]),
        "description": f"node {other['name']}",
        "neighbor": plan[other["name"]]["addresses"]["gateway"]["ipv6"],
        # A reflector passes on to a client what it heard from others.
        "client": node["name"] in reflectors and other["name"] not in reflectors,
    }


def _build_node(node: Dict[str, Any], nodes: Mapping[str, Dict[str, Any]], plan: Mapping[str, Any], keys: Mapping[str, str], aggregates: Mapping[str, List[str]]) -> Dict[str, Any]:
    internal = [_internal_tunnel(node, nodes[name], keys.get(name)) for name in node["neighbors"]]
    # A node without a key cannot be reached yet.
    ibgp = [_internal_session(node, nodes[name], plan) for name in _backbone.sessions(node["reflectors"], node["name"], nodes) if keys.get(name)]
    known = [link for link in internal if link["public_key"]]
    gateway = plan[node["name"]]["addresses"]["gateway"]
    known_nodes = [{"name": name, "number": nodes[name]["number"], "addresses": plan[name]["addresses"], "latency_name": protocol_name("node", name)} for name in sorted(nodes)]
    return {
        "node": node["name"],
        "number": node["number"],
        "asn": node["asn"],
        # A router ID is 32 bits; a network without IPv4 takes the node's number.
        "router_id": gateway.get("ipv4") or str(ipaddress.IPv4Address(node["number"])),
        **_addresses(plan, node["name"]),
        "bridge_gateway": _on_link(plan[node["name"]], "gateway"),
        "aggregates": {family: list(aggregates.get(family) or []) for family in ("ipv4", "ipv6")},
        "dn42_prefixes": _dn42.PREFIXES,
        "origin_communities": [value for value in (node["region"], _dn42.COUNTRY_BASE + node["country"] if node["country"] else 0) if value],
        "path_groups": [group._asdict() for group in _dn42.PATH_GROUPS],
        "crypto_wireguard": _dn42.CRYPTO_WIREGUARD,
        "rtr_servers": node["rtr_servers"],
        "collectors": _collectors.sessions(node["collectors"], gateway, protocol_name),
        "route_filters": {family: [filter_._asdict() for filter_ in filters] for family, filters in _dn42.ROUTE_FILTERS.items()},
        "nodes": known_nodes,
        "latency": _latency.targets(node["latency"], node["peers"], [other for other in known_nodes if other["name"] != node["name"]]),
        "peers": node["peers"],
        "internal": known,
        # Names of all BGP sessions that are to be up.
        "wanted_sessions": sorted(
            [session["protocol"] for peer in node["peers"] if not peer["shutdown"] for session in peer["sessions"]] + [session["protocol"] for session in ibgp]
        ),
        "igp": node["igp"],
        "ibgp": ibgp,
        # The ports of all tunnels, also of those whose other end has no key yet.
        "listen_ports": sorted(link["listen_port"] for link in [*node["peers"], *internal]),
        "tunnels": sorted(
            [_tunnel(peer, _peering.tunnel_addresses(peer), _peering.allowed_ips(peer)) for peer in node["peers"]]
            + [_tunnel(link, [f"{link['local_address']}/64"], _dn42.INTERNAL_TUNNEL_PREFIXES) for link in known],
            key=lambda tunnel: tunnel["name"],
        ),
    }


def build(variables: Mapping[str, Mapping[str, Any]], plan: Mapping[str, Any], aggregates: Mapping[str, List[str]], public_keys: Mapping[str, str]) -> Dict[str, Dict[str, Any]]:
    """The model of every node, as the templates see it under the name `dn42`.

    variables: {node: its `dn42_*` variables}; plan: `blocks` of dn42.compose.address_blocks; aggregates:
    {family: registered prefixes}; public_keys: {node: key}, nodes without a key have no internal tunnels yet.
    Raises InventoryFaults.
    """
    nodes = read_inventory(variables)
    incomplete = [fault for name in nodes for fault in _check_families(name, plan[name])]
    if incomplete:
        raise InventoryFaults(incomplete)
    pools = next((list(host_vars.get("dn42_pools") or []) for host_vars in variables.values()), [])
    for name, node in nodes.items():
        node["number"] = _number(node, plan[name], pools)
    _check_numbers(nodes)
    anycast_pools = _anycast.read_pools(pools)
    _check_anycast(nodes, plan, anycast_pools, aggregates)
    for node in nodes.values():
        if node["reflectors"] is None:
            node["reflectors"] = sorted(_backbone.choose_reflectors({name: each["number"] for name, each in nodes.items()}))
    models = {name: _build_node(nodes[name], nodes, plan, public_keys, aggregates) for name in nodes}
    for name, model in models.items():
        model["anycast"] = _anycast.entries(nodes[name], plan[name]["addresses"], anycast_pools, aggregates)
        model["anycast_prefixes"] = _anycast.prefixes(nodes, anycast_pools, aggregates)
    faults = [fault for name, model in models.items() for fault in _check_links(name, [*model["peers"], *model["internal"]], public_keys.get(name))]
    faults += [fault for name, model in models.items() for fault in _check_tunnel_ipv4(name, model["peers"], model["aggregates"]["ipv4"], model["addresses"]["gateway"]["ipv4"])]
    if faults:
        raise InventoryFaults(faults)
    return models
