# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names for DNS, and names that DNS does not take."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.dn42.compose.plugins.module_utils import _address_names as names
from ansible_collections.dn42.compose.plugins.module_utils import _address_request as request

POOLS = [{"name": "dn42", "ipv4": ["172.23.255.0/26"], "block_size": {"ipv4": 29}}, {"name": "any", "ipv4": ["172.22.0.0/28"], "block_size": {"ipv4": 32}, "purpose": "anycast"}]


def owners(holders: list, offsets: dict[str, int], domain: str = "example.dn42") -> tuple[dict[str, Any], list[str]]:
    wanted = request.read_request({"pools": POOLS, "holders": holders, "offsets": offsets})
    assert wanted.faults == []
    found, faults = names.owners(wanted.ask, domain)
    return {name: tuple(owner) for name, owner in found.items()}, [f"{fault.key}: {fault.message}" for fault in faults]


def test_services_and_the_node_itself_have_names_and_the_host_has_none() -> None:
    found, faults = owners(["Fra_1", {"name": "dns-any", "pool": "any"}], {"gateway": 2, "looking_glass": 5})
    assert faults == []
    assert found == {
        "gateway.fra-1.example.dn42": ("Fra_1", "gateway"),
        "fra-1.example.dn42": ("Fra_1", "gateway"),
        "looking-glass.fra-1.example.dn42": ("Fra_1", "looking_glass"),
    }


def test_without_a_gateway_the_node_has_no_name_of_its_own() -> None:
    assert list(owners(["fra1"], {"dns": 4})[0]) == ["dns.fra1.example.dn42"]


def test_a_node_that_is_called_by_its_full_name_keeps_it() -> None:
    assert list(owners(["fra1.example.dn42"], {"dns": 4})[0]) == ["dns.fra1.example.dn42"]


WRONG = [
    (["fra1-"], {"dns": 4}, ["holders[0].name: gives the label 'fra1-', and DNS takes 1 to 63 of a-z, 0-9 and '-', with '-' neither first nor last"]),
    (["größe"], {"dns": 4}, ["holders[0].name: gives the label 'größe', and DNS takes 1 to 63 of a-z, 0-9 and '-', with '-' neither first nor last"]),
    (["a" * 64], {"dns": 4}, [f"holders[0].name: gives the label '{'a' * 64}', and DNS takes 1 to 63 of a-z, 0-9 and '-', with '-' neither first nor last"]),
    (["fra1"], {"_dns": 4}, ["offsets._dns: gives the label '-dns', and DNS takes 1 to 63 of a-z, 0-9 and '-', with '-' neither first nor last"]),
    (["fra_1", "fra-1"], {"dns": 4}, ["offsets.dns: gives the name dns.fra-1.example.dn42, which dns of fra-1 has already; rename one of them"]),
    (["fra1"], {"web_1": 4, "web-1": 5}, ["offsets.web-1: gives the name web-1.fra1.example.dn42, which web_1 of fra1 has already; rename one of them"]),
    (["fra1", "dns.fra1"], {"gateway": 2, "dns": 4}, ["offsets.dns: gives the name dns.fra1.example.dn42, which gateway of dns.fra1 has already; rename one of them"]),
]


@pytest.mark.parametrize(("holders", "offsets", "expected"), WRONG, ids=str)
def test_a_name_that_cannot_be(holders: list, offsets: dict[str, int], expected: list[str]) -> None:
    assert owners(holders, offsets)[1] == expected


@pytest.mark.parametrize(("value", "domain"), [(None, None), ("", None), (" Example.DN42. ", "example.dn42"), ("dn42", "dn42")])
def test_a_domain(value: Any, domain: str | None) -> None:
    faults: list = []
    assert names.read_domain(value, faults) == domain
    assert faults == []
