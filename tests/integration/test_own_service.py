# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Adding a service is adding a role: the example of docs/architecture.md, as it stands there, on a real node."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from network_probe import Lab
from support import CHECKOUT, changed_hosts, playbook

NODE = "fra1"
PEERS_FILE = CHECKOUT / "inventories" / "demo" / "host_vars" / f"{NODE}.yml"
BLOCK = re.compile(r"^```\w+\n(?:#|<!--) (\S+)[^\n]*\n(.*?)^```", re.DOTALL | re.MULTILINE)


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """The role of the documentation in a folder of the roles path; its inventory variables are the answer."""
    text = (CHECKOUT / "docs" / "architecture.md").read_text().partition("## A service of your own")[2]
    blocks = dict(BLOCK.findall(text))
    variables = yaml.safe_load(next(blocks.pop(name) for name in list(blocks) if name.startswith("group_vars/")))
    for name, content in blocks.items():
        path = tmp_path / "web" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    monkeypatch.setenv("ANSIBLE_ROLES_PATH", str(tmp_path))
    return variables


@pytest.mark.full
def test_example_of_the_documentation_works(lab: Lab, example: dict[str, object], tmp_path: Path) -> None:
    """It answers in DN42 at its fixed address, the others keep their containers and addresses, and it leaves with its entry."""
    before = (lab.container_starts(NODE), lab.ages(NODE), lab.addresses(NODE, "dn42-dns"))
    extra = tmp_path / "extra.yml"
    extra.write_text(yaml.safe_dump(example))
    try:
        playbook("site.yml", "--limit", NODE, "-e", f"@{extra}")
        address = lab.addresses(NODE, "dn42-web")[1]
        assert address.endswith("::6")
        page = lab.run("peer1", "curl", "-sS", "-m", "10", f"http://[{address}]/").stdout
        assert f"Hello from DN42: {NODE}, AS4200420001, {address}" in page
        assert changed_hosts(playbook("site.yml", "--limit", NODE, "-e", f"@{extra}").stdout) == {NODE: 0}
        _upgrade_and_describe(lab, tmp_path, example, extra)
    finally:
        playbook("site.yml", "--limit", NODE)
    assert (lab.container_starts(NODE), lab.ages(NODE), lab.addresses(NODE, "dn42-dns")) == before


def _upgrade_and_describe(lab: Lab, roles: Path, example: dict[str, object], extra: Path) -> None:
    """A new image of this service and other words about a peer touch no other container and no session."""
    before = (lab.container_starts(NODE), lab.ages(NODE))
    dockerfile = roles / "web" / "files" / "image" / "Dockerfile"
    dockerfile.write_text(dockerfile.read_text() + "LABEL dn42.test=another-image\n")
    peers = yaml.safe_load(PEERS_FILE.read_text())["dn42_peers"]
    extra.write_text(yaml.safe_dump({**example, "dn42_peers": [{**peers[0], "description": "other words about peer1"}, *peers[1:]]}))
    playbook("site.yml", "--limit", NODE, "-e", f"@{extra}")
    starts, ages = before
    after = lab.container_starts(NODE)
    assert after.pop("dn42-web") != starts.pop("dn42-web"), "the new image does not run"
    assert (after, lab.ages(NODE)) == (starts, ages)
    assert "other words about peer1" in lab.birdc(NODE, "show", "protocols", "all", "peer_peer1")
