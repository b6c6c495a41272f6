# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The policy laboratory: BIRD against BIRD in network namespaces, seconds per case, no Docker and no lab."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import birds
import pytest
from routers import Router


def _makes_routers() -> Iterator[Callable[..., Router]]:
    made: list[Router] = []

    def make(name: str, version: str = birds.DEFAULT) -> Router:
        made.append(Router(name, version))
        return made[-1]

    yield make
    for one in made:
        one.end()


@pytest.fixture
def router() -> Iterator[Callable[..., Router]]:
    """Makes routers that end with the test."""
    yield from _makes_routers()


@pytest.fixture(scope="module")
def lasting_router() -> Iterator[Callable[..., Router]]:
    """Makes routers that all tests of a file share."""
    yield from _makes_routers()
