# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The declared state of a router, read from tunnels.json."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FAMILIES = ("any", "ipv4", "ipv6")
PROBES = ("dns", "tcp")
SYMBOL = re.compile(r"[a-z][a-z0-9_]{0,63}")
# The kernel takes 15 bytes; '/', blanks, '%' and ':' are refused by it or by tools.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.=+-]{0,14}")
HOST_NAME = re.compile(r"(?=.{1,253}\.?\Z)[A-Za-z0-9_]([A-Za-z0-9_-]*)(\.[A-Za-z0-9_-]+)*\.?")


class ConfigError(ValueError):
    """The declaration cannot be used; the message says which field and why."""


@dataclass(frozen=True)
class Endpoint:
    """Where a peer listens: an address or a host name, and a UDP port."""

    host: str
    port: int

    @property
    def address(self) -> str | None:
        """The canonical address, or None when the host is a name."""
        try:
            return str(ipaddress.ip_address(self.host))
        except ValueError:
            return None

    def __str__(self) -> str:
        return join_endpoint(self.host, self.port)


@dataclass(frozen=True)
class Peer:
    """The other side of a tunnel. `keepalive` is in seconds, 0 is off."""

    public_key: str
    endpoint: Endpoint | None
    preshared_key_file: str | None
    allowed_ips: tuple[str, ...]
    keepalive: int


@dataclass(frozen=True)
class Tunnel:
    """One WireGuard interface with its only peer. `mtu` is in bytes."""

    name: str
    listen_port: int
    mtu: int
    addresses: tuple[str, ...]
    peer: Peer


@dataclass(frozen=True)
class Anycast:
    """An address that is announced while the service behind it answers.

    `protocol` is BIRD's name for it, `prefix` what is announced, `target` the service's own address. `probe` is how the
    service is asked on its `port`: a DNS query over UDP, or a TCP connection.
    """

    name: str
    protocol: str
    address: str
    prefix: str
    target: str
    probe: str
    port: int


@dataclass(frozen=True)
class Target:
    """What a link's latency is measured to: an address, with the interface if it is link-local. `name` is for files."""

    name: str
    address: str


@dataclass(frozen=True)
class Latency:
    """What is measured. `interval`: seconds for which a value lasts at least; `limits`: milliseconds between two values."""

    interval: float
    limits: tuple[float, ...]
    targets: tuple[Target, ...]


NOT_MEASURED = Latency(43200.0, (), ())


@dataclass(frozen=True)
class Desired:
    """All that the keeper has to bring about.

    `router` are the addresses that Docker gives the container, `gateway` those that the
    keeper adds to the same interface, with prefix lengths.
    """

    router: tuple[str, ...]
    gateway: tuple[str, ...]
    userspace: bool
    prefer_family: str
    tunnels: tuple[Tunnel, ...]
    anycast: tuple[Anycast, ...] = ()
    latency: Latency = NOT_MEASURED


def join_endpoint(host: str, port: int) -> str:
    """Write host and port the way wg does: IPv6 addresses in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_key(text: str) -> bool:
    """Tell whether the text is a WireGuard key: 32 bytes in base64."""
    try:
        return len(text) == 44 and len(base64.b64decode(text, validate=True)) == 32
    except (binascii.Error, ValueError):
        return False


def load(path: Path) -> Desired:
    """Read and check a declaration; ConfigError says what is wrong with it."""
    try:
        return parse(json.loads(path.read_bytes()))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error


def parse(data: Any) -> Desired:
    """Turn decoded JSON into a Desired; ConfigError names the field that is wrong."""
    if not isinstance(data, dict):
        raise ConfigError("a mapping is expected")
    bridge = _get(data, "bridge", dict, "")
    tunnels = tuple(_tunnel(item, f"tunnels[{number}]") for number, item in enumerate(_get(data, "tunnels", list, "")))
    _unique([tunnel.name for tunnel in tunnels], "tunnel name")
    _unique([tunnel.listen_port for tunnel in tunnels if tunnel.listen_port], "listen_port")
    anycast = tuple(_anycast(item, f"anycast[{number}].") for number, item in enumerate(_get(data, "anycast", list, "") if "anycast" in data else []))
    prefer = data.get("prefer_family", "any")
    if prefer not in FAMILIES:
        raise ConfigError(f"prefer_family: {prefer!r} is not one of {', '.join(FAMILIES)}")
    return Desired(
        router=_pair(bridge, "router", ipaddress.ip_address),
        gateway=_pair(bridge, "gateway", ipaddress.ip_interface),
        userspace=_get(data, "userspace", bool, ""),
        prefer_family=prefer,
        tunnels=tunnels,
        anycast=anycast,
        latency=parse_latency(_get(data, "latency", dict, "")) if "latency" in data else NOT_MEASURED,
    )


def parse_latency(item: dict[str, Any]) -> Latency:
    """What is to be measured."""
    limits = _get(item, "limits", list, "latency.")
    if not all(isinstance(limit, (int, float)) for limit in limits) or limits != sorted(limits):
        raise ConfigError("latency.limits: rising numbers are expected")
    targets = []
    for number, target in enumerate(_get(item, "targets", list, "latency.")):
        where = f"latency.targets[{number}]."
        if not isinstance(target, dict):
            raise ConfigError(f"{where[:-1]}: a mapping is expected")
        name, address = _get(target, "name", str, where), _get(target, "address", str, where)
        # It becomes a part of a file's name, the address an argument.
        if not re.fullmatch(r"[A-Za-z0-9_]+", name):
            raise ConfigError(f"{where}name: {name!r} is no name of a protocol")
        try:
            ipaddress.ip_address(address)
        except ValueError as error:
            raise ConfigError(f"{where}address: {error}") from error
        targets.append(Target(name, address))
    _unique([target.name for target in targets], "latency target")
    interval = _get(item, "interval", int, "latency.")
    if interval < 1:
        raise ConfigError(f"latency.interval: {interval} is no number of seconds")
    return Latency(float(interval), tuple(float(limit) for limit in limits), tuple(targets))


def _get(data: dict[str, Any], key: str, kind: type, where: str) -> Any:
    """The value of a required field, which must be of the given type."""
    value = data.get(key)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ConfigError(f"{where}{key}: a value of type {kind.__name__} is expected")
    return value


def _pair(bridge: dict[str, Any], key: str, kind: Any) -> tuple[str, ...]:
    """The canonical IPv4 and IPv6 address of one of the bridge's fields."""
    pair = _get(bridge, key, dict, "bridge.")
    values = [_get(pair, family, str, f"bridge.{key}.") for family in ("ipv4", "ipv6")]
    try:
        return tuple(str(kind(value)) for value in values)
    except ValueError as error:
        raise ConfigError(f"bridge.{key}: {error}") from error


def _tunnel(item: Any, where: str) -> Tunnel:
    """One entry of the list of tunnels."""
    if not isinstance(item, dict):
        raise ConfigError(f"{where}: a mapping is expected")
    name = _get(item, "name", str, f"{where}.")
    if not NAME.fullmatch(name):
        raise ConfigError(f"{where}.name: {name!r} is no interface name (at most 15 characters)")
    where = f"{name}."
    try:
        addresses = tuple(_tunnel_address(value) for value in _get(item, "addresses", list, where))
    except ValueError as error:
        raise ConfigError(f"{where}addresses: {error}") from error
    return Tunnel(
        name=name,
        listen_port=_port(item, "listen_port", where, lowest=0),
        mtu=_get(item, "mtu", int, where),
        addresses=addresses,
        peer=_peer(_get(item, "peer", dict, where), f"{where}peer."),
    )


def _tunnel_address(value: Any) -> str:
    """An address with its length in canonical form, or two with `peer` between them. Raises ValueError."""
    ours, word, theirs = str(value).partition(" peer ")
    if not word:
        return str(ipaddress.ip_interface(value))
    return f"{ipaddress.IPv4Address(ours)} peer {ipaddress.IPv4Interface(theirs)}"


def _peer(item: dict[str, Any], where: str) -> Peer:
    """The peer of one tunnel."""
    public_key = _get(item, "public_key", str, where)
    if not is_key(public_key):
        raise ConfigError(f"{where}public_key: not 32 bytes in base64")
    try:
        allowed = tuple(str(ipaddress.ip_network(value)) for value in _get(item, "allowed_ips", list, where))
    except ValueError as error:
        raise ConfigError(f"{where}allowed_ips: {error}") from error
    preshared = item.get("preshared_key_file")
    if preshared is not None and not isinstance(preshared, str):
        raise ConfigError(f"{where}preshared_key_file: a path or null is expected")
    return Peer(public_key, _endpoint(item.get("endpoint"), f"{where}endpoint"), preshared, allowed, _get(item, "keepalive", int, where))


def _anycast(item: Any, where: str) -> Anycast:
    """One entry of the list of anycast addresses."""
    if not isinstance(item, dict):
        raise ConfigError(f"{where[:-1]}: a mapping is expected")
    protocol = _get(item, "protocol", str, where)
    if not SYMBOL.fullmatch(protocol):
        raise ConfigError(f"{where}protocol: {protocol!r} is no name of a protocol")
    probe = _get(item, "probe", dict, where)
    kind = _get(probe, "kind", str, f"{where}probe.")
    if kind not in PROBES:
        raise ConfigError(f"{where}probe.kind: {kind!r} is not one of {', '.join(PROBES)}")
    try:
        address, target = (str(ipaddress.ip_address(_get(item, key, str, where))) for key in ("address", "target"))
        prefix = str(ipaddress.ip_network(_get(item, "prefix", str, where)))
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{where}{error}") from error
    return Anycast(_get(item, "name", str, where), protocol, address, prefix, target, kind, _port(probe, "port", f"{where}probe.", lowest=1))


def _endpoint(item: Any, where: str) -> Endpoint | None:
    """The endpoint of a peer; None for one that only answers."""
    if item is None:
        return None
    if not isinstance(item, dict):
        raise ConfigError(f"{where}: a mapping or null is expected")
    host = _get(item, "host", str, f"{where}.")
    endpoint = Endpoint(host, _port(item, "port", f"{where}.", lowest=1))
    if endpoint.address is None and not HOST_NAME.fullmatch(host):
        raise ConfigError(f"{where}.host: {host!r} is neither an address nor a host name")
    return endpoint


def _port(item: dict[str, Any], key: str, where: str, lowest: int) -> int:
    """A port; 0, where allowed, leaves the choice to the kernel."""
    port = _get(item, key, int, where)
    if not lowest <= port <= 65535:
        raise ConfigError(f"{where}{key}: {port} is no port")
    return int(port)


def _unique(values: list[Any], what: str) -> None:
    """Refuse a value that is there twice."""
    for value in values:
        if values.count(value) > 1:
            raise ConfigError(f"{what} {value!r} is used by two tunnels")
