# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A foreign network for the policy laboratory: it announces what a test wants, good or bad, and accepts everything."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Announcement:
    """A route that the foreign network tells us. `path` comes behind its own ASN, the origin last."""

    prefix: str
    path: tuple[int, ...] = ()
    communities: tuple[tuple[int, int], ...] = ()
    large: tuple[tuple[int, int, int], ...] = ()

    def statement(self) -> str:
        """For BIRD's static protocol."""
        actions = [f"bgp_path.prepend({asn});" for asn in reversed(self.path)]
        actions += [f"bgp_community.add(({left},{right}));" for left, right in self.communities]
        actions += [f"bgp_large_community.add(({one},{two},{three}));" for one, two, three in self.large]
        return f"route {self.prefix} unreachable {{ {' '.join(actions)} }};" if actions else f"route {self.prefix} unreachable;"


def configuration(asn: int, router_id: str, announcements: list[Announcement], sessions: str) -> dict[str, str]:
    """BIRD's configuration of the foreign network; `sessions` are its BGP protocols, made from the template `to_us`."""
    families = {"ipv4": [item for item in announcements if ":" not in item.prefix], "ipv6": [item for item in announcements if ":" in item.prefix]}
    static = "".join(f"protocol static announced_{name} {{ {name}; {' '.join(item.statement() for item in few)} }}\n" for name, few in families.items())
    text = f"""
log stderr all;
router id {router_id};
protocol device {{ scan time 10; }}
protocol kernel {{ ipv4 {{ export filter {{ if source = RTS_STATIC then reject; krt_prefsrc = {router_id}; accept; }}; }}; }}
protocol kernel {{ ipv6 {{ export where source != RTS_STATIC; }}; }}
{static}
template bgp to_us {{
  local as {asn};
  connect delay time 1;
  connect retry time 2;
  error wait time 1, 5;
  enable extended messages on;
}}
{sessions}
"""
    return {"bird.conf": text}


IPV4 = "ipv4 { import all; export where source = RTS_STATIC; };"
IPV6 = "ipv6 { import all; export where source = RTS_STATIC; };"
IPV4_EXTENDED = "ipv4 { import all; export where source = RTS_STATIC; extended next hop on; };"
BOTH = f"{IPV4_EXTENDED} {IPV6}"


def session(name: str, source: str, neighbor: str, interface: str, their_asn: int, channels: str = BOTH, options: str = "") -> str:
    """A session with us over a link-local address (or any other when `interface` is empty)."""
    zone = f" % '{interface}'" if interface else ""
    return f"protocol bgp {name} from to_us {{ source address {source}; neighbor {neighbor}{zone} as {their_asn}; {options} {channels} }}\n"
