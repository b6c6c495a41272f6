# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A new image of the router: its container is replaced, and the network does not notice (BGP graceful restart)."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest
from network_probe import Lab, wait_for
from support import CHECKOUT, changed_hosts, playbook, wait_for_node

NODE = "fra1"
OTHER_BASE = "localhost/upgraded:1"
# BIRD's default restart time, which it tells its peers (seconds).
RESTART_TIME = 120

# Counts the node's routes in the peer's table every 0.2 s and prints the time and the count whenever it changes.
WATCH = """
import subprocess, sys, time
last = None
while True:
    shown = subprocess.run(["birdc", "show", "route", "protocol", sys.argv[1]], capture_output=True, text=True).stdout
    count = sum(line[:1].isalnum() and "/" in line.split()[0] for line in shown.splitlines())
    if count != last:
        print(time.time(), count, flush=True)
        last = count
    time.sleep(0.2)
"""


@pytest.fixture
def other_base(lab: Lab) -> Iterator[None]:
    """The base image under another name, so that every image has another tag; afterwards the node is as the demo says."""
    lab.run(
        NODE,
        "sh",
        "-c",
        f"docker image inspect debian:trixie-slim >/dev/null 2>&1 || docker load --input /srv/images/debian-trixie-slim.tar; docker tag debian:trixie-slim {OTHER_BASE}",
    )
    yield
    playbook("site.yml", "--limit", NODE)
    lab.run(NODE, "docker", "image", "rm", OTHER_BASE, check=False)


def test_peers_keep_their_routes_while_the_router_is_replaced(lab: Lab, other_base: None) -> None:
    """Not for a moment does the peer lose a route: the session ends without a NOTIFICATION, and BIRD comes back within its restart time."""
    wait_for_node(lab, NODE)
    before = lab.container_starts(NODE)
    command = [str(CHECKOUT / "tests/lab/lab"), "exec", "--name", lab.name, "peer1", "python3", "-c", WATCH, NODE]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watching:
        try:
            done = playbook("site.yml", "--limit", NODE, "-e", f"dn42_stack_base_image={OTHER_BASE}")
            wait_for("peer1's session", lambda: NODE in lab.established("peer1"), RESTART_TIME)
            wait_for("traffic", lambda: lab.ping(NODE, "dn42-dns", "172.22.200.80", count=1), RESTART_TIME)
        finally:
            lab.run("peer1", "pkill", "--full", "birdc., .show., .route", check=False)
            watching.terminate()
        counts = [int(line.split()[1]) for line in watching.communicate(timeout=30)[0].splitlines()]
    assert changed_hosts(done.stdout)[NODE] > 0
    after = lab.container_starts(NODE)
    assert all(after[name] != before[name] for name in before), "not every container was replaced"
    assert counts, "nothing was watched"
    assert min(counts) == counts[0] > 0, f"routes of {NODE} in peer1's table: {counts}"
