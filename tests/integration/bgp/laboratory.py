# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Networks of the policy laboratory: nodes of ours from an inventory, and foreign networks beside them.

Timers: ours are the role's (connect delay 2 s, retry 10 s, hold 90 s); those of foreign networks are in foreign.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import foreign
import rendering
from routers import Router, address, connect, stub

OUR_ASN = 4200420001
AGGREGATES = {prefix for prefixes in rendering.AGGREGATES.values() for prefix in prefixes}
PEER_KEY = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="


def peer(name: str, asn: int, **options: Any) -> dict[str, Any]:
    """An entry of `dn42_peers`; None takes a key away."""
    entry = {"name": name, "asn": asn, "public_key": PEER_KEY, "peer_address": "fe80::2", "listen_port": 20000 + asn % 10000, **options}
    return {key: value for key, value in entry.items() if value is not None}


@dataclass
class Foreign:
    """A foreign network: its router, its ASN, and an address of each family that it answers from."""

    router: Router
    asn: int
    ipv4: str
    ipv6: str
    announcements: list[foreign.Announcement] = field(default_factory=list)
    sessions: str = ""

    def start(self) -> None:
        """Start BIRD, or give it the present announcements and sessions."""
        self.router.start(foreign.configuration(self.asn, self.ipv4, self.announcements, self.sessions))

    def table(self, protocol: str = "us") -> dict[str, Any]:
        """What it really has from a session."""
        return {prefix: routes[0] for prefix, routes in self.router.routes(f"protocol {protocol}").items()}


@dataclass
class Node:
    """A node of ours: its router, and what BIRD was given."""

    name: str
    router: Router
    model: Mapping[str, Any]
    options: dict[str, Any]

    def start(self) -> None:
        """Start BIRD with what the role renders, or give it that."""
        self.router.start(rendering.configuration(self.model, self.options))

    def bring_up(self) -> None:
        """Addresses as Docker and the keeper bring them about, and the rule that the container's init makes."""
        self.router.run("ip", "-6", "rule", "add", "pref", "32767", "lookup", "253")
        bridge = {family: f"{self.model['addresses']['router'][family]}/{self.model['block'][family]['prefix_length']}" for family in ("ipv4", "ipv6")}
        if self.router.run("ip", "link", "show", "eth0", check=False).returncode != 0:
            stub(self.router, "eth0")
        address(self.router, "eth0", *bridge.values(), *self.model["bridge_gateway"].values())
        for tunnel in self.model["tunnels"]:
            address(self.router, tunnel["name"], *tunnel["addresses"])

    def table(self, protocol: str) -> dict[str, Any]:
        """What it accepted from a session."""
        return {prefix: routes[0] for prefix, routes in self.router.routes(f"protocol {protocol}").items()}

    def ping(self, destination: str) -> bool:
        """Reach an address from the node's own DN42 address."""
        return self.router.reaches(self.model["addresses"]["gateway"]["ipv6" if ":" in destination else "ipv4"], destination)


def network(
    router: Callable[..., Router],
    inventory: Mapping[str, Mapping[str, Any]],
    options: Mapping[str, Any] | None = None,
    version: str = "",
    aggregates: Mapping[str, list[str]] = rendering.AGGREGATES,
) -> dict[str, Node]:
    """Nodes of ours, joined as the inventory says; foreign networks still have to be, then `bring_up` and `start`."""
    options = {**(options or {}), **({"dn42_router_bird_version": version} if version else {})}
    models = rendering.models(inventory, aggregates)
    nodes = {name: Node(name, router(name, version) if version else router(name), model, dict(options)) for name, model in models.items()}
    for name, node in nodes.items():
        for link in node.model["internal"]:
            if name < link["name"]:
                other = next(back for back in nodes[link["name"]].model["internal"] if back["name"] == name)
                connect(node.router, link["interface"], nodes[link["name"]].router, other["interface"])
    return nodes


def foreign_network(make: Callable[..., Router], name: str, asn: int, ipv4: str, ipv6: str, announcements: Sequence[foreign.Announcement] = ()) -> Foreign:
    """A foreign network that answers from two addresses and announces routes, with no session yet."""
    one = Foreign(make(name), asn, ipv4, ipv6, list(announcements))
    address(one.router, "lo", f"{ipv4}/32", f"{ipv6}/128")
    return one


def join(node: Node, name: str, other: Foreign, channels: str = foreign.BOTH, options: str = "") -> None:
    """A tunnel between a node and the foreign network that its inventory calls `name`, with the default session."""
    connect(node.router, f"wg-{name}", other.router, f"us-{node.name}")
    address(other.router, f"us-{node.name}", "fe80::2/64")
    session = "us" if not other.sessions else f"us_{node.name}"
    other.sessions += foreign.session(session, "fe80::2", "fe80::1", f"us-{node.name}", OUR_ASN, channels, options)
