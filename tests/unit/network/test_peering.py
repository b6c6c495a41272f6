# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was agreed on with a peer about routing: sessions, communities, and what is refused with a cure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.dn42.compose.plugins.module_utils import _dn42, _latency, _network

ROLES = Path(__file__).resolve().parents[3] / "roles"
PEER = {"name": "peer1", "asn": 4200429002, "public_key": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}
SIX = {"peer_address": "fe80::2"}
FOUR = {"peer_ipv4": "172.20.240.2", "local_ipv4": "172.20.240.1"}


def read(peer: dict[str, Any], **variables: Any) -> dict[str, Any]:
    """The only node of an inventory with one peer."""
    return _network.read_inventory({"fra1": {"dn42_asn": 4200420001, "dn42_pools": [], "dn42_peers": [{**PEER, **peer}], **variables}})["fra1"]


def faults(peer: dict[str, Any], **variables: Any) -> list[str]:
    """What is wrong with such an inventory."""
    with pytest.raises(_network.InventoryFaults) as caught:
        read(peer, **variables)
    return [str(fault) for fault in caught.value.faults]


def sessions(peer: dict[str, Any]) -> list[str]:
    """The sessions as words: name, transport, families."""
    words = []
    for session in read(peer)["peers"][0]["sessions"]:
        next_hop = session["ipv4"] and ("extended" if session["ipv4"]["extended_next_hop"] else "plain")
        words.append(f"{session['protocol']} over {session['source']}:" + (" ipv6" if session["ipv6"] else "") + (f" ipv4 {next_hop}" if next_hop else ""))
    return words


ONE_FOR_BOTH = ["peer_peer1 over fe80::1: ipv6 ipv4 extended"]
IPV6_ALONE = ["peer_peer1 over fe80::1: ipv6"]


@pytest.mark.parametrize(
    ("four", "multiprotocol", "extended", "expected"),
    [
        (False, True, True, ONE_FOR_BOTH),
        (False, True, False, "leaves IPv4 routes without a next hop"),
        (False, False, True, "needs peer_address and multiprotocol: true"),
        (False, False, False, IPV6_ALONE),
        (True, True, True, ONE_FOR_BOTH),
        (True, True, False, ["peer_peer1 over fe80::1: ipv6 ipv4 plain"]),
        (True, False, True, "needs peer_address and multiprotocol: true"),
        (True, False, False, [*IPV6_ALONE, "peer4_peer1 over 172.20.240.1: ipv4 plain"]),
    ],
)
def test_the_eight_combinations(four: bool, multiprotocol: bool, extended: bool, expected: Any) -> None:
    """B50: each is a session that carries what it says, or a fault that says why not."""
    peer = {**SIX, **(FOUR if four else {}), "multiprotocol": multiprotocol, "extended_next_hop": extended}
    if isinstance(expected, list):
        assert sessions(peer) == expected
    else:
        assert any("extended_next_hop" in fault and expected in fault for fault in faults(peer))


def test_what_is_not_written_follows_from_what_is() -> None:
    assert sessions(SIX) == ONE_FOR_BOTH
    assert sessions({**SIX, **FOUR}) == ["peer_peer1 over fe80::1: ipv6 ipv4 plain"]
    assert sessions(FOUR) == ["peer_peer1 over 172.20.240.1: ipv4 plain"]
    assert sessions({**SIX, "multiprotocol": False}) == IPV6_ALONE


@pytest.mark.parametrize(
    ("local", "their", "expected"),
    [
        ("172.20.240.1", "172.20.240.2", "172.20.240.1/30"),
        ("172.20.240.2", "172.20.240.3", "172.20.240.2/31"),
        ("172.20.240.3", "172.20.240.4", "172.20.240.3/29"),
        ("172.20.240.1/24", "172.20.240.200", "172.20.240.1/24"),
        ("192.168.5.1", "192.168.5.2", "192.168.5.1/30"),
        ("172.20.240.1/32", "172.22.1.1", "172.20.240.1/32"),
    ],
)
def test_ipv4_of_a_tunnel_has_the_length_that_reaches_the_other_side(local: str, their: str, expected: str) -> None:
    assert read({**SIX, "local_ipv4": local, "peer_ipv4": their})["peers"][0]["local_ipv4"] == expected


WRONG = [
    ({}, "peer_address (missing)", "is required"),
    ({"peer_ipv4": "172.20.240.2"}, "local_ipv4 (missing)", "is required"),
    ({**SIX, "local_ipv4": "172.20.240.1"}, "local_ipv4", "without peer_ipv4"),
    ({**FOUR, "multiprotocol": True}, "multiprotocol", "no next hop for IPv6"),
    ({**FOUR, "extended_next_hop": True}, "extended_next_hop", "needs peer_address"),
    ({**FOUR, "peer_ipv4": "172.20.240.1"}, "local_ipv4", "other side"),
    ({**FOUR, "peer_ipv4": "172.22.1.1"}, "local_ipv4", "write 172.20.240.1/32 if each side has an address of its own"),
    ({**FOUR, "local_ipv4": "172.20.240.2/32"}, "local_ipv4", "other side"),
    ({**FOUR, "local_ipv4": "172.20.240.5/30"}, "local_ipv4", "without 172.20.240.2"),
    ({**FOUR, "local_ipv4": "172.20.240.3/30"}, "local_ipv4", "first or last"),
    ({**FOUR, "local_ipv4": "172.20.240.1/x"}, "local_ipv4", "172.20.240.1/30"),
    ({**FOUR, "local_ipv4": "fe80::1"}, "local_ipv4", "IPv4"),
    ({**SIX, "multiprotocol": "maybe"}, "multiprotocol", "true or false"),
    ({**SIX, "latency": "fast"}, "latency", "(or one of the words measured, none)"),
    ({**SIX, "latency": True}, "latency", "measured"),
    ({**SIX, "latency": -1}, "latency", "0 to 60000"),
    ({**SIX, "bandwidth": 0}, "bandwidth", "Mbit/s"),
    ({**SIX, "crypto": 37}, "crypto", "31 to 36"),
    ({**SIX, "link_type": 83}, "link_type", "tunnel"),
    ({**SIX, "packet_loss": 101}, "packet_loss", "per cent"),
    ({**SIX, "role": "transit"}, "role", "provider, customer, peer"),
    ({**SIX, "local_preference": -5}, "local_preference", "0 to"),
    ({**SIX, "prepend": 17}, "prepend", "0 to 16"),
    ({**SIX, "import_limit": "none"}, "import_limit", "0 to"),
    ({**SIX, "bfd": "sometimes"}, "bfd", "true or false"),
]


@pytest.mark.parametrize(("wrong", "where", "why"), WRONG)
def test_wrong_options_are_named_with_their_cure(wrong: dict[str, Any], where: str, why: str) -> None:
    key = where.split()[0]
    found = faults(wrong)
    assert any(fault.startswith(f"fra1: dn42_peers[0].{key}") and why in fault for fault in found), found


@pytest.mark.parametrize(
    ("option", "value", "community"),
    [
        *(("latency", value, community) for value, community in [(0, 1), (2.7, 1), (2.8, 2), ("7.3", 2), (20, 3), (55, 4), (148, 5), (403, 6), (1097, 7), (2981, 8), (2982, 9)]),
        *(("bandwidth", value, community) for value, community in [(0.1, 21), (0.99, 21), (1, 22), (10, 23), (99, 23), ("100", 24), (1000, 25), (10000, 26), (1e7, 29)]),
        *(("packet_loss", value, community) for value, community in [(0, 91), (0.5, 92), (1, 92), (5, 93), (5.1, 94), (100, 94)]),
        *(("link_type", word, community) for word, community in _dn42.LINK_TYPES.items()),
        ("crypto", 36, 36),
    ],
)
def test_communities_of_a_link(option: str, value: Any, community: int) -> None:
    assert read({**SIX, option: value})["peers"][0]["path"][option] == community


@pytest.mark.parametrize(
    ("peer", "variables", "community", "address"),
    [
        (SIX, {}, None, "fe80::2%wg-peer1"),
        (SIX, {"dn42_router_measure_latency": False}, None, None),
        ({**SIX, "latency": "measured"}, {"dn42_router_measure_latency": False}, None, "fe80::2%wg-peer1"),
        ({**SIX, "latency": "none"}, {}, None, None),
        ({**SIX, "latency": 5}, {}, 2, None),
        ({**SIX, **FOUR}, {}, None, "fe80::2%wg-peer1"),
        (FOUR, {}, None, "172.20.240.2"),
        ({**SIX, "state": "shutdown"}, {}, None, None),
    ],
)
def test_which_latency_is_measured_and_which_given(peer: dict[str, Any], variables: dict[str, Any], community: int | None, address: str | None) -> None:
    node = read(peer, **variables)
    assert node["peers"][0]["path"].get("latency") == community
    found = _latency.targets(node["latency"], node["peers"], [])["targets"]
    assert found == ([{"name": "peer_peer1", "address": address}] if address else [])


def test_the_encryption_follows_from_the_tunnel() -> None:
    assert read(SIX)["peers"][0]["path"] == {"crypto": 34}
    assert read({**SIX, "preshared_key": PEER["public_key"]})["peers"][0]["path"] == {"crypto": 35}


@pytest.mark.parametrize(
    ("variables", "why"),
    [
        ({"dn42_router_region": 40}, "41 to 70"),
        ({"dn42_router_region": 71}, "0 to 70"),
        ({"dn42_router_country": "DE"}, "whole number"),
        ({"dn42_router_measure_latency": "often"}, "true or false"),
        ({"dn42_router_latency_interval": 30}, "60 to 604800"),
        ({"dn42_router_rtr_servers": ["172.20.1.1"]}, "host:port"),
        ({"dn42_router_rtr_servers": "172.20.1.1:8082"}, "list"),
        ({"dn42_router_roa": "files", "dn42_stack_services": ["router", "dns"]}, "add rpki to dn42_stack_services"),
        ({"dn42_router_roa": "rtr"}, "every route of every peer would be refused"),
        ({"dn42_router_bird_version": "2.0"}, "take looking_glass out"),
        ({"dn42_router_bird_version": 2.0, "dn42_stack_services": ["router", "looking_glass", "rpki"]}, "take looking_glass out"),
    ],
)
def test_wrong_options_of_a_node(variables: dict[str, Any], why: str) -> None:
    found = faults(SIX, **variables)
    assert any(f"fra1: {next(iter(variables))}" in fault or "rtr_servers" in fault for fault in found)
    assert any(why in fault for fault in found), found


def test_roas_from_files_go_with_the_service_that_fetches_them() -> None:
    assert read(SIX, dn42_router_roa="files")
    assert read(SIX, dn42_stack_services=["router", "rpki"])
    assert read(SIX, dn42_router_roa="off", dn42_stack_services=["router"])
    assert any("add rpki to dn42_stack_services" in fault for fault in faults(SIX, dn42_stack_services=["router"]))
    defaults = {role: yaml.safe_load((ROLES / role / "defaults/main.yml").read_text()) for role in ("router", "stack")}
    assert defaults["router"]["dn42_router_roa"] == _network.DEFAULT_ROA
    assert "rpki" in defaults["stack"]["dn42_stack_services"]


def test_an_old_bird_goes_without_the_looking_glass() -> None:
    assert read(SIX, dn42_router_bird_version="2.0", dn42_stack_services=["router", "dns", "rpki"])


@pytest.mark.parametrize(("message", "why"), [('a "word"', "double quotes"), ("two\nlines", "one line"), ("ü" * 65, "has 130 bytes"), (7, "quotes")])
def test_a_shutdown_message_that_cannot_be_sent_is_refused(message: Any, why: str) -> None:
    found = faults({**SIX, "state": "shutdown", "shutdown_message": message})
    assert len(found) == 1 and "dn42_peers[0].shutdown_message" in found[0] and why in found[0], found


def test_a_shutdown_message_of_128_bytes_is_taken() -> None:
    assert read({**SIX, "shutdown_message": "ü" * 64})["peers"][0]["shutdown_message"] == "ü" * 64
