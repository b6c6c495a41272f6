# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The engine of the address plan: who gets which block.

A pure function of the plan so far and of what is asked for. It knows nothing of Ansible, files or spelling.

This module util is PRIVATE to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import gc
from contextlib import contextmanager
from dataclasses import replace
from typing import Dict, Iterable, Iterator, List, Tuple, Union

from ansible_collections.dn42.compose.plugins.module_utils._address_plan import placement
from ansible_collections.dn42.compose.plugins.module_utils._address_plan.checks import Survey, Unpermitted, Vacated, by_prefix, check_blocks
from ansible_collections.dn42.compose.plugins.module_utils._address_plan.free_space import FreeSpace, Ranges
from ansible_collections.dn42.compose.plugins.module_utils._address_plan.messages import Full, too_small, words
from ansible_collections.dn42.compose.plugins.module_utils._address_plan.model import Ask, Block, Change, Decision, Fault, Plan, Prefix, Refused, Request
from ansible_collections.dn42.compose.plugins.module_utils._address_plan.offsets import addresses, check_offsets, largest_length, last_offset
from ansible_collections.dn42.compose.plugins.module_utils._address_plan.placement import Batch, Space

__all__ = ["FreeSpace", "addresses", "check_blocks", "check_offsets", "decide", "examine", "largest_length", "last_offset"]

PINNED = "pinned: it was in use before the plan knew of it"
RETURNED = "asked for again, and its released block is still free"
RELEASED = "released on request"


def decide(plan: Plan, ask: Ask) -> Decision:
    """Give every request its blocks, or raise `Refused` with every reason why not.

    The result is the same for every order of the plan and of what is asked for.
    """
    with collector_paused():
        return _decide(plan, ask)


@contextmanager
def collector_paused() -> Iterator[None]:
    """Nothing here refers to itself, and walking over a million blocks again and again takes half of the time."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            if not gc.get_freeze_count():  # what was made counts as old now: else the next allocation walks over all of it
                gc.freeze()
                gc.unfreeze()
            gc.enable()


def _decide(plan: Plan, ask: Ask) -> Decision:
    survey = Survey(plan, ask)
    faults = _faults(plan, ask, survey)
    if faults:
        raise Refused(faults)
    allotment = _Allotment(survey)
    if allotment.faults:
        raise Refused(allotment.faults)
    return allotment.decision()


def examine(plan: Plan, ask: Ask) -> List[Fault]:
    """Everything that is wrong before a single new block is placed."""
    return _faults(plan, ask, Survey(plan, ask))


def _faults(plan: Plan, ask: Ask, survey: Survey) -> List[Fault]:
    faults = survey.faults + check_offsets(ask)
    if survey.unpermitted:
        faults += _unpermitted(survey, _trial(plan, ask, survey) if not faults else None)
    return faults


def _trial(plan: Plan, ask: Ask, survey: Survey) -> Union[Decision, Refused]:
    """What would come of it if renumbering were allowed."""
    holders = {item.block.holder for item in survey.unpermitted}
    try:
        return _decide(plan, replace(ask, renumber=ask.renumber | holders))
    except Refused as refusal:
        return refusal


def _unpermitted(survey: Survey, trial: Union[Decision, Refused, None]) -> List[Fault]:
    """One fault per wish, since the size of a pool is one wish for many blocks."""
    changes = trial.changes if isinstance(trial, Decision) else ()
    targets = {change.before: f" to {change.after}" for change in changes if change.kind == "renumbered"}
    wishes: Dict[Tuple[str, str], List[Unpermitted]] = {}
    for item in survey.unpermitted:
        wishes.setdefault((item.key, str(item.value)), []).append(item)
    faults = []
    for (key, _value), items in sorted(wishes.items()):
        moves = words(f"{item.block.holder} from {item.block.prefix}{targets.get(item.block.prefix, '')} ({item.why})" for item in items)
        names = words(sorted({item.block.holder for item in items}))
        instead = sorted({f", or {item.instead}" for item in items if item.instead})
        message = (
            f"would renumber {moves}. All addresses in a renumbered block change, and its Docker network is made anew."
            f" Name {names} in renumber to allow it{''.join(instead)}{'. There is no room for that yet, see the other faults' if isinstance(trial, Refused) else ''}"
        )
        faults.append(Fault(key, items[0].value, message))
    return faults + (trial.faults if isinstance(trial, Refused) else [])


class _Allotment:
    """The places of those that need a new one, and the decision that follows from them."""

    def __init__(self, survey: Survey) -> None:
        self.survey = survey
        self.ask = survey.ask
        self.faults: List[Fault] = []
        self.placed: List[Batch] = []
        self.returned: List[Block] = []
        self.number = max((block.released for block in survey.released), default=0) + 1
        given_up = [*survey.freed, *(item.block for items in survey.vacated.values() for item in items)]
        cut = [Block(rest, item.before.holder, item.before.pool) for item in survey.resized for rest in Ranges([item.after.prefix]).rest_of(item.before.prefix)]
        self.released = sorted([*survey.released, *(block._replace(released=self.number) for block in given_up + cut)], key=by_prefix)
        self._index = Ranges(block.prefix for block in self.released)
        present: Dict[Tuple[str, int], List[Block]] = {}
        for block in survey.stays:
            present.setdefault((block.pool, block.prefix.family), []).append(block)
        for (pool, family), wanted in survey.wanted().items():
            if wanted:
                self._fill(pool, family, present.get((pool, family), []), wanted)

    def _fill(self, name: str, family: int, present: List[Block], wanted: List[Request]) -> None:
        """Give everybody who needs one a place in one family of a pool."""
        pool = self.survey.pools[name]
        held = [block for block in present if self.survey.is_held(block)]
        owned = [block.prefix for block in present]
        returned = self._returning(family, wanted, owned)
        back = {block.holder for block in returned}
        within = [block for prefix in pool.prefixes[family] for block in self._released_in(prefix)]
        space = Space(pool, family, owned + [block.prefix for block in returned], self.survey.closed, within, [block.prefix for block in held] if self.ask.reuse_held else [])
        again = {block.prefix for block in returned}
        apart = space._replace(released=[block for block in within if block.prefix not in again])
        placed, left = placement.place(apart, [request for request in wanted if request.name not in back])
        if left:
            returned = []
            placed, left = placement.pack(space._replace(owned=owned), wanted)
        if left:
            in_use = [item for item in self.survey.in_use if any(prefix.overlaps(item.prefix) for prefix in pool.prefixes[family])]
            self.faults.append(too_small(Full(pool, family, [*present, *(block for batch in placed for block in batch.blocks)], held, in_use, left), self.ask))
        self.placed += placed
        self.returned += returned

    def _released_in(self, prefix: Prefix) -> List[Block]:
        start, end = self._index.span(prefix)
        return self.released[start:end]

    def _returning(self, family: int, wanted: Iterable[Request], owned: List[Prefix]) -> List[Block]:
        """Released blocks of those who ask again, where nothing has touched them since."""
        latest: Dict[Tuple[str, str, int], Block] = {}
        for block in self.survey.released:
            if block.prefix.family == family:
                key = (block.holder, block.pool, block.prefix.length)
                if key not in latest or latest[key].released < block.released:
                    latest[key] = block
        if not latest:
            return []
        returned = []
        taken = Ranges(owned)
        for request in wanted:
            block = latest.get((request.name, request.pool, request.lengths[family]))
            if block is not None and self._is_whole(block, taken):
                returned.append(Block(block.prefix, block.holder, block.pool))
        return returned

    def _is_whole(self, block: Block, taken: Ranges) -> bool:
        pool = self.survey.pools[block.pool]
        inside = any(prefix.covers(block.prefix) for prefix in pool.prefixes[block.prefix.family])
        return inside and not taken.overlapping(block.prefix) and not self.survey.closed.overlapping(block.prefix)

    def decision(self) -> Decision:
        """The whole plan after the call, and what changed."""
        survey = self.survey
        displaced = self._displaced()
        gone = {block.prefix for block in displaced}
        stays = [block for block in survey.stays if block.prefix not in gone] if gone else survey.stays
        held = sorted((block for block in stays if survey.is_held(block)), key=by_prefix)
        blocks = tuple(sorted([*stays, *self.returned, *self._new()], key=by_prefix))
        return Decision(
            plan=Plan(blocks, self._released_after(displaced)),
            changes=self._changes(displaced),
            held=tuple(held),
            asked=tuple(request.name for request in self.ask.requests),
        )

    def _new(self) -> List[Block]:
        return [block for batch in self.placed for block in batch.blocks]

    def _displaced(self) -> List[Block]:
        """Held blocks whose space went to somebody else."""
        if not self.ask.reuse_held:
            return []
        taken = Ranges(block.prefix for block in self._new())
        return [block for block in self.survey.stays if self.survey.is_held(block) and taken.overlapping(block.prefix)]

    def _released_after(self, displaced: List[Block]) -> Tuple[Block, ...]:
        """What nobody owns any more, without what somebody has got of it."""
        before = [*self.released, *(block._replace(released=self.number) for block in displaced)]
        if not before:
            return ()
        new = [*self._new(), *self.returned, *self.survey.adopted, *(item.after for item in self.survey.resized)]
        taken = Ranges(block.prefix for block in new)
        after = []
        for block in before:
            if taken.overlapping(block.prefix):
                after += [Block(rest, block.holder, block.pool, block.released) for rest in taken.rest_of(block.prefix)]
            else:
                after.append(block)
        return tuple(sorted(after, key=by_prefix))

    def _changes(self, displaced: List[Block]) -> Tuple[Change, ...]:
        """What changed, by address."""
        vacated = {key: list(items) for key, items in self.survey.vacated.items()}
        changes: List[Change] = []
        for reason, blocks in self.placed:
            if vacated or reason is placement.REUSED:
                changes += [_gained(block, "added", self._explained(block, reason), vacated) for block in blocks]
            else:
                changes += [Change("added", block.holder, block.pool, None, block.prefix, reason) for block in blocks]
        changes += [_gained(block, "returned", RETURNED, vacated) for block in self.returned]
        changes += [_gained(block, "adopted", PINNED, vacated) for block in self.survey.adopted]
        changes += [_resized(item.before, item.after) for item in self.survey.resized]
        changes += [Change("released", block.holder, block.pool, block.prefix, None, RELEASED) for block in self.survey.freed]
        for items in vacated.values():
            changes += [Change("released", item.block.holder, item.block.pool, item.block.prefix, None, item.why) for item in items]
        takers = Ranges(block.prefix for block in self._new()) if displaced else Ranges(())
        for block in displaced:
            by = words(str(prefix) for prefix in takers.overlapping(block.prefix))
            changes.append(Change("released", block.holder, block.pool, block.prefix, None, f"it was held, and {by} needs its space (reuse_held)"))
        return tuple(sorted(changes, key=lambda change: change.after or change.before))

    def _explained(self, block: Block, reason: str) -> str:
        if reason is not placement.REUSED:
            return reason
        return f"{reason} of {words(sorted({former.holder for former in self._released_in(block.prefix)}))}"


def _gained(block: Block, kind: str, reason: str, vacated: Dict[Tuple[str, int], List[Vacated]]) -> Change:
    """A holder's new block. It is a renumbering when the holder has left another one for it."""
    left = vacated.get((block.holder, block.prefix.family)) if vacated else None
    if not left:
        return Change(kind, block.holder, block.pool, None, block.prefix, reason)
    old = left.pop(0)
    return Change("renumbered", block.holder, block.pool, old.block.prefix, block.prefix, old.why)


def _resized(before: Block, after: Block) -> Change:
    if after.prefix.length < before.prefix.length:
        return Change("grown", after.holder, after.pool, before.prefix, after.prefix, "a larger block was asked for, and the space above is free; all addresses stay")
    return Change("shrunk", after.holder, after.pool, before.prefix, after.prefix, "a smaller block was asked for; the addresses of services stay, the rest is released")
