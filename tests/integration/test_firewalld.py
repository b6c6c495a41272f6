# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The evening of the origin post: firewalld's IPv6 reverse-path check eats what crosses the bridge (B01)."""

from __future__ import annotations

import base64
import subprocess

import pytest
from network_probe import Lab, wait_for
from support import CHECKOUT, changed_hosts, playbook

BEHIND_PEER_IPV6, BEHIND_PEER_IPV4 = "fdc0:ffee:9002::80", "172.22.200.80"
CONF = "/etc/firewalld/firewalld.conf"


def marked(lab: Lab, node: str) -> bool:
    """Whether a port that is open only until the next reload still is; firewalld's journal says nothing of reloads."""
    return lab.run(node, "firewall-cmd", "--query-port=65535/udp", check=False).returncode == 0


def test_firewalld_is_running_as_distributed(lab: Lab) -> None:
    """The host's firewall stays up on both nodes."""
    for node in ("fra1", "hkg1"):
        assert lab.run(node, "firewall-cmd", "--state").stdout.strip() == "running"


def test_ping_fails_without_the_fix_and_passes_with_it(lab: Lab) -> None:
    """With the role's fix taken out, the distribution's value is back and the reply from behind the router never arrives."""
    assert lab.ping("hkg1", "dn42-dns", BEHIND_PEER_IPV6)
    playbook("site.yml", "--limit", "hkg1", "-e", "dn42_firewall_strategy=none")
    assert lab.run("hkg1", "grep", "-E", "^IPv6_rpfilter=", CONF).stdout.strip() == "IPv6_rpfilter=strict"
    wait_for("IPv4 after the reload", lambda: lab.ping("hkg1", "dn42-dns", BEHIND_PEER_IPV4, count=1), 30)
    assert not lab.ping("hkg1", "dn42-dns", BEHIND_PEER_IPV6), "the fault is not there, so the fix proves nothing"
    playbook("site.yml", "--limit", "hkg1")
    assert lab.ping("hkg1", "dn42-dns", BEHIND_PEER_IPV6)
    assert lab.ping("hkg1", "dn42-dns", BEHIND_PEER_IPV4)


def test_reverse_path_check_stays_on_for_the_hosts_other_interfaces(lab: Lab) -> None:
    """A source that the host would not answer through that interface is dropped, though firewalld's own check is off."""
    spoofed = "2001:db8:bad::1"
    lab.run("peer1", "ip", "-6", "addr", "add", f"{spoofed}/128", "dev", "lo")
    lab.run("hkg1", "ip", "-6", "route", "add", "2001:db8:bad::/48", "dev", "br-dn42")
    try:
        done = lab.run("peer1", "ping", "-n", "-c", "2", "-W", "1", "-I", spoofed, "2001:db8::12", check=False)
        counter = lab.run("hkg1", "nft", "list", "table", "inet", "dn42_guard").stdout
        assert done.returncode != 0
        assert "fib saddr" in counter
    finally:
        lab.run("hkg1", "ip", "-6", "route", "del", "2001:db8:bad::/48", "dev", "br-dn42")
        lab.run("peer1", "ip", "-6", "addr", "del", f"{spoofed}/128", "dev", "lo")


def test_second_run_does_not_reload_firewalld(lab: Lab) -> None:
    """B04: a reload throws Docker's rules away for a moment, so it happens only on a change."""
    for node in ("fra1", "hkg1"):
        lab.run(node, "firewall-cmd", "--add-port=65535/udp")
    playbook()
    assert [marked(lab, node) for node in ("fra1", "hkg1")] == [True, True]
    for node in ("fra1", "hkg1"):
        lab.run(node, "firewall-cmd", "--reload")
        assert not marked(lab, node)


def test_preflight_shows_everything_and_changes_nothing(lab: Lab) -> None:
    """One list with two problems of two hosts, and a marked row for each."""
    lab.run("fra1", "docker", "network", "create", "--subnet", "172.23.255.56/29", "inside")
    lab.run("hkg1", "sh", "-c", "firewall-cmd --permanent --new-zone=mine; firewall-cmd --permanent --zone=mine --add-interface=br-dn42")
    try:
        done = playbook("playbooks/preflight.yml", check=False)
        assert done.returncode != 0
        assert "fra1: Docker network inside (172.23.255.56/29) overlaps" in " ".join(done.stdout.split())
        assert "hkg1: firewalld has br-dn42 permanently in zone mine" in " ".join(done.stdout.split())
        assert set(changed_hosts(done.stdout).values()) == {0}
        assert done.stdout.count("1 ! ") == 2
    finally:
        lab.run("fra1", "docker", "network", "rm", "inside")
        lab.run("hkg1", "firewall-cmd", "--permanent", "--delete-zone=mine")
    assert playbook("playbooks/preflight.yml").returncode == 0


BOM = b"\xef\xbb\xbf"
# What stands before and behind the other settings of the distribution's file; firewalld makes the strict check of every one of these.
FILES = {
    "commented": (b"", b"#IPv6_rpfilter=no\n"),
    "missing": (b"", b""),
    "twice": (b"", b"IPv6_rpfilter=strict\nIPv6_rpfilter=no\n"),
    "quoted": (b"", b'IPv6_rpfilter="no"\n'),
    "inline comment": (b"", b"IPv6_rpfilter=no # origin post\n"),
    "lower case": (b"", b"ipv6_rpfilter=no\n"),
    "CRLF": (b"", b"IPv6_rpfilter=strict\r\n"),
    "BOM": (BOM, b"IPv6_rpfilter=strict\n"),
    "BOM before the key": (BOM + b"IPv6_rpfilter=no\n", b""),
}


def check_in_force(lab: Lab, node: str) -> bool:
    """Whether the running firewalld makes the check, by its own word."""
    name = "org.fedoraproject.FirewallD1"
    return lab.run(node, "busctl", "get-property", name, "/org/fedoraproject/FirewallD1", name, "IPv6_rpfilter").stdout.strip() == "b true"


@pytest.mark.full
def test_firewalld_reads_its_edited_file_as_we_meant_it(lab: Lab) -> None:
    """The real firewalld is asked, and the file, a symlink, keeps everything else byte for byte."""
    node, real = "fra1", "/etc/firewalld/real.conf"
    lab.run(node, "sh", "-c", f"cp {CONF} /run/conf.lab; mv {CONF} {real}; ln -s {real} {CONF}")
    rest = "".join(f"{line}\n" for line in lab.run(node, "cat", real).stdout.splitlines() if "ipv6_rpfilter" not in line.lower()).encode()
    try:
        for name, (head, tail) in FILES.items():
            encoded = base64.b64encode(head + rest + tail).decode()
            lab.run(node, "sh", "-c", f"echo {encoded} | base64 -d > {real} && firewall-cmd --reload")
            assert check_in_force(lab, node), f"{name}: not checked before, so this proves nothing"
            command = ["ansible", "-i", "inventories/demo", node, "--become", "-m", "dn42.compose.firewalld_settings", "-a", "strategy=rpfilter"]
            done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=200, check=False)
            assert done.returncode == 0, done.stdout
            assert not check_in_force(lab, node), name
            edited = base64.b64decode(lab.run(node, "base64", "-w0", real).stdout)
            assert edited.startswith(head) and rest in edited, name
            assert lab.run(node, "readlink", CONF).stdout.strip() == real
    finally:
        lab.run(node, "sh", "-c", f"rm {CONF} {real}; cp /run/conf.lab {CONF}; firewall-cmd --reload")
        playbook("site.yml", "--limit", node)


def test_value_that_this_firewalld_does_not_know_is_refused(lab: Lab) -> None:
    """Before anything is written."""
    before = lab.run("fra1", "sha256sum", CONF).stdout
    command = ["ansible", "-i", "inventories/demo", "fra1", "--become", "-m", "dn42.compose.firewalld_settings", "-a", "strategy=rpfilter ipv6_rpfilter=off"]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode != 0
    assert "firewalld knows no IPv6_rpfilter" in done.stdout
    assert lab.run("fra1", "sha256sum", CONF).stdout == before
