# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What packet_trace adds to a network namespace: rules that mark one flow, and chains that show which hooks it reached.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
Pure functions. Loading the rules, and owning them, is the module's work.
"""

from __future__ import annotations

import ipaddress
from typing import List, NamedTuple, Optional

TABLE = "dn42_trace"
# Before everything that can drop, firewalld's and iptables' raw tables included; after defragmentation (-400).
EARLY = -350
# After everything that can drop; what is seen here has passed its hook.
LATE = 350
# In wait mode the flow is the user's own and may be a download.
WAIT_LIMIT = "limit rate 50/second burst 20 packets"
PROTOCOLS = ("icmp", "udp", "tcp")
_ERRORS = {4: "destination-unreachable, time-exceeded, parameter-problem", 6: "destination-unreachable, packet-too-big, time-exceeded, parameter-problem"}
# Where, behind the eight bytes of an ICMP error's header, the packet it is about has its destination: offset and length in bits.
_QUOTED_DESTINATION = {4: (64 + 128, 32), 6: (64 + 192, 128)}


class Flow(NamedTuple):
    """The packets that are traced.

    `ident` is the ICMP identifier or the source port of our probe, None for any; `port` the destination's port, None for any;
    `protocol` one of PROTOCOLS, None for any.
    """

    source: str
    destination: str
    protocol: Optional[str]
    ident: Optional[int]
    port: Optional[int]

    @property
    def version(self) -> int:
        """4 or 6."""
        return ipaddress.ip_address(self.destination).version

    @property
    def family(self) -> str:
        """nft's word for the family in a match, ``ip`` or ``ip6``."""
        return "ip6" if self.version == 6 else "ip"

    @property
    def exact(self) -> bool:
        """Whether this is one packet of ours and its answer."""
        return self.ident is not None


def _icmp(flow: Flow) -> str:
    return "icmpv6" if flow.version == 6 else "icmp"


def _transport(flow: Flow, reply: bool) -> str:
    """The part of a match behind the addresses."""
    if flow.protocol is None:
        return ""
    if flow.protocol == "icmp":
        if not flow.exact:
            return f"meta l4proto {'ipv6-icmp' if flow.version == 6 else 'icmp'}"
        return f"{_icmp(flow)} type echo-{'reply' if reply else 'request'} {_icmp(flow)} id {flow.ident}"
    ports = [(("dport", "sport")[reply], flow.port), (("sport", "dport")[reply], flow.ident)]
    parts = [f"{flow.protocol} {name} {number}" for name, number in ports if number is not None]
    if flow.protocol == "tcp" and flow.exact:
        # The opening of the connection is enough to see the way.
        parts.append("tcp flags & (syn | rst) != 0x0")
    return " ".join(parts) or f"meta l4proto {flow.protocol}"


def matches(flow: Flow) -> List[str]:
    """Return nft matches for the request, the reply, and the ICMP errors that answer the request."""
    there = f"{flow.family} saddr {flow.source} {flow.family} daddr {flow.destination} {_transport(flow, False)}"
    back = f"{flow.family} saddr {flow.destination} {flow.family} daddr {flow.source} {_transport(flow, True)}"
    offset, length = _QUOTED_DESTINATION[flow.version]
    quoted = f"@th,{offset},{length} {int(ipaddress.ip_address(flow.destination)):#x}"
    error = f"{flow.family} daddr {flow.source} {_icmp(flow)} type {{ {_ERRORS[flow.version]} }} {quoted}"
    return [there.strip(), back.strip(), error]


def commands(flow: Flow, marker_port: int, family: str = "inet") -> List[str]:
    """Return nft commands that make our table; ``family`` is ``inet`` or ``bridge``.

    The table belongs to the process that loads it: the kernel removes it when that process ends, however it ends.
    The marker is a datagram of ours to the namespace's own loopback: what the monitor prints after it happened after it. It is
    dropped by the rule that marks it, so nobody else ever sees it.
    """
    limit = "" if flow.exact else f"{WAIT_LIMIT} "
    table = f"{family} {TABLE}"
    marking = [f"{match} {limit}meta nftrace set 1" for match in matches(flow)]
    entry = ["prerouting"] + (["output"] if family == "inet" else [])
    hooks = [(hook, EARLY) for hook in (*entry, "forward")] + [(hook, LATE) for hook in ("input", "postrouting")]
    lines = [f"add table {table} {{ flags owner; }}"]
    lines += [f"add chain {table} {hook} {{ type filter hook {hook} priority {priority}; policy accept; }}" for hook, priority in hooks]
    if family == "inet":
        lines.append(f'add rule {table} output oifname "lo" ip daddr 127.0.0.1 udp dport {marker_port} meta nftrace set 1 drop')
    lines += [f"add rule {table} {chain} {rule}" for chain in entry for rule in marking]
    return lines
