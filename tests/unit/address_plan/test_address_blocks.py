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
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.dn42.compose.plugins.action.address_plan import ActionModule
from ansible_collections.dn42.compose.plugins.doc_fragments import plan_store
from ansible_collections.dn42.compose.plugins.module_utils import _plan_text as plan_text
from ansible_collections.dn42.compose.plugins.module_utils._address_plan.model import Refused
from ansible_collections.dn42.compose.plugins.modules import address_blocks, address_plan
from hypothesis import given, settings
from hypothesis import strategies as st

RUNNER = Path(__file__).parent / "run_module.py"
COLLECTIONS = Path(address_blocks.__file__).parents[5]  # the folder that holds ansible_collections
NAMES = ["fra1", "hkg1", "nrt1", "no", "1e3", "sgp1", "syd1", "waw1", "lax1", "ams1"]


POOLS = [{"name": "dn42", "ipv4": ["172.23.255.0/26"], "ipv6": ["FD99:4242:1::/48"], "block_size": {"ipv4": 29, "ipv6": 64}, "reserved": ["172.23.255.56/29"]}]
OFFSETS = {"gateway": 2, "router": 3, "dns": 4, "looking_glass": 5}


def arguments(path: Path, holders: list, **more: Any) -> dict[str, Any]:
    """The module's arguments as a playbook has them."""
    return {"pools": POOLS, "holders": holders, "offsets": OFFSETS, "store": {"path": str(path)}, **more}


def run(path: Path, holders: list, check_mode: bool = False, **more: Any) -> dict[str, Any]:
    """What the module returns, in this process."""
    checked = ArgumentSpecValidator(address_blocks.ARGUMENT_SPEC).validate(arguments(path, holders, **more))
    assert checked.error_messages == []
    return address_blocks.run(checked.validated_parameters, check_mode).values


def start(values: dict[str, Any], *more: str) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(COLLECTIONS)}
    command = [sys.executable, str(RUNNER), json.dumps(values), *more]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen) -> dict[str, Any]:
    out, err = process.communicate(timeout=120)
    assert process.returncode in (0, 1, -signal.SIGKILL), err
    return json.loads(out) if out else {}


def test_result(tmp_path: Path) -> None:
    result = finish(start(arguments(tmp_path / "plan" / "addresses.yml", ["fra1", {"name": "hkg1", "pin": {"ipv4": "172.23.255.16/29"}}])))
    assert result["changed"] is True
    assert result["blocks"]["fra1"] == {
        "pool": "dn42",
        "purpose": "node",
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
    assert result["roa"] == [{"prefix": "172.23.255.0/26", "max_length": 26}, {"prefix": "fd99:4242:1::/48", "max_length": 48}]
    assert result["names"] == {}
    assert [block["prefix"] for block in result["added"]] == ["172.23.255.16/29", "172.23.255.24/29", "fd99:4242:1::/64", "fd99:4242:1:1::/64"]
    assert [(change["kind"], change["holder"], change["before"], change["after"]) for change in result["changes"]] == [
        ("adopted", "hkg1", None, "172.23.255.16/29"),
        ("added", "fra1", None, "172.23.255.24/29"),
        ("added", "fra1", None, "fd99:4242:1::/64"),
        ("added", "hkg1", None, "fd99:4242:1:1::/64"),
    ]


def test_one_family_only(tmp_path: Path) -> None:
    pools = [{"name": "six", "ipv4": [], "ipv6": ["fd99:4242:1::/48"], "block_size": {"ipv6": 64}}]
    result = run(tmp_path / "a.yml", ["fra1"], pools=pools)
    assert result["blocks"]["fra1"]["ipv4"] is None
    assert result["blocks"]["fra1"]["addresses"]["dns"] == {"ipv4": None, "ipv6": "fd99:4242:1::4"}
    assert result["aggregates"] == {"ipv4": [], "ipv6": ["fd99:4242:1::/48"]}


def test_held(tmp_path: Path) -> None:
    path = tmp_path / "a.yml"
    first = run(path, ["fra1", "hkg1"])
    second = run(path, ["hkg1"])
    assert not second["changed"]
    assert [block["holder"] for block in second["held"]] == ["fra1", "fra1"]
    third = run(path, ["fra1", "hkg1", "nrt1"])
    assert {**first["blocks"], "nrt1": third["blocks"]["nrt1"]} == third["blocks"]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.sampled_from(NAMES), unique=True, max_size=9), min_size=1, max_size=4))
def test_check_mode_predicts_the_real_run(history: list) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plan" / "addresses.yml"

        def outcome(holders: list, check_mode: bool) -> Any:
            try:
                return run(path, holders, check_mode=check_mode)
            except Refused as refusal:
                return [str(fault) for fault in refusal.faults]

        def state() -> Any:
            return {str(entry): (entry.read_text(), entry.stat().st_mtime_ns) if entry.is_file() else "" for entry in Path(folder).rglob("*")}

        for holders in history:
            before = state()
            predicted = outcome(holders, True)
            assert state() == before
            assert outcome(holders, False) == predicted
            changed = isinstance(predicted, dict) and predicted["changed"]
            assert (state() != before) is changed
            if changed:
                assert {str(block.prefix): block.holder for block in plan_text.parse(path.read_text(), str(path)).blocks} == {
                    **{block["prefix"]: block["holder"] for block in predicted["held"]},
                    **{block[family]["prefix"]: name for name, block in predicted["blocks"].items() for family in ("ipv4", "ipv6")},
                }
            if isinstance(predicted, dict):
                assert outcome(holders, False)["changed"] is False


def test_a_bad_request_and_a_bad_file_are_told_together(tmp_path: Path) -> None:
    path = tmp_path / "addresses.yml"
    path.write_text("version: 1\nipv4: {}\nipv6: {}\n")
    result = finish(start(arguments(path, ["fra1", 5], offsets={"dns": 1})))
    assert result["failed"]
    assert [fault["key"] for fault in result["faults"]] == ["holders[1]", "offsets.dns", f"{path} line 3"]
    assert result["msg"].startswith("The address plan cannot be made, nothing was changed:\n- holders[1]: 5: YAML made a number of it")


def test_a_spelling_and_a_conflict_are_told_together(tmp_path: Path) -> None:
    path = tmp_path / "addresses.yml"
    run(path, ["fra1"])
    with pytest.raises(Refused) as refusal:
        run(path, [7, {"name": "hkg1", "pin": {"ipv4": "172.23.255.48/29"}}])
    assert len(refusal.value.faults) == 2
    assert "172.23.255.48/29 belongs to fra1 (held: no longer asked for; release it if nobody uses it)" in str(refusal.value)


def test_one_address_pinned_in_two_spellings(tmp_path: Path) -> None:
    pins = {"fra1": {"ipv6": "FD99:4242:0001:9::/64"}, "hkg1": {"ipv6": "fd99:4242:1:9:0:0:0:0/64"}}
    with pytest.raises(Refused, match="fd99:4242:1:9::/64 is pinned for fra1"):
        run(tmp_path / "a.yml", ["fra1", "hkg1"], pins=pins)


def test_a_relative_path_is_refused(tmp_path: Path) -> None:
    result = finish(start(arguments(Path("None/plan/addresses.yml"), ["fra1"])))
    assert "must be absolute" in result["msg"]


def test_a_path_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = finish(start(arguments(tmp_path / "file" / "addresses.yml", ["fra1"])))
    assert result["msg"].startswith(f"The plan file {tmp_path}/file/addresses.yml cannot be read or written: ")


def test_without_netaddr(tmp_path: Path) -> None:
    result = finish(start(arguments(tmp_path / "a.yml", ["fra1"]), "without netaddr"))
    assert result["failed"]
    assert result["msg"].startswith(f"The Python library netaddr is missing in {sys.executable} (")
    assert result["msg"].endswith(f"Install it there: {sys.executable} -m pip install netaddr")
    assert list(tmp_path.iterdir()) == []


def test_argument_spec_is_documented() -> None:
    store = yaml.safe_load(plan_store.ModuleDocFragment.DOCUMENTATION)["options"]
    assert {*yaml.safe_load(address_blocks.DOCUMENTATION)["options"], *store} == set(address_blocks.ARGUMENT_SPEC)
    copied = yaml.safe_load(plan_store.ModuleDocFragment.COPY)["options"]
    for documented in (store["store"], copied["source"], copied["destination"]):
        options = documented["suboptions"]
        assert set(options) == set(address_blocks.STORE_SPEC)
        for name, spec in address_blocks.STORE_SPEC.items():
            assert {key: options[name].get(key) for key in ("type", "default", "choices")} == {key: spec.get(key) for key in ("type", "default", "choices")}
    assert yaml.safe_load(address_plan.DOCUMENTATION)["options"].keys() == ActionModule._VALID_ARGS


def test_purposes_and_aggregates(tmp_path: Path) -> None:
    """A pool that is part of a registered prefix is announced as that, once; only nodes have services in their blocks."""
    pools = [
        {"name": "any", "ipv4": ["172.22.0.64/32"], "block_size": {"ipv4": 32}, "purpose": "anycast"},
        {"name": "nodes", "ipv4": ["172.23.255.0/27"], "block_size": {"ipv4": 29}, "aggregates": ["172.23.255.0/26"]},
        {"name": "loops", "ipv4": ["172.23.255.32/27"], "block_size": {"ipv4": 32}, "purpose": "loopback", "aggregates": ["172.23.255.0/26"]},
        {"name": "inner", "ipv4": ["172.23.254.0/27"], "block_size": {"ipv4": 29}, "aggregates": ["172.23.252.0/22"]},
    ]
    result = run(tmp_path / "a.yml", ["fra1", {"name": "dns", "pool": "any"}, {"name": "lo-fra1", "pool": "loops"}], pools=pools, profile="dn42", domain="example.dn42")
    assert result["aggregates"] == {"ipv4": ["172.22.0.64/32", "172.23.252.0/22"], "ipv6": []}
    assert result["roa"] == [{"prefix": "172.22.0.64/32", "max_length": 32}, {"prefix": "172.23.252.0/22", "max_length": 22}]
    assert result["blocks"]["dns"] == {
        "pool": "any",
        "purpose": "anycast",
        "ipv4": {"prefix": "172.22.0.64/32", "prefix_length": 32, "network": "172.22.0.64"},
        "ipv6": None,
    }
    assert result["names"]["fra1.example.dn42"] == result["blocks"]["fra1"]["addresses"]["gateway"]
    assert "addresses" not in result["blocks"]["lo-fra1"]


def test_release_grow_and_renumber_as_a_table(tmp_path: Path) -> None:
    path = tmp_path / "a.yml"
    pools = [{"name": "dn42", "ipv4": ["172.23.255.0/26"], "block_size": {"ipv4": 29}}]
    run(path, ["fra1", "hkg1", "old1"], pools=pools)
    more = {"pools": pools, "sizes": {"fra1": {"ipv4": 28}}, "release": {"old1": ["172.23.255.16/29"]}}
    with pytest.raises(Refused, match=r"would renumber fra1 from 172\.23\.255\.0/29 to 172\.23\.255\.32/28"):
        run(path, ["fra1", "hkg1"], **more)
    result = run(path, ["fra1", "hkg1"], renumber=["fra1"], **more)
    assert [line.split()[:5] for line in result["diff"]["prepared"].splitlines()] == [
        ["change", "holder", "pool", "from", "to"],
        ["released", "old1", "dn42", "172.23.255.16/29", "-"],
        ["renumbered", "fra1", "dn42", "172.23.255.0/29", "172.23.255.32/28"],
    ]
    assert [line.find(" dn42") for line in result["diff"]["prepared"].splitlines()[1:]] == [19, 19]
    assert result["released"] == [
        {"prefix": "172.23.255.0/29", "holder": "fra1", "pool": "dn42", "released": 1},
        {"prefix": "172.23.255.16/29", "holder": "old1", "pool": "dn42", "released": 1},
    ]
    again = run(path, ["fra1", "hkg1"], renumber=["fra1"], **more)
    assert (again["changed"], again["changes"], again["diff"]["prepared"]) == (False, [], "")


def test_a_network_is_adopted_once(tmp_path: Path) -> None:
    """What a node has already becomes its block; later the plan counts, whatever networks the node has."""
    path = tmp_path / "a.yml"
    result = run(path, ["fra1", "hkg1"], adopt={"hkg1": ["172.18.0.0/16", "172.23.255.32/29", "fd99:4242:1:9::/64"]})
    assert [result["blocks"]["hkg1"][family]["prefix"] for family in ("ipv4", "ipv6")] == ["172.23.255.32/29", "fd99:4242:1:9::/64"]
    assert {change["kind"] for change in result["changes"] if change["holder"] == "hkg1"} == {"adopted"}
    for later in ({"hkg1": ["172.23.255.0/28"]}, {}):
        assert run(path, ["fra1", "hkg1"], adopt=later)["changed"] is False


def test_new_blocks_keep_away_from_networks_in_use(tmp_path: Path) -> None:
    in_use = [{"host": "fra1", "prefix": prefix, "what": "Docker network web"} for prefix in ("172.23.255.0/28", "10.0.0.0/8")]
    assert run(tmp_path / "a.yml", ["fra1"], in_use=in_use)["blocks"]["fra1"]["ipv4"]["prefix"] == "172.23.255.48/29"


def test_ten_nodes_where_eight_fit(tmp_path: Path) -> None:
    """The first example of docs/address-plan.md, whose message is this one."""
    pools = [{"name": "dn42", "ipv4": ["172.23.255.0/26"], "block_size": {"ipv4": 29}}]
    result = finish(start(arguments(tmp_path / "a.yml", ["ams1", "ams2", "fra1", "hkg1", "lax1", "nrt1", "nyc1", "sgp1", "syd1", "waw1"], pools=pools)))
    documented = " ".join((Path(__file__).parents[3] / "docs" / "address-plan.md").read_text().split())
    assert " ".join(result["msg"].split()) in documented
    assert list(tmp_path.iterdir()) == []


def test_two_processes_lose_nothing(tmp_path: Path) -> None:
    """Runs that start together, each for names of its own: the others' are held, and no block has two owners."""
    path = tmp_path / "addresses.yml"
    pools = [{"name": "dn42", "ipv4": ["172.23.252.0/22"], "block_size": {"ipv4": 29}}]
    names = [f"n{number:02}" for number in range(12)]
    waiting = list(names)
    while waiting:
        batch, waiting = waiting[:4], waiting[4:]
        for name, process in [(name, start(arguments(path, [name], pools=pools))) for name in batch]:
            assert finish(process)["added"][0]["holder"] == name
    blocks = plan_text.parse(path.read_text(), str(path)).blocks
    assert sorted(block.holder for block in blocks) == names
    assert [entry.name for entry in tmp_path.iterdir()] == ["addresses.yml"]


MOMENTS = ["fsync before", "fsync after", "rename before", "rename after", "directory before", "directory after", "unlock before", "unlock after"]


@pytest.mark.parametrize("moment", MOMENTS)
def test_kill_at_every_moment_of_a_write(tmp_path: Path, moment: str) -> None:
    path = tmp_path / "addresses.yml"
    run(path, ["fra1"])
    before = path.read_text()
    process = start(arguments(path, ["fra1", "hkg1"]), moment)
    finish(process)
    assert process.returncode == -signal.SIGKILL
    written = path.read_text()
    assert {block.holder for block in plan_text.parse(written, str(path)).blocks} == ({"fra1"} if written == before else {"fra1", "hkg1"})
    assert (written != before) is (MOMENTS.index(moment) > MOMENTS.index("rename before"))
    after = run(path, ["fra1", "hkg1", "nrt1"])  # what was left behind is in nobody's way
    assert set(after["blocks"]) == {"fra1", "hkg1", "nrt1"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["addresses.yml"]


def test_kill_at_random_keeps_what_was_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "addresses.yml"
    pools = [{"name": "dn42", "ipv4": ["172.23.252.0/22"], "block_size": {"ipv4": 29}}]
    dice = random.Random(42)  # no secret
    acknowledged = set()
    for number in range(10):
        process = start(arguments(path, [f"n{number}"], pools=pools))
        time.sleep(dice.uniform(0.05, 0.5))
        process.kill()
        if finish(process).get("added"):
            acknowledged.add(f"n{number}")
        if path.exists():
            assert acknowledged <= {block.holder for block in plan_text.parse(path.read_text(), str(path)).blocks}
    run(path, ["last"], pools=pools)
    assert acknowledged | {"last"} <= {block.holder for block in plan_text.parse(path.read_text(), str(path)).blocks}
