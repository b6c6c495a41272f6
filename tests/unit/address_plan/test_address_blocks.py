# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module as Ansible runs it, in processes of its own where that matters."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.dn42.compose.plugins.module_utils import _address_plan as engine
from ansible_collections.dn42.compose.plugins.module_utils import _plan_file as plan_file
from ansible_collections.dn42.compose.plugins.modules import address_blocks
from hypothesis import given, settings
from hypothesis import strategies as st

RUNNER = Path(__file__).parent / "run_module.py"
COLLECTIONS = Path(address_blocks.__file__).parents[5]  # the folder that holds ansible_collections
NAMES = ["fra1", "hkg1", "nrt1", "no", "1e3", "sgp1", "syd1", "waw1", "lax1", "ams1"]


def params(path: Path, holders: list, **more: Any) -> dict[str, Any]:
    pools = [{"name": "dn42", "ipv4": ["172.23.255.0/26"], "ipv6": ["FD99:4242:1::/48"], "block_size": {"ipv4": 29, "ipv6": 64}, "reserved": ["172.23.255.56/29"]}]
    offsets = {"gateway": 2, "router": 3, "dns": 4, "looking_glass": 5}
    return {"pools": pools, "holders": holders, "offsets": offsets, "pins": None, "path": str(path), "lock_timeout": 60, **more}


def start(arguments: dict[str, Any], *more: str) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(COLLECTIONS)}
    command = [sys.executable, str(RUNNER), json.dumps(arguments), *more]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen) -> dict[str, Any]:
    out, err = process.communicate(timeout=120)
    assert process.returncode in (0, 1, -signal.SIGKILL), err
    return json.loads(out) if out else {}


def test_result(tmp_path: Path) -> None:
    result = finish(start(params(tmp_path / "plan" / "addresses.yml", ["fra1", {"name": "hkg1", "pin": {"ipv4": "172.23.255.16/29"}}])))
    assert result["changed"] is True
    assert result["blocks"]["fra1"] == {
        "pool": "dn42",
        "ipv4": {"prefix": "172.23.255.24/29", "prefix_length": 29, "network": "172.23.255.24"},
        "ipv6": {"prefix": "fd99:4242:1::/64", "prefix_length": 64, "network": "fd99:4242:1::"},
        "addresses": {
            "host": {"ipv4": "172.23.255.25", "ipv6": "fd99:4242:1::1"},
            "gateway": {"ipv4": "172.23.255.26", "ipv6": "fd99:4242:1::2"},
            "router": {"ipv4": "172.23.255.27", "ipv6": "fd99:4242:1::3"},
            "dns": {"ipv4": "172.23.255.28", "ipv6": "fd99:4242:1::4"},
            "looking_glass": {"ipv4": "172.23.255.29", "ipv6": "fd99:4242:1::5"},
        },
    }
    assert result["blocks"]["hkg1"]["ipv4"]["prefix"] == "172.23.255.16/29"
    assert result["aggregates"] == {"ipv4": ["172.23.255.0/26"], "ipv6": ["fd99:4242:1::/48"]}
    assert result["held"] == []
    assert result["diff"]["before"] == ""
    assert result["diff"]["after"] == (tmp_path / "plan" / "addresses.yml").read_text()


def test_one_family_only(tmp_path: Path) -> None:
    pools = [{"name": "six", "ipv4": [], "ipv6": ["fd99:4242:1::/48"], "block_size": {"ipv6": 64}}]
    result = address_blocks.run(params(tmp_path / "a.yml", ["fra1"], pools=pools), False)
    assert result["blocks"]["fra1"]["ipv4"] is None
    assert result["blocks"]["fra1"]["addresses"]["dns"] == {"ipv4": None, "ipv6": "fd99:4242:1::4"}
    assert result["aggregates"] == {"ipv4": [], "ipv6": ["fd99:4242:1::/48"]}


def test_held(tmp_path: Path) -> None:
    path = tmp_path / "a.yml"
    first = address_blocks.run(params(path, ["fra1", "hkg1"]), False)
    second = address_blocks.run(params(path, ["hkg1"]), False)
    assert not second["changed"]
    assert [block["holder"] for block in second["held"]] == ["fra1", "fra1"]
    third = address_blocks.run(params(path, ["fra1", "hkg1", "nrt1"]), False)
    assert {**first["blocks"], "nrt1": third["blocks"]["nrt1"]} == third["blocks"]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.sampled_from(NAMES), unique=True, max_size=9), min_size=1, max_size=4))
def test_check_mode_predicts_the_real_run(history: list) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plan" / "addresses.yml"

        def outcome(holders: list, check_mode: bool) -> Any:
            try:
                return address_blocks.run(params(path, holders), check_mode)
            except engine.Refused as refusal:
                return [str(fault) for fault in refusal.faults]

        def state() -> Any:
            return {str(entry): (entry.read_text(), entry.stat().st_mtime_ns) if entry.is_file() else "" for entry in Path(folder).rglob("*")}

        for holders in history:
            before = state()
            predicted = outcome(holders, True)
            assert state() == before
            assert outcome(holders, False) == predicted
            if isinstance(predicted, dict) and predicted["changed"]:
                assert path.read_text() == predicted["diff"]["after"]
            else:
                assert state() == before
            if isinstance(predicted, dict):
                assert outcome(holders, False)["changed"] is False


def test_a_bad_request_and_a_bad_file_are_told_together(tmp_path: Path) -> None:
    path = tmp_path / "addresses.yml"
    path.write_text("version: 1\nipv4: {}\nipv6: {}\n")
    result = finish(start(params(path, ["fra1", 5], offsets={"dns": 1})))
    assert result["failed"]
    assert [fault["key"] for fault in result["faults"]] == ["holders[1]", "offsets.dns", f"{path} line 3"]
    assert result["msg"].startswith("The address plan cannot be made, nothing was changed:\n- holders[1]: 5: YAML made a number of it")


def test_a_spelling_and_a_conflict_are_told_together(tmp_path: Path) -> None:
    path = tmp_path / "addresses.yml"
    address_blocks.run(params(path, ["fra1"]), False)
    with pytest.raises(engine.Refused) as refusal:
        address_blocks.run(params(path, [7, {"name": "hkg1", "pin": {"ipv4": "172.23.255.48/29"}}]), False)
    assert len(refusal.value.faults) == 2
    assert "172.23.255.48/29 belongs to fra1 (held: no longer asked for)" in str(refusal.value)


def test_one_address_pinned_in_two_spellings(tmp_path: Path) -> None:
    pins = {"fra1": {"ipv6": "FD99:4242:0001:9::/64"}, "hkg1": {"ipv6": "fd99:4242:1:9:0:0:0:0/64"}}
    with pytest.raises(engine.Refused, match="fd99:4242:1:9::/64 is pinned for fra1"):
        address_blocks.run(params(tmp_path / "a.yml", ["fra1", "hkg1"], pins=pins), False)


def test_a_relative_path_is_refused(tmp_path: Path) -> None:
    result = finish(start({**params(tmp_path, ["fra1"]), "path": "None/plan/addresses.yml"}))
    assert "must be absolute" in result["msg"]


def test_a_path_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = finish(start(params(tmp_path / "file" / "addresses.yml", ["fra1"])))
    assert result["msg"].startswith(f"The plan file {tmp_path}/file/addresses.yml cannot be read or written: ")


def test_without_netaddr(tmp_path: Path) -> None:
    result = finish(start(params(tmp_path / "a.yml", ["fra1"]), "without netaddr"))
    assert result["failed"]
    assert result["msg"].startswith(f"The Python library netaddr is missing in {sys.executable} (")
    assert result["msg"].endswith(f"Install it there: {sys.executable} -m pip install netaddr")
    assert list(tmp_path.iterdir()) == []


def test_argument_spec_is_documented() -> None:
    documented = yaml.safe_load(address_blocks.DOCUMENTATION)["options"]
    assert set(documented) == set(params(Path("/"), []))


def test_two_processes_lose_nothing(tmp_path: Path) -> None:
    """Runs that start together, each for names of its own: the others' are held, and no block has two owners."""
    path = tmp_path / "addresses.yml"
    pools = [{"name": "dn42", "ipv4": ["172.23.252.0/22"], "block_size": {"ipv4": 29}}]
    names = [f"n{number:02}" for number in range(12)]
    waiting = list(names)
    while waiting:
        batch, waiting = waiting[:4], waiting[4:]
        for name, process in [(name, start(params(path, [name], pools=pools))) for name in batch]:
            assert finish(process)["added"][0]["holder"] == name
    blocks = plan_file.parse(path.read_text(), str(path))
    assert sorted(block.holder for block in blocks) == names
    assert [entry.name for entry in tmp_path.iterdir()] == ["addresses.yml"]


MOMENTS = ["fsync before", "fsync after", "rename before", "rename after", "directory before", "directory after", "unlock before", "unlock after"]


@pytest.mark.parametrize("moment", MOMENTS)
def test_kill_at_every_moment_of_a_write(tmp_path: Path, moment: str) -> None:
    path = tmp_path / "addresses.yml"
    address_blocks.run(params(path, ["fra1"]), False)
    before = path.read_text()
    process = start(params(path, ["fra1", "hkg1"]), moment)
    finish(process)
    assert process.returncode == -signal.SIGKILL
    written = path.read_text()
    assert {block.holder for block in plan_file.parse(written, str(path))} == ({"fra1"} if written == before else {"fra1", "hkg1"})
    assert (written != before) is (MOMENTS.index(moment) > MOMENTS.index("rename before"))
    after = address_blocks.run(params(path, ["fra1", "hkg1", "nrt1"]), False)  # what was left behind is in nobody's way
    assert set(after["blocks"]) == {"fra1", "hkg1", "nrt1"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["addresses.yml"]


def test_kill_at_random_keeps_what_was_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "addresses.yml"
    pools = [{"name": "dn42", "ipv4": ["172.23.252.0/22"], "block_size": {"ipv4": 29}}]
    dice = random.Random(42)  # no secret
    acknowledged = set()
    for number in range(10):
        process = start(params(path, [f"n{number}"], pools=pools))
        time.sleep(dice.uniform(0.05, 0.5))
        process.kill()
        if finish(process).get("added"):
            acknowledged.add(f"n{number}")
        if path.exists():
            assert acknowledged <= {block.holder for block in plan_file.parse(path.read_text(), str(path))}
    address_blocks.run(params(path, ["last"], pools=pools), False)
    assert acknowledged | {"last"} <= {block.holder for block in plan_file.parse(path.read_text(), str(path))}
