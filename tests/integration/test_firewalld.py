# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The evening of the origin post: firewalld's IPv6 reverse-path check eats what crosses the bridge (B01)."""

from __future__ import annotations

from network_probe import Lab, wait_for
from support import playbook

BEHIND_PEER_IPV6, BEHIND_PEER_IPV4 = "fdc0:ffee:9002::80", "172.22.200.80"
CONF = "/etc/firewalld/firewalld.conf"


def reloads(lab: Lab, node: str) -> int:
    """How often firewalld has read its configuration, from its journal."""
    log = lab.run(node, "journalctl", "-u", "firewalld", "-o", "cat", check=False).stdout
    return log.count("Reloaded")


def test_firewalld_is_running_as_distributed(lab: Lab) -> None:
    """The host's firewall stays up on both nodes."""
    for node in ("fra1", "hkg1"):
        assert lab.run(node, "firewall-cmd", "--state").stdout.strip() == "running"


def test_ping_fails_without_the_fix_and_passes_with_it(lab: Lab) -> None:
    """With the role's fix taken out, the distribution's value is back and the reply from behind the router never arrives."""
    assert lab.ping("hkg1", "dn42-dns", BEHIND_PEER_IPV6)
    playbook("site.yml", "--limit", "hkg1", "-e", "dn42_firewall_ipv6_rpfilter_fix=false")
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
    before = {node: reloads(lab, node) for node in ("fra1", "hkg1")}
    playbook()
    assert {node: reloads(lab, node) for node in ("fra1", "hkg1")} == before
