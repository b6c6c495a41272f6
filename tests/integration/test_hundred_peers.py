# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One peer more among a hundred: the other ninety-nine sessions and tunnels do not notice. How long it takes is told by `make bench-runs`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import yaml
from inventory_copy import InventoryCopy
from network_probe import Lab, wait_for
from support import SESSION_WAIT

pytestmark = pytest.mark.full

NODE = "fra1"
PEER_KEY = "2mGqYGHEy26aWL17wcdrqn0rThB4yeZHHS/zmHUgPxQ="  # peer1's, which the others of his tunnels use as well
FOREIGN = 99  # beside peer1
# Tunnels and sessions of further networks on the machine of peer1, by number; they announce nothing.
ARRIVE = r"""
key=$1; last=$2
for number in $(seq 1 "$last"); do
    printf 'LISTEN_PORT=%s\nENDPOINT=203.0.113.11:%s\nADDRESS=fe80::9002/64\n' $((21000 + number)) $((23000 + number)) > /etc/wireguard/b$number.conf
    echo "$key" > /etc/wireguard/b$number.pub
    systemctl start wg-tunnel@b$number
    echo "protocol bgp b$number from peer {
        local fe80::9002 as $((4200430000 + number));
        neighbor fe80::1%'wg-b$number' as 4200420001;
        ipv4 { import all; export none; };
        ipv6 { import all; export none; };
    }"
done > /etc/bird/further.conf
cp /etc/bird/bird.conf /etc/bird/alone.conf
cat /etc/bird/further.conf >> /etc/bird/bird.conf
birdc configure
"""
LEAVE = r"""
mv /etc/bird/alone.conf /etc/bird/bird.conf
birdc configure
systemctl stop 'wg-tunnel@b*'
rm -f /etc/wireguard/b[0-9]* /etc/bird/further.conf
"""


class Tunnel(NamedTuple):
    """What would begin anew with a tunnel that is made anew."""

    index: int  # of its interface
    handshake: int  # seconds since 1970
    received: int  # bytes

    def goes_on_as(self, later: Tunnel) -> bool:
        """Whether the same tunnel may look like this later."""
        return self.index == later.index and 0 < self.handshake <= later.handshake and self.received <= later.received


def tunnels(lab: Lab) -> dict[str, Tunnel]:
    """The node's tunnels by interface."""
    index = lab.interfaces(NODE)

    def shown(what: str) -> dict[str, list[str]]:
        lines = lab.run(NODE, "docker", "exec", "dn42-router", "wg", "show", "all", what).stdout.splitlines()
        return {words[0]: words[2:] for words in map(str.split, lines)}

    received = shown("transfer")
    return {name: Tunnel(index[name], int(words[0]), int(received[name][0])) for name, words in shown("latest-handshakes").items()}


def further(count: int) -> list[dict[str, Any]]:
    """The entries of further peers."""
    return [
        {
            "name": f"b{number}",
            "asn": 4200430000 + number,
            "public_key": PEER_KEY,
            "endpoint": f"203.0.113.100:{21000 + number}",
            "listen_port": 23000 + number,
            "local_address": "fe80::1",
            "peer_address": "fe80::9002",
        }
        for number in range(1, count + 1)
    ]


@pytest.fixture
def inventory(lab: Lab) -> Iterator[InventoryCopy]:
    """The demo's inventory, and networks that want to peer with its first node."""
    copy = InventoryCopy("hundred-peers", lab.name)
    lab.run("peer1", "sh", "-euc", ARRIVE, "sh", lab.public_key(NODE), str(FOREIGN), timeout=300)
    yield copy
    lab.run("peer1", "sh", "-euc", LEAVE, timeout=300)
    copy.set(NODE, dn42_peers=real(copy))
    copy.run("--limit", NODE, "-e", "dn42_stack_allow_removal=true")
    copy.remove()


def real(inventory: InventoryCopy) -> list[dict[str, Any]]:
    """The demo's own peers of the node."""
    return [peer for peer in yaml.safe_load((inventory.folder / "host_vars" / f"{NODE}.yml").read_text())["dn42_peers"] if peer["name"] == "peer1"]


def test_one_peer_more_among_a_hundred(lab: Lab, inventory: InventoryCopy) -> None:
    """Sessions keep their age; tunnels keep their interface, their handshakes and their counters."""
    inventory.set(NODE, dn42_peers=[*real(inventory), *further(FOREIGN - 1)])
    inventory.run("--limit", NODE)
    # 99 peers, and the session with hkg1.
    wait_for("99 peers", lambda: len(lab.established(NODE)) == FOREIGN + 1, 2 * SESSION_WAIT)
    ages, before = lab.ages(NODE), tunnels(lab)
    assert len(before) == FOREIGN + 1 and all(tunnel.handshake for tunnel in before.values())

    inventory.set(NODE, dn42_peers=[*real(inventory), *further(FOREIGN)])
    inventory.run("--limit", NODE)

    wait_for("the new one", lambda: f"peer_b{FOREIGN}" in lab.established(NODE), SESSION_WAIT)
    after = lab.ages(NODE)
    assert len(after) == FOREIGN + 2
    assert {name: after[name] for name in ages} == ages
    present = tunnels(lab)
    assert [name for name, tunnel in before.items() if not tunnel.goes_on_as(present[name])] == []
