# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what the kernel tells of a packet to its way and to the name of the fault.

The files in trace/ were recorded on a node: `nft monitor trace` in the host's and in the router's namespace, and what NFLOG
sent for legacy ip6tables. The addresses of the flow are those of the test lab.
"""

from __future__ import annotations

import base64
import ipaddress
import string
import struct
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dn42.compose.plugins.module_utils import _trace_events as events
from ansible_collections.dn42.compose.plugins.module_utils import _trace_faults as faults
from ansible_collections.dn42.compose.plugins.module_utils import _trace_journey as journey
from ansible_collections.dn42.compose.plugins.module_utils import _trace_probe as trace_probe
from ansible_collections.dn42.compose.plugins.module_utils._trace_rules import Flow, commands, matches
from ansible_collections.dn42.compose.plugins.modules import packet_trace

RECORDED = Path(__file__).parent / "trace"
FLOW = Flow("fd99:4242:1::4", "fdc0:ffee:9002::80", "icmp", 28354, None)
ROUTER_MAC = "02:42:ac:17:ff:03"
FACTS: dict[str, Any] = {
    "answered": False,
    "bridge": "br-dn42",
    "service": "dns",
    "unreachable": "",
    "waited": 0,
    "source_route": {"gateway": "fd99:4242:1::2", "local": False},
    "router_addresses": ["fd99:4242:1::2", "fd99:4242:1::3"],
    "forwarding": {"net.ipv6.conf.all.forwarding": 1},
    "rp_filter": 0,
    "route_there": "via fe80::9002 dev wg-peer1",
    "route_back": "dev eth0",
}


def recorded(name: str, namespace: str) -> list[events.Event]:
    """Events of a recording."""
    lines = (RECORDED / f"{name}.{namespace}.txt").read_text().splitlines()
    return [event for event in map(events.parse_line, lines) if event is not None]


def chains(namespace: str) -> dict:
    """Base chains of a namespace while a trace ran."""
    return events.parse_chains((RECORDED / f"chains.{namespace}.json").read_text())


def passages(name: str) -> list[journey.Passage]:
    """The journey of a recording."""
    hops = [hop for namespace in ("host", "router") for hop in journey.read_hops(namespace, recorded(name, namespace), chains(namespace), FLOW, ROUTER_MAC)]
    return journey.passages(hops)


def explained(name: str, **facts: Any) -> dict[str, str] | None:
    """What is thought of a recording."""
    return faults.explain(faults.Situation(FLOW, passages(name), {**FACTS, **facts}))


def hop(**fields: Any) -> journey.Hop:
    """A hop that drops the request in the host's forward hook, unless said otherwise."""
    given = {"direction": "request", "namespace": "host", "side": "to router", "iif": "br-dn42", "oif": "br-dn42", "hook": "forward", "family": "inet"}
    given.update({"table": "t", "chain": "c", "rules": (), "rule": "drop", "verdict": "drop", "packet": {"saddr": FLOW.source}}, **fields)
    return journey.Hop(**given)


def seen(direction: str, namespace: str, side: str, *hooks: str, oif: str = "", packet: dict[str, str] | None = None) -> journey.Passage:
    """A passage of which only the observers told."""
    packet = packet or {}
    hops = [hop(direction=direction, namespace=namespace, side=side, hook=hook, table="dn42_trace", chain=hook, verdict="accept", oif=oif, packet=packet) for hook in hooks]
    return journey.Passage(direction, namespace, side, hops)


THROUGH_BRIDGE = seen("request", "host", "to router", "prerouting", "forward", "postrouting", oif="br-dn42")
INTO_TUNNEL = seen("request", "router", "", "prerouting", "forward", "postrouting", oif="wg-peer1")
STUCK_IN_ROUTER = seen("request", "router", "", "prerouting")


# --- reading --------------------------------------------------------------------------------------------------------------


def test_lines_of_the_origin_post_are_read() -> None:
    """nft of 2022 with iptables' tables, and a rule that drops."""
    packet = events.parse_line(
        'trace id c9fb2605 ip6 raw PREROUTING packet: iif "wg-4242422688" ip6 saddr fd42:d42:d42:54::1 ip6 daddr fd42:d2aa:8a0e::3 ip6 dscp cs0 ip6 ecn not-ect ip6 hoplimit 62'
        " ip6 flowlabel 808330 ip6 length 64 icmpv6 type echo-reply icmpv6 code no-route icmpv6 parameter-problem 11339418 @th,64,96 62617626364244974739948306432 "
    )
    assert packet is not None
    assert packet.fields == {"iif": "wg-4242422688", "saddr": "fd42:d42:d42:54::1", "daddr": "fd42:d2aa:8a0e::3", "type": "echo-reply", "code": "no-route"}
    dropped = events.parse_line("trace id 698de359 inet firewalld raw_PREROUTING rule meta nfproto ipv6 fib saddr . iif oif missing drop (verdict drop)")
    assert dropped is not None
    assert dropped[:7] == ("698de359", "inet", "firewalld", "raw_PREROUTING", "rule", "meta nfproto ipv6 fib saddr . iif oif missing drop", "drop")
    policy = events.parse_line("trace id 698de359 ip6 raw PREROUTING policy accept ")
    assert policy is not None
    assert (policy.kind, policy.verdict) == ("policy", "accept")


def test_counters_are_left_out_of_a_rule_and_unknown_rules_keep_their_verdict() -> None:
    """A counter differs from packet to packet; a rule that is younger than the monitor has only a handle."""
    counted = events.parse_line("trace id 1 inet t c rule ip6 daddr ::1 counter packets 19226 bytes 1999504 drop (verdict drop)")
    unknown = events.parse_line("trace id 1 inet t c unknown rule handle 6 (verdict drop)")
    assert counted is not None
    assert unknown is not None
    assert counted.rule == "ip6 daddr ::1 counter drop"
    assert (unknown.kind, unknown.verdict) == ("rule", "drop")


@pytest.mark.parametrize(
    "line", ["", "# ERROR: We lost some netlink events!", "trace id 1 inet t c conntrack: ct direction original ct state new ct id 1", "add rule inet t c drop"]
)
def test_other_lines_are_no_events(line: str) -> None:
    """Words of nft itself, and of versions to come."""
    assert events.parse_line(line) is None


# --- the way --------------------------------------------------------------------------------------------------------------


def test_way_there_and_back_in_the_order_of_the_way() -> None:
    """Bridge, router, tunnel; tunnel, router, bridge. Of the rules that were met, the one that decided is shown."""
    found = passages("healthy")
    assert [(item.direction, item.namespace, item.side) for item in found] == [
        ("request", "host", "to router"),
        ("request", "router", ""),
        ("reply", "router", ""),
        ("reply", "host", "from router"),
    ]
    assert all(item.complete for item in found)
    assert [found[1].iif, found[1].oif] == ["eth0", "wg-peer1"]
    docker = next(item for item in found[0].hops if item.table == "firewalld" and item.hook == "forward")
    assert (docker.chain, docker.rule, docker.verdict) == ("filter_FWD_docker_allow", 'oifname "br-dn42" accept', "accept")
    assert len(docker.rules) > 5
    lines = journey.journey_lines(journey.without_doubles(found), FLOW)
    assert [line for line in lines if line.startswith("--")] == ["-- there: fd99:4242:1::4 -> fdc0:ffee:9002::80", "-- back: fdc0:ffee:9002::80 -> fd99:4242:1::4"]
    assert explained("healthy", answered=True) is None


def test_forwarding_off_in_the_router() -> None:
    """The first fault of the origin post: into prerouting, and never out of it."""
    found = explained("forwarding", forwarding={"net.ipv6.conf.all.forwarding": 0})
    assert found is not None
    assert found["name"] == "router, forwarding off"
    assert "net.ipv6.conf.all.forwarding is not 1" in found["cause"]
    assert passages("forwarding")[-1].hooks == {"prerouting"}


def test_firewalld_drops_what_crosses_the_bridge() -> None:
    """The second fault of the origin post, on the way back."""
    found = explained("rpfilter")
    assert found is not None
    assert found["name"] == "firewalld IPv6_rpfilter"
    assert "would answer fdc0:ffee:9002::80 through br-dn42" in found["cause"]
    dropped = passages("rpfilter")[-1].hops[-1]
    assert (dropped.namespace, dropped.direction, dropped.chain) == ("host", "reply", "filter_PREROUTING")


def legacy_events() -> list[events.LegacyEvent]:
    """What NFLOG sent while a rule of the legacy table raw dropped the answer."""
    return list(events.parse_nflog(base64.b64decode((RECORDED / "legacy.nflog.base64").read_text())))


def test_legacy_rule_takes_its_place_in_the_way() -> None:
    """Between what nft tells of the same hook, by the priority of its table."""
    rules = events.parse_save((RECORDED / "legacy.rules.txt").read_text())
    found = passages("legacy")
    journey.add_legacy(found, journey.legacy_hops("host", legacy_events(), {6: rules}, {}, FLOW), chains("host"))
    bridge = found[0].hops
    assert [item.family for item in bridge[:3]] == ["bridge", "inet", "ip6 (legacy)"]
    assert (bridge[2].table, bridge[2].rule, bridge[2].verdict) == ("raw", "policy", "accept")
    last = found[-1].hops[-1]
    assert (last.direction, last.rule, last.dropped) == ("reply", "-A PREROUTING -s fdc0:ffee:9002::80/128 -j DROP", True)
    found_fault = faults.explain(faults.Situation(FLOW, found, FACTS))
    assert found_fault is not None
    assert found_fault["name"] == "another rule"


def test_nflog_message_is_read_field_by_field() -> None:
    """Also cut off in the middle: what is not there is not read, and nothing is raised."""
    first = legacy_events()[0]
    assert (first.version, first.hook, first.table, first.chain, first.kind, first.priority) == (6, "prerouting", "raw", "PREROUTING", "policy", -300)
    assert str(ipaddress.ip_address(first.source)) == FLOW.source
    data = base64.b64decode((RECORDED / "legacy.nflog.base64").read_text())
    for end in range(len(data)):
        list(events.parse_nflog(data[:end]))


# --- the faults -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"table": "dn42_guard", "hook": "prerouting", "chain": "reverse_path", "iif": "eth0", "rule": "fib saddr . mark . iif oif missing counter drop"}, "guard, reverse path"),
        ({"table": "dn42_guard", "hook": "input", "chain": "from_dn42", "rule": "counter drop"}, "guard, to the host"),
        ({"table": "dn42_guard", "chain": "forward", "rule": 'iifname "br-dn42" counter drop'}, "guard, through the host"),
        ({"namespace": "router", "table": "dn42_router", "hook": "prerouting", "rule": 'iifname "wg-*" ip6 saddr @own_ipv6 counter drop'}, "router, own addresses from a peer"),
        ({"namespace": "router", "table": "dn42_router", "hook": "input", "rule": "policy"}, "router, to the router itself"),
        ({"namespace": "router", "table": "dn42_router", "hook": "forward", "rule": "policy"}, "router, not between DN42 addresses"),
        ({"table": "filter", "family": "ip", "chain": "DOCKER-ISOLATION-STAGE-2", "rule": 'oifname "docker0" counter drop'}, "Docker, isolation of networks"),
        (
            {"table": "raw", "family": "ip", "hook": "prerouting", "chain": "PREROUTING", "rule": 'ip daddr 172.23.255.4 iifname != "br-dn42" counter drop'},
            "Docker, direct access to a container",
        ),
        ({"table": "firewalld", "chain": "filter_FORWARD", "rule": "reject with icmpx admin-prohibited"}, "firewalld, zone"),
        ({"table": "firewalld", "hook": "prerouting", "iif": "eth0", "rule": "meta nfproto ipv6 fib saddr . iif oif missing drop"}, "firewalld, zone"),
        ({"table": "filter", "family": "ip6 (legacy)", "hook": "prerouting", "rule": "-A PREROUTING -m rpfilter --validmark --invert -j DROP"}, "firewalld IPv6_rpfilter"),
        ({"table": "filter", "family": "ip6", "chain": "FORWARD", "rule": "policy"}, "host, forwarding policy"),
        ({"table": "mine", "hook": "prerouting", "rule": "ip6 hoplimit 62 drop"}, "another rule"),
    ],
)
def test_rule_that_dropped_is_recognised(fields: dict[str, Any], name: str) -> None:
    """By the table, chain and rule, and by where it stands."""
    dropped = hop(**fields)
    found = faults.explain(faults.Situation(FLOW, [journey.Passage(dropped.direction, dropped.namespace, dropped.side, [dropped])], FACTS))
    assert found is not None
    assert found["name"] == name


def error(kind: str, code: str = "") -> journey.Passage:
    """An ICMP error that the router sent."""
    return seen("error", "router", "", "output", "postrouting", packet={"saddr": "fd99:4242:1::2", "type": kind, "code": code})


REPLY_IN_ROUTER = seen("reply", "router", "", "prerouting")
REPLY_ON_BRIDGE = seen("reply", "host", "from router", "prerouting", "forward", "postrouting", oif="br-dn42")


@pytest.mark.parametrize(
    ("way", "facts", "name"),
    [
        ([THROUGH_BRIDGE, STUCK_IN_ROUTER], {"forwarding": {"net.ipv4.ip_forward": 0}}, "router, forwarding off"),
        ([THROUGH_BRIDGE, INTO_TUNNEL, REPLY_IN_ROUTER], {"forwarding": {"net.ipv4.ip_forward": 0}}, "router, forwarding off"),
        ([THROUGH_BRIDGE, STUCK_IN_ROUTER, error("destination-unreachable", "no-route")], {"route_there": ""}, "router, no route"),
        ([THROUGH_BRIDGE, INTO_TUNNEL, REPLY_IN_ROUTER], {"route_back": ""}, "router, no route"),
        ([], {"source_route": {}, "unreachable": "Network is unreachable"}, "router, no route"),
        ([], {"source_route": {"gateway": None, "local": False}, "unreachable": "Network is unreachable"}, "sender's default route"),
        ([seen("request", "host", "other", "prerouting")], {"source_route": {"gateway": "fd99:4242:1::1"}}, "sender's default route"),
        ([THROUGH_BRIDGE, STUCK_IN_ROUTER, error("packet-too-big")], {}, "packet too big"),
        ([THROUGH_BRIDGE, INTO_TUNNEL, error("time-exceeded")], {}, "time exceeded"),
        ([THROUGH_BRIDGE, INTO_TUNNEL, error("destination-unreachable", "port-unreachable")], {}, "refused on the way"),
        ([THROUGH_BRIDGE, INTO_TUNNEL], {}, "no answer through the tunnel"),
        ([seen("request", "host", "other", "prerouting", "postrouting")], {"source_route": {"local": True}}, "nobody answers on the bridge"),
        ([THROUGH_BRIDGE], {}, "the router did not get it"),
        ([THROUGH_BRIDGE, INTO_TUNNEL, REPLY_ON_BRIDGE], {}, "the answer did not reach the sender"),
        ([THROUGH_BRIDGE, STUCK_IN_ROUTER], {}, "vanished"),
        (
            [journey.Passage("request", "host", "other", [hop(side="other", table="dn42_guard", chain="forward", rule='iifname "br-dn42" counter drop')])],
            {"source_route": {"gateway": "fd99:4242:1::1"}},
            "sender's default route",
        ),
        ([], {"waited": 30}, "nothing came"),
        ([], {}, "never seen"),
    ],
)
def test_place_of_the_loss_is_recognised(way: list[journey.Passage], facts: dict[str, Any], name: str) -> None:
    """By where the packet was seen last, and by what the router's namespace says."""
    found = faults.explain(faults.Situation(FLOW, way, {**FACTS, **facts}))
    assert found is not None
    assert found["name"] == name


def test_ipv4_reverse_path_in_the_router() -> None:
    """B09: the second switch, for IPv4 only."""
    flow = FLOW._replace(source="172.23.255.4", destination="172.22.200.80")
    found = faults.explain(faults.Situation(flow, [THROUGH_BRIDGE, STUCK_IN_ROUTER], {**FACTS, "rp_filter": 1}))
    assert found is not None
    assert found["name"] == "router, IPv4 reverse path"


def test_every_fault_has_one_sentence_of_cause_and_one_of_cure_with_names_that_exist() -> None:
    """A name that words() does not know would only fail in front of an operator."""
    known = set(faults.Situation(FLOW, [THROUGH_BRIDGE], FACTS).words())
    for fault in faults.FAULTS:
        used = {name for text in (fault.cause, fault.cure) for _literal, name, _format, _conversion in string.Formatter().parse(text) if name is not None}
        assert used <= known, fault.name
        assert fault.cause.endswith(".")
        assert fault.cure.endswith((".", "?"))


# --- the rules and the probe ----------------------------------------------------------------------------------------------


def test_rules_match_one_flow_its_answer_and_errors_about_it() -> None:
    """The quoted packet's destination is where an IPv6 header behind eight bytes of ICMP has it."""
    there, back, about = matches(FLOW)
    assert there == "ip6 saddr fd99:4242:1::4 ip6 daddr fdc0:ffee:9002::80 icmpv6 type echo-request icmpv6 id 28354"
    assert back == "ip6 saddr fdc0:ffee:9002::80 ip6 daddr fd99:4242:1::4 icmpv6 type echo-reply icmpv6 id 28354"
    assert about.endswith("@th,256,128 0xfdc0ffee900200000000000000000080")
    dns = matches(Flow("172.23.255.4", "172.20.0.53", "udp", 40000, 53))
    assert dns[0].endswith("udp dport 53 udp sport 40000")
    assert dns[1].endswith("udp sport 53 udp dport 40000")


def test_every_table_is_owned_and_a_users_flow_is_limited() -> None:
    """Without `flags owner` a killed trace would leave its rules."""
    for family in ("inet", "bridge"):
        lines = commands(FLOW, 9, family)
        assert lines[0] == f"add table {family} dn42_trace {{ flags owner; }}"
        assert not any("limit" in line for line in lines)
    waiting = commands(FLOW._replace(ident=None, protocol=None), 9)
    assert all("limit rate" in line for line in waiting if "addr fd" in line)


def test_checksum_of_an_echo_request() -> None:
    """Added to what it covers, it makes the sum zero."""
    data = struct.pack("!BBHHH", 8, 0, 0, 4711, 1) + b"abc"
    total = trace_probe.checksum(data)
    assert trace_probe.checksum(data[:2] + struct.pack("!H", total) + data[4:]) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"protocol": "udp"}, "port: needed with protocol udp"),
        ({"protocol": "icmp", "port": 53}, "port: 53 goes with protocol udp or tcp"),
        ({"protocol": "tcp", "port": 70000}, "from 1 to 65535"),
        ({"wait": 601}, "wait: 601 must be from 0"),
        ({"size": 1500}, "size: 1500 must be from 0 to 1400"),
        ({"timeout": 0}, "timeout: 0 must be from 1 to 60"),
    ],
)
def test_options_that_cannot_be_meant(options: dict[str, Any], message: str) -> None:
    """One message, with what would be right."""
    trace = object.__new__(packet_trace.Trace)
    trace.options = {"protocol": None, "port": None, "size": 56, "timeout": 2, "wait": 0, **options}
    trace.wait = trace.options["wait"]
    with pytest.raises(packet_trace.InputError, match=message):
        trace.check_options()


@pytest.mark.parametrize("text", ["peer1.dn42", "172.22.200.0/24", "ff02::1", "fe80::1", "::", "127.0.0.1"])
def test_destination_that_is_no_address_of_dn42(text: str) -> None:
    """Names, prefixes, and addresses that no router forwards."""
    with pytest.raises(packet_trace.InputError, match=r"^to: "):
        packet_trace.destination_of(text)
