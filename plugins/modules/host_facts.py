#!/usr/bin/python
# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: what a host is and has, and what keeps it from being a DN42 node."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_facts
short_description: Read what a DN42 node needs to know of its host
version_added: 0.1.0
description:
  - Reads kernel, Docker, firewalld, addresses, ports and disk of a host in one exchange and changes nothing.
  - With O(wanted) it also lists everything that keeps the host from becoming that node, each with the reason and the way out.
author:
  - the dn42.compose contributors (@dn42-compose)
options:
  known:
    description:
      - What an earlier task returned as RV(host). It is judged by O(wanted) on the controller, and the host is not asked again.
    type: dict
  wanted:
    description:
      - What the node is going to need. Nothing is judged when the option is not given.
    type: dict
    suboptions:
      name:
        description:
          - The node's name, for the report.
        type: str
        default: ""
      userspace:
        description:
          - Whether C(wireguard-go) may be used where the kernel has no WireGuard.
        type: bool
        default: false
      blocks:
        description:
          - The node's own prefixes.
        type: list
        elements: str
        default: []
      pools:
        description:
          - The operator's prefixes, from which all nodes have theirs.
        type: list
        elements: str
        default: []
      interfaces:
        description:
          - Names of the tunnels' interfaces.
        type: list
        elements: str
        default: []
      udp_ports:
        description:
          - UDP ports the tunnels listen on.
        type: list
        elements: int
        default: []
      docker_source:
        description:
          - Where Docker comes from when it is missing.
        type: str
        choices: [distro, upstream, none]
        default: distro
      controller_time:
        description:
          - The controller's clock in seconds since 1970, to compare the host's with.
        type: float
      bridge:
        description:
          - Name of the DN42 network's bridge on the host.
        type: str
        default: br-dn42
  stack_directory:
    description:
      - Where the node's files are. Ports in the running release's list of tunnels are the node's own and no conflict.
    type: path
    default: /opt/dn42
attributes:
  check_mode:
    support: full
    description: Reads and changes nothing.
  diff_mode:
    support: none
    description: There is nothing to show.
notes:
  - Must run as root to see the processes behind the ports.
"""

EXAMPLES = r"""
- name: Read the host
  dn42.compose.host_facts:
  register: facts

- name: See whether the host can be a node with one tunnel
  dn42.compose.host_facts:
    wanted:
      blocks: ["172.23.255.0/29", "fd99:4242:1::/64"]
      interfaces: [wg-peer1]
      udp_ports: [22900]
  register: facts
"""

RETURN = r"""
host:
  description: What was found.
  returned: success
  type: dict
  contains:
    recorded:
      description: Whether M(dn42.compose.host_record) has written down how the host was before it became a node.
      type: bool
    architecture:
      description: The machine's architecture as the kernel names it.
      type: str
    python:
      description: Version of the Python that runs modules.
      type: str
    distribution:
      description: C(id), C(like), C(version), C(major), C(codename) and C(name) from os-release; no version for a rolling one.
      type: dict
    systemd:
      description: Whether systemd is the init system.
      type: bool
    kernel:
      description:
        - C(release), C(wireguard) (present, loadable or absent), C(tun) (the device is there), C(ipv6), C(ipv6_forwarding).
      type: dict
    docker:
      description:
        - C(installed), C(missing) (which of engine, cli and compose), C(running), C(enabled), C(version), C(compose_version),
          C(root), C(podman) (the command is podman's), C(networks) with name, driver, project, subnets, bridge and
          whether it is C(ours).
      type: dict
    firewalld:
      description:
        - C(installed), C(running), C(version), C(default_zone), C(ipv6_rpfilter) (what firewalld makes of its file),
          C(ipv6_rpfilter_in_force) (whether the running one checks), C(check) (what it checks now), C(backend),
          C(strict_forward_ports), C(bridge_zone) (now), C(bridge_zones) (permanent), C(drops_bridged_ipv6) (whether it drops what
          a router on a bridge hands its siblings) and C(cure) (what dn42_firewall_strategy=auto does about it, in a sentence).
      type: dict
    ufw:
      description:
        - Whether ufw is C(active), the C(udp_ports) it lets in from anywhere, whether it C(forwards) by default, and the C(bridges)
          whose own frames it lets pass.
      type: dict
    base_chains:
      description:
        - The nftables base chains for input and forwarding of others than firewalld and Docker's own tables, with C(family),
          C(table), C(name), C(hook) and C(policy).
      type: list
      elements: dict
    clock:
      description: The host's C(time) in seconds since 1970, and whether it is C(synchronised), null if that is not told.
      type: dict
    bridge_nf_call_ip6tables:
      description: Whether bridged IPv6 goes through the host's rules, null while C(br_netfilter) is not loaded.
      type: int
    nft:
      description: Path of the nft command, null if there is none.
      type: str
    package_lists:
      description: Whether apt's package lists are there.
      type: bool
    interfaces:
      description: Names of the interfaces.
      type: list
      elements: str
    addresses:
      description: Addresses with C(interface), C(address) and C(prefix).
      type: list
      elements: dict
    default_routes:
      description: Default routes with C(family), C(gateway), C(interface), C(protocol) and C(accept_ra) of the interface.
      type: list
      elements: dict
    routes:
      description:
        - Other routes in private space (RFC 1918's 10.0.0.0/8 and 172.16.0.0/12, fc00::/7) with C(family), C(prefix), C(interface)
          (null for one that leads nowhere), C(gateway) and C(protocol); without those the kernel made for addresses.
      type: list
      elements: dict
    ra_interfaces:
      description:
        - C(name) and C(accept_ra) of the interfaces that have their IPv6 default route from the kernel's router discovery, now or
          when C(/etc/sysctl.d/90-dn42-accept-ra.conf) was written.
      type: list
      elements: dict
    stack:
      description:
        - What there is of the node itself. C(public_key) is empty unless it is noted beside a key that only its owner can read. C(network) (null
          for none) and the tags of C(images) are told by a running Docker alone.
      type: dict
    host_access:
      description: Whether an earlier run let the host itself use DN42.
      type: bool
    udp:
      description: UDP sockets with C(port), C(address), C(process) and C(pid); null for the kernel's own.
      type: list
      elements: dict
    own_udp_ports:
      description: Ports of the tunnels in the running release of this node.
      type: list
      elements: int
    resolv_conf:
      description: C(path) of the file behind C(/etc/resolv.conf) and the C(nameservers) in it.
      type: dict
    disk_free:
      description: Free bytes by path, for the node's directory and Docker's.
      type: dict
problems:
  description: What keeps the host from being the wanted node, each with the reason and the way out.
  returned: success
  type: list
  elements: str
table:
  description: What was found, as the lines of a table with a mark where there are problems.
  returned: when O(wanted) is given
  type: list
  elements: str
report:
  description: Problems and notices, each with the node's name before it.
  returned: when O(wanted) is given
  type: list
  elements: str
notices:
  description: What will work but may surprise; also given as warnings.
  returned: success
  type: list
  elements: str
"""

import http.client
import json
import os
import platform
import shutil
import socket
import stat
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dn42.compose.plugins.module_utils import _firewalld, _found_host, _host, _node_key, _systemd

FIREWALLD_CONF = "/etc/firewalld/firewalld.conf"
FIREWALLD_ZONES = "/etc/firewalld/zones"
BRIDGE_NF = "/proc/sys/net/bridge/bridge-nf-call-ip6tables"
HOST_ACCESS_UNIT = "/etc/systemd/system/dn42-host-access.service"
DOCKER_SOCKET = "/run/docker.sock"
DOCKER_ROOT = "/var/lib/docker"
API_TIMEOUT = 10.0


def read_text(path: str) -> str:
    """Return a file's text, empty if it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except OSError:
        return ""


def read_int(path: str) -> int | None:
    """Return the number in a file of /proc/sys, None if there is none."""
    text = read_text(path).strip()
    return int(text) if text.isdigit() else None


def read_bytes(path: str) -> bytes:
    """Return a file's content, empty if it cannot be read."""
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except OSError:
        return b""


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over Docker's socket."""

    def connect(self) -> None:
        """Connect to the socket instead of a host."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(API_TIMEOUT)
        self.sock.connect(DOCKER_SOCKET)


def docker_api(path: str) -> Any:
    """Return the answer of Docker's API to a GET. Raises OSError, HTTPException or ValueError."""
    connection = _UnixConnection("localhost")
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise ValueError(f"Docker answered {answer.status} to {path}")
        return json.loads(body)
    finally:
        connection.close()


class Facts:
    """Collects the facts of one host."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.bridge: str = (module.params["wanted"] or {}).get("bridge") or "br-dn42"
        self.stack: str = module.params["stack_directory"]
        self.node: dict[str, Any] = {}

    def run(self, argv: list[str]) -> tuple[int, str, str]:
        """Run a command in the C locale; a missing program is exit code 127."""
        if not self.module.get_bin_path(argv[0]):
            return 127, "", f"{argv[0]} is not there"
        return self.module.run_command(argv, environ_update={"LC_ALL": "C.UTF-8"})

    def output(self, *argv: str) -> str:
        """Return what a command prints, empty if it fails."""
        code, out, _err = self.run(list(argv))
        return out if code == 0 else ""

    def units(self) -> dict[str, dict[str, str]]:
        """Return LoadState, ActiveState and UnitFileState of the units we ask about, by name."""
        return _systemd.units(self.run, ["LoadState", "ActiveState", "UnitFileState"], "docker.service", "firewalld.service")

    def wireguard(self, release: str) -> str:
        """Return whether the kernel has WireGuard: present, loadable or absent."""
        if os.path.isdir("/sys/module/wireguard"):
            return "present"
        modules = f"/lib/modules/{release}"
        if "/wireguard.ko" in read_text(f"{modules}/modules.builtin"):
            return "present"
        if "/wireguard.ko" in read_text(f"{modules}/modules.dep"):
            return "loadable"
        # A container or a kernel without its module tree: only an attempt tells. The namespace and the interface in it go
        # with the process.
        code, _out, _err = self.run(["unshare", "--net", "ip", "link", "add", "wgprobe", "type", "wireguard"])
        return "present" if code == 0 else "absent"

    def kernel(self) -> dict[str, Any]:
        """Return what the kernel has of what a node needs."""
        release = os.uname().release
        try:
            tun = stat.S_ISCHR(os.stat("/dev/net/tun").st_mode)
        except OSError:
            tun = False
        return {
            "release": release,
            "wireguard": self.wireguard(release),
            "tun": tun,
            "ipv6": os.path.isdir("/proc/sys/net/ipv6") and os.path.exists("/proc/net/if_inet6"),
            "ipv6_forwarding": read_int("/proc/sys/net/ipv6/conf/all/forwarding") == 1,
        }

    def docker(self, units: dict[str, dict[str, str]]) -> dict[str, Any]:
        """Return state and versions of Docker and Compose, and Docker's networks if it runs."""
        client = self.output("docker", "--version")
        podman = "podman" in client.lower()
        engine = self.module.get_bin_path("dockerd") is not None
        compose = None if podman else self.output("docker", "compose", "version", "--short").strip() or None
        parts = {"engine": engine, "cli": bool(client) and not podman, "compose": compose is not None}
        unit = units.get("docker.service", {})
        facts = {
            "installed": parts["engine"] and parts["cli"],
            "missing": sorted(name for name, there in parts.items() if not there),
            "podman": podman,
            "running": unit.get("ActiveState") == "active",
            "enabled": unit.get("UnitFileState") == "enabled",
            "version": client.partition("version ")[2].split(",")[0].strip() or None if parts["cli"] else None,
            "compose_version": compose,
            "root": DOCKER_ROOT,
            "networks": [],
        }
        # Only a running daemon is asked: a connection to the socket would start a stopped one.
        if facts["running"]:
            self.ask_docker(facts)
        return facts

    def ask_docker(self, facts: dict[str, Any]) -> None:
        """Complete the facts with what the running daemon says."""
        try:
            facts["version"] = docker_api("/version")["Version"]
            facts["root"] = docker_api("/info").get("DockerRootDir") or DOCKER_ROOT
            networks = docker_api("/networks")
            facts["networks"] = _host.docker_networks(networks)
            self.node.update(network=_host.node_network(networks), images=_host.node_images(docker_api("/images/json")))
        except (OSError, ValueError, KeyError, http.client.HTTPException) as error:
            self.module.fail_json(msg=f"Docker runs but does not answer on {DOCKER_SOCKET}: {error}")

    def firewalld(self) -> dict[str, Any]:
        """Return state and settings of firewalld."""
        content = read_bytes(FIREWALLD_CONF)
        bus = _firewalld.Firewalld(self.run)
        facts = {
            "installed": self.module.get_bin_path("firewall-cmd") is not None,
            "running": bus.running(),
            "version": None,
            "default_zone": _firewalld.read_key(content, "DefaultZone"),
            "ipv6_rpfilter": None,
            "ipv6_rpfilter_in_force": None,
            "bridge_zone": None,
            "bridge_zones": _firewalld.zones_binding(self.zone_files(), self.bridge),
            "check": None,
            "backend": _firewalld.read_key(content, "FirewallBackend") or "nftables",
            "strict_forward_ports": (_firewalld.read_key(content, "StrictForwardPorts") or "no").lower() in ("yes", "true"),
        }
        if facts["running"]:
            try:
                facts["version"], _state, facts["ipv6_rpfilter_in_force"] = bus.properties()
                facts["default_zone"] = bus.default_zone()
                facts["bridge_zone"] = bus.zone_of(self.bridge)
            except _firewalld.FirewalldError as error:
                self.module.fail_json(msg=f"firewalld runs but does not answer: {error}")
        if facts["installed"]:
            facts["ipv6_rpfilter"] = _firewalld.effective_rpfilter(content, facts["version"] or "")
        return facts

    def bridged(self, firewalld: dict[str, Any], routes: list[dict[str, Any]]) -> dict[str, Any]:
        """Return what becomes of bridged IPv6: the check in force, whether it drops, and the cure."""
        check = "no"
        if firewalld["ipv6_rpfilter_in_force"]:
            check = _firewalld.running_check(self.output("nft", "list", "table", "inet", "firewalld")) or firewalld["ipv6_rpfilter"]
        situation = _firewalld.Situation(
            firewalld="running" if firewalld["running"] else "stopped" if firewalld["installed"] else "absent",
            version=firewalld["version"] or "",
            backend=firewalld["backend"],
            check=check,
            bridge_nf=read_int(BRIDGE_NF),
            default_route=_firewalld.default_route_kind(routes),
        )
        cure = _firewalld.choose_cure("auto", situation)
        return {"check": check if firewalld["running"] else None, "drops_bridged_ipv6": _firewalld.drops_bridged(situation), "cure": cure.reason}

    @staticmethod
    def zone_files() -> dict[str, bytes]:
        """Return the permanent zones that are not as delivered, content by name."""
        try:
            names = [name for name in os.listdir(FIREWALLD_ZONES) if name.endswith(".xml")]
        except OSError:
            return {}
        return {name[:-4]: read_bytes(f"{FIREWALLD_ZONES}/{name}") for name in names}

    @staticmethod
    def accept_ra(interface: str) -> int | None:
        """Return what the kernel does with router advertisements on an interface, None without the interface."""
        return read_int(f"/proc/sys/net/ipv6/conf/{interface}/accept_ra")

    def default_routes(self) -> list[dict[str, Any]]:
        """Return the default routes of both families, with accept_ra of the interface of IPv6 ones."""
        routes = _host.parse_default_routes(self.output("ip", "-j", "-4", "route", "show", "default"), "ipv4")
        for route in _host.parse_default_routes(self.output("ip", "-j", "-6", "route", "show", "default"), "ipv6"):
            routes.append(dict(route, accept_ra=self.accept_ra(route["interface"])))
        return routes

    def routes(self) -> list[dict[str, Any]]:
        """Return the routes in private space, without default routes and those of interfaces' own addresses."""
        found = []
        for family, spaces in _host.PRIVATE_SPACE.items():
            for space in spaces:
                text = self.output("ip", "-j", f"-{family[-1]}", "route", "show", "root", space)
                found += _host.parse_routes(text, family)
        return found

    def own_udp_ports(self) -> list[int]:
        """Return the ports of the tunnels of the running release, none before the first."""
        try:
            state = json.loads(read_text(f"{self.stack}/services/router/current/tunnels.json"))
            return sorted({int(tunnel["listen_port"]) for tunnel in state["tunnels"] if tunnel.get("listen_port")})
        except (ValueError, KeyError, TypeError):
            return []

    def public_key(self) -> str:
        """Return the public key noted beside the router's private key, empty where a run has to look after the key."""
        directory = Path(self.stack) / "secrets" / "router"
        try:
            owner = directory.stat().st_uid
        except OSError:
            return ""
        return _node_key.known_public_key(directory) if _node_key.is_safe(directory / _node_key.PRIVATE_KEY, owner) else ""

    @staticmethod
    def resolv_conf() -> dict[str, Any]:
        """Return the file behind /etc/resolv.conf and the name servers in it."""
        lines = [line.split() for line in read_text("/etc/resolv.conf").splitlines()]
        servers = [words[1] for words in lines if len(words) > 1 and words[0] == "nameserver"]
        return {"path": os.path.realpath("/etc/resolv.conf"), "nameservers": servers}

    @staticmethod
    def free(path: str) -> int:
        """Return the free bytes where a path is or will be."""
        while not os.path.exists(path):
            path = os.path.dirname(path)
        return shutil.disk_usage(path).free

    @staticmethod
    def package_lists() -> bool:
        """Tell whether apt has package lists."""
        try:
            return any("_Packages" in name for name in os.listdir("/var/lib/apt/lists"))
        except OSError:
            return False

    def collect(self) -> dict[str, Any]:
        """Return all facts."""
        units = self.units()
        docker = self.docker(units)
        interfaces, addresses = _host.parse_addresses(self.output("ip", "-j", "addr"))
        routes = self.default_routes()
        firewalld = self.firewalld()
        kept = _host.parse_accept_ra(read_text(_host.ACCEPT_RA_FILE))
        return {
            "recorded": os.path.exists(_found_host.RECORD),
            "architecture": platform.machine(),
            "python": platform.python_version(),
            "distribution": _host.parse_os_release(read_text("/etc/os-release")),
            "systemd": os.path.isdir("/run/systemd/system"),
            "kernel": self.kernel(),
            "docker": docker,
            "firewalld": dict(firewalld, **self.bridged(firewalld, routes)),
            "ufw": _host.parse_ufw(self.output("ufw", "status", "verbose")),
            "base_chains": _host.parse_base_chains(self.output("nft", "-j", "list", "chains")),
            "clock": {"time": time.time(), "synchronised": _host.parse_timedatectl(self.output("timedatectl", "show"))},
            "bridge_nf_call_ip6tables": read_int(BRIDGE_NF),
            "nft": self.module.get_bin_path("nft"),
            "package_lists": self.package_lists(),
            "interfaces": interfaces,
            "addresses": addresses,
            "default_routes": routes,
            "routes": self.routes(),
            "ra_interfaces": _host.ra_interfaces(routes, {name: self.accept_ra(name) for name in kept}),
            "stack": dict(self.node, public_key=self.public_key()),
            "host_access": os.path.exists(HOST_ACCESS_UNIT),
            "udp": _host.parse_ss(self.output("ss", "-Hulnp")),
            "own_udp_ports": self.own_udp_ports(),
            "resolv_conf": self.resolv_conf(),
            "disk_free": {path: self.free(path) for path in sorted({self.stack, docker["root"]})},
        }


def main() -> None:
    """Run the module."""
    names = {"type": "list", "elements": "str", "default": []}
    wanted = {
        "name": {"type": "str", "default": ""},
        "userspace": {"type": "bool", "default": False},
        "blocks": names,
        "pools": names,
        "interfaces": names,
        "udp_ports": {"type": "list", "elements": "int", "default": []},
        "docker_source": {"type": "str", "choices": ["distro", "upstream", "none"], "default": "distro"},
        "controller_time": {"type": "float"},
        "bridge": {"type": "str", "default": "br-dn42"},
    }
    module = AnsibleModule(
        argument_spec={
            "wanted": {"type": "dict", "options": wanted},
            "stack_directory": {"type": "path", "default": "/opt/dn42"},
            "known": {"type": "dict"},
        },
        supports_check_mode=True,
    )
    host = Facts(module).collect()
    judged = {"problems": [], "notices": []}
    if module.params["wanted"] is not None:
        try:
            judged = _host.judge(host, module.params["wanted"])
        except ValueError as error:
            module.fail_json(msg=f"wanted: {error}")
    for notice in judged["notices"]:
        module.warn(notice)
    module.exit_json(changed=False, host=host, **judged)


if __name__ == "__main__":
    main()
