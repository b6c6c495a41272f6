# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Moving the plan from one store to another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.dn42.compose.plugins.module_utils._address_plan.model import Block, Decision, Plan, Prefix
from ansible_collections.dn42.compose.plugins.module_utils._plan_file import PlanFile
from ansible_collections.dn42.compose.plugins.module_utils._plan_netbox import PlanNetBox
from ansible_collections.dn42.compose.plugins.modules import address_plan_copy

from .netbox_fake import NetBox

ROOT = Path(__file__).parents[3]
PLAN = Plan(
    (
        Block(Prefix(4, 0xAC17FF00, 29), "fra1", "dn42"),
        Block(Prefix(4, 0xAC17FF08, 29), "no", "dn42"),
        Block(Prefix(6, 0xFD99 << 112, 64), "fra1", "dn42"),
        Block(Prefix(6, 0xFD99 << 112 | 1 << 64, 64), "日本", "any:cast"),
    ),
    (Block(Prefix(4, 0xAC17FF20, 28), "old", "dn42", 3),),
)


@pytest.fixture
def netbox() -> Iterator[NetBox]:
    with NetBox() as server:
        yield server


@pytest.fixture
def there(netbox: NetBox) -> dict[str, Any]:
    return {"kind": "netbox", "url": netbox.url, "token": netbox.token}


@pytest.fixture
def here(tmp_path: Path) -> dict[str, Any]:
    path = tmp_path / "addresses.yml"
    keep(PlanFile(str(path), 5), PLAN)
    return {"path": str(path)}


def keep(store: Any, plan: Plan) -> None:
    store.transact(lambda _before: Decision(plan=plan, changes=(), held=()), False)


def store_in(netbox: NetBox) -> PlanNetBox:
    return PlanNetBox(netbox.url, netbox.token, "dn42", True, None, 10)


def copy(capsys: pytest.CaptureFixture[str], source: dict[str, Any], destination: dict[str, Any], **options: Any) -> dict[str, Any]:
    """Call the module; what it prints holds no secret."""
    with patch_module_args({"source": source, "destination": destination, **options}), pytest.raises(SystemExit):
        address_plan_copy.main()
    printed = capsys.readouterr().out
    assert NetBox.token not in printed
    return dict(json.loads(printed))


def test_a_file_comes_back_from_netbox_byte_by_byte(capsys: pytest.CaptureFixture[str], here: dict[str, Any], there: dict[str, Any], netbox: NetBox, tmp_path: Path) -> None:
    original = Path(here["path"]).read_bytes()
    back = {"path": str(tmp_path / "back" / "addresses.yml")}
    foretold = copy(capsys, here, there, _ansible_check_mode=True)
    assert foretold["changed"] and netbox.writes == []
    done = copy(capsys, here, there)
    assert done["changed"] and done["diff"] == foretold["diff"]
    assert {key: done[key] for key in ("source", "destination")} == {"source": here["path"], "destination": f"{netbox.url} plan dn42"}
    assert done["blocks"][2] == {"prefix": "172.23.255.32/28", "holder": "old", "pool": "dn42", "released": 3}
    assert done["diff"]["after"].splitlines()[2] == "172.23.255.32/28 old (pool dn42, release 3)"
    assert copy(capsys, there, back)["changed"]
    assert Path(back["path"]).read_bytes() == Path(here["path"]).read_bytes() == original
    netbox.requests.clear()
    assert not copy(capsys, here, there)["changed"] and not copy(capsys, there, back)["changed"]
    assert netbox.writes == []


def test_another_plan_in_the_destination_is_refused_with_the_differences(capsys: pytest.CaptureFixture[str], here: dict[str, Any], there: dict[str, Any], netbox: NetBox) -> None:
    other = Plan((PLAN.blocks[0], Block(PLAN.blocks[1].prefix, "hkg1", "dn42"), *PLAN.blocks[2:]), ())
    keep(store_in(netbox), other)
    before, file = netbox.prefixes(), Path(here["path"]).read_bytes()
    for check in (True, False):
        failed = copy(capsys, here, there, _ansible_check_mode=check)
        shown = f"{netbox.url} plan dn42"
        assert failed["faults"] == [
            {"key": shown, "value": "172.23.255.8/29", "message": "belongs to hkg1 (pool dn42) here and to no (pool dn42) in the source"},
            {"key": shown, "value": "172.23.255.32/28", "message": "belongs to nobody here and to old (pool dn42, release 3) in the source"},
        ]
        assert "nothing was changed" in failed["msg"] and "hkg1" in failed["msg"]
    assert (netbox.prefixes(), Path(here["path"]).read_bytes()) == (before, file)


def test_an_empty_source_is_no_plan(capsys: pytest.CaptureFixture[str], there: dict[str, Any], tmp_path: Path) -> None:
    assert "holds no block at all" in copy(capsys, {"path": str(tmp_path / "typo.yml")}, there)["msg"]


def test_what_was_written_is_compared(capsys: pytest.CaptureFixture[str], here: dict[str, Any], there: dict[str, Any], netbox: NetBox) -> None:
    def meddle(method: str, path: str, _body: Any) -> None:
        if (method, path) == ("DELETE", "/api/extras/tags/"):  # the lock is given back: the plan is written
            row = next(row for row in netbox.tables["prefixes"].values() if row["prefix"] == "172.23.255.0/29")
            row["custom_fields"]["dn42_holder"] = "eve"

    netbox.faults.append(meddle)
    failed = copy(capsys, here, there)
    assert "does not hold what was written; keep using" in failed["msg"] and "belongs to eve" in failed["msg"]


def test_a_source_that_changes_meanwhile_is_noticed(capsys: pytest.CaptureFixture[str], here: dict[str, Any], there: dict[str, Any], netbox: NetBox) -> None:
    def grow(method: str, path: str, _body: Any) -> None:
        if (method, path) == ("DELETE", "/api/extras/tags/"):
            keep(PlanFile(here["path"], 5), Plan(PLAN.blocks, ()))

    netbox.faults.append(grow)
    assert "was changed while it was copied" in copy(capsys, here, there)["msg"]


def test_the_playbook_says_what_comes_next(here: dict[str, Any], there: dict[str, Any], netbox: NetBox) -> None:
    def play(*options: str) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).with_name("ansible-playbook")), "dn42.compose.move_plan", *options]
        environment = {
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".ansible/collections"),
            "ANSIBLE_LOCALHOST_WARNING": "false",
        }
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)

    asked = play()
    assert asked.returncode != 0 and "Name both stores" in asked.stdout
    done = play("-vvv", "-e", json.dumps({"dn42_move_plan_from": here, "dn42_move_plan_to": there}))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{netbox.url} plan dn42 holds the same 5 blocks as {here['path']}." in done.stdout
    assert "dn42_address_plan_store" in done.stdout
    assert netbox.token not in done.stdout.replace(json.dumps(there), "") + done.stderr
    assert store_in(netbox).read() == PLAN
