# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the module host_facts does on a node: read the host, judge whether it can be a DN42 node.

This module util is PRIVATE to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

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
ROUTER = "dn42-router"


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
            self.node["routes"] = _host.runs(docker_api("/containers/json"), ROUTER)
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
            "stack": {"routes": False, **self.node, "public_key": self.public_key()},
            "host_access": os.path.exists(HOST_ACCESS_UNIT),
            "udp": _host.parse_ss(self.output("ss", "-Hulnp")),
            "own_udp_ports": self.own_udp_ports(),
            "resolv_conf": self.resolv_conf(),
            "disk_free": {path: self.free(path) for path in sorted({self.stack, docker["root"]})},
        }


_NAMES = {"type": "list", "elements": "str", "default": []}
ARGUMENT_SPEC: dict[str, Any] = {
    "wanted": {
        "type": "dict",
        "options": {
            "name": {"type": "str", "default": ""},
            "userspace": {"type": "bool", "default": False},
            "blocks": _NAMES,
            "pools": _NAMES,
            "interfaces": _NAMES,
            "udp_ports": {"type": "list", "elements": "int", "default": []},
            "docker_source": {"type": "str", "choices": ["distro", "upstream", "none"], "default": "distro"},
            "controller_time": {"type": "float"},
            "bridge": {"type": "str", "default": "br-dn42"},
        },
    },
    "stack_directory": {"type": "path", "default": "/opt/dn42"},
    "known": {"type": "dict"},
    "also": {"type": "dict"},
}


def run(module: AnsibleModule) -> dict[str, Any]:
    """Read the host, and judge it where something is wanted of it."""
    host = Facts(module).collect()
    judged = {"problems": [], "notices": []}
    if module.params["wanted"] is not None:
        try:
            judged = _host.judge(host, module.params["wanted"])
        except ValueError as error:
            module.fail_json(msg=f"wanted: {error}")
    for notice in judged["notices"]:
        module.warn(notice)
    return {"changed": False, "host": host, **judged}
