# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Read single values of an inventory strictly: ASN, key, endpoint, port, address, name.

Every reader takes the value as YAML gave it and returns the canonical form, or raises `BadValue`
with a sentence that says what would be right. No reader puts a secret into its message.

This module util is PRIVATE to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from typing import Any, Iterable, Optional, Tuple, Union

QUOTE_HINT = "put it in quotes: YAML read it as {kind}"

# IFNAMSIZ is 16 bytes with the terminating zero; `wg-` takes three of the fifteen.
PEER_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,11}")

LINK_LOCAL = ipaddress.IPv6Network("fe80::/64")
RESERVED_ASNS = frozenset((0, 23456, 65535, 4294967295))  # RFC 7607, 6793, 7300
ASN_TEXT = re.compile(r"(?:AS)?([0-9]{1,10})", re.IGNORECASE)
HOST_NAME = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,62})(?:\.[A-Za-z0-9_-]{1,63})*\.?")
ENDPOINT = re.compile(r"(?:\[(?P<six>[^\]]*)\]|(?P<host>[^:\[\]]*)):(?P<port>[0-9]{1,5})")


class BadValue(ValueError):
    """A value that cannot be used; the text says what would be right."""


def kind_of(value: Any) -> str:
    """What YAML made of a value, in words."""
    if value is None:
        return "null"
    for types, word in ((bool, "a boolean"), (int, "a number"), (float, "a number"), (dict, "a mapping"), (list, "a list")):
        if isinstance(value, types):
            return word
    return "a string" if isinstance(value, str) else type(value).__name__


def text(value: Any) -> str:
    """A non-empty string with surrounding blanks taken off."""
    if not isinstance(value, str):
        raise BadValue(QUOTE_HINT.format(kind=kind_of(value)))
    stripped = str(value).strip()
    if not stripped:
        raise BadValue("must not be empty")
    return stripped


def boolean(value: Any) -> bool:
    """A boolean, or one of the words people write for it."""
    words = {"yes": True, "true": True, "on": True, "1": True, "no": False, "false": False, "off": False, "0": False}
    key = str(value).strip().lower()
    if isinstance(value, (bool, int, str)) and key in words:
        return words[key]
    raise BadValue("must be true or false")


def asn(value: Any) -> int:
    """An autonomous system number, 1..4294967294 without the reserved ones, as an integer.

    Accepts 4242420001, "4242420001" and "AS4242420001". Fractions and asdot are refused: BIRD does not read them.
    """
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise BadValue(f"must be a whole number such as 4242420001; YAML read {kind_of(value)}")
    match = ASN_TEXT.fullmatch(str(value).strip())
    if not match:
        raise BadValue("must be a whole number such as 4242420001 or AS4242420001")
    number = int(match.group(1))
    if number in RESERVED_ASNS or number > 4294967295:
        raise BadValue("is not an ASN that a network can have (1 to 4294967294, reserved numbers excepted)")
    return number


def integer(value: Any, low: int, high: int) -> int:
    """A whole number in low..high; a string of digits is accepted, a float is not."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,10}", value.strip()):
        value = int(value.strip())
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadValue(f"must be a whole number from {low} to {high}; YAML read {kind_of(value)}")
    if not low <= value <= high:
        raise BadValue(f"must be from {low} to {high}")
    return int(value)


def number(value: Any, low: float, high: float, unit: str) -> float:
    """A number in low..high, whole or not; a string of digits is accepted."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,10}(\.[0-9]{1,6})?", value.strip()):
        value = float(value.strip())
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise BadValue(f"must be a number of {unit} from {low:g} to {high:g}; YAML read {kind_of(value)}")
    if not low <= value <= high:
        raise BadValue(f"must be from {low:g} to {high:g} {unit}")
    return float(value)


def one_of(value: Any, words: Iterable[str]) -> str:
    """One of these words."""
    known = list(words)
    if not isinstance(value, str) or value.strip() not in known:
        raise BadValue(f"must be one of {', '.join(known)}")
    return value.strip()


def port(value: Any) -> int:
    """A UDP port, 1..65535."""
    return integer(value, 1, 65535)


def peer_name(value: Any) -> str:
    """The name of a peer, at most 12 characters, so that its interface `wg-<name>` fits into the kernel's 15."""
    name = text(value)
    if not PEER_NAME.fullmatch(name):
        raise BadValue(
            "must be 1 to 12 characters of a-z, 0-9, '_' and '-', starting with a letter or digit: its interface is called wg-<name> and the kernel allows 15 characters"
        )
    return name


def wireguard_key(value: Any) -> str:
    """A WireGuard key: 32 bytes in base64, 44 characters."""
    key = text(value)
    try:
        raw = base64.b64decode(key, validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != 32 or len(key) != 44:
        raise BadValue("is not a WireGuard key (32 bytes in base64, 44 characters, ending in '=')")
    return key


def _host(value: str) -> str:
    try:
        return str(ipaddress.IPv4Address(value))
    except ValueError:
        pass
    if re.fullmatch(r"[0-9.]+", value):
        raise BadValue(f"'{value}' is not an IPv4 address (four numbers 0..255 without leading zeros)")
    if not HOST_NAME.fullmatch(value):
        raise BadValue(f"'{value}' is neither a host name nor an address")
    return value.lower().rstrip(".")


def endpoint(value: Any) -> Tuple[str, int]:
    """`host:port`, `192.0.2.1:port` or `[2001:db8::1]:port` as (host, port)."""
    if isinstance(value, int) and not isinstance(value, bool):
        raise BadValue(QUOTE_HINT.format(kind="a number") + ' (write "host:port")')
    written = text(value)
    match = ENDPOINT.fullmatch(written)
    if not match:
        raise BadValue('must be "host:port", or "[address]:port" for IPv6; leave it out for a peer that connects to us')
    number = port(int(match.group("port")))
    if match.group("six") is not None:
        return str(ip_address(match.group("six"), 6)), number
    return _host(match.group("host")), number


def ip_address(value: Any, version: Optional[int] = None) -> Union[ipaddress.IPv4Address, ipaddress.IPv6Address]:
    """One address without mask or zone; IPv4-mapped IPv6 is refused, since it equals neither family."""
    written = text(value)
    try:
        address = ipaddress.ip_address(written)
    except ValueError:
        raise BadValue("is not an IP address") from None
    if version and address.version != version:
        raise BadValue(f"must be an IPv{version} address")
    if address.version == 6 and address.ipv4_mapped:
        raise BadValue(f"is an IPv4-mapped address; write {address.ipv4_mapped}")
    return address


def link_local(value: Any, interface: str) -> str:
    """A tunnel's link-local address in fe80::/64, canonical; a zone is dropped if it is this interface, a mask if /64."""
    written = text(value)
    written, _slash, mask = written.partition("/")
    written, _percent, zone = written.partition("%")
    if zone and zone != interface:
        raise BadValue(f"names the interface '{zone}', but this tunnel is '{interface}': leave the zone out")
    if mask and mask != "64":
        raise BadValue("must be written without a mask")
    address = ip_address(written, 6)
    if address not in LINK_LOCAL or address == LINK_LOCAL.network_address:
        raise BadValue("must be a link-local address in fe80::/64, such as fe80::1")
    return str(address)


def tunnel_ipv4(value: Any, other: ipaddress.IPv4Address) -> ipaddress.IPv4Interface:
    """Our IPv4 address on a tunnel whose other end is `other`, with the length of the network that holds both.

    Without a length it is the smallest such network; one larger than a /24 is taken for a mistake. /32 means that the two have
    no network: each side has an address of its own, the usual way of DN42 (``ip address add OURS peer THEIRS``).
    """
    written = text(value)
    plain, slash, length = written.partition("/")
    address = ip_address(plain, 4)
    if address == other:
        raise BadValue("is the address of the other side; the two sides of a tunnel need different ones")
    if slash and not re.fullmatch(r"[0-9]{1,2}", length):
        raise BadValue("must be an address, with or without the length of the tunnel's network, such as 172.20.240.1/30")
    if slash and length == "32":
        return ipaddress.IPv4Interface(f"{address}/32")
    bits = int(length) if slash else 32 - (int(address) ^ int(other)).bit_length()
    if not 24 <= bits <= 31:
        raise BadValue(
            f"is in no small network with {other}: write {address}/32 if each side has an address of its own, else the length of the tunnel's network, /24 to /31"
            " (or leave both out and use the extended next hop)"
        )
    if not slash and bits < 31 and _ends_a_network(address, other, bits):
        bits -= 1
    interface = ipaddress.IPv4Interface(f"{address}/{bits}")
    if other not in interface.network:
        raise BadValue(f"is in a network without {other}, the other side")
    if bits < 31 and address in (interface.network.network_address, interface.network.broadcast_address):
        raise BadValue(f"is the first or last address of {interface.network}, which no host can have")
    return interface


def _ends_a_network(address: Any, other: Any, bits: int) -> bool:
    network = ipaddress.IPv4Interface(f"{address}/{bits}").network
    return bool({address, other} & {network.network_address, network.broadcast_address})
