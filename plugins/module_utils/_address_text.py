# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What people write, read strictly: prefixes, names, offsets, pools and holders of the address plan.

Values are looked at as YAML gave them, before anything converts them: an address without quotes may have
become a number, a mapping or null on its way, and the right answer to that is a hint, not a guess.
Every reader collects faults and goes on, so that a user sees all of them at once.

`netaddr` reads the addresses. Where it is missing, importing this file still works and `MISSING_NETADDR` says so.

This module util is PRIVATE to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import re
import sys
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Optional, Tuple

from ansible_collections.dn42.compose.plugins.module_utils._address_plan import (
    BITS,
    FAMILIES,
    FAMILY_NAMES,
    HOST,
    HOST_OFFSET,
    Fault,
    Pool,
    Prefix,
    Request,
)

try:
    import netaddr
except ImportError as error:
    MISSING_NETADDR: Optional[str] = str(error)
else:
    MISSING_NETADDR = None

LENGTH = re.compile(r"0|[1-9][0-9]{0,2}")
QUAD = re.compile(r"[0-9]+(\.[0-9]+){3}")
SERVICE = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
MAPPED = Prefix(6, 0xFFFF << 32, 96)  # ::ffff:0:0/96, IPv4 in the clothes of IPv6
EXAMPLES = {4: '"172.23.255.0/26"', 6: '"fd99:4242:1::/48"'}


class Unreadable(ValueError):
    """A value that is not what it should be; the text says what is right."""


class Wanted(NamedTuple):
    """A request as read. What is in `faults` is missing from the rest."""

    pools: List[Pool]
    requests: List[Request]
    offsets: Dict[str, int]
    faults: List[Fault]
    pools_complete: bool


def netaddr_missing_message() -> str:
    """What to do about a Python without netaddr, with the very Python that needs it."""
    return f"The Python library netaddr is missing in {sys.executable} ({MISSING_NETADDR}). Install it there: {sys.executable} -m pip install netaddr"


def _quote_hint(value: Any, example: str) -> str:
    """Why a value that is no text cannot be read, in the words of what YAML did to it."""
    if value is None:
        return f"is empty or null, put the text in quotes, such as {example}"
    if isinstance(value, bool):
        return f"YAML made a boolean of it (yes, no, on and off are booleans), put it in quotes, such as {example}"
    if isinstance(value, (int, float)):
        return f"YAML made a number of it, put it in quotes and write it in full, such as {example}"
    if isinstance(value, dict):
        return f"YAML made a mapping of it (it ends in a colon), put it in quotes, such as {example}"
    return f"is a list where one text belongs, such as {example}"


def read_prefix(value: Any, family: Optional[int] = None) -> Prefix:
    """A prefix in CIDR form, of the given family if any. Blanks around it are stripped; raises `Unreadable`."""
    example = EXAMPLES[family or 4]
    if not isinstance(value, str):
        raise Unreadable(_quote_hint(value, example))
    address, slash, length = value.strip(" \t").partition("/")
    if not address:
        raise Unreadable(f"is empty, write a prefix such as {example}")
    found = 6 if ":" in address else 4
    number = _read_six(address) if found == 6 else _read_four(address)
    if not slash:
        raise Unreadable(f"has no length, write address and length, such as {example}")
    prefix = Prefix(found, number, _read_length(length, found))
    host_bits = number & ((1 << (BITS[found] - prefix.length)) - 1)
    if host_bits:
        network = prefix._replace(network=number - host_bits)
        raise Unreadable(f"has bits set behind the length; the network is {network}")
    if found == 6 and prefix.overlaps(MAPPED) and prefix.length >= MAPPED.length:
        raise Unreadable("is an IPv4 address written as IPv6, write it under ipv4 as a dotted quad")
    if family is not None and family != found:
        raise Unreadable(f"is an {'IPv6' if found == 6 else 'IPv4'} prefix under {FAMILY_NAMES[family]}, move it to {FAMILY_NAMES[found]}")
    return prefix


def _read_four(address: str) -> int:
    """A dotted quad and nothing that looks like one."""
    if not address.isascii() or not QUAD.fullmatch(address):
        raise Unreadable("is no address, an IPv4 address is four decimal numbers with dots, such as 172.23.255.0")
    parts = address.split(".")
    if any(len(part) > 1 and part[0] == "0" for part in parts):
        plain = ".".join(part.lstrip("0") or "0" for part in parts)
        raise Unreadable(f"has a leading zero, which some programs read as octal, write {plain} if that is meant")
    if any(int(part) > 255 for part in parts):
        raise Unreadable("has a number above 255")
    return int(netaddr.IPAddress(address, version=4, flags=netaddr.INET_PTON))


def _read_six(address: str) -> int:
    """Any spelling of an IPv6 address without a zone."""
    if "%" in address:
        raise Unreadable("has a zone (%), a prefix has none")
    try:
        return int(netaddr.IPAddress(address, version=6, flags=netaddr.INET_PTON))
    except (netaddr.AddrFormatError, ValueError):
        raise Unreadable("is no IPv6 address") from None


def _read_length(length: str, family: int) -> int:
    if ("." in length and QUAD.fullmatch(length)) or ":" in length:
        raise Unreadable(f"has a mask behind the slash, write the length as a number, such as /{26 if family == 4 else 48}")
    if not LENGTH.fullmatch(length) or int(length) > BITS[family]:
        raise Unreadable(f"has no valid length, write a number from 0 to {BITS[family]} without leading zeros")
    return int(length)


def read_name(value: Any) -> str:
    """The name of a holder or pool, as it is; raises `Unreadable`."""
    if not isinstance(value, str):
        raise Unreadable(_quote_hint(value, '"fra1"'))
    if not value or not value.isprintable() or any(char.isspace() for char in value):
        raise Unreadable("a name is not empty and has no blanks or control characters")
    return str(value)


def read_request(pools: Any, holders: Any, offsets: Any, pins: Any = None) -> Wanted:
    """Read a whole request; what could not be read is in the faults and left out of the rest."""
    faults: List[Fault] = []
    read_pools = _read_pools(pools, faults)
    complete = not faults
    names = {pool.name: pool for pool in read_pools}
    requests = _read_holders(holders, _read_pins(pins, faults), read_pools, names, complete, faults)
    return Wanted(read_pools, requests, _read_offsets(offsets, faults), faults, complete)


def _mapping(value: Any, key: str, known: Iterable[str], faults: List[Fault]) -> Optional[Dict[str, Any]]:
    """A mapping with no other than the known keys; None when it is none."""
    if not isinstance(value, dict):
        faults.append(Fault(key, value, f"must be a mapping with the keys {', '.join(known)}"))
        return None
    for name in value:
        if name not in known:
            faults.append(Fault(f"{key}.{name}", value[name], f"unknown key, known are {', '.join(known)}"))
    return value


def _read_name(value: Any, key: str, faults: List[Fault]) -> Optional[str]:
    try:
        return read_name(value)
    except Unreadable as error:
        faults.append(Fault(key, value, str(error)))
        return None


def _read_prefix(value: Any, key: str, family: Optional[int], faults: List[Fault]) -> Optional[Prefix]:
    try:
        return read_prefix(value, family)
    except Unreadable as error:
        faults.append(Fault(key, value, str(error)))
        return None


def _read_prefixes(value: Any, key: str, family: Optional[int], faults: List[Fault]) -> List[Prefix]:
    """A list of prefixes; null is an empty one. A text in place of the list is refused, not split."""
    if value is None:
        return []
    if not isinstance(value, list):
        example = EXAMPLES[family or 4]
        hint = _quote_hint(value, example) if not isinstance(value, str) else f"must be a list, such as [{example}]"
        faults.append(Fault(key, value, hint))
        return []
    read = (_read_prefix(item, f"{key}[{index}]", family, faults) for index, item in enumerate(value))
    return [prefix for prefix in read if prefix is not None]


def _read_pools(value: Any, faults: List[Fault]) -> List[Pool]:
    if not isinstance(value, list) or not value:
        message = "must be a list of at least one pool, such as [{name: dn42, ipv4: [%s], block_size: {ipv4: 29}}]"
        faults.append(Fault("pools", value, message % EXAMPLES[4]))
        return []
    pools = []
    for index, item in enumerate(value):
        pool = _read_pool(item, f"pools[{index}]", faults)
        if pool is not None:
            pools.append(pool)
    _unique([(pool.name, f"{pool.key}.name") for pool in pools], "is the name of another pool", faults)
    _check_overlaps(pools, faults)
    return pools


def _read_pool(item: Any, key: str, faults: List[Fault]) -> Optional[Pool]:
    item = _mapping(item, key, ("name", "ipv4", "ipv6", "block_size", "reserved"), faults)
    if item is None:
        return None
    name = _read_name(item.get("name"), f"{key}.name", faults)
    prefixes = {}
    for family in FAMILIES:
        read = _read_prefixes(item.get(FAMILY_NAMES[family]), f"{key}.{FAMILY_NAMES[family]}", family, faults)
        if read:
            prefixes[family] = tuple(sorted(read))
    if not item.get("ipv4") and not item.get("ipv6"):
        faults.append(Fault(key, item, "has neither ipv4 nor ipv6 prefixes, give at least one"))
    lengths = _read_block_size(item.get("block_size"), f"{key}.block_size", prefixes, faults)
    reserved = _read_prefixes(item.get("reserved"), f"{key}.reserved", None, faults)
    for entry in reserved:
        inside = prefixes.get(entry.family, ())
        if inside and not any(prefix.covers(entry) for prefix in inside):
            message = "is not inside the pool, reserve only parts of its prefixes"
            faults.append(Fault(f"{key}.reserved", str(entry), message))
    if name is None:
        return None
    return Pool(name, prefixes, lengths, tuple(sorted(reserved)), key)


def _read_block_size(value: Any, key: str, prefixes: Mapping[int, Tuple[Prefix, ...]], faults: List[Fault]) -> Dict[int, int]:
    """The block size per family that the pool has, as prefix lengths."""
    sizes = _mapping({} if value is None else value, key, tuple(FAMILY_NAMES.values()), faults) or {}
    lengths = {}
    for family in sorted(prefixes):
        name = FAMILY_NAMES[family]
        size = sizes.get(name)
        shortest = min(prefix.length for prefix in prefixes[family])
        example = 29 if family == 4 else 64
        right = f"must be a prefix length from {shortest} to {BITS[family]}, such as {example}, without quotes or slash"
        if isinstance(size, bool) or not isinstance(size, int) or not shortest <= size <= BITS[family]:
            faults.append(Fault(f"{key}.{name}", size, right))
        else:
            lengths[family] = size
    return lengths


def _check_overlaps(pools: Iterable[Pool], faults: List[Fault]) -> None:
    """Prefixes that contain each other, in one pool or in two, whatever their spelling."""
    everything = sorted((prefix, pool.key, pool.name) for pool in pools for few in pool.prefixes.values() for prefix in few)
    outer: Optional[Tuple[Prefix, str, str]] = None
    for prefix, key, name in everything:
        if outer is not None and outer[0].covers(prefix):
            message = f"overlaps {outer[0]} of pool {outer[2]}, an address belongs to one pool only once"
            faults.append(Fault(f"{key}.{FAMILY_NAMES[prefix.family]}", str(prefix), message))
        else:
            outer = (prefix, key, name)


def _unique(names: Iterable[Tuple[str, str]], message: str, faults: List[Fault]) -> None:
    seen: Dict[str, str] = {}
    for name, key in names:
        if name in seen:
            faults.append(Fault(key, name, f"{message} ({seen[name]})"))
        seen.setdefault(name, key)


def _read_pins(value: Any, faults: List[Fault]) -> Dict[str, Any]:
    """The pins that are given by name, still as written."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        faults.append(Fault("pins", value, "must be a mapping of names to {ipv4: ..., ipv6: ...}"))
        return {}
    return value


def _read_holders(
    value: Any,
    pins: Mapping[str, Any],
    pools: List[Pool],
    names: Mapping[str, Pool],
    complete: bool,
    faults: List[Fault],
) -> List[Request]:
    if not isinstance(value, list):
        faults.append(Fault("holders", value, "must be a list of names or of mappings such as {name: fra1}"))
        return []
    requests = []
    all_names = []
    for index, item in enumerate(value):
        key = f"holders[{index}]"
        entry = {"name": item} if not isinstance(item, dict) else item
        entry = _mapping(entry, key, ("name", "pool", "pin"), faults) or {}
        name = _read_name(entry.get("name"), f"{key}.name" if isinstance(item, dict) else key, faults)
        if name is None:
            continue
        all_names.append((name, key))
        pool = _pool_of(entry.get("pool"), key, pools, names, complete, faults)
        pin, pin_key = _pin_of(name, entry, key, pins, faults)
        read = _read_pin(pin, pin_key, faults)
        if pool is not None:
            lengths = dict(pool.lengths)
            lengths.update({family: prefix.length for family, prefix in read.items()})
            requests.append(Request(name, pool.name, lengths, read, key, pin_key))
    _unique(all_names, "is asked for twice, a holder is named once", faults)
    for name in sorted(set(pins) - {name for name, key in all_names}, key=str):
        faults.append(Fault(f"pins.{name}", pins[name], "nobody of that name is among the holders"))
    return requests


def _pool_of(value: Any, key: str, pools: List[Pool], names: Mapping[str, Pool], complete: bool, faults: List[Fault]) -> Optional[Pool]:
    """The pool that a holder asks for; the first one when it does not say."""
    if value is None:
        return pools[0] if pools else None
    name = _read_name(value, f"{key}.pool", faults)
    if name is not None and name not in names and complete:
        faults.append(Fault(f"{key}.pool", value, f"no such pool, there are {', '.join(sorted(names))}"))
    return names.get(name) if name is not None else None


def _pin_of(name: str, entry: Mapping[str, Any], key: str, pins: Mapping[str, Any], faults: List[Fault]) -> Tuple[Any, str]:
    """A holder's pin as written and where it is written."""
    if name not in pins:
        return entry.get("pin"), f"{key}.pin"
    if entry.get("pin") is not None:
        faults.append(Fault(f"{key}.pin", entry["pin"], f"is pinned a second time in pins.{name}, keep one"))
    return pins[name], f"pins.{name}"


def _read_pin(value: Any, key: str, faults: List[Fault]) -> Dict[int, Prefix]:
    if value is None:
        return {}
    entry = _mapping(value, key, tuple(FAMILY_NAMES.values()), faults) or {}
    pins = {}
    for family in FAMILIES:
        name = FAMILY_NAMES[family]
        prefix = None if entry.get(name) is None else _read_prefix(entry[name], f"{key}.{name}", family, faults)
        if prefix is not None:
            pins[family] = prefix
    return pins


def _read_offsets(value: Any, faults: List[Fault]) -> Dict[str, int]:
    """The offset of every service in a block, the bridge's own among them, sorted by offset."""
    offsets = {HOST: HOST_OFFSET}
    if not isinstance(value, dict):
        if value is not None:
            faults.append(Fault("offsets", value, "must be a mapping of service names to numbers, such as {dns: 4}"))
        return offsets
    owners = {HOST_OFFSET: HOST}
    for name, offset in value.items():
        key = f"offsets.{name}"
        if not isinstance(name, str) or not SERVICE.fullmatch(name):
            faults.append(Fault(key, offset, "the name of a service starts with a letter and has letters, digits, _ and -"))
        elif name == HOST:
            message = f"host is always {HOST_OFFSET}, the bridge address that Docker takes on the node"
            faults.append(Fault(key, offset, message))
        elif isinstance(offset, bool) or not isinstance(offset, int) or offset < 1:
            faults.append(Fault(key, offset, "must be a number from 2 on, without quotes"))
        elif offset in owners:
            message = f"is the offset of {owners[offset]}, every service has its own"
            if offset == HOST_OFFSET:
                message = "is reserved for the bridge address that Docker takes on the node, start at 2"
            faults.append(Fault(key, offset, message))
        else:
            owners[offset] = name
            offsets[name] = offset
    return dict(sorted(offsets.items(), key=lambda item: item[1]))
