# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host whose firewall is ufw: the guard needs nothing of it, and preflight says what its owner has to add."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from network_probe import Lab, wait_for
from support import playbook, wait_for_node
from test_isolation import PRIVATE_PORT, guarded, host_addresses_in_dn42, host_with_a_way_back, http_status

NODE, INTERNET_IPV4 = "hkg1", "203.0.113.12"
pytestmark = pytest.mark.full
BRIDGE_NF = "/proc/sys/net/bridge/bridge-nf-call-ip6tables"
# The way that a real host goes: ufw instead of firewalld, SSH first, and a service that its owner opens to everybody.
INSTALL = f"""
set -e
export DEBIAN_FRONTEND=noninteractive
apt-get -q update; apt-get -qy install --no-install-recommends ufw
systemctl stop firewalld; systemctl restart docker
ufw allow 22/tcp; ufw allow {PRIVATE_PORT}/tcp; ufw --force enable
"""
REMOVE = """
ufw --force disable; ufw --force reset; DEBIAN_FRONTEND=noninteractive apt-get -qy purge ufw; rm -rf /etc/ufw
iptables -P INPUT ACCEPT; iptables -P OUTPUT ACCEPT; ip6tables -P INPUT ACCEPT; ip6tables -P OUTPUT ACCEPT; ip6tables -P FORWARD ACCEPT
nft flush ruleset; systemctl reset-failed; systemctl start firewalld; systemctl restart docker
"""
# A web server behind peer1, asked by a container of ours over IPv6.
ASK = "import socket; socket.create_connection(('fdc0:ffee:9002::80', 80), 4)"


@pytest.fixture(scope="module")
def ufw(lab: Lab) -> Iterator[None]:
    """The node with ufw in place of firewalld; as before afterwards."""
    lab.run(NODE, "sh", "-c", INSTALL, timeout=300)
    lab.run(NODE, "sh", "-c", f"echo 1 > {BRIDGE_NF}")
    try:
        yield
    finally:
        lab.run(NODE, "sh", "-c", REMOVE, timeout=300)
        playbook("site.yml", "--limit", NODE)
        wait_for_node(lab, NODE)


def told(lab: Lab) -> list[str]:
    """The commands that preflight tells the owner of ufw to run."""
    shown = " ".join(playbook("playbooks/preflight.yml", "--limit", NODE).stdout.split())
    return list(dict.fromkeys(re.findall(r"ufw (?:route )?allow .*? comment dn42", shown)))


def asks(lab: Lab) -> bool:
    """Whether a TCP connection over IPv6 comes about between a container and a server behind the peer."""
    return lab.run(NODE, "docker", "exec", "dn42-looking-glass", "python3", "-c", ASK, check=False).returncode == 0


def reached_from_another_port(lab: Lab) -> bool:
    """Whether the peer, seen at a port to which the node has never sent anything, gets through its tunnel."""
    address = lab.addresses(NODE, "dn42-dns")[0]
    return lab.run("peer1", "ping", "-n", "-c", "8", "-i", "1", "-W", "1", address, check=False).returncode == 0


def test_owner_is_told_what_to_add_and_it_is_enough(lab: Lab, ufw: None) -> None:
    """The tunnel's port and the bridge are closed; the commands of the message open both, and nothing is left to tell."""
    wait_for("the sessions over ufw", lambda: lab.ping(NODE, "dn42-dns", "172.22.200.80", count=1), 60)
    assert not asks(lab), "ufw lets bridged IPv6 pass, so there is nothing to add"
    commands = told(lab)
    assert "ufw allow 22900/udp comment dn42" in commands
    assert "ufw route allow in on br-dn42 out on br-dn42 comment dn42" in commands
    lab.run("peer1", "wg", "set", "wg-hkg1", "listen-port", "20099")
    try:
        assert not reached_from_another_port(lab), "ufw lets the tunnel in, so there is nothing to add"
        for command in commands:
            lab.run(NODE, *command.split())
        wait_for("the tunnel from the peer's other port", lambda: reached_from_another_port(lab), 60)
    finally:
        lab.run("peer1", "wg", "set", "wg-hkg1", "listen-port", "20002")
    wait_for_node(lab, NODE)
    assert asks(lab)
    assert told(lab) == []


def test_guard_keeps_dn42_out_of_what_ufw_opens(lab: Lab, ufw: None) -> None:
    """ufw's rule is for the Internet; from DN42 the service is reached only without the guard."""
    lab.run(NODE, "ufw", "allow", "22900/udp")
    wait_for_node(lab, NODE)
    assert http_status(lab, INTERNET_IPV4, PRIVATE_PORT) == "200"
    with host_with_a_way_back(lab, NODE):
        addresses = host_addresses_in_dn42(lab, NODE)
        assert [http_status(lab, address, PRIVATE_PORT) for address in addresses] == ["000", "000"]
        lab.run(NODE, "systemctl", "stop", "dn42-guard.service")
        try:
            assert [http_status(lab, address, PRIVATE_PORT) for address in addresses] == ["200", "200"]
        finally:
            lab.run(NODE, "systemctl", "start", "dn42-guard.service")


def test_guard_survives_what_one_does_with_ufw(lab: Lab, ufw: None) -> None:
    """Reload, off, on, and a rule that comes and goes."""
    for command in (["reload"], ["disable"], ["--force", "enable"], ["allow", "1234/tcp"], ["delete", "allow", "1234/tcp"]):
        lab.run(NODE, "ufw", *command)
        assert guarded(lab, NODE), " ".join(command)
