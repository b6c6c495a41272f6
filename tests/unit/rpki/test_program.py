# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program as the container runs it, and its configuration."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from dn42_rpki.settings import SettingsError, parse
from rpki_source import Source, as_json

IMAGE = Path(__file__).resolve().parents[3] / "roles" / "rpki" / "files" / "image"
GOOD: dict[str, Any] = {
    "node": "fra1",
    "interval": 900,
    "timeout": 30,
    "stale_after": 86400,
    "smallest_share": 50,
    "smallest_first": 100,
    "sources": [{"url": "https://roa.example.net/dn42_roa_46.json"}, {"ipv4": "http://roa.example.org/?type=v4", "ipv6": "http://roa.example.org/?type=v6", "url": None}],
}
WAIT = 60  # seconds; what is waited for takes one


def program(*arguments: object) -> list[str]:
    """The command line of the program."""
    return [sys.executable, "-m", "dn42_rpki", *map(str, arguments)]


def until(what: str, condition: Any) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def count(path: Path) -> int:
    """ROAs in a published file."""
    return path.read_text().count("route") if path.exists() else -1


def test_serve_publishes_looks_on_sighup_reads_new_settings_and_ends_on_sigterm(tmp_path: Path, source: Source) -> None:
    config, volume = tmp_path / "rpki.json", tmp_path / "roa"
    volume.mkdir()
    config.write_text(json.dumps({**GOOD, "sources": [{"url": source.url("/both")}]}))
    assert subprocess.run(program("check", config), cwd=IMAGE, timeout=WAIT, check=False).returncode == 0
    assert subprocess.run(program("health", config, volume), cwd=IMAGE, timeout=WAIT, check=False).returncode == 1
    running = subprocess.Popen(program("serve", config, volume), cwd=IMAGE, stderr=subprocess.DEVNULL)
    try:
        until("first set", lambda: count(volume / "roa4.conf") == 100)
        until("status", (volume / "status.json").exists)
        healthy = subprocess.run(program("health", config, volume), cwd=IMAGE, timeout=WAIT, check=False, capture_output=True, text=True)
        assert (healthy.returncode, healthy.stdout) == (0, "healthy\n")
        source.contents["/both"] = as_json(103, 100)
        running.send_signal(signal.SIGHUP)
        until("set after SIGHUP", lambda: count(volume / "roa4.conf") == 103)
        source.contents["/new"] = as_json(107, 100)
        beside = tmp_path / "new.json"
        beside.write_text(json.dumps({**GOOD, "sources": [{"url": source.url("/new")}]}))
        os.replace(beside, config)
        until("set of the new source", lambda: count(volume / "roa4.conf") == 107)
        running.terminate()
        assert running.wait(WAIT) == 0
    finally:
        running.kill()
        running.wait(WAIT)


def test_a_good_configuration_is_read() -> None:
    read = parse(GOOD)
    assert [source.both for source in read.sources] == [True, False]
    assert read.sources[1].urls == {"ipv4": "http://roa.example.org/?type=v4", "ipv6": "http://roa.example.org/?type=v6"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sources": []}, "dn42_rpki_sources is empty.*DN42 wiki's page on RPKI"),
        ({"sources": "https://roa.example.net/"}, "must be a list"),
        ({"sources": ["https://roa.example.net/"]}, r"dn42_rpki_sources\[0\].*must be a mapping"),
        ({"sources": [{"uri": "https://roa.example.net/"}]}, r"dn42_rpki_sources\[0\].uri is no option"),
        ({"sources": [{"url": "https://roa.example.net/", "ipv4": "https://roa.example.net/"}]}, "must have url, for both"),
        ({"sources": [{}]}, "must have url"),
        ({"sources": [{"ipv4": "https://roa.example.net/"}]}, "none has a URL for ipv6"),
        ({"sources": [{"url": "file:///etc/passwd"}]}, "must begin with https"),
        ({"sources": [{"url": "https://"}]}, "must begin with https"),
        ({"sources": [{"url": "https://roa.example.net:0/"}]}, "must begin with https"),
        ({"sources": [{"url": "https://me:secret@roa.example.net/"}]}, "user name"),
        ({"sources": [{"url": "https://roa.example.net/a b"}]}, "no URL"),
        ({"sources": [{"url": "https://roa.example.net:70000/"}]}, "out of range"),
        ({"interval": 5}, "dn42_rpki_interval: 5 is not a number from 60"),
        ({"smallest_share": 101}, "dn42_rpki_smallest_share"),
        ({"timeout": True}, "dn42_rpki_timeout"),
    ],
)
def test_a_wrong_configuration_is_refused_with_what_to_do(change: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        parse({**GOOD, **change})
