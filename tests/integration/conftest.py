# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The converged lab that the integration tests work on. Molecule's default scenario leaves it behind."""

from __future__ import annotations

import os

import pytest
from network_probe import Lab
from support import NODES, wait_for_node

# Molecule colours whatever runs inside of it, and what Ansible prints is read here.
os.environ.pop("ANSIBLE_FORCE_COLOR", None)
os.environ["ANSIBLE_NOCOLOR"] = "true"


@pytest.fixture(scope="session")
def lab() -> Lab:
    """The lab, with peer1 knowing our keys and every session established."""
    found = Lab(os.environ.get("DN42_LAB", "molecule"))
    found.introduce_all(NODES)
    for node in NODES:
        wait_for_node(found, node)
    return found
