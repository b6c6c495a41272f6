# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""From declared and observed state to a list of actions. Nothing here runs a command."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from enum import Enum

from .model import Desired, Tunnel
from .observe import Link, Observed, PeerState, WireGuard

PRIVATE_KEY = "/secrets/private.key"
TUNNEL_KINDS = ("tun", "wireguard")
# wireguard-go is up within a fraction of a second; after this one without interface is restarted.
USERSPACE_SECONDS = 15


class Verb(Enum):
    """How an action is carried out."""

    RUN = "run"  # a command in the router's namespace
    MOVE = "move"  # wireguard-go's interface from the host's namespace into the router's
    CREATE = "create"  # a new interface, from the kernel or else from wireguard-go
    RESTART = "restart"  # the tunnel's wireguard-go
    REMOVE_SERVICE = "remove-service"  # the tunnel's wireguard-go for good
    WAIT = "wait"  # nothing to do but to look again soon


# After these the interface is another one, and the rest is decided by looking again.
STRUCTURAL = (Verb.CREATE, Verb.RESTART, Verb.REMOVE_SERVICE, Verb.MOVE, Verb.WAIT)


@dataclass(frozen=True)
class Action:
    """One step: what the log says about it, and its command line if it has one."""

    verb: Verb
    text: str
    argv: tuple[str, ...] = ()


@dataclass(frozen=True)
class Secrets:
    """What a tunnel's key files hold: the node's public key, the preshared key if there is one."""

    public_key: str
    preshared_key: str | None = field(default=None, repr=False)


class PlanError(Exception):
    """Reality is such that the keeper must not act; the message says why."""


def find_bridge(desired: Desired, observed: Observed) -> Link:
    """The interface that has one of the router's own addresses, whatever its name is."""
    for link in observed.links.values():
        if any(address.split("/")[0] in desired.router for address in link.addresses):
            return link
    raise PlanError(f"no interface has the router's address {' or '.join(desired.router)}")


def plan_bridge(desired: Desired, observed: Observed) -> list[Action]:
    """Gateway addresses on the bridge interface, and no default route."""
    bridge = find_bridge(desired, observed)
    actions = [_add_address(bridge.name, address) for address in desired.gateway if address not in bridge.addresses]
    return actions + _plan_duplicates(bridge) + plan_routes(observed)


def _plan_duplicates(bridge: Link) -> list[Action]:
    """Put addresses to use that the kernel took for duplicates.

    Docker derives a container's MAC address, and so its link-local address, from its IPv4 address. Where the namespace
    of a container that was replaced lives on, it has the same ones and answers for them. Without a link-local address
    the router resolves no neighbour it forwards to, and IPv6 to the siblings is dead for good.
    """
    actions = []
    for address in sorted(bridge.duplicates):
        actions.append(Action(Verb.RUN, f"{address} is no duplicate: remove it", ("ip", "address", "del", address, "dev", bridge.name)))
        actions.append(_add_address(bridge.name, address))
    return actions


def plan_routes(observed: Observed) -> list[Action]:
    """Delete every default route: the router has no way to the Internet or to the host."""
    return [
        Action(Verb.RUN, f"delete IPv{route.family} route {' '.join(route.arguments)}", ("ip", f"-{route.family}", "route", "del", *route.arguments))
        for route in observed.default_routes
    ]


def plan_removals(desired: Desired, observed: Observed) -> list[tuple[str, list[Action]]]:
    """Tunnels that are there and not declared, each with its actions."""
    declared = {tunnel.name for tunnel in desired.tunnels}
    present = {link.name for link in observed.links.values() if link.kind in TUNNEL_KINDS}
    return [(name, _remove(name, observed)) for name in sorted((present | set(observed.services)) - declared)]


def _remove(name: str, observed: Observed) -> list[Action]:
    """Remove one tunnel: ending wireguard-go takes its interface along."""
    if name in observed.services:
        return [Action(Verb.REMOVE_SERVICE, "remove undeclared tunnel and its wireguard-go")]
    return [Action(Verb.RUN, "remove undeclared tunnel", ("ip", "link", "del", "dev", name))]


def plan_tunnel(tunnel: Tunnel, observed: Observed, secrets: Secrets, endpoint: str | None) -> list[Action]:
    """Actions that bring one tunnel nearer to its declaration; empty when it is as declared.

    `endpoint` is the 'address:port' to set, None to leave it. PlanError: an interface of this
    name is none of ours.
    """
    link = observed.links.get(tunnel.name)
    if link is None:
        return [_bring(tunnel.name, observed)]
    if link.kind not in TUNNEL_KINDS:
        raise PlanError(f"an interface {tunnel.name} that is no tunnel is in the router's namespace")
    service = observed.services.get(tunnel.name)
    if link.kind == "tun" and service is None:
        return [Action(Verb.RUN, "remove interface without wireguard-go", ("ip", "link", "del", "dev", tunnel.name)), Action(Verb.WAIT, "interface removed")]
    device = observed.wireguard.get(tunnel.name)
    if device is None:
        if service is not None and service.age > USERSPACE_SECONDS:
            return [Action(Verb.RESTART, "restart wireguard-go, which does not answer")]
        return [Action(Verb.WAIT, "wireguard does not answer yet")]
    return plan_wireguard(tunnel, device, secrets, endpoint) + plan_link(tunnel, link)


def _bring(name: str, observed: Observed) -> Action:
    """The step towards an interface that is not in the router's namespace."""
    service = observed.services.get(name)
    if service is None:
        return Action(Verb.CREATE, "create")
    if service.interface_with_host:
        return Action(Verb.MOVE, "move interface into the router's namespace")
    if service.pid is not None and service.age > USERSPACE_SECONDS:
        return Action(Verb.RESTART, "restart wireguard-go, which has no interface")
    return Action(Verb.WAIT, "waiting for the interface of wireguard-go")


def plan_wireguard(tunnel: Tunnel, device: WireGuard, secrets: Secrets, endpoint: str | None) -> list[Action]:
    """One 'wg set' with exactly what differs. Secrets are passed as file names."""
    arguments: list[str] = []
    changed: list[str] = []
    if device.public_key != secrets.public_key:
        arguments += ["private-key", PRIVATE_KEY]
        changed.append("private key")
    if tunnel.listen_port not in (0, device.listen_port):
        arguments += ["listen-port", str(tunnel.listen_port)]
        changed.append(f"listen port {tunnel.listen_port}")
    for key in sorted(set(device.peers) - {tunnel.peer.public_key}):
        # before our peer: an allowed address belongs to one peer at a time
        arguments += ["peer", key, "remove"]
        changed.append(f"remove peer {key}")
    peer_arguments, peer_changed = _peer_differences(tunnel, device.peers.get(tunnel.peer.public_key), secrets, endpoint)
    arguments += peer_arguments
    changed += peer_changed
    if not arguments:
        return []
    return [Action(Verb.RUN, f"set {', '.join(changed)}", ("wg", "set", tunnel.name, *arguments))]


def _peer_differences(tunnel: Tunnel, state: PeerState | None, secrets: Secrets, endpoint: str | None) -> tuple[list[str], list[str]]:
    """Arguments of 'wg set' for the peer, and their names for the log."""
    peer = tunnel.peer
    arguments: list[str] = []
    changed: list[str] = []
    if state is None:
        changed.append(f"peer {peer.public_key}")
    if secrets.preshared_key != (state.preshared_key if state else None):
        arguments += ["preshared-key", peer.preshared_key_file or "/dev/null"]
        changed.append("preshared key")
    if endpoint is not None:
        arguments += ["endpoint", endpoint]
        changed.append(f"endpoint {endpoint}")
    if peer.keepalive != (state.keepalive if state else 0):
        arguments += ["persistent-keepalive", str(peer.keepalive)]
        changed.append(f"keepalive {peer.keepalive}")
    if frozenset(peer.allowed_ips) != (state.allowed_ips if state else frozenset()):
        arguments += ["allowed-ips", ",".join(peer.allowed_ips)]
        changed.append("allowed addresses")
    if not changed:
        return [], []
    return ["peer", peer.public_key, *arguments], changed


def plan_link(tunnel: Tunnel, link: Link) -> list[Action]:
    """Addresses, MTU and state of the interface."""
    device = ("ip", "link", "set", "dev", tunnel.name)
    actions = []
    if not link.up:
        # first of all, else the kernel invents a link-local address beside the declared one
        actions.append(Action(Verb.RUN, "no automatic link-local address", (*device, "addrgenmode", "none")))
    if link.mtu != tunnel.mtu:
        actions.append(Action(Verb.RUN, f"MTU {tunnel.mtu}", (*device, "mtu", str(tunnel.mtu))))
    for address in sorted(link.addresses - set(tunnel.addresses)):
        actions.append(Action(Verb.RUN, f"delete address {address}", ("ip", "address", "del", *address.split(), "dev", tunnel.name)))
    for address in tunnel.addresses:
        if address not in link.addresses:
            actions.append(_add_address(tunnel.name, address))
    if not link.up:
        actions.append(Action(Verb.RUN, "up", (*device, "up")))
    return actions


def _add_address(device: str, address: str) -> Action:
    """Add an address; for IPv6 without the wait for duplicates, which BIRD could not bind in."""
    words = address.split()
    nodad = ("nodad",) if ipaddress.ip_interface(words[0]).version == 6 else ()
    return Action(Verb.RUN, f"add address {address}", ("ip", "address", "add", *words, "dev", device, *nodad))
