# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is fixed in every lab: names, addresses and places."""

from __future__ import annotations

import pathlib
import re
from dataclasses import dataclass

LAB_DIRECTORY = pathlib.Path(__file__).resolve().parent.parent
STATE = pathlib.Path("/var/lib/dn42-lab")
RUNTIME = pathlib.Path("/run/dn42-lab")
MOUNT_NAMESPACE = RUNTIME / "mnt"
NETNS_DIRECTORY = pathlib.Path("/run/netns")

INTERNET_IPV4 = "203.0.113"  # a /24, RFC 5737
INTERNET_IPV6 = "2001:db8:"  # a /64, RFC 3849
GATEWAY_NUMBER = 1

DEFAULT_NAME = "demo"
DEFAULT_HOSTS = ("fra1", "hkg1", "peer1")


class LabError(Exception):
    """Something the user has to know; printed without a traceback."""


@dataclass(frozen=True)
class Host:
    """One host of a lab: its image, the directories of files it gets, its number on the Internet."""

    name: str
    image: str
    trees: tuple[str, ...]
    number: int

    @property
    def ipv4(self) -> str:
        """Address on the lab's Internet, without prefix length."""
        return f"{INTERNET_IPV4}.{self.number}"

    @property
    def ipv6(self) -> str:
        """Address on the lab's Internet; the number is written with the same digits as in IPv4."""
        return f"{INTERNET_IPV6}:{self.number}"

    @property
    def mac(self) -> str:
        """Address of eth0: the same after every boot, as neighbours remember it for half a minute."""
        return f"02:00:5e:00:71:{self.number:02x}"


HOSTS = {
    host.name: host
    for host in (
        Host("fra1", "node-docker", ("host", "node"), 11),
        Host("hkg1", "node", ("host", "node"), 12),
        Host("nrt1", "node", ("host", "node"), 13),
        Host("syd1", "node", ("host", "node"), 14),
        Host("sin1", "node-next", ("host", "node"), 15),
        Host("peer1", "peer", ("host", "peer1"), 100),
    )
}


def check_name(name: str) -> str:
    """Return the lab's name, or raise LabError: it becomes part of interface names (15 characters)."""
    if not re.fullmatch(r"[a-z][a-z0-9]{0,9}", name):
        raise LabError(f"lab name {name!r}: use 1 to 10 lower-case letters and digits, beginning with a letter")
    return name


def find_host(name_or_address: str) -> Host:
    """Return the host with that name or Internet address, or raise LabError."""
    for host in HOSTS.values():
        if name_or_address in (host.name, host.ipv4, host.ipv6):
            return host
    raise LabError(f"no lab host is called {name_or_address!r}; there are {', '.join(sorted(HOSTS))}")
