# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make the programs of the router's image importable, without leaving bytecode beside them."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import pytest

IMAGE = Path(__file__).resolve().parents[3] / "roles" / "router" / "files" / "image"

# bytecode in the build directory would change what is built
sys.dont_write_bytecode = True
sys.path.insert(0, str(IMAGE))

KEY = "A" * 43 + "="
GOOD: dict[str, Any] = {
    "bridge": {
        "router": {"ipv4": "172.23.255.3", "ipv6": "fd99:4242:1::3"},
        "gateway": {"ipv4": "172.23.255.2/29", "ipv6": "FD99:4242:1:0::2/64"},
    },
    "userspace": True,
    "prefer_family": "any",
    "tunnels": [
        {
            "name": "wg-peer1",
            "listen_port": 21002,
            "mtu": 1420,
            "addresses": ["fe80::1/64"],
            "peer": {"public_key": KEY, "endpoint": {"host": "203.0.113.100", "port": 21001}, "preshared_key_file": None, "allowed_ips": ["172.20.0.0/14"], "keepalive": 0},
        }
    ],
}


@pytest.fixture
def declaration() -> dict[str, Any]:
    """A good tunnels.json, decoded, to be changed at will."""
    return copy.deepcopy(GOOD)
