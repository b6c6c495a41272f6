# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A change goes from node to node, and goes no further than the first node that it makes worse."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest
import yaml
from inventory_copy import DEMO, InventoryCopy
from network_probe import Lab, wait_for
from support import CHECKOUT, NODES, SESSION_WAIT, changed_hosts, playbook, wait_for_node

FIRST, SECOND = NODES
# Seconds: long enough for a session that comes back by itself (BIRD retries every 10), short for one that does not.
QUICK = ("-e", "dn42_stack_confirm_seconds=40", "-e", "dn42_stack_wait=40")


@pytest.fixture
def inventory(lab: Lab) -> Iterator[InventoryCopy]:
    """The demo's inventory, to be changed; at the end the nodes are as before."""
    for node in NODES:
        wait_for_node(lab, node)
    found = InventoryCopy("rolling", lab.name)
    yield found
    found.remove()
    playbook("site.yml", "-e", "dn42_serial=100%", "-e", "dn42_stack_lost_sessions=9")
    for node in NODES:
        wait_for_node(lab, node)


def untouched(lab: Lab, node: str) -> object:
    """What a node runs, and since when."""
    files = "find /opt/dn42/services /opt/dn42/compose.yaml /etc/dn42 -type f ! -name '.*' | sort | xargs sha256sum; readlink /opt/dn42/services/*/current"
    return lab.run(node, "sh", "-c", files).stdout, lab.container_starts(node)


def peers(node: str, **other: object) -> list[dict[str, object]]:
    """A node's peers with something else in each."""
    return [{**peer, **other} for peer in yaml.safe_load((DEMO / "host_vars" / f"{node}.yml").read_text())["dn42_peers"]]


def flat(output: str) -> str:
    """A run's output with its messages on one line."""
    return " ".join(output.split())


def test_a_change_that_makes_the_first_node_worse_reaches_no_other(lab: Lab, inventory: InventoryCopy) -> None:
    """Both nodes are told a wrong address of peer1: the first loses its session, takes the change back, and the second never gets it."""
    for node in NODES:
        inventory.set(node, dn42_peers=peers(node, peer_address="fe80::dead"))
    before = {node: (untouched(lab, node), lab.ages(node)) for node in NODES}
    done = inventory.run(*QUICK, check=False)
    assert done.returncode != 0
    assert f"{FIRST} " in done.stdout.partition("PLAY RECAP")[2]
    assert "peer_peer1" in flat(done.stdout.partition("fatal:")[2]), done.stdout[-3000:]
    assert (untouched(lab, SECOND), lab.ages(SECOND)) == before[SECOND]
    # The first one took it back by itself.
    assert untouched(lab, FIRST)[1] == before[FIRST][0][1]  # type: ignore[index]
    wait_for_node(lab, FIRST)


@pytest.mark.full
def test_nobody_follows_while_another_node_is_worse(lab: Lab, inventory: InventoryCopy) -> None:
    """The first node is content with its change, but meanwhile the second lost a session: it is not changed on top of that."""
    before = untouched(lab, SECOND)
    command = ["ansible-playbook", "-i", str(inventory.folder), "site.yml", *QUICK, "-e", "dn42_router_import_limit=8001"]
    lines = []
    with subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as run:
        for line in run.stdout or ():
            lines.append(line)
            if line.startswith("PLAY [Change the nodes]") and "".join(lines).count("PLAY [Change the nodes]") == 1:
                lab.birdc(SECOND, "disable", "peer_peer1")
    try:
        message = flat("".join(lines).partition("Compare the whole network with what it was before")[2])
        assert run.returncode != 0
        assert f"{SECOND} is worse than before since {FIRST} changed; no further node is changed" in message, message[-3000:]
        assert "peer_peer1" in message
        assert untouched(lab, SECOND) == before
    finally:
        lab.birdc(SECOND, "enable", "peer_peer1")


@pytest.mark.full
def test_a_harmless_change_reaches_all_one_after_the_other(lab: Lab, inventory: InventoryCopy) -> None:
    """One node alone, then the rest; a third that is as declared is not looked at twice, and sessions keep their age."""
    before = {node: (lab.container_starts(node), lab.ages(node)) for node in NODES}
    done = inventory.run("-e", "dn42_router_import_limit=8001")
    play = done.stdout.partition("PLAY [Change the nodes]")[2]
    first, _again, second = play.partition("PLAY [Change the nodes]")
    assert f"changed: [{FIRST}]" in first
    assert f"[{SECOND}]" not in first.replace(f"{FIRST} -> {SECOND}", "")
    assert f"changed: [{SECOND}]" in second
    assert changed_hosts(done.stdout) == dict.fromkeys(NODES, 1)
    assert {node: (lab.container_starts(node), lab.ages(node)) for node in NODES} == before
    # Nothing to do: nobody enters the part that goes from node to node.
    done = inventory.run("-e", "dn42_router_import_limit=8001")
    assert changed_hosts(done.stdout) == dict.fromkeys(NODES, 0)
    assert "Compare the whole network" not in done.stdout
    # All at once where the operator says so.
    done = inventory.run("-e", "dn42_serial=100%")
    assert done.stdout.count("PLAY [Change the nodes]") == 1
    assert changed_hosts(done.stdout) == dict.fromkeys(NODES, 1)
    wait_for("both sessions", lambda: all(len(lab.established(node)) >= 2 for node in NODES), SESSION_WAIT)
