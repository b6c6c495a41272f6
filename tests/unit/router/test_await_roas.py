# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a node waits for before its router judges by ROAs."""

from __future__ import annotations

from pathlib import Path

import pytest
from dn42_router import await_roas, roa


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A volume with a set of each family, nothing taken over, and a bird.conf that includes what is."""
    for name in ("PUBLISHED", "INCLUDED"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(roa, name, tmp_path / name)
    monkeypatch.setattr(roa, "BIRD_CONF", tmp_path / "bird.conf")
    for name in roa.FILES.values():
        (tmp_path / "PUBLISHED" / name).write_text("")
    (tmp_path / "bird.conf").write_text(f'include "{tmp_path}/INCLUDED/roa4*.conf";\n')
    return tmp_path


def test_it_waits_for_what_is_published(places: Path) -> None:
    assert await_roas.awaited() == ["ipv4", "ipv6"]
    (places / "INCLUDED" / "roa4.conf").write_text("")
    assert await_roas.awaited() == ["ipv6"]


def test_it_waits_for_nothing_that_nobody_has_published(places: Path) -> None:
    (places / "PUBLISHED" / "roa6.conf").unlink()
    assert await_roas.awaited() == ["ipv4"]


def test_it_waits_for_nothing_where_no_origin_is_judged_by_files(places: Path) -> None:
    (places / "bird.conf").write_text("")
    assert await_roas.awaited() == []


def test_a_set_that_is_not_taken_is_told_and_stops_nothing(places: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(await_roas, "SECONDS", 0.0)
    assert await_roas.main() == 0
    assert capsys.readouterr().err.splitlines() == ["no ROAs for IPv4 within 0 s", "no ROAs for IPv6 within 0 s"]
