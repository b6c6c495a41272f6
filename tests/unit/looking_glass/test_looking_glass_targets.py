# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What may be looked up, and in which form it reaches BIRD."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from looking_glass.targets import TargetError, parse_target


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("172.20.0.53", "172.20.0.53"),
        (" 172.20.0.53\n", "172.20.0.53"),
        ("172.20.0.53/24", "172.20.0.0/24"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("FD42:D42:d42:0054::1", "fd42:d42:d42:54::1"),
        ("fd42:d42:d42::1/48", "fd42:d42:d42::/48"),
        ("::/0", "::/0"),
    ],
)
def test_addresses_and_prefixes_become_canonical(text: str, target: str) -> None:
    assert parse_target(text) == target


@pytest.mark.parametrize(
    "text",
    [
        "",
        "172.20.0.53; id",
        "172.20.0.53\nconfigure",
        "172.20.0.53 172.20.0.54",
        "172.20.0.53 all",
        "fe80::1%eth0",
        "fe80::1%x; configure",
        "10.0.0.0/255.0.0.0",
        "10.0.0.0/0.255.255.255",
        "10.0.0.0/33",
        "fd42::/129",
        "10.0.0.0/-1",
        "10.0.0.0/",
        "10.0.0/8",
        "300.1.1.1",
        "1",
        "2886729781",
        "010.0.0.1",
        "\u0661.1.1.1",
        "1.1.1.1/\u0668",
        "wiki.dn42",
        "AS4242420000",
        "fd42:" * 200,
    ],
)
def test_everything_else_is_refused(text: str) -> None:
    with pytest.raises(TargetError, match="Please give one"):
        parse_target(text)


@given(st.one_of(st.text(), st.text(alphabet="0123456789abcdefABCDEF:./% ;\n"), st.ip_addresses().map(str)))
def test_nothing_but_an_address_gets_through(text: str) -> None:
    try:
        target = parse_target(text)
    except TargetError:
        return
    assert re.fullmatch(r"[0-9a-f.:]+(/[0-9]{1,3})?", target, re.ASCII)
    assert parse_target(target) == target
