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


DROPPING = _firewalld.Situation("running", "2.3.1", "nftables", "strict", 1, "lasting")


@pytest.mark.parametrize(
    ("change", "drops"),
    [
        ({}, True),
        ({"check": "strict-forward"}, True),
        ({"check": "no"}, False),
        ({"check": "loose"}, False),
        ({"check": "loose-forward"}, False),
        ({"check": "loose", "default_route": "none"}, True),
        ({"check": "loose", "default_route": "passing"}, False),
        ({"bridge_nf": 0}, False),
        ({"bridge_nf": None}, False),
        ({"firewalld": "stopped"}, False),
        ({"firewalld": "absent"}, False),
    ],
)
def test_auto_acts_only_where_bridged_ipv6_is_dropped(change: dict, drops: bool) -> None:
    situation = DROPPING._replace(**change)
    assert _firewalld.drops_bridged(situation) is drops
    cure = _firewalld.choose_cure("auto", situation)
    assert (cure.rpfilter == _firewalld.KEEP) is not drops
    # Never by itself: other networks of the host may rely on it.
    assert cure.bridge_nf == _firewalld.RESTORE


@pytest.mark.parametrize(
    ("change", "value", "why"),
    [
        ({}, "loose", "default route"),
        ({"check": "strict-forward"}, "loose-forward", "default route"),
        ({"default_route": "none"}, "no", "which this host has not"),
        ({"default_route": "passing"}, "no", "router advertisements"),
        ({"version": "2.1.2"}, "no", "2.1.2 does not know loose"),
        ({"backend": "iptables"}, "no", "FirewallBackend=iptables"),
        ({"check": "loose", "default_route": "none"}, "no", "which this host has not"),
    ],
)
def test_auto_takes_the_smallest_step_that_works_here(change: dict, value: str, why: str) -> None:
    situation = DROPPING._replace(**change)
    cure = _firewalld.choose_cure("auto", situation)
    assert cure.rpfilter == value
    assert why in cure.reason
    assert _firewalld.wanted_rpfilter(value, situation.version, situation.backend) == value
    assert not _firewalld.drops_bridged(situation._replace(check=value))


def test_other_strategies() -> None:
    harmless = DROPPING._replace(bridge_nf=0)
    assert _firewalld.choose_cure("rpfilter", harmless)[:2] == ("no", _firewalld.RESTORE)
    assert _firewalld.choose_cure("rpfilter", harmless, "loose").rpfilter == "loose"
    assert _firewalld.choose_cure("bridge_nf", DROPPING)[:2] == (_firewalld.RESTORE, "0")
    assert _firewalld.choose_cure("none", DROPPING)[:2] == (_firewalld.RESTORE, _firewalld.RESTORE)


@pytest.mark.parametrize(
    ("chain", "rule", "check"),
    [
        ("filter_PREROUTING", "meta nfproto ipv6 fib saddr . mark . iif oif missing drop", "strict"),
        ("filter_PREROUTING", "meta nfproto ipv6 fib saddr . mark oif missing drop", "loose"),
        ("filter_FORWARD", "meta nfproto ipv6 fib saddr . mark . iif oif missing drop", "strict-forward"),
        ("filter_FORWARD", 'meta nfproto ipv6 fib saddr . mark oif missing log prefix "rpfilter_DROP: " drop', "loose-forward"),
        ("filter_PREROUTING", "icmpv6 type nd-router-advert accept", None),
    ],
)
def test_check_of_the_running_firewalld(chain: str, rule: str, check: str | None) -> None:
    assert _firewalld.running_check(f"table inet firewalld {{\n\tchain other {{\n\t}}\n\n\tchain {chain} {{\n\t\t{rule}\n\t}}\n}}\n") == check


@pytest.mark.parametrize(
    ("protocols", "kind"),
    [([], "none"), (["ra"], "passing"), (["static"], "lasting"), (["ra", "boot"], "lasting")],
)
def test_default_route_kind(protocols: list[str], kind: str) -> None:
    routes = [{"family": "ipv6", "interface": "eth0", "protocol": protocol} for protocol in protocols]
    routes.append({"family": "ipv4", "interface": "eth0", "protocol": "static"})
    routes.append({"family": "ipv6", "interface": "lo", "protocol": "static"})
    assert _firewalld.default_route_kind(routes) == kind


SAVED = """# Generated by iptables-save
*nat
:PREROUTING ACCEPT [2:120]
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A POSTROUTING -s 10.1.0.0/16 -o eth0 -j MASQUERADE
-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8088 -j DNAT --to-destination 172.17.0.2:80
COMMIT
*filter
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A DOCKER-USER -s 198.51.100.7/32 -j DROP
-A DOCKER-USER -j RETURN
COMMIT
"""


def test_rules_of_docker_and_of_its_user_are_told_apart() -> None:
    rules = _firewalld.docker_rules(SAVED, ["docker0"])
    assert rules == {
        "nat :DOCKER -",
        "nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER",
        "nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE",
        "nat -A DOCKER ! -i docker0 -p tcp -m tcp --dport 8088 -j DNAT --to-destination 172.17.0.2:80",
        "filter -A FORWARD -j DOCKER-USER",
    }
    assert _firewalld.user_rules(SAVED) == {"-A DOCKER-USER -s 198.51.100.7/32 -j DROP"}


def test_containers_may_have_other_addresses_after_a_restart() -> None:
    rules = {
        "nat -A POSTROUTING -s 172.17.0.2/32 -d 172.17.0.2/32 -p tcp -m tcp --dport 80 -j MASQUERADE",
        "nat -A DOCKER ! -i docker0 -p tcp -m tcp --dport 8088 -j DNAT --to-destination 172.17.0.2:80",
        "nat -A DOCKER ! -i br-x -p tcp -m tcp --dport 8089 -j DNAT --to-destination [fd00:1::2]:80",
        "nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE",
    }
    others = {rule.replace("172.17.0.2", "172.17.0.3").replace("fd00:1::2", "fd00:1::5") for rule in rules}
    assert others != rules
    assert _firewalld.without_leases(others) == _firewalld.without_leases(rules)
    closed = {rule.replace("--dport 8088", "--dport 8080") for rule in rules}
    another_network = {rule.replace("172.17.0.0/16", "172.18.0.0/16") for rule in rules}
    for found in (closed, another_network):
        assert _firewalld.without_leases(found) != _firewalld.without_leases(rules)
