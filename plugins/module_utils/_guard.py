# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How the guard's loaded table is compared with its rules: nft itself writes both sides.

Runs on nodes: Python 3.9, standard library only.

This module util is PRIVATE to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

from typing import List


def listing(family: str = "inet", table: str = "dn42_guard") -> List[str]:
    """The command that lists the loaded table, without counters."""
    return ["nft", "-s", "list", "table", family, table]


def listing_of(rules: str, listed: List[str]) -> List[str]:
    """The command that loads a file of rules into a network namespace of its own and lists the table there."""
    return ["unshare", "--net", "sh", "-c", 'nft -f "$1" && shift && exec "$@"', "sh", rules, *listed]
