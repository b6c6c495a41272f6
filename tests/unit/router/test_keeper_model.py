# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""tunnels.json: what is taken, and how a wrong one is refused."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
from dn42_router.model import ConfigError, Endpoint, parse


def test_good_declaration_is_canonical(declaration: dict[str, Any]) -> None:
    desired = parse(declaration)
    assert desired.gateway == ("172.23.255.2/29", "fd99:4242:1::2/64")
    assert desired.tunnels[0].peer.endpoint == Endpoint("203.0.113.100", 21001)


def test_endpoint_may_be_null(declaration: dict[str, Any]) -> None:
    declaration["tunnels"][0]["peer"]["endpoint"] = None
    assert parse(declaration).tunnels[0].peer.endpoint is None


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("bridge",), None, "bridge"),
        (("bridge", "router", "ipv6"), "fd99::g", "bridge.router"),
        (("userspace",), "yes", "userspace: a value of type bool"),
        (("prefer_family",), "inet", "prefer_family"),
        (("tunnels", 0, "name"), "wg-this-is-too-long", "at most 15"),
        (("tunnels", 0, "name"), "wg%d", "no interface name"),
        (("tunnels", 0, "name"), "../../etc", "no interface name"),
        (("tunnels", 0, "listen_port"), 70000, "wg-peer1.listen_port"),
        (("tunnels", 0, "mtu"), "1420", "wg-peer1.mtu"),
        (("tunnels", 0, "addresses", 0), "fe80::1/200", "wg-peer1.addresses"),
        (("tunnels", 0, "addresses", 0), "172.23.255.2 peer fe80::2/128", "wg-peer1.addresses"),
        (("tunnels", 0, "addresses", 0), "172.23.255.2 via 172.20.1.9/32", "wg-peer1.addresses"),
        (("tunnels", 0, "peer", "public_key"), "short", "wg-peer1.peer.public_key"),
        (("tunnels", 0, "peer", "allowed_ips", 0), "172.20.0.1/14", "allowed_ips"),
        (("tunnels", 0, "peer", "endpoint", "port"), None, "endpoint.port"),
        (("tunnels", 0, "peer", "endpoint", "host"), "a b", "endpoint.host"),
        (("tunnels", 0, "peer", "endpoint", "host"), "-x.example.net", "endpoint.host"),
    ],
)
def test_wrong_field_is_named(declaration: Any, path: tuple[str | int, ...], value: object, message: str) -> None:
    place = declaration
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(ConfigError, match=re.escape(message)):
        parse(declaration)


def test_names_and_ports_are_unique(declaration: dict[str, Any]) -> None:
    data = declaration
    data["tunnels"].append(copy.deepcopy(data["tunnels"][0]))
    with pytest.raises(ConfigError, match=r"wg-peer1.*two tunnels"):
        parse(data)
    data["tunnels"][1]["name"] = "wg-peer2"
    with pytest.raises(ConfigError, match="listen_port 21002"):
        parse(data)


@pytest.mark.parametrize(
    ("host", "address", "text"),
    [
        ("203.0.113.100", "203.0.113.100", "203.0.113.100:1"),
        ("2001:DB8:0::1", "2001:db8::1", "[2001:DB8:0::1]:1"),
        ("peer.example.net", None, "peer.example.net:1"),
    ],
)
def test_endpoint(host: str, address: str | None, text: str) -> None:
    assert Endpoint(host, 1).address == address
    assert str(Endpoint(host, 1)) == text
