# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The router's secret files: a preshared key for each tunnel that has one, whatever the state of its session."""

from __future__ import annotations

import json

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.dn42.compose.plugins.module_utils._service_role import COLLECTION_ROLES

KEY = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXMhISE="
TEMPLATE = COLLECTION_ROLES / "router" / "templates" / "secrets.json.j2"


@pytest.mark.parametrize(("state", "files"), [({}, ["psk-wg-a"]), ({"state": "present"}, ["psk-wg-a"]), ({"state": "shutdown"}, ["psk-wg-a"]), ({"state": "absent"}, [])])
def test_a_tunnel_that_is_there_has_its_preshared_key(state: dict[str, str], files: list[str]) -> None:
    peers = [{"name": "a", "preshared_key": KEY, **state}, {"name": "b"}]
    templar = Templar(loader=DataLoader(), variables={"dn42_peers": peers})
    text = templar.template(trust_as_template(TEMPLATE.read_text(encoding="utf-8")), escape_backslashes=False)
    assert json.loads(str(text)) == dict.fromkeys(files, f"{KEY}\n")
