# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""firewalld's files are read as firewalld reads them and edited without touching anything else."""

from __future__ import annotations

import pytest
from ansible_collections.dn42.compose.plugins.module_utils import _firewalld

BOM = b"\xef\xbb\xbf"

# name, file before, file after setting `no`
EDITS = [
    ("plain", b"DefaultZone=public\nIPv6_rpfilter=strict\nLogDenied=off\n", b"DefaultZone=public\nIPv6_rpfilter=no\nLogDenied=off\n"),
    ("already no", b"IPv6_rpfilter=no\n", b"IPv6_rpfilter=no\n"),
    ("already No", b"IPv6_rpfilter = No\n", b"IPv6_rpfilter = No\n"),
    ("false is no", b"IPv6_rpfilter=false\n", b"IPv6_rpfilter=false\n"),
    ("commented", b"# IPv6_rpfilter\n#IPv6_rpfilter=yes\nLogDenied=off\n", b"# IPv6_rpfilter\n#IPv6_rpfilter=yes\nIPv6_rpfilter=no\nLogDenied=off\n"),
    ("commented with ;", b"; IPv6_rpfilter=yes\nA=b\n", b"; IPv6_rpfilter=yes\nIPv6_rpfilter=no\nA=b\n"),
    ("duplicated, the first counts", b"IPv6_rpfilter=loose\nIPv6_rpfilter=no\n", b"IPv6_rpfilter=no\nIPv6_rpfilter=no\n"),
    ("duplicated, the second does not", b"IPv6_rpfilter=no\nIPv6_rpfilter=strict\n", b"IPv6_rpfilter=no\nIPv6_rpfilter=strict\n"),
    ("first one without value", b"IPv6_rpfilter=\nIPv6_rpfilter=yes\n", b"IPv6_rpfilter=\nIPv6_rpfilter=no\n"),
    ("quoted", b'IPv6_rpfilter="no"\n', b"IPv6_rpfilter=no\n"),
    ("off", b"IPv6_rpfilter=off\n", b"IPv6_rpfilter=no\n"),
    ("inline comment", b"A=b\nIPv6_rpfilter=no # B01\nC=d\n", b"A=b\n# B01\nIPv6_rpfilter=no\nC=d\n"),
    ("inline comment with =", b"IPv6_rpfilter=no # was=yes\nC=d\n", b"IPv6_rpfilter=no # was=yes\nIPv6_rpfilter=no\nC=d\n"),
    ("lower case", b"ipv6_rpfilter=no\nC=d\n", b"ipv6_rpfilter=no\nIPv6_rpfilter=no\nC=d\n"),
    ("spaces stay", b"  IPv6_rpfilter =\tyes  \n", b"  IPv6_rpfilter =\tno  \n"),
    ("CRLF", b"A=b\r\nIPv6_rpfilter=yes\r\nC=d\r\n", b"A=b\r\nIPv6_rpfilter=no\r\nC=d\r\n"),
    ("CRLF, added", b"A=b\r\nC=d\r\n", b"A=b\r\nC=d\r\nIPv6_rpfilter=no\r\n"),
    ("BOM hides the first key", BOM + b"IPv6_rpfilter=no\nC=d\n", BOM + b"IPv6_rpfilter=no\nIPv6_rpfilter=no\nC=d\n"),
    ("BOM elsewhere", BOM + b"# c\nIPv6_rpfilter=yes\n", BOM + b"# c\nIPv6_rpfilter=no\n"),
    ("missing", b"A=b\n", b"A=b\nIPv6_rpfilter=no\n"),
    ("missing, no last line end", b"A=b", b"A=b\nIPv6_rpfilter=no\n"),
    ("no last line end", b"A=b\nIPv6_rpfilter=yes", b"A=b\nIPv6_rpfilter=no"),
    ("empty file", b"", b"IPv6_rpfilter=no\n"),
    ("not UTF-8", b"# caf\xe9\nIPv6_rpfilter=yes\n", b"# caf\xe9\nIPv6_rpfilter=no\n"),
    ("blank lines stay", b"\n\nIPv6_rpfilter=yes\n\n\n", b"\n\nIPv6_rpfilter=no\n\n\n"),
]


@pytest.mark.parametrize(("before", "after"), [case[1:] for case in EDITS], ids=[case[0] for case in EDITS])
def test_set_no(before: bytes, after: bytes) -> None:
    assert _firewalld.set_rpfilter(before, "no") == after
    assert _firewalld.effective_rpfilter(after, "2.3.1") == "no"
    assert _firewalld.set_rpfilter(after, "no") == after


@pytest.mark.parametrize(
    ("content", "version", "effective"),
    [
        (b"", "2.3.1", "strict"),
        (b"IPv6_rpfilter=yes\n", "2.3.1", "strict"),
        (b"IPv6_rpfilter=TRUE\n", "2.3.1", "strict"),
        (b"IPv6_rpfilter=loose\n", "2.3.1", "loose"),
        (b"IPv6_rpfilter=loose\n", "1.3.3", "strict"),
        (b"IPv6_rpfilter=strict-forward\n", "2.2.0", "strict-forward"),
        (b"IPv6_rpfilter=No\n", "1.3.3", "no"),
        (b"IPv6_rpfilter='no'\n", "2.3.1", "strict"),
        (b"IPv6_rpfilter=0\n", "2.3.1", "strict"),
        (b"#IPv6_rpfilter=no\n", "2.3.1", "strict"),
    ],
)
def test_effective(content: bytes, version: str, effective: str) -> None:
    assert _firewalld.effective_rpfilter(content, version) == effective


@pytest.mark.parametrize("before", [case[1] for case in EDITS if case[0] not in ("inline comment", "quoted")])
def test_restore_is_byte_for_byte(before: bytes) -> None:
    """Set and put back, by the value that was there or by taking the line out, gives the old file."""
    value = _firewalld.read_key(before, "IPv6_rpfilter")
    edited = _firewalld.set_rpfilter(before, "no")
    if edited == before:
        return
    restored = _firewalld.unset_rpfilter(edited) if value is None else _firewalld.set_rpfilter(edited, value)
    assert restored in (before, before + b"\n")


@pytest.mark.parametrize(
    ("value", "version", "backend", "written"),
    [
        ("no", "0.9.3", "nftables", "no"),
        ("False", "2.3.1", "nftables", "no"),
        ("True", "1.3.3", "nftables", "yes"),
        ("loose", "2.2.0", "nftables", "loose"),
        ("loose", "2.2.0", "iptables", "loose"),
        ("strict-forward", "2.3.1", "nftables", "strict-forward"),
    ],
)
def test_wanted(value: str, version: str, backend: str, written: str) -> None:
    assert _firewalld.wanted_rpfilter(value, version, backend) == written


@pytest.mark.parametrize(
    ("value", "version", "backend", "reason"),
    [
        ("loose", "1.3.3", "nftables", "only yes and no"),
        ("loose", "", "nftables", "unknown version"),
        ("loose-forward", "2.3.1", "iptables", "FirewallBackend=iptables"),
        ("off", "2.3.1", "nftables", "knows no"),
        ('"no"', "2.3.1", "nftables", "knows no"),
    ],
)
def test_refused(value: str, version: str, backend: str, reason: str) -> None:
    with pytest.raises(_firewalld.SettingError, match=reason):
        _firewalld.wanted_rpfilter(value, version, backend)


def test_policy_round_trip() -> None:
    ports = _firewalld.udp_port_set([22901, 500, 22900])
    content = _firewalld.write_policy(ports)
    policy = _firewalld.read_policy(content)
    assert policy is not None
    assert policy.ports == ports
    assert _firewalld.policy_is_ours(policy)
    assert content.index(b'"500"') < content.index(b'"22900"')


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<zone/>",
        b"<policy",
        b'<policy priority="x"/>',
        b'<policy target="DROP" priority="-10"><ingress-zone name="ANY"/><egress-zone name="HOST"/></policy>',
        b'<policy target="CONTINUE" priority="-10"><ingress-zone name="public"/><egress-zone name="HOST"/></policy>',
        b'<policy target="CONTINUE"><ingress-zone name="ANY"/><egress-zone name="HOST"/></policy>',
    ],
)
def test_policy_of_somebody_else(content: bytes) -> None:
    assert not _firewalld.policy_is_ours(_firewalld.read_policy(content))


def test_single_ports() -> None:
    assert _firewalld.single_ports(frozenset({"10-12/udp", "20/udp"})) == {"10/udp", "11/udp", "12/udp", "20/udp"}
    assert _firewalld.sorted_ports(frozenset({"100/udp", "20-22/udp", "3/udp"})) == ["3/udp", "20-22/udp", "100/udp"]


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_no_port(port: int) -> None:
    with pytest.raises(_firewalld.SettingError):
        _firewalld.udp_port_set([port])


def test_busctl_output() -> None:
    assert _firewalld.parse_busctl('s "2.3.1"\ns "RUNNING"\nb true\n') == ["2.3.1", "RUNNING", "true"]
    assert _firewalld.parse_busctl('as 2 "docker0" "br-dn42"\n') == ["docker0", "br-dn42"]
    assert _firewalld.parse_busctl("as 0\n") == []


def test_zones_binding() -> None:
    zones = {
        "trusted": b'<zone target="ACCEPT"><interface name="br-dn42"/></zone>',
        "docker": b'<zone target="ACCEPT"><interface name="docker0"/></zone>',
        "broken": b"<zone",
    }
    assert _firewalld.zones_binding(zones, "br-dn42") == ["trusted"]
