# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read what the kernel tells of a traced packet: ``nft monitor trace``, and the TRACE lines of legacy (ip6)tables.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
Pure functions on text and bytes.
"""

from __future__ import annotations

import json
import re
import struct
from typing import Dict, Iterator, List, NamedTuple, Optional, Tuple

# nft's own words, printed among the events when its socket's buffer overflowed.
LOST = "We lost some netlink events"

_EVENT = re.compile(r"trace id (?P<id>[0-9a-f]+) (?P<family>\S+) (?P<table>\S+) (?P<chain>\S+) (?P<kind>packet:|rule|verdict|policy|unknown)\s?(?P<rest>.*)")
_FIELD = re.compile(r'(?<!\S)(iif|oif|ether saddr|ether daddr|ip6? saddr|ip6? daddr|icmp(?:v6)? type|icmp(?:v6)? code|(?:tcp|udp) [sd]port|udp length|tcp flags) ("[^"]*"|[^"\s]+)')
_VERDICT = re.compile(r"^(?P<rule>.*) \(verdict (?P<verdict>[^()]*)\)$")
# Numbers that differ from packet to packet.
_COUNTED = re.compile(r"(?<=counter) packets \d+ bytes \d+")
_LEGACY = re.compile(r"TRACE: (?P<table>[^:]+):(?P<chain>[^:]+):(?P<kind>rule|return|policy):(?P<number>\d+)")


class Event(NamedTuple):
    """One line about one packet in one base chain or a chain called from it.

    `kind` is packet, rule, verdict or policy. `fields` are a packet's (``iif``, ``saddr``, …), empty for the others.
    """

    ident: str
    family: str
    table: str
    chain: str
    kind: str
    rule: str
    verdict: str
    fields: Dict[str, str]


class Chain(NamedTuple):
    """Where a base chain hangs."""

    hook: str
    priority: int


def parse_fields(text: str) -> Dict[str, str]:
    """Return the fields of a packet line that matter; a name without its protocol (``saddr``, ``type``), ether ones with it."""
    found = {}
    for name, value in _FIELD.findall(text):
        short = name if name.startswith("ether") or name == "udp length" else name.split()[-1]
        found.setdefault(short, value.strip('"'))
    return found


def parse_line(line: str) -> Optional[Event]:
    """Return the event of a line of ``nft monitor trace``, None for any other line (``conntrack:`` of newer versions too)."""
    found = _EVENT.match(line.strip())
    if not found:
        return None
    kind, rest = found["kind"].rstrip(":"), found["rest"].strip()
    place = (found["id"], found["family"], found["table"], found["chain"])
    if kind == "packet":
        return Event(*place, kind, "", "", parse_fields(rest))
    if kind in ("rule", "unknown"):
        # A rule that was made after the monitor had read them all is `unknown rule handle 6`.
        rule = _VERDICT.match(_COUNTED.sub("", rest))
        return Event(*place, "rule", rule["rule"] if rule else rest, rule["verdict"] if rule else "", {})
    return Event(*place, kind, "", rest, {})


def parse_chains(text: str) -> Dict[Tuple[str, str, str], Chain]:
    """Return the base chains in the output of ``nft -j list chains`` by family, table and name."""
    found = {}
    for item in json.loads(text or "{}").get("nftables", []):
        chain = item.get("chain", {})
        if "hook" in chain:
            found[chain["family"], chain["table"], chain["name"]] = Chain(chain["hook"], int(chain.get("prio", 0)))
    return found


# --- legacy (ip6)tables ---------------------------------------------------------------------------------------------------

# What the kernel's nfnetlink_log sends: a netlink message whose attributes have these numbers (linux/netfilter/nfnetlink_log.h).
_NFLOG_PACKET = 4 << 8
_NETLINK_HEADER, _NFGEN_HEADER = struct.Struct("=IHHII"), struct.Struct("!BBH")
_HARDWARE, _IFINDEX_IN, _IFINDEX_OUT, _PAYLOAD, _PREFIX = 1, 4, 5, 9, 10
_HOOKS = ("prerouting", "input", "forward", "output", "postrouting")
_LEGACY_PRIORITY = {"raw": -300, "mangle": -150, "nat": -100, "filter": 0, "security": 50}


class LegacyEvent(NamedTuple):
    """A TRACE line: the packet met this rule (counted from one) or policy of a legacy table. It doesn't tell the verdict."""

    version: int
    hook: str
    table: str
    chain: str
    kind: str
    number: int
    iif: int
    oif: int
    source: bytes
    destination: bytes

    @property
    def priority(self) -> int:
        """Where the table stands among the hook's chains."""
        return _LEGACY_PRIORITY.get(self.table, 0)


def _attributes(data: bytes) -> Dict[int, bytes]:
    """Return netlink attributes by number."""
    found, offset = {}, 0
    while offset + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        if length < 4:
            break
        found[kind & 0x3FFF] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


def parse_nflog(data: bytes) -> Iterator[LegacyEvent]:
    """Yield the TRACE lines in what was read from a netlink socket bound to NFLOG's group 0."""
    offset = 0
    while offset + _NETLINK_HEADER.size <= len(data):
        length, kind = _NETLINK_HEADER.unpack_from(data, offset)[:2]
        if not _NETLINK_HEADER.size + _NFGEN_HEADER.size <= length <= len(data) - offset:
            return
        start = offset + _NETLINK_HEADER.size
        if kind == _NFLOG_PACKET:
            event = _legacy_event(data[start], _attributes(data[start + _NFGEN_HEADER.size : offset + length]))
            if event is not None:
                yield event
        offset += (length + 3) & ~3


def _legacy_event(protocol_family: int, attributes: Dict[int, bytes]) -> Optional[LegacyEvent]:
    """Return the event of one message, None when it isn't a trace of IPv4 or IPv6."""
    found = _LEGACY.match(attributes.get(_PREFIX, b"").rstrip(b"\0").decode("ascii", "replace"))
    packet, header = attributes.get(_PAYLOAD, b""), attributes.get(_HARDWARE, b"\0" * 4)
    addresses = {2: (12, 16, 20), 10: (8, 24, 40)}.get(protocol_family)
    if found is None or addresses is None or len(packet) < addresses[2]:
        return None
    first, second, end = addresses
    incoming, outgoing = (int.from_bytes(attributes.get(key, b""), "big") for key in (_IFINDEX_IN, _IFINDEX_OUT))
    return LegacyEvent(
        version=4 if protocol_family == 2 else 6,
        hook=_HOOKS[header[2]] if header[2] < len(_HOOKS) else str(header[2]),
        table=found["table"],
        chain=found["chain"],
        kind=found["kind"],
        number=int(found["number"]),
        iif=incoming,
        oif=outgoing,
        source=packet[first:second],
        destination=packet[second:end],
    )


def parse_save(text: str) -> Dict[Tuple[str, str], List[str]]:
    """Return the rules in the output of ``ip6tables-legacy-save`` by table and chain, in their order; policies as ``-P``."""
    found: Dict[Tuple[str, str], List[str]] = {}
    table = ""
    for line in text.splitlines():
        if line.startswith("*"):
            table = line[1:].strip()
        elif line.startswith("-A "):
            found.setdefault((table, line.split()[1]), []).append(line)
        elif line.startswith(":"):
            chain, policy = line[1:].split()[:2]
            found[table, f"-P {chain}"] = [policy]
    return found


def legacy_rule(event: LegacyEvent, rules: Dict[Tuple[str, str], List[str]]) -> Tuple[str, str]:
    """Return text and verdict (accept, drop, reject, continue) of what a TRACE line points at."""
    if event.kind == "policy":
        policy = (rules.get((event.table, f"-P {event.chain}")) or ["ACCEPT"])[0].lower()
        return "policy", policy
    listed = rules.get((event.table, event.chain), [])
    if event.kind == "return" or not 0 < event.number <= len(listed):
        return "", "return" if event.kind == "return" else "continue"
    rule = listed[event.number - 1]
    target = re.search(r" -[jg] (\S+)", rule)
    name = target[1].lower() if target else "continue"
    return rule, name if name in ("accept", "drop", "reject") else "continue"
