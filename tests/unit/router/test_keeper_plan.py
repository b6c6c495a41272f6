# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Declared and observed state in, actions out."""

from __future__ import annotations

from dataclasses import replace

import pytest
from dn42_router.model import Desired, Endpoint, Peer, Tunnel
from dn42_router.observe import DefaultRoute, Link, Observed, PeerState, Service, WireGuard
from dn42_router.plan import (
    PlanError,
    Secrets,
    Verb,
    plan_bridge,
    plan_removals,
    plan_tunnel,
)

PEER_KEY = "P" * 43 + "="
SECRETS = Secrets("NODE")
TUNNEL = Tunnel("wg-a", 21001, 1420, ("fe80::1/64",), Peer(PEER_KEY, Endpoint("203.0.113.1", 21002), None, ("10.0.0.0/8", "fe80::/64"), 0))
LINK = Link("wg-a", "wireguard", 1420, True, frozenset({"fe80::1/64"}))
PEER_STATE = PeerState(None, "203.0.113.1:21002", frozenset({"10.0.0.0/8", "fe80::/64"}), 0, 0)
DEVICE = WireGuard("NODE", 21001, {PEER_KEY: PEER_STATE})
GOOD = Observed({"wg-a": LINK}, {"wg-a": DEVICE})
BRIDGE = Link("eth1", "veth", 1500, True, frozenset({"172.23.255.3/29", "fd99::3/64"}))
DESIRED = Desired(("172.23.255.3", "fd99::3"), ("172.23.255.2/29", "fd99::2/64"), True, "any", (TUNNEL,))


def commands(tunnel: Tunnel, observed: Observed, endpoint: str | None = None, secrets: Secrets = SECRETS) -> list[str]:
    """Command lines of the tunnel's plan."""
    return [" ".join(action.argv) for action in plan_tunnel(tunnel, observed, secrets, endpoint)]


def verbs(observed: Observed) -> list[Verb]:
    """Verbs of the tunnel's plan."""
    return [action.verb for action in plan_tunnel(TUNNEL, observed, SECRETS, None)]


def test_nothing_to_do() -> None:
    assert commands(TUNNEL, GOOD) == []


def test_new_device_gets_everything_in_one_call() -> None:
    observed = Observed({"wg-a": replace(LINK, mtu=1500, up=False, addresses=frozenset())}, {"wg-a": WireGuard(None, 0, {})})
    assert commands(TUNNEL, observed, "203.0.113.1:21002") == [
        f"wg set wg-a private-key /secrets/private.key listen-port 21001 peer {PEER_KEY} endpoint 203.0.113.1:21002 allowed-ips 10.0.0.0/8,fe80::/64",
        "ip link set dev wg-a addrgenmode none",
        "ip link set dev wg-a mtu 1420",
        "ip address add fe80::1/64 dev wg-a nodad",
        "ip link set dev wg-a up",
    ]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"listen_port": 21009}, "wg set wg-a listen-port 21009"),
        ({"mtu": 1300}, "ip link set dev wg-a mtu 1300"),
        ({"listen_port": 0}, None),
        ({"peer": replace(TUNNEL.peer, keepalive=25)}, f"wg set wg-a peer {PEER_KEY} persistent-keepalive 25"),
        ({"peer": replace(TUNNEL.peer, allowed_ips=("10.0.0.0/8",))}, f"wg set wg-a peer {PEER_KEY} allowed-ips 10.0.0.0/8"),
    ],
)
def test_only_the_difference(change: dict[str, object], expected: str | None) -> None:
    assert commands(replace(TUNNEL, **change), GOOD) == ([expected] if expected else [])


def test_changed_peer_key_removes_the_old_peer_first() -> None:
    other = replace(TUNNEL.peer, public_key="Q" * 43 + "=")
    assert commands(replace(TUNNEL, peer=other), GOOD, "203.0.113.1:21002") == [
        f"wg set wg-a peer {PEER_KEY} remove peer {other.public_key} endpoint 203.0.113.1:21002 allowed-ips 10.0.0.0/8,fe80::/64"
    ]


def test_preshared_key_is_a_file_name() -> None:
    tunnel = replace(TUNNEL, peer=replace(TUNNEL.peer, preshared_key_file="/secrets/psk-wg-a"))
    assert commands(tunnel, GOOD, secrets=Secrets("NODE", "SECRET")) == [f"wg set wg-a peer {PEER_KEY} preshared-key /secrets/psk-wg-a"]
    assert "SECRET" not in repr(Secrets("NODE", "SECRET"))


def test_preshared_key_is_taken_away() -> None:
    device = replace(DEVICE, peers={PEER_KEY: replace(PEER_STATE, preshared_key="OLD")})
    assert commands(TUNNEL, replace(GOOD, wireguard={"wg-a": device})) == [f"wg set wg-a peer {PEER_KEY} preshared-key /dev/null"]


def test_address_changes() -> None:
    link = replace(LINK, addresses=frozenset({"fe80::9/64", "172.23.255.2/32"}))
    assert commands(TUNNEL, replace(GOOD, links={"wg-a": link})) == [
        "ip address del 172.23.255.2/32 dev wg-a",
        "ip address del fe80::9/64 dev wg-a",
        "ip address add fe80::1/64 dev wg-a nodad",
    ]


def test_addresses_without_a_network() -> None:
    ours = "172.23.255.2 peer 172.20.1.9/32"
    tunnel = replace(TUNNEL, addresses=("fe80::1/64", ours))
    link = replace(LINK, addresses=frozenset({"fe80::1/64", "172.23.255.2 peer 172.20.1.10/32"}))
    assert commands(tunnel, replace(GOOD, links={"wg-a": link})) == [
        "ip address del 172.23.255.2 peer 172.20.1.10/32 dev wg-a",
        "ip address add 172.23.255.2 peer 172.20.1.9/32 dev wg-a",
    ]
    assert commands(tunnel, replace(GOOD, links={"wg-a": replace(LINK, addresses=frozenset({"fe80::1/64", ours}))})) == []


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        (Observed(), [Verb.CREATE]),
        # a killed keeper's leftover: wireguard-go at work, its interface with the host
        (Observed(services={"wg-a": Service(7, 90, True)}), [Verb.MOVE]),
        (Observed(services={"wg-a": Service(7, 1, False)}), [Verb.WAIT]),
        (Observed(services={"wg-a": Service(None, 90, False)}), [Verb.WAIT]),
        (Observed(services={"wg-a": Service(7, 90, False)}), [Verb.RESTART]),
        (Observed({"wg-a": replace(LINK, kind="tun")}, services={"wg-a": Service(7, 1, False)}), [Verb.WAIT]),
        (Observed({"wg-a": replace(LINK, kind="tun")}, services={"wg-a": Service(7, 90, False)}), [Verb.RESTART]),
        (Observed({"wg-a": replace(LINK, kind="tun")}), [Verb.RUN, Verb.WAIT]),
    ],
)
def test_missing_interface(observed: Observed, expected: list[Verb]) -> None:
    assert verbs(observed) == expected


def test_foreign_interface_is_left_alone() -> None:
    with pytest.raises(PlanError, match="no tunnel"):
        plan_tunnel(TUNNEL, Observed({"wg-a": replace(LINK, kind="veth")}), SECRETS, None)


def test_bridge_is_found_by_address() -> None:
    observed = Observed({"eth0": replace(LINK, name="eth0", kind="veth"), "eth1": BRIDGE})
    assert [" ".join(action.argv) for action in plan_bridge(DESIRED, observed)] == [
        "ip address add 172.23.255.2/29 dev eth1",
        "ip address add fd99::2/64 dev eth1 nodad",
    ]


def test_address_taken_for_a_duplicate_is_put_to_use() -> None:
    bridge = replace(BRIDGE, addresses=BRIDGE.addresses | set(DESIRED.gateway), duplicates=frozenset({"fe80::42/64"}))
    assert [" ".join(action.argv) for action in plan_bridge(DESIRED, Observed({"eth1": bridge}))] == [
        "ip address del fe80::42/64 dev eth1",
        "ip address add fe80::42/64 dev eth1 nodad",
    ]


def test_bridge_missing() -> None:
    with pytest.raises(PlanError, match=r"no interface has the router's address 172\.23\.255\.3 or fd99::3"):
        plan_bridge(DESIRED, GOOD)


def test_default_routes_go() -> None:
    bridge = replace(BRIDGE, addresses=BRIDGE.addresses | set(DESIRED.gateway))
    routes = (DefaultRoute("4", ("default", "via", "172.23.255.1")), DefaultRoute("6", ("default", "dev", "eth1")))
    actions = plan_bridge(DESIRED, Observed({"eth1": bridge}, default_routes=routes))
    assert [" ".join(action.argv) for action in actions] == ["ip -4 route del default via 172.23.255.1", "ip -6 route del default dev eth1"]


def test_undeclared_tunnels_go_and_nothing_else() -> None:
    observed = Observed(
        {"eth1": BRIDGE, "wg-a": LINK, "wg-old": replace(LINK, name="wg-old"), "wg-go": replace(LINK, name="wg-go", kind="tun"), "lo": Link("lo", "", 65536, True, frozenset())},
        services={"wg-go": Service(7, 90, False), "wg-half": Service(None, 0, False)},
    )
    assert [(name, [action.verb for action in actions]) for name, actions in plan_removals(DESIRED, observed)] == [
        ("wg-go", [Verb.REMOVE_SERVICE]),
        ("wg-half", [Verb.REMOVE_SERVICE]),
        ("wg-old", [Verb.RUN]),
    ]
