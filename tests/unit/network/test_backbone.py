# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which tunnels and iBGP sessions join our nodes, and every fault of a network that cannot be."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from ansible_collections.dn42.compose.plugins.module_utils import _backbone, _network

POOLS = [{"name": "dn42", "ipv4": ["172.23.255.0/25"], "ipv6": ["fd99:4242:1::/48"], "block_size": {"ipv4": 29, "ipv6": 64}}]
AGGREGATES = {"ipv4": ["172.23.255.0/25"], "ipv6": ["fd99:4242:1::/48"]}
FOUR = ["ams1", "fra1", "hkg1", "nrt1"]
LINE = [["fra1", "ams1"], ["fra1", "hkg1"], ["nrt1", "hkg1"]]
OPTION = "dn42_router_backbone_"


def variables(names: list[str], **options: Any) -> dict[str, dict[str, Any]]:
    """The nodes of an inventory with options of the backbone."""
    shared = {f"{OPTION}{name}": value for name, value in options.items()}
    return {name: {"dn42_asn": 4200420001, "dn42_pools": POOLS, "ansible_host": name, **shared} for name in names}


def block(number: int) -> dict[str, Any]:
    """What the address plan says of the node with that number."""
    four, six = f"172.23.255.{8 * (number - 1)}", f"fd99:4242:1:{number:x}::"
    return {
        "ipv4": {"prefix": f"{four}/29", "prefix_length": 29},
        "ipv6": {"prefix": f"{six}/64", "prefix_length": 64},
        "addresses": {"gateway": {"ipv4": f"172.23.255.{8 * (number - 1) + 2}", "ipv6": f"{six}2"}},
    }


def key(number: int) -> str:
    """A public key of its own for each node."""
    return f"{number:02}" + "A" * 41 + "="


def models(inventory: dict[str, dict[str, Any]], **numbers: int) -> dict[str, dict[str, Any]]:
    """The models; numbers of nodes follow from their names unless they are given."""
    all_numbers = numbers or {name: index + 1 for index, name in enumerate(sorted(inventory))}
    keys = {name: key(number) for name, number in all_numbers.items()}
    return _network.build(inventory, {name: block(number) for name, number in all_numbers.items()}, AGGREGATES, keys)


def faults(inventory: dict[str, dict[str, Any]]) -> list[str]:
    """What is wrong with an inventory."""
    with pytest.raises(_network.InventoryFaults) as caught:
        _network.read_inventory(inventory)
    return [str(fault) for fault in caught.value.faults]


def tunnels(found: dict[str, dict[str, Any]]) -> dict[str, list[str]]:
    """{node: those it has a tunnel with}."""
    return {name: [link["name"] for link in model["internal"]] for name, model in found.items()}


def sessions(found: dict[str, dict[str, Any]]) -> set[tuple[str, str]]:
    """Who has an iBGP session with whom."""
    return {(name, session["name"]) for name, model in found.items() for session in model["ibgp"]}


def test_every_node_has_a_tunnel_with_every_other_by_default() -> None:
    found = models(variables(FOUR))
    assert tunnels(found) == {name: [other for other in FOUR if other != name] for name in FOUR}
    assert models(variables(FOUR, links=[])) == found


def test_tunnels_ports_and_interfaces_follow_the_links() -> None:
    found = models(variables(FOUR, links=LINE))
    assert tunnels(found) == {"ams1": ["fra1"], "fra1": ["ams1", "hkg1"], "hkg1": ["fra1", "nrt1"], "nrt1": ["hkg1"]}
    assert found["fra1"]["listen_ports"] == [30001, 30003]
    assert [tunnel["name"] for tunnel in found["fra1"]["tunnels"]] == ["in-ams1", "in-hkg1"]
    assert _network.read_inventory(variables(FOUR, links=LINE))["nrt1"]["interfaces"] == ["in-hkg1"]


def test_sessions_do_not_depend_on_tunnels() -> None:
    assert sessions(models(variables(FOUR, links=LINE))) == set(itertools.permutations(FOUR, 2)) == sessions(models(variables(FOUR)))


def test_the_order_of_nodes_and_links_does_not_matter() -> None:
    expected = models(variables(FOUR, links=LINE))
    for links in itertools.permutations(LINE):
        assert models(variables(FOUR[::-1], links=[pair[::-1] for pair in links])) == expected


def test_above_the_limit_two_nodes_reflect_routes_to_the_others() -> None:
    names = [f"n{index:02}" for index in range(1, 12)]
    assert sessions(models(variables(names[:10]))) == set(itertools.permutations(names[:10], 2))
    found = models(variables(names))
    reflectors, clients = set(names[:2]), set(names[2:])
    assert sessions(found) == {pair for pair in itertools.permutations(names, 2) if reflectors & set(pair)}
    assert {(name, session["name"]) for name, model in found.items() for session in model["ibgp"] if session["client"]} == set(itertools.product(reflectors, clients))


def test_reflectors_are_chosen_by_number_and_stay_when_a_node_is_added() -> None:
    found = models(variables(["aaa1", *FOUR], full_mesh_limit=3), aaa1=5, ams1=4, fra1=2, hkg1=1, nrt1=3)
    assert [session["name"] for session in found["aaa1"]["ibgp"]] == ["fra1", "hkg1"]


def test_named_reflectors_are_reflectors_whatever_the_number_of_nodes() -> None:
    assert sessions(models(variables(FOUR, route_reflectors=["nrt1"]))) == {pair for pair in itertools.permutations(FOUR, 2) if "nrt1" in pair}


def test_a_node_without_a_key_has_neither_tunnel_nor_session_and_its_port_is_open() -> None:
    plan = {name: block(index + 1) for index, name in enumerate(FOUR)}
    found = _network.build(variables(FOUR), plan, AGGREGATES, {"ams1": key(1), "fra1": key(2)})["ams1"]
    assert [link["name"] for link in found["internal"]] == ["fra1"] == [session["name"] for session in found["ibgp"]]
    assert found["listen_ports"] == [30002, 30003, 30004]


WRONG_LINKS = [
    ("fra1-hkg1", "links = 'fra1-hkg1'", "list of pairs of nodes such as [[fra1, hkg1]"),
    (["fra1-hkg1"], "links[0] = 'fra1-hkg1'", "pair of nodes such as [fra1, hkg1]"),
    ([["fra1"]], "links[0] = ['fra1']", "pair of nodes"),
    ([["fra1", 1]], "links[0] = ['fra1', 1]", "pair of nodes"),
    ([["fra1", "lon1"]], "links[0] = ['fra1', 'lon1']", "names lon1, which is no node of the inventory (there are ams1, fra1, hkg1, nrt1)"),
    ([*LINE, ["fra1", "fra1"]], "links[3] = ['fra1', 'fra1']", "itself"),
    ([*LINE, ["hkg1", "fra1"]], "links[3] = ['hkg1', 'fra1']", "links[1] again"),
    ([LINE[0], LINE[2]], "links = [[", "without a way to the others: hkg1, nrt1"),
]


@pytest.mark.parametrize(("links", "where", "why"), WRONG_LINKS)
def test_wrong_links_are_named_with_key_value_and_cure(links: Any, where: str, why: str) -> None:
    found = faults(variables(FOUR, links=links))
    assert len(found) == 1, found
    assert found[0].startswith(f"ams1: {OPTION}{where}")
    assert why in found[0]


def test_all_faults_of_the_network_at_once() -> None:
    found = faults(variables(FOUR, links=[["x", "y"], ["fra1"]], route_reflectors=["lon1"], full_mesh_limit=0))
    assert {fault.split()[1].rstrip(":").removeprefix(OPTION) for fault in found} == {"links[0]", "links[1]", "route_reflectors[0]", "full_mesh_limit"}


@pytest.mark.parametrize(("option", "value"), [("links", LINE), ("igp", "ospf"), ("route_reflectors", ["fra1"]), ("full_mesh_limit", 3)])
def test_the_network_is_the_same_for_all_nodes(option: str, value: Any) -> None:
    inventory = variables(FOUR)
    inventory["hkg1"][f"{OPTION}{option}"] = value
    assert any(f"hkg1: {OPTION}{option} = " in fault and "differs" in fault and "group dn42_nodes" in fault for fault in faults(inventory))


def test_nodes_in_groups_that_reach_each_other() -> None:
    links = _backbone.full_mesh("abc") | _backbone.full_mesh("de")
    assert _backbone.parts("abcdef", links) == [{"a", "b", "c"}, {"d", "e"}, {"f"}]
