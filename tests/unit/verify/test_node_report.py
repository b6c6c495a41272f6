# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what was read of the nodes to what is not as declared."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.dn42.compose.plugins.module_utils import _node_report as report

DESCRIPTION = "peer1 (AS4200429002)"


def session(asn: int, description: str, established: bool = True) -> dict[str, Any]:
    """A session as it is read."""
    channel = {"imported": 3, "filtered": 0, "exported": 2, "preferred": 3}
    info = "Established" if established else "Active  Socket: No route to host"
    return {
        "state": "up" if established else "start",
        "since": "14:45:20",
        "info": info,
        "established": established,
        "description": description,
        "neighbor_as": asn,
        "channels": {"ipv4": dict(channel), "ipv6": dict(channel)},
    }


def container(**other: Any) -> dict[str, Any]:
    """A container as it is read."""
    return {"running": True, "health": "healthy", "image": "dn42-router:0", "id": "1", "started": "2026-11-27T14:41:00Z", **other}


def healthy() -> dict[str, Any]:
    """All results of a node that is as declared."""
    tunnel = {"handshake": 20, "ok": True, "error": None, "mode": "kernel"}
    return {
        "__dn42_host": {"problems": []},
        "__dn42_address_plan": {"changes": []},
        "__dn42_docker_plan": {"actions": []},
        "__dn42_stack_images": {"missing": [], "images": {"router": "dn42-router:0"}},
        "__dn42_stack_key": {"public_key": "KEY="},
        "__dn42_stack_public_keys": {"known": {"fra1": "KEY="}},
        "__dn42_firewall_plan": {"actions": []},
        "__dn42_stack_release": {"changes": []},
        "__dn42_stack_network": {
            "nodes": {
                "fra1": {
                    "asn": 4200420001,
                    "addresses": {"gateway": {"ipv4": "172.23.255.2", "ipv6": "fd99:4242:1::2"}},
                    "peers": [{"interface": "wg-peer1", "shutdown": False, "sessions": [{"protocol": "peer_peer1"}]}],
                }
            }
        },
        "__dn42_node_state": {
            "files": [],
            "guard": "same",
            "units": {},
            "reading": {
                "containers": {"dn42-router": container(), "dn42-dns": container()},
                "sessions": {"peer_peer1": session(4200429002, DESCRIPTION), "ibgp_hkg1": session(4200420001, "node hkg1")},
                "tunnels": {"wg-peer1": tunnel, "in-hkg1": dict(tunnel)},
                "keeper": {"age": 1, "problems": {}},
                "resolver": {"ipv4": "answers", "ipv6": "answers"},
                "addresses": {"eth0": ["172.23.255.2/29", "fd99:4242:1::2/64"]},
                "problems": [],
            },
        },
    }


def shown(results: dict[str, Any], peers: bool = True) -> list[str]:
    """The findings as text."""
    return [" ".join(finding) for finding in report.findings("fra1", results, peers)]


def test_a_node_as_declared_has_no_findings() -> None:
    """The base of all other cases."""
    assert shown(healthy()) == []


def reading(results: dict[str, Any]) -> dict[str, Any]:
    """What was read of the running node."""
    return results["__dn42_node_state"]["reading"]


CASES: list[tuple[str, Callable[[dict[str, Any]], Any], list[str]]] = [
    ("host", lambda r: r["__dn42_host"].update(problems=["the disk\nis full"]), ["host down the disk is full"]),
    (
        "plan",
        lambda r: r["__dn42_address_plan"].update(
            changes=[
                {"holder": "fra1", "kind": "added", "before": None, "after": "172.23.255.0/29", "reason": "new"},
                {"holder": "hkg1", "kind": "added", "before": None, "after": "172.23.255.8/29", "reason": "new"},
            ]
        ),
        ["plan drift added: nothing -> 172.23.255.0/29 (new)"],
    ),
    ("key", lambda r: r["__dn42_stack_public_keys"].update(known={}), ["plan drift public key KEY= is not the one in the file of public keys (none)"]),
    ("daemon.json", lambda r: r["__dn42_docker_plan"].update(actions=["set debug to true"]), ["docker drift to do: set debug to true"]),
    ("image", lambda r: r["__dn42_stack_images"].update(missing=["router"]), ["images drift image dn42-router:0 is missing"]),
    (
        "release",
        lambda r: r["__dn42_stack_release"].update(
            changes=["router/bird.conf", "secret router/psk-wg-peer1", "container dn42-dns is not running (exited)", "network dn42 is made anew", "service web leaves"]
        ),
        [
            "containers drift container dn42-dns is not running (exited)",
            "containers drift service web leaves",
            "files drift router/bird.conf differs",
            "files drift secret router/psk-wg-peer1 differs",
            "network drift network dn42 is made anew",
        ],
    ),
    ("refused release", lambda r: r.update(__dn42_stack_release={"failed": True, "msg": "network dn42\nis not as declared"}), ["files down network dn42 is not as declared"]),
    ("port", lambda r: r["__dn42_firewall_plan"].update(actions=["add 22900/udp (running)"]), ["firewall drift to do: add 22900/udp (running)"]),
    ("flushed", lambda r: r["__dn42_node_state"].update(guard="missing"), ["firewall drift the guard's table inet dn42_guard is not loaded"]),
    ("edited rules", lambda r: r["__dn42_node_state"].update(guard="differs"), ["firewall drift the guard's table inet dn42_guard is not the declared one"]),
    ("unit", lambda r: r["__dn42_node_state"].update(units={"dn42-guard.service": "inactive, enabled"}), ["firewall drift dn42-guard.service is inactive, enabled"]),
    ("file", lambda r: r["__dn42_node_state"].update(files=["/etc/dn42/guard.nft"]), ["firewall drift /etc/dn42/guard.nft is not as declared"]),
    ("address", lambda r: reading(r).update(addresses={"eth0": ["172.23.255.2/29"]}), ["addresses down the router has not its address fd99:4242:1::2 (ipv6)"]),
    ("tunnel", lambda r: reading(r)["tunnels"]["in-hkg1"].update(ok=False, error="no such key"), ["tunnels down in-hkg1: no such key"]),
    ("handshake", lambda r: reading(r)["tunnels"]["in-hkg1"].update(handshake=181), ["tunnels down in-hkg1: no handshake for 181 s"]),
    (
        "session",
        lambda r: reading(r)["sessions"].update(ibgp_hkg1=session(4200420001, "node hkg1", False)),
        ["sessions down ibgp_hkg1 (node hkg1): Active  Socket: No route to host"],
    ),
    ("routes", lambda r: reading(r)["sessions"]["peer_peer1"]["channels"]["ipv6"].update(exported=0), [f"routes down peer_peer1 ({DESCRIPTION}): tells no ipv6 route"]),
    ("roa", lambda r: reading(r)["keeper"]["problems"].update(roa="the last data is 3 days old"), ["roa down roa: the last data is 3 days old"]),
    ("keeper", lambda r: reading(r)["keeper"].update(age=31), ["tunnels down the keeper's last word is 31 s old"]),
    ("resolver", lambda r: reading(r)["resolver"].update(ipv4="no answer: timed out"), ["resolver down ipv4: no answer: timed out"]),
    ("unhealthy", lambda r: reading(r)["containers"]["dn42-dns"].update(health="unhealthy"), ["containers down container dn42-dns is unhealthy"]),
]


@pytest.mark.parametrize(("change", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_each_difference_is_named(change: Callable[[dict[str, Any]], Any], expected: list[str]) -> None:
    """One thing is wrong, one thing is said."""
    results = copy.deepcopy(healthy())
    change(results)
    assert shown(results) == expected


def test_a_stopped_router_is_said_once() -> None:
    """Its sessions, tunnels and addresses are gone with it; the release names the container."""
    results = healthy()
    results["__dn42_stack_release"]["changes"] = ["container dn42-router is not running (exited)"]
    reading(results).update(containers={"dn42-router": container(running=False)}, sessions={}, tunnels={}, keeper=None, resolver={}, addresses={})
    reading(results)["problems"] = ["the container dn42-router does not run"]
    assert shown(results) == ["containers drift container dn42-router is not running (exited)"]


def test_foreign_peers_may_be_left_out() -> None:
    """Their sessions and handshakes are their business too; what the keeper cannot make is ours."""
    results = healthy()
    reading(results)["sessions"]["peer_peer1"] = session(4200429002, DESCRIPTION, False)
    reading(results)["tunnels"]["wg-peer1"]["handshake"] = None
    assert shown(results, peers=True) == ["tunnels down wg-peer1: no handshake", f"sessions down peer_peer1 ({DESCRIPTION}): Active  Socket: No route to host"]
    assert shown(results, peers=False) == []
    reading(results)["tunnels"]["wg-peer1"].update(ok=False, error="cannot resolve")
    assert shown(results, peers=False) == ["tunnels down wg-peer1: cannot resolve"]


def test_a_peer_that_is_shut_down_on_purpose_is_as_declared() -> None:
    """state: shutdown in the inventory."""
    results = healthy()
    results["__dn42_stack_network"]["nodes"]["fra1"]["peers"][0]["shutdown"] = True
    reading(results)["sessions"]["peer_peer1"] = session(4200429002, DESCRIPTION, False)
    reading(results)["tunnels"]["wg-peer1"]["handshake"] = None
    assert shown(results) == []


def test_table_and_json_say_the_same() -> None:
    """A node without faults, one with, one that nobody reached."""
    found = [report.Finding("firewall", report.DRIFT, "the guard is gone"), report.Finding("sessions", report.DOWN, "ibgp_hkg1: Active")]
    nodes = {"nrt1": None, "hkg1": found, "fra1": []}
    lines = report.table(nodes)
    assert lines[0].split() == ["node", *report.AREAS]
    assert lines[1].split() == ["fra1", *("." for _area in report.AREAS)]
    assert lines[2].split().count("1") == 2
    assert lines[3] == "nrt1  not reached"
    assert [line.split(None, 3) for line in lines[5:]] == [["hkg1", "firewall", "drift", "the guard is gone"], ["hkg1", "sessions", "down", "ibgp_hkg1: Active"]]
    data = report.as_json(nodes)
    assert data["ok"] is False
    assert {name: (node["ok"], node["reached"]) for name, node in data["nodes"].items()} == {"fra1": (True, True), "hkg1": (False, True), "nrt1": (False, False)}
    assert data["nodes"]["hkg1"]["findings"][0] == {"area": "firewall", "kind": "drift", "what": "the guard is gone"}
    assert report.summary(nodes) == "3 nodes: 1 not as declared (site.yml repairs these); 1 as declared but not working; not reached: nrt1."
    assert report.as_json({"fra1": []})["ok"] is True
    assert report.summary({"fra1": []}) == "1 nodes: all as declared."
