# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The keeper's own behaviour around the plan: failures stay where they belong."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from dn42_router import apply, check, health, keeper, system
from dn42_router.keys import KeyFileError, read_key

KEY = "A" * 43 + "="


def test_key_file_errors_do_not_tell_the_content(tmp_path: Path) -> None:
    path = tmp_path / "private.key"
    with pytest.raises(KeyFileError, match="no such file"):
        read_key(path)
    path.write_text("not-a-key-but-maybe-secret")
    with pytest.raises(KeyFileError) as caught:
        read_key(path)
    assert "secret" not in str(caught.value)
    path.write_text(KEY + "\n")
    assert read_key(path) == KEY


def test_command_error_blanks_keys() -> None:
    with pytest.raises(system.CommandError) as caught:
        system.run(["sh", "-c", f"echo 'bad key: {KEY}' >&2; exit 1"])
    assert str(caught.value) == "sh: bad key: (key)"


def test_command_that_hangs_is_ended() -> None:
    with pytest.raises(system.CommandError, match="no end after"):
        system.run(["sleep", "10"], timeout=0.1)


@pytest.mark.parametrize(
    ("said", "no_module"),
    [
        ("nsenter: Error: Unknown device type.", True),
        ("RTNETLINK answers: Operation not supported", True),
        ("RTNETLINK answers: File exists", False),
        ("RTNETLINK answers: Operation not permitted", False),
    ],
)
def test_answers_of_a_kernel_without_wireguard(said: str, no_module: bool) -> None:
    assert bool(system.NO_KERNEL_MODULE.search(said)) is no_module


def test_kernel_interface_is_made_from_the_hosts_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []
    monkeypatch.setattr(system, "run", lambda argv, timeout=5: calls.append(list(argv)) or "")
    system.System()._create("wg-a", userspace=False)
    assert [" ".join(call) for call in calls] == [f"nsenter --net=/run/host-netns ip link add dev wg-a netns {system.ROUTER_NAMESPACE} type wireguard"]


def test_userspace_must_be_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_module(argv: list[str], timeout: float = 5) -> str:
        raise system.CommandError("nsenter: Error: Unknown device type.")

    monkeypatch.setattr(system, "run", no_module)
    with pytest.raises(system.CommandError, match="kernel has no WireGuard and wireguard-go is not allowed"):
        system.System()._create("wg-a", userspace=False)


def test_status_is_fresh_or_not(tmp_path: Path) -> None:
    status = tmp_path / "status.json"
    assert health.keeper_problems(status, 100) == ["the tunnel keeper has written no status"]
    system.write_json(status, {"written": 100})
    assert health.keeper_problems(status, 130) == []
    assert health.keeper_problems(status, 131) == ["the tunnel keeper's status is 31 s old"]
    assert status.stat().st_mode & 0o777 == 0o644


def test_missing_interfaces_are_named(tmp_path: Path, declaration: dict[str, Any]) -> None:
    config = tmp_path / "tunnels.json"
    config.write_text(json.dumps(declaration))
    assert health.interface_problems(config, {"lo", "wg-peer1"}) == []
    assert health.interface_problems(config, {"lo"}) == ["missing interfaces: wg-peer1"]
    assert check.tunnels(tmp_path) is None
    config.write_text("{")
    assert "tunnels.json" in str(check.tunnels(tmp_path))


def test_applied_means_a_later_pass_over_the_present_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CONFIG", "NFTABLES"):
        monkeypatch.setattr(apply, name, tmp_path / name)
        (tmp_path / name).write_text(name)
    status = {"began": 10.5, "configuration": system.sha256(tmp_path / "CONFIG"), "nftables": system.sha256(tmp_path / "NFTABLES"), "tunnels": {"wg-a": {"error": None}}}
    assert apply.applied(status, 10.0)
    assert not apply.applied(status, 11.0)
    assert not apply.applied({**status, "tunnels": {"wg-a": {"error": "starting"}}}, 10.0)
    (tmp_path / "CONFIG").write_text("changed")
    assert not apply.applied(status, 10.0)


def test_a_release_counts_when_the_keeper_is_told_and_not_when_its_link_appears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for release in ("old", "new"):
        (tmp_path / release).mkdir()
    current = tmp_path / "current"
    current.symlink_to("old")
    monkeypatch.setattr(keeper, "CONFIG", current / "tunnels.json")
    for name in ("STATUS", "READY"):
        monkeypatch.setattr(keeper, name, tmp_path / name)
    untold: list[bool] = []
    running = keeper.Keeper(system.System())
    monkeypatch.setattr(running, "_desired", SimpleNamespace(tunnels=()))  # without one, every pass reads the declaration
    for step in ("_read_config", "_keep_anycast", "_keep_latency"):
        monkeypatch.setattr(running, step, lambda: None)
    monkeypatch.setattr(running, "_keep_roa", lambda: untold.append(running._untold()))
    monkeypatch.setattr(running._system, "observe", lambda _names: (_ for _ in ()).throw(system.CommandError("no network here")))
    running.run_pass()
    current.unlink()
    current.symlink_to("new")
    running.run_pass()
    running.tell()
    running.run_pass()
    assert untold == [False, True, False]


def test_wrong_declaration_keeps_the_last_good_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, declaration: dict[str, Any]) -> None:
    monkeypatch.setattr(keeper, "CONFIG", tmp_path / "tunnels.json")
    monkeypatch.setattr(keeper, "STATUS", tmp_path / "status.json")
    keeper.CONFIG.write_text(json.dumps(declaration))
    running = keeper.Keeper(system.System())
    running._read_config()
    good = running._desired
    keeper.CONFIG.write_text("{}")
    running._read_config()
    assert running._desired is good and "bridge" in str(running._problems["configuration"])
