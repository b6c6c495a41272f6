# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything that keeps a host from being a node is named, with the way out, and nothing else is."""

from __future__ import annotations

import copy
import json
from typing import Any, Callable

import pytest
from ansible_collections.dn42.compose.plugins.module_utils import _host

GOOD: dict[str, Any] = {
    "systemd": True,
    "distribution": {"id": "debian", "like": [], "version": "13", "major": 13, "codename": "trixie", "name": "Debian 13"},
    "kernel": {"release": "6.12", "wireguard": "loadable", "tun": True, "ipv6": True, "ipv6_forwarding": False},
    "docker": {
        "installed": True,
        "missing": [],
        "podman": False,
        "running": True,
        "enabled": True,
        "version": "26.1.5+dfsg1",
        "compose_version": "2.26.1-4",
        "root": "/var/lib/docker",
        "networks": [{"name": "bridge", "driver": "bridge", "project": None, "subnets": ["172.17.0.0/16"], "bridge": "docker0", "ours": False}],
    },
    "architecture": "x86_64",
    "firewalld": {
        "installed": True,
        "running": True,
        "version": "2.3.1",
        "backend": "nftables",
        "ipv6_rpfilter": "strict",
        "check": "strict",
        "strict_forward_ports": False,
        "bridge_zone": "docker",
        "bridge_zones": [],
        "drops_bridged_ipv6": True,
    },
    "bridge_nf_call_ip6tables": 1,
    "ufw": {"active": False, "udp_ports": [], "forwards": False, "bridges": []},
    "base_chains": [],
    "clock": {"time": 1000.0, "synchronised": True},
    "interfaces": ["br-dn42", "docker0", "eth0", "lo"],
    "addresses": [
        {"interface": "eth0", "address": "203.0.113.11", "prefix": "203.0.113.0/24"},
        {"interface": "br-dn42", "address": "172.23.255.1", "prefix": "172.23.255.0/29"},
        {"interface": "docker0", "address": "172.17.0.1", "prefix": "172.17.0.0/16"},
    ],
    "default_routes": [],
    "routes": [],
    "ra_interfaces": [],
    "udp": [{"port": 22900, "address": "*", "process": None, "pid": None}],
    "own_udp_ports": [22900],
    "disk_free": {"/opt/dn42": 10 * 1024**3},
    "stack": {"public_key": ""},
}
WANTED: dict[str, Any] = {
    "userspace": False,
    "blocks": ["172.23.255.0/29", "fd99:4242:1::/64"],
    "pools": ["172.23.255.0/26", "fd99:4242:1::/48"],
    "interfaces": ["wg-peer1"],
    "udp_ports": [22900, 22901],
    "docker_source": "distro",
    "bridge": "br-dn42",
}


def network(name: str, subnet: str, bridge: str | None = "br-0123456789ab") -> dict[str, Any]:
    """Return a Docker network as the facts have it."""
    return {"name": name, "driver": "bridge", "project": None, "subnets": [subnet], "bridge": bridge, "ours": name == "dn42"}


def host_route(prefix: str, interface: str | None = "wg0", protocol: str = "static") -> dict[str, Any]:
    """Return a route of the host as the facts have it."""
    return {"family": "ipv6" if ":" in prefix else "ipv4", "prefix": prefix, "interface": interface, "gateway": None, "protocol": protocol}


def absent(host: dict[str, Any]) -> None:
    """Take Docker away."""
    host["docker"].update(installed=False, missing=["cli", "compose", "engine"], running=False, version=None, compose_version=None)


def debian12(host: dict[str, Any]) -> None:
    """Make the host a Debian 12 without Docker."""
    absent(host)
    host["distribution"].update(version="12", major=12, name="Debian 12")


def ubuntu(host: dict[str, Any]) -> None:
    """Make the host an Ubuntu."""
    host["distribution"].update(id="ubuntu", major=24, version="24.04", name="Ubuntu 24.04")


Change = Callable[[dict[str, Any]], Any]

# name, change to the good host, change to what is wanted, words of each problem in order
CASES: list[tuple[str, Change | None, dict[str, Any], list[list[str]]]] = [
    ("good", None, {}, []),
    ("before the address plan", None, {"blocks": [], "pools": []}, []),
    ("bare Debian 13", absent, {}, []),
    ("bare testing", lambda h: (absent(h), h["distribution"].update(version=None, major=None)), {}, []),
    ("bare Debian 12", debian12, {}, [["Debian 12 has no Compose v2", "docker-compose-plugin", "upgrade to Debian 13"]]),
    ("Debian 12 with upstream Docker", lambda h: h["distribution"].update(version="12", major=12), {}, []),
    ("Debian 12 with its own Docker", lambda h: (h["distribution"].update(major=12), h["docker"].update(version="20.10.24+dfsg1", compose_version=None)), {},
     [["Compose v2 is missing", "Debian 12"], ["Docker 20.10.24", "too old"]]),
    ("bare Ubuntu", lambda h: (absent(h), ubuntu(h)), {}, [["only on Debian 13", "Ubuntu 24.04"]]),
    ("Ubuntu with Docker", ubuntu, {}, []),
    ("source none, nothing there", absent, {"docker_source": "none"}, [["dn42_docker_source is none"]]),
    ("source none, stopped", lambda h: h["docker"].update(running=False), {"docker_source": "none"}, [["does not run"]]),
    ("source distro, stopped", lambda h: h["docker"].update(running=False), {}, []),
    ("podman's docker", lambda h: h["docker"].update(podman=True, installed=False, version=None, compose_version=None), {}, [["podman-docker"]]),
    ("old Compose", lambda h: h["docker"].update(compose_version="2.19.1"), {}, [["Compose 2.19.1", "2.20"]]),
    ("no systemd", lambda h: h.update(systemd=False), {}, [["systemd"]]),
    ("no IPv6", lambda h: h["kernel"].update(ipv6=False), {}, [["without IPv6", "ipv6.disable=1"]]),
    ("no WireGuard", lambda h: h["kernel"].update(wireguard="absent"), {}, [["has no WireGuard", "dn42_router_userspace: true"]]),
    ("no WireGuard, user space", lambda h: h["kernel"].update(wireguard="absent"), {"userspace": True}, []),
    ("user space without tun", lambda h: h["kernel"].update(tun=False), {"userspace": True}, [["/dev/net/tun"]]),
    ("Docker network on our block", lambda h: h["docker"]["networks"].append(network("shop", "172.23.0.0/16")), {}, [["network shop", "172.23.255.0/29", "docker network rm"]]),
    ("Docker network on our pool", lambda h: h["docker"]["networks"].append(network("v6", "fd99:4242:1:7::/64")), {}, [["network v6", "fd99:4242:1::/48"]]),
    ("our own network", lambda h: h["docker"]["networks"].append(network("dn42", "172.23.255.0/29", "br-dn42")), {}, []),
    ("our own network on another bridge", lambda h: h["docker"]["networks"].append(network("dn42", "172.23.255.0/29", "br-old")), {}, []),
    ("address on our block", lambda h: h["addresses"].append({"interface": "dummy0", "address": "172.23.255.2", "prefix": "172.23.255.2/32"}), {},
     [["172.23.255.2 on dummy0"]]),
    ("route inside our pool", lambda h: h["routes"].append(host_route("172.23.255.32/27")), {}, [["172.23.255.32/27 through wg0", "172.23.255.0/26", "ip route del"]]),
    ("our pool leads nowhere", lambda h: h["routes"].append(host_route("fd99:4242:1::/48", None, "bird")), {}, [["to nowhere (protocol bird)", "fd99:4242:1::/48"]]),
    ("wider route", lambda h: h["routes"].append(host_route("172.20.0.0/14")), {}, []),
    ("route to our bridge", lambda h: h["routes"].append(host_route("172.23.255.0/29", "br-dn42")), {}, []),
    ("interface taken", lambda h: h["interfaces"].append("wg-peer1"), {}, [["wg-peer1", "ip link delete"]]),
    ("port taken by a program", lambda h: h["udp"].append({"port": 22901, "address": "0.0.0.0", "process": "openvpn", "pid": 7}), {}, [["22901", "openvpn (pid 7)"]]),
    ("port taken by the host's WireGuard", lambda h: h["udp"].append({"port": 22901, "address": "*", "process": None, "pid": None}), {}, [["22901", "kernel"]]),
    ("own port taken by a program", lambda h: h["udp"].append({"port": 22900, "address": "127.0.0.1", "process": "x", "pid": 9}), {}, [["22900", "x (pid 9)"]]),
    ("own wireguard-go", lambda h: h["udp"].append({"port": 22900, "address": "*", "process": "wireguard-go", "pid": 9}), {}, []),
    ("bridge in another zone", lambda h: h["firewalld"].update(bridge_zones=["trusted"]), {}, [["zone trusted", "--zone=trusted --remove-interface=br-dn42"]]),
    ("bridge in Docker's zone", lambda h: h["firewalld"].update(bridge_zones=["docker"]), {}, []),
    ("disk full", lambda h: h["disk_free"].update({"/var/lib/docker": 1024**3}), {}, [["/var/lib/docker has 1024 MiB free; images and releases need 2048 MiB"]]),
    ("disk nearly full, on a node", lambda h: h.update(disk_free={"/": 1024**3}, stack={"public_key": "k"}), {}, []),
    ("disk full, on a node", lambda h: h.update(disk_free={"/": 1024**2}, stack={"public_key": "k"}), {}, [["/ has 1 MiB free; images and releases need 256 MiB"]]),
    ("all at once", lambda h: (debian12(h), h.update(systemd=False), h["kernel"].update(wireguard="absent", ipv6=False)), {},
     [["systemd"], ["IPv6"], ["WireGuard"], ["Debian 12"]]),
]  # fmt: skip


@pytest.mark.parametrize(("change", "wanted", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_problems(change: Change | None, wanted: dict[str, Any], expected: list[list[str]]) -> None:
    host = copy.deepcopy(GOOD)
    if change is not None:
        change(host)
    found = _host.problems(host, {**WANTED, **wanted})
    assert len(found) == len(expected), found
    for text, words in zip(found, expected):
        assert all(word in text for word in words), text


def test_bad_prefix_is_refused() -> None:
    with pytest.raises(ValueError, match=r"172\.23\.255\.1/29"):
        _host.problems(GOOD, {"blocks": ["172.23.255.1/29"]})


def test_dn42_space_is_a_warning() -> None:
    host = copy.deepcopy(GOOD)
    host["docker"]["networks"] += [network("t4", "172.20.0.0/16"), network("lan", "fd12:3456:789a::/64")]
    found = _host.warnings(host, WANTED)
    assert len(found) == 1 and "t4 (172.20.0.0/16) lies in DN42's 172.20.0.0/14" in found[0]
    assert _host.problems(host, WANTED) == []


def test_the_fetchers_network_in_dn42_is_cured_by_other_pools() -> None:
    host = copy.deepcopy(GOOD)
    host["docker"]["networks"].append(network("dn42-egress", "172.22.0.0/16", "br-dn42-egress"))
    (found,) = _host.warnings(host, WANTED)
    assert "Docker network dn42-egress (172.22.0.0/16) lies in DN42's 172.20.0.0/14" in found
    assert "dn42_docker_address_pools" in found


def test_networks_that_docker_made_by_itself() -> None:
    """B13: `for i in $(seq 1 5); do docker network create t$i; done`, then a node with 172.20.77.0/26."""
    host = copy.deepcopy(GOOD)
    host["docker"]["networks"] += [network(f"t{number}", f"172.{17 + number}.0.0/16", f"br-{number}") for number in range(1, 6)]
    wanted = {**WANTED, "blocks": ["172.20.77.0/29"], "pools": ["172.20.77.0/26"]}
    refused, told = _host.problems(host, wanted), _host.warnings(host, wanted)
    assert refused == ["Docker network t3 (172.20.0.0/16) overlaps this network's 172.20.77.0/29. Remove it (docker network rm t3) or recreate it with a subnet outside DN42."]
    assert [text.split(":")[0] for text in told] == [f"Docker network t{number} (172.{17 + number}.0.0/16) lies in DN42's 172.20.0.0/14" for number in (4, 5)]


def test_ways_of_the_host_itself_into_dn42_are_told_once_for_each_interface() -> None:
    host = copy.deepcopy(GOOD)
    host["routes"] += [host_route(f"172.20.{number}.0/24", "wg0", "bird") for number in range(5)]
    host["routes"] += [host_route("10.0.0.0/8", "tun0"), host_route("192.168.0.0/24", "tun1"), host_route("fd12:3456::/32", "tun1")]
    found = _host.warnings(host, WANTED)
    assert [text.partition("DN42's space ")[2].partition(". ")[0] for text in found] == [
        "through tun0 (10.0.0.0/8)",
        "through wg0 (172.20.0.0/24, 172.20.1.0/24, 172.20.2.0/24 and 2 more)",
    ]


@pytest.mark.parametrize(("accept_ra", "forwarding", "warned"), [(1, True, True), (2, True, False), (1, False, False)])
def test_route_from_advertisement_is_running_out(accept_ra: int, forwarding: bool, warned: bool) -> None:
    """Before Docker switches forwarding on there is nothing to say: the run is in time."""
    host = copy.deepcopy(GOOD)
    host["kernel"]["ipv6_forwarding"] = forwarding
    host["ra_interfaces"] = [{"name": "eth0.7", "accept_ra": accept_ra}]
    found = _host.warnings(host, WANTED)
    assert bool(found) is warned
    assert all("net/ipv6/conf/eth0.7/accept_ra to 2" in text for text in found)


def route(interface: str, accept_ra: int | None, protocol: str = "ra", family: str = "ipv6") -> dict[str, Any]:
    """Return a default route as the facts have it."""
    return {"family": family, "gateway": "fe80::1", "interface": interface, "protocol": protocol, "accept_ra": accept_ra}


@pytest.mark.parametrize(
    ("routes", "kept", "expected"),
    [
        ([], {}, []),
        ([route("eth1", 2), route("eth0.7", 1), route("eth0.7", 1)], {}, [("eth0.7", 1), ("eth1", 2)]),
        # A program handles the advertisements, the route is an operator's own, the interface went away meanwhile.
        ([route("eth0", 0), route("eth1", 1, "static"), route("eth2", None)], {}, []),
        # The file's interfaces: silent router, changed by hand, now a program's, gone.
        ([route("eth0", 1)], {"eth1": 2, "eth2": 1, "eth3": 0, "eth4": None}, [("eth0", 1), ("eth1", 2), ("eth2", 1)]),
    ],
    ids=["none", "sorted", "not the kernel's", "kept"],
)
def test_ra_interfaces(routes: list[dict[str, Any]], kept: dict[str, int | None], expected: list[tuple[str, int]]) -> None:
    """Only interfaces on which the kernel itself heeds router advertisements, and those that had the setting from us."""
    assert [(entry["name"], entry["accept_ra"]) for entry in _host.ra_interfaces(routes, kept)] == expected


def test_accept_ra_file() -> None:
    text = "# a comment\nnet/ipv6/conf/eth1/accept_ra = 2\nnet/ipv6/conf/eth0.7/accept_ra = 2\n#net/ipv6/conf/eth2/accept_ra = 2\n"
    assert _host.parse_accept_ra(text) == ["eth0.7", "eth1"]
    assert _host.parse_accept_ra("") == []


def test_ss() -> None:
    text = (
        'UNCONN 0 0 127.0.0.53%lo:53 0.0.0.0:* users:(("systemd-resolve",pid=34,fd=17))\n'
        "UNCONN 0 0 0.0.0.0:22900 0.0.0.0:*\n"
        "UNCONN 0 0 [::]:22900 [::]:*\n"
        'UNCONN 0 0 *:51820 *:* users:(("wireguard-go",pid=99,fd=5),("wireguard-go",pid=98,fd=5))\n'
    )
    assert [(s["port"], s["address"], s["process"], s["pid"]) for s in _host.parse_ss(text)] == [
        (53, "127.0.0.53%lo", "systemd-resolve", 34),
        (22900, "0.0.0.0", None, None),
        (22900, "::", None, None),
        (51820, "*", "wireguard-go", 99),
    ]


def test_os_release() -> None:
    found = _host.parse_os_release('ID=debian\nVERSION_ID="13"\nVERSION_CODENAME=trixie\nPRETTY_NAME="Debian GNU/Linux 13 (trixie)"\n')
    assert (found["id"], found["major"], found["codename"]) == ("debian", 13, "trixie")
    rolling = _host.parse_os_release("ID=debian\nVERSION_CODENAME=forky\nPRETTY_NAME='Debian GNU/Linux forky/sid'\n")
    assert (rolling["major"], rolling["version"]) == (None, None)


def test_addresses_and_routes() -> None:
    links = [{"ifname": "eth0", "addr_info": [{"local": "203.0.113.11", "prefixlen": 24}, {"local": "fe80::1", "prefixlen": 64}]}, {}]
    names, addresses = _host.parse_addresses(json.dumps(links))
    assert names == ["eth0"]
    assert [entry["prefix"] for entry in addresses] == ["203.0.113.0/24", "fe80::/64"]
    routes = _host.parse_default_routes('[{"dst":"default","gateway":"fe80::1","dev":"eth0","protocol":"ra"}]', "ipv6")
    assert routes == [{"family": "ipv6", "gateway": "fe80::1", "interface": "eth0", "protocol": "ra"}]
    assert _host.parse_default_routes("", "ipv4") == []


def test_routes() -> None:
    text = json.dumps(
        [
            {"dst": "172.20.0.0/14", "gateway": "10.0.0.1", "dev": "wg0", "protocol": "bird"},
            {"dst": "172.23.255.9", "dev": "wg1", "protocol": "static"},
            {"dst": "172.23.255.0/29", "dev": "br-dn42", "protocol": "kernel"},
            {"type": "blackhole", "dst": "172.23.255.0/26", "protocol": "bird"},
            {"dst": "172.22.0.0/16", "protocol": "static", "nexthops": [{"gateway": "10.0.0.2", "dev": "eth1"}, {"gateway": "10.0.0.3", "dev": "eth2"}]},
        ]
    )
    assert [(route["prefix"], route["interface"], route["gateway"]) for route in _host.parse_routes(text, "ipv4")] == [
        ("172.20.0.0/14", "wg0", "10.0.0.1"),
        ("172.22.0.0/16", "eth1", "10.0.0.2"),
        ("172.23.255.0/26", None, None),
        ("172.23.255.9/32", "wg1", None),
    ]
    assert _host.parse_routes("", "ipv6") == []


def test_docker_networks() -> None:
    answer = [
        {"Name": "dn42", "Id": "ab" * 32, "Driver": "bridge", "Options": {"com.docker.network.bridge.name": "br-dn42"},
         "IPAM": {"Config": [{"Subnet": "fd99:4242:1::/64"}, {"Subnet": "172.23.255.0/29"}]}, "Labels": {"com.docker.compose.project": "dn42"}},
        {"Name": "app", "Id": "0123456789abcdef", "Driver": "bridge", "Options": None, "IPAM": {"Config": None}, "Labels": None},
        {"Name": "host", "Id": "00", "Driver": "host", "IPAM": None},
    ]  # fmt: skip
    found = _host.docker_networks(answer)
    assert [(item["name"], item["bridge"], item["subnets"]) for item in found] == [
        ("app", "br-0123456789ab", []),
        ("dn42", "br-dn42", ["172.23.255.0/29", "fd99:4242:1::/64"]),
        ("host", None, []),
    ]
    assert found[1]["project"] == "dn42"
    assert [item["ours"] for item in found] == [False, True, False]


def test_good_host_has_nothing_to_say() -> None:
    assert _host.warnings(GOOD, WANTED) == []


UFW = {"active": True, "udp_ports": [22900, 22901], "forwards": False, "bridges": []}
IP6_FORWARD = {"family": "ip6", "table": "filter", "name": "FORWARD", "hook": "forward", "policy": "drop"}


@pytest.mark.parametrize(
    ("change", "texts"),
    [
        ({"ufw": {**UFW, "udp_ports": [22900], "bridges": ["br-dn42"]}}, [["ufw allow 22901/udp"]]),
        ({"ufw": {**UFW, "bridges": ["br-dn42"]}}, []),
        ({"ufw": UFW}, [["ufw route allow in on br-dn42 out on br-dn42"]]),
        ({"ufw": {**UFW, "forwards": True}}, []),
        ({"ufw": UFW, "bridge_nf_call_ip6tables": 0}, []),
        ({"ufw": UFW, "docker": {**GOOD["docker"], "version": "28.5.2"}}, []),
        ({"base_chains": [{"family": "inet", "table": "mine", "name": "in", "hook": "input", "policy": "drop"}]}, [["inet mine in", "22900, 22901"]]),
        ({"base_chains": [{"family": "inet", "table": "mine", "name": "in", "hook": "input", "policy": "accept"}]}, []),
        ({"base_chains": [{"family": "inet", "table": "mine", "name": "fwd", "hook": "forward", "policy": "drop"}]}, [["inet mine fwd", 'iifname "br-dn42"']]),
        ({"base_chains": [{"family": "ip", "table": "filter", "name": "FORWARD", "hook": "forward", "policy": "drop"}]}, []),
        ({"base_chains": [IP6_FORWARD]}, [["ip6 filter FORWARD", 'iifname "br-dn42"']]),
        ({"base_chains": [IP6_FORWARD], "docker": {**GOOD["docker"], "version": "28.5.2"}}, []),
    ],
)
def test_what_to_open_in_a_firewall_that_is_not_ours(change: dict[str, Any], texts: list[list[str]]) -> None:
    host = copy.deepcopy(GOOD)
    host["firewalld"].update(running=False, installed=False)
    host.update(change)
    found = _host.warnings(host, WANTED)
    assert len(found) == len(texts), found
    for words, text in zip(texts, found):
        assert all(word in text for word in words), text


@pytest.mark.parametrize(("synchronised", "ahead", "said"), [(True, 30, False), (True, -90, True), (False, 30, False), (False, 90, True), (None, 90, True)])
def test_clock(synchronised: bool | None, ahead: float, said: bool) -> None:
    host = copy.deepcopy(GOOD)
    host["clock"]["synchronised"] = synchronised
    found = _host.warnings(host, {**WANTED, "controller_time": 1000.0 - ahead})
    assert bool(found) is said


def test_table_marks_the_row_of_a_problem_and_only_that() -> None:
    host = copy.deepcopy(GOOD)
    host["disk_free"] = {"/opt/dn42": 1024**3, "/var/lib/docker": 1024**3}
    lines = _host.table(host, WANTED)
    assert [line for line in lines if not line.startswith("ok ")] == [line for line in lines if "1.0 GiB" in line]
    assert lines[1].startswith("2 ! ")
    assert any("DROPPED by firewalld" in line for line in lines)


def test_base_chains() -> None:
    chains = [
        {"family": "inet", "table": "firewalld", "name": "filter_INPUT", "hook": "input", "type": "filter", "policy": "accept"},
        {"family": "inet", "table": "mine", "name": "in", "hook": "input", "type": "filter", "prio": 0, "policy": "drop"},
        {"family": "ip", "table": "nat", "name": "PREROUTING", "hook": "prerouting", "type": "nat", "policy": "accept"},
        {"family": "inet", "table": "mine", "name": "helper"},
    ]
    text = json.dumps({"nftables": [{"metainfo": {}}, *({"chain": chain} for chain in chains)]})
    assert _host.parse_base_chains(text) == [{"family": "inet", "table": "mine", "name": "in", "hook": "input", "policy": "drop"}]
    assert _host.parse_base_chains("") == []


def test_ufw_and_timedatectl() -> None:
    status = "Status: active\nDefault: deny (incoming), allow (outgoing), deny (routed)\n\nTo                         Action      From\n--                         ------      ----\n22/tcp                     ALLOW       Anywhere\n"
    status += "22900/udp                  ALLOW       Anywhere                   # dn42\n22900/udp (v6)             ALLOW       Anywhere (v6)\n"
    status += "22901/udp                  ALLOW       192.0.2.1\n22902                      ALLOW       Anywhere\n"
    status += "\nAnywhere on br-dn42        ALLOW FWD   Anywhere on br-dn42        # dn42\nAnywhere on br-a           ALLOW FWD   Anywhere on br-b\n"
    assert _host.parse_ufw(status) == {"active": True, "udp_ports": [22900, 22902], "forwards": False, "bridges": ["br-dn42"]}
    assert _host.parse_ufw(status.replace("deny (routed)", "allow (routed)"))["forwards"] is True
    assert _host.parse_ufw("Status: inactive\n")["active"] is False
    assert _host.parse_timedatectl("NTP=yes\nNTPSynchronized=yes\n") is True
    assert _host.parse_timedatectl("NTPSynchronized=no\n") is False
    assert _host.parse_timedatectl("") is None
