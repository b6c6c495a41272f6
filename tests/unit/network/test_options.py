# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of roles: misspelt, of the wrong type, and the reference that is checked both ways."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from ansible_collections.dn42.compose.plugins.module_utils import _options
from ansible_collections.dn42.compose.plugins.module_utils._service_role import COLLECTION_ROLES

ROLES = sorted(path for path in COLLECTION_ROLES.iterdir() if path.is_dir())
OPTIONS = _options.read_options(ROLES)


def faults(**variables: Any) -> list[str]:
    """What is wrong with one host's variables."""
    return [str(fault) for fault in _options.check("fra1", variables, OPTIONS, [role.name for role in ROLES])]


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("dn42_router_import_limit", "many", "int"),
        ("dn42_router_userspace", "perhaps", "bool"),
        ("dn42_router_prefer_family", "ipv5", "ipv4"),
        ("dn42_stack_services", {"a": 1}, "list"),
        ("dn42_router_import_limits", 9000, "do you mean dn42_router_import_limit?"),
        ("dn42_peer", [], "do you mean dn42_peers?"),
        ("dn42_router_shape", "round", "dn42_router_import_limit"),
    ],
)
def test_a_wrong_option_is_named_with_what_would_be_right(name: str, value: Any, why: str) -> None:
    found = faults(**{name: value})
    assert len(found) == 1
    assert f"fra1: {name} = {value!r}" in found[0]
    assert why in found[0]


@pytest.mark.parametrize(("name", "value"), [("dn42_router_import_limit", "9000"), ("dn42_router_userspace", "yes"), ("dn42_my_own_variable", 5), ("foreign", "anything")])
def test_right_options_and_foreign_variables_are_left_alone(name: str, value: Any) -> None:
    assert faults(**{name: value}) == []


def test_a_secret_option_is_not_shown() -> None:
    found = faults(dn42_router_private_key=["c2VjcmV0LXNlY3JldA=="])
    assert not any("c2VjcmV0" in fault for fault in found)


@pytest.mark.parametrize("role", ROLES, ids=lambda path: path.name)
def test_the_reference_and_the_defaults_of_a_role_are_the_same(role: Any) -> None:
    """argument_specs.yml is the documentation: every option is in both files, with the same default."""
    defaults = yaml.safe_load((role / "defaults" / "main.yml").read_text()) or {}
    specified = _options.read_options([role])
    assert sorted(defaults) == sorted(specified)
    for name, value in defaults.items():
        if "default" in specified[name]:
            assert specified[name]["default"] == value, name
