# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host that has its IPv6 default route from router advertisements keeps it when Docker forwards (B21)."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator

import pytest
from network_probe import Lab, wait_for
from support import changed_hosts, playbook

NODE, HOSTS = "hkg1", ("fra1", "hkg1", "peer1")
pytestmark = pytest.mark.full
# An address that the node reaches by its default route only; the router that advertises itself has it.
BEYOND = "fdc0:ffee:9002::80"
SYSCTL_FILE = "/etc/sysctl.d/90-dn42-accept-ra.conf"
FORWARDING, ACCEPT_RA = "net/ipv6/conf/all/forwarding", "net/ipv6/conf/eth0/accept_ra"
NETWORK = "forwarding-probe"
# Seconds. Without a prefix in it, an advertisement gives a default route and no addresses.
LIFETIME, INTERVAL = 9, 4
ADVERTISEMENTS = f"""\
interface eth0 {{
  AdvSendAdvert on;
  MinRtrAdvInterval 3;
  MaxRtrAdvInterval {INTERVAL};
  AdvDefaultLifetime {LIFETIME};
}};
"""


def default_routes(lab: Lab) -> list[dict[str, str]]:
    """The node's IPv6 default routes, as ip shows them."""
    return json.loads(lab.run(NODE, "ip", "-j", "-6", "route", "show", "default").stdout or "[]")


def advertised(lab: Lab) -> bool:
    """Whether the node has a default route from an advertisement."""
    return any(route.get("protocol") == "ra" for route in default_routes(lab))


def sysctl(lab: Lab, key: str) -> str:
    """The value of one of the node's sysctls."""
    return lab.run(NODE, "sysctl", "-n", key).stdout.strip()


def set_sysctls(lab: Lab, forwarding: str, accept_ra: str) -> None:
    """Set both sysctls of the node, by hand."""
    lab.run(NODE, "sysctl", "-w", f"{FORWARDING}={forwarding}", f"{ACCEPT_RA}={accept_ra}")


def answers(lab: Lab) -> bool:
    """Whether the node's own packets find their way by the default route."""
    return lab.run(NODE, "ping", "-n", "-c", "2", "-i", "0.2", "-W", "1", BEYOND, check=False).returncode == 0


@contextlib.contextmanager
def docker_forwards(lab: Lab) -> Iterator[None]:
    """Let Docker itself switch forwarding on, by one more network with IPv6; off again afterwards."""
    assert sysctl(lab, FORWARDING) == "0"
    lab.run(NODE, "docker", "network", "create", "--ipv6", "--subnet", "fd00:db8:21::/64", NETWORK)
    try:
        assert sysctl(lab, FORWARDING) == "1", "Docker does not switch forwarding on, so there is nothing to prove"
        yield
    finally:
        lab.run(NODE, "docker", "network", "rm", NETWORK)
        lab.run(NODE, "sysctl", "-w", f"{FORWARDING}=0")


@pytest.fixture
def by_advertisement(lab: Lab) -> Iterator[None]:
    """The node as a fresh host whose IPv6 default route peer1 advertises; as before afterwards."""
    static, before = default_routes(lab), (sysctl(lab, FORWARDING), sysctl(lab, ACCEPT_RA))
    assert len(static) == 1 and static[0].get("protocol") != "ra", static
    try:
        lab.run(NODE, "ip", "-6", "route", "del", "default")
        set_sysctls(lab, "0", "1")
        lab.run("peer1", "sh", "-c", 'printf %s "$1" > /etc/radvd.conf', "sh", ADVERTISEMENTS)
        lab.run("peer1", "systemctl", "start", "radvd")
        wait_for("a default route by advertisement", lambda: advertised(lab), 5 * INTERVAL)
        yield
    finally:
        lab.run("peer1", "systemctl", "stop", "radvd", check=False)
        lab.run("peer1", "rm", "-f", "/etc/radvd.conf", check=False)
        lab.run(NODE, "rm", "-f", SYSCTL_FILE, check=False)
        for host in HOSTS:
            lab.run(host, "ip", "-6", "route", "flush", "proto", "ra", check=False)
        lab.run(NODE, "ip", "-6", "route", "replace", "default", "via", static[0]["gateway"], "dev", static[0]["dev"])
        set_sysctls(lab, *before)


def test_docker_does_not_cost_the_host_its_default_route(lab: Lab, by_advertisement: None) -> None:
    """Without the setting the kernel forgets the route as soon as Docker forwards; with it, advertisements renew it."""
    assert answers(lab)
    with docker_forwards(lab):
        time.sleep(LIFETIME)
        assert not advertised(lab), "the fault is not there, so the fix proves nothing"
        assert not answers(lab)
    wait_for("the route again", lambda: advertised(lab), 5 * INTERVAL)

    assert changed_hosts(playbook("site.yml", "--limit", NODE, "--check").stdout) == {NODE: 1}
    assert sysctl(lab, ACCEPT_RA) == "1"
    assert changed_hosts(playbook("site.yml", "--limit", NODE).stdout) == {NODE: 2}
    assert sysctl(lab, ACCEPT_RA) == "2"

    with docker_forwards(lab):
        for _second in range(2 * LIFETIME):
            assert advertised(lab), "the route has run out"
            time.sleep(1)
        assert answers(lab)
        assert changed_hosts(playbook("site.yml", "--limit", NODE).stdout) == {NODE: 0}


def test_setting_outlives_a_boot_and_a_silent_router(lab: Lab, by_advertisement: None) -> None:
    """What the file says is what systemd sets at boot, and a run while no router advertises does not take it back."""
    playbook("site.yml", "--limit", NODE)
    lab.run("peer1", "systemctl", "stop", "radvd")
    lab.run(NODE, "ip", "-6", "route", "flush", "proto", "ra")
    playbook("site.yml", "--limit", NODE)  # without any IPv6 default route, firewalld needs another cure
    assert changed_hosts(playbook("site.yml", "--limit", NODE).stdout) == {NODE: 0}
    lab.run(NODE, "sysctl", "-w", f"{ACCEPT_RA}=1")
    lab.run(NODE, "systemctl", "restart", "systemd-sysctl")
    assert sysctl(lab, ACCEPT_RA) == "2"
