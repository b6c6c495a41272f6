# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What DN42 can reach is what we meant it to reach, and the router knows no way to the Internet."""

from __future__ import annotations

import contextlib
import ipaddress
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from network_probe import Lab, wait_for
from support import NODES, playbook, wait_for_node

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
    lab.run("fra1", "systemctl", "stop", "dn42-guard.service")
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
    shown = json.loads(lab.run(node, "docker", "inspect", "dn42-router", "dn42-dns", "dn42-looking-glass", "dn42-rpki").stdout)
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


SOURCES = {  # somebody's outside of DN42, and our own, both from behind a peer
    "172.22.200.80": ["198.51.100.7", "172.23.255.60"],
    "fdc0:ffee:9002::80": ["2001:db8:bad::1", "fd99:4242:1:ffff::1"],
}


@pytest.mark.parametrize("good", SOURCES)
def test_spoofed_sources_end_in_the_router(lab: Lab, good: str) -> None:
    """A container counts what it was asked; only the honest source's questions arrive."""
    address = lab.addresses("fra1", "dn42-dns")[":" in good]

    def asked() -> int:
        if ":" in good:
            text = lab.run("fra1", "docker", "exec", "dn42-dns", "cat", "/proc/net/snmp6").stdout
            return int(dict(line.split() for line in text.splitlines())["Icmp6InEchos"])
        text = lab.run("fra1", "docker", "exec", "dn42-dns", "cat", "/proc/net/snmp").stdout
        names, values = (line.split() for line in text.splitlines() if line.startswith("Icmp:"))
        return int(dict(zip(names, values))["InEchos"])

    def ping(source: str) -> None:
        lab.run("peer1", "ip", "addr", "add", source, "dev", "lo", check=False)
        lab.run("peer1", "ping", "-n", "-c", "2", "-i", "0.3", "-W", "1", "-I", source, address, check=False)

    before = asked()
    for source in SOURCES[good]:
        try:
            ping(source)
        finally:
            lab.run("peer1", "ip", "addr", "del", source, "dev", "lo", check=False)
    assert asked() == before
    lab.run("peer1", "ping", "-n", "-c", "2", "-i", "0.3", "-W", "2", "-I", good, address)
    assert asked() != before


@pytest.mark.parametrize("node", NODES)
def test_private_key_is_nowhere_but_in_its_file(lab: Lab, node: str) -> None:
    """B64: not in a command line, not in the container's description, not readable by others."""
    directory = "/opt/dn42/secrets/router"
    key = lab.run(node, "cat", f"{directory}/private.key").stdout.strip()
    assert len(key) == 44
    assert lab.run(node, "stat", "-c", "%a", directory, f"{directory}/private.key").stdout.split() in (["700", "400"], ["700", "600"])
    for argv in (["docker", "inspect", "dn42-router"], ["ps", "axwwe"], ["grep", "-rF", key, "/opt/dn42/services", "/opt/dn42/compose.yaml"]):
        assert key not in lab.run(node, *argv, check=False).stdout


# --- the scan from peer1 --------------------------------------------------------------------------------------------------

SCAN = """
import asyncio, json, sys

PROBES = {  # SOA of peer1.dn42; an NTP client's packet; SNMP's get-request for sysDescr
    53: bytes.fromhex("12340000000100000000000005706565723104646e34320000060001"),
    123: b"\\x23" + bytes(47),
    161: bytes.fromhex("302602010104067075626c6963a019020400000001020100020100300b300906052b060102010500"),
}


async def tcp(address, port, limit, found):
    async with limit:
        try:
            # Long enough for a second SYN, sent after one second.
            _reader, writer = await asyncio.wait_for(asyncio.open_connection(address, port), 2.5)
            found.append([address, "tcp", port])
            writer.close()
        except (OSError, asyncio.TimeoutError):
            pass


class Ear(asyncio.DatagramProtocol):
    def __init__(self, heard):
        self.heard = heard

    def datagram_received(self, data, address):
        self.heard.set()


async def udp(address, port, found):
    heard = asyncio.Event()
    try:
        transport, _ear = await asyncio.get_running_loop().create_datagram_endpoint(lambda: Ear(heard), remote_addr=(address, port))
    except OSError:
        return
    for _attempt in range(3):
        transport.sendto(PROBES[port])
        try:
            await asyncio.wait_for(heard.wait(), 1.5)
            found.append([address, "udp", port])
            break
        except asyncio.TimeoutError:
            pass
    transport.close()


async def main(addresses):
    found, limit = [], asyncio.Semaphore(700)
    probes = [tcp(address, port, limit, found) for port in range(1, 1025) for address in addresses]
    await asyncio.gather(*probes, *(udp(address, port, found) for address in addresses for port in PROBES))
    print(json.dumps(found))


asyncio.run(main(sys.argv[1:]))
"""


def scan(lab: Lab, addresses: list[str]) -> set[tuple[str, str, int]]:
    """What answers peer1 at these addresses: the first 1024 TCP ports, and 53, 123 and 161/udp."""
    done = lab.run("peer1", "python3", "-c", SCAN, *addresses, timeout=300)
    return {(address, protocol, port) for address, protocol, port in json.loads(done.stdout)}


def block_of(lab: Lab, node: str) -> list[str]:
    """Every IPv4 address of a node's block, and as many at the beginning of its IPv6 block, where the same offsets are."""
    ipv4, ipv6 = (ipaddress.ip_network(item["Subnet"]) for item in json.loads(lab.run(node, "docker", "network", "inspect", "dn42").stdout)[0]["IPAM"]["Config"])
    return [str(network[offset]) for network in (ipv4, ipv6) for offset in range(ipv4.num_addresses)]


@contextlib.contextmanager
def neighbours(lab: Lab, node: str) -> Iterator[str]:
    """What a real server has beside the node: a container on another network with a published port, and services of the host on 123 and 161/udp."""
    answer = "import socket,sys; s=socket.socket(socket.AF_INET6,socket.SOCK_DGRAM); s.bind(('::',int(sys.argv[1])))\nwhile 1: m,a=s.recvfrom(999); s.sendto(m,a)"
    serve = "use IO::Socket::INET; $s=IO::Socket::INET->new(LocalPort=>80,Listen=>9,ReuseAddr=>1) or die; while($c=$s->accept){close $c}"
    try:
        for port in ("123", "161"):
            lab.run(node, "systemd-run", "-q", f"--unit=lab-udp-{port}", "python3", "-c", answer, port)
        lab.run(node, "docker", "network", "create", "other")
        image = "debian:trixie-slim"
        lab.run(node, "docker", "run", "-d", "--init", "--name", "other", "--network", "other", "-p", "880:80", image, "perl", "-e", serve)
        shown = json.loads(lab.run(node, "docker", "inspect", "other").stdout)[0]
        yield shown["NetworkSettings"]["Networks"]["other"]["IPAddress"]
    finally:
        lab.run(node, "sh", "-c", "docker rm -f other; docker network rm other; systemctl stop lab-udp-123 lab-udp-161", check=False)


def test_scan_from_a_peer_finds_what_is_meant_to_be_open(lab: Lab) -> None:
    """Every address of the block and a container on another network; and with the guard unloaded, what the host has, so that this can fail."""
    dns, glass = (lab.addresses("fra1", f"dn42-{name}") for name in ("dns", "looking-glass"))
    router = block_of(lab, "fra1")[2:4] + block_of(lab, "fra1")[10:12]
    meant = {(address, protocol, 53) for address in dns for protocol in ("tcp", "udp")} | {(address, "tcp", 80) for address in glass}
    host = host_addresses_in_dn42(lab, "fra1")
    with neighbours(lab, "fra1") as other, host_with_a_way_back(lab, "fra1"):
        lab.run("peer1", "ip", "route", "add", other, "dev", "wg-fra1")
        try:
            found = scan(lab, [*block_of(lab, "fra1"), other])
            # BGP is open on the router's own addresses; who is no declared neighbour is hung up on.
            assert found - {(address, "tcp", 179) for address in router} == meant
            lab.run("fra1", "systemctl", "stop", "dn42-guard.service")
            bare = scan(lab, host)
        finally:
            lab.run("peer1", "ip", "route", "del", other)
            lab.run("fra1", "systemctl", "restart", "dn42-guard.service")
    for address in host:
        assert {(address, "tcp", 22), (address, "udp", 123), (address, "udp", 161)} <= bare
    # Docker itself keeps its IPv4 networks apart; its proxy for IPv6 lets everybody in.
    assert (next(address for address in host if ":" in address), "tcp", 880) in bare


# --- the guard stays, and fails closed ------------------------------------------------------------------------------------


def guarded(lab: Lab, node: str) -> bool:
    """Whether the guard's rules are loaded."""
    return "from_dn42" in lab.run(node, "nft", "list", "table", "inet", "dn42_guard", check=False).stdout


def test_nftables_service_does_not_take_the_guard_along(lab: Lab) -> None:
    """Its configuration and its end flush everything; Docker's and firewalld's rules come back by a restart."""
    lab.run("fra1", "sh", "-c", "cp /etc/nftables.conf /etc/nftables.conf.lab; printf 'flush ruleset\\n' > /etc/nftables.conf")
    try:
        for action in ("start", "reload", "restart", "stop"):
            lab.run("fra1", "nft", "add", "table", "inet", "somebody")
            lab.run("fra1", "systemctl", action, "nftables.service")
            assert "somebody" not in lab.run("fra1", "nft", "list", "tables").stdout, f"{action}: nothing was flushed, so this proves nothing"
            assert guarded(lab, "fra1"), action
    finally:
        lab.run(
            "fra1",
            "sh",
            "-c",
            "systemctl stop nftables; mv /etc/nftables.conf.lab /etc/nftables.conf; systemctl restart firewalld; systemctl reset-failed; systemctl restart docker",
        )
        wait_for_node(lab, "fra1")


def test_guard_is_back_when_somebody_flushes_all_rules(lab: Lab) -> None:
    """By hand, or by running his /etc/nftables.conf, without any unit that could tell; firewalld's and Docker's rules need a restart."""
    try:
        for attempt in range(3):
            lab.run("fra1", "sh", "-c", "nft add table inet somebody; nft flush ruleset")
            assert "somebody" not in lab.run("fra1", "nft", "list", "tables").stdout
            # It takes milliseconds; this is the time that a busy machine may need.
            wait_for(f"the guard after flush {attempt}", lambda: guarded(lab, "fra1"), 20, 0.1)
    finally:
        lab.run("fra1", "sh", "-c", "systemctl restart firewalld; systemctl reset-failed; systemctl restart docker", timeout=120)
        wait_for_node(lab, "fra1")


def test_stopped_guard_stays_stopped(lab: Lab) -> None:
    """Whoever stops the unit means it."""
    lab.run("fra1", "systemctl", "stop", "dn42-guard.service")
    try:
        lab.run("fra1", "sh", "-c", "nft add table inet somebody; nft delete table inet somebody; sleep 3")
        assert not guarded(lab, "fra1")
    finally:
        lab.run("fra1", "systemctl", "start", "dn42-guard.service")
    assert guarded(lab, "fra1")
    assert lab.run("fra1", "systemctl", "is-active", "dn42-guard-watch.service").stdout.strip() == "active"


def test_guard_survives_firewalld_docker_and_its_absence(lab: Lab) -> None:
    """Reload of firewalld, restart of Docker, firewalld gone and back."""
    lab.run("fra1", "systemctl", "reset-failed", check=False)
    for command in (["firewall-cmd", "--reload"], ["systemctl", "restart", "docker"], ["systemctl", "stop", "firewalld"], ["systemctl", "start", "firewalld"]):
        lab.run("fra1", *command, timeout=120)
        assert guarded(lab, "fra1"), " ".join(command)
    wait_for_node(lab, "fra1")


def test_router_stops_when_the_guard_cannot_be_loaded(lab: Lab) -> None:
    """Docker and the host's other containers go on; the way into DN42 does not."""
    wait_for("the router", lambda: lab.run("fra1", "docker", "inspect", "-f", "{{.State.Running}}", "dn42-router").stdout.strip() == "true", 60)
    lab.run("fra1", "sh", "-c", "cp /etc/dn42/guard.nft /run/guard.lab; echo nonsense >> /etc/dn42/guard.nft; systemctl restart dn42-guard", check=False)
    try:
        assert not guarded(lab, "fra1")
        wait_for("the router to be stopped", lambda: lab.run("fra1", "docker", "inspect", "-f", "{{.State.Running}}", "dn42-router").stdout.strip() == "false", 60)
        assert lab.run("fra1", "docker", "inspect", "-f", "{{.State.Running}}", "dn42-dns").stdout.strip() == "true"
    finally:
        lab.run("fra1", "sh", "-c", "cp /run/guard.lab /etc/dn42/guard.nft; systemctl restart dn42-guard; docker start dn42-router")
        wait_for_node(lab, "fra1")


# --- the host's own way into DN42 -----------------------------------------------------------------------------------------


def host_access(lab: Lab, node: str, directory: Path, wanted: bool) -> None:
    """Run the role firewall alone with dn42_firewall_host_access."""
    dns, block = lab.addresses(node, "dn42-dns"), block_of(lab, node)
    declared = json.loads(lab.run(node, "cat", "/opt/dn42/services/router/current/tunnels.json").stdout)
    variables = {
        "dn42_firewall_udp_ports": sorted(tunnel["listen_port"] for tunnel in declared["tunnels"]),
        "dn42_firewall_host_access": wanted,
        "dn42_firewall_host_gateways": [block[2], block[len(block) // 2 + 2]],
        "dn42_firewall_host_resolvers": list(dns),
    }
    play = directory / "access.yml"
    task = {"ansible.builtin.import_role": {"name": "dn42.compose.firewall"}, "vars": variables}
    play.write_text(json.dumps([{"hosts": node, "gather_facts": False, "become": True, "tasks": [task]}]))
    playbook(str(play))


def reached_from_host(lab: Lab, node: str) -> list[bool]:
    """Whether the host itself gets answers from behind peer1, in both families."""
    pings = (["ping", "-n", "-c", "2", "-i", "0.3", "-W", "2", address] for address in ("172.22.200.80", "fdc0:ffee:9002::80"))
    return [lab.run(node, *argv, check=False).returncode == 0 for argv in pings]


def test_host_uses_dn42_when_wanted_and_dn42_still_not_the_host(lab: Lab, tmp_path: Path) -> None:
    """Over a restart of Docker and a reboot, and no longer when it is taken back."""
    assert reached_from_host(lab, "fra1") == [False, False]
    host_access(lab, "fra1", tmp_path, True)
    try:
        wait_for("the host's way", lambda: reached_from_host(lab, "fra1") == [True, True], 30)
        lab.run("fra1", "sh", "-c", "systemctl reset-failed; systemctl restart docker", timeout=120)
        wait_for("the host's way after Docker's restart", lambda: reached_from_host(lab, "fra1") == [True, True], 120)
        lab.lab("reboot", "fra1")
        wait_for_node(lab, "fra1")
        wait_for("the host's way after a reboot", lambda: reached_from_host(lab, "fra1") == [True, True], 60)
        assert guarded(lab, "fra1")
        for address in host_addresses_in_dn42(lab, "fra1"):
            assert http_status(lab, address, PRIVATE_PORT) == "000", f"over DN42 at {address}"
    finally:
        host_access(lab, "fra1", tmp_path, False)
    assert reached_from_host(lab, "fra1") == [False, False]
    assert "proto 242" not in lab.run("fra1", "sh", "-c", "ip -4 route; ip -6 route").stdout
