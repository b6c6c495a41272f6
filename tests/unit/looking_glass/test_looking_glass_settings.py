# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The configuration: what the role renders is understood, what is broken is refused, and a new file is noticed."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml
from looking_glass.settings import Node, SettingsError, SettingsFile, parse_settings
from looking_glass_birds import ROLE

NODES = [
    {"name": "fra1", "ipv4": "172.23.255.5", "ipv6": "fd99:4242:1::5"},
    {"name": "hkg1", "ipv4": "172.23.255.13", "ipv6": "fd99:4242:1:1::5"},
]


def config(**changes: Any) -> str:
    return json.dumps({"title": "t", "node": "fra1", "port": 80, "nodes": NODES} | changes)


def rendered(nodes: list[dict[str, str]], **options: Any) -> str:
    """Return the configuration of hkg1 as the role renders it."""
    defaults = yaml.safe_load((ROLE / "defaults" / "main.yml").read_text("utf-8"))
    model = {"node": "hkg1", "nodes": [{"name": node["name"], "addresses": {"looking_glass": node}} for node in nodes]}
    template = (ROLE / "templates" / "config" / "looking-glass.json.j2").read_text("utf-8")
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, keep_trailing_newline=True)
    return environment.from_string(template).render(defaults | {"dn42": model} | options)


def test_the_template_and_the_program_agree() -> None:
    title = 'quotes " and <tags> & \\ backslashes'
    text = rendered(NODES, dn42_looking_glass_title=title)
    settings = parse_settings(text)
    assert (settings.title, settings.node, settings.port) == (title, "hkg1", 80)
    assert settings.nodes[0] == Node("fra1", ("fd99:4242:1::5", "172.23.255.5"))
    assert text.endswith("}\n")


def test_a_node_may_have_one_family() -> None:
    nodes = [{"name": "fra1", "ipv4": "172.23.255.5"}, {"name": "hkg1", "ipv6": "fd99:4242:1:1::5"}]
    assert parse_settings(rendered(nodes)).nodes == (Node("fra1", ("172.23.255.5",)), Node("hkg1", ("fd99:4242:1:1::5",)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "title"),
        (config(title=None), "title"),
        (config(port="80"), "port"),
        (config(port=True), "port"),
        (config(port=0), "port: 0"),
        (config(node="nrt1"), "'nrt1' is not among"),
        (config(nodes={}), "nodes"),
        (config(nodes=[{"name": "fra1", "ipv4": None}]), "'fra1': it has no address"),
        (config(nodes=[{"name": "fra1", "ipv4": "172.23.255.5", "ipv6": 1}]), "ipv6"),
        (config(nodes=[{"name": "fra1", "ipv4": "172.23.255", "ipv6": "::1"}]), "node 'fra1'"),
    ],
)
def test_broken_settings_are_refused(text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        parse_settings(text)


def release(root: Path, name: str, text: str) -> None:
    """Write a release and let `current` lead to it, as a deployment does."""
    (root / "releases" / name).mkdir(parents=True)
    (root / "releases" / name / "looking-glass.json").write_text(text, "utf-8")
    (root / "new").symlink_to(f"releases/{name}")
    os.replace(root / "new", root / "current")


def test_a_new_release_is_noticed_and_a_broken_one_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    release(tmp_path, "one", config(title="one"))
    settings = SettingsFile(tmp_path / "current" / "looking-glass.json")
    assert settings.current().title == "one"
    release(tmp_path, "two", config(title="two"))
    assert settings.current().title == "two"
    release(tmp_path, "three", "{")
    with caplog.at_level(logging.ERROR):
        assert settings.current().title == "two"
        assert settings.current().title == "two"
    assert len(caplog.records) == 1
    (tmp_path / "current").unlink()
    assert settings.current().title == "two"
    release(tmp_path, "four", config(title="four"))
    assert settings.current().title == "four"


@pytest.mark.parametrize(("text", "status"), [(config(), 0), ("{", 1)])
def test_the_check_of_a_release(tmp_path: Path, text: str, status: int) -> None:
    path = tmp_path / "looking-glass.json"
    path.write_text(text, "utf-8")
    result = subprocess.run(
        [sys.executable, "-m", "looking_glass", "check", str(path)],
        env=os.environ | {"PYTHONPATH": str(ROLE / "files" / "image")},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert result.returncode == status
    assert (str(path) in result.stderr) == (status != 0)
