# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Adding a node is adding a host: one run, and the first two nodes notice nothing but a new neighbour."""

from __future__ import annotations

import difflib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from network_probe import Lab, wait_for
from support import CHECKOUT, NODES, SESSION_WAIT, changed_hosts, playbook, wait_for_node

HOST = "nrt1"


@pytest.fixture(scope="module")
def inventory(lab: Lab) -> Iterator[Path]:
    """The demo's inventory with one host more, in a folder beside it, so that its paths still hold."""
    folder = CHECKOUT / "inventories" / "demo-third-node"
    shutil.copytree(CHECKOUT / "inventories" / "demo", folder, dirs_exist_ok=True)
    (folder / "third.yml").write_text(f"---\ndn42_nodes:\n  hosts:\n    {HOST}:\n      ansible_host: 203.0.113.13\n")
    lab.lab("add", HOST)
    yield folder
    # Back to two nodes, for whatever is tested after this.
    lab.lab("remove", HOST)
    playbook()
    shutil.rmtree(folder)


def snapshot(lab: Lab) -> list[str]:
    """Everything that a run could leave on the bare host: files, packages, rules, network, settings."""
    script = (
        "find /etc /opt /usr /root /home /srv /var/lib/dpkg /var/lib/apt -xdev -printf '%p %U %m %s %l\\n' | sort;"
        "find /etc /opt -xdev -type f | sort | xargs sha256sum; nft list ruleset; ip -br address; ip route; ip -6 route;"
        "sysctl -a 2>/dev/null | grep -E 'forwarding|accept_ra|rp_filter'"
    )
    return [line for line in lab.run(HOST, "sh", "-c", script).stdout.splitlines() if not line.startswith("/root/.ansible")]


def test_check_mode_on_the_bare_host_changes_nothing(lab: Lab, inventory: Path) -> None:
    """B59: a first run with --check --diff reports what would be done, and neither fails nor does any of it."""
    before, plan = snapshot(lab), (inventory / "plan" / lab.name / "addresses.yml").read_text()
    done = playbook("site.yml", "--check", "--diff", inventory=str(inventory))
    changes = changed_hosts(done.stdout)
    assert changes[HOST] > 0
    assert "+++ after: router/bird.conf" in done.stdout
    assert list(difflib.unified_diff(before, snapshot(lab), "before", "after", n=0, lineterm="")) == []
    assert (inventory / "plan" / lab.name / "addresses.yml").read_text() == plan


def test_third_node_joins_without_disturbing_the_others(lab: Lab, inventory: Path) -> None:
    """Addresses, containers and sessions of the first two are the same; pings cross all three."""
    before = {node: (lab.addresses(node, "dn42-dns"), lab.container_starts(node), lab.ages(node)) for node in NODES}
    playbook(inventory=str(inventory))
    for node in NODES:
        wait_for(f"{node} and {HOST}", lambda node=node: f"ibgp_{HOST}" in lab.established(node), SESSION_WAIT)
        sessions = {name: session for name, session in lab.ages(node).items() if name != f"ibgp_{HOST}"}
        assert (lab.addresses(node, "dn42-dns"), lab.container_starts(node), sessions) == before[node]
    wait_for_node(lab, HOST)
    everybody = [*NODES, HOST]
    for source in everybody:
        for target in everybody:
            for address in lab.addresses(target, "dn42-looking-glass"):
                assert lab.ping(source, "dn42-dns", address), f"{source} -> {target} {address}"
