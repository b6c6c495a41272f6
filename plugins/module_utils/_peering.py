# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What was agreed on with a peer about routing: its BGP sessions, and what routes from and to it are treated like.

Pure computation on the controller; `_network` reads a peer with it. `reader` is always `_network`'s.

This module util is PRIVATE to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import ipaddress
from typing import Any, Dict, List, Mapping, Optional

from ansible_collections.dn42.compose.plugins.module_utils import _dn42, _latency
from ansible_collections.dn42.compose.plugins.module_utils import _inventory_values as values

ROLES = ("provider", "customer", "peer")  # RFC 9234, ours on this session
LIMIT = 1_000_000
MESSAGE_BYTES = 128  # RFC 8203, which older BIRDs keep to
SESSION_KEYS = frozenset(("peer_ipv4", "local_ipv4", "multiprotocol", "extended_next_hop", "shutdown_message"))
POLICY_KEYS = frozenset(("bfd", "role", "local_preference", "prepend", "import_limit", *(group.name for group in _dn42.PATH_GROUPS)))


def read_ipv4(reader: Any, peer: Mapping[str, Any], key: str) -> Dict[str, Optional[str]]:
    """`peer_ipv4` and `local_ipv4` of the tunnel, the latter with its length; None where the tunnel has no IPv4."""
    theirs = reader.read(peer, "peer_ipv4", f"{key}.peer_ipv4", lambda value: values.ip_address(value, 4), default=None)
    if theirs is None:
        if peer.get("local_ipv4") is not None and peer.get("peer_ipv4") is None:
            reader.fault(f"{key}.local_ipv4", peer["local_ipv4"], "is of no use without peer_ipv4, the address of the other side")
        return {"peer_ipv4": None, "local_ipv4": None}
    ours = reader.read(peer, "local_ipv4", f"{key}.local_ipv4", lambda value: values.tunnel_ipv4(value, theirs))
    return {"peer_ipv4": str(theirs), "local_ipv4": str(ours) if ours else None}


def check_session_options(reader: Any, peer: Mapping[str, Any], key: str) -> Dict[str, bool]:
    """`multiprotocol` and `extended_next_hop` as they are meant; a fault for what cannot carry both families.

    The table is in docs/routing.md. Without an address of a family on the tunnel, nothing can be sent over it.
    """
    six, four = peer.get("peer_address") is not None, peer.get("peer_ipv4") is not None
    multiprotocol = reader.read(peer, "multiprotocol", f"{key}.multiprotocol", values.boolean, default=six)
    extended = reader.read(peer, "extended_next_hop", f"{key}.extended_next_hop", values.boolean, default=bool(six and multiprotocol and not four))
    if not six and not four:
        reader.fault(f"{key}.peer_address", peer.get("peer_address"), "is required (or peer_ipv4, for a session over IPv4): the address of the other side of the tunnel")
    elif multiprotocol and not six:
        reader.fault(f"{key}.multiprotocol", peer.get("multiprotocol"), "needs peer_address: an IPv4 session has no next hop for IPv6 routes")
    elif extended and not multiprotocol:
        reader.fault(f"{key}.extended_next_hop", peer.get("extended_next_hop"), "is for IPv4 routes on an IPv6 session: it needs peer_address and multiprotocol: true")
    elif multiprotocol and not extended and not four:
        problem = "leaves IPv4 routes without a next hop: give peer_ipv4, leave it out, or have IPv6 alone with multiprotocol: false"
        reader.fault(f"{key}.extended_next_hop", peer.get("extended_next_hop"), problem)
    return {"multiprotocol": bool(multiprotocol), "extended_next_hop": bool(extended)}


def shutdown_message(value: Any) -> str:
    """What the other side sees when its session is shut down: one line that BIRD's command can carry."""
    message = values.text(value)
    if '"' in message or not message.isprintable():
        raise values.BadValue("must be one line without double quotes")
    size = len(message.encode())
    if size > MESSAGE_BYTES:
        raise values.BadValue(f"has {size} bytes, and a message has at most {MESSAGE_BYTES}")
    return message


def sessions(peer: Mapping[str, Any], protocol: str, protocol_ipv4: str) -> List[Dict[str, Any]]:
    """The BGP sessions with a peer that was read: one with both families, one for each family, or one of one family."""
    local_ipv4 = peer["local_ipv4"].partition("/")[0] if peer["local_ipv4"] else None
    found = []
    if peer["peer_address"]:
        over_six = {"protocol": protocol, "source": peer["local_address"], "neighbor": f"{peer['peer_address']} % '{peer['interface']}'", "ipv6": True, "ipv4": None}
        if peer["multiprotocol"]:
            # Without the extended one, BIRD's next hop is our IPv4 address on the tunnel.
            over_six["ipv4"] = {"extended_next_hop": peer["extended_next_hop"]}
        found.append(over_six)
    if peer["peer_ipv4"] and not peer["multiprotocol"]:
        name = protocol_ipv4 if found else protocol
        found.append({"protocol": name, "source": local_ipv4, "neighbor": peer["peer_ipv4"], "ipv6": False, "ipv4": {"extended_next_hop": False}})
    return found


def tunnel_addresses(peer: Mapping[str, Any]) -> List[str]:
    """Addresses of our end as ip(8) shows them: with their lengths, or with the other end's where the two have no network."""
    ours, _slash, length = (peer["local_ipv4"] or "").partition("/")
    four = f"{ours} peer {peer['peer_ipv4']}/32" if length == "32" else peer["local_ipv4"]
    return [f"{peer['local_address']}/64", *([four] if four else [])]


def allowed_ips(peer: Mapping[str, Any]) -> List[str]:
    """What the tunnel may carry: DN42, and the other end's own address if it is not of DN42."""
    if not peer["peer_ipv4"] or any(ipaddress.ip_address(peer["peer_ipv4"]) in ipaddress.ip_network(prefix) for prefix in _dn42.PREFIXES["ipv4"]):
        return _dn42.TUNNEL_PREFIXES
    return [*_dn42.TUNNEL_PREFIXES, f"{peer['peer_ipv4']}/32"]


def read_policy(reader: Any, peer: Mapping[str, Any], key: str) -> Dict[str, Any]:
    """How routes of the peer are treated. `path` is {group: value} of the communities that tell what the tunnel is like.

    `latency` is the value in `path`, or a word of `_latency`, or None where the node's option decides.
    """

    def option(name: str, read: Any, default: Any = None) -> Any:
        return reader.read(peer, name, f"{key}.{name}", read, default)

    latency = option("latency", _latency.read_of_peer)
    wireguard = _dn42.CRYPTO_WIREGUARD_PSK if peer.get("preshared_key") else _dn42.CRYPTO_WIREGUARD
    path = {
        "latency": latency if isinstance(latency, int) else None,
        "bandwidth": option("bandwidth", lambda value: _dn42.bandwidth_value(values.number(value, 0.1, 1e7, "Mbit/s"))),
        "crypto": option("crypto", lambda value: values.integer(value, 31, 36), wireguard),
        "link_type": option("link_type", lambda value: _dn42.LINK_TYPES[values.one_of(value, _dn42.LINK_TYPES)]),
        "packet_loss": option("packet_loss", lambda value: _dn42.packet_loss_value(values.number(value, 0, 100, "per cent"))),
    }
    return {
        "bfd": option("bfd", values.boolean, False),
        "role": option("role", lambda value: values.one_of(value, ROLES)),
        "local_preference": option("local_preference", lambda value: values.integer(value, 0, 4294967295)),
        "prepend": option("prepend", lambda value: values.integer(value, 0, 16), 0),
        "import_limit": option("import_limit", lambda value: values.integer(value, 0, LIMIT)),
        "latency": latency,
        "path": {name: value for name, value in path.items() if value is not None},
    }
