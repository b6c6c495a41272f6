# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes the program and the tests' own module importable; fixtures with a BIRD to ask."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import birds
import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[2] / "roles" / "looking_glass" / "files" / "image")]

from looking_glass_birds import RealBird, RecordedBird  # noqa: E402


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory whose name is short enough for a Unix socket."""
    path = Path(tempfile.mkdtemp(prefix="lg-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture(params=["recorded", "real"])
def bird(request: pytest.FixtureRequest, directory: Path) -> Iterator[RecordedBird | RealBird]:
    """A running BIRD with the session `peer-1` up, `ibgp_hkg1` down and a route to 172.22.200.0/27."""
    commands = birds.command_lines()
    if request.param == "real" and commands is None:
        pytest.skip("there is no BIRD; make policy unpacks one")
    server = RecordedBird(directory) if request.param == "recorded" else RealBird(directory, 17900, commands["bird"])
    server.start()
    yield server
    server.stop()
