# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A new image of the router interrupts its packets for seconds, and no network hears of it: peers keep the routes meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from network_probe import Lab, wait_for
from support import changed_hosts, playbook, wait_for_node

NODE = "fra1"
BASE_IMAGE = "debian:trixie-slim"
ANOTHER_NAME = "debian:trixie-slim-renamed"
# What peer1 has from fra1, five times a second: one line with both families' prefix, or what is left of them.
WATCH = f"while sleep 0.2; do birdc show route protocol {NODE} | grep -oE '^(172.23.255.0/26|fd99:4242:1::/48)' | sort | xargs; done > /run/watch"
BOTH = "172.23.255.0/26 fd99:4242:1::/48"


@contextmanager
def watched_routes(lab: Lab) -> Iterator[list[str]]:
    """Every look at the table of peer1 while the block runs; the list is filled at its end."""
    seen: list[str] = []
    lab.run("peer1", "systemd-run", "--quiet", "--unit=watch-routes", "sh", "-c", WATCH)
    try:
        wait_for("the first look", lambda: lab.run("peer1", "cat", "/run/watch").stdout.count("\n") > 1, 30)
        yield seen
    finally:
        lab.run("peer1", "systemctl", "stop", "watch-routes")
        # The last line may be half a line.
        seen += lab.run("peer1", "cat", "/run/watch").stdout.split("\n")[:-1]
        lab.run("peer1", "rm", "/run/watch")


def test_a_new_image_of_the_router_withdraws_nothing(lab: Lab) -> None:
    """BIRD goes without a farewell, so that peer1 keeps our routes until the new one is there. The next run has nothing to do."""
    # The name of the base image is part of what an image is made of, so another name is another image.
    lab.run(NODE, "docker", "tag", BASE_IMAGE, ANOTHER_NAME)
    before = lab.container_starts(NODE)["dn42-router"]
    sessions_of_peer1 = lab.ages("peer1")
    try:
        with watched_routes(lab) as seen:
            playbook("site.yml", "--limit", NODE, "-e", f"dn42_stack_base_image={ANOTHER_NAME}")
            assert lab.container_starts(NODE)["dn42-router"] != before, "the router was not made anew"
            wait_for_node(lab, NODE)
        assert set(seen) == {BOTH}
        ages = lab.ages("peer1")
        assert ages[NODE] != sessions_of_peer1[NODE], "the session was never interrupted, so nothing was shown"
        assert ages["hkg1"] == sessions_of_peer1["hkg1"]
    finally:
        playbook("site.yml", "--limit", NODE)
        lab.run(NODE, "docker", "rmi", ANOTHER_NAME)
        wait_for_node(lab, NODE)


@pytest.mark.full
def test_a_container_made_from_another_definition_is_made_anew(lab: Lab) -> None:
    """A run that was killed between writing compose.yaml and `docker compose up` is completed by the next one."""
    compose = "/opt/dn42/compose.yaml"
    lab.run(NODE, "sh", "-c", f"cp -a {compose} /run/compose && sed 's/max-size: 5m/max-size: 4m/' {compose} > /run/other && cp /run/other {compose}")
    lab.run(NODE, "docker", "compose", "--project-directory", "/opt/dn42", "up", "--detach", "--no-build", "--no-deps", "dns")
    lab.run(NODE, "sh", "-c", f"cp -a /run/compose {compose} && rm /run/compose /run/other")
    before = lab.container_starts(NODE)
    done = playbook("site.yml", "--limit", NODE)
    assert changed_hosts(done.stdout) == {NODE: 1}
    after = lab.container_starts(NODE)
    assert after.pop("dn42-dns") != before.pop("dn42-dns")
    assert after == before
    assert changed_hosts(playbook("site.yml", "--limit", NODE).stdout) == {NODE: 0}
