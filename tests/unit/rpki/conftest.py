# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes the fetcher importable, without leaving bytecode beside it, and a web server that misbehaves on request."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
# bytecode in the build directory would change what is built
sys.dont_write_bytecode = True
os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
sys.path[:0] = [str(HERE), str(HERE.parents[2] / "roles" / "rpki" / "files" / "image")]

from rpki_source import Source  # noqa: E402


@pytest.fixture
def source() -> Iterator[Source]:
    """A web server on 127.0.0.1, good until told otherwise."""
    server = Source()
    yield server
    server.close()


@pytest.fixture
def second() -> Iterator[Source]:
    """Another one."""
    server = Source()
    yield server
    server.close()
