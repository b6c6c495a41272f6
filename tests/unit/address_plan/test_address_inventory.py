# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What nodes say and what was read from them, put together as the options of one call."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from ansible_collections.dn42.compose.plugins.module_utils import _address_inventory as inventory

POOLS = [{"name": "dn42", "ipv4": ["172.23.255.0/26"], "block_size": {"ipv4": 29}}]
ARGS: dict[str, Any] = {"pools": POOLS, "offsets": {}, "path": "/plan/addresses.yml", "adopt_network": "mynet", "reuse_held": False}


def network(name: str, bridge: str | None, *subnets: str) -> dict[str, Any]:
    return {"name": name, "driver": "bridge", "project": None, "subnets": list(subnets), "bridge": bridge}


FACTS = {
    "docker": {
        "networks": [
            network("dn42", "br-dn42", "172.23.255.0/29"),
            network("mynet", "br-1", "172.23.255.9/29", "fd99:4242:1:1::/64"),
            network("web", "br-2", "172.23.255.16/29"),
            network("host", None),
        ]
    },
    "addresses": [
        {"interface": "br-dn42", "address": "172.23.255.1", "prefix": "172.23.255.0/29"},
        {"interface": "br-1", "address": "172.23.255.9", "prefix": "172.23.255.8/29"},
        {"interface": "eth1", "address": "172.23.255.40", "prefix": "172.23.255.40/32"},
        {"interface": "lo", "address": "::ffff:1.2.3.4", "prefix": "::ffff:1.2.3.4/128"},
    ],
    "routes": [
        {"interface": "br-dn42", "prefix": "172.23.255.0/30"},
        {"interface": "wg0", "prefix": "172.23.255.56/29"},
        {"interface": "wg0", "prefix": "172.20.0.0/14"},  # all of DN42
        {"interface": None, "prefix": "172.23.255.0/26"},  # an aggregate
        {"interface": None, "prefix": "172.23.255.48/29"},
    ],
}
NODES: dict[str, dict[str, Any]] = {
    "hkg1": {"__dn42_host": {"host": FACTS}, "dn42_address_plan_size": {"ipv4": 28}},
    "fra1": {"__dn42_host": None, "dn42_address_plan_pin": {"ipv4": "172.23.255.32/29"}, "dn42_address_plan_size": {}},
}


def test_options_of_one_call() -> None:
    assert inventory.options(ARGS, NODES) == {
        "pools": POOLS,
        "offsets": {},
        "reuse_held": False,
        "holders": ["fra1", "hkg1"],
        "pins": {"fra1": {"ipv4": "172.23.255.32/29"}},
        "sizes": {"hkg1": {"ipv4": 28}},
        "adopt": {"hkg1": ["172.23.255.8/29", "fd99:4242:1:1::/64"]},
        "in_use": [
            {"host": "hkg1", "prefix": "172.23.255.16/29", "what": "Docker network web"},
            {"host": "hkg1", "prefix": "172.23.255.40/32", "what": "172.23.255.40 on eth1"},
            {"host": "hkg1", "prefix": "172.23.255.56/29", "what": "route through wg0"},
        ],
        "store": {"path": "/plan/addresses.yml"},
    }


def test_the_order_of_the_inventory_is_nothing() -> None:
    expected = json.dumps(inventory.options(ARGS, NODES))
    names = list(NODES)
    random.Random(1).shuffle(names)
    for order in (names, names[::-1]):
        assert json.dumps(inventory.options(ARGS, {name: NODES[name] for name in order})) == expected


def test_a_network_that_is_not_adopted_is_in_use() -> None:
    found = inventory.options({**ARGS, "adopt_network": ""}, NODES)
    assert found["adopt"] == {}
    assert {"host": "hkg1", "prefix": "172.23.255.8/29", "what": "Docker network mynet"} in found["in_use"]


def test_extra_holders() -> None:
    anycast = {"name": "dns", "pool": "any"}
    assert inventory.options({**ARGS, "extra_holders": [anycast]}, NODES)["holders"] == ["fra1", "hkg1", anycast]
    assert inventory.options({**ARGS, "extra_holders": "dns"}, NODES)["holders"] == "dns"  # refused by the module, with a hint


@pytest.mark.parametrize(
    ("store", "expected"),
    [
        (None, {"path": "/plan/addresses.yml"}),
        ({"lock_timeout": 5}, {"path": "/plan/addresses.yml", "lock_timeout": 5}),
        ({"path": "/other.yml"}, {"path": "/other.yml"}),
        ({"kind": "postgresql", "dsn": "x"}, {"kind": "postgresql", "dsn": "x"}),
    ],
)
def test_the_store_is_the_file_unless_said_otherwise(store: Any, expected: dict[str, Any]) -> None:
    assert inventory.options({**ARGS, "store": store}, NODES)["store"] == expected


def test_what_is_for_the_whole_network_is_the_same_everywhere() -> None:
    nodes = {"a": {"dn42_address_plan_domain": "a.dn42", "dn42_address_plan_pin": {}}, "b": {"dn42_address_plan_domain": "b.dn42"}, "c": {"dn42_address_plan_domain": "a.dn42"}}
    assert [fault.key for fault in inventory.differences(nodes)] == ["dn42_address_plan_domain of b"]
    assert inventory.differences(NODES) == []


def test_what_a_node_that_leaves_holds_is_named_as_a_release_wants_it() -> None:
    """Of all held blocks only those of the nodes that leave now."""
    held = [{"prefix": "172.23.255.8/29", "holder": "nrt1"}, {"prefix": "fd99:4242:1:1::/64", "holder": "nrt1"}, {"prefix": "172.23.255.16/29", "holder": "old1"}]
    assert inventory.held_by(["nrt1", "new1"], held) == {"nrt1": ["172.23.255.8/29", "fd99:4242:1:1::/64"]}
    assert inventory.held_by([], held) == {}
