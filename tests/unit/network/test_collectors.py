# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Route collectors: known ones by name, others as mappings, and all faults at once."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.dn42.compose.plugins.module_utils import _network

OTHER = {"name": "asia", "address": "172.20.1.1", "asn": "AS4200429001"}


def read(collectors: Any) -> list[dict[str, Any]]:
    """The collectors of the only node of an inventory."""
    return _network.read_inventory({"fra1": {"dn42_asn": 4200420001, "dn42_pools": [], "dn42_router_collectors": collectors}})["fra1"]["collectors"]


def test_known_and_other_collectors_in_any_order() -> None:
    asia = {"name": "asia", "address": "172.20.1.1", "asn": 4200429001}
    assert read(["grc", OTHER]) == read([OTHER, "grc"]) == [asia, {"name": "grc", "address": "fd42:d42:d42:179::1", "asn": 4242422602}]
    assert read([]) == read(None) == []


def test_all_faults_are_told_at_once() -> None:
    wrong = ["rrc", 7, {**OTHER, "address": "nowhere", "asn": 0, "port": 1}, OTHER, OTHER]
    with pytest.raises(_network.InventoryFaults) as caught:
        read(wrong)
    found = [str(fault) for fault in caught.value.faults]
    starts = ["[0] = 'rrc'", "[1] = 7", "[2].port = 1", "[2].address = 'nowhere'", "[2].asn = 0", "[4] = {"]
    assert [text.split("dn42_router_collectors")[1][: len(start)] for text, start in zip(found, starts)] == starts
    assert len(found) == len(starts)


def test_a_collector_alone_is_not_a_list() -> None:
    with pytest.raises(_network.InventoryFaults, match="must be a list"):
        read("grc")
