# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What keeps a host from being a DN42 node, and how its commands' outputs are read.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
Pure functions: they take what the module dn42.compose.host_facts found and touch nothing.
"""

from __future__ import annotations

import ipaddress
import json
import re
from typing import Any, Callable, Iterable, Mapping

MINIMUM_DOCKER = (24,)
MINIMUM_COMPOSE = (2, 20)
MINIMUM_FREE = 2 * 1024**3  # bytes: images, one release beside the other, logs
# Debian release from which the distribution has Compose v2.
COMPOSE_IN_DEBIAN = 13
# DN42's IPv4 space. Of its IPv6 space only our own prefixes can collide by accident: the rest is fd00::/8, at random.
DN42_IPV4 = ("172.20.0.0/14", "172.31.0.0/16", "10.100.0.0/14", "10.127.0.0/16")
# A socket of ours on the host: the kernel's own has no process.
TUNNEL_PROCESSES = frozenset({None, "wireguard-go"})
OUR_NETWORK = "dn42"
# Where the role docker keeps the interfaces that go on heeding router advertisements while the host forwards.
ACCEPT_RA_FILE = "/etc/sysctl.d/90-dn42-accept-ra.conf"
NO_COMPOSE = "install Docker Engine and docker-compose-plugin from Docker's own repository, or upgrade to Debian 13, then run again"

Network = ipaddress._BaseNetwork
Host = Mapping[str, Any]


class Wanted:
    """What a node is going to need of its host; every part may be missing."""

    def __init__(self, options: Mapping[str, Any] | None) -> None:
        """Read the options as the module takes them. Raises ValueError for a prefix that is none."""
        options = options or {}
        self.userspace = bool(options.get("userspace"))
        self.docker_source: str = options.get("docker_source") or "distro"
        self.bridge: str = options.get("bridge") or "br-dn42"
        self.interfaces: list[str] = sorted(options.get("interfaces") or [])
        self.udp_ports: list[int] = sorted(options.get("udp_ports") or [])
        self.blocks = [ipaddress.ip_network(prefix) for prefix in options.get("blocks") or []]
        self.pools = [ipaddress.ip_network(prefix) for prefix in options.get("pools") or []]


def version_tuple(text: str | None) -> tuple[int, ...]:
    """Return the leading numbers of a version, ``26.1.5+dfsg1`` as ``(26, 1, 5)``; empty for none."""
    found = re.match(r"\s*v?(\d+(?:\.\d+)*)", text or "")
    return tuple(int(part) for part in found.group(1).split(".")) if found else ()


# --- reading ------------------------------------------------------------------------------------------------------------


def parse_os_release(text: str) -> dict[str, Any]:
    """Return id, version, major and codename of an os-release file; version and major are None for a rolling release."""
    values = {}
    for line in text.splitlines():
        key, equals, value = line.strip().partition("=")
        if equals and not key.startswith("#"):
            values[key] = value.strip("\"'")
    version = values.get("VERSION_ID") or None
    numbers = version_tuple(version)
    return {
        "id": values.get("ID", "linux"),
        "like": values.get("ID_LIKE", "").split(),
        "version": version,
        "major": numbers[0] if numbers else None,
        "codename": values.get("VERSION_CODENAME") or None,
        "name": values.get("PRETTY_NAME") or values.get("ID", "linux"),
    }


def parse_ss(text: str) -> list[dict[str, Any]]:
    """Return address, port, process and pid of the UDP sockets in the output of ``ss -Hulnp``, sorted and without repetitions.

    The kernel's own sockets (WireGuard among them) have no process.
    """
    found = set()
    for line in text.splitlines():
        fields = line.split()
        if len(fields) < 5:
            continue
        address, _colon, port = fields[3].rpartition(":")
        if not port.isdigit():
            continue
        owner = re.search(r'users:\(\("([^"]*)",pid=(\d+)', line)
        process, pid = (owner.group(1), int(owner.group(2))) if owner else ("", 0)
        found.add((int(port), address.strip("[]"), process, pid))
    return [{"port": port, "address": address, "process": process or None, "pid": pid or None} for port, address, process, pid in sorted(found)]


def parse_addresses(text: str) -> tuple[list[str], list[dict[str, Any]]]:
    """Return the interface names and the addresses (interface, address, prefix) in the output of ``ip -j addr``."""
    names, addresses = [], []
    for link in json.loads(text or "[]"):
        if not link.get("ifname"):
            continue
        names.append(link["ifname"])
        for item in link.get("addr_info", []):
            if item.get("local"):
                interface = ipaddress.ip_interface(f"{item['local']}/{item['prefixlen']}")
                entry = {"interface": link["ifname"], "address": item["local"], "prefix": str(interface.network)}
                addresses.append(entry)
    return sorted(names), sorted(addresses, key=lambda entry: (entry["interface"], entry["address"]))


def parse_default_routes(text: str, family: str) -> list[dict[str, Any]]:
    """Return gateway, interface and protocol of the default routes in the output of ``ip -j route show default``."""
    routes = []
    for route in json.loads(text or "[]"):
        hops = route.get("nexthops") or [route]
        for hop in hops:
            entry = {"family": family, "gateway": hop.get("gateway"), "interface": hop.get("dev"), "protocol": route.get("protocol")}
            routes.append(entry)
    return sorted(routes, key=lambda entry: (str(entry["interface"]), str(entry["gateway"])))


def parse_accept_ra(text: str) -> list[str]:
    """Return the interfaces in the content of ACCEPT_RA_FILE, sorted."""
    return sorted(set(re.findall(r"^net/ipv6/conf/(\S+)/accept_ra *= *2$", text, re.MULTILINE)))


def ra_interfaces(routes: Iterable[Mapping[str, Any]], kept: Mapping[str, int | None]) -> list[dict[str, Any]]:
    """Return name and accept_ra of the interfaces that have their IPv6 default route from the kernel's router discovery, sorted.

    `kept` is accept_ra (None without the interface) of those that ACCEPT_RA_FILE names: such a one stays while its router is
    silent. With accept_ra=0 a program (networkd, NetworkManager) handles the advertisements, though its routes have protocol
    ra as well; forwarding is nothing to it, and the kernel must not handle them beside it.
    """
    found = dict(kept)
    found.update({route["interface"]: route["accept_ra"] for route in routes if route["family"] == "ipv6" and route["protocol"] == "ra"})
    return [{"name": name, "accept_ra": value} for name, value in sorted(found.items()) if value]


def docker_networks(answer: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return name, driver, project, subnets and bridge (None if it has none) of what Docker's API says of its networks."""
    networks = []
    for item in answer:
        subnets = [part["Subnet"] for part in (item.get("IPAM") or {}).get("Config") or [] if part.get("Subnet")]
        bridge = None
        if item.get("Driver") == "bridge":
            bridge = (item.get("Options") or {}).get("com.docker.network.bridge.name") or f"br-{item['Id'][:12]}"
        networks.append(
            {
                "name": item["Name"],
                "driver": item.get("Driver"),
                "project": (item.get("Labels") or {}).get("com.docker.compose.project"),
                "subnets": sorted(subnets),
                "bridge": bridge,
            }
        )
    return sorted(networks, key=lambda network: network["name"])


# --- judging ------------------------------------------------------------------------------------------------------------


def _system(host: Host, wanted: Wanted) -> Iterable[str]:
    """The distribution, its init system, its disk."""
    if not host["systemd"]:
        yield ("systemd does not run this host: the guard between DN42 and the host, and Docker, are systemd units. Use a host or a virtual machine that boots with systemd.")
    for path, free in sorted(host["disk_free"].items()):
        if free < MINIMUM_FREE:
            yield (
                f"{path} has {free / 1024**3:.1f} GiB free; images and releases need {MINIMUM_FREE // 1024**3} GiB. Free some space"
                " (docker image prune, journalctl --vacuum-size=200M) or enlarge the disk."
            )


def _kernel(host: Host, wanted: Wanted) -> Iterable[str]:
    """IPv6 and the tunnels' device."""
    kernel = host["kernel"]
    if not kernel["ipv6"]:
        yield ("The kernel runs without IPv6 (ipv6.disable=1 or no module): DN42 peers over link-local IPv6. Take ipv6.disable=1 out of the kernel's command line and reboot.")
    if wanted.userspace:
        if not kernel["tun"]:
            yield (
                "/dev/net/tun is not there, and wireguard-go (dn42_router_userspace: true) needs it. Load the module (modprobe tun) or,"
                " in a container or on rented hosts, have TUN/TAP switched on for it."
            )
    elif kernel["wireguard"] == "absent":
        yield (
            f"The kernel {kernel['release']} has no WireGuard. Install the distribution's own kernel (5.6 or newer has it), or set"
            " dn42_router_userspace: true to use wireguard-go, which runs in user space."
        )


def _docker(host: Host, wanted: Wanted) -> Iterable[str]:
    """Docker and Compose: there and new enough, or installable."""
    docker, system = host["docker"], host["distribution"]
    if docker["podman"]:
        yield "The command docker is podman's: podman-docker stands in the way. Remove it and run again."
        return
    complete = docker["installed"] and docker["compose_version"] is not None
    if not complete:
        yield from _not_installed(host, wanted)
    elif wanted.docker_source == "none" and not docker["running"]:
        yield "Docker is installed but does not run, and dn42_docker_source is none: start it (systemctl enable --now docker)."
    if docker["version"] is not None and version_tuple(docker["version"]) < MINIMUM_DOCKER:
        way = NO_COMPOSE if system["id"] == "debian" else "upgrade it, then run again"
        yield f"Docker {docker['version']} is too old: {MINIMUM_DOCKER[0]} or newer is needed; {way}."
    if docker["compose_version"] is not None and version_tuple(docker["compose_version"]) < MINIMUM_COMPOSE:
        needed = ".".join(str(part) for part in MINIMUM_COMPOSE)
        yield f"Docker Compose {docker['compose_version']} is too old: {needed} or newer is needed; upgrade the plugin, then run again."


def _not_installed(host: Host, wanted: Wanted) -> Iterable[str]:
    """Docker or Compose v2 is missing: who could install it."""
    docker, system = host["docker"], host["distribution"]
    what = "Docker" if not docker["installed"] else "Docker Compose v2"
    if wanted.docker_source == "none":
        yield f"{what} is missing, and dn42_docker_source is none: install it, or set dn42_docker_source: distro (Debian 13 and newer)."
    elif system["id"] != "debian":
        yield (
            f"{what} is missing, and this collection installs it only on Debian 13 and newer (this is {system['name']}): install Docker"
            " Engine 24 or newer with Compose 2.20 or newer, then run again."
        )
    elif system["major"] is not None and system["major"] < COMPOSE_IN_DEBIAN:
        yield f"{what} is missing, and Debian {system['major']} has no Compose v2 package: {NO_COMPOSE}."


def _overlapping(prefix: str, networks: Iterable[Network]) -> list[str]:
    """Return those of our prefixes that share addresses with a prefix, as text."""
    other = ipaddress.ip_network(prefix, strict=False)
    return [str(network) for network in networks if network.version == other.version and network.overlaps(other)]


def _foreign_networks(host: Host, wanted: Wanted) -> list[tuple[str, str, str]]:
    """Return (description, prefix, way out) of everything on the host that holds addresses and is not ours."""
    found = []
    bridges = {wanted.bridge}
    for network in host["docker"]["networks"]:
        bridges.add(network["bridge"])
        if network["name"] == OUR_NETWORK or network["bridge"] == wanted.bridge:
            continue
        way = f"Remove it (docker network rm {network['name']}) or recreate it with a subnet outside DN42"
        found += [(f"Docker network {network['name']}", subnet, way) for subnet in network["subnets"]]
    for entry in host["addresses"]:
        if entry["interface"] not in bridges:
            way = "Renumber that interface, or choose other prefixes for the node"
            found.append((f"{entry['address']} on {entry['interface']}", entry["prefix"], way))
    return found


def _overlaps(host: Host, wanted: Wanted) -> Iterable[str]:
    """Addresses that somebody on the host already has."""
    for what, prefix, way in _foreign_networks(host, wanted):
        ours = _overlapping(prefix, wanted.blocks) or _overlapping(prefix, wanted.pools)
        if ours:
            yield f"{what} ({prefix}) overlaps this network's {', '.join(ours)}. {way}."


def _names_and_ports(host: Host, wanted: Wanted) -> Iterable[str]:
    """Interfaces and UDP ports that somebody on the host already has."""
    for name in wanted.interfaces:
        if name in host["interfaces"]:
            yield (
                f"The interface {name} of a declared tunnel exists on the host already. If it is a leftover, remove it (ip link delete"
                f" {name}, and what makes it at boot); else give the tunnel another name."
            )
    for socket in host["udp"]:
        port = socket["port"]
        ours = port in host["own_udp_ports"] and socket["process"] in TUNNEL_PROCESSES
        if port in wanted.udp_ports and not ours:
            owner = f"{socket['process']} (pid {socket['pid']})" if socket["process"] else "the kernel (a WireGuard interface?)"
            yield (f"UDP port {port} of a declared tunnel is in use by {owner} on {socket['address']}. Stop that, or give the tunnel another listen_port.")


def _zones(host: Host, wanted: Wanted) -> Iterable[str]:
    """Docker refuses to start when one of its bridges is bound to another zone than its own."""
    zones = [zone for zone in host["firewalld"]["bridge_zones"] if zone != "docker"]
    if zones:
        yield (
            f"firewalld has {wanted.bridge} permanently in zone {', '.join(zones)}: Docker puts its bridges into zone docker and refuses"
            " to start otherwise. Remove it: "
            + " && ".join(f"firewall-cmd --permanent --zone={zone} --remove-interface={wanted.bridge}" for zone in zones)
            + " && firewall-cmd --reload."
        )


_CHECKS: tuple[Callable[[Host, Wanted], Iterable[str]], ...] = (_system, _kernel, _docker, _overlaps, _names_and_ports, _zones)


def problems(host: Host, wanted: Mapping[str, Any] | None) -> list[str]:
    """Return everything that keeps this host from being the wanted node, each with its reason and the way out.

    `host` is what the module host_facts returns, `wanted` its option of that name. Raises ValueError for a wanted prefix
    that is none.
    """
    needs = Wanted(wanted)
    return list(dict.fromkeys(text for check in _CHECKS for text in check(host, needs)))


def warnings(host: Host, wanted: Mapping[str, Any] | None) -> list[str]:
    """Return what will work but may surprise. Raises ValueError as problems() does."""
    needs = Wanted(wanted)
    space = [ipaddress.ip_network(prefix) for prefix in DN42_IPV4]
    found = []
    for what, prefix, way in _foreign_networks(host, needs):
        ours = _overlapping(prefix, needs.blocks) or _overlapping(prefix, needs.pools)
        shared = _overlapping(prefix, space)
        if shared and not ours:
            found.append(f"{what} ({prefix}) lies in DN42's {', '.join(shared)}: what uses it cannot reach that part of DN42. {way}.")
    for interface in host["ra_interfaces"]:
        if host["kernel"]["ipv6_forwarding"] and interface["accept_ra"] == 1:
            found.append(
                f"{interface['name']} has its IPv6 default route from router advertisements, and the kernel ignores those while forwarding"
                f" is on: the route is running out. The run sets net/ipv6/conf/{interface['name']}/accept_ra to 2."
            )
    return list(dict.fromkeys(found))
