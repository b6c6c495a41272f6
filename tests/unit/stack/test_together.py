# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Several modules in one exchange: each ends as it would alone, and none stands in another's way."""

from __future__ import annotations

import importlib
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from ansible_collections.dn42.compose.plugins.doc_fragments import release_tolerances
from ansible_collections.dn42.compose.plugins.module_utils import _action, _together

COLLECTION = "ansible_collections.dn42.compose.plugins"

SPEC = {"wanted": {"type": "int", "required": True}, "guard_check": {"type": "str", "default": ""}, "archive": {"type": "str", "no_log": True}}


class Code:
    """A module's code that tells what it was given."""

    def __init__(self, said: list[str], name: str, result: dict[str, Any]) -> None:
        self.ARGUMENT_SPEC = SPEC
        self.said, self.name, self.result = said, name, result

    def run(self, part: _together.Part) -> dict[str, Any]:
        self.said.append(self.name)
        if part.params["wanted"] == 13:
            part.warn("this was tried")
            part.fail_json(msg="no 13 here")
        return {"changed": not part.check_mode, **part.params, **self.result}


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The order in which the modules ran."""
    order: list[str] = []
    results = {"firewalld_settings": {"ipv6_rpfilter": {"value": "no", "replaced": "strict"}}}
    monkeypatch.setattr(_together, "implementation", lambda name: Code(order, name, results.get(name, {})))
    return order


def module(check_mode: bool = False) -> Any:
    return SimpleNamespace(check_mode=check_mode)


def test_the_order_is_fixed_and_check_mode_is_each_ones_own(said: list[str]) -> None:
    answers = _together.run(module(), {"release": {"wanted": 1}, "docker_daemon": {"wanted": 2}, "host_facts": {"wanted": 3}}, ["docker_daemon"])
    assert said == ["host_facts", "docker_daemon", "release"]
    assert {name: answer["changed"] for name, answer in answers.items()} == {"host_facts": True, "docker_daemon": False, "release": True}
    assert not any(answer["changed"] for answer in _together.run(module(check_mode=True), {"release": {"wanted": 1}}, []).values())


def test_a_part_that_fails_keeps_no_other_from_its_work(said: list[str]) -> None:
    answers = _together.run(module(), {"host_facts": {"wanted": 13}, "node_state": {"wanted": 1}}, [])
    assert answers["host_facts"] == {"changed": False, "failed": True, "msg": "no 13 here", "warnings": ["this was tried"]}
    assert "failed" not in answers["node_state"]


def test_options_are_judged_as_the_module_alone_would(said: list[str]) -> None:
    answers = _together.run(module(), {"host_facts": {"wanted": "many"}, "docker_daemon": {"wished": 1, "wanted": 1}}, [])
    assert said == []
    assert "wanted" in answers["host_facts"]["msg"] and "wished" in answers["docker_daemon"]["msg"]


def test_the_guard_is_compared_with_what_firewalld_needs(said: list[str]) -> None:
    both = _together.run(module(), {"node_state": {"wanted": 1}, "firewalld_settings": {"wanted": 1}}, [])
    assert both["node_state"]["guard_check"] == "strict"
    assert _together.run(module(), {"node_state": {"wanted": 1, "guard_check": "loose"}}, [])["node_state"]["guard_check"] == "loose"


def test_the_archive_goes_to_the_release_alone(said: list[str]) -> None:
    answers = _together.run(module(), {"node_state": {"wanted": 1}, "release": {"wanted": 1}}, [], archive="c2VjcmV0")
    assert answers["release"]["archive"] == "c2VjcmV0" and answers["node_state"]["archive"] is None


def test_what_failed_beside_a_module_fails_it_with_its_words() -> None:
    others = {"docker_daemon": {"failed": True, "msg": "daemon.json is broken", "warnings": ["look"]}, "node_state": {"changed": False}}
    assert _action.with_others({"changed": False, "host": 1}, others) == {
        "changed": False,
        "host": 1,
        "failed": True,
        "msg": "daemon.json is broken",
        "warnings": ["look"],
        "also": {"docker_daemon": {**others["docker_daemon"], "warnings": []}, "node_state": {"changed": False, "warnings": []}},
    }
    assert _action.with_others({"failed": True, "msg": "no"}, others)["msg"] == "no\ndaemon.json is broken"
    lost = {"failed": True, "msg": "no python"}
    assert _action.with_others(lost, {"node_state": dict(lost), "docker_daemon": dict(lost)})["msg"] == "no python"
    assert "failed" not in _action.with_others({"changed": True}, {"node_state": {"changed": True}})


@pytest.mark.parametrize("name", _together.NAMES)
def test_options_are_documented_as_they_are_taken(name: str) -> None:
    documentation = yaml.safe_load(importlib.import_module(f"{COLLECTION}.modules.{name}").DOCUMENTATION)
    options = documentation["options"]
    if documentation.get("extends_documentation_fragment") == "dn42.compose.release_tolerances":
        options = {**options, **yaml.safe_load(release_tolerances.ModuleDocFragment.DOCUMENTATION)["options"]}
    assert shape(options, "suboptions") == shape(_together.implementation(name).ARGUMENT_SPEC, "options")


def shape(options: dict[str, Any], inner: str) -> dict[str, Any]:
    """Name, type, default and choices of options, and those of the options in them."""
    kept = ("type", "elements", "default", "choices", "required")
    return {name: {**{key: option[key] for key in kept if key in option}, "in it": shape(option.get(inner) or {}, inner)} for name, option in options.items()}
