# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which latencies a node measures, and where BIRD's filters use them.

Pure computation on the controller. The keeper in the router's image measures, and writes a file for each target, which the filters include.

This module util is PRIVATE to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Mapping

from ansible_collections.dn42.compose.plugins.module_utils import _dn42
from ansible_collections.dn42.compose.plugins.module_utils import _inventory_values as values

DEFAULT_INTERVAL = 43200  # seconds; the whole network hears of a change, and the wiki asks for twelve hours
SHORTEST_INTERVAL, LONGEST_INTERVAL = 60, 604800
MEASURED, NONE = "measured", "none"


def read_options(own_value: Callable[..., Any]) -> Dict[str, Any]:
    """The options of a node."""
    return {
        "measure": own_value("dn42_router_measure_latency", values.boolean, True),
        "interval": own_value("dn42_router_latency_interval", lambda value: values.integer(value, SHORTEST_INTERVAL, LONGEST_INTERVAL), DEFAULT_INTERVAL),
    }


def read_of_peer(value: Any) -> Any:
    """`latency` of a peer: the community's value for milliseconds, or one of the words. Raises BadValue."""
    if isinstance(value, str) and value.strip() in (MEASURED, NONE):
        return str(value).strip()
    try:
        return _dn42.latency_value(values.number(value, 0, 60000, "ms"))
    except values.BadValue as error:
        raise values.BadValue(f"{error} (or one of the words {MEASURED}, {NONE})") from error


def _peer_target(peer: Mapping[str, Any]) -> Dict[str, str]:
    address = f"{peer['peer_address']}%{peer['interface']}" if peer["peer_address"] else peer["peer_ipv4"]
    return {"name": peer["protocol"], "address": address}


def targets(options: Mapping[str, Any], peers: List[Mapping[str, Any]], others: List[Mapping[str, Any]]) -> Dict[str, Any]:
    """What the keeper is told. `others` are the other nodes: their address in DN42 is the end of what is measured, over whatever tunnels lead there.

    A peer that is shut down has no routes that it could be told with.
    """
    wanted = [peer for peer in peers if not peer["shutdown"] and (peer["latency"] == MEASURED or (peer["latency"] is None and options["measure"]))]
    found = [_peer_target(peer) for peer in wanted]
    found += [{"name": other["latency_name"], "address": other["addresses"]["gateway"]["ipv6"]} for other in others if options["measure"]]
    return {"interval": options["interval"], "limits": list(_dn42.LATENCY_LIMITS), "targets": sorted(found, key=lambda target: target["name"])}
