# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What DN42 can reach is what we meant it to reach, and the router knows no way to the Internet."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

import pytest
from network_probe import Lab
from support import NODES

# The lab's private service of every node: a web server that listens on all addresses (tests/lab/node).
PRIVATE_PORT = 8099
INTERNET = {"fra1": ["203.0.113.11", "2001:db8::11"], "hkg1": ["203.0.113.12", "2001:db8::12"]}


def http_status(lab: Lab, address: str, port: int) -> str:
    """Status that peer1 gets from a web server; `000` without a connection."""
    host = f"[{address}]" if ":" in address else address
    argv = ["curl", "-s", "-m", "4", "-o", "/dev/null", "-w", "%{http_code}", f"http://{host}:{port}/"]
    return lab.run("peer1", *argv, check=False).stdout


def host_addresses_in_dn42(lab: Lab, node: str) -> list[str]:
    """The addresses that Docker gave the bridge on the host."""
    shown = json.loads(lab.run(node, "ip", "-j", "addr", "show", "br-dn42").stdout)[0]
    return [item["local"] for item in shown["addr_info"] if item["scope"] == "global"]


@contextlib.contextmanager
def host_with_a_way_back(lab: Lab, node: str) -> Iterator[None]:
    """Give the host routes to peer1 through its router.

    Without them its answers would get lost on the Internet, and a closed service would look like an open one.
    """
    declared = lab.run(node, "cat", "/opt/dn42/services/router/current/tunnels.json").stdout
    gateway = json.loads(declared)["bridge"]["gateway"]
    ipv4, ipv6 = gateway["ipv4"].partition("/")[0], gateway["ipv6"].partition("/")[0]
    routes = [("-4", "172.22.200.0/25", ipv4), ("-6", "fdc0:ffee:9002::/48", ipv6)]
    for family, prefix, via in routes:
        lab.run(node, "ip", family, "route", "add", prefix, "via", via)
    try:
        yield
    finally:
        for family, prefix, _via in routes:
            lab.run(node, "ip", family, "route", "del", prefix)


@pytest.mark.parametrize("node", NODES)
def test_private_service_answers_over_the_internet_and_not_over_dn42(lab: Lab, node: str) -> None:
    """The same service, the same client: only the way differs."""
    for address in INTERNET[node]:
        assert http_status(lab, address, PRIVATE_PORT) == "200", f"over the Internet at {address}"
    with host_with_a_way_back(lab, node):
        for address in host_addresses_in_dn42(lab, node):
            assert http_status(lab, address, PRIVATE_PORT) == "000", f"over DN42 at {address}"


def test_private_service_is_reachable_over_dn42_without_the_guard(lab: Lab) -> None:
    """So that the test above can fail: with the guard's table gone, the host answers."""
    lab.run("fra1", "nft", "delete", "table", "inet", "dn42_guard")
    try:
        with host_with_a_way_back(lab, "fra1"):
            assert [http_status(lab, address, PRIVATE_PORT) for address in host_addresses_in_dn42(lab, "fra1")] == ["200", "200"]
    finally:
        lab.run("fra1", "systemctl", "restart", "dn42-guard.service")


@pytest.mark.parametrize(("family", "host"), [("-4", "203.0.113.11"), ("-6", "2001:db8::11")])
def test_internet_does_not_reach_services_through_the_host(lab: Lab, family: str, host: str) -> None:
    """Docker lets the host forward; between the Internet and the bridge the guard lets nothing pass."""
    address = lab.addresses("fra1", "dn42-dns")[family == "-6"]
    lab.run("peer1", "ip", family, "route", "add", f"{address}", "via", host)
    try:
        assert lab.run("peer1", "ping", "-n", "-c", "2", "-W", "1", address, check=False).returncode != 0
    finally:
        lab.run("peer1", "ip", family, "route", "del", f"{address}", "via", host)
    assert lab.run("peer1", "ping", "-n", "-c", "2", "-W", "2", address, check=False).returncode == 0


@pytest.mark.parametrize("node", NODES)
def test_router_knows_no_default_route_and_no_internet(lab: Lab, node: str) -> None:
    """Its sockets are the host's; its own namespace has DN42 and nothing else."""
    for family in ("-4", "-6"):
        assert lab.in_router(node, "ip", family, "route", "show", "default").stdout == ""
    for address in ("203.0.113.100", "2001:db8::100"):
        done = lab.in_router(node, "ip", "route", "get", address, check=False)
        assert done.returncode != 0, f"the router has a route to {address}: {done.stdout}"


@pytest.mark.parametrize("node", NODES)
def test_routes_of_dn42_are_birds_alone(lab: Lab, node: str) -> None:
    """B32: wide AllowedIPs put no route of their own beside what BGP learned."""
    for family in ("-4", "-6"):
        assert lab.in_router(node, "ip", family, "route", "show", "proto", "boot").stdout == ""
        assert "proto bird" in lab.in_router(node, "ip", family, "route", "show").stdout


@pytest.mark.parametrize("node", NODES)
def test_only_the_router_forwards_ipv6(lab: Lab, node: str) -> None:
    """B19: on for every interface of the router, tunnels included, and for no sibling.

    On the host Docker itself switches it on for every IPv6 network (B21): see test_host_keeps_its_default_route.
    """
    settings = lab.in_router(node, "sh", "-c", "grep -H . /proc/sys/net/ipv6/conf/*/forwarding /proc/sys/net/ipv4/conf/*/rp_filter").stdout
    forwarding = dict(line.rsplit(":", 1) for line in settings.split() if "/forwarding:" in line)
    assert any("wg-peer1" in name for name in forwarding)
    assert set(forwarding.values()) == {"1"}
    for container in ("dn42-dns", "dn42-looking-glass"):
        assert lab.run(node, "docker", "exec", container, "cat", "/proc/sys/net/ipv6/conf/all/forwarding").stdout.strip() == "0"


@pytest.mark.parametrize("node", NODES)
def test_sockets_of_tunnels_are_the_hosts(lab: Lab, node: str) -> None:
    """No port is published; WireGuard's sockets are where their interfaces were born."""
    assert ":22900 " in lab.run(node, "ss", "-Huln").stdout
    assert ":22900 " not in lab.in_router(node, "ss", "-Huln").stdout
    assert lab.run(node, "docker", "port", "dn42-router").stdout == ""


@pytest.mark.parametrize("node", NODES)
def test_containers_have_only_what_they_need(lab: Lab, node: str) -> None:
    """Read-only file systems, no new privileges, and no capability beside the router's."""
    shown = json.loads(lab.run(node, "docker", "inspect", "dn42-router", "dn42-dns", "dn42-looking-glass").stdout)
    for item in shown:
        config = item["HostConfig"]
        assert config["ReadonlyRootfs"] is True
        assert config["Privileged"] is False
        assert config["CapDrop"] == ["ALL"]
        assert "no-new-privileges:true" in config["SecurityOpt"]
        if item["Name"] != "/dn42-router":
            assert not config["CapAdd"]
            assert item["Config"]["User"] not in ("", "0", "root")


@pytest.mark.parametrize("node", NODES)
def test_each_process_of_the_router_has_only_its_own_capabilities(lab: Lab, node: str) -> None:
    """BIRD cannot enter the host's namespace, the keeper cannot open raw sockets."""
    sys_admin, net_admin, net_raw = 1 << 21, 1 << 12, 1 << 13
    status = lab.run(node, "docker", "exec", "dn42-router", "sh", "-c", "grep -H -E '^(Name|Uid|CapEff):' /proc/[0-9]*/status").stdout
    effective: dict[str, int] = {}
    names: dict[str, str] = {}
    for line in status.splitlines():
        path, key, value = line.split(":", 2)
        if key == "Name":
            names[path] = value.strip()
        elif key == "CapEff" and names[path] != "sh":
            effective[names[path]] = int(value, 16)
    assert effective["bird"] & net_admin
    assert not effective["bird"] & sys_admin
    keeper = next(value for name, value in effective.items() if name.startswith(("python3", "keeper", "tunnel-keeper")))
    assert keeper & sys_admin
    assert not keeper & net_raw


@pytest.mark.parametrize("node", NODES)
def test_private_key_is_nowhere_but_in_its_file(lab: Lab, node: str) -> None:
    """B64: not in a command line, not in the container's description, not readable by others."""
    directory = "/opt/dn42/secrets/router"
    key = lab.run(node, "cat", f"{directory}/private.key").stdout.strip()
    assert len(key) == 44
    assert lab.run(node, "stat", "-c", "%a", directory, f"{directory}/private.key").stdout.split() in (["700", "400"], ["700", "600"])
    for argv in (["docker", "inspect", "dn42-router"], ["ps", "axwwe"], ["grep", "-rF", key, "/opt/dn42/services", "/opt/dn42/compose.yaml"]):
        assert key not in lab.run(node, *argv, check=False).stdout
