# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A node leaves: its host is as it was before the first run, and the others lose it and nothing else."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

import pytest
import yaml
from inventory_copy import InventoryCopy
from network_probe import Lab, wait_for
from support import NODES, SESSION_WAIT, changed_hosts, playbook

# A third host becomes a node twice.
pytestmark = pytest.mark.full

HOST = "nrt1"
ADDRESS = "203.0.113.13"
REMOVE = ("playbooks/remove.yml", "-e", f"dn42_remove_nodes={HOST}")
CONFIRMED = (*REMOVE, "-e", "dn42_remove_confirm=true")

# Docker stays, so it is there before the first picture is taken, running and with settings of its owner.
DOCKER = """
set -e
apt-get update -q && apt-get install -q -y --no-install-recommends docker.io docker-cli docker-compose nftables
mkdir -p /etc/docker && printf '{\\n  "log-level": "warn"\\n}\\n' > /etc/docker/daemon.json
systemctl restart docker
docker load --quiet --input /srv/images/debian-trixie-slim.tar && docker tag debian:trixie-slim mine:1 && docker rmi debian:trixie-slim
docker network create mine && docker volume create mine
docker run --detach --name mine --restart always --network mine --publish 8081:80 mine:1 sleep infinity
firewall-cmd --permanent --add-port=4443/tcp && firewall-cmd --reload
mkdir -p /etc/dn42 && echo mine > /etc/dn42/notes
"""

# What a run could leave on a host. Left out: what Ansible itself leaves for the next run (/root/.ansible), counters and
# handles of rules, and their order, because firewalld and Docker put them back in another one after every reload.
PICTURE = r"""
find /etc /opt /usr /root /home /srv /run/dn42 /run/systemd/system /var/spool /var/lib/systemd -xdev \
    ! -path '/root/.ansible*' ! -path '/var/lib/systemd/*/*' ! -path '*/__pycache__*' -printf '%p %U %G %m %l\n' 2>/dev/null | sort
find /etc /opt /root /srv -xdev -type f ! -path '/root/.ansible*' ! -path '/srv/images/*' -exec sha256sum {} + | sort -k 2
for scope in '' --permanent; do
    firewall-cmd $scope --list-all-zones | sed "s/^/zones $scope /"; firewall-cmd $scope --list-all-policies | sed "s/^/policies $scope /"
done
nft -s list ruleset | sed 's/^/nft /' | sort
sysctl -a 2>/dev/null | grep -E '^net\..*(forwarding|accept_ra|rp_filter|bridge-nf)' | grep -v '\.veth'
docker network ls --format 'network {{.Name}} {{.Driver}} {{.ID}}' | sort
docker volume ls --format 'volume {{.Name}}' | sort
docker image ls --format 'image {{.Repository}}:{{.Tag}} {{.ID}}' | sort
docker ps --all --format 'container {{.Names}} {{.ID}} {{.State}}' | sort
docker info --format 'live-restore {{.LiveRestoreEnabled}}'
ip -br link | awk '{print "link", $1}' | grep -v veth; ip route; ip -6 route | grep -v '^fe80'; ip rule; ip -6 rule
systemctl list-unit-files --no-legend | grep -v transient | awk '{print "unit", $1, $2}' | sort
systemctl list-units --all --no-legend --plain 'dn42*' ; systemctl --failed --no-legend
pgrep -a wireguard; true
"""


def picture(lab: Lab) -> list[str]:
    """The host as it is."""
    return lab.run(HOST, "sh", "-c", PICTURE, timeout=180).stdout.splitlines()


def difference(before: list[str], after: list[str]) -> str:
    """Lines that are not in both pictures."""
    return "\n".join(line for line in difflib.unified_diff(before, after, "before", "after", n=0, lineterm="") if not line.startswith("@@"))


@pytest.fixture(scope="module")
def inventory(lab: Lab) -> Iterator[InventoryCopy]:
    """The demo's inventory with a third node that changes as much of its host as a node can."""
    found = InventoryCopy("remove", lab.name)
    found.hosts({**found.addresses(), HOST: ADDRESS})
    found.set(HOST, dn42_docker_daemon_options={"live-restore": True}, dn42_firewall_host_access=True, dn42_firewall_strategy="bridge_nf")
    lab.lab("remove", HOST)  # other tests leave theirs with Docker on it
    lab.lab("add", HOST)
    yield found
    lab.lab("remove", HOST)
    playbook()
    found.remove()


def run(inventory: InventoryCopy, *arguments: str, check: bool = True) -> str:
    """Run a playbook; what it printed."""
    return playbook(*arguments, check=check, inventory=str(inventory.folder)).stdout


@pytest.fixture(scope="module")
def before(lab: Lab, inventory: InventoryCopy) -> list[str]:
    """The host before the first run; then it becomes a node."""
    lab.run(HOST, "sh", "-c", DOCKER, timeout=300)
    taken = picture(lab)
    run(inventory, "site.yml")
    for node in NODES:
        wait_for(f"{node} and {HOST}", lambda node=node: f"ibgp_{HOST}" in lab.established(node), SESSION_WAIT)
    return taken


@pytest.mark.usefixtures("before")
def test_nothing_is_removed_without_being_told(lab: Lab, inventory: InventoryCopy) -> None:
    """No name, an unknown name, all nodes, no confirmation, and check mode."""
    now = picture(lab)
    everybody = ",".join([*NODES, HOST])
    for arguments, words in (
        ((), "Name the nodes that leave"),
        (("-e", "dn42_remove_nodes=nrt2", "-e", "dn42_remove_confirm=true"), "nrt2: no such node"),
        (("-e", f"dn42_remove_nodes={everybody}", "-e", "dn42_remove_confirm=true"), "all nodes of the inventory"),
        (REMOVE[1:], "dn42_remove_confirm=true"),
    ):
        done = playbook("playbooks/remove.yml", *arguments, check=False, inventory=str(inventory.folder))
        assert done.returncode != 0
        assert words in done.stdout.replace("\n        ", " ")
    shown = run(inventory, *REMOVE, "--check", "--diff")
    assert "remove /opt/dn42 with everything in it" in shown
    assert all(count > 0 for count in changed_hosts(shown).values())
    assert not difference(now, picture(lab))
    assert HOST in inventory.blocks()


def test_the_host_is_as_it_was_found(lab: Lab, inventory: InventoryCopy, before: list[str]) -> None:
    """Files, rules, settings, networks and units as before the first run; the others keep the age of all other sessions."""
    others = {node: (lab.container_starts(node), {name: age for name, age in lab.ages(node).items() if name != f"ibgp_{HOST}"}) for node in NODES}
    mine = lab.run(HOST, "docker", "inspect", "--format", "{{.State.StartedAt}}", "mine").stdout
    key = lab.run(HOST, "cat", "/opt/dn42/secrets/router/private.key").stdout.strip()
    output = run(inventory, *CONFIRMED, "--diff")
    assert key not in output
    found = difference(before, picture(lab))
    assert not found, found
    # Put back with live-restore still on, so that nobody else's container was interrupted.
    assert lab.run(HOST, "docker", "inspect", "--format", "{{.State.StartedAt}}", "mine").stdout == mine
    assert {node: (lab.container_starts(node), lab.ages(node)) for node in NODES} == others
    for node in NODES:
        assert lab.in_router(node, "ip", "link", "show", f"in-{HOST}", check=False).returncode != 0


def test_neighbours_were_told(lab: Lab) -> None:
    """The sessions ended with a Cease and its message, not by a hold timer."""
    for node in NODES:
        assert "this node leaves the network" in lab.run(node, "docker", "logs", "dn42-router").stdout + lab.run(node, "docker", "logs", "dn42-router").stderr


def test_the_plan_and_the_keys_know_it_no_more(inventory: InventoryCopy) -> None:
    """The block is released, the key is gone, those of the others stay."""
    assert set(inventory.blocks()) == set(NODES)
    assert "released" in inventory.plan.read_text()
    assert set(yaml.safe_load(inventory.plan.with_name("public_keys.yml").read_text())) == set(NODES)


def test_again_changes_nothing(inventory: InventoryCopy) -> None:
    """The second run finds nothing to remove, and neither does check mode."""
    assert set(changed_hosts(run(inventory, *CONFIRMED)).values()) == {0}
    assert set(changed_hosts(run(inventory, *REMOVE, "--check")).values()) == {0}


def test_a_dead_node_leaves_too(lab: Lab, inventory: InventoryCopy) -> None:
    """Its host cannot be reached: the others and the plan forget it, and the report says what is left there."""
    run(inventory, "site.yml")
    for node in NODES:
        wait_for(f"{node} and {HOST}", lambda node=node: f"ibgp_{HOST}" in lab.established(node), SESSION_WAIT)
    # Ansible keeps connections open from run to run; those end as well.
    lab.run(HOST, "sh", "-c", "systemctl stop ssh.socket ssh.service; pkill sshd || true")
    try:
        output = run(inventory, *CONFIRMED)
    finally:
        lab.run(HOST, "systemctl", "start", "ssh.service")
    assert f"{HOST} was not reached" in output.replace("\n        ", " ")
    assert set(inventory.blocks()) == set(NODES)
    for node in NODES:
        assert f"ibgp_{HOST}" not in lab.sessions(node)
    output = run(inventory, *CONFIRMED)
    assert f"{HOST} was taken off its host" in output.replace("\n        ", " ")
    assert lab.run(HOST, "test", "-e", "/opt/dn42", check=False).returncode != 0
