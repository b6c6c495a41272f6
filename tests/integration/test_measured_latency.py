# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The latency that a node measures, in what peer1 and the other node really have. How it behaves over time is in bgp/test_latency.py."""

from __future__ import annotations

import json
import re

from network_probe import Lab, wait_for
from support import SESSION_WAIT

# Three samples, the first soon and then every 20 s, and a pass of the keeper.
FIRST_VALUE = 120


def latencies(text: str) -> set[int]:
    """The values of the group in an answer of BIRD."""
    return {int(value) for value in re.findall(r"\(64511, ?(\d+)\)", text) if 1 <= int(value) <= 9}


def status(lab: Lab, node: str) -> dict:
    """What the keeper says of a node's links."""
    return json.loads(lab.run(node, "docker", "exec", "dn42-router", "cat", "/run/keeper/status.json").stdout)["latency"]["links"]


def test_a_peer_is_told_the_latency_of_the_tunnel(lab: Lab) -> None:
    told = wait_for("our aggregate with a latency", lambda: latencies(lab.run("peer1", "birdc", "show", "route", "172.23.255.0/26", "all").stdout), SESSION_WAIT + FIRST_VALUE)
    assert told == {status(lab, "fra1")["peer_peer1"]["value"]}


def test_the_way_between_our_nodes_is_measured(lab: Lab) -> None:
    value = wait_for("a value for fra1", lambda: status(lab, "hkg1")["node_fra1"]["value"], SESSION_WAIT + FIRST_VALUE)
    here = wait_for("it on peer1's route", lambda: latencies(lab.birdc("hkg1", "show", "route", "172.22.200.0/25", "all")), FIRST_VALUE)
    assert here == {max(value, status(lab, "fra1")["peer_peer1"]["value"])}


def test_a_keeper_that_is_started_again_changes_nothing(lab: Lab) -> None:
    """Neither values nor sessions; and BIRD is not told once more."""
    ages, links = lab.ages("fra1"), status(lab, "fra1")
    said = "BIRD has loaded the present files"
    before = lab.run("fra1", "docker", "logs", "dn42-router").stderr.count(said)
    written = "/run/keeper/status.json"
    began = lab.run("fra1", "docker", "exec", "dn42-router", "cat", written).stdout
    lab.run("fra1", "docker", "exec", "dn42-router", "s6-svc", "-r", "/run/service/keeper")
    wait_for(
        "a status of the new keeper", lambda: json.loads(lab.run("fra1", "docker", "exec", "dn42-router", "cat", written).stdout)["began"] > json.loads(began)["began"] + 2, 30
    )
    assert {name: link["value"] for name, link in status(lab, "fra1").items()} == {name: link["value"] for name, link in links.items()}
    assert lab.run("fra1", "docker", "logs", "dn42-router").stderr.count(said) == before
    assert lab.ages("fra1") == ages
