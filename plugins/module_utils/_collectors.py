# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Route collectors: who gets a copy of our routes.

Pure computation on the controller. `reader` is always `_network`'s.

This module util is PRIVATE to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Mapping, Optional

from ansible_collections.dn42.compose.plugins.module_utils import _inventory_values as values

OPTION = "dn42_router_collectors"
KEYS = ("name", "address", "asn")
KNOWN = {"grc": {"name": "grc", "address": "fd42:d42:d42:179::1", "asn": 4242422602}}


def read(reader: Any, host_vars: Mapping[str, Any]) -> List[Dict[str, Any]]:
    """The collectors of a node as {name, address, asn}, sorted by name; faults go to the reader."""
    written = host_vars.get(OPTION)
    if written is None:
        return []
    if not isinstance(written, list):
        reader.fault(OPTION, written, 'must be a list such as ["grc"]')
        return []
    found: Dict[str, Dict[str, Any]] = {}
    addresses = set()
    for index, entry in enumerate(written):
        key = f"{OPTION}[{index}]"
        collector = _read_one(reader, entry, key)
        if collector is None:
            continue
        if collector["name"] in found or collector["address"] in addresses:
            reader.fault(key, entry, "is there twice: each collector needs a name and an address of its own")
        found[collector["name"]] = collector
        addresses.add(collector["address"])
    return [found[name] for name in sorted(found)]


def _read_one(reader: Any, entry: Any, key: str) -> Optional[Dict[str, Any]]:
    if isinstance(entry, str) and entry in KNOWN:
        return dict(KNOWN[entry])
    if not isinstance(entry, Mapping):
        reader.fault(key, entry, f"must be a known collector ({', '.join(sorted(KNOWN))}) or a mapping of {', '.join(KEYS)}")
        return None
    before = len(reader.faults)
    for unknown in sorted(str(name) for name in entry if name not in KEYS):
        reader.fault(f"{key}.{unknown}", entry[unknown], f"is not an option of a collector (there are {', '.join(KEYS)})")
    collector = {
        "name": reader.read(entry, "name", f"{key}.name", values.peer_name),
        "address": reader.read(entry, "address", f"{key}.address", lambda value: str(values.ip_address(value))),
        "asn": reader.read(entry, "asn", f"{key}.asn", values.asn),
    }
    return collector if len(reader.faults) == before else None


def sessions(collectors: List[Mapping[str, Any]], gateway: Mapping[str, str], protocol_name: Callable[[str, str], str]) -> List[Dict[str, Any]]:
    """Their sessions from the node's own DN42 addresses, with BIRD's name for each."""
    return [
        {**collector, "protocol": protocol_name("collector", collector["name"]), "source": gateway["ipv6" if ":" in collector["address"] else "ipv4"]} for collector in collectors
    ]
