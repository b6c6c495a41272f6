# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""B15: a Docker network that is not as declared is seen in each setting, and made anew only with permission.

The engine's answers are those of Docker 26.1; what it does with the commands is tested on real hosts.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dn42.compose.plugins.module_utils import _compose, _release
from ansible_collections.dn42.compose.plugins.module_utils import _release_network as docker_network

MODEL = {
    "block": {"ipv4": {"prefix": "172.23.255.0/29"}, "ipv6": {"prefix": "fd99:4242:1::/64"}},
    "addresses": {
        "host": {"ipv4": "172.23.255.1", "ipv6": "fd99:4242:1::1"},
        "gateway": {"ipv4": "172.23.255.2", "ipv6": "fd99:4242:1::2"},
    },
}
DECLARED = _compose.network(MODEL, "br-dn42")
LIVE: dict[str, Any] = {
    "Name": "dn42",
    "Driver": "bridge",
    "EnableIPv6": True,
    "IPAM": {
        "Driver": "default",
        "Options": None,
        "Config": [
            {"Subnet": "172.23.255.0/29", "Gateway": "172.23.255.1", "AuxiliaryAddresses": {"DefaultGatewayIPv4": "172.23.255.2"}},
            {"Subnet": "fd99:4242:1::/64", "Gateway": "fd99:4242:1::1", "AuxiliaryAddresses": {"DefaultGatewayIPv6": "fd99:4242:1::2"}},
        ],
    },
    "Internal": False,
    "Options": {"com.docker.network.bridge.enable_ip_masquerade": "false", "com.docker.network.bridge.name": "br-dn42"},
    "Labels": {"com.docker.compose.network": "dn42", "com.docker.compose.project": "dn42", "com.docker.compose.version": "2.26.1"},
}
Change = Callable[[dict[str, Any]], Any]


def found(live: dict[str, Any]) -> list[docker_network.Difference]:
    """The differences of a network that the engine describes so."""
    return docker_network.differences(docker_network.live_settings(live, DECLARED["driver_opts"]), docker_network.declared_settings(DECLARED, "dn42"))


CASES: list[tuple[str, Change, list[tuple[str, str, str]]]] = [
    ("as declared", lambda live: None, []),
    ("pools in another order", lambda live: live["IPAM"]["Config"].reverse(), []),
    ("spelt by another engine", lambda live: live["IPAM"]["Config"][1].update(Subnet="FD99:4242:1:0::/64", Gateway="fd99:4242:1:0:0::1/64"), []),
    ("options and labels of the engine's own", lambda live: (live["Options"].update({"com.docker.network.enable_ipv4": "true"}), live["Labels"].update(a="b")), []),
    ("another block", lambda live: live["IPAM"]["Config"][0].update(Subnet="172.23.255.32/29"), [("IPv4 subnet", "172.23.255.32/29", "172.23.255.0/29")]),
    ("a larger block", lambda live: live["IPAM"]["Config"][0].update(Subnet="172.23.255.0/28"), [("IPv4 subnet", "172.23.255.0/28", "172.23.255.0/29")]),
    ("the address of the host alone", lambda live: live["IPAM"]["Config"][0].update(Gateway="172.23.255.6"), [("IPv4 address of the host", "172.23.255.6", "172.23.255.1")]),
    ("no default gateway", lambda live: live["IPAM"]["Config"][1].pop("AuxiliaryAddresses"),
     [("IPv6 default gateway of the containers", "none", "fd99:4242:1::2")]),
    ("IPv6 not enabled (B18)", lambda live: live.update(EnableIPv6=False), [("IPv6", "no", "yes")]),
    ("the name of the bridge alone", lambda live: live["Options"].update({"com.docker.network.bridge.name": "br0"}), [("com.docker.network.bridge.name", "br0", "br-dn42")]),
    ("translation of addresses on", lambda live: live["Options"].pop("com.docker.network.bridge.enable_ip_masquerade"),
     [("com.docker.network.bridge.enable_ip_masquerade", "none", "false")]),
    ("internal", lambda live: live.update(Internal=True), [("internal", "yes", "no")]),
    ("made by hand", lambda live: live.update(Labels={}), [("Compose project", "none", "dn42"), ("Compose network", "none", "dn42")]),
    ("no addresses at all", lambda live: live.update(IPAM={"Config": None}, Options=None, Driver="macvlan"),
     [("driver", "macvlan", "bridge"), ("IPv4 subnet", "none", "172.23.255.0/29")]),
]  # fmt: skip


@pytest.mark.parametrize(("change", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_each_setting_is_compared(change: Change, expected: list[tuple[str, str, str]]) -> None:
    live = copy.deepcopy(LIVE)
    change(live)
    assert found(live)[: len(expected)] == expected
    assert bool(found(live)) is bool(expected)


def node(directory: Path, live: dict[str, Any] | None, containers: str, renumber: bool, commands: list[list[str]] | None = None) -> _release.Node:
    """A node whose engine has this network and these containers, and keeps what it is told to do."""

    def run(command: Sequence[str]) -> tuple[int, str, str]:
        words = list(command)[1:]
        if words[:2] == ["network", "inspect"]:
            return (0, json.dumps([live]), "") if live else (1, "[]", "no such network")
        if words[0] == "ps":
            return 0, containers if "--format" in words else "c1\nc2\n", ""
        assert commands is not None, f"the engine was told to {words}"
        commands.append(words)
        return 0, "", ""

    data = {"directory": str(directory), "project": "dn42", "compose_sha256": "", "network": DECLARED, "renumber": renumber, "wait": 1, "services": {}}
    return _release.Node(data, run, "docker")


OTHER = {**LIVE, "Options": {**LIVE["Options"], "com.docker.network.bridge.name": "br0"}}
RUNNING = "dn42-dns\tdn42\trunning\ndn42-router\tdn42\trunning\n"


def test_a_running_node_is_renumbered_with_permission_alone(tmp_path: Path) -> None:
    with pytest.raises(_release.ReleaseError) as refused:
        node(tmp_path, OTHER, RUNNING, renumber=False).network_change()
    for words in ("com.docker.network.bridge.name: br0, declared br-dn42", "dn42-dns, dn42-router", "dn42_stack_renumber: true", "Nothing was changed"):
        assert words in str(refused.value)
    change = node(tmp_path, OTHER, RUNNING, renumber=True).network_change()
    assert change is not None
    assert "com.docker.network.bridge.name: br0\n" in change["before"]
    assert "com.docker.network.bridge.name: br-dn42\n" in change["after"]


@pytest.mark.parametrize("containers", ["", "dn42-dns\tdn42\texited\n"], ids=["removed", "stopped"])
def test_what_a_killed_run_left_needs_no_permission(tmp_path: Path, containers: str) -> None:
    assert node(tmp_path, OTHER, containers, renumber=False).network_change() is not None


@pytest.mark.parametrize("renumber", [False, True])
def test_containers_of_others_end_the_run(tmp_path: Path, renumber: bool) -> None:
    containers = RUNNING + "shop-web\tshop\texited\nprobe\t\trunning\n"
    with pytest.raises(_release.ReleaseError, match=r"probe \(of no project\), shop-web \(project shop, not running\).*docker network disconnect --force dn42"):
        node(tmp_path, OTHER, containers, renumber=renumber).network_change()


@pytest.mark.parametrize("live", [None, LIVE], ids=["no network", "as declared"])
def test_a_network_as_declared_is_nobodys_business(tmp_path: Path, live: dict[str, Any] | None) -> None:
    assert node(tmp_path, live, RUNNING + "probe\t\trunning\n", renumber=False).network_change() is None


class BusyEngine:
    """An engine that still removes what a release had told it before it was killed: each command fails, and things go by themselves."""

    def __init__(self, stays: bool = False) -> None:
        self.left = {"containers": "c1\n", "network": "dn42"}
        self.stays = stays

    def __call__(self, command: Sequence[str]) -> tuple[int, str, str]:
        words = list(command)[1:]
        if words[:2] == ["network", "inspect"]:
            return (0, json.dumps([OTHER]), "") if self.left["network"] else (1, "[]", "no such network")
        if words[0] == "ps":
            return 0, self.left["containers"], ""
        if words[0] == "rm":
            self.left["containers"] = ""
        if words[0] == "network" and not self.stays:
            self.left["network"] = ""
        return 1, "", "Error response from daemon: network dn42 not found"


@pytest.mark.parametrize("stays", [False, True])
def test_an_error_counts_when_something_is_left(tmp_path: Path, stays: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Docker had removed the network between the question and the command, and the node stayed without containers."""
    monkeypatch.setattr(_release, "TAKE_DOWN_WAIT", 0.0)
    monkeypatch.setattr(_release.time, "sleep", lambda seconds: None)
    busy = node(tmp_path, OTHER, RUNNING, renumber=True)
    busy.run = BusyEngine(stays)
    if not stays:
        assert busy.take_down() == ["network dn42 removed, with 1 containers"]
        return
    with pytest.raises(_release.ReleaseError, match=r"cannot be removed; run again to go on from here:\n(.*\n)*`docker network rm dn42` failed"):
        busy.take_down()


def test_containers_go_before_their_network(tmp_path: Path) -> None:
    commands: list[list[str]] = []
    node(tmp_path, OTHER, RUNNING, renumber=True, commands=commands).take_down()
    assert commands == [["stop", "c1", "c2"], ["rm", "--force", "c1", "c2"], ["network", "rm", "dn42"]]
