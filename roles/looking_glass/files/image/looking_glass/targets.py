# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What may be looked up: exactly one IP address or prefix."""

from __future__ import annotations

import ipaddress
import re

LONGEST = 49  # characters of the longest IPv6 prefix in text, with an IPv4 tail
_TARGET = re.compile(r"([0-9A-Fa-f.:]+)(?:/([0-9]{1,3}))?", re.ASCII)


class TargetError(ValueError):
    """The text is no address and no prefix; the message is for people."""


def parse_target(text: str) -> str:
    """Return an address or prefix in its canonical form, host bits cleared; raise TargetError.

    What is returned holds digits, letters a to f, dots, colons and at most one slash only.
    `ipaddress` alone would also take zones (`fe80::1%anything`) and netmasks.
    """
    stripped = text.strip()
    match = _TARGET.fullmatch(stripped) if len(stripped) <= LONGEST else None
    try:
        if match is None:
            raise ValueError
        if match[2] is None:
            return str(ipaddress.ip_address(match[1]))
        return str(ipaddress.ip_network(f"{match[1]}/{int(match[2])}", strict=False))
    except ValueError:
        raise TargetError("Please give one IPv4 or IPv6 address or prefix, such as 172.20.0.53 or fd42:d42:d42::/48.") from None
