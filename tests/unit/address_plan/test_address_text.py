# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""One prefix of many spellings. What is refused is in test_wrong_inputs.py."""

from __future__ import annotations

import ipaddress
from typing import Any

import netaddr
import pytest
from ansible_collections.dn42.compose.plugins.module_utils import _address_text as text
from ansible_collections.dn42.compose.plugins.module_utils._address_plan.model import Prefix
from hypothesis import given
from hypothesis import strategies as st

SPELLINGS = ["FD99:4242:9001:0:0:0:0:0/64", "fd99:4242:9001::/64", "fd99:4242:9001:0::/64", " fd99:4242:9001::/64 ", "FD99:4242:9001:0000::0/64"]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_one_prefix_of_many_spellings(spelling: str) -> None:
    assert str(text.read_prefix(spelling)) == "fd99:4242:9001::/64"


@given(st.integers(0, 2**128 - 1), st.integers(0, 128), st.sampled_from(["exploded", "upper", "netaddr"]))
def test_reads_every_spelling_of_ipv6(number: int, length: int, spelling: str) -> None:
    number = number >> (128 - length) << (128 - length)
    if number >> 32 == 0xFFFF:
        return
    address = ipaddress.IPv6Address(number)
    words = {"exploded": address.exploded, "upper": str(address).upper(), "netaddr": str(netaddr.IPAddress(number, version=6))}
    prefix = text.read_prefix(f"{words[spelling]}/{length}", 6)
    assert prefix == Prefix(6, number, length)
    assert str(prefix) == str(ipaddress.IPv6Network((number, length)))


@given(st.one_of(st.text(alphabet="0123456789./:abcdef x", max_size=20), st.text(max_size=8), st.integers(), st.floats(), st.none()))
def test_reads_nothing_that_the_standard_library_refuses(value: Any) -> None:
    try:
        prefix = text.read_prefix(value)
    except text.Unreadable:
        return
    assert isinstance(value, str)
    assert str(ipaddress.ip_network(value.strip(" \t"))) == str(prefix)
