# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Single values that people write, read strictly: prefixes and names of the address plan.

Values are looked at as YAML gave them, before anything converts them: an address without quotes may have
become a number, a mapping or null on its way, and the right answer to that is a hint, not a guess.

`netaddr` reads the addresses. Where it is missing, importing this file still works and `MISSING_NETADDR` says so.

This module util is PRIVATE to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import re
import sys
from typing import Any, Optional

from ansible_collections.dn42.compose.plugins.module_utils._address_plan.model import BITS, FAMILY_NAMES, Prefix

try:
    import netaddr
except ImportError as error:
    MISSING_NETADDR: Optional[str] = str(error)
else:
    MISSING_NETADDR = None

LENGTH = re.compile(r"0|[1-9][0-9]{0,2}")
QUAD = re.compile(r"[0-9]+(\.[0-9]+){3}")
MAPPED = Prefix(6, 0xFFFF << 32, 96)  # ::ffff:0:0/96, IPv4 in the clothes of IPv6
EXAMPLES = {4: '"172.23.255.0/26"', 6: '"fd99:4242:1::/48"'}


class Unreadable(ValueError):
    """A value that is not what it should be; the text says what is right."""


def netaddr_missing_message() -> str:
    """What to do about a Python without netaddr, with the very Python that needs it."""
    return f"The Python library netaddr is missing in {sys.executable} ({MISSING_NETADDR}). Install it there: {sys.executable} -m pip install netaddr"


def quote_hint(value: Any, example: str) -> str:
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
        raise Unreadable(quote_hint(value, example))
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
        raise Unreadable(quote_hint(value, '"fra1"'))
    if not value or not value.isprintable() or any(char.isspace() for char in value):
        raise Unreadable("a name is not empty and has no blanks or control characters")
    return str(value)
