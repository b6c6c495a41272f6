# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measured latencies: when a value is given and changed. With real pings and BIRDs they are in tests/integration/bgp/test_latency.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from dn42_router import latency, model, system

LIMITS = (2.7, 7.3, 20.0, 55.0, 148.0, 403.0, 1097.0, 2981.0)
HOURS = 3600.0
INTERVAL = 12 * HOURS
DECLARED = {"interval": 43200, "limits": list(LIMITS), "targets": [{"name": "peer_peer1", "address": "fe80::2%wg-peer1"}]}


@pytest.mark.parametrize(
    ("before", "milliseconds", "value"),
    [
        (None, 2.7, 1),
        (None, 2.8, 2),
        (None, 20.1, 4),
        (None, 3000, 9),
        (3, 19.9, 3),
        (3, 20.1, 3),  # on the border the value before stays, from both sides
        (4, 19.9, 4),
        (4, 18.3, 4),
        (3, 22.1, 4),
        (4, 18.1, 3),
        (3, 60, 4),  # not clearly beyond the next border either
        (3, 61, 5),
        (9, 1, 1),
    ],
)
def test_a_value_is_left_when_the_latency_is_clearly_another(before: int | None, milliseconds: float, value: int) -> None:
    assert latency.settled(before, milliseconds, LIMITS) == value


def measure(link: latency.Link, begin: float, end: float, milliseconds: float | None) -> list[tuple[float, int | None]]:
    """Samples as the keeper takes them from one moment to another; when the value changed, and to what."""
    changes = []
    now = max(begin, link.due)
    while now < end:
        link.take(milliseconds, now, INTERVAL)
        if link.decide(now, INTERVAL, LIMITS):
            changes.append((now, link.value))
        now = link.due
    return changes


def test_a_first_value_comes_soon_and_the_next_after_half_a_day() -> None:
    link = latency.Link("fe80::2%wg-peer1")
    first = measure(link, 0, 300, 10)
    assert [value for _when, value in first] == [3] and first[0][0] <= 60
    later = measure(link, 300, 30 * HOURS, 100)
    assert [value for _when, value in later] == [5]
    assert later[0][0] - first[0][0] >= INTERVAL
    again = measure(link, 30 * HOURS, 100 * HOURS, 10)
    assert [value for _when, value in again] == [3] and again[0][0] - later[0][0] >= INTERVAL


def test_a_peak_changes_nothing_and_what_lasts_does() -> None:
    link = latency.Link("fe80::2%wg-peer1")
    measure(link, 0, 300, 10)
    assert measure(link, 300, 5 * HOURS, 500) == []
    assert measure(link, 5 * HOURS, 13 * HOURS, 10) == [], "a bad evening is not the median of half a day"


def test_a_value_stays_without_an_answer_and_there_is_none_without_any() -> None:
    link = latency.Link("fe80::2%wg-peer1")
    assert measure(link, 0, 100 * HOURS, None) == [] and link.value is None
    assert link.pause(INTERVAL) == INTERVAL / latency.SAMPLES_PER_INTERVAL, "who does not answer is not asked all the time"
    measure(link, 100 * HOURS, 101 * HOURS, 10)
    assert measure(link, 101 * HOURS, 200 * HOURS, None) == [] and link.value == 3


# The declaration


def test_the_declaration_of_what_is_measured(declaration: dict[str, Any]) -> None:
    assert model.parse(declaration).latency == model.NOT_MEASURED, "a release from before there were measurements"
    declaration["latency"] = DECLARED
    assert model.parse(declaration).latency.targets == (model.Target("peer_peer1", "fe80::2%wg-peer1"),)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"interval": "often"}, "latency.interval"),
        ({"interval": 0}, "latency.interval"),
        ({"limits": [3, 2]}, "latency.limits"),
        ({"targets": [{"name": "../x", "address": "fe80::2"}]}, r"targets\[0\].name"),
        ({"targets": [{"name": "peer_x", "address": "-f"}]}, r"targets\[0\].address"),
        ({"targets": DECLARED["targets"] * 2}, "used by two"),
    ],
)
def test_a_wrong_declaration_is_refused(declaration: dict[str, Any], change: dict[str, Any], problem: str) -> None:
    with pytest.raises(model.ConfigError, match=problem):
        model.parse({**declaration, "latency": {**DECLARED, **change}})


# The keeper's side


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The container's paths, and a ping that answers at once."""
    (tmp_path / "roa").mkdir()
    monkeypatch.setattr(latency, "INCLUDED", tmp_path / "roa")
    monkeypatch.setattr(latency, "STATE", tmp_path / "latency.json")
    monkeypatch.setattr(latency, "PING", ("sh", "-c", "exit 1", "ping"))
    return tmp_path


def test_a_ping_that_does_not_end_holds_nothing_up_and_is_ended(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "PING", ("sh", "-c", "exec sleep 600", "ping"))
    measured = latency.Latencies()
    declared = model.Latency(INTERVAL, LIMITS, tuple(model.Target(f"peer_{number}", f"fe80::{number}") for number in range(1, 10)))
    measured.keep(declared, False, print)
    measured.keep(declared, False, print)
    running = {name: process for name, (process, _began) in measured._pings.items()}
    assert len(running) == latency.PARALLEL and all(process.poll() is None for process in running.values())
    monkeypatch.setattr(latency, "PING_SECONDS", 0.0)
    measured.keep(declared, False, print)
    assert all(process.poll() is not None for process in running.values())
    assert {name for name, link in measured._links.items() if link.failures} == set(running)
    assert not set(measured._pings) & set(running), "the others have their turn"
    measured.keep(model.NOT_MEASURED, False, print)


def test_a_link_that_is_not_declared_any_more_is_forgotten_with_its_file(places: Path) -> None:
    system.write_json(latency.STATE, {"peer_old": {"address": "fe80::2", "value": 4, "due": 1e12}})
    (places / "roa" / "roa4.conf").write_text("# kept\n")
    measured = latency.Latencies(lambda argv, timeout=5: "Reconfigured\n")
    measured.keep(model.Latency(INTERVAL, LIMITS, (model.Target("peer_old", "fe80::2"),)), False, print)
    assert (places / "roa" / "latency-peer_old.conf").read_text() == "link_latency(4);\n"
    measured.keep(model.NOT_MEASURED, False, print)
    assert [path.name for path in (places / "roa").iterdir()] == ["roa4.conf"]
    assert json.loads(latency.STATE.read_text()) == {}


def test_a_broken_state_is_no_state(places: Path) -> None:
    for text in ("", "[]", '{"a": 1}', '{"a": {"address": "x", "samples": [1]}}', '{"a": {"nonsense": 1}}'):
        latency.STATE.write_text(text)
        assert latency.Latencies()._links == {}


def test_a_machine_without_ping_says_so(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "PING", ("no-such-program",))
    with pytest.raises(system.CommandError, match="No such file"):
        latency.Latencies().keep(model.parse_latency(DECLARED), False, print)
