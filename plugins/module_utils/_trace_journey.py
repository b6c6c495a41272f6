# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From events of a traced packet to its journey, hop by hop, and to a text that a person reads.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
Pure functions.
"""

from __future__ import annotations

import ipaddress
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Optional, Tuple

from ansible_collections.dn42.compose.plugins.module_utils._trace_events import Chain, Event, LegacyEvent, legacy_rule
from ansible_collections.dn42.compose.plugins.module_utils._trace_rules import TABLE, Flow

HOST, ROUTER = "host", "router"
DIRECTIONS = ("request", "reply", "error")
HOOKS = ("prerouting", "input", "forward", "output", "postrouting")
# A packet that has seen the end of one of these is on its way to somebody else.
ENDS = frozenset({"input", "postrouting"})
ERROR_TYPES = frozenset({"destination-unreachable", "packet-too-big", "time-exceeded", "parameter-problem"})
_FINAL = frozenset({"accept", "drop", "stolen", "queue"})
# What the reader sees for our own chains, which only observe.
_MARKS = {"prerouting": "arrives", "input": "is delivered here", "forward": "is forwarded", "output": "is sent here", "postrouting": "leaves"}
_RULE_WIDTH = 110


class Hop(NamedTuple):
    """One base chain that the packet went through.

    `rules` are all rules it met as (chain, rule, verdict), `rule` and `verdict` the ones that ended it. `packet` are the fields
    of the packet as the kernel printed them there.
    """

    direction: str
    namespace: str
    side: str
    iif: str
    oif: str
    hook: str
    family: str
    table: str
    chain: str
    rules: Tuple[Tuple[str, str, str], ...]
    rule: str
    verdict: str
    packet: Mapping[str, str]

    @property
    def observer(self) -> bool:
        """Whether this is a chain of ours, which drops nothing."""
        return self.table == TABLE

    @property
    def dropped(self) -> bool:
        """Whether the packet ended here."""
        return not self.observer and self.verdict in ("drop", "reject")


class Passage(NamedTuple):
    """All hops of one packet through one namespace. `side` tells the host's: ``to router``, ``from router`` or ``other``."""

    direction: str
    namespace: str
    side: str
    hops: List[Hop]

    @property
    def hooks(self) -> frozenset:
        """The hooks it reached as our observers saw them, those of the bridge aside."""
        return frozenset(hop.hook for hop in self.hops if hop.observer and hop.family != "bridge")

    @property
    def complete(self) -> bool:
        """Whether it left the namespace again, or was delivered in it. A bridge may switch a packet without the host's rules."""
        hooks = self.hooks or frozenset(hop.hook for hop in self.hops if hop.observer)
        return bool(hooks & ENDS) and not any(hop.dropped for hop in self.hops)

    @property
    def oif(self) -> str:
        """The interface it left by, empty if none is known."""
        return next((hop.oif for hop in reversed(self.hops) if hop.oif and hop.hook == "postrouting"), "")

    @property
    def iif(self) -> str:
        """The interface it came in by, empty if it was made here."""
        return next((hop.iif for hop in self.hops if hop.iif and hop.family != "bridge"), "") or next((hop.iif for hop in self.hops if hop.iif), "")


def same_address(first: str, second: str) -> bool:
    """Whether two texts are the same address."""
    try:
        return ipaddress.ip_address(first) == ipaddress.ip_address(second)
    except ValueError:
        return False


def direction_of(fields: Mapping[str, str], flow: Flow) -> Optional[str]:
    """Return which way a packet goes, None if it isn't of the flow."""
    to_source = same_address(fields.get("daddr", ""), flow.source)
    if to_source and fields.get("type") in ERROR_TYPES:
        return "error"
    if to_source and same_address(fields.get("saddr", ""), flow.destination):
        return "reply"
    if same_address(fields.get("saddr", ""), flow.source) and same_address(fields.get("daddr", ""), flow.destination):
        return "request"
    return None


def _side(namespace: str, fields: Mapping[str, str], router_mac: str, before: str) -> str:
    """Return on which side of the router a packet is seen; the router itself has no sides.

    A packet that leaves is shown without its frame: it is where it was `before`.
    """
    if namespace == ROUTER:
        return ""
    if "ether daddr" not in fields:
        return before
    if fields["ether daddr"] == router_mac:
        return "to router"
    return "from router" if fields.get("ether saddr") == router_mac else "other"


class _Open:
    """A hop that is still being told."""

    def __init__(self, event: Event, direction: str, namespace: str, side: str, chain: Optional[Chain]) -> None:
        self.event, self.direction, self.namespace, self.side = event, direction, namespace, side
        # iptables' chains are named like their hooks, and need no list.
        self.hook = chain.hook if chain else event.chain.lower()
        self.rules: List[Tuple[str, str, str]] = []
        self.policy = ""

    def tell(self, event: Event) -> None:
        """Add what happened to the packet in this chain."""
        if event.kind == "rule":
            self.rules.append((event.chain, event.rule, event.verdict))
        elif event.kind == "policy":
            self.policy = event.verdict

    def close(self) -> Hop:
        """Return the hop."""
        last = self.rules[-1] if self.rules else ("", "", "")
        final = last if last[2].split(" ")[0] in _FINAL else ("", "policy" if self.policy else "", self.policy)
        fields = self.event.fields
        return Hop(
            direction=self.direction,
            namespace=self.namespace,
            side=self.side,
            iif=fields.get("iif", ""),
            oif=fields.get("oif", ""),
            hook=self.hook,
            family=self.event.family,
            table=self.event.table,
            chain=final[0] or self.event.chain,
            rules=tuple(self.rules),
            rule=final[1],
            verdict=final[2],
            packet=fields,
        )


def read_hops(namespace: str, events: Iterable[Event], chains: Mapping[Tuple[str, str, str], Chain], flow: Flow, router_mac: str) -> List[Hop]:
    """Return the hops of the flow's packets through one namespace, in the order in which they happened."""
    hops: List[_Open] = []
    current: Dict[str, Optional[_Open]] = {}
    sides: Dict[str, str] = {}
    for event in events:
        if event.kind != "packet":
            hop = current.get(event.ident)
            if hop is not None:
                hop.tell(event)
            continue
        direction = direction_of(event.fields, flow)
        current[event.ident] = None
        if direction is not None:
            chain = chains.get((event.family, event.table, event.chain))
            sides[direction] = _side(namespace, event.fields, router_mac, sides.get(direction, "other"))
            hop = _Open(event, direction, namespace, sides[direction], chain)
            current[event.ident] = hop
            hops.append(hop)
    return [hop.close() for hop in hops]


def legacy_hops(
    namespace: str, events: Iterable[LegacyEvent], rules: Mapping[int, Dict[Tuple[str, str], List[str]]], interfaces: Mapping[int, str], flow: Flow
) -> List[Tuple[int, Hop]]:
    """Return (priority, hop) for what legacy tables told. `rules` is parse_save's answer by IP version."""
    grouped: Dict[Tuple[str, str, str], List[LegacyEvent]] = {}
    for event in events:
        source, destination = (str(ipaddress.ip_address(address)) for address in (event.source, event.destination))
        direction = direction_of({"saddr": source, "daddr": destination}, flow) or ("error" if same_address(destination, flow.source) else "")
        if direction:
            grouped.setdefault((direction, event.hook, event.table), []).append(event)
    found = []
    for (direction, hook, table), told in grouped.items():
        texts = [(event.chain, *legacy_rule(event, rules.get(event.version, {}))) for event in told]
        # The same packet on its second way through the hook ends where its first one did.
        ends = next((index for index, text in enumerate(texts) if told[index].kind == "policy" or text[2] in ("accept", "drop", "reject")), len(texts) - 1)
        texts = texts[: ends + 1]
        chain, rule, verdict = texts[-1]
        names = [interfaces.get(index, "") for index in (told[0].iif, told[0].oif)]
        family = "ip6 (legacy)" if told[0].version == 6 else "ip (legacy)"
        hop = Hop(direction, namespace, "", names[0], names[1], hook, family, table, chain, tuple(texts), rule, verdict, {})
        found.append((told[0].priority, hop))
    return found


def passages(hops: Iterable[Hop]) -> List[Passage]:
    """Return the journey: what each namespace saw of the packet, in the order of the way.

    Two namespaces tell their stories apart and without a common clock, so the order follows from the way itself: the host's
    bridge before the router, the router, the bridge behind it. A packet sent again is told once.
    """
    found: Dict[Tuple[str, str, str], Passage] = {}
    seen = set()
    for hop in hops:
        key = (hop.direction, hop.namespace, hop.side)
        place = (*key, hop.family, hop.table, hop.hook, hop.chain if hop.dropped else "", hop.observer)
        chain = (*place, hop.rules[0][0] if hop.rules else hop.chain)
        if chain not in seen:
            seen.add(chain)
            found.setdefault(key, Passage(*key, [])).hops.append(hop)
    order = {(HOST, "to router"): 0, (ROUTER, ""): 1, (HOST, "from router"): 2, (HOST, "other"): 3}
    return sorted(found.values(), key=lambda passage: (DIRECTIONS.index(passage.direction), order[passage.namespace, passage.side]))


def add_legacy(found: List[Passage], legacy: Iterable[Tuple[int, Hop]], chains: Mapping[Tuple[str, str, str], Chain]) -> None:
    """Put legacy hops among the others of their namespace, by hook and priority."""

    def place(priority: Optional[int], hop: Hop) -> Tuple[int, int]:
        if priority is None:
            known = chains.get((hop.family, hop.table, hop.rules[0][0] if hop.rules else hop.chain))
            priority = known.priority if known else 0
        # br_netfilter shows a packet to the host's hooks from within the bridge's.
        return (HOOKS.index(hop.hook) if hop.hook in HOOKS else len(HOOKS), -1000 if hop.family == "bridge" else priority)

    for priority, hop in legacy:
        passage = next((item for item in found if (item.direction, item.namespace) == (hop.direction, hop.namespace)), None)
        if passage is None:
            continue
        at = next((index for index, other in enumerate(passage.hops) if place(None, other) > place(priority, hop)), len(passage.hops))
        passage.hops.insert(at, hop._replace(side=passage.side))


def without_doubles(found: Iterable[Passage]) -> List[Hop]:
    """Return the journey's hops without those observers that say no more than the chains of others at the same hook."""
    hops = []
    for passage in found:
        told = {hop.hook for hop in passage.hops if not hop.observer}
        bridged = {hop.hook for hop in passage.hops if hop.observer and hop.family == "bridge"}
        hops += [hop for hop in passage.hops if not hop.observer or hop.family == "bridge" or hop.hook not in told | bridged]
    return hops


# --- the text -------------------------------------------------------------------------------------------------------------


def shorten(text: str) -> str:
    """Return a rule that fits into a line."""
    return text if len(text) <= _RULE_WIDTH else text[: _RULE_WIDTH - 1] + "…"


def hop_dictionary(number: int, hop: Hop) -> Dict[str, Any]:
    """Return a hop as data for the module's answer."""
    rules = [{"chain": chain, "rule": rule, "verdict": verdict} for chain, rule, verdict in hop.rules]
    names = ("direction", "namespace", "iif", "oif", "hook", "family", "table", "chain", "rule", "verdict")
    return dict({name: getattr(hop, name) for name in names}, number=number, rules=rules, observer=hop.observer)


def _interfaces(hop: Hop) -> str:
    return " > ".join(name for name in (hop.iif or "-", hop.oif) if name)


def _row(number: int, hop: Hop) -> Tuple[str, ...]:
    """Return the columns of a hop."""
    if hop.observer:
        place = "(bridge)" if hop.family == "bridge" else "-"
        return (str(number), hop.namespace, _interfaces(hop), place, f"{hop.hook}: {_MARKS[hop.hook]}", "", "")
    verdict = hop.verdict.upper() if hop.dropped else hop.verdict or "continue"
    return (str(number), hop.namespace, _interfaces(hop), f"{hop.family} {hop.table}", f"{hop.hook}: {hop.chain}", shorten(hop.rule), verdict)


_TITLES = {"request": "there", "reply": "back", "error": "an ICMP error to the sender"}
_COLUMNS = ("hop", "namespace", "interfaces", "table", "hook: chain", "rule", "verdict")


def journey_lines(hops: List[Hop], flow: Flow) -> List[str]:
    """Return the table of hops, a paragraph for each direction."""
    rows = [(hop.direction, _row(number, hop)) for number, hop in enumerate(hops, 1)]
    if not rows:
        return ["no hook of the host or of the router saw the packet"]
    widths = [max(len(row[column]) for row in [_COLUMNS] + [row for _direction, row in rows]) for column in range(len(_COLUMNS))]

    def line(cells: Tuple[str, ...]) -> str:
        return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths)).rstrip()

    lines = [line(_COLUMNS)]
    for direction in DIRECTIONS:
        there = [line(row) for way, row in rows if way == direction]
        if there:
            ends = f"{flow.source} -> {flow.destination}" if direction == "request" else f"{flow.destination} -> {flow.source}" if direction == "reply" else f"-> {flow.source}"
            lines += [f"-- {_TITLES[direction]}: {ends}", *there]
    return lines
