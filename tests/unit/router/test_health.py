# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the router's health check says beside whether it is healthy."""

from __future__ import annotations

import json
from pathlib import Path

from dn42_router import health


def test_a_tunnel_that_could_not_be_made_is_told_and_one_on_its_way_is_not(tmp_path: Path) -> None:
    status = tmp_path / "status.json"
    tunnels = {
        "wg-good": {"ok": True, "error": None},
        "wg-new": {"ok": False, "error": "starting"},
        "wg-bad": {"ok": False, "error": "peer.example: no address"},
    }
    status.write_text(json.dumps({"problems": {"roa": "no data"}, "tunnels": tunnels}))
    assert health.remarks(status) == ["roa: no data", "wg-bad: peer.example: no address"]
    assert health.remarks(tmp_path / "missing.json") == []


def test_a_service_that_does_not_answer_is_told(tmp_path: Path) -> None:
    status = tmp_path / "status.json"
    status.write_text(json.dumps({"problems": {}, "tunnels": {}, "anycast": {"172.23.254.1": False, "fd99:4242:2::53": True}}))
    assert health.remarks(status) == ["anycast 172.23.254.1: not announced, its service does not answer"]
