# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Docker network of a node: what it is, what it should be, and how to say the difference.

Docker cannot change a network in place, and depending on its version Compose does not see that one differs, or stumbles
over the containers in it. So it is compared here, setting by setting. Pure functions; run on nodes: Python 3.9.

This module util is PRIVATE to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import ipaddress
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Optional

FAMILIES = (4, 6)
ABSENT = "none"
PROJECT_LABEL = "com.docker.compose.project"
NETWORK_LABEL = "com.docker.compose.network"


class Difference(NamedTuple):
    """One setting of the network that is not as declared."""

    setting: str
    live: str
    declared: str

    def __str__(self) -> str:
        return f"{self.setting}: {self.live}, declared {self.declared}"


class Container(NamedTuple):
    """A container in the network, running or not. `project` is empty for one that Compose did not make."""

    name: str
    project: str
    running: bool

    def __str__(self) -> str:
        made_by = f"project {self.project}" if self.project else "of no project"
        return f"{self.name} ({made_by}{'' if self.running else ', not running'})"


def _address(text: Optional[str]) -> str:
    """One spelling for one address: engines differ in case, zeros and whether a gateway carries its length."""
    return str(ipaddress.ip_interface(text).ip) if text else ABSENT


def _joined(values: Iterable[str]) -> str:
    return ", ".join(sorted(set(values))) or ABSENT


def _yes(value: Any) -> str:
    return "yes" if value else "no"


def _ipam(entries: Iterable[Mapping[str, Any]], subnet: str, gateway: str, reserved: str) -> Dict[str, str]:
    """Settings of the address pools, read by the names that Compose or the engine's API has for them."""
    pools = [(ipaddress.ip_network(entry[subnet], strict=False), entry) for entry in entries if entry.get(subnet)]
    settings = {}
    for family in FAMILIES:
        own = [(network, entry) for network, entry in pools if network.version == family]
        settings[f"IPv{family} subnet"] = _joined(str(network) for network, _entry in own)
        settings[f"IPv{family} address of the host"] = _joined(_address(entry.get(gateway)) for _network, entry in own)
        default = [(entry.get(reserved) or {}).get(f"DefaultGatewayIPv{family}") for _network, entry in own]
        settings[f"IPv{family} default gateway of the containers"] = _joined(_address(address) for address in default)
    return settings


def declared_settings(network: Mapping[str, Any], project: str) -> Dict[str, str]:
    """The settings of a network as compose.yaml has it."""
    return {
        "driver": network["driver"],
        "IPv6": _yes(network["enable_ipv6"]),
        "internal": "no",
        **_ipam(network["ipam"]["config"], "subnet", "gateway", "aux_addresses"),
        **{name: str(value) for name, value in sorted(network["driver_opts"].items())},
        "Compose project": project,
        "Compose network": network["name"],
    }


def live_settings(inspected: Mapping[str, Any], options: Iterable[str]) -> Dict[str, str]:
    """The same settings of a network as `docker network inspect` has it; of its driver's options those in `options`.

    Options that nobody declared are left out: engines add some of their own.
    """
    given, labels = inspected.get("Options") or {}, inspected.get("Labels") or {}
    return {
        "driver": inspected.get("Driver") or ABSENT,
        "IPv6": _yes(inspected.get("EnableIPv6")),
        "internal": _yes(inspected.get("Internal")),
        **_ipam((inspected.get("IPAM") or {}).get("Config") or [], "Subnet", "Gateway", "AuxiliaryAddresses"),
        **{name: str(given.get(name, ABSENT)) for name in sorted(options)},
        "Compose project": labels.get(PROJECT_LABEL) or ABSENT,
        "Compose network": labels.get(NETWORK_LABEL) or ABSENT,
    }


def differences(live: Mapping[str, str], declared: Mapping[str, str]) -> List[Difference]:
    """The settings in which the two differ, in the order of `declared`."""
    return [Difference(setting, live[setting], value) for setting, value in declared.items() if live[setting] != value]


def as_text(settings: Mapping[str, str]) -> str:
    """Settings for a diff, one per line."""
    return "".join(f"{setting}: {value}\n" for setting, value in settings.items())


def read_containers(lines: str) -> List[Container]:
    """Containers from lines of name, project and state with tabs between, sorted by name."""
    fields = [line.split("\t") for line in lines.splitlines() if line.strip()]
    return sorted(Container(name, project, state == "running") for name, project, state in fields)


def foreign_text(name: str, foreign: Iterable[Container]) -> str:
    """Why a network with containers of others in it is not made anew, and the way out."""
    return (
        f"In the network are containers that are not this node's: {', '.join(map(str, foreign))}. Take each of them out with"
        f" `docker network disconnect --force {name} CONTAINER`, or remove it, then run again."
    )


def refusal(name: str, found: Iterable[Difference], running: Iterable[Container]) -> str:
    """What a run says that would have to make the network anew and was not told to."""
    listed = "\n".join(f"  {difference}" for difference in found)
    return (
        f"The Docker network {name} of this node is not as declared:\n{listed}\n"
        f"Docker cannot change a network in place: {', '.join(container.name for container in running)} would be removed, the network made anew, and"
        " everything started again, with all sessions down meanwhile. Nothing was changed on this node. If that is meant, run again with"
        " dn42_stack_renumber: true (-e dn42_stack_renumber=true); else put back what was there before, such as the node's former block in the address plan."
    )
