# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""ROA files on their way from the volume into BIRD, with a real BIRD where there is one."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import birds
import pytest
from dn42_router import health, loading, roa, system

WAIT = 60  # seconds; what is waited for takes one
CONF = """
log stderr all;
router id 192.0.2.1;
roa4 table r4; roa6 table r6;
protocol static s4 {{
  roa4 {{ table r4; }};
  include "{roa}/roa4*.conf";
}}
protocol static s6 {{
  roa6 {{ table r6; }};
  include "{roa}/roa6*.conf";
}}
protocol device {{ }}
"""


@pytest.fixture(autouse=True)
def places(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The container's paths, in a directory whose name is short enough for a socket."""
    root = Path(tempfile.mkdtemp(prefix="roa-"))
    for name in ("published", "roa"):
        (root / name).mkdir()
    monkeypatch.setattr(roa, "PUBLISHED", root / "published")
    monkeypatch.setattr(roa, "INCLUDED", root / "roa")
    monkeypatch.setattr(roa, "BIRD_CONF", root / "bird.conf")
    monkeypatch.setattr(roa, "SCRATCH", root / "check.conf")
    (root / "bird.conf").write_text(CONF.format(roa=root / "roa"))
    yield root
    shutil.rmtree(root)


class Commands:
    """Stands in for bird and birdc, which answer as told."""

    def __init__(self) -> None:
        """All is well."""
        self.calls: list[str] = []
        self.answer = "BIRD 2.17.6 ready.\nReading configuration from /config/current/bird.conf\nReconfigured\n"
        self.fault: str | None = None

    def __call__(self, argv: list[str], timeout: float = 5) -> str:
        """Record the command and answer it."""
        self.calls.append(" ".join(argv[:2]))
        if self.fault:
            raise system.CommandError(self.fault)
        return self.answer


def publish(places: Path, name: str, *lines: str) -> None:
    """Put a file on the volume as the fetcher does."""
    beside = places / "published" / f".{name}.new"
    beside.write_text("".join(f"{line}\n" for line in ("# ROAs", *lines)))
    beside.rename(places / "published" / name)


def publish_both(places: Path) -> None:
    publish(places, "roa4.conf", "route 172.20.0.0/24 max 28 as 4242420000;")
    publish(places, "roa6.conf", "route fd42::/48 max 64 as 4242420000;")


def keep(files: roa.RoaFiles, may_be_down: bool = False) -> str | None:
    """One pass of the keeper; what was wrong."""
    try:
        files.keep(may_be_down, lambda text: None)
    except system.CommandError as error:
        return str(error)
    return None


def test_bird_is_told_once_for_each_change(places: Path) -> None:
    commands = Commands()
    files = roa.RoaFiles(command=commands)
    publish_both(places)
    assert [keep(files) for _pass in range(3)] == [None] * 3
    assert commands.calls == ["bird -p", "bird -p", "birdc configure"]
    publish(places, "roa4.conf", "route 172.20.0.0/24 max 28 as 4242420000;")
    assert keep(files) is None
    assert len(commands.calls) == 3, "the same again is no change"
    publish(places, "roa4.conf", "route 172.20.0.0/24 max 29 as 4242420000;")
    assert keep(files) is None
    assert commands.calls[3:] == ["bird -p", "birdc configure"]


def test_roas_are_taken_over_before_a_release_counts_and_bird_is_told_when_it_does(places: Path) -> None:
    commands = Commands()
    files = roa.RoaFiles(command=commands)
    publish_both(places)
    files.keep(False, lambda text: None, untold=True)
    assert sorted(path.name for path in (places / "roa").iterdir()) == ["roa4.conf", "roa6.conf"]
    assert commands.calls == ["bird -p", "bird -p"]
    assert keep(files) is None
    assert commands.calls[2:] == ["birdc configure"]


def test_a_keeper_that_was_started_again_tells_bird_what_the_last_one_did_not(places: Path) -> None:
    publish_both(places)
    first = roa.RoaFiles(command=Commands())
    keep(first)
    commands = Commands()
    keep(roa.RoaFiles(first.status()["loaded"], commands))
    assert commands.calls == []
    keep(roa.RoaFiles(None, commands))
    assert commands.calls == ["birdc configure"]


def test_before_bird_runs_it_is_not_missed(places: Path) -> None:
    commands = Commands()
    publish_both(places)
    files = roa.RoaFiles(command=lambda argv, timeout=5: commands(argv) if argv[0] == "bird" else system.run(["false"]))
    assert keep(files, may_be_down=True) is None
    assert keep(files) is None


def test_bird_that_does_not_answer_is_told_and_asked_again_later(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = Commands()
    publish_both(places)
    files = roa.RoaFiles(command=commands)
    commands.answer = "8002: /config/current/bird.conf:3:1 syntax error\n"
    assert "syntax error" in str(keep(files))
    assert "has not loaded" in str(keep(files))
    assert commands.calls.count("birdc configure") == 1, "not with every pass"
    commands.answer = "Reconfiguration in progress\n"
    later = time.monotonic() + roa.RETRY_SECONDS
    monkeypatch.setattr(roa.time, "monotonic", lambda: later)
    assert keep(files) is None


@pytest.mark.parametrize(
    "line",
    [
        "<html>",
        "route 172.20.0.0/24 max 28 as 4242420000",
        'include "/secrets/private.key";',
        "route 172.20.0.0/24 max 28 as 1; } protocol kernel { ipv4 { export all; };",
        "route 172.20.0.0/24 unreachable;",
    ],
)
def test_nothing_but_roas_reaches_bird(places: Path, line: str) -> None:
    commands = Commands()
    publish_both(places)
    files = roa.RoaFiles(command=commands)
    keep(files)
    before, calls = (places / "roa" / "roa4.conf").read_bytes(), list(commands.calls)
    publish(places, "roa4.conf", "route 172.21.0.0/24 max 28 as 4242420000;", line)
    problem = keep(files)
    assert problem == f"IPv4: {places}/published/roa4.conf is not used, 1 ROAs stay: line 3 is no ROA"
    assert keep(files) == problem, "it is told for as long as it is so"
    assert (places / "roa" / "roa4.conf").read_bytes() == before and commands.calls == calls
    publish(places, "roa4.conf", "route 172.21.0.0/24 max 28 as 4242420000;")
    assert keep(files) is None


def test_an_incomplete_file_is_refused(places: Path) -> None:
    (places / "published" / "roa4.conf").write_text("route 172.20.0.0/24 max 28 as 4242420000;\n# 17")
    assert "last line is not complete" in str(keep(roa.RoaFiles(command=Commands())))


def test_links_and_pipes_of_the_other_container_are_not_followed(places: Path) -> None:
    secret = places / "private.key"
    secret.write_text("route 172.20.0.0/24 max 28 as 4242420000;\n")
    (places / "published" / "roa4.conf").symlink_to(secret)
    os.mkfifo(places / "published" / "roa6.conf")
    problem = str(keep(roa.RoaFiles(command=Commands())))
    assert "roa4.conf is not used" in problem and "no regular file" in problem
    assert list((places / "roa").iterdir()) == []


def test_an_empty_or_lost_volume_takes_nothing_away(places: Path) -> None:
    commands = Commands()
    publish_both(places)
    files = roa.RoaFiles(command=commands)
    keep(files)
    publish(places, "roa4.conf")
    (places / "published" / "roa6.conf").unlink()
    calls = list(commands.calls)
    assert keep(files) is None
    assert commands.calls == calls and files.status()["counts"] == {"ipv4": 1, "ipv6": 1}


def test_no_data_is_told_where_bird_uses_it_and_only_there(places: Path, tmp_path: Path) -> None:
    files = roa.RoaFiles(command=Commands())
    problem = keep(files)
    assert problem == "no ROA data for IPv4, every IPv4 route from peers is refused; no ROA data for IPv6, every IPv6 route from peers is refused"
    status = tmp_path / "status.json"
    system.write_json(status, {"problems": {"roa": problem}})
    assert health.remarks(status) == [f"roa: {problem}"]
    (places / "bird.conf").write_text("protocol device { }\n")
    assert keep(files) is None
    publish_both(places)
    commands = Commands()
    without = roa.RoaFiles(command=commands)
    assert keep(without) is None
    assert "birdc configure" not in commands.calls, "a BIRD without ROAs is left alone"


# With a real BIRD


def _bird_commands() -> dict[str, list[str]]:
    """Command lines of bird and birdc."""
    return birds.command_lines() or pytest.skip("there is no BIRD; make policy unpacks one")


class RealBird:
    """A BIRD of the test's own."""

    def __init__(self, places: Path) -> None:
        """Start it and wait for its socket."""
        self._commands, self._socket = _bird_commands(), places / "bird.ctl"
        self._process = subprocess.Popen(
            [*self._commands["bird"], "-f", "-c", str(places / "bird.conf"), "-s", str(self._socket), "-P", str(places / "pid")], stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + WAIT
        while not self._answers():
            assert self._process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            return "up and running" in self.run(["birdc", "show", "status"])
        except system.CommandError:
            return False

    def run(self, argv: list[str], timeout: float = 5) -> str:
        """Run bird or birdc as the keeper does."""
        words = [*self._commands[argv[0]], *(["-s", str(self._socket)] if argv[0] == "birdc" else []), *argv[1:]]
        return system.run(words, timeout=WAIT)

    def routes(self, table: str) -> int:
        """How many ROAs a table has."""
        words = self.run(["birdc", "show", "route", "count", "table", table]).split()
        return int(words[words.index("of") + 1])

    def stop(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait(WAIT)


@pytest.fixture
def bird(places: Path) -> Iterator[RealBird]:
    """A BIRD with empty ROA tables."""
    running = RealBird(places)
    yield running
    running.stop()


def test_real_bird_loads_what_is_published(places: Path, bird: RealBird) -> None:
    files = roa.RoaFiles(command=bird.run)
    assert bird.routes("r4") == 0
    publish_both(places)
    assert keep(files) is None
    assert (bird.routes("r4"), bird.routes("r6")) == (1, 1)
    publish(places, "roa4.conf", *(f"route 172.20.{number}.0/24 max 28 as 4242420000;" for number in range(200)))
    assert keep(files) is None
    assert (bird.routes("r4"), bird.routes("r6")) == (200, 1)


def test_real_bird_is_asked_about_a_file_before_it_gets_it(places: Path, bird: RealBird) -> None:
    """Lines that look right and are not: another family, a short max."""
    files = roa.RoaFiles(command=bird.run)
    publish_both(places)
    keep(files)
    publish(places, "roa4.conf", "route fd42:1::/48 max 64 as 4242420000;")
    publish(places, "roa6.conf", "route fd42:1::/48 max 47 as 4242420000;")
    problem = str(keep(files))
    assert "roa4.conf is not used, 1 ROAs stay" in problem and "roa6.conf is not used, 1 ROAs stay" in problem
    assert (bird.routes("r4"), bird.routes("r6")) == (1, 1)
    assert loading.accepted(bird.run(["birdc", "configure"])), "BIRD starts and reconfigures all the same"


def test_real_birds_answers_to_configure_are_understood(places: Path, bird: RealBird) -> None:
    publish_both(places)
    files = roa.RoaFiles(command=bird.run)
    good = (places / "bird.conf").read_text()
    (places / "bird.conf").write_text(good + "nonsense;\n")
    assert "syntax error" in str(keep(files))
    assert bird.routes("r4") == 0
