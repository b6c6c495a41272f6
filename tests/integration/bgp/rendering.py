# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""From an inventory to the very configuration that a node gets, without a node."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.dn42.compose.plugins.module_utils import _network, _service_role

POOLS = [{"name": "dn42", "ipv4": ["172.23.255.0/26"], "ipv6": ["fd99:4242:1::/48"], "block_size": {"ipv4": 29, "ipv6": 64}}]
AGGREGATES = {"ipv4": ["172.23.255.0/26"], "ipv6": ["fd99:4242:1::/48"]}
OFFSETS = {"host": 1, "gateway": 2, "router": 3, "dns": 4, "looking_glass": 5}
KEYS = (
    "mB1qJx0fJ5bS8P9x3jW0WmQ3Zt8Yb6T1JcQ2n4Vd3Fs=",
    "3y0q7sZ7Jm1f1e8cWb1yC2b3a4D5e6F7g8H9i0J1kL0=",
    "5y0q7sZ7Jm1f1e8cWb1yC2b3a4D5e6F7g8H9i0J1kL4=",
    "7y0q7sZ7Jm1f1e8cWb1yC2b3a4D5e6F7g8H9i0J1kL8=",
    "9y0q7sZ7Jm1f1e8cWb1yC2b3a4D5e6F7g8H9i0J1kM0=",
)


# Most cases are not about origins, and have no ROAs: those that are ask for them.
BELIEVING = {"dn42_router_roa": "off"}


def block(position: int) -> dict[str, Any]:
    """The block of the node at a position of the pools, as the address plan returns it."""
    four, six = f"172.23.255.{8 * position}", f"fd99:4242:1:{position:x}::" if position else "fd99:4242:1::"
    return {
        "pool": "dn42",
        "ipv4": {"prefix": f"{four}/29", "prefix_length": 29, "network": four},
        "ipv6": {"prefix": f"{six}/64", "prefix_length": 64, "network": six},
        "addresses": {name: {"ipv4": f"172.23.255.{8 * position + offset}", "ipv6": f"{six}{offset}"} for name, offset in OFFSETS.items()},
    }


def models(nodes: Mapping[str, Mapping[str, Any]], aggregates: Mapping[str, list[str]] = AGGREGATES) -> dict[str, dict[str, Any]]:
    """The models of nodes, given the variables of each; the n-th node by name has the n-th block."""
    variables = {
        name: {"dn42_asn": 4200420001, "dn42_pools": POOLS, **BELIEVING, "ansible_host": f"203.0.113.{11 + index}", **nodes[name]} for index, name in enumerate(sorted(nodes))
    }
    plan = {name: block(index) for index, name in enumerate(sorted(nodes))}
    return _network.build(variables, plan, aggregates, dict(zip(sorted(nodes), KEYS)))


def files(model: Mapping[str, Any], options: Mapping[str, Any] | None = None) -> dict[str, str]:
    """The release's files as the action plugin renders them: {name: text}."""
    role = _service_role.load("router")
    templar = Templar(loader=DataLoader(), variables={**role.defaults, **BELIEVING, **(options or {}), "dn42": model})
    return {name: str(templar.template(trust_as_template(path.read_text(encoding="utf-8")), escape_backslashes=False)) for name, path in role.templates()}


def configuration(model: Mapping[str, Any], options: Mapping[str, Any] | None = None) -> dict[str, str]:
    """BIRD's files, to be read from bird.conf."""
    return {name: text for name, text in files(model, options).items() if name.startswith("bird")}


def rendered(model: Mapping[str, Any], name: str, options: Mapping[str, Any] | None = None) -> str:
    """One of the role's files for a node."""
    return files(model, options)[name]
