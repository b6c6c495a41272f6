# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sets of ROAs: what sources send is read here, and what BIRD reads is written."""

from __future__ import annotations

import ipaddress
import json
import re
from typing import Any, FrozenSet, NamedTuple, Union

FAMILIES = ("ipv4", "ipv6")
NAMES = {"ipv4": "IPv4", "ipv6": "IPv6"}
# More than fifty times what DN42 has; BIRD reads this many in a second.
LARGEST_SET = 100_000
ASN_LIMIT = (1 << 32) - 1
SHOWN = 60  # characters of a wrong line

# 'roa' is what BIRD 1 wants and some sources still send.
LINE = re.compile(r"(?:route|roa)\s+(\S+)\s+max\s+(\d{1,3})\s+as\s+(\d{1,10})\s*;\s*(?:#.*)?", re.ASCII)


class SetError(ValueError):
    """What a source sent cannot be used; the message says why."""


class Roa(NamedTuple):
    """An AS that may announce a prefix and parts of it up to `max_length`. AS 0: nobody may."""

    prefix: Union[ipaddress.IPv4Network, ipaddress.IPv6Network]
    max_length: int
    asn: int


RoaSet = FrozenSet[Roa]


def parse(content: bytes) -> dict[str, RoaSet]:
    """Read a set in BIRD's or in JSON form, whole or not at all: {family: ROAs}. Raises SetError."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SetError(f"no text: {error}") from error
    if not text.strip():
        raise SetError("nothing was sent")
    roas = _read_json(text) if text.lstrip().startswith("{") else _read_lines(text)
    return {family: frozenset(roa for roa in roas if f"ipv{roa.prefix.version}" == family) for family in FAMILIES}


def render(roas: RoaSet, family: str) -> bytes:
    """The set as BIRD includes it; equal bytes for equal sets, whatever their source."""
    lines = [f"route {roa.prefix} max {roa.max_length} as {roa.asn};\n" for roa in sorted(roas)]
    return "".join([f"# {NAMES[family]}: {len(lines)} ROAs\n", *lines]).encode("ascii")


def _read_lines(text: str) -> list[Roa]:
    roas = []
    for number, line in enumerate(text.splitlines(), 1):
        bare = line.strip()
        if not bare or bare.startswith("#"):
            continue
        match = LINE.fullmatch(bare)
        if match is None:
            raise SetError(f"line {number} is no ROA: {bare[:SHOWN]!r}")
        roas.append(_roa(match[1], int(match[2]), int(match[3]), f"line {number}"))
    return _limited(roas)


def _read_json(text: str) -> list[Roa]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SetError(f"JSON that cannot be read: {error}") from error
    items = data.get("roas")
    if not isinstance(items, list):
        raise SetError("JSON without a list 'roas'")
    return _limited([_json_roa(item, f"roas[{index}]") for index, item in enumerate(items)])


def _json_roa(item: Any, where: str) -> Roa:
    if not isinstance(item, dict):
        raise SetError(f"{where} is no mapping")
    prefix, longest, asn = item.get("prefix"), item.get("maxLength"), item.get("asn")
    number = re.fullmatch(r"(?:AS)?(\d{1,10})", str(asn), re.ASCII | re.IGNORECASE)
    if not isinstance(prefix, str) or type(longest) is not int or number is None:
        raise SetError(f"{where} is no ROA: {json.dumps(item)[:SHOWN]}")
    return _roa(prefix, longest, int(number[1]), where)


def _roa(prefix: str, longest: int, asn: int, where: str) -> Roa:
    """One ROA, as strictly as BIRD reads it, who refuses a whole file for one wrong line."""
    if "/" not in prefix:
        raise SetError(f"{where}: {prefix[:SHOWN]!r} has no prefix length")
    try:
        network = ipaddress.ip_network(prefix)
    except ValueError as error:
        raise SetError(f"{where}: {error}") from error
    if not network.prefixlen <= longest <= network.max_prefixlen:
        raise SetError(f"{where}: max {longest} of {network} is not between {network.prefixlen} and {network.max_prefixlen}")
    if asn > ASN_LIMIT:
        raise SetError(f"{where}: {asn} is no AS number")
    return Roa(network, longest, asn)


def _limited(roas: list[Roa]) -> list[Roa]:
    if len(roas) > LARGEST_SET:
        raise SetError(f"{len(roas)} ROAs, more than {LARGEST_SET}")
    return roas
