# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading ROAs: a whole set or none of it."""

from __future__ import annotations

import pytest
from dn42_rpki.roas import FAMILIES, SetError, parse, render
from rpki_source import as_json, lines


def test_json_and_lines_give_equal_files() -> None:
    """Sources may take turns without a byte of difference to BIRD."""
    found = parse(as_json(40, 30))
    both = parse(lines("ipv4", 40) + lines("ipv6", 30).replace(b"route", b"roa").replace(b"\n", b"\r\n"))
    assert [len(found[family]) for family in FAMILIES] == [40, 30]
    assert [render(found[family], family) for family in FAMILIES] == [render(both[family], family) for family in FAMILIES]


def test_the_file_is_sorted_by_address_and_reads_back() -> None:
    text = b"route 172.22.0.0/24 max 28 as 2;\nroute 172.3.0.0/24 max 28 as 0;\nroute 172.22.0.0/24 max 24 as 1;\nroute 172.22.0.0/24 max 28 as 2;  # again\n"
    written = render(parse(text)["ipv4"], "ipv4")
    assert written.decode().splitlines() == ["# IPv4: 3 ROAs", "route 172.3.0.0/24 max 28 as 0;", "route 172.22.0.0/24 max 24 as 1;", "route 172.22.0.0/24 max 28 as 2;"]
    assert render(parse(written)["ipv4"], "ipv4") == written
    assert parse(render(frozenset(), "ipv6")) == {"ipv4": frozenset(), "ipv6": frozenset()}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("<html><body>404</body></html>", "line 2 is no ROA: '<html>"),
        ("route 172.20.0.0/24 max 28 as 4242420000", "line 2 is no ROA"),
        ("route 172.20.0.0/24 max 23 as 4242420000;", "max 23 of 172.20.0.0/24 is not between 24 and 32"),
        ("route 172.20.0.0/24 max 33 as 4242420000;", "max 33"),
        ("route fd42::/48 max 129 as 4242420000;", "max 129"),
        ("route 172.20.0.1/24 max 28 as 4242420000;", "has host bits set"),
        ("route 172.20.0.0 max 32 as 4242420000;", "has no prefix length"),
        ("route 172.20.0.0/255.255.255.0 max 28 as 4242420000;", None),
        ("route 172.20.0.0/24 max 28 as 4294967296;", "no AS number"),
        ("route 172.20.0.0/24 max 28 as AS4242420000;", "line 2 is no ROA"),
        ('include "/secrets/private.key";', "line 2 is no ROA"),
        ("route 172.20.0.0/24 max 28 as 1; } protocol kernel { ipv4 { export all; }; ", "line 2 is no ROA"),
    ],
)
def test_one_wrong_line_refuses_the_set(line: str, said: str | None) -> None:
    content = f"route 172.21.0.0/24 max 28 as 4242420001;\n{line}\n".encode()
    if said is None:  # another spelling of a prefix length, written as BIRD wants it
        assert b"route 172.20.0.0/24 max 28 as 4242420000;\n" in render(parse(content)["ipv4"], "ipv4")
        return
    with pytest.raises(SetError, match=said):
        parse(content)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "nothing was sent"),
        (b" \n\n", "nothing was sent"),
        (b"\x1f\x8b\x08\x00", "no text"),
        (as_json(9, 9)[:-40], "JSON that cannot be read"),
        (b'{"a":' * 100_000, "JSON that cannot be read"),
        (b'{"error": "try later"}', "without a list 'roas'"),
        (b'{"roas": [7]}', "is no mapping"),
        (b'{"roas": [{"prefix": "172.20.0.0/24", "maxLength": true, "asn": "AS1"}]}', r"roas\[0\] is no ROA"),
        (b'{"roas": [{"prefix": "172.20.0.0/24", "asn": "AS1"}]}', r"roas\[0\] is no ROA"),
        (b'{"roas": [{"prefix": "172.20.0.0/24", "maxLength": 28, "asn": -1}]}', r"roas\[0\] is no ROA"),
        (b'{"roas": [{"prefix": "fd42::/48", "maxLength": 32, "asn": 1}]}', "max 32 of fd42::/48"),
    ],
)
def test_what_is_no_set_is_refused_with_the_reason(content: bytes, said: str) -> None:
    with pytest.raises(SetError, match=said):
        parse(content)
