# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is there: the output of ip and wg as values. Nothing here runs a command."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Link:
    """An interface. `kind` is the kernel's word for its type ('tun', 'wireguard', '' if none).

    `duplicates` are those of its addresses that the kernel took for somebody else's and does not use.
    """

    name: str
    kind: str
    mtu: int
    up: bool
    addresses: frozenset[str]
    duplicates: frozenset[str] = frozenset()


@dataclass(frozen=True)
class PeerState:
    """A peer as wg shows it. `handshake` is in seconds since 1970, 0 for never."""

    preshared_key: str | None = field(repr=False)
    endpoint: str | None
    allowed_ips: frozenset[str]
    handshake: int
    keepalive: int


@dataclass(frozen=True)
class WireGuard:
    """A WireGuard device as wg shows it; the private key is not kept."""

    public_key: str | None
    listen_port: int
    peers: dict[str, PeerState]


@dataclass(frozen=True)
class DefaultRoute:
    """A default route, as arguments for 'ip route del'."""

    family: str
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class Service:
    """A supervised wireguard-go.

    `pid` is None when it is down, `age` are the seconds since it went up or down, and
    `interface_with_host` says that its interface is still in the host's namespace.
    """

    pid: int | None
    age: int
    interface_with_host: bool


@dataclass(frozen=True)
class Observed:
    """The router's namespace and what we left in the host's."""

    links: dict[str, Link] = field(default_factory=dict)
    wireguard: dict[str, WireGuard] = field(default_factory=dict)
    default_routes: tuple[DefaultRoute, ...] = ()
    services: dict[str, Service] = field(default_factory=dict)


def parse_links(text: str) -> dict[str, Link]:
    """Read the output of 'ip -json -details address show'."""
    return {item["ifname"]: _link(item) for item in json.loads(text or "[]") if "ifname" in item}


def _link(item: dict[str, Any]) -> Link:
    """One interface of ip's output."""
    infos = [info for info in item.get("addr_info", ()) if "local" in info]
    return Link(
        name=item["ifname"],
        kind=item.get("linkinfo", {}).get("info_kind", ""),
        mtu=item.get("mtu", 0),
        up="UP" in item.get("flags", ()),
        addresses=frozenset(map(_address, infos)),
        duplicates=frozenset(_address(info) for info in infos if info.get("dadfailed")),
    )


def _address(info: dict[str, Any]) -> str:
    """An address as `ip address add` takes it; the other end's is shown where the two have no network."""
    other = f" peer {info['address']}" if "address" in info else ""
    return f"{info['local']}{other}/{info['prefixlen']}"


def parse_default_routes(text: str, family: str) -> tuple[DefaultRoute, ...]:
    """Read the output of 'ip -json -FAMILY route show default'; family is '4' or '6'."""
    return tuple(DefaultRoute(family, _route_arguments(item)) for item in json.loads(text or "[]"))


def _route_arguments(item: dict[str, Any]) -> tuple[str, ...]:
    """What distinguishes one default route from another."""
    arguments = ["default"]
    if item.get("type", "unicast") != "unicast":
        arguments.insert(0, item["type"])
    for key, word in (("gateway", "via"), ("dev", "dev"), ("metric", "metric")):
        if key in item:
            arguments += [word, str(item[key])]
    return tuple(arguments)


def parse_wireguard(text: str) -> dict[str, WireGuard]:
    """Read the output of 'wg show all dump'."""
    devices: dict[str, WireGuard] = {}
    for line in text.splitlines():
        fields = line.split("\t")
        if len(fields) == 5:
            name, _private_key, public_key, port, _mark = fields
            devices[name] = WireGuard(_value(public_key), int(port), {})
        elif len(fields) == 9:
            devices[fields[0]].peers[fields[1]] = _peer(fields)
    return devices


def _peer(fields: list[str]) -> PeerState:
    """One peer line of the dump: interface, key, psk, endpoint, ips, handshake, rx, tx, keepalive."""
    allowed = _value(fields[4])
    return PeerState(
        preshared_key=_value(fields[2]),
        endpoint=_value(fields[3]),
        allowed_ips=frozenset(allowed.split(",") if allowed else ()),
        handshake=int(fields[5]),
        keepalive=0 if fields[8] == "off" else int(fields[8]),
    )


def _value(text: str) -> str | None:
    """A field of the dump, None for what wg writes as (none)."""
    return None if text == "(none)" else text
