# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What became of a traced packet, and why: a table of recognised faults, each with its cause and its cure.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
Pure functions. The first fault of the table that applies is the answer, so the special ones stand before the general.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional

from ansible_collections.dn42.compose.plugins.module_utils._trace_journey import HOST, ROUTER, Hop, Passage, same_address
from ansible_collections.dn42.compose.plugins.module_utils._trace_rules import Flow

GUARD, ROUTER_TABLE, FIREWALLD = "dn42_guard", "dn42_router", "firewalld"
TUNNELS = ("wg-", "in-")


class Situation:
    """What is known when the packet's journey is over.

    `facts` come from the module: ``answered``, ``bridge``, ``service``, ``unreachable`` (why the sender's kernel refused to
    send, empty if it did not), ``source_route`` (``gateway`` or None, ``local`` for a neighbour; empty for the router and for
    senders elsewhere), ``router_addresses``, ``forwarding`` (sysctl name to number), ``rp_filter``, ``route_there`` and
    ``route_back`` (text, empty for none), ``waited`` (seconds, 0 for a probe).
    """

    def __init__(self, flow: Flow, found: List[Passage], facts: Mapping[str, Any]) -> None:
        self.flow, self.passages, self.facts = flow, found, facts
        hops = [hop for passage in found for hop in passage.hops]
        self.drop: Optional[Hop] = next((hop for hop in hops if hop.dropped), None)
        self.error: Optional[Hop] = next((hop for hop in hops if hop.direction == "error"), None)
        way = [passage for passage in found if passage.direction != "error"]
        self.lost: Optional[Passage] = None if self.drop else next((passage for passage in way if not passage.complete), None)
        self.end: Optional[Passage] = way[-1] if way else None
        self.answered = bool(facts.get("answered"))

    def rule_has(self, *words: str) -> bool:
        """Whether the rule that dropped the packet has all these words."""
        return self.drop is not None and all(word in self.drop.rule for word in words)

    def dropped_in(self, namespace: str, table: str, chain: str = "") -> bool:
        """Whether the packet was dropped in this table, and chain if one is given."""
        drop = self.drop
        return drop is not None and drop.namespace == namespace and drop.table == table and chain in ("", drop.chain)

    def bridged(self) -> bool:
        """Whether the dropped packet only crosses our bridge."""
        return self.drop is not None and self.drop.iif == self.facts["bridge"]

    def lost_in(self, namespace: str) -> bool:
        """Whether the packet vanished in a namespace before it was forwarded there, without a rule that dropped it."""
        return self.lost is not None and self.lost.namespace == namespace and not self.lost.hooks & {"forward", "input", "output"}

    def forwarding_off(self) -> List[str]:
        """Names of the router's forwarding sysctls that are off and matter for the flow."""
        return sorted(name for name, value in self.facts.get("forwarding", {}).items() if value != 1)

    def ended_at(self, direction: str, namespace: str, side: str = "") -> bool:
        """Whether the last that was seen of the packet is that it left, or was delivered, there."""
        end = self.end
        return self.drop is None and self.lost is None and end is not None and (end.direction, end.namespace, end.side) == (direction, namespace, side)

    def by_tunnel(self) -> bool:
        """Whether the last that was seen of the packet is that it left by a tunnel."""
        return self.ended_at("request", ROUTER) and self.end is not None and self.end.oif.startswith(TUNNELS)

    def error_is(self, *types: str) -> bool:
        """Whether an ICMP error of one of these types came back."""
        return self.error is not None and self.error.packet.get("type") in types

    def wrong_gateway(self) -> bool:
        """Whether the sender's way to the destination does not lead to the router."""
        route = self.facts.get("source_route", {})
        if not route or route.get("local") or any(item.direction == "request" and (item.side == "to router" or item.namespace == ROUTER) for item in self.passages):
            return False
        gateway = route.get("gateway")
        return gateway is None or not any(same_address(gateway, address) for address in self.facts.get("router_addresses", []))

    def words(self) -> Dict[str, str]:
        """Return what the sentences of the table may name."""
        hop = self.drop or self.error
        place = self.lost or self.end
        last = place.hops[-1] if place and place.hops else hop
        lost_hooks = ", ".join(hook for hook in ("prerouting", "forward", "postrouting") if place and hook in place.hooks)
        table = f"{hop.family} {hop.table}" if hop else ""
        return {
            "bridge": str(self.facts["bridge"]),
            "chain": hop.chain if hop else "",
            "destination": self.flow.destination,
            "error_from": self.error.packet.get("saddr", "") if self.error else "",
            "error_type": " ".join(filter(None, (self.error.packet.get("type", ""), self.error.packet.get("code", "")))) if self.error else "",
            "gateway": str(self.facts.get("source_route", {}).get("gateway") or "none"),
            "hook": lost_hooks or (last.hook if last else ""),
            "iif": (hop.iif if self.drop and hop else place.iif if place else "") or "-",
            "ip": "IPv6" if self.flow.version == 6 else "IPv4",
            "namespace": (hop.namespace if self.drop and hop else place.namespace if place else "sender"),
            "oif": place.oif if place else "",
            "packet_source": (self.drop.packet.get("saddr", "") if self.drop else "")
            or (self.flow.destination if self.drop and self.drop.direction == "reply" else self.flow.source),
            "router_addresses": ", ".join(self.facts.get("router_addresses", [])) or "none",
            "rule": hop.rule if hop else "",
            "service": str(self.facts["service"]),
            "sysctls": ", ".join(self.forwarding_off()),
            "source": self.flow.source,
            "table": table,
            "there": str(self.facts.get("route_there") or "none"),
            "toward": self.flow.source if place and place.direction == "reply" else self.flow.destination,
            "waited": str(self.facts.get("waited", 0)),
            "unreachable": str(self.facts.get("unreachable", "")),
        }


class Fault(NamedTuple):
    """A fault that is recognised. `cause` and `cure` are a sentence each, with the names of Situation.words()."""

    name: str
    applies: Callable[[Situation], bool]
    cause: str
    cure: str


def _docker_isolation(s: Situation) -> bool:
    return s.drop is not None and s.drop.namespace == HOST and "ISOLATION" in s.drop.chain


def _docker_direct(s: Situation) -> bool:
    drop = s.drop
    if drop is None or drop.namespace != HOST or drop.table == FIREWALLD:
        return False
    raw = drop.table in ("raw", "docker-bridges") and drop.hook == "prerouting" and s.rule_has("daddr")
    return raw or drop.chain.startswith(("DOCKER", "raw-PREROUTING"))


FAULTS = (
    # --- a rule dropped it ----------------------------------------------------------------------------------------------
    Fault(
        "firewalld IPv6_rpfilter",
        lambda s: s.bridged() and ((s.dropped_in(HOST, FIREWALLD) and s.rule_has("fib saddr", "missing")) or s.rule_has("rpfilter", "--invert")),
        "This is firewalld's reverse-path check (IPv6_rpfilter): it asks whether the host itself would answer {packet_source} through {iif}, and for a packet that only crosses"
        " the bridge it would not; br_netfilter shows bridged packets to the host's rules (net.bridge.bridge-nf-call-ip6tables=1).",
        "Run site.yml for this node, its firewall role takes care of it; by hand, set IPv6_rpfilter=no in /etc/firewalld/firewalld.conf and run firewall-cmd --reload.",
    ),
    Fault(
        "guard, reverse path",
        lambda s: s.dropped_in(HOST, GUARD) and s.rule_has("fib saddr"),
        "This is the guard's reverse-path check, which stands in for firewalld's on every interface but {bridge}: the host would not answer {packet_source} through {iif}.",
        "Correct the host's route to {packet_source}, or find out who sends with a foreign address.",
    ),
    Fault(
        "guard, to the host",
        lambda s: s.dropped_in(HOST, GUARD, "from_dn42"),
        "This is the guard: the host is not in DN42, and nothing from {bridge} reaches a service of the host, the bridge's own address included.",
        "Nothing to mend if that is meant; run what DN42 shall reach as a service in a container on {bridge}.",
    ),
    Fault(
        "sender's default route",
        lambda s: s.wrong_gateway() and (s.drop is None or s.dropped_in(HOST, GUARD, "forward")),
        "The way from {service} to {destination} leads to the gateway {gateway}, and the router is {router_addresses}.",
        "Recreate the container (`docker compose -f /opt/dn42/compose.yaml up -d --force-recreate {service}`): Docker gives it the router as default gateway; a route that was set by hand has to go.",
    ),
    Fault(
        "guard, through the host",
        lambda s: s.dropped_in(HOST, GUARD),
        "This is the guard: the host forwards nothing between {bridge} and its other networks.",
        "Reach {destination} through the router; if the packet should have gone there, the sender's route is wrong (it goes by {gateway}).",
    ),
    Fault(
        "router, own addresses from a peer",
        lambda s: s.dropped_in(ROUTER, ROUTER_TABLE) and s.rule_has("saddr @own_"),
        "This is the router's own filter: {packet_source} is an address of this network, and it came in from a peer by {iif}, so it is forged, or the peer sends back what it got.",
        "Ask the peer behind {iif}; between nodes of your own, packets come by in-… tunnels, so look why this one did not.",
    ),
    Fault(
        "router, to the router itself",
        lambda s: s.dropped_in(ROUTER, ROUTER_TABLE) and s.drop is not None and s.drop.hook == "input",
        "This is the router's own filter: the router answers ping, BGP, BFD and Babel, and nothing else.",
        "Nothing to mend if that is meant; ask a service of the node, not the router's address.",
    ),
    Fault(
        "router, not between DN42 addresses",
        lambda s: s.dropped_in(ROUTER, ROUTER_TABLE),
        "This is the router's own filter: it forwards from DN42 to DN42 only, and {source} or {destination} is outside of the prefixes that it takes for DN42.",
        "Use addresses of DN42 on both ends; compare with `nft list table inet dn42_router` in the router.",
    ),
    Fault(
        "Docker, isolation of networks",
        _docker_isolation,
        "This is Docker's isolation: its networks do not reach each other through the host.",
        "Attach the container to the network dn42 (make it a service of the node) instead of going through the host.",
    ),
    Fault(
        "Docker, direct access to a container",
        _docker_direct,
        "This is Docker's protection of containers: a packet to a container's address that does not come from its own bridge, or to a port that is not published, is dropped.",
        "Let the packet come through the router on {bridge}; if it should have, the sender's route is wrong (it goes by {gateway}).",
    ),
    Fault(
        "firewalld, zone",
        lambda s: s.dropped_in(HOST, FIREWALLD),
        "This is firewalld: the zone of {iif} does not let this packet pass.",
        "`firewall-cmd --get-zone-of-interface={iif}` must say docker for {bridge}; if it does not, `systemctl restart docker` puts it back, and another zone that binds it permanently has to go.",
    ),
    Fault(
        "host, forwarding policy",
        lambda s: s.drop is not None and s.drop.namespace == HOST and s.drop.hook == "forward",
        "A rule or the policy of the host's own {table} refuses to forward packets, those that only cross {bridge} included.",
        "Allow {bridge} to {bridge} there, or find the program that owns table {table} and tell it that.",
    ),
    Fault(
        "another rule",
        lambda s: s.drop is not None,
        "A rule of table {table} in the {namespace}'s namespace drops the packet; it is none that this collection or a known program makes.",
        "Find out who made chain {chain} of table {table}, and let packets between {source} and {destination} pass there.",
    ),
    # --- it vanished, and no rule did it --------------------------------------------------------------------------------
    Fault(
        "router, forwarding off",
        lambda s: s.lost_in(ROUTER) and bool(s.forwarding_off()),
        "Forwarding is off in the router's network namespace ({sysctls} is not 1): the packet came in by {iif}, passed prerouting and was thrown away before the hook forward; no rule drops"
        " it. A new namespace does not inherit this setting from the host.",
        "Run site.yml for this node, or `docker compose -f /opt/dn42/compose.yaml up -d --force-recreate router`: the router's container sets it when it starts. Setting it on the host does not help.",
    ),
    Fault(
        "router, IPv4 reverse path",
        lambda s: s.lost_in(ROUTER) and s.flow.version == 4 and s.facts.get("rp_filter", 0) == 1,
        "The router's namespace checks the reverse path of IPv4 (rp_filter=1 for all or for {iif}): the packet came in by {iif}, and the answer to it would go another way.",
        "Run site.yml for this node, or recreate the router's container: it starts with net.ipv4.conf.all.rp_filter=0 and .default.rp_filter=0.",
    ),
    Fault(
        "router, no route",
        lambda s: s.lost_in(ROUTER) and s.lost is not None and not s.facts.get("route_back" if s.lost.direction == "reply" else "route_there"),
        "The router has no route to {toward}: it came in by {iif}, and BIRD has put no route to it into the kernel, so nobody announces it to you, or a filter refused it.",
        "`docker exec dn42-router birdc show route for {toward} all` and `birdc show protocols` tell: is a session down, or is the prefix not announced?",
    ),
    Fault(
        "router, no route",
        lambda s: bool(s.facts.get("unreachable")) and not s.facts.get("source_route"),
        "The router has no route to {destination} ({unreachable}): BIRD has put none into the kernel, so nobody announces it to you, or a filter refused it.",
        "`docker exec dn42-router birdc show route for {destination} all` and `birdc show protocols` tell: is a session down, or is the prefix not announced?",
    ),
    Fault(
        "packet too big",
        lambda s: s.error_is("packet-too-big") or (s.error_is("destination-unreachable") and "frag-needed" in s.words()["error_type"]),
        "{error_from} says that the packet is too big for the next link (MTU of a tunnel: 1420 as a rule).",
        "TCP through the router is clamped to fit (MSS); for other traffic the sender must heed this error, so let ICMP pass everywhere, or lower its MTU.",
    ),
    Fault(
        "time exceeded",
        lambda s: s.error_is("time-exceeded"),
        "{error_from} says that the packet's hop limit is used up: it travels in a circle somewhere on the way.",
        "Look at the path (`docker exec dn42-router birdc show route for {destination} all`) and tell the operator of {error_from}.",
    ),
    Fault(
        "refused on the way",
        lambda s: s.error is not None,
        "{error_from} answers with an ICMP error: {error_type}.",
        "If that is {destination} itself, nothing listens there; else ask the operator of {error_from}.",
    ),
    Fault(
        "no answer through the tunnel",
        lambda s: s.by_tunnel(),
        "The packet left by {oif} ({there}), and no answer came back through any tunnel: the fault is beyond this node.",
        "`docker exec dn42-router wg show {oif}` shows whether the tunnel has a fresh handshake; if it has, ask the peer whether it has a route back to {source}, and whether {destination} answers at all.",
    ),
    Fault(
        "nobody answers on the bridge",
        lambda s: s.ended_at("request", HOST, "from router") or s.ended_at("request", HOST, "other"),
        "The packet crossed {bridge} toward {destination}, and nothing came back.",
        "Is the container of {destination} running, does it listen there, and does its default route lead to the router?",
    ),
    Fault(
        "the router did not get it",
        lambda s: s.ended_at("request", HOST, "to router"),
        "The packet crossed {bridge} toward the router, and the router never saw it.",
        "`docker compose -f /opt/dn42/compose.yaml restart router`; if that does not help, look at `bridge link` and `bridge fdb show br {bridge}` on the host.",
    ),
    Fault(
        "the answer did not reach the sender",
        lambda s: s.end is not None and s.end.direction == "reply" and s.lost is None,
        "The answer came back as far as the {namespace}'s {oif}, and {service} did not get it.",
        "Look at the sender itself: its own packet filter, its address ({source}), or a second container with the same one.",
    ),
    Fault(
        "vanished",
        lambda s: s.lost is not None,
        "The packet vanished in the {namespace}'s namespace behind {hook}, and no rule dropped it: the kernel itself did, or a driver.",
        "`nstat -az | grep -iE 'discard|noroute|filter'` in that namespace counts the reasons.",
    ),
    Fault(
        "nothing came",
        lambda s: s.end is None and bool(s.facts.get("waited")),
        "In the {waited} s of the trace no packet from {source} to {destination} came to the host's bridge or the router.",
        "Send it while the trace waits, and compare both addresses with those that the sender really uses; from outside, it may be lost before it reaches this node.",
    ),
    Fault(
        "never seen",
        lambda s: s.end is None,
        "The packet did not reach the host's bridge or the router: {service} did not send it, or its interface is down.",
        "Look at the sender: `docker ps`, its address ({source}) and its routes.",
    ),
)


def explain(situation: Situation) -> Optional[Dict[str, str]]:
    """Return name, cause and cure of what is wrong, None when the packet was answered."""
    if situation.answered:
        return None
    fault = next((fault for fault in FAULTS if fault.applies(situation)), None)
    words = situation.words()
    if fault is None:
        return {"name": "no answer", "cause": "No rule dropped the packet, and no answer came.".format(**words), "cure": "Trace from the other end."}
    return {"name": fault.name, "cause": fault.cause.format(**words), "cure": fault.cure.format(**words)}
