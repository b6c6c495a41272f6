# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What DN42 expects of pools, one sentence per rule."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.dn42.compose.plugins.module_utils import _address_request as request
from ansible_collections.dn42.compose.plugins.module_utils._address_plan import profile


def findings(**pool: Any) -> profile.Findings:
    """What is found about one pool; the size of its blocks does not matter unless it is given."""
    sizes = {"ipv4": 32, "ipv6": 128} if pool.get("purpose") == "anycast" else {"ipv4": 30, "ipv6": 64}
    faults: list = []
    pools = request.read_pools([{"name": "a", "block_size": sizes, **pool}], faults)
    assert faults == []
    return profile.examine(pools)


FINE = [
    {"ipv4": ["172.23.255.0/26"], "ipv6": ["fd99:4242:1::/48"]},  # the lab
    {"ipv4": ["172.20.8.0/21"]},
    {"ipv4": ["172.22.144.8/29"]},
    {"ipv6": ["fd99:4240::/44"]},
    {"ipv6": ["fd99:4242:1:7::/64"]},
    {"ipv4": ["172.22.0.64/28"], "purpose": "anycast"},
    {"ipv4": ["172.20.0.53/32"], "purpose": "anycast"},
    {"ipv6": ["fd42:d42:d42:53::/64"], "purpose": "anycast"},
    {"ipv4": ["172.23.255.62/32"], "aggregates": ["172.23.255.0/26"], "purpose": "anycast", "block_size": {"ipv4": 32}},
    {"ipv6": ["fd99:4242:1:1::/66"], "aggregates": ["fd99:4242:1::/48"], "block_size": {"ipv6": 80}},
]


@pytest.mark.parametrize("pool", FINE, ids=str)
def test_fits(pool: dict[str, Any]) -> None:
    assert findings(**pool) == ([], [])


WRONG = [
    ({"ipv4": ["192.168.0.0/24"]}, "pools[0].ipv4", "is outside of DN42 (172.20.0.0/14), where no other network accepts it"),
    ({"ipv4": ["172.16.0.0/12"]}, "pools[0].ipv4", "is outside of DN42 (172.20.0.0/14)"),
    ({"ipv6": ["2001:db8::/48"]}, "pools[0].ipv6", "is outside of DN42 (fd00::/8)"),
    ({"ipv6": ["fc00::/48"]}, "pools[0].ipv6", "is outside of DN42 (fd00::/8)"),
    ({"ipv4": ["10.127.8.0/24"]}, "pools[0].ipv4", "belongs to NeoNetwork (10.127.0.0/16)"),
    ({"ipv4": ["10.101.0.0/24"]}, "pools[0].ipv4", "belongs to ChaosVPN (10.100.0.0/14)"),
    ({"ipv4": ["10.5.0.0/24"]}, "pools[0].ipv4", "belongs to ICVPN and Freifunk (10.0.0.0/8)"),
    ({"ipv4": ["172.31.4.0/24"]}, "pools[0].ipv4", "belongs to ChaosVPN (172.31.0.0/16)"),
    ({"ipv6": ["fd10:127:5::/48"]}, "pools[0].ipv6", "belongs to NeoNetwork (fd10:127::/32)"),
    ({"ipv4": ["172.20.16.0/20"]}, "pools[0].ipv4", "is larger than a network can announce: /21 to /29 in 172.20.0.0/14"),
    (
        {"ipv4": ["172.23.255.4/30"]},
        "pools[0].ipv4",
        "is smaller than other networks accept: /21 to /29 in 172.20.0.0/14; if it is part of a registered prefix, name that in the pool's aggregates, such as 172.23.255.0/29",
    ),
    ({"ipv6": ["fd99:4200::/40"]}, "pools[0].ipv6", "is larger than a network can announce: /44 to /64 in fd00::/8"),
    ({"ipv6": ["fd99:4242:1::/80"], "block_size": {"ipv6": 96}}, "pools[0].ipv6", "is smaller than other networks accept: /44 to /64 in fd00::/8"),
    ({"ipv4": ["172.23.255.0/26"], "aggregates": ["172.23.0.0/16"]}, "pools[0].aggregates", "is larger than a network can announce: /21 to /29"),
    ({"ipv4": ["172.20.0.64/28"]}, "pools[0].ipv4", "overlaps 172.20.0.0/24, DN42's range for anycast, which all networks share"),
    ({"ipv4": ["172.22.0.0/21"]}, "pools[0].ipv4", "overlaps 172.22.0.0/24, DN42's range for anycast"),
    ({"ipv6": ["fd42:d42:d42:7::/64"]}, "pools[0].ipv6", "overlaps fd42:d42:d42::/48, DN42's range for anycast"),
    ({"ipv4": ["172.22.0.0/22"], "purpose": "anycast"}, "pools[0].ipv4", "is more than 172.22.0.0/24, DN42's range for anycast"),
    ({"ipv4": ["172.21.0.0/26"], "purpose": "anycast"}, "pools[0].ipv4", "is larger than a network can announce: /28 to /32 in 172.21.0.0/24"),
]


@pytest.mark.parametrize(("pool", "key", "why"), WRONG, ids=str)
def test_refused(pool: dict[str, Any], key: str, why: str) -> None:
    faults, warnings = findings(**pool)
    assert [(fault.key, fault.message[: len(why)]) for fault in faults] == [(key, why)]
    assert warnings == []


DOUBTFUL = [
    ({"ipv4": ["172.22.240.8/29"]}, "pools[0].ipv4", "172.22.240.0/20 is for transfer networks between operators"),
    ({"ipv4": ["172.21.5.0/26"]}, "pools[0].ipv4", "172.21.0.0/18 is reserved for the future"),
    ({"ipv4": ["172.23.17.0/26"]}, "pools[0].ipv4", "172.23.16.0/21 is closed to new networks"),
    ({"ipv6": ["fd99:4242:1::/48"], "block_size": {"ipv6": 80}}, "pools[0].block_size.ipv6", "DN42 plans a /64 per network, and the pool has room for 65536 of them"),
]


@pytest.mark.parametrize(("pool", "key", "why"), DOUBTFUL, ids=str)
def test_warned_of(pool: dict[str, Any], key: str, why: str) -> None:
    """Old registrations exist, so these are no faults."""
    faults, warnings = findings(**pool)
    assert faults == []
    assert [(warning.key, warning.message[: len(why)]) for warning in warnings] == [(key, why)]
