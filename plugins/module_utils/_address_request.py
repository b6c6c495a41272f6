# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A whole request to the address plan, read strictly: pools, holders, sizes, pins, releases.

Every reader collects faults and goes on, so that a user sees all of them at once. What could not be read is
missing from the rest.

This module util is PRIVATE to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import replace
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from ansible_collections.dn42.compose.plugins.module_utils._address_plan.model import (
    BITS,
    COMPACT,
    FAMILIES,
    FAMILY_NAMES,
    HOST,
    HOST_OFFSET,
    NODE,
    PLACEMENTS,
    Ask,
    Fault,
    InUse,
    Plan,
    Pool,
    Prefix,
    Release,
    Request,
)
from ansible_collections.dn42.compose.plugins.module_utils._address_text import EXAMPLES, Unreadable, quote_hint, read_name, read_prefix

SERVICE = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
PURPOSE = re.compile(r"[a-z][a-z0-9_-]*")
FAMILY_KEYS = tuple(FAMILY_NAMES.values())
POOL_KEYS = ("name", "ipv4", "ipv6", "block_size", "reserved", "purpose", "placement", "aggregates")
HOLDER_KEYS = ("name", "pool", "size", "pin")
IN_USE_KEYS = ("host", "prefix", "what")


class Wanted(NamedTuple):
    """A request as read. `adopted` are the networks that holders have already, to be theirs while they have no block."""

    ask: Ask
    adopted: Mapping[str, Tuple[Prefix, ...]]
    faults: List[Fault]
    pools_complete: bool


def read_request(values: Mapping[str, Any]) -> Wanted:
    """Read the options of the module `address_blocks`, as they were written; options that are missing or null are empty."""
    faults: List[Fault] = []
    pools = read_pools(values.get("pools"), faults)
    complete = not faults
    own = {name: _by_name(values.get(f"{name}s"), f"{name}s", faults) for name in ("pin", "size")}
    requests = _Holders(pools, complete, own, faults).read(values.get("holders"))
    asked = sorted(request.name for request in requests)
    ask = Ask(
        pools=tuple(pools),
        requests=tuple(requests),
        offsets=_read_offsets(values.get("offsets"), faults),
        releases=_read_releases(values.get("release"), faults),
        renumber=frozenset(_read_renumber(values.get("renumber"), asked, complete, faults)),
        reuse_held=bool(values.get("reuse_held")),
        in_use=_read_in_use(values.get("in_use"), pools, faults),
    )
    return Wanted(ask, _read_adopted(values.get("adopt"), asked, complete, faults), faults, complete)


def adopt(wanted: Wanted, plan: Plan) -> Tuple[Ask, List[Fault]]:
    """What is asked for with this plan: those without a block take the network that they have already."""
    owned = {(block.holder, block.pool, block.prefix.family) for block in plan.blocks}
    pools = {pool.name: pool for pool in wanted.ask.pools}
    faults: List[Fault] = []
    requests = []
    for request in wanted.ask.requests:
        pins = dict(request.pins)
        for family, inside in sorted(pools[request.pool].prefixes.items()):
            found = [prefix for prefix in wanted.adopted.get(request.name, ()) if any(outer.covers(prefix) for outer in inside)]
            if found and family not in pins and (request.name, request.pool, family) not in owned:
                faults += _check_adopted(request, family, found)
                pins[family] = found[0]
        requests.append(replace(request, pins=pins, pin_key=f"adopt.{request.name}" if pins != request.pins and not request.pins else request.pin_key))
    return replace(wanted.ask, requests=tuple(requests)), faults


def _check_adopted(request: Request, family: int, found: Sequence[Prefix]) -> List[Fault]:
    """A network is adopted as it is: one per family, and of the size that the holder goes on to have."""
    key, name, text = f"adopt.{request.name}", FAMILY_NAMES[family], [str(prefix) for prefix in found]
    if len(found) > 1:
        return [Fault(key, text, f"are {len(found)} networks of {request.name} in pool {request.pool}; pin the one that it keeps")]
    if found[0].length != request.lengths[family]:
        message = (
            f"is a /{found[0].length}, and {request.name} is to have a /{request.lengths[family]}; say what it keeps with"
            f" the size {{{name}: {found[0].length}}} (in an inventory dn42_address_plan_size)"
        )
        return [Fault(key, text[0], message)]
    return []


def unknown(name: str, known: Iterable[str], what: str = "known are") -> str:
    """`do you mean ...?` where something is close, and what there is."""
    known = list(known)
    close = difflib.get_close_matches(str(name), known, n=1)
    hint = f"do you mean {close[0]}? " if close else ""
    return f"{hint}{what} {', '.join(known) if known else 'none'}"


def _mapping(value: Any, key: str, known: Iterable[str], faults: List[Fault]) -> Optional[Dict[str, Any]]:
    """A mapping with no other than the known keys; None when it is none."""
    if not isinstance(value, dict):
        faults.append(Fault(key, value, f"must be a mapping with the keys {', '.join(known)}"))
        return None
    for name in value:
        if name not in known:
            faults.append(Fault(f"{key}.{name}", value[name], f"unknown key, {unknown(name, known)}"))
    return value


def _by_name(value: Any, key: str, faults: List[Fault]) -> Dict[str, Any]:
    """A mapping of holders' names to whatever, still as written."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        examples = {"pins": '{fra1: {ipv4: "172.23.255.16/29"}}', "sizes": "{fra1: {ipv4: 28}}"}
        faults.append(Fault(key, value, f"must be a mapping of names, such as {examples.get(key, '{fra1: [' + EXAMPLES[4] + ']}')}"))
        return {}
    read = {}
    for name, item in value.items():
        if _name(name, key, faults) is not None:
            read[str(name)] = item
    return read


def _name(value: Any, key: str, faults: List[Fault]) -> Optional[str]:
    try:
        return read_name(value)
    except Unreadable as error:
        faults.append(Fault(key, value, str(error)))
        return None


def _prefix(value: Any, key: str, family: Optional[int], faults: List[Fault]) -> Optional[Prefix]:
    try:
        return read_prefix(value, family)
    except Unreadable as error:
        faults.append(Fault(key, value, str(error)))
        return None


def _list(value: Any, key: str, example: str, faults: List[Fault]) -> List[Any]:
    """A list; null is an empty one. A text in place of the list is refused, not split."""
    if value is None:
        return []
    if isinstance(value, list):
        return value
    hint = quote_hint(value, example) if not isinstance(value, str) else f"must be a list, such as [{example}]"
    faults.append(Fault(key, value, hint))
    return []


def _read_prefixes(value: Any, key: str, family: Optional[int], faults: List[Fault]) -> List[Prefix]:
    items = _list(value, key, EXAMPLES[family or 4], faults)
    read = (_prefix(item, f"{key}[{index}]", family, faults) for index, item in enumerate(items))
    return [prefix for prefix in read if prefix is not None]


# --- pools --------------------------------------------------------------------------------------------------------------


def read_pools(value: Any, faults: List[Fault], key: str = "pools") -> List[Pool]:
    """Read the pools; `key` is what the option is called where they are written."""
    if not isinstance(value, list) or not value:
        message = "must be a list of at least one pool, such as [{name: dn42, ipv4: [%s], block_size: {ipv4: 29}}]"
        faults.append(Fault(key, value, message % EXAMPLES[4]))
        return []
    read = (_read_pool(item, f"{key}[{index}]", faults) for index, item in enumerate(value))
    pools = [pool for pool in read if pool is not None]
    _unique([(pool.name, f"{pool.key}.name") for pool in pools], "is the name of another pool", faults)
    _check_overlaps(pools, faults)
    return pools


def _read_pool(item: Any, key: str, faults: List[Fault]) -> Optional[Pool]:
    item = _mapping(item, key, POOL_KEYS, faults)
    if item is None:
        return None
    name = _name(item.get("name"), f"{key}.name", faults)
    prefixes = {}
    for family in FAMILIES:
        read = _read_prefixes(item.get(FAMILY_NAMES[family]), f"{key}.{FAMILY_NAMES[family]}", family, faults)
        if read:
            prefixes[family] = tuple(sorted(read))
    if not item.get("ipv4") and not item.get("ipv6"):
        faults.append(Fault(key, item, "has neither ipv4 nor ipv6 prefixes, give at least one"))
    pool = Pool(
        name=name or "",
        prefixes=prefixes,
        lengths=_read_block_size(item.get("block_size"), f"{key}.block_size", prefixes, faults),
        reserved=_read_reserved(item.get("reserved"), f"{key}.reserved", prefixes, faults),
        purpose=_read_purpose(item.get("purpose"), f"{key}.purpose", faults),
        placement=_read_placement(item.get("placement"), f"{key}.placement", faults),
        aggregates=_read_aggregates(item.get("aggregates"), key, prefixes, faults),
        key=key,
    )
    return None if name is None else pool


def _read_block_size(value: Any, key: str, prefixes: Mapping[int, Tuple[Prefix, ...]], faults: List[Fault]) -> Dict[int, int]:
    """The block size per family that the pool has, as prefix lengths."""
    sizes = _mapping({} if value is None else value, key, FAMILY_KEYS, faults) or {}
    read = {family: _read_length(sizes.get(FAMILY_NAMES[family]), f"{key}.{FAMILY_NAMES[family]}", family, prefixes[family], faults) for family in sorted(prefixes)}
    return {family: length for family, length in read.items() if length is not None}


def _read_length(value: Any, key: str, family: int, prefixes: Sequence[Prefix], faults: List[Fault]) -> Optional[int]:
    """The length of a block that one of these prefixes can hold."""
    shortest = min(prefix.length for prefix in prefixes)
    if isinstance(value, bool) or not isinstance(value, int) or not shortest <= value <= BITS[family]:
        example = max(29 if family == 4 else 64, shortest)
        faults.append(Fault(key, value, f"must be a prefix length from {shortest} to {BITS[family]}, such as {example}, without quotes or slash"))
        return None
    return value


def _read_reserved(value: Any, key: str, prefixes: Mapping[int, Tuple[Prefix, ...]], faults: List[Fault]) -> Tuple[Prefix, ...]:
    reserved = _read_prefixes(value, key, None, faults)
    for entry in reserved:
        inside = prefixes.get(entry.family, ())
        if prefixes and not any(prefix.covers(entry) for prefix in inside):
            faults.append(Fault(key, str(entry), "is not inside the pool, reserve only parts of its prefixes"))
    return tuple(sorted(reserved))


def _read_purpose(value: Any, key: str, faults: List[Fault]) -> str:
    if value is None:
        return NODE
    if not isinstance(value, str) or not PURPOSE.fullmatch(value):
        faults.append(Fault(key, value, "must be node, anycast, loopback or a word of your own in small letters"))
        return NODE
    return str(value)


def _read_placement(value: Any, key: str, faults: List[Fault]) -> str:
    if value is None or (isinstance(value, str) and value in PLACEMENTS):
        return str(value or COMPACT)
    faults.append(Fault(key, value, unknown(value, PLACEMENTS, "must be one of")))
    return COMPACT


def _read_aggregates(value: Any, key: str, prefixes: Mapping[int, Tuple[Prefix, ...]], faults: List[Fault]) -> Tuple[Prefix, ...]:
    """The registered prefixes that a pool is part of. A family for which none is named stands for itself."""
    aggregates = _read_prefixes(value, f"{key}.aggregates", None, faults)
    for entry in aggregates:
        if prefixes and not any(entry.covers(prefix) for prefix in prefixes.get(entry.family, ())):
            faults.append(Fault(f"{key}.aggregates", str(entry), "holds no prefix of the pool, name the registered prefixes that the pool is part of"))
    named = {entry.family for entry in aggregates}
    for prefix in (prefix for family in sorted(named) for prefix in prefixes.get(family, ())):
        if not any(entry.covers(prefix) for entry in aggregates):
            faults.append(Fault(f"{key}.{FAMILY_NAMES[prefix.family]}", str(prefix), "is in none of the pool's aggregates, add the registered prefix that it is part of"))
    return tuple(sorted(aggregates))


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


def announced(pool: Pool) -> Dict[int, Tuple[Prefix, ...]]:
    """What other networks are told about a pool, by family."""
    return {family: tuple(entry for entry in pool.aggregates if entry.family == family) or prefixes for family, prefixes in pool.prefixes.items()}


# --- holders ------------------------------------------------------------------------------------------------------------


class _Holders:
    """Reads the holders, with what is said about them by name elsewhere."""

    def __init__(self, pools: Sequence[Pool], complete: bool, by_name: Mapping[str, Mapping[str, Any]], faults: List[Fault]) -> None:
        self.pools = {pool.name: pool for pool in pools}
        self.default = next((pool for pool in pools if pool.purpose == NODE), pools[0] if pools else None)
        self.complete = complete
        self.by_name = by_name
        self.faults = faults

    def read(self, value: Any) -> List[Request]:
        """All requests; of two with the same name the first."""
        if not isinstance(value, list):
            self.faults.append(Fault("holders", value, "must be a list of names or of mappings such as {name: fra1}"))
            return []
        requests: Dict[str, Request] = {}
        names = []
        for index, item in enumerate(value):
            key = f"holders[{index}]"
            entry = item if isinstance(item, dict) else {"name": item}
            entry = _mapping(entry, key, HOLDER_KEYS, self.faults) or {}
            name = _name(entry.get("name"), f"{key}.name" if isinstance(item, dict) else key, self.faults)
            if name is None:
                continue
            names.append((name, key))
            request = self._request(name, entry, key)
            if request is not None:
                requests.setdefault(name, request)
        _unique(names, "is asked for twice, a holder is named once", self.faults)
        self._nobody(sorted({name for name, key in names}))
        return list(requests.values())

    def _nobody(self, names: Sequence[str]) -> None:
        for option, values in sorted(self.by_name.items()):
            for name in sorted(set(values) - set(names)):
                hint = _close(name, names)
                self.faults.append(Fault(f"{option}s.{name}", values[name], f"nobody of that name is among the holders{hint}"))

    def _request(self, name: str, entry: Mapping[str, Any], key: str) -> Optional[Request]:
        pool = self._pool(entry.get("pool"), key)
        size, size_key = self._own(name, entry, key, "size")
        pin, pin_key = self._own(name, entry, key, "pin")
        pins = self._pin(pin, pin_key)
        if pool is None:
            return None
        sizes = self._size(size, size_key, pool)
        for family in sorted(set(pins) & set(sizes)):
            if pins[family].length != sizes[family]:
                message = f"and {pin_key} says {pins[family]}; a pin is adopted with the size that it has, so leave one of them out"
                self.faults.append(Fault(f"{size_key}.{FAMILY_NAMES[family]}", sizes[family], message))
        lengths = {**pool.lengths, **sizes, **{family: prefix.length for family, prefix in pins.items()}}
        return Request(name, pool.name, lengths, pins, key, pin_key, size_key if sizes else "")

    def _pool(self, value: Any, key: str) -> Optional[Pool]:
        """The pool that a holder asks for; the first one for nodes when it does not say."""
        if value is None:
            return self.default
        name = _name(value, f"{key}.pool", self.faults)
        if name is not None and name not in self.pools and self.complete:
            self.faults.append(Fault(f"{key}.pool", value, f"no such pool, {unknown(name, sorted(self.pools), 'there are')}"))
        return self.pools.get(name) if name is not None else None

    def _own(self, name: str, entry: Mapping[str, Any], key: str, option: str) -> Tuple[Any, str]:
        """A holder's pin or size as written, and where it is written."""
        elsewhere = self.by_name[option]
        if name not in elsewhere:
            return entry.get(option), f"{key}.{option}"
        if entry.get(option) is not None:
            self.faults.append(Fault(f"{key}.{option}", entry[option], f"is said a second time in {option}s.{name}, keep one"))
        return elsewhere[name], f"{option}s.{name}"

    def _pin(self, value: Any, key: str) -> Dict[int, Prefix]:
        entry = {} if value is None else _mapping(value, key, FAMILY_KEYS, self.faults) or {}
        read = {family: _prefix(entry[name], f"{key}.{name}", family, self.faults) for family, name in FAMILY_NAMES.items() if entry.get(name) is not None}
        return {family: prefix for family, prefix in read.items() if prefix is not None}

    def _size(self, value: Any, key: str, pool: Pool) -> Dict[int, int]:
        entry = {} if value is None else _mapping(value, key, FAMILY_KEYS, self.faults) or {}
        sizes = {}
        for family, name in FAMILY_NAMES.items():
            if entry.get(name) is None:
                continue
            if family not in pool.prefixes:
                if self.complete:
                    self.faults.append(Fault(f"{key}.{name}", entry[name], f"pool {pool.name} has no {name}"))
                continue
            length = _read_length(entry[name], f"{key}.{name}", family, pool.prefixes[family], self.faults)
            if length is not None:
                sizes[family] = length
        return sizes


def _close(name: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, names, n=1)
    return f"; do you mean {close[0]}?" if close else ""


# --- the rest -----------------------------------------------------------------------------------------------------------


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


def _read_releases(value: Any, faults: List[Fault]) -> Tuple[Release, ...]:
    releases = []
    for name, item in sorted(_by_name(value, "release", faults).items()):
        key = f"release.{name}"
        prefixes = _read_prefixes(item, key, None, faults)
        if item is None or item == []:
            faults.append(Fault(key, item, "names no prefix; name those that you expect it to have, so that nothing else is given up by mistake"))
        elif prefixes:
            releases.append(Release(name, tuple(sorted(prefixes)), key))
    return tuple(releases)


def _read_renumber(value: Any, asked: Sequence[str], complete: bool, faults: List[Fault]) -> List[str]:
    names = []
    for index, item in enumerate(_list(value, "renumber", '"fra1"', faults)):
        name = _name(item, f"renumber[{index}]", faults)
        if name is not None and name not in asked and complete:
            faults.append(Fault(f"renumber[{index}]", name, f"nobody of that name is among the holders{_close(name, asked)}"))
        elif name is not None:
            names.append(name)
    return names


def _read_adopted(value: Any, asked: Sequence[str], complete: bool, faults: List[Fault]) -> Dict[str, Tuple[Prefix, ...]]:
    adopted = {}
    for name, item in sorted(_by_name(value, "adopt", faults).items()):
        adopted[name] = tuple(_read_prefixes(item, f"adopt.{name}", None, faults))
        if name not in asked and complete:
            faults.append(Fault(f"adopt.{name}", item, f"nobody of that name is among the holders{_close(name, asked)}"))
    return adopted


def _read_in_use(value: Any, pools: Iterable[Pool], faults: List[Fault]) -> Tuple[InUse, ...]:
    """Networks on hosts, as far as they touch a pool."""
    ours = [prefix for pool in pools for prefixes in pool.prefixes.values() for prefix in prefixes]
    found = set()
    for index, item in enumerate(_list(value, "in_use", '{host: fra1, prefix: "172.23.255.8/29", what: Docker network web}', faults)):
        key = f"in_use[{index}]"
        entry = _mapping(item, key, IN_USE_KEYS, faults)
        if entry is None:
            continue
        host = _name(entry.get("host"), f"{key}.host", faults)
        prefix = _prefix(entry.get("prefix"), f"{key}.prefix", None, faults)
        if host is not None and prefix is not None and any(prefix.overlaps(other) for other in ours):
            found.add((prefix, host, str(entry.get("what") or "a network")))
    return tuple(InUse(host, prefix, what) for prefix, host, what in sorted(found))
