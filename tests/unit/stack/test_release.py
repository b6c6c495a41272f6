# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of a release on a real file system. What Docker does is tested on real hosts."""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dn42.compose.plugins.module_utils import _release, _service_role


def declared(directory: Path, files: dict[str, str], release: str = "r1", **secrets: str) -> dict[str, Any]:
    """A release of one service as the controller sends it."""
    return {
        "directory": str(directory),
        "project": "dn42",
        "wait": 1,
        "renumber": False,
        "compose_sha256": hashlib.sha256(b"compose").hexdigest(),
        "network": {"name": "dn42", "driver_opts": {}},
        "services": {
            "dns": {
                "service": "dns",
                "container": "dn42-dns",
                "image": "dn42-dns:0",
                "release": release,
                "addresses": {},
                "files": {name: hashlib.sha256(text.encode()).hexdigest() for name, text in files.items()},
                "check": [],
                "check_capabilities": [],
                "reload": [],
                "before_recreate": [],
                "secrets": {
                    "owner": os.getuid(),
                    "keep": ["private.key"],
                    "files": {name: hashlib.sha256(text.encode()).hexdigest() for name, text in secrets.items()},
                },
            }
        },
    }


def node(data: dict[str, Any]) -> _release.Node:
    """A node without Docker: only its files are looked at."""
    return _release.Node(data, lambda command: (1, "", "no docker here"), None)


def archive(path: Path, entries: dict[str, str]) -> str:
    """An archive as the controller sends it."""
    path.write_bytes(_service_role.archive((name, text.encode(), 0o644) for name, text in entries.items()))
    return str(path)


def release_files(target: _release.Node, incoming: str) -> None:
    """The part of a release that is files alone."""
    unpacked = target.directory / ".incoming-test"
    unpacked.mkdir(parents=True)
    _release.unpack(Path(incoming), unpacked)
    target._store(unpacked)
    target._write_secrets(unpacked)
    target._switch(unpacked)
    shutil.rmtree(unpacked)


def what(target: _release.Node) -> list[str]:
    """Differences, without those that are about containers."""
    return [change["what"] for change in target.changes() if "container" not in change["what"]]


@pytest.fixture
def released(tmp_path: Path) -> tuple[_release.Node, Path]:
    """A node with one release of one service."""
    directory = tmp_path / "dn42"
    target = node(declared(directory, {"a.conf": "a", "zones/b.conf": "b"}, psk="secret"))
    entries = {"services/dns/a.conf": "a", "services/dns/zones/b.conf": "b", "secrets/dns/psk": "secret", "compose.yaml": "compose"}
    release_files(target, archive(tmp_path / "release.tar.gz", entries))
    return target, directory


def test_a_release_is_complete_and_has_nothing_left_to_do(released: tuple[_release.Node, Path]) -> None:
    target, directory = released
    assert what(target) == []
    assert (directory / "services/dns/current").readlink() == Path("releases/r1")
    assert (directory / "services/dns/current/zones/b.conf").read_text() == "b"
    assert sorted(path.name for path in directory.iterdir()) == ["compose.yaml", "secrets", "services"]


def test_secrets_are_readable_by_their_owner_alone(released: tuple[_release.Node, Path]) -> None:
    _target, directory = released
    assert (directory / "secrets/dns").stat().st_mode & 0o777 == 0o700
    assert (directory / "secrets/dns/psk").stat().st_mode & 0o777 == 0o400


def test_an_edited_a_missing_and_a_superfluous_file_are_seen_and_repaired(released: tuple[_release.Node, Path], tmp_path: Path) -> None:
    target, directory = released
    current = directory / "services/dns/current"
    (current / "a.conf").write_text("edited")
    (current / "zones/b.conf").unlink()
    (current / "c.conf").write_text("c")
    assert what(target) == ["dns/a.conf", "dns/c.conf", "dns/zones/b.conf"]
    switched = target.services[0].switched_at()
    entries = {"services/dns/a.conf": "a", "services/dns/zones/b.conf": "b", "secrets/dns/psk": "secret", "compose.yaml": "compose"}
    release_files(target, archive(tmp_path / "again.tar.gz", entries))
    assert what(target) == []
    assert target.services[0].switched_at() > switched, "the container would never be told"


def test_lax_and_foreign_secrets_are_seen_and_a_kept_key_stays(released: tuple[_release.Node, Path], tmp_path: Path) -> None:
    target, directory = released
    secrets = directory / "secrets/dns"
    (secrets / "private.key").write_text("made on the node")
    (secrets / "private.key").chmod(0o644)
    (secrets / "psk-of-a-peer-that-left").write_text("old")
    assert what(target) == ["secret dns/private.key", "secret dns/psk-of-a-peer-that-left"]
    entries = {"services/dns/a.conf": "a", "services/dns/zones/b.conf": "b", "secrets/dns/psk": "secret", "compose.yaml": "compose"}
    release_files(target, archive(tmp_path / "again.tar.gz", entries))
    assert sorted(path.name for path in secrets.iterdir()) == ["private.key", "psk"]
    assert (secrets / "private.key").read_text() == "made on the node"
    assert (secrets / "private.key").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("name", ["../outside", "/etc/outside", "services/../../outside"])
def test_an_archive_that_points_outside_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "dn42").mkdir()
    path = tmp_path / "bad.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        info = tarfile.TarInfo(name)
        tar.addfile(info)
    with pytest.raises(_release.ReleaseError, match="does not belong"):
        _release.unpack(path, tmp_path / "dn42")


def test_archives_of_equal_content_are_equal_bytes() -> None:
    entries = [("b", b"2", 0o644), ("a", b"1", 0o644)]
    assert _service_role.archive(entries)[10:] == _service_role.archive(reversed(entries))[10:]


def test_the_time_docker_gives_is_read_with_its_fraction() -> None:
    assert _release.container_time("2026-01-02T03:04:05.123456789Z") == pytest.approx(1767323045.123456)
