# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The release cycle on a real file system with a Docker that only answers. What it does to real nodes is tested in the lab."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dn42.compose.plugins.module_utils import _release, _release_cycle, _release_history, _release_request, _release_unit, _service_role
from ansible_collections.dn42.compose.plugins.module_utils._release_transaction import Transaction

TUNNELS = {name: json.dumps({"tunnels": [{"name": name} for name in names]}) for name, names in {"three": ["wg-a", "wg-b", "wg-c"], "none": []}.items()}


class Docker:
    """Answers as Docker does on a node with one container, whose sessions are up as long as `lost` is not in its configuration."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.silent = False
        self.running = True
        self.commands: list[Sequence[str]] = []

    def __call__(self, command: Sequence[str]) -> tuple[int, str, str]:
        self.commands.append(command)
        words = " ".join(command)
        if self.silent:
            return 1, "", "Cannot connect to the Docker daemon"
        if "container inspect" in words:
            container = {
                "Name": "/dn42-router",
                "Id": "1",
                "Config": {"Image": "dn42-router:0", "Labels": {}},
                "State": {"Running": self.running, "Status": "running", "StartedAt": "2026-01-02T03:04:05.0Z", "Health": {"Status": "healthy", "Log": []}},
                "NetworkSettings": {"Networks": {}},
            }
            return 0, json.dumps([container]), ""
        if "network inspect" in words:
            return 1, "", "none"
        if "exec dn42-router python3" in words:
            return 0, json.dumps(self.told()), ""
        return 0, "", ""

    def told(self) -> dict[str, Any]:
        """What the router says of its sessions."""
        current = self.directory / "services/router/current/bird.conf"
        up = not current.exists() or "lost" not in current.read_text()
        line = "peer_a     BGP        ---        up     14:42:20.169  Established" if up else "peer_a     BGP        ---        start  14:42:20.169  Active"
        empty = {"text": "", "error": ""}
        return {"now": 0, "keeper": None, "resolver": {}, "protocols": {"text": line + "\n", "error": ""}, "handshakes": empty, "addresses": empty}


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class Site:
    """A node's directory, and releases to it."""

    def __init__(self, root: Path) -> None:
        self.directory = root / "dn42"
        self.directory.mkdir()
        self.docker = Docker(self.directory)
        self.cycle = _release_cycle.Cycle(self.directory, self.docker, "docker")
        self.root = root

    def declared(self, bird: str, psk: str, tunnels: str, **settings: Any) -> dict[str, Any]:
        """A release as the controller declares it."""
        files = {"bird.conf": bird, "tunnels.json": TUNNELS[tunnels]}
        service = {
            "service": "router",
            "container": "dn42-router",
            "image": "dn42-router:0",
            "release": sha256(bird + tunnels)[:16],
            "addresses": {},
            "files": {name: sha256(text) for name, text in files.items()},
            "check": [],
            "check_capabilities": [],
            "reload": [["birdc", "configure"]],
            "before_recreate": [],
            "secrets": {"owner": os.getuid(), "keep": ["private.key"], "files": {"psk": sha256(psk)}},
        }
        return {
            "directory": str(self.directory),
            "project": "dn42",
            "wait": 1,
            "renumber": False,
            "compose_sha256": sha256(f"compose {bird}"),
            "network": {"name": "dn42", "driver_opts": {}},
            "networks": ["dn42"],
            "tunnels": [tunnel["name"] for tunnel in json.loads(TUNNELS[tunnels])["tunnels"]],
            "removal": {"limit": 50, "allowed": False},
            "confirm": {"seconds": 0, "lost_sessions": 0, "lost_routes": 50, "expected_down": []},
            "services": {"router": service},
            **settings,
        }

    def release(self, bird: str, psk: str = "one", tunnels: str = "three", **settings: Any) -> dict[str, Any]:
        """Send a release and carry it out."""
        entries = {"compose.yaml": f"compose {bird}", "services/router/bird.conf": bird, "services/router/tunnels.json": TUNNELS[tunnels], "secrets/router/psk": psk}
        archive = self.root / "release.tar.gz"
        archive.write_bytes(_service_role.archive((name, text.encode(), 0o644) for name, text in entries.items()))
        scratch = self.root / f"scratch{len(list(self.root.glob('scratch*')))}"
        scratch.mkdir()
        what = [f"secret router/psk {psk}"] if psk != "one" else ["router/bird.conf"]
        return self.cycle.release(self.declared(bird, psk, tunnels, **settings), archive, scratch, "alice@laptop", what)

    def state(self) -> tuple[str, str, str]:
        """What counts now: configuration, compose.yaml, secret."""
        paths = ("services/router/current/bird.conf", "compose.yaml", "secrets/router/psk")
        return tuple((self.directory / path).read_text() for path in paths)  # type: ignore[return-value]

    def listing(self) -> list[str]:
        return sorted(path.name for path in self.directory.iterdir())


AT_REST = ["compose.yaml", "history", "secrets", "services"]


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here takes time to get well."""
    monkeypatch.setattr(_release_cycle, "PAUSE", 0.0)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A node with a first release."""
    site = Site(tmp_path)
    assert site.release("first")["failed"] is False
    return site


def test_a_release_that_is_no_worse_is_confirmed_and_noted(site: Site) -> None:
    result = site.release("second", psk="two")
    assert (result["failed"], result["release"]) == (False, _release_history.present_id(site.directory))
    assert site.state() == ("second", "compose second", "two")
    assert site.listing() == AT_REST
    entries = site.cycle.history.entries()
    assert [(entry.number, entry.content["who"], entry.content["what"]) for entry in entries] == [
        (1, "alice@laptop", ["router/bird.conf"]),
        (2, "alice@laptop", ["secret router/psk two"]),
    ]


def test_a_release_that_loses_a_session_is_undone_with_its_reason(site: Site) -> None:
    before = site.state()
    result = site.release("lost", psk="two")
    assert (result["failed"], result["undone"]) == (True, True)
    assert result["report"] == ["session peer_a was established, now: Active"]
    assert f"back at {_release_history.present_id(site.directory)}" in result["msg"]
    assert site.state() == before
    assert site.listing() == AT_REST
    assert len(list((site.directory / "services/router/releases").iterdir())) == 1, "the refused release is still there"
    assert ["docker", "exec", "dn42-router", "birdc", "configure"] in [list(command) for command in site.docker.commands[-12:]]


def test_the_user_may_tolerate_a_loss(site: Site) -> None:
    confirm = {"seconds": 0, "lost_sessions": 1, "lost_routes": 50, "expected_down": []}
    assert site.release("lost", confirm=confirm)["failed"] is False
    assert site.state()[0] == "lost"


@pytest.mark.parametrize("step", ["put_in_place", "start", "_write_secrets", "_switch", "_up", "_reload"])
def test_a_process_that_dies_anywhere_is_undone_by_the_next(site: Site, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """Killed after the step: nothing after it runs, not even the handling of errors."""
    before = site.state()
    real = getattr(_release.Node, step)

    def killed(self: _release.Node, *arguments: Any) -> None:
        real(self, *arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as dying, pytest.raises(KeyboardInterrupt):
        dying.setattr(_release.Node, step, killed)
        site.release("second", psk="two")
    assert Transaction(site.directory).open
    assert "an unconfirmed release of alice@laptop was undone" in site.cycle.heal()
    assert site.state() == before
    assert site.listing() == AT_REST
    assert site.cycle.heal() == []
    undone = site.cycle.history.undone()
    assert undone
    assert undone["report"] == ["it was interrupted before it was confirmed"]


def test_without_docker_the_files_go_back_and_the_rest_waits_for_it(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    before = site.state()

    def stopped(self: _release.Node) -> list[str]:
        site.docker.silent = True
        raise _release.ReleaseError("docker compose up failed")

    with monkeypatch.context() as broken:
        broken.setattr(_release.Node, "start", stopped)
        result = site.release("second")
    assert "as soon as Docker answers" in result["msg"]
    assert site.state() == before
    with pytest.raises(_release.DockerSilentError):
        site.cycle.heal()
    site.docker.silent = False
    assert site.cycle.heal()
    assert site.listing() == AT_REST


def test_a_way_back_that_docker_interrupts_is_taken_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Docker is there when the way back begins, and gone when the containers are to follow."""
    before = site.state()
    real, starts = _release.Node.start, []

    def second_fails(self: _release.Node) -> list[str]:
        starts.append(self)
        site.docker.silent = len(starts) == 2
        return real(self)

    with monkeypatch.context() as broken:
        broken.setattr(_release.Node, "start", second_fails)
        assert "as soon as Docker answers" in site.release("lost")["msg"]
    assert Transaction(site.directory).open
    site.docker.silent = False
    assert site.cycle.heal()
    assert site.state() == before
    assert site.listing() == AT_REST


def test_a_first_release_that_fails_stays_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(tmp_path)

    def fails(self: _release.Node) -> list[str]:
        raise _release.ReleaseError("after 1 s the node is not healthy")

    with monkeypatch.context() as broken:
        broken.setattr(_release.Node, "start", fails)
        result = site.release("first")
    assert "no earlier one to go back to" in result["msg"]
    assert site.state()[0] == "first"
    assert not Transaction(site.directory).open


def test_a_full_disk_before_the_switch_changes_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    before = site.state()

    def full(*_arguments: Any) -> None:
        raise OSError(28, "No space left on device", "/opt/dn42/.transaction-new/record.json")

    with monkeypatch.context() as disk, pytest.raises(OSError, match="No space left"):
        disk.setattr("ansible_collections.dn42.compose.plugins.module_utils._release_transaction.write_atomically", full)
        site.release("second")
    assert site.state() == before
    assert site.listing() == AT_REST


def test_many_tunnels_are_not_removed_unasked(site: Site) -> None:
    before = site.state()
    with pytest.raises(_release.ReleaseError, match=r"remove 3 of the node's 3 tunnels, more than 50 %: wg-a, wg-b, wg-c"):
        site.release("second", tunnels="none")
    assert site.state() == before
    assert site.release("second", tunnels="none", removal={"limit": 50, "allowed": True})["failed"] is False


def test_ten_releases_are_kept_with_what_it_takes_to_go_back(site: Site) -> None:
    for number in range(14):
        site.release(f"number {number}")
    entries = site.cycle.history.entries()
    assert len(entries) == 10
    assert len(list((site.directory / "services/router/releases").iterdir())) == 10
    kept = "".join(path.read_text() for path in (site.directory / "history").rglob("*") if path.is_file())
    assert '"one"' not in kept, "a secret is in the history"

    scratch = site.root / "back"
    scratch.mkdir()
    settings = {"confirm": {"seconds": 0}, "renumber": False, "removal": {"limit": 100, "allowed": True}}
    result = site.cycle.rollback(entries[0].id, settings, scratch, "bob@laptop")
    assert result["failed"] is False
    assert site.state()[:2] == ("number 4", "compose number 4")
    latest = site.cycle.history.latest()
    assert latest
    assert latest.content["who"] == "bob@laptop"
    assert latest.content["what"][0].startswith(f"back to {entries[0].id}")


def test_going_back_keeps_the_secrets_and_names_those_that_changed(site: Site) -> None:
    first = _release_history.present_id(site.directory)
    site.release("second", psk="two")
    scratch = site.root / "back"
    scratch.mkdir()
    result = site.cycle.rollback(None, {"confirm": {"seconds": 0}}, scratch, "bob@laptop")
    assert result["release"] == first
    assert site.state() == ("first", "compose first", "two")
    assert result["warnings"] == [f"secret router/psk is not the one that release {first} was made with; the present one stays"]


def test_a_release_that_nobody_knows_cannot_be_gone_back_to(site: Site) -> None:
    with pytest.raises(_release.ReleaseError, match=r"has no release 000000000000; it has: [0-9a-f]{12}"):
        site.cycle.rollback("000000000000", {}, site.root, "bob@laptop")
    with pytest.raises(_release.ReleaseError, match="no other release"):
        site.cycle.rollback(None, {}, site.root, "bob@laptop")


def test_requests_of_the_dead_are_swept_and_those_of_the_living_stay(tmp_path: Path) -> None:
    alive = _release_request.Request.create(tmp_path, {"operation": "release"}, None)
    dead = _release_request.Request.create(tmp_path, {"operation": "release"}, None)
    dead._release()
    _release_request.sweep(tmp_path, None)
    assert list(tmp_path.iterdir()) == [alive.path]
    alive.answer({"failed": False})
    assert list(tmp_path.iterdir()) == [], "nobody waits for the answer any more"


def test_the_program_runs_by_itself_and_is_equal_for_equal_sources(tmp_path: Path) -> None:
    """As the node runs it: one file, an isolated Python, nothing of Ansible."""
    program = tmp_path / "release.pyz"
    program.write_bytes(_release_unit.program())
    assert _release_unit.program() == program.read_bytes()
    (tmp_path / ".transaction-new").mkdir()
    done = subprocess.run([sys.executable, "-I", str(program), "heal", str(tmp_path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert not (tmp_path / ".transaction-new").exists()
