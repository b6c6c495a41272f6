# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""In which order containers are replaced, what is said to them before, and what is removed afterwards."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dn42.compose.plugins.module_utils import _release


class Docker:
    """Two services, of which Compose replaces those whose hash differs from their container's label."""

    def __init__(self, hashes: dict[str, str], replaces: bool = True) -> None:
        self.hashes = hashes
        self.replaces = replaces
        self.ids = {"router": 1, "dns": 1}
        self.labels = {"router": "a", "dns": "a"}
        self.said: list[str] = []

    def __call__(self, command: Sequence[str]) -> tuple[int, str, str]:
        words = list(command)
        if "config" in words:
            return 0, "".join(f"{name} {digest}\n" for name, digest in self.hashes.items()), ""
        if words[1:3] == ["container", "inspect"]:
            return 0, json.dumps([self.container(name) for name in self.ids]), ""
        if words[1:3] == ["image", "ls"]:
            return 0, "dn42-router:0123456789ab\ndn42-router:ba9876543210\ndn42-router:latest\ndn42-other:0123456789ab\ndebian:trixie-slim\n", ""
        if words[1:3] == ["network", "ls"]:
            return 0, "dn42\ndn42-egress\n", ""
        self.said.append(" ".join(word for word in words[1:] if not word.startswith("--") and word not in ("never", str(Path("/nowhere")))))
        if "up" in words and self.replaces:
            for name in [words[-1]] if words[-1] in self.hashes else list(self.ids):
                self.ids.setdefault(name, 0)
                self.labels.setdefault(name, "")
                if self.labels[name] != self.hashes[name]:
                    self.ids[name] += 1
                    self.labels[name] = self.hashes[name]
        return 0, "", ""

    def container(self, name: str) -> dict[str, Any]:
        config = {"Image": f"dn42-{name}:0123456789ab", "Labels": {"com.docker.compose.config-hash": self.labels[name]}}
        return {"Name": f"/dn42-{name}", "Id": str(self.ids[name]), "Config": config, "State": {"Running": True}, "NetworkSettings": {"Networks": {}}}


def node(docker: Docker, directory: Path = Path("/nowhere"), names: Sequence[str] = ("router", "dns")) -> _release.Node:
    """A node of two services; the router wants to be told before it is replaced."""
    services = {}
    for name in names:
        services[name] = {
            "service": name,
            "container": f"dn42-{name}",
            "image": f"dn42-{name}:0123456789ab",
            "release": "r1",
            "files": {},
            "addresses": {},
            "check": [],
            "check_capabilities": [],
            "reload": [],
            "before_recreate": [["end", "quietly"]] if name == "router" else [],
            "secrets": {"owner": None, "keep": [], "files": {}},
        }
    network = {"name": "dn42", "driver_opts": {}}
    declared = {"directory": str(directory), "project": "dn42", "compose_sha256": "", "network": network, "renumber": False, "wait": 1, "networks": ["dn42"], "services": services}
    return _release.Node(declared, docker, "docker")


def test_a_new_service_runs_before_the_router_is_told_to_count_on_it() -> None:
    docker = Docker({"router": "a", "dns": "a", "rpki": "a"})
    newer = node(docker, names=("router", "dns", "rpki"))
    assert newer._start_newcomers() == ["container dn42-rpki started"]
    assert docker.said == ["compose up rpki"]
    assert newer._start_newcomers() == []


@pytest.mark.parametrize("router", ["absent", "stopped"])
def test_on_a_node_that_does_not_route_nothing_comes_first(router: str, monkeypatch: pytest.MonkeyPatch) -> None:
    docker = Docker({"router": "a", "dns": "a"})
    docker.ids = {"router": 1} if router == "stopped" else {}
    container = docker.container
    monkeypatch.setattr(docker, "container", lambda name: {**container(name), "State": {"Running": False}})
    assert node(docker)._start_newcomers() == []
    assert docker.said == []


def test_a_new_service_that_is_not_well_ends_the_release_before_the_router_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    docker = Docker({"router": "a", "dns": "a", "rpki": "a"})
    sick = {"Running": True, "Health": {"Status": "unhealthy", "Log": [{"Output": "no ROAs yet"}]}}
    container = docker.container
    monkeypatch.setattr(docker, "container", lambda name: {**container(name), "State": sick} if name == "rpki" else container(name))
    monkeypatch.setattr(_release.time, "sleep", lambda _seconds: None)
    newer = node(docker, names=("router", "dns", "rpki"))
    newer.wait = 0
    with pytest.raises(_release.ReleaseError, match="dn42-rpki is unhealthy: no ROAs yet"):
        newer.start()
    assert docker.said == ["compose up rpki"]


def test_compose_is_not_troubled_where_everything_runs_as_defined() -> None:
    docker = Docker({"router": "a", "dns": "a"})
    assert node(docker)._up() == []
    assert not [words for words in docker.said if "up" in words.split()]


@pytest.mark.parametrize("why", ["another compose.yaml", "a service less", "a container that stopped"])
def test_compose_has_to_look_where_something_may_differ(why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    docker = Docker({"router": "a", "dns": "a"})
    one = node(docker)
    if why == "another compose.yaml":
        one.composed = True
    elif why == "a service less":
        monkeypatch.setattr(one, "orphans", lambda: ["mail"])
    else:
        container = docker.container
        monkeypatch.setattr(docker, "container", lambda name: {**container(name), "State": {"Running": name != "dns"}})
    one._up()
    assert docker.said[-1] == "compose up"


def test_containers_are_replaced_one_by_one_the_router_last_and_told_before() -> None:
    docker = Docker({"router": "b", "dns": "b"})
    done = node(docker)._up()
    assert docker.said == ["compose up dns", "exec dn42-router end quietly", "compose up router", "compose up"]
    assert done == ["router: `end quietly` before it is replaced", "container dn42-dns started", "container dn42-router started"]


@pytest.mark.parametrize("hashes", [{"router": "a", "dns": "b"}, {"router": "a", "dns": "a"}])
def test_a_container_that_stays_is_not_told(hashes: dict[str, str]) -> None:
    docker = Docker(hashes)
    node(docker)._up()
    assert not any("quietly" in said for said in docker.said)


def test_a_container_that_was_told_and_stays_all_the_same_is_restarted() -> None:
    docker = Docker({"router": "b", "dns": "a"}, replaces=False)
    node(docker)._up()
    assert docker.said[-1] == "restart dn42-router"


def test_only_what_was_made_here_and_nobody_needs_is_removed(tmp_path: Path) -> None:
    docker = Docker({})
    (tmp_path / "services").mkdir()
    node(docker, tmp_path).prune()
    assert docker.said == ["image rm dn42-router:ba9876543210", "network rm dn42-egress"]
