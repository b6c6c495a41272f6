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
DOCKER_FILTERS_IPV6 = (27,)  # makes rules for IPv6 without being told (ip6tables)
MINIMUM_FREE = 2 * 1024**3  # bytes: images, one release beside the other, logs
# On a host that is a node already (bytes): its images are there, and a full disk must not keep a peer from being removed.
MINIMUM_FREE_ON_NODE = 256 * 1024**2
# Debian release from which the distribution has Compose v2.
COMPOSE_IN_DEBIAN = 13
CLOCK_SKEW = 60.0  # seconds between controller and host that cannot be a slow connection
# DN42's IPv4 space. Of its IPv6 space only our own prefixes can collide by accident: the rest is fd00::/8, at random.
DN42_IPV4 = ("172.20.0.0/14", "172.31.0.0/16", "10.100.0.0/14", "10.127.0.0/16")
# Private space, in which DN42 and everything that can collide with it lies. Routes elsewhere, of a full table say, are not read.
PRIVATE_SPACE = {"ipv4": ("10.0.0.0/8", "172.16.0.0/12"), "ipv6": ("fc00::/7",)}
SHOWN_ROUTES = 3  # of those through one interface; a host that is in DN42 by another program has a thousand
# A socket of ours on the host: the kernel's own has no process.
TUNNEL_PROCESSES = frozenset({None, "wireguard-go"})
OUR_IMAGES = "dn42-"
OUR_NETWORK = "dn42"
# Where the role docker keeps the interfaces that go on heeding router advertisements while the host forwards.
ACCEPT_RA_FILE = "/etc/sysctl.d/90-dn42-accept-ra.conf"
NO_COMPOSE = "set dn42_docker_source: upstream, install Docker Engine and docker-compose-plugin from Docker's own repository, or upgrade to Debian 13, then run again"

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
        self.controller_time: float | None = options.get("controller_time")
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


def parse_routes(text: str, family: str) -> list[dict[str, Any]]:
    """Return family, prefix, interface, gateway and protocol of the routes in the output of ``ip -j route``, sorted.

    Routes that the kernel made for an interface's own addresses are left out, these are among the addresses; so are default
    routes. The interface is None for a route that leads nowhere (unreachable, blackhole, prohibit).
    """
    routes = []
    for route in json.loads(text or "[]"):
        if route.get("protocol") == "kernel" or route.get("dst") in (None, "default"):
            continue
        hop = (route.get("nexthops") or [route])[0]
        nowhere = route.get("type") in ("unreachable", "blackhole", "prohibit")
        entry = {
            "family": family,
            "prefix": str(ipaddress.ip_network(route["dst"], strict=False)),
            "interface": None if nowhere else hop.get("dev"),
            "gateway": hop.get("gateway"),
            "protocol": route.get("protocol"),
        }
        routes.append(entry)
    return sorted(routes, key=lambda entry: (ipaddress.ip_network(entry["prefix"]), str(entry["interface"])))


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
    """Return name, driver, project, subnets, bridge (None if it has none) and ours of what Docker's API says of its networks."""
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
                "ours": item["Name"] == OUR_NETWORK,
            }
        )
    return sorted(networks, key=lambda network: network["name"])


def node_network(answer: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the settings of the node's network out of what Docker's API says of all networks, None where there is none."""
    settings = ("Driver", "EnableIPv6", "Internal", "IPAM", "Options", "Labels")
    return next(({key: item.get(key) for key in settings} for item in answer if item["Name"] == OUR_NETWORK), None)


def runs(containers: Iterable[Mapping[str, Any]], name: str) -> bool:
    """Whether a container runs, and is not paused, by Docker's list of those that do."""
    return any(f"/{name}" in container.get("Names", []) and container.get("State") == "running" for container in containers)


def node_images(answer: list[dict[str, Any]]) -> list[str]:
    """Return the tags of the node's own images out of what Docker's API says of all images, sorted."""
    return sorted(tag for item in answer for tag in item.get("RepoTags") or [] if tag.startswith(OUR_IMAGES))


def parse_base_chains(text: str) -> list[dict[str, Any]]:
    """Return family, table, name, hook and policy of the base chains that filter input or forwarding, of ``nft -j list chains``.

    firewalld's, Docker's and our own are left out: these are looked after elsewhere.
    """
    chains = []
    for item in json.loads(text or "{}").get("nftables", []):
        chain = item.get("chain", {})
        foreign = chain.get("table") not in ("firewalld", "dn42_guard", "docker-bridges")
        if foreign and chain.get("type") == "filter" and chain.get("hook") in ("input", "forward"):
            chains.append({key: chain.get(key) for key in ("family", "table", "name", "hook", "policy")})
    return chains


def parse_ufw(text: str) -> dict[str, Any]:
    """Return what ufw lets in and through, of ``ufw status verbose``: whether it is active, the UDP ports open to anywhere, whether it
    forwards by default, and the bridges whose own frames it lets pass.
    """
    ports = re.findall(r"^(\d+)(?:/udp)?\s+ALLOW(?: IN)?\s+Anywhere", text, re.MULTILINE)
    bridges = re.findall(r"^Anywhere(?: \(v6\))? on (\S+)\s+ALLOW FWD\s+Anywhere(?: \(v6\))? on \1\b", text, re.MULTILINE)
    return {
        "active": "Status: active" in text,
        "udp_ports": sorted({int(port) for port in ports}),
        "forwards": "allow (routed)" in text,
        "bridges": sorted(set(bridges)),
    }


def parse_timedatectl(text: str) -> bool | None:
    """Return whether the clock is synchronised, of ``timedatectl show``; None when that is not told."""
    found = re.search(r"^NTPSynchronized=(yes|no)$", text, re.MULTILINE)
    return None if found is None else found.group(1) == "yes"


# --- judging ------------------------------------------------------------------------------------------------------------


def _init(host: Host, wanted: Wanted) -> Iterable[str]:
    """The init system."""
    if not host["systemd"]:
        yield ("systemd does not run this host: the guard between DN42 and the host, and Docker, are systemd units. Use a host or a virtual machine that boots with systemd.")


def _disk(host: Host, wanted: Wanted) -> Iterable[str]:
    """Room for images and releases."""
    minimum = MINIMUM_FREE_ON_NODE if host["stack"]["public_key"] else MINIMUM_FREE
    for path, free in sorted(host["disk_free"].items()):
        if free < minimum:
            yield (
                f"{path} has {free // 1024**2} MiB free; images and releases need {minimum // 1024**2} MiB. Free some space"
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
    if wanted.docker_source == "upstream":
        return  # the role docker knows which systems Docker's own repository is for
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
    """Return (description, prefix, way out) of every Docker network and address of the host that is not ours."""
    found = []
    bridges = {wanted.bridge}
    for network in host["docker"]["networks"]:
        bridges.add(network["bridge"])
        if network["ours"] or network["bridge"] == wanted.bridge:
            continue
        if network["bridge"] == f"{wanted.bridge}-egress":
            way = "Set dn42_docker_address_pools to pools outside DN42, then `docker rm -f dn42-rpki; docker network rm dn42-egress` on the node, and run again"
        else:
            way = f"Remove it (docker network rm {network['name']}) or recreate it with a subnet outside DN42"
        found += [(f"Docker network {network['name']}", subnet, way) for subnet in network["subnets"]]
    for entry in host["addresses"]:
        if entry["interface"] not in bridges:
            way = "Renumber that interface, or choose other prefixes for the node"
            found.append((f"{entry['address']} on {entry['interface']}", entry["prefix"], way))
    return found


def _ours(prefix: str, wanted: Wanted) -> list[str]:
    """Return the prefixes of the node, else those of the operator, that share addresses with a prefix."""
    return _overlapping(prefix, wanted.blocks) or _overlapping(prefix, wanted.pools)


def _through(route: Mapping[str, Any]) -> str:
    """Where a route leads, in words."""
    return f"through {route['interface']}" if route["interface"] else "to nowhere"


def _inside_ours(route: Mapping[str, Any], wanted: Wanted) -> bool:
    """Whether a route takes addresses of ours away; one that is wider than our prefixes does not, the bridge's is longer."""
    prefix = ipaddress.ip_network(route["prefix"])
    return any(prefix.version == network.version and prefix.subnet_of(network) for network in [*wanted.blocks, *wanted.pools])


def _foreign_routes(host: Host, wanted: Wanted) -> list[Mapping[str, Any]]:
    """Return the host's routes that do not lead to our bridge."""
    return [route for route in host["routes"] if route["interface"] != wanted.bridge]


def _overlaps(host: Host, wanted: Wanted) -> Iterable[str]:
    """Addresses that somebody on the host already has."""
    for what, prefix, way in _foreign_networks(host, wanted):
        ours = _ours(prefix, wanted)
        if ours:
            yield f"{what} ({prefix}) overlaps this network's {', '.join(ours)}. {way}."
    for route in _foreign_routes(host, wanted):
        if _inside_ours(route, wanted):
            yield (
                f"The host has a route to {route['prefix']} {_through(route)} (protocol {route['protocol']}), inside this network's"
                f" {', '.join(_ours(route['prefix'], wanted))}. Remove it (ip route del {route['prefix']}, and what makes it at boot), or choose other"
                " prefixes for the node."
            )


def _routes_into_dn42(host: Host, wanted: Wanted) -> Iterable[str]:
    """The host's own ways into DN42, one notice for each interface."""
    space = [ipaddress.ip_network(prefix) for prefix in DN42_IPV4]
    ways: dict[str, list[str]] = {}
    for route in _foreign_routes(host, wanted):
        if not _inside_ours(route, wanted) and (_overlapping(route["prefix"], space) or _ours(route["prefix"], wanted)):
            ways.setdefault(_through(route), []).append(route["prefix"])
    for way, prefixes in sorted(ways.items()):
        more = len(prefixes) - SHOWN_ROUTES
        listed = ", ".join(prefixes[:SHOWN_ROUTES]) + (f" and {more} more" if more > 0 else "")
        yield (
            f"The host has routes of its own into DN42's space {way} ({listed}). The node does not use them; if they are another DN42 router's,"
            " the two must not announce the same prefixes."
        )


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


_CHECKS: tuple[Callable[[Host, Wanted], Iterable[str]], ...] = (_init, _disk, _kernel, _docker, _overlaps, _names_and_ports, _zones)


def _docker_leaves_ipv6(host: Host) -> bool:
    """Whether the host's Docker makes no IPv6 rules of its own: without them nobody lets a bridge's frames through iptables' FORWARD."""
    version = version_tuple(host["docker"]["version"] or "")
    return bool(version) and version < DOCKER_FILTERS_IPV6


def _ufw(host: Host, wanted: Wanted) -> Iterable[str]:
    """What to add to ufw."""
    ufw = host["ufw"]
    closed = [port for port in wanted.udp_ports if port not in ufw["udp_ports"]]
    if closed:
        yield (
            f"ufw is active and not known to let the tunnels' UDP ports in: {' && '.join(f'ufw allow {port}/udp comment dn42' for port in closed)}."
            " Until then peers reach this node only while it talks to them."
        )
    passes = ufw["forwards"] or wanted.bridge in ufw["bridges"]
    if host["bridge_nf_call_ip6tables"] == 1 and _docker_leaves_ipv6(host) and not passes:
        yield (
            "ufw drops IPv6 between this node's containers and DN42, all but pings, because br_netfilter shows it what crosses the bridge:"
            f" ufw route allow in on {wanted.bridge} out on {wanted.bridge} comment dn42. dn42_firewall_strategy: bridge_nf does it too, for all bridges of the host."
        )


def _other_firewalls(host: Host, wanted: Wanted) -> Iterable[str]:
    """What to open in a firewall that this collection does not manage: it changes nobody's rules."""
    if host["firewalld"]["running"]:
        return
    if host["ufw"]["active"]:
        yield from _ufw(host, wanted)
        return
    for chain in host["base_chains"]:
        dockers = chain["hook"] == "forward" and chain["name"] == "FORWARD" and not (chain["family"] == "ip6" and _docker_leaves_ipv6(host))
        if chain["policy"] != "drop" or dockers:
            continue
        place = f"{chain['family']} {chain['table']} {chain['name']}"
        if chain["hook"] == "input" and wanted.udp_ports:
            ports = ", ".join(str(port) for port in wanted.udp_ports)
            yield f"Chain {place} drops what it does not name: let the tunnels' UDP ports in there (udp dport {{ {ports} }} accept), if it does not yet."
        elif chain["hook"] == "forward" and host["bridge_nf_call_ip6tables"] == 1:
            yield (
                f"Chain {place} drops what it does not name, and bridged frames meet it (br_netfilter): let those of the DN42 bridge pass"
                f' (iifname "{wanted.bridge}" oifname "{wanted.bridge}" accept), if it does not yet, or set dn42_firewall_strategy: bridge_nf for IPv6.'
            )


def skew(host: Host, wanted: Wanted) -> float | None:
    """Return how many seconds the host's clock is ahead of the controller's, None without the controller's."""
    return None if wanted.controller_time is None else host["clock"]["time"] - wanted.controller_time


def _clock(host: Host, wanted: Wanted) -> Iterable[str]:
    """A clock that is wrong: signatures of DN42's names live three days, logs and sessions are compared by time."""
    ahead = skew(host, wanted)
    synchronised = host["clock"]["synchronised"]
    if ahead is not None and abs(ahead) > CLOCK_SKEW:
        what = "is synchronised, but differs" if synchronised else "is not synchronised and differs"
        yield (
            f"The clock {what} from the controller's by {abs(ahead):.0f} s: signatures of names live three days only in DN42. Let a time service set it"
            " (apt install systemd-timesyncd, or chrony), or look at the controller's."
        )


def _forward_ports(host: Host, wanted: Wanted) -> Iterable[str]:
    """StrictForwardPorts is no concern of ours: no port is published. Said, because it closes those of other containers."""
    if host["firewalld"]["strict_forward_ports"]:
        yield (
            "firewalld has StrictForwardPorts=yes: published ports of Docker containers are closed until firewalld forwards them too. The node publishes"
            " none, its tunnels' ports are opened on the host; a service of yours with a published port needs firewall-cmd --add-forward-port."
        )


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
        ours = _ours(prefix, needs)
        shared = _overlapping(prefix, space)
        if shared and not ours:
            found.append(f"{what} ({prefix}) lies in DN42's {', '.join(shared)}: what uses it cannot reach that part of DN42. {way}.")
    for check in (_routes_into_dn42, _other_firewalls, _forward_ports, _clock):
        found += check(host, needs)
    for interface in host["ra_interfaces"]:
        if host["kernel"]["ipv6_forwarding"] and interface["accept_ra"] == 1:
            found.append(
                f"{interface['name']} has its IPv6 default route from router advertisements, and the kernel ignores those while forwarding"
                f" is on: the route is running out. The run sets net/ipv6/conf/{interface['name']}/accept_ra to 2."
            )
    return list(dict.fromkeys(found))


# --- showing ------------------------------------------------------------------------------------------------------------


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _docker_row(docker: Mapping[str, Any]) -> str:
    if not docker["installed"]:
        return f"missing: {', '.join(docker['missing'])}"
    state = "running" if docker["running"] else "stopped"
    return f"{docker['version']} {state}, Compose {docker['compose_version'] or 'missing'}, {len(docker['networks'])} networks"


def _firewalld_row(firewalld: Mapping[str, Any], bridge: str) -> str:
    if not firewalld["installed"]:
        return "absent"
    zones = [f"{bridge} in zone {firewalld['bridge_zone']}"] if firewalld["bridge_zone"] else []
    zones += [f"permanently in {zone}" for zone in firewalld["bridge_zones"]]
    if not firewalld["running"]:
        return ", ".join(["stopped", f"IPv6_rpfilter {firewalld['ipv6_rpfilter']} in its file", *zones])
    return ", ".join([f"{firewalld['version']} running", f"backend {firewalld['backend']}", f"IPv6_rpfilter {firewalld['check']}", *zones])


def _bridged_row(host: Host) -> str:
    value = host["bridge_nf_call_ip6tables"]
    how = "br_netfilter not loaded" if value is None else f"bridge-nf-call-ip6tables {value}"
    return f"{how}; {'DROPPED by firewalld until the role firewall has run' if host['firewalld']['drops_bridged_ipv6'] else 'passes firewalld'}"


def _clock_row(host: Host, wanted: Wanted) -> str:
    state = {True: "synchronised", False: "not synchronised", None: "synchronisation unknown"}[host["clock"]["synchronised"]]
    ahead = skew(host, wanted)
    return state if ahead is None else f"{state}, {ahead:+.1f} s from the controller's"


def table(host: Host, wanted: Mapping[str, Any] | None) -> list[str]:
    """Return what was found as the lines of a table: a mark (ok, or the number of problems), a subject, what was found.

    Raises ValueError as problems() does.
    """
    needs = Wanted(wanted)
    kernel = host["kernel"]
    rows: list[tuple[str, str, tuple[Callable[[Host, Wanted], Iterable[str]], ...]]] = [
        ("system", f"{host['distribution']['name']}, {host['architecture']}, systemd {_yes(host['systemd'])}", (_init,)),
        ("disk", ", ".join(f"{path} {free / 1024**3:.1f} GiB free" for path, free in sorted(host["disk_free"].items())), (_disk,)),
        ("clock", _clock_row(host, needs), ()),
        ("kernel", f"{kernel['release']}, WireGuard {kernel['wireguard']}, tun {_yes(kernel['tun'])}, IPv6 {_yes(kernel['ipv6'])}", (_kernel,)),
        ("bridged IPv6", _bridged_row(host), ()),
        ("Docker", _docker_row(host["docker"]), (_docker,)),
        ("firewalld", _firewalld_row(host["firewalld"], needs.bridge), (_zones,)),
        ("prefixes", f"{', '.join(str(network) for network in [*needs.blocks, *needs.pools]) or 'none given'}", (_overlaps,)),
        ("tunnels", f"{len(needs.interfaces)} interfaces, UDP {', '.join(str(port) for port in needs.udp_ports) or 'none given'}", (_names_and_ports,)),
    ]
    width = max(len(name) for name, _text, _checks in rows)
    lines = []
    for name, text, checks in rows:
        faults = sum(1 for check in checks for _fault in check(host, needs))
        lines.append(f"{f'{faults} !' if faults else 'ok':4} {name:{width}}  {text}")
    return lines


def report(name: str, found: Iterable[str], notices: Iterable[str]) -> list[str]:
    """Return problems and notices of one host for a list of all hosts."""
    return [f"{name}: {text}" for text in found] + [f"{name}, to know: {text}" for text in notices]


def judge(host: Host, wanted: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return problems, notices, report and table of a host for a wanted node. Raises ValueError as problems() does."""
    found, notices = problems(host, wanted), warnings(host, wanted)
    return {"problems": found, "notices": notices, "report": report(str(wanted.get("name") or ""), found, notices), "table": table(host, wanted)}
