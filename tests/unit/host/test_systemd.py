# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What systemctl says of units."""

from __future__ import annotations

import pytest
from ansible_collections.dn42.compose.plugins.module_utils import _systemd

TWO = "Id=docker.service\nActiveState=active\nInvocationID=ab=c\n\nId=firewalld.service\nActiveState=inactive\n"


def test_units_are_told_apart_and_values_may_have_equal_signs() -> None:
    """One block for each, in any order of properties."""
    assert _systemd.parse_show(TWO)["docker.service"]["InvocationID"] == "ab=c"
    assert _systemd.parse_show(TWO)["firewalld.service"]["ActiveState"] == "inactive"
    assert _systemd.parse_show("\n") == {}


@pytest.mark.parametrize(("answer", "expected"), [((0, TWO, ""), True), ((0, TWO.replace("=active", "=failed"), ""), False), ((127, "", "systemctl is not there"), False)])
def test_active(answer: tuple[int, str, str], expected: bool) -> None:
    """A host without systemd has no active unit."""
    asked = []

    def run(argv: list) -> tuple[int, str, str]:
        asked.append(argv)
        return answer

    assert _systemd.is_active(run, "docker.service") is expected
    assert asked == [["systemctl", "show", "--property=Id,ActiveState", "docker.service"]]
