# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The published files are whole at any moment, also when their writer is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from dn42_rpki.roas import parse
from dn42_rpki.store import Store
from rpki_source import lines

IMAGE = Path(__file__).resolve().parents[3] / "roles" / "rpki" / "files" / "image"
WRITER = """
import sys
from pathlib import Path
from dn42_rpki.roas import parse
from dn42_rpki.store import Store
sets = [parse(Path(name).read_bytes())["ipv4"] for name in sys.argv[2:]]
store = Store(Path(sys.argv[1]))
print("ready", flush=True)
while True:
    for roas in sets:
        store.publish("ipv4", roas)
"""


def test_a_reader_never_sees_a_part_of_a_file_and_a_killed_writer_leaves_none(tmp_path: Path) -> None:
    sizes = (200, 400)
    for size in sizes:
        (tmp_path / str(size)).write_bytes(lines("ipv4", size))
    volume = tmp_path / "roa"
    volume.mkdir()
    Store(volume).publish("ipv4", parse(lines("ipv4", sizes[0]))["ipv4"])
    for _kill in range(4):
        command = [sys.executable, "-c", WRITER, str(volume), *(str(tmp_path / str(size)) for size in sizes)]
        writer = subprocess.Popen(command, cwd=IMAGE, stdout=subprocess.PIPE)
        try:
            assert writer.stdout is not None and writer.stdout.readline() == b"ready\n"
            for _look in range(20):
                assert len(parse((volume / "roa4.conf").read_bytes())["ipv4"]) in sizes
        finally:
            os.kill(writer.pid, signal.SIGKILL)
            writer.wait(10)
            if writer.stdout:
                writer.stdout.close()
        assert len(parse((volume / "roa4.conf").read_bytes())["ipv4"]) in sizes
    Store(volume).publish("ipv4", parse(lines("ipv4", 7))["ipv4"])
    assert sorted(path.name for path in volume.iterdir()) == ["roa4.conf"], "what a killed writer left is used up by the next one"


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.publish("ipv4", parse(lines("ipv4", 5))["ipv4"])
    before = (tmp_path / "roa4.conf").read_bytes()
    script = """
import resource, signal, sys
from pathlib import Path
from dn42_rpki.roas import parse
from dn42_rpki.store import Store
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
try:
    Store(Path(sys.argv[1])).publish("ipv4", parse(Path(sys.argv[2]).read_bytes())["ipv4"])
except OSError:
    sys.exit(3)
"""
    (tmp_path / "many").write_bytes(lines("ipv4", 1000))
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path), str(tmp_path / "many")], cwd=IMAGE, timeout=60, check=False)
    assert done.returncode == 3
    assert (tmp_path / "roa4.conf").read_bytes() == before


def test_files_are_readable_for_the_router(tmp_path: Path) -> None:
    previous = os.umask(0o077)
    try:
        Store(tmp_path).load()
    finally:
        os.umask(previous)
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {"roa4.conf": 0o644, "roa6.conf": 0o644}


@pytest.mark.parametrize("content", [b"", b"[]", b'{"ipv4": 7}', b'{"ipv4": {"confirmed": "yesterday"}}'])
def test_a_useless_status_does_not_hide_the_data(tmp_path: Path, content: bytes) -> None:
    store = Store(tmp_path)
    store.publish("ipv4", parse(lines("ipv4", 5))["ipv4"])
    (tmp_path / "status.json").write_bytes(content)
    entry = store.load()["ipv4"]
    assert len(entry.roas) == 5 and entry.confirmed == (tmp_path / "roa4.conf").stat().st_mtime
