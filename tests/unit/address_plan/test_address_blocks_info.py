# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module address_blocks_info on real plan files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.dn42.compose.plugins.modules import address_blocks_info

POOLS = [{"name": "dn42", "ipv4": ["172.23.255.0/26"], "ipv6": ["fd99:4242:1::/48"], "block_size": {"ipv4": 29, "ipv6": 64}, "reserved": ["172.23.255.56/29"]}]
PLAN = """\
---
version: 1
ipv4:
  172.23.255.0/29: {holder: fra1, pool: dn42}
  172.23.255.8/29: {holder: hkg1, pool: dn42}
  172.23.255.40/29: {holder: old1, pool: dn42, released: 1}
  192.0.2.0/29: {holder: far1, pool: dn42}
ipv6: {}
...
"""


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "addresses.yml"
    path.write_text(PLAN, encoding="utf-8")
    return path


@pytest.fixture
def info(plan: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    def call(**options: Any) -> dict[str, Any]:
        with patch_module_args({"pools": POOLS, "store": {"path": str(plan)}, **options}), pytest.raises(SystemExit):
            address_blocks_info.main()
        return json.loads(capsys.readouterr().out)

    return call


def test_how_full_the_pools_are(info: Any) -> None:
    result = info(holders=["fra1"])
    assert not result["changed"]
    four, six = result["pools"]
    assert {key: four[key] for key in ("size", "in_use", "held", "released", "reserved", "free")} == {"size": 64, "in_use": 8, "held": 8, "released": 8, "reserved": 8, "free": 32}
    assert (four["largest_free"], four["free_blocks"], four["fragmentation"]) == ("172.23.255.16/28", {"28": 2, "29": 5}, 0.5)
    assert four["utilisation"] == pytest.approx(16 / 56, abs=1e-4)
    assert (six["size"], six["largest_free"], six["family"]) == (1 << 80, "fd99:4242:1::/48", "ipv6")
    assert result["held"] == [{"prefix": "172.23.255.8/29", "holder": "hkg1", "pool": "dn42"}, {"prefix": "192.0.2.0/29", "holder": "far1", "pool": "dn42"}]
    assert result["released"] == [{"prefix": "172.23.255.40/29", "holder": "old1", "pool": "dn42", "release": 1}]
    assert result["outside"] == [{"prefix": "192.0.2.0/29", "holder": "far1", "pool": "dn42"}]
    assert "172.23.255.8/29  hkg1" in result["summary"]
    assert "172.23.255.40/29  old1, release 1" in result["summary"]


def test_without_holders_nobody_is_held(info: Any) -> None:
    result = info()
    assert result["held"] == []
    assert (result["pools"][0]["in_use"], result["pools"][0]["held"]) == (16, 0)
    assert not {"explanation", "history", "picture"} & set(result)


def test_nothing_is_written(info: Any, plan: Path) -> None:
    info(holders=["fra1", "new1"], explain="new1", history=5, picture=True)
    assert [path.name for path in plan.parent.iterdir()] == [plan.name]
    assert plan.read_text(encoding="utf-8") == PLAN


def test_a_plan_that_is_not_there_yet_is_empty_and_stays_so(info: Any, plan: Path) -> None:
    plan.unlink()
    assert info(explain="fra1")["explanation"]["lines"][-1] == "If it asked now, in pool dn42 it would get 172.23.255.48/29 and fd99:4242:1::/64."
    assert list(plan.parent.iterdir()) == []


def test_explain_and_picture(info: Any) -> None:
    result = info(holders=["fra1"], pins={"fra1": {"ipv4": "172.23.255.0/29"}}, explain="fra1", picture=True, picture_width=60)
    assert result["explanation"]["known"]
    assert result["explanation"]["lines"][0] == "fra1 has 172.23.255.0/29 of pool dn42, where pins.fra1 pins it."
    assert result["explanation"]["lines"][1] == "It cannot grow in place: a /28 would need the space of 172.23.255.8/29 of hkg1."
    assert max(map(len, result["picture"]["text"].splitlines()[:2])) <= 60
    assert result["picture"]["svg"].startswith("<svg ")


def test_the_size_of_a_new_holder_counts(info: Any, plan: Path) -> None:
    plan.write_text(PLAN.replace("  192.0.2.0/29: {holder: far1, pool: dn42}\n", ""), encoding="utf-8")
    told = info(holders=["fra1", "new1"], sizes={"new1": {"ipv4": 28}}, explain="new1")["explanation"]["lines"]
    assert told[-1] == "If it asked now, in pool dn42 it would get 172.23.255.16/28 and fd99:4242:1::/64."


def test_all_that_is_wrong_is_told_at_once(info: Any) -> None:
    result = info(pools=[{**POOLS[0], "ipv4": [172.2], "reserved": []}], holders=[None], history=-1)
    assert result["failed"]
    assert [fault["key"] for fault in result["faults"]] == ["pools[0].ipv4[0]", "holders[0]", "history"]
    assert result["msg"].startswith("The address plan cannot be shown:\n- pools[0].ipv4[0]: 172.2: YAML made a number of it")


def test_a_plan_with_an_overlap_is_not_shown(info: Any, plan: Path) -> None:
    plan.write_text(PLAN.replace("172.23.255.8/29", "172.23.255.0/28"), encoding="utf-8")
    result = info()
    assert result["failed"]
    assert "overlaps" in result["msg"]


def test_a_store_that_cannot_be_opened(info: Any) -> None:
    result = info(store={"kind": "file", "path": "addresses.yml"})
    assert result["failed"]
    assert result["faults"][0]["key"] == "store.path"
