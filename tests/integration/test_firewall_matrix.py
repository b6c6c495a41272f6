# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every state of firewalld that the role firewall can meet, with real packets: before, what it did, after, reloads counted.

The whole is for `pytest -m full`; one cell for each state of firewalld runs always.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from network_probe import Lab, wait_for
from support import CHECKOUT, changed_hosts, playbook

NODE = "hkg1"
BEHIND_PEER_IPV6, BEHIND_PEER_IPV4 = "fdc0:ffee:9002::80", "172.22.200.80"
CONF = "/etc/firewalld/firewalld.conf"
SYSCTL = "/proc/sys/net/bridge/bridge-nf-call-ip6tables"
# What a package manager would take away; the configuration stays, as it does there.
PROGRAMS = ["/usr/bin/firewall-cmd", "/usr/bin/firewall-offline-cmd", "/usr/sbin/firewalld", "/usr/lib/systemd/system/firewalld.service"]
SIGNALS = "/run/lab-reloads"
DOCKER_BACK = 30  # seconds, as long as the role itself waits for Docker after a reload


class Cell(NamedTuple):
    """One state of the host: firewalld (its check, absent or stopped), bridge-nf-call-ip6tables, whether the role was there before."""

    firewalld: str
    bridge_nf: int
    start: str

    @property
    def running(self) -> bool:
        return self.firewalld not in ("absent", "stopped")

    @property
    def dropping(self) -> bool:
        """The origin post's fault. The lab's hosts have an IPv6 default route, so loose lets everything pass."""
        return self.firewalld == "strict" and self.bridge_nf == 1

    @property
    def reloads(self) -> int:
        """A first policy object needs one, a new check needs one, both together need one."""
        return int(self.running and (self.dropping or self.start == "fresh"))


CELLS = [Cell(*values) for values in itertools.product(["strict", "loose", "no", "absent", "stopped"], [0, 1], ["fresh", "converged"])]
DIAGONAL = [Cell("strict", 1, "fresh"), Cell("loose", 1, "converged"), Cell("no", 0, "fresh"), Cell("absent", 0, "converged"), Cell("stopped", 1, "fresh")]


class Host:
    """The node under test, and the role run on it alone."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        self.lab = lab
        self.play = directory / "firewall.yml"
        self.answer = directory / "answer.json"
        tunnels = json.loads(self.sh("cat /opt/dn42/services/router/current/tunnels.json"))["tunnels"]
        role = {"name": "dn42.compose.firewall"}
        ports = {"dn42_firewall_udp_ports": sorted(tunnel["listen_port"] for tunnel in tunnels)}
        # Where nothing was to do, the role did not ask a second time.
        said = "{{ (__dn42_firewall_plan if __dn42_firewall_firewalld is skipped else __dn42_firewall_firewalld) | to_json }}"
        keep = {"dest": str(self.answer), "content": said, "mode": "0600"}
        tasks = [
            {"ansible.builtin.import_role": role, "vars": ports},
            {"ansible.builtin.copy": keep, "delegate_to": "localhost", "vars": {"ansible_connection": "local"}, "changed_when": False},
        ]
        self.play.write_text(json.dumps([{"hosts": NODE, "gather_facts": False, "become": True, "tasks": tasks}]))

    def sh(self, script: str, check: bool = True) -> str:
        return self.lab.run(NODE, "sh", "-c", script, check=check, timeout=120).stdout

    def role(self, *arguments: str) -> tuple[int, dict]:
        """Run the role; how many tasks changed something, and what the module firewalld_settings said."""
        done = playbook(str(self.play), *arguments)
        return changed_hosts(done.stdout)[NODE], json.loads(self.answer.read_text())

    def pings(self, address: str, count: int = 2) -> bool:
        return self.lab.ping(NODE, "dn42-dns", address, count=count)

    def reloads(self) -> int:
        return int(self.sh(f"grep -c '\"Reloaded\"' {SIGNALS} || true"))

    def firewalld(self, state: str) -> None:
        """Bring firewalld into a state."""
        if state == "absent":
            self.sh("systemctl stop firewalld; for f in " + " ".join(PROGRAMS) + "; do [ -e $f ] && mv $f $f.away; done; systemctl daemon-reload")
            return
        self.sh("for f in " + " ".join(PROGRAMS) + "; do [ -e $f.away ] && mv $f.away $f; done; systemctl daemon-reload")
        if state == "stopped":
            self.sh("systemctl stop firewalld")
            return
        self.sh(f"systemctl start firewalld && sed -i 's/^IPv6_rpfilter=.*/IPv6_rpfilter={state}/' {CONF} && firewall-cmd --reload")
        wait_for("Docker's zone", lambda: "br-dn42" in self.sh("firewall-cmd --zone=docker --list-interfaces"), DOCKER_BACK)

    def forget(self) -> None:
        """Take away everything that the role has put on the host."""
        self.sh("systemctl disable --now dn42-guard.service; systemctl disable --now dn42-host-access.service; true")
        self.sh("rm -rf /etc/dn42 /etc/systemd/system/dn42-guard*.service /etc/systemd/system/nftables.service.d/dn42-guard.conf")
        self.sh("rm -f /etc/firewalld/policies/dn42-tunnels.xml; systemctl daemon-reload")

    def prepare(self, cell: Cell) -> None:
        if cell.start == "fresh":
            self.forget()
        self.firewalld(cell.firewalld)
        self.sh(f"echo {cell.bridge_nf} > {SYSCTL}")


@pytest.fixture(scope="module")
def host(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """The node, with reloads counted by firewalld's own signal; put right again in the end."""
    found = Host(lab, tmp_path_factory.mktemp("matrix"))
    match = "type='signal',interface='org.fedoraproject.FirewallD1',member='Reloaded'"
    found.sh(f"systemctl stop lab-reloads 2>/dev/null; rm -f {SIGNALS}; touch {SIGNALS}")
    lab.run(NODE, "systemd-run", "-q", "--unit=lab-reloads", "-p", f"StandardOutput=append:{SIGNALS}", "busctl", "monitor", "--system", "--json=short", f"--match={match}")
    yield found
    found.firewalld("strict")
    found.sh(f"echo 1 > {SYSCTL}; systemctl stop lab-reloads")
    found.role()


def walk(host: Host, cell: Cell) -> str:
    """Show one cell; the line for the table."""
    host.prepare(cell)
    # IPv4 does not meet the check: when it passes, everything else is in order again after the change of firewalld.
    wait_for("IPv4", lambda: host.pings(BEHIND_PEER_IPV4, 1), 60)
    before = host.pings(BEHIND_PEER_IPV6)
    assert before is not cell.dropping, "the host is not in the state that this cell is about"
    count = host.reloads()
    changed, answer = host.role()
    reloads = host.reloads() - count
    assert host.pings(BEHIND_PEER_IPV4) and host.pings(BEHIND_PEER_IPV6)
    assert reloads == cell.reloads, answer["msg"]
    assert answer["reloaded"] is bool(reloads)
    assert answer["firewalld"] == ("running" if cell.running else cell.firewalld)
    if cell.running:
        # The lab's default route lasts, so loose is enough, and it is the smallest step.
        wanted = "loose" if cell.dropping else cell.firewalld
        assert host.sh(f"grep -E '^IPv6_rpfilter=' {CONF}").strip() == f"IPv6_rpfilter={wanted}"
        assert answer["ipv6_rpfilter"]["replaced"] == ("strict" if cell.dropping else answer["ipv6_rpfilter"]["replaced"])
    assert host.sh(f"cat {SYSCTL}").strip() == str(cell.bridge_nf)
    assert "dn42_guard" in host.sh("nft list tables")
    again, second = host.role()
    assert (again, second["actions"], host.reloads() - count - reloads) == (0, [], 0), second["msg"]
    return f"{cell.firewalld:8} nf={cell.bridge_nf} {cell.start:9} | IPv6 {'passes' if before else 'DROPPED'} | {reloads} reload, {changed} changed: {answer['msg']} | IPv6 passes"


def show(capsys: pytest.CaptureFixture[str], line: str) -> None:
    with capsys.disabled():
        print(f"\n    {line}")


@pytest.mark.parametrize("cell", DIAGONAL, ids=lambda cell: "-".join(map(str, cell)))
def test_diagonal(host: Host, cell: Cell, capsys: pytest.CaptureFixture[str]) -> None:
    show(capsys, walk(host, cell))


@pytest.mark.full
@pytest.mark.parametrize("cell", [cell for cell in CELLS if cell not in DIAGONAL], ids=lambda cell: "-".join(map(str, cell)))
def test_rest_of_the_matrix(host: Host, cell: Cell, capsys: pytest.CaptureFixture[str]) -> None:
    show(capsys, walk(host, cell))


def test_without_a_default_route_the_check_goes_off(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    """loose would still drop then: the guard's own check takes over, also for loose that somebody has set."""
    host.firewalld("loose")
    route = host.sh("ip -6 route show default").strip()
    assert route
    host.sh(f"echo 1 > {SYSCTL}; ip -6 route del default")
    try:
        assert not host.pings(BEHIND_PEER_IPV6), "loose without a default route drops nothing, so the choice below proves nothing"
        _changed, answer = host.role()
        assert answer["ipv6_rpfilter"]["value"] == "no"
        assert "default route" in answer["reason"]
        assert host.pings(BEHIND_PEER_IPV6)
        assert host.role()[1]["actions"] == []
    finally:
        host.sh(f"ip -6 route add {route.replace(' pref medium', '')}")
    show(capsys, answer["msg"])


@pytest.mark.full
def test_bridge_nf_leaves_the_check_on_and_is_taken_back(host: Host) -> None:
    """The other cure, when asked for: the check stays strict, and both come back as they were."""
    host.role("-e", "dn42_firewall_strategy=none")
    host.firewalld("strict")
    host.sh(f"echo 1 > {SYSCTL}")
    count = host.reloads()
    _changed, answer = host.role("-e", "dn42_firewall_strategy=bridge_nf")
    assert (answer["bridge_nf_call_ip6tables"], answer["ipv6_rpfilter"]["value"]) == (0, "strict")
    assert host.pings(BEHIND_PEER_IPV6)
    assert host.role("-e", "dn42_firewall_strategy=bridge_nf")[0] == 0
    # At boot, and when something loads br_netfilter later.
    assert "bridge-nf-call-ip6tables = 0" in host.sh("cat /etc/sysctl.d/90-dn42-bridge-nf.conf")
    host.role("-e", "dn42_firewall_strategy=none")
    assert host.sh(f"cat {SYSCTL}").strip() == "1"
    assert host.sh("ls /etc/sysctl.d /etc/udev/rules.d").count("dn42-bridge-nf") == 0
    assert host.reloads() == count, "no step of this needs a reload"
    assert not host.pings(BEHIND_PEER_IPV6)
    host.role()
    assert host.pings(BEHIND_PEER_IPV6)


@pytest.mark.full
def test_no_ipv6_packet_is_lost_between_the_two_cures(host: Host) -> None:
    """There and back: the new cure works before the old one goes, although firewalld is reloaded each time."""
    host.role()
    ping = f"docker exec dn42-dns ping -n -q -i 0.2 {BEHIND_PEER_IPV6}"
    for strategy in ("bridge_nf", "auto"):
        host.sh(f"systemd-run -q --unit=lab-ping -p KillSignal=SIGINT -p StandardOutput=file:/run/lab-ping sh -c '{ping} & trap \"pkill -INT -x ping\" INT; wait; wait'")
        count = host.reloads()
        _changed, answer = host.role("-e", f"dn42_firewall_strategy={strategy}")
        host.sh("sleep 1; pkill -INT -x ping; sleep 2; systemctl stop lab-ping; true")
        sent, received = re.search(r"(\d+) packets transmitted, (\d+) received", host.sh("cat /run/lab-ping")).groups()
        assert host.reloads() == count + 1, answer["msg"]
        assert int(sent) > 5
        assert sent == received, answer["msg"]


@pytest.mark.full
def test_docker_that_did_not_hear_of_the_reload_is_restarted(host: Host) -> None:
    """B04, injected: the reload throws away Docker's rules while Docker cannot answer. A published port of another container opens again."""
    host.sh(
        "docker rm -f published 2>/dev/null; docker run -d --name published --restart unless-stopped -p 8088:80 --entrypoint sleep $(docker images -q debian | head -1) infinity"
    )
    flush = "--permanent --direct {} ipv4 -t nat -F DOCKER"
    host.sh(f"firewall-cmd {flush.format('--add-passthrough')}; sed -i 's/^IPv6_rpfilter=.*/IPv6_rpfilter=strict/' {CONF}")
    dnat = "iptables-save -t nat | grep -c 'dport 8088' || true"
    assert host.sh(dnat).strip() == "1"
    try:
        host.sh("kill -STOP $(cat /run/docker.pid)")
        # The module alone: the role begins with a look at Docker, and refuses a host whose Docker does not answer.
        command = ["ansible", "-i", "inventories/demo", NODE, "--become", "-m", "dn42.compose.firewalld_settings", "-a", "strategy=auto"]
        environment = {**os.environ, "ANSIBLE_CALLBACK_RESULT_FORMAT": "json"}
        done = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, timeout=300, check=False)
        answer = json.loads(done.stdout.partition("=> ")[2])
        assert done.returncode == 0, answer["msg"]
        assert answer["docker_restarted"] is True, answer["msg"]
        assert "restart Docker" in answer["msg"]
        assert host.sh(dnat).strip() == "1"
    finally:
        host.sh(f"kill -CONT $(cat /run/docker.pid); firewall-cmd {flush.format('--remove-passthrough')}; docker rm -f published; true")
