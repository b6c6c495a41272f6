# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever dies or restarts on a node, it comes back without Ansible, and takes nothing else down with it."""

from __future__ import annotations

import pytest
from network_probe import Lab, wait_for
from support import SESSION_WAIT, playbook, wait_for_node

NODE = "fra1"


def host_pids(lab: Lab, pattern: str) -> list[str]:
    """Processes of the node, containers included, whose command line matches."""
    return lab.run(NODE, "pgrep", "-f", pattern, check=False).stdout.split()


def kill(lab: Lab, pattern: str) -> None:
    """kill -9 of every process that matches, and proof that there was one and it is gone."""
    before = host_pids(lab, pattern)
    assert before, f"no process matches {pattern}"
    lab.run(NODE, "kill", "-9", *before)
    wait_for(f"{pattern} gone", lambda: not set(before) & set(host_pids(lab, pattern)), 10)


def wait_for_recovery(lab: Lab) -> None:
    """Sessions and traffic are back, and the router lost no address to the one that it replaced."""
    wait_for_node(lab, NODE)
    addresses = lab.in_router(NODE, "ip", "-6", "address").stdout
    assert "fe80::" in addresses
    assert "dadfailed" not in addresses


def test_killing_bird_leaves_tunnels_up(lab: Lab) -> None:
    """WireGuard's processes and handshakes are the same before and after."""
    tunnels = host_pids(lab, "^wireguard-go")
    indexes = lab.in_router(NODE, "ip", "-br", "link", "show").stdout
    kill(lab, "^bird ")
    wait_for_recovery(lab)
    assert host_pids(lab, "^wireguard-go") == tunnels
    assert lab.in_router(NODE, "ip", "-br", "link", "show").stdout == indexes


def test_killing_the_keeper_leaves_sessions_up(lab: Lab) -> None:
    """Neither BIRD nor a tunnel notices, and the keeper is back."""
    before = lab.ages(NODE)
    kill(lab, "dn42_router[.]keeper")
    wait_for("the keeper again", lambda: host_pids(lab, "dn42_router[.]keeper"), 30)
    assert lab.ping(NODE, "dn42-dns", "fdc0:ffee:9002::80")
    assert lab.ages(NODE) == before


def test_killing_wireguard_go_heals(lab: Lab) -> None:
    """Its interface vanishes with it; the keeper makes it again."""
    if not host_pids(lab, "^wireguard-go"):
        pytest.skip("this kernel has WireGuard, there is no wireguard-go to kill")
    kill(lab, "^wireguard-go")
    wait_for_recovery(lab)


def test_killing_pid_1_of_the_container_heals(lab: Lab) -> None:
    """Docker's restart policy is enough."""
    pid = lab.router_pid(NODE)
    lab.run(NODE, "kill", "-9", pid)
    wait_for("a new PID 1", lambda: lab.router_pid(NODE) not in ("0", pid), 30)
    wait_for_recovery(lab)


def test_docker_restart(lab: Lab) -> None:
    """docker restart of the router."""
    lab.run(NODE, "docker", "restart", "dn42-router")
    wait_for_recovery(lab)


def test_docker_kill_and_start(lab: Lab) -> None:
    """docker kill, then docker start of the router."""
    lab.run(NODE, "docker", "kill", "dn42-router")
    lab.run(NODE, "docker", "start", "dn42-router")
    wait_for_recovery(lab)


def test_restart_of_docker(lab: Lab) -> None:
    """Containers stop and start with the daemon."""
    lab.run(NODE, "systemctl", "restart", "docker")
    wait_for_recovery(lab)


def test_restart_of_docker_with_live_restore_keeps_sessions(lab: Lab) -> None:
    """With live-restore nothing is interrupted: the containers and the sessions keep their age."""
    lab.run(NODE, "sh", "-c", "mkdir -p /etc/docker && echo '{\"live-restore\": true}' > /etc/docker/daemon.json")
    lab.run(NODE, "systemctl", "reload", "docker")
    try:
        before = (lab.container_starts(NODE), lab.ages(NODE))
        lab.run(NODE, "systemctl", "restart", "docker")
        wait_for_recovery(lab)
        assert (lab.container_starts(NODE), lab.ages(NODE)) == before
    finally:
        # Told while it runs, the daemon stops its containers when it is restarted. One that starts without live-restore
        # and finds them running would leave them stopped.
        lab.run(NODE, "sh", "-c", "echo '{\"live-restore\": false}' > /etc/docker/daemon.json")
        lab.run(NODE, "systemctl", "reload", "docker")
        lab.run(NODE, "systemctl", "restart", "docker")
        lab.run(NODE, "rm", "/etc/docker/daemon.json")
        wait_for_recovery(lab)


def test_compose_down_and_up(lab: Lab) -> None:
    """A broken node is remade with `down && up`, as the origin post wished."""
    lab.run(NODE, "sh", "-c", "cd /opt/dn42 && docker compose down && docker compose up -d", timeout=180)
    wait_for_recovery(lab)


def test_reboot_of_the_host(lab: Lab) -> None:
    """Everything that a node needs survives in files; no container was started by hand."""
    lab.lab("reboot", NODE)
    wait_for_recovery(lab)
    assert "dn42_guard" in lab.run(NODE, "nft", "list", "tables").stdout
    assert lab.run(NODE, "firewall-cmd", "--state").stdout.strip() == "running"


def test_node_needs_no_ansible_afterwards(lab: Lab) -> None:
    """After all of the above the playbook finds nothing to do."""
    wait_for("both nodes healthy", lambda: len(lab.established("hkg1")) == 2, SESSION_WAIT)
    output = playbook().stdout
    assert "changed=0" in output
    assert output.count("changed=0") == 2, output[-3000:]
