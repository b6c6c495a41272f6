# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A lab's Internet: a bridge in a network namespace of its own, one veth per host, a guarded way out."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import pathlib
import shutil
import signal
import socket
import urllib.parse
from collections.abc import Iterable

from .facts import GATEWAY_NUMBER, HOSTS, INTERNET_IPV4, INTERNET_IPV6, NETNS_DIRECTORY, Host
from .machine import nameservers
from .shell import in_netns, output, run

BRIDGE = "internet"
UPLINKS = [f"100.100.{number}" for number in range(256)]  # a /30 of each, chosen when free

# Networks that are never reachable outside of a lab, whatever routes a test gets wrong: DN42, its
# neighbours, documentation and link-local space.
KEPT_INSIDE = (
    "10.100.0.0/14", "10.127.0.0/16", "169.254.0.0/16", "172.20.0.0/14", "172.31.0.0/16", "192.0.2.0/24",
    "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3",
)  # fmt: skip


def netns_name(lab: str, host: str) -> str:
    """Return the name of a host's network namespace; 'internet' is the bridge's."""
    return f"{lab}-{host}"


def uplink_name(lab: str) -> str:
    """Return the lab's only interface in the machine's own namespace."""
    return f"lab-{lab}"


def table_name(lab: str) -> str:
    """Return the name of the lab's nftables table in the machine's own namespace."""
    return f"dn42-lab-{lab}"


def proxy() -> str:
    """Return the HTTP proxy the machine is told to use, or an empty string."""
    return os.environ.get("http_proxy") or os.environ.get("HTTP_PROXY") or ""


def netns_exists(name: str) -> bool:
    """Tell whether a namespace is there and alive (after a reboot only an empty file is)."""
    path = NETNS_DIRECTORY / name
    if not path.exists():
        return False
    return run(["nsenter", f"--net={path}", "true"], check=False).returncode == 0


def _make_netns(name: str) -> None:
    if (NETNS_DIRECTORY / name).exists() and not netns_exists(name):
        (NETNS_DIRECTORY / name).unlink()
    if not netns_exists(name):
        run(["ip", "netns", "add", name])
    run(in_netns(name, "ip", "link", "set", "lo", "up"))


def delete_netns(name: str) -> None:
    """End what runs in a namespace (connections into the lab) and remove it with its interfaces."""
    if netns_exists(name):
        for pid in output(["ip", "netns", "pids", name], check=False).split():
            try:
                os.kill(int(pid), signal.SIGKILL)
            except ProcessLookupError:
                continue
        run(["ip", "netns", "del", name])
    (NETNS_DIRECTORY / name).unlink(missing_ok=True)


def _links(netns: str) -> set[str]:
    listed = json.loads(output(in_netns(netns, "ip", "-json", "link", "show")) or "[]")
    return {link["ifname"] for link in listed if "ifname" in link}


def _sysctl(netns: str, **values: int) -> None:
    """Set sysctls in a namespace; keys are paths below /proc/sys with '__' for '/'."""
    for key, value in values.items():
        path = f"/proc/sys/{key.replace('__', '/')}"
        run(in_netns(netns, "sh", "-c", f"test ! -e {path} || echo {value} > {path}"))


def _addresses(number: int) -> tuple[str, str]:
    return f"{INTERNET_IPV4}.{number}/24", f"{INTERNET_IPV6}:{number}/64"


def _add_addresses(netns: str, interface: str, number: int) -> None:
    for address in _addresses(number):
        flags = ["nodad"] if ":" in address else []
        run(in_netns(netns, "ip", "address", "replace", address, "dev", interface, *flags))


def make_internet(lab: str, uplink: str, sources: Iterable[str]) -> None:
    """Make the lab's Internet and its way out; safe to repeat.

    `sources` are the names of the servers that packages come from.
    """
    netns = netns_name(lab, "internet")
    _make_netns(netns)
    if BRIDGE not in _links(netns):
        run(in_netns(netns, "ip", "link", "add", BRIDGE, "type", "bridge", "forward_delay", "0"))
    _sysctl(
        netns,
        net__ipv4__ip_forward=1,
        net__ipv6__conf__all__forwarding=1,  # without a route out: IPv6 fails at once, not after a timeout
    )
    _bridge_filter_off(netns)
    _sysctl(netns, net__ipv4__neigh__internet__proxy_delay=0)
    _add_addresses(netns, BRIDGE, GATEWAY_NUMBER)
    run(in_netns(netns, "ip", "link", "set", BRIDGE, "up"))
    _make_uplink(lab, netns, uplink)
    _open(netns, uplink, resolve(sources))
    run(["nft", "-f", "-"], stdin=outside_rules(table_name(lab), uplink_name(lab), uplink).encode())


def _bridge_filter_off(netns: str) -> None:
    """Bridged frames are the Internet's; the rules below are for what leaves it."""
    for name in ("iptables", "ip6tables", "arptables"):
        path = f"/proc/sys/net/bridge/bridge-nf-call-{name}"
        run(in_netns(netns, "sh", "-c", f"test ! -e {path} || echo 0 > {path}"))


def _make_uplink(lab: str, netns: str, uplink: str) -> None:
    outside = uplink_name(lab)
    if "uplink" not in _links(netns) or not pathlib.Path(f"/sys/class/net/{outside}").exists():
        run(["ip", "link", "del", outside], check=False)
        run(["ip", "link", "add", outside, "type", "veth", "peer", "name", "uplink", "netns", netns])
    run(["ip", "address", "replace", f"{uplink}.1/30", "dev", outside])
    run(["ip", "link", "set", outside, "up"])
    run(in_netns(netns, "ip", "address", "replace", f"{uplink}.2/30", "dev", "uplink"))
    run(in_netns(netns, "ip", "link", "set", "uplink", "up"))
    run(in_netns(netns, "ip", "route", "replace", "default", "via", f"{uplink}.1"))


def resolve(names: Iterable[str]) -> list[str]:
    """Return the IPv4 addresses of these names; one that has none now is left out."""
    found = set()
    for name in names:
        with contextlib.suppress(OSError):
            found.update(info[4][0] for info in socket.getaddrinfo(name, 80, socket.AF_INET))
    return sorted(found)


def _open(netns: str, uplink: str, sources: Iterable[str]) -> None:
    """Set what may leave, and how: a package source may have an address out of the lab's own range
    (a network whose resolver answers with private or documentation addresses)."""
    run(in_netns(netns, "nft", "-f", "-"), stdin=inside_rules(nameservers(), proxy(), sources).encode())
    own = {host.ipv4 for host in HOSTS.values()}
    run(in_netns(netns, "ip", "neigh", "flush", "proxy"), check=False)
    for address in sources:
        if address.startswith(f"{INTERNET_IPV4}.") and address not in own:
            run(in_netns(netns, "ip", "route", "replace", address, "via", f"{uplink}.1"))
            run(in_netns(netns, "ip", "neigh", "replace", "proxy", address, "dev", BRIDGE))


def inside_rules(resolvers: Iterable[str], proxy_url: str, sources: Iterable[str]) -> str:
    """Return the rules of the lab's Internet: out go questions to the resolvers, HTTP and HTTPS.

    Package sources may be in a range that is otherwise kept inside.
    """
    allowed = ", ".join(sorted(sources)) or "0.0.0.0"
    ports = {80, 443}
    if proxy_url:
        ports.add(urllib.parse.urlsplit(proxy_url).port or 80)
    web = f"tcp dport {{ {', '.join(map(str, sorted(ports)))} }}"
    origin = f"iifname {BRIDGE} oifname uplink ip saddr {INTERNET_IPV4}.0/24"
    return f"""\
table ip lab
delete table ip lab
table ip lab {{
  chain forward {{
    type filter hook forward priority filter; policy drop;
    ct state established,related accept
    {origin} meta l4proto {{ tcp, udp }} th dport 53 ip daddr {{ {", ".join(sorted(resolvers))} }} accept
    {origin} {web} ip daddr {{ {allowed} }} accept
    ip daddr {{ {", ".join(KEPT_INSIDE)} }} reject with icmp type net-unreachable
    {origin} {web} accept
    reject with icmp type admin-prohibited
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat;
    oifname uplink masquerade
  }}
}}
"""


def outside_rules(table: str, interface: str, uplink: str) -> str:
    """Return the machine's rules for one lab: translate what comes out, let nothing new in."""
    return f"""\
table ip {table}
delete table ip {table}
table ip {table} {{
  chain forward {{
    type filter hook forward priority filter; policy accept;
    oifname "{interface}" ct state established,related accept
    oifname "{interface}" drop
  }}
  chain input {{
    type filter hook input priority filter; policy accept;
    iifname "{interface}" ct state established,related accept
    iifname "{interface}" meta l4proto {{ tcp, udp }} th dport 53 accept
    iifname "{interface}" drop
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat;
    ip saddr {uplink}.0/30 oifname != "{interface}" masquerade
  }}
}}
"""


def choose_uplink(taken: Iterable[str]) -> str:
    """Return the first three octets of a /30 that no other lab and no route of the machine uses."""
    routes = output(["ip", "-4", "-json", "route", "show", "table", "all"])
    used = []
    for route in json.loads(routes or "[]"):
        destination = route.get("dst", "default")
        if destination != "default":
            used.append(ipaddress.ip_network(destination, strict=False))
    busy = set(taken)
    for candidate in UPLINKS:
        subnet = ipaddress.ip_network(f"{candidate}.0/30")
        if candidate not in busy and not any(subnet.overlaps(network) for network in used):
            return candidate
    raise RuntimeError("100.100.0.0/16 has no free subnet left")


def make_host(lab: str, host: Host) -> None:
    """Make a host's network namespace with its one interface, eth0; safe to repeat."""
    netns, internet = netns_name(lab, host.name), netns_name(lab, "internet")
    _make_netns(netns)
    if "eth0" not in _links(netns):
        run(in_netns(internet, "ip", "link", "del", host.name), check=False)
        pair = ["ip", "link", "add", host.name, "type", "veth", "peer", "name", "eth0", "address", host.mac, "netns", netns]
        run(in_netns(internet, *pair))
    run(in_netns(internet, "ip", "link", "set", host.name, "master", BRIDGE, "up"))
    _sysctl(netns, net__ipv6__conf__eth0__accept_dad=0)
    _add_addresses(netns, "eth0", host.number)
    run(in_netns(netns, "ip", "link", "set", "eth0", "up"))
    for gateway in _addresses(GATEWAY_NUMBER):
        family = "-6" if ":" in gateway else "-4"
        route = ["route", "replace", "default", "via", gateway.split("/", maxsplit=1)[0], "dev", "eth0"]
        run(in_netns(netns, "ip", family, *route))


def delete_internet(lab: str) -> None:
    """Remove a lab's Internet."""
    delete_netns(netns_name(lab, "internet"))


def labs_with_rules() -> list[str]:
    """Return the names of the labs that have a table in the machine's own network namespace."""
    if not shutil.which("nft"):
        return []
    tables = output(["nft", "list", "tables", "ip"]).split()
    prefix = table_name("")
    return [table[len(prefix) :] for table in tables if table.startswith(prefix)]


def remove_uplink(lab: str) -> None:
    """Remove what the lab has in the machine's own network namespace."""
    run(["ip", "link", "del", uplink_name(lab)], check=False)
    if shutil.which("nft"):
        run(["nft", "delete", "table", "ip", table_name(lab)], check=False)
