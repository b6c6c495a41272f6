# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Put a node's compose.yaml together from the fragments of its services. Controller only.

A fragment says what is special about a service; what every service of ours has in common is written here once:
its fixed addresses, the read-only file system, no capability unless the fragment adds one, no new privileges.

This module util is PRIVATE to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

from typing import Any, Collection, Dict, List, Mapping

import yaml

EGRESS_NETWORK = "egress"
HEADER = "# Written by the collection dn42.compose; the next run replaces changes made here.\n"


class ComposeError(ValueError):
    """A fragment that cannot be used; the text says why."""


def network(model: Mapping[str, Any], bridge: str) -> Dict[str, Any]:
    """The node's network as compose.yaml has it."""
    config = []
    for family, gateway in (("ipv4", "DefaultGatewayIPv4"), ("ipv6", "DefaultGatewayIPv6")):
        block = model["block"].get(family)
        if block:
            config.append(
                {
                    "subnet": block["prefix"],
                    "gateway": model["addresses"]["host"][family],
                    # Docker makes this address the default gateway of every container on the bridge.
                    "aux_addresses": {gateway: model["addresses"]["gateway"][family]},
                }
            )
    return {
        "name": "dn42",
        "driver": "bridge",
        "enable_ipv6": bool(model["block"].get("ipv6")),
        "driver_opts": {
            "com.docker.network.bridge.name": bridge,
            # Addresses of DN42 are routed. Nothing of this network leaves through the host, translated or not.
            "com.docker.network.bridge.enable_ip_masquerade": "false",
        },
        "ipam": {"driver": "default", "config": config},
    }


def egress_network(bridge: str) -> Dict[str, Any]:
    """The network of services that talk to the Internet, as compose.yaml has it: the host translates, and they do not see each other."""
    return {
        "name": "dn42-egress",
        "driver": "bridge",
        "driver_opts": {"com.docker.network.bridge.name": f"{bridge}-egress", "com.docker.network.bridge.enable_icc": "false"},
    }


def network_names(egress: bool) -> List[str]:
    """Names of the Docker networks of a node; egress: whether a service of it talks to the Internet."""
    return ["dn42", "dn42-egress"] if egress else ["dn42"]


def _in_dn42(role: str, model: Mapping[str, Any]) -> Dict[str, Any]:
    """Addresses and resolver of a service on the node's network."""
    addresses = model["addresses"].get(role)
    if not addresses:
        raise ComposeError(f"the address plan has no address for the service '{role}'; add it to dn42_address_plan_extra_offsets")
    fixed = {f"{family}_address": addresses[family] for family in ("ipv4", "ipv6") if addresses.get(family)}
    resolver = model["addresses"].get("dns") or {}
    # Names are the node's own resolver's business; Docker would ask the host's, which is not in DN42.
    common = {"dns": [resolver[family] for family in ("ipv4", "ipv6") if resolver.get(family)]} if resolver else {}
    return {**common, "networks": {"dn42": fixed}}


def _common(role: str, service: str, image: str, network: Dict[str, Any], directory: str) -> Dict[str, Any]:
    return {
        **network,
        "image": image,
        "container_name": f"dn42-{service}",
        "hostname": f"{service}",
        # Not always: a daemon that starts without live-restore and finds containers running stops and starts them at
        # once, and Docker 26 then runs a second set beside the first.
        "restart": "unless-stopped",
        "pull_policy": "never",
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "volumes": [f"{directory}/services/{role}:/config:ro"],
        "logging": {"driver": "json-file", "options": {"max-size": "5m", "max-file": "2"}},
    }


def _merge_service(common: Dict[str, Any], special: Mapping[str, Any], role: str) -> Dict[str, Any]:
    merged = dict(common)
    for key, value in special.items():
        if key == "volumes":
            merged["volumes"] = [*common["volumes"], *value]
        elif key in ("image", "container_name", "networks", "network_mode", "privileged", "cap_drop", "read_only"):
            raise ComposeError(f"the compose fragment of the service '{role}' sets '{key}', which belongs to the stack")
        else:
            merged[key] = value
    return merged


def assemble(
    fragments: Mapping[str, str],
    services: Mapping[str, str],
    images: Mapping[str, str],
    model: Mapping[str, Any],
    directory: str,
    project: str,
    bridge: str,
    egress: Collection[str] = (),
) -> str:
    """The text of compose.yaml, equal for equal input.

    fragments: {role: rendered templates/compose.yaml.j2}; services: {role: compose service}; images: {role: tag};
    egress: roles that are on the Internet instead of in DN42. Raises ComposeError.
    """
    compose: Dict[str, Any] = {"name": project, "services": {}, "volumes": {}, "networks": {"dn42": network(model, bridge)}}
    if any(role in egress for role in fragments):
        compose["networks"][EGRESS_NETWORK] = egress_network(bridge)
    for role in sorted(fragments):
        try:
            fragment = yaml.safe_load(fragments[role]) or {}
        except yaml.YAMLError as error:
            raise ComposeError(f"the compose fragment of the service '{role}' is not YAML: {error}") from error
        compose["volumes"].update(fragment.get("volumes") or {})
        for name, special in (fragment.get("services") or {services[role]: {}}).items():
            if name != services[role]:
                raise ComposeError(f"the compose fragment of the service '{role}' describes '{name}' instead of '{services[role]}'")
            where = {"networks": {EGRESS_NETWORK: {}}} if role in egress else _in_dn42(role, model)
            common = _common(role, name, images[role], where, directory)
            compose["services"][name] = _merge_service(common, special or {}, role)
    if not compose["volumes"]:
        del compose["volumes"]
    return HEADER + yaml.safe_dump(compose, sort_keys=True, default_flow_style=False, width=200)
