# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a store of the address plan is. Each kind of store has a module of its own.

This module util is PRIVATE to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import getpass
import os
import socket
from abc import ABC, abstractmethod
from typing import Callable, Dict, Iterable, List, NamedTuple, Tuple

from ansible_collections.dn42.compose.plugins.module_utils._address_plan.decide import check_blocks
from ansible_collections.dn42.compose.plugins.module_utils._address_plan.model import Block, Decision, Plan

Decide = Callable[[Plan], Decision]


class StoreError(Exception):
    """The store cannot be used now; the text says why and what to do."""


class LockTimeout(StoreError):
    """Somebody else kept the lock for too long."""


class Outcome(NamedTuple):
    """What a call decided, and the plan that it found."""

    decision: Decision
    before: Plan

    @property
    def changed(self) -> bool:
        """Whether the plan after the call is another one than before."""
        return self.before != self.decision.plan


class Event(NamedTuple):
    """Something that happened to a block in the past, as far as a store remembers it."""

    when: str  # ISO 8601 in UTC
    who: str
    kind: str  # given, released, changed
    prefix: str
    holder: str
    pool: str
    note: str  # such as the commit


class Store(ABC):
    """Keeps one plan. Any number of clients may use it at the same time."""

    shown: str  # what messages and diffs call it

    @abstractmethod
    def read(self) -> Plan:
        """The plan as it is, empty where there is none yet. Raises `Refused` or `StoreError`."""

    @abstractmethod
    def transact(self, decide: Decide, dry_run: bool) -> Outcome:
        """Let `decide` see the plan and keep what it decides, as one step: all of it or nothing, nobody in between.

        `decide` may be called more than once, with a newer plan each time, and may raise `Refused`.
        With `dry_run`, and when nothing changes, nothing is written.
        Raises `Refused` or `StoreError`.
        """

    @abstractmethod
    def history(self, limit: int) -> List[Event]:
        """The last `limit` events, the latest first; empty where the store remembers none."""


def decided(decide: Decide, before: Plan) -> Outcome:
    """What `decide` makes of a plan. A result that no store would read again ends here, whoever made it.

    Raises `Refused` as `decide` does, `StoreError` for such a result.
    """
    outcome = Outcome(decide(before), before)
    plan = outcome.decision.plan
    faults = check_blocks([*plan.blocks, *plan.released]) if outcome.changed else []
    if faults:
        told = "; ".join(str(fault) for fault in faults[:3])
        raise StoreError(f"The plan that was decided contradicts itself, so nothing was written; this is an error in dn42.compose, please report it: {told}")
    return outcome


def client_name() -> str:
    """Who runs this and where, for locks and histories. A container may run under a number that has no name."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = f"user {os.getuid()}"
    return f"{user} on {socket.gethostname()}"


class Difference(NamedTuple):
    """What happened to one block: the kind of an `Event`, the block after it (before it, when it is released), and a note."""

    kind: str
    block: Block
    note: str


def differences(before: Iterable[Block], after: Iterable[Block]) -> List[Difference]:
    """What happened between two plans, or two parts of plans that hold everything that differs, sorted by address."""
    old, new = set(before), set(after)
    mine: Dict[Tuple[str, str, int], Block] = {_owner(block): block for block in old if not block.released}
    owners = {_owner(block) for block in new if not block.released}
    found = []
    for block in new - old:
        if block.released:
            continue
        last = mine.get(_owner(block))
        found.append(Difference("changed", block, f"was {last.prefix}") if last else Difference("given", block, ""))
    found += [Difference("released", block, "") for block in old - new if not block.released and _owner(block) not in owners]
    return sorted(found, key=lambda item: (item.block.prefix, item.kind))


def _owner(block: Block) -> Tuple[str, str, int]:
    return (block.holder, block.pool, block.prefix.family)
