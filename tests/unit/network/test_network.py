# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""From an inventory to the network it describes, and every fault of a bad one."""

from __future__ import annotations

import copy
import ipaddress
import itertools
from typing import Any

import pytest
from ansible_collections.dn42.compose.plugins.module_utils import _inventory_values as values
from ansible_collections.dn42.compose.plugins.module_utils import _network

KEY = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
KEYS = {"fra1": "ZnJhMS1mcmExLWZyYTEtZnJhMS1mcmExLWZyYTEtZnI=", "hkg1": "aGtnMS1oa2cxLWhrZzEtaGtnMS1oa2cxLWhrZzEtaGs="}
PEER = {
    "name": "peer1",
    "asn": 4200429002,
    "public_key": KEY,
    "endpoint": "203.0.113.100:20001",
    "listen_port": 22900,
    "local_address": "fe80::1",
    "peer_address": "fe80::9002",
}
POOLS = [{"name": "dn42", "ipv4": ["172.23.255.0/26"], "ipv6": ["fd99:4242:1::/48"], "block_size": {"ipv4": 29, "ipv6": 64}}]
AGGREGATES = {"ipv4": ["172.23.255.0/26"], "ipv6": ["fd99:4242:1::/48"]}


def block(index: int) -> dict[str, Any]:
    """What the address plan says of the node with the block number `index`, counted from 0."""
    offsets = {"host": 1, "gateway": 2, "router": 3, "dns": 4, "looking_glass": 5}
    six = f"fd99:4242:1:{index:x}::" if index else "fd99:4242:1::"
    return {
        "ipv4": {"prefix": f"172.23.255.{8 * index}/29", "prefix_length": 29},
        "ipv6": {"prefix": f"{six}/64", "prefix_length": 64},
        "addresses": {name: {"ipv4": f"172.23.255.{8 * index + offset}", "ipv6": f"{six}{offset}"} for name, offset in offsets.items()},
    }


PLAN = {"fra1": block(0), "hkg1": block(1), "nrt1": block(2)}


def network(*names: str, **peers: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Variables of nodes as an inventory has them."""
    hosts = {"fra1": "203.0.113.11", "hkg1": "2001:db8::12", "nrt1": "nrt1.example.net"}
    return {name: {"dn42_asn": 4200420001, "dn42_pools": POOLS, "ansible_host": hosts.get(name, name), "dn42_peers": copy.deepcopy(peers.get(name, []))} for name in names}


def build(variables: dict[str, dict[str, Any]], keys: dict[str, str] | None = None) -> dict[str, dict[str, Any]]:
    """The models of a network with the test's plan."""
    return _network.build(variables, PLAN, AGGREGATES, KEYS if keys is None else keys)


def faults(peer: Any) -> list[str]:
    """What is wrong with one peer of fra1."""
    try:
        _network.read_inventory(network("fra1", fra1=[peer]))
    except _network.InventoryFaults as error:
        return [str(fault) for fault in error.faults]
    return []


def test_the_ends_of_an_internal_tunnel_fit_together() -> None:
    models = build(network("fra1", "hkg1"))
    here, there = models["fra1"]["internal"][0], models["hkg1"]["internal"][0]
    assert (here["local_address"], here["peer_address"]) == (there["peer_address"], there["local_address"])
    assert here["local_address"] != here["peer_address"]
    assert here["endpoint"] == {"host": "2001:db8::12", "port": there["listen_port"]}
    assert there["endpoint"] == {"host": "203.0.113.11", "port": here["listen_port"]}
    assert (here["public_key"], there["public_key"]) == (KEYS["hkg1"], KEYS["fra1"])


def test_a_third_node_changes_nothing_between_the_first_two() -> None:
    two, three = build(network("fra1", "hkg1")), build(network("fra1", "hkg1", "nrt1"), {**KEYS, "nrt1": KEY})
    for name in ("fra1", "hkg1"):
        assert two[name]["internal"][0] in three[name]["internal"]
        assert two[name]["number"] == three[name]["number"]


def test_order_of_inventory_and_peers_does_not_matter() -> None:
    peers = [{**PEER, "name": f"p{index}", "listen_port": 22900 + index} for index in range(3)]
    expected = build(network("fra1", "hkg1", fra1=peers))
    for order in itertools.permutations(peers):
        assert build(network("hkg1", "fra1", fra1=list(order))) == expected


def test_a_node_without_a_key_has_its_ports_open_and_no_tunnel_yet() -> None:
    model = build(network("fra1", "hkg1"), {"fra1": KEYS["fra1"]})["fra1"]
    assert model["internal"] == []
    assert model["listen_ports"] == [30002]


def test_a_node_of_its_own_needs_no_other() -> None:
    assert build(network("fra1"))["fra1"]["tunnels"] == []


def test_other_pools_and_sizes_of_single_nodes_change_no_number() -> None:
    """Numbers count blocks of nodes; a larger block of one node stands where its first part would."""
    anycast = {"name": "any", "ipv4": ["172.22.0.0/28"], "block_size": {"ipv4": 32}, "purpose": "anycast"}
    variables = network("fra1", "hkg1", "nrt1")
    expected = {name: model["number"] for name, model in build(variables).items()}
    assert expected == {"fra1": 1, "hkg1": 2, "nrt1": 3}
    for name in variables:
        variables[name] = {**variables[name], "dn42_pools": [anycast, *POOLS]}
    larger = {**PLAN, "nrt1": {**PLAN["nrt1"], "ipv4": {"prefix": "172.23.255.16/28", "prefix_length": 28}}}
    models = _network.build(variables, larger, AGGREGATES, KEYS)
    assert {name: model["number"] for name, model in models.items()} == expected


def test_the_model_holds_no_preshared_key() -> None:
    preshared = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXMhISE="
    model = build(network("fra1", fra1=[{**PEER, "preshared_key": preshared}]))["fra1"]
    assert preshared not in repr(model)
    assert model["tunnels"][0]["peer"]["preshared_key_file"] == "/secrets/psk-wg-peer1"


def test_a_peer_that_leaves_needs_only_its_name() -> None:
    assert build(network("fra1", fra1=[{"name": "p3", "state": "absent"}]))["fra1"]["peers"] == []


IPV4_ON_TUNNEL = {"peer_ipv4": "172.20.240.2", "local_ipv4": "172.20.240.1"}


def test_a_tunnel_has_the_ipv4_address_that_was_agreed_on() -> None:
    tunnel = build(network("fra1", fra1=[{**PEER, **IPV4_ON_TUNNEL}]))["fra1"]["tunnels"][0]
    assert tunnel["addresses"] == ["fe80::1/64", "172.20.240.1/30"]
    assert not any("/32" in prefix for prefix in tunnel["peer"]["allowed_ips"])
    outside = {"peer_ipv4": "192.168.5.2", "local_ipv4": "192.168.5.1"}
    assert "192.168.5.2/32" in build(network("fra1", fra1=[{**PEER, **outside}]))["fra1"]["tunnels"][0]["peer"]["allowed_ips"]


def test_ipv4_of_a_tunnel_cannot_be_ours() -> None:
    """The packet filter drops what comes from a peer with such addresses."""
    with pytest.raises(_network.InventoryFaults, match="which is ours"):
        build(network("fra1", fra1=[{**PEER, "peer_ipv4": "172.23.255.61", "local_ipv4": "172.23.255.62"}]))


def test_a_tunnel_whose_ends_have_no_network_has_both_addresses() -> None:
    single = {"peer_ipv4": "172.20.1.9", "local_ipv4": "172.20.240.1/32"}
    tunnel = build(network("fra1", fra1=[{**PEER, **single}]))["fra1"]["tunnels"][0]
    assert tunnel["addresses"] == ["fe80::1/64", "172.20.240.1 peer 172.20.1.9/32"]


def test_of_our_addresses_such_a_tunnel_has_the_nodes_own() -> None:
    def written(ours: str, theirs: str = "172.20.1.9") -> dict[str, Any]:
        return {**PEER, "peer_ipv4": theirs, "local_ipv4": f"{ours}/32"}

    gateway = build(network("fra1"))["fra1"]["addresses"]["gateway"]["ipv4"]
    assert build(network("fra1", fra1=[written(gateway)]))["fra1"]["tunnels"][0]["addresses"][1] == f"{gateway} peer 172.20.1.9/32"
    other = str(ipaddress.ip_address(gateway) + 1)
    for peer, why in ((written(other), f"of our addresses use {gateway}/32"), (written(gateway, other), "must be the other side's address")):
        with pytest.raises(_network.InventoryFaults, match=why):
            build(network("fra1", fra1=[peer]))


def test_a_peer_in_shutdown_has_its_tunnel() -> None:
    running, down = (build(network("fra1", fra1=[{**PEER, "state": state}]))["fra1"] for state in ("present", "shutdown"))
    assert running["tunnels"] == down["tunnels"]
    assert [model["peers"][0]["shutdown"] for model in (running, down)] == [False, True]


def test_a_peer_with_our_own_key_is_refused() -> None:
    with pytest.raises(_network.InventoryFaults, match="own public key"):
        build(network("fra1", fra1=[{**PEER, "public_key": KEYS["fra1"]}]))


@pytest.mark.parametrize(
    ("first", "second"),
    [("node-with-a-long-name-1", "node-with-a-long-name-2"), ("fra1.example.net", "fra1-example-net"), ("FRA1", "fra1"), ("ä", "ö")],
)
def test_long_and_odd_node_names_get_short_different_interfaces(first: str, second: str) -> None:
    names = {_network.interface_name("in", first), _network.interface_name("in", second)}
    assert len(names) == 2
    assert all(len(name.encode()) <= 15 for name in names)
    assert len({_network.protocol_name("ibgp", first), _network.protocol_name("ibgp", second)}) == 2


WRONG_PEERS = [
    ({"name": "dn42-fra-exchange-1"}, "dn42_peers[0].name = 'dn42-fra-exchange-1'", "15 characters"),
    ({"name": "wg%d"}, "dn42_peers[0].name", "a-z"),
    ({"name": "größe"}, "dn42_peers[0].name", "a-z"),
    ({"name": 1000}, "dn42_peers[0].name = 1000", "in quotes: YAML read it as a number"),
    ({"name": True}, "dn42_peers[0].name = True", "in quotes: YAML read it as a boolean"),
    ({"name": None}, "dn42_peers[0].name = None", "is required"),
    ({"asn": 42424290020}, "dn42_peers[0].asn = 42424290020", "whole number"),
    ({"asn": 4242429002.0}, "dn42_peers[0].asn = 4242429002.0", "whole number"),
    ({"asn": "64733.1234"}, "dn42_peers[0].asn = '64733.1234'", "whole number"),
    ({"asn": 4200420001}, "dn42_peers[0].asn = 4200420001", "our own ASN"),
    ({"asn": 0}, "dn42_peers[0].asn = 0", "not an ASN"),
    ({"asn": 23456}, "dn42_peers[0].asn = 23456", "not an ASN"),
    ({"asn": True}, "dn42_peers[0].asn = True", "a boolean"),
    ({"public_key": "AAAA"}, "dn42_peers[0].public_key = 'AAAA'", "32 bytes"),
    ({"public_key": None}, "dn42_peers[0].public_key = None", "is required"),
    ({"endpoint": "host.example.net"}, "dn42_peers[0].endpoint = 'host.example.net'", "host:port"),
    ({"endpoint": "host.example.net:0"}, "dn42_peers[0].endpoint", "1 to 65535"),
    ({"endpoint": "172.20.010.1:5"}, "dn42_peers[0].endpoint", "leading zeros"),
    ({"endpoint": "2001:db8::1:51820"}, "dn42_peers[0].endpoint", "[address]:port"),
    ({"endpoint": 3109222}, "dn42_peers[0].endpoint = 3109222", "in quotes"),
    ({"peer_address": "fd99:1:2::1"}, "dn42_peers[0].peer_address", "fe80::/64"),
    ({"peer_address": "fe80:3::2"}, "dn42_peers[0].peer_address", "fe80::/64"),
    ({"peer_address": "fe80::1"}, "dn42_peers[0].peer_address = 'fe80::1'", "own side"),
    ({"peer_address": "fe80::2%eth0"}, "dn42_peers[0].peer_address", "'eth0'"),
    ({"peer_address": 5602001869620620}, "dn42_peers[0].peer_address", "in quotes"),
    ({"peer_address": [{"fe80:": None}]}, "dn42_peers[0].peer_address", "in quotes: YAML read it as a list"),
    ({"listen_port": 70000}, "dn42_peers[0].listen_port = 70000", "1 to 65535"),
    ({"mtu": 1200}, "dn42_peers[0].mtu = 1200", "1280 to 1500"),
    ({"mtu": "big"}, "dn42_peers[0].mtu = 'big'", "whole number"),
    ({"state": "gone"}, "dn42_peers[0].state = 'gone'", "present, draining, shutdown, absent"),
    ({"peer_v6": "fe80::2"}, "dn42_peers[0].peer_v6 = 'fe80::2'", "not an option of a peer"),
    ({"description": 'a "quoted" one'}, "dn42_peers[0].description", "double quotes"),
]


@pytest.mark.parametrize(("wrong", "where", "why"), WRONG_PEERS)
def test_wrong_peers_are_named_with_key_value_and_cure(wrong: dict[str, Any], where: str, why: str) -> None:
    found = faults({**PEER, **wrong})
    assert any(f"fra1: {where}" in fault and why in fault for fault in found), found


def test_a_bad_preshared_key_is_refused_without_being_shown() -> None:
    found = faults({**PEER, "preshared_key": "c2VjcmV0"})
    assert len(found) == 1
    assert "preshared_key" in found[0]
    assert "c2VjcmV0" not in found[0]


RIGHT_PEERS = [
    {"asn": "4200429002"},
    {"asn": "AS4200429002"},
    {"asn": "as4200429002 "},
    {"endpoint": None},
    {"endpoint": "[2001:DB8:0::1]:20001"},
    {"public_key": f" {KEY} "},
    {"peer_address": "FE80::9002"},
    {"peer_address": "fe80::9002/64"},
    {"peer_address": "fe80::9002%wg-peer1"},
    {"listen_port": "22900"},
]


@pytest.mark.parametrize("right", RIGHT_PEERS)
def test_other_spellings_give_the_same_network(right: dict[str, Any]) -> None:
    expected = build(network("fra1", fra1=[{**PEER, **({"endpoint": right["endpoint"]} if "endpoint" in right else {})}]))
    assert build(network("fra1", fra1=[{**PEER, **right}])) == expected


def test_two_peers_may_have_the_same_link_local_address_but_not_the_same_port_or_name() -> None:
    assert build(network("fra1", fra1=[PEER, {**PEER, "name": "peer2", "listen_port": 1}]))
    for other, word in (({"name": "peer2"}, "listen_port"), ({"listen_port": 1}, "name")):
        with pytest.raises(_network.InventoryFaults, match=word):
            build(network("fra1", fra1=[PEER, {**PEER, **other}]))


def test_a_port_of_an_internal_tunnel_cannot_be_a_peers() -> None:
    with pytest.raises(_network.InventoryFaults, match="30002"):
        build(network("fra1", "hkg1", fra1=[{**PEER, "listen_port": 30002}]))


def test_all_faults_of_all_nodes_at_once() -> None:
    variables = network("fra1", "hkg1", fra1=[{**PEER, "asn": 0, "mtu": 1}], hkg1=["x"])
    variables["hkg1"]["dn42_asn"] = None
    with pytest.raises(_network.InventoryFaults) as caught:
        _network.read_inventory(variables)
    assert {(fault.host, fault.key) for fault in caught.value.faults} == {
        ("fra1", "dn42_peers[0].asn"),
        ("fra1", "dn42_peers[0].mtu"),
        ("hkg1", "dn42_peers[0]"),
        ("hkg1", "dn42_asn"),
    }


def test_one_inventory_is_one_autonomous_system() -> None:
    variables = network("fra1", "hkg1")
    variables["hkg1"]["dn42_asn"] = 4200420009
    with pytest.raises(_network.InventoryFaults, match="one autonomous system"):
        _network.read_inventory(variables)


@pytest.mark.parametrize("word", ["yes", "on", "True", 1, True, "1"])
def test_words_for_true(word: Any) -> None:
    assert values.boolean(word) is True


@pytest.mark.parametrize("word", ["no", "off", "False", 0, False])
def test_words_for_false(word: Any) -> None:
    assert values.boolean(word) is False


@pytest.mark.parametrize("word", [None, 2, "maybe", [], 1.5])
def test_other_words_are_no_booleans(word: Any) -> None:
    with pytest.raises(values.BadValue):
        values.boolean(word)
