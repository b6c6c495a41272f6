# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Docker on the next Debian, from its own packages: newer ones than those of every other host of the lab."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from inventory_copy import InventoryCopy
from network_probe import Lab
from support import changed_hosts, playbook

NODE, ADDRESS = "sin1", "203.0.113.15"
pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def inventory(lab: Lab) -> Iterator[InventoryCopy]:
    """The demo's inventory with the node as its third, and two nodes again afterwards."""
    lab.lab("remove", NODE)  # what an earlier run on a lab that was kept has left
    lab.lab("add", NODE, timeout=900)
    found = InventoryCopy("next", lab.name)
    found.hosts({**found.addresses(), NODE: ADDRESS})
    try:
        yield found
    finally:
        lab.lab("remove", NODE)
        playbook()
        found.remove()


def docker_role(folder: Path, inventory: InventoryCopy, options: dict, *arguments: str) -> int:
    """Run the role docker alone on the node; how many tasks changed something."""
    path = folder / "docker.yml"
    path.write_text("---\n- hosts: dn42_nodes\n  gather_facts: false\n  roles:\n    - role: dn42.compose.docker\n")
    given = json.dumps({"dn42_docker_daemon_options": options})
    return changed_hosts(playbook(str(path), "--limit", NODE, "-e", given, *arguments, inventory=str(inventory.folder)).stdout)[NODE]


def test_docker_is_installed_from_debian_and_a_second_run_changes_nothing(lab: Lab, inventory: InventoryCopy, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Check mode first; then Docker of a generation that filters IPv6 by itself."""
    assert docker_role(tmp_path, inventory, {}, "--check") > 0
    assert lab.run(NODE, "sh", "-c", "command -v dockerd", check=False).returncode != 0
    assert docker_role(tmp_path, inventory, {}) > 0
    assert docker_role(tmp_path, inventory, {}) == 0
    version = lab.run(NODE, "docker", "version", "--format", "{{.Server.Version}}").stdout.strip()
    assert int(version.partition(".")[0]) >= 28
    assert "Debian" in lab.run(NODE, "apt-cache", "show", "docker.io").stdout
    with capsys.disabled():
        programs = lab.run(NODE, "sh", "-c", "docker compose version --short; firewall-cmd --version; systemctl --version | head -1; python3 --version").stdout
        print(f"\n    Docker {version}, Compose, firewalld, systemd, Python: {', '.join(programs.split(chr(10)))}")


def test_settings_come_and_go(lab: Lab, inventory: InventoryCopy, tmp_path: Path) -> None:
    """What needs a reload and what needs a restart, found out from this Docker's own log."""
    options = {"live-restore": True, "log-opts": {"max-size": "10m"}}
    assert docker_role(tmp_path, inventory, options) > 0
    assert lab.run(NODE, "docker", "info", "--format", "{{.LiveRestoreEnabled}}").stdout.strip() == "true"
    assert docker_role(tmp_path, inventory, options) == 0
    assert docker_role(tmp_path, inventory, {}) > 0
    assert lab.run(NODE, "docker", "info", "--format", "{{.LiveRestoreEnabled}}").stdout.strip() == "false"
    assert lab.run(NODE, "ls", "/etc/docker/daemon.json", check=False).returncode != 0
