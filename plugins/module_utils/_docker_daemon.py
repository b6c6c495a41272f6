# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Docker's daemon.json: edited in place, with what each version of Docker makes of a setting.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
Pure functions: they take text and return text. A path is a tuple of keys, ``("log-opts", "max-size")``.
"""

from __future__ import annotations

import ipaddress
import json
import re
from json.decoder import scanstring
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from ansible_collections.dn42.compose.plugins.module_utils import _host

Path = Tuple[str, ...]
Memory = List[Dict[str, Any]]
POOLS = "default-address-pools"
LIVE_RESTORE = "live-restore"
DEFAULT_INDENT = "    "
# Older engines write out the list of all subnets of a pool when they start (moby#40275).
LAZY_POOLS_SINCE = (27,)
LARGEST_SPLIT = 16  # bits between base and size; more is more than 65536 subnets

# What a reload (SIGHUP) takes over, with the value that is as good as none. A reload heeds only keys that are in the file, so
# this value has to be in it when a key is taken out.
RELOADABLE: Dict[str, Any] = {
    "authorization-plugins": [],
    "debug": False,
    "default-runtime": "runc",
    "features": {},
    "insecure-registries": [],
    "labels": [],
    LIVE_RESTORE: False,
    "max-concurrent-downloads": 3,
    "max-concurrent-uploads": 5,
    "max-download-attempts": 5,
    "registry-mirrors": [],
    "runtimes": {},
    "shutdown-timeout": 15,
}


class Fact(NamedTuple):
    """What one range of Docker's versions makes of a setting. `value` None stands for any."""

    setting: str
    value: Any
    since: Tuple[int, ...]
    until: Tuple[int, ...]
    effect: str  # needs: `extra` has to be set as well; default: need not be written; unknown: refused by this version
    extra: Dict[str, Any]
    why: str


_ALL: Tuple[int, ...] = (10**6,)
# Our own network needs no setting in any version from 24 on: its subnets are explicit, it publishes no port, and what
# crosses it stays on its bridge. These facts serve settings that the operator asks for.
FACTS = (
    Fact("ip6tables", True, (), (27,), "needs", {"experimental": True}, "Docker before 27 does not start with ip6tables unless experimental is on"),
    Fact("ip6tables", True, (27,), _ALL, "default", {}, "ip6tables is on by default since 27"),
    Fact("ip-forward-no-drop", None, (), (28,), "unknown", {}, "ip-forward-no-drop came with Docker 28"),
    Fact("firewall-backend", None, (), (29,), "unknown", {}, "firewall-backend came with Docker 29"),
    Fact("allow-direct-routing", None, (), (28, 2), "unknown", {}, "allow-direct-routing came with Docker 28.2"),
)


class DaemonFileError(Exception):
    """A daemon.json that is none, or a wish that cannot be fulfilled; the text is for the operator."""


class Merge(NamedTuple):
    """A merged file: its text, what to remember, and the paths that were set and taken out."""

    text: str
    memory: Memory
    set: List[Path]
    removed: List[Path]


class Member(NamedTuple):
    """One ``"key": value`` of a JSON object by its places in the text."""

    key: str
    start: int
    value_start: int
    end: int


# --- reading -------------------------------------------------------------------------------------------------------------


def _no_constant(name: str) -> Any:
    raise ValueError(name)


_DECODER = json.JSONDecoder(parse_constant=_no_constant)


def decode(content: bytes, path: str) -> str:
    """Return a file's text, with its byte order mark if it has one. Raises DaemonFileError unless it is one JSON object in UTF-8."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DaemonFileError(f"{path} is not UTF-8 text (line {line}). Docker's configuration was left untouched: correct the file, then run again.") from error
    body = text.lstrip("\ufeff")
    if not body.strip():
        return text
    try:
        tree = _DECODER.decode(body)
    except json.JSONDecodeError as error:
        shown = (body.splitlines() or [""])[min(error.lineno, body.count("\n") + 1) - 1].strip()
        raise DaemonFileError(
            f"{path} is not valid JSON: line {error.lineno}, column {error.colno}: {error.msg}: {shown[:80]!r}. Docker would not start with it. It was left"
            " untouched: correct that line (a missing or additional comma, a comment, single quotes?), then run again."
        ) from error
    except ValueError as error:
        raise DaemonFileError(f"{path} is not valid JSON: {error} is no value. It was left untouched: correct it, then run again.") from error
    if not isinstance(tree, dict):
        raise DaemonFileError(f"{path} holds {type(tree).__name__} where an object in braces belongs. It was left untouched: correct it, then run again.")
    return text


def tree(text: str) -> Dict[str, Any]:
    """Return the settings of a decoded file; an empty one has none."""
    body = text.lstrip("\ufeff")
    return _DECODER.decode(body) if body.strip() else {}


def same(one: Any, other: Any) -> bool:
    """Tell whether two values are the same JSON: 1, 1.0 and true differ, the order of keys does not count."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def get(settings: Mapping[str, Any], path: Sequence[str]) -> Tuple[bool, Any]:
    """Return whether there is something at a path, and what."""
    here: Any = settings
    for key in path:
        if not isinstance(here, Mapping) or key not in here:
            return False, None
        here = here[key]
    return True, here


def leaves(settings: Mapping[str, Any], prefix: Path = ()) -> Dict[Path, Any]:
    """Return the values of nested settings by path. Objects are merged, so they are no values; lists are."""
    found: Dict[Path, Any] = {}
    for key, value in settings.items():
        path = (*prefix, key)
        found.update(leaves(value, path) if isinstance(value, Mapping) and value else {path: value})
    return found


def dotted(path: Sequence[str]) -> str:
    """Return a path for a sentence."""
    return ".".join(path)


# --- editing -------------------------------------------------------------------------------------------------------------


def _skip(text: str, index: int) -> int:
    while index < len(text) and text[index] in " \t\r\n\ufeff":
        index += 1
    return index


def _members(text: str, start: int) -> Tuple[List[Member], int]:
    """Return the members of the object whose brace is at `start`, and the place of its closing brace."""
    members = []
    index = _skip(text, start + 1)
    while text[index] != "}":
        key, after = scanstring(text, index + 1, True)
        value_start = _skip(text, _skip(text, after) + 1)
        _value, end = _DECODER.raw_decode(text, value_start)
        members.append(Member(key, index, value_start, end))
        index = _skip(text, end)
        if text[index] == ",":
            index = _skip(text, index + 1)
    return members, index


def _find(members: List[Member], key: str) -> Optional[int]:
    """Return the index of the member that counts for a key: the last one, as for Docker."""
    return next((index for index in reversed(range(len(members))) if members[index].key == key), None)


def _separators(text: str) -> Tuple[str, str]:
    """Return what stands between members and behind keys: the file is written tightly or with blanks."""
    return (", ", ": ") if re.search(r'": ', text) or not re.search(r'":\S', text) else (",", ":")


def _newline(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def _indent_unit(text: str) -> str:
    found = re.search(r"\n([ \t]+)\S", text)
    return found.group(1) if found else DEFAULT_INDENT


def _line_indent(text: str, index: int) -> Optional[str]:
    """Return the blanks before a place, None when something else stands before it on its line."""
    before = text[text.rfind("\n", 0, index) + 1 : index] if "\n" in text[:index] else None
    return before if before is not None and not before.strip() else None


def _write(text: str, value: Any, indent: Optional[str]) -> str:
    """Return a value as JSON; spread over lines below `indent`, on one line for None."""
    if indent is None:
        return json.dumps(value, ensure_ascii=False, separators=_separators(text))
    lines = json.dumps(value, ensure_ascii=False, indent=_indent_unit(text)).split("\n")
    return (_newline(text) + indent).join(lines)


def _insert(text: str, start: int, key: str, value: Any) -> str:
    """Return the text with one more member at the end of the object at `start`, in the style of its neighbours."""
    members, close = _members(text, start)
    name = json.dumps(key, ensure_ascii=False)
    if members:
        indent = _line_indent(text, members[-1].start)
        comma, colon = _separators(text)
        separator = comma if indent is None else "," + _newline(text) + indent
        member = separator + name + colon + _write(text, value, indent)
        return text[: members[-1].end] + member + text[members[-1].end :]
    outer = re.match(r"[ \t]*", text[text.rfind("\n", 0, start) + 1 :]).group(0)  # type: ignore[union-attr]
    indent = outer + _indent_unit(text)
    member = _newline(text) + indent + name + ": " + _write(text, value, indent) + _newline(text) + outer
    return text[: start + 1] + member + text[close:]


def set_value(text: str, path: Sequence[str], value: Any) -> str:
    """Return the text with a value at a path; everything else stays byte for byte, and all of it if it is that value already."""
    body = text.lstrip("\ufeff")
    if not body.strip():
        text = text[: len(text) - len(body)] + "{}\n"
    there, current = get(tree(text), path)
    if there and same(current, value):
        return text
    start = text.index("{")
    for depth, key in enumerate(path):
        members, _close = _members(text, start)
        index = _find(members, key)
        nested = value
        for inner in reversed(path[depth + 1 :]):
            nested = {inner: nested}
        if index is None:
            return _insert(text, start, key, nested)
        member = members[index]
        if depth == len(path) - 1 or text[member.value_start] != "{":
            written = _write(text, nested, _line_indent(text, member.start))
            return text[: member.value_start] + written + text[member.end :]
        start = member.value_start
    return text


def delete(text: str, path: Sequence[str]) -> str:
    """Return the text without what is at a path, in every repetition of the last key."""
    start = text.index("{")
    for key in path[:-1]:
        members, _close = _members(text, start)
        index = _find(members, key)
        if index is None or text[members[index].value_start] != "{":
            return text
        start = members[index].value_start
    while True:
        members, close = _members(text, start)
        index = _find(members, path[-1])
        if index is None:
            return text
        if index > 0:
            text = text[: members[index - 1].end] + text[members[index].end :]
        elif len(members) > 1:
            text = text[: members[0].start] + text[members[1].start :]
        else:
            text = text[: start + 1] + text[close:]


# --- merging -------------------------------------------------------------------------------------------------------------


def merge(text: str, wanted: Mapping[str, Any], memory: Memory) -> Merge:
    """Return the file with the wanted settings in it, and without those of an earlier run that are wanted no more.

    `memory` is what the last run returned: path, the value set and the one before it of every setting that is not the
    user's own. A value that somebody changed meanwhile is his and stays.
    """
    wishes = leaves(wanted)
    remembered = {tuple(entry["path"]): entry for entry in memory}
    kept: Memory = []
    changed: List[Path] = []
    removed: List[Path] = []
    for path, entry in remembered.items():
        there, current = get(tree(text), path)
        if path in wishes or not there or not same(current, entry["ours"]):
            continue
        text = _take_back(text, path, entry)
        (changed if "before" in entry else removed).append(path)
    for path, value in wishes.items():
        there, current = get(tree(text), path)
        entry = dict(remembered.get(path, {"path": list(path), "existing": _existing(tree(text), path, [*memory, *kept])}), ours=value)
        if not (there and same(current, value)):
            if there and path not in remembered:
                entry["before"] = _written(text, path)
            text = set_value(text, path, value)
            changed.append(path)
        elif path not in remembered:
            continue  # the user's own, and what we want
        kept.append(entry)
    return Merge(text, kept, changed, removed)


def _place(text: str, path: Path) -> Tuple[int, int]:
    """Return where the value at a path begins and ends; there has to be one."""
    start, end = text.index("{"), len(text)
    for key in path:
        members, _close = _members(text, start)
        member = members[_find(members, key)]  # type: ignore[index]
        start, end = member.value_start, member.end
    return start, end


def _written(text: str, path: Path) -> str:
    """Return the value at a path as the user wrote it."""
    start, end = _place(text, path)
    return text[start:end]


def _existing(settings: Mapping[str, Any], path: Path, memory: Memory) -> int:
    """Return how many keys of a path lead to something that is there and was not made by us."""
    existing = max(depth for depth in range(len(path) + 1) if get(settings, path[:depth])[0])
    for entry in memory:
        if tuple(entry["path"][: entry["existing"] + 1]) == path[: entry["existing"] + 1]:
            existing = min(existing, entry["existing"])
    return existing


def _take_back(text: str, path: Path, entry: Mapping[str, Any]) -> str:
    """Return the text with the value from before ours; an object that was made for it goes with it."""
    if "before" in entry:
        start, end = _place(text, path)
        return text[:start] + entry["before"] + text[end:]
    text = delete(text, path)
    while len(path) - 1 > entry["existing"] and get(tree(text), path[:-1]) == (True, {}):
        path = path[:-1]
        text = delete(text, path)
    return text


# --- what versions make of it --------------------------------------------------------------------------------------------


def _applies(fact: Fact, version: Tuple[int, ...], wanted: Mapping[str, Any]) -> bool:
    if fact.setting not in wanted or not fact.since <= version < fact.until:
        return False
    return fact.value is None or same(wanted[fact.setting], fact.value)


def for_version(wanted: Mapping[str, Any], current: Mapping[str, Any], version: Tuple[int, ...]) -> Dict[str, Any]:
    """Return the wanted settings as this version of Docker needs them; `version` is empty while it is unknown.

    Raises DaemonFileError for a setting that this version does not know.
    """
    found = dict(wanted)
    for fact in FACTS if version else ():
        if not _applies(fact, version, wanted):
            continue
        if fact.effect == "unknown":
            shown = ".".join(str(part) for part in version)
            raise DaemonFileError(f"dn42_docker_daemon_options.{fact.setting}: {fact.why}, and this is {shown}. Take it out for this host or upgrade Docker.")
        if fact.effect == "needs":
            found.update({key: value for key, value in fact.extra.items() if key not in wanted})
        elif fact.setting not in current:
            del found[fact.setting]
    return found


# --- address pools -------------------------------------------------------------------------------------------------------


def parse_pools(pools: Any) -> List[Tuple[Any, int]]:
    """Return network and size of pools as Docker writes them; what is no pool is left to Docker's own check."""
    found = []
    for pool in pools if isinstance(pools, list) else ():
        try:
            found.append((ipaddress.ip_network(pool["base"], strict=False), int(pool["size"])))
        except (ValueError, KeyError, TypeError):
            continue
    return found


def _shared(network: Any, others: Sequence[str]) -> List[str]:
    return [prefix for prefix in others if ipaddress.ip_network(prefix).version == network.version and ipaddress.ip_network(prefix).overlaps(network)]


def check_pools(pools: Sequence[Mapping[str, Any]], own: Sequence[str]) -> None:
    """Raise DaemonFileError for a wanted pool that is none, or that lies in DN42 or in our own prefixes (`own`)."""
    for pool in pools:
        key = f"dn42_docker_address_pools: {pool.get('base')!r}, size {pool.get('size')!r}"
        try:
            network, size = ipaddress.ip_network(pool["base"]), int(pool["size"])
        except (ValueError, KeyError, TypeError) as error:
            raise DaemonFileError(f"{key}: {error}. Write base as a prefix and size as a length, for instance 192.168.128.0/18 and 24.") from error
        if not network.prefixlen <= size < network.max_prefixlen - 1:
            raise DaemonFileError(f"{key}: size is the length of each network cut out of base: from {network.prefixlen} to {network.max_prefixlen - 2}.")
        shared = _shared(network, [*_host.DN42_IPV4, *own])
        if shared:
            raise DaemonFileError(f"{key}: lies in {', '.join(shared)}, which is DN42's or your own. Take addresses outside of it, for instance 192.168.128.0/18.")


def merged_pools(current: Any, wanted: Sequence[Mapping[str, Any]]) -> List[Dict[str, Any]]:
    """Return the user's pools, then those wanted ones that share no address with them. The user's come first, as Docker takes them in order."""
    merged = list(current) if isinstance(current, list) else []
    for pool in wanted:
        network = ipaddress.ip_network(pool["base"])
        if not any(network.version == other.version and network.overlaps(other) for other, _size in parse_pools(merged)):
            merged.append({"base": str(pool["base"]), "size": int(pool["size"])})
    return merged


def notices(settings: Mapping[str, Any], version: Tuple[int, ...], own: Sequence[str]) -> List[str]:
    """Return what works but may surprise in the settings as they are going to be."""
    found = []
    for network, size in parse_pools(settings.get(POOLS)):
        shared = _shared(network, [*_host.DN42_IPV4, *own])
        if shared:
            found.append(
                f"{POOLS}: {network} lies in {', '.join(shared)}: a network that Docker puts there cuts containers off from that part of DN42. It is your own setting"
                " and stays; take a range outside of DN42, such as 192.168.128.0/18, and recreate the networks that are in it."
            )
        if version and version < LAZY_POOLS_SINCE and size - network.prefixlen > LARGEST_SPLIT:
            found.append(
                f"{POOLS}: {network} cut into /{size} is 2^{size - network.prefixlen} networks, and Docker before {LAZY_POOLS_SINCE[0]} writes all of them out when it"
                f" starts, until memory runs out. Take a longer base or a size of at most {network.prefixlen + LARGEST_SPLIT}, or give networks explicit subnets."
            )
    return found


def uses_ip6tables(settings: Mapping[str, Any], version: Tuple[int, ...]) -> bool:
    """Tell whether Docker sets IPv6 rules with ip6tables, and so does not start where the kernel has none."""
    if settings.get("iptables") is False or settings.get("firewall-backend") == "nftables":
        return False
    return settings.get("ip6tables", version >= (27,)) is True


# --- what the running daemon has -----------------------------------------------------------------------------------------


def parse_reloaded(line: str) -> Optional[Dict[str, Any]]:
    """Return the settings in Docker's log line ``Reloaded configuration: {…}``, None when there are none."""
    try:
        if line.lstrip().startswith("{"):
            message = json.loads(line).get("msg", "")
        else:
            found = re.search(r'msg=("(?:[^"\\]|\\.)*")', line)
            message = json.loads(found.group(1)) if found else ""
        settings = json.loads(message.partition("Reloaded configuration: ")[2])
    except (ValueError, AttributeError):
        return None
    if isinstance(settings.get(POOLS), dict):
        settings[POOLS] = settings[POOLS].get("Values") or []
    return settings


def in_force(key: str, wanted: Tuple[bool, Any], running: Mapping[str, Any]) -> bool:
    """Tell whether the daemon's own account of its settings has a key as the file has it: (there, value).

    Docker leaves out what is empty and writes out defaults: a key that is not in the file cannot be told from one at its
    default, and counts as in force.
    """
    there, value = wanted
    return not there or same(running.get(key), value) or (not value and not running.get(key))


def sort_out(keys: Sequence[str], new: Mapping[str, Any], known: Mapping[str, Tuple[bool, Any]], edited: Sequence[str]) -> Tuple[List[str], List[str], List[str]]:
    """Return the keys that need a reload, those that need a restart, and those of which nobody knows what the daemon has.

    `known` is what the daemon is known to have read, (there, value) by key; `edited` are the keys this run changes in the file.
    """
    reload, restart, unknown = [], [], []
    for key in keys:
        target = get(new, (key,))
        if key in known and _alike(known[key], target) and not (key in edited and key in RELOADABLE):
            continue
        if key not in known and key not in edited:
            unknown.append(key)
        (reload if key in RELOADABLE else restart).append(key)
    return reload, restart, unknown


def _alike(one: Tuple[bool, Any], other: Tuple[bool, Any]) -> bool:
    return one[0] == other[0] and same(one[1], other[1])


def for_reload(text: str, keys: Sequence[str]) -> str:
    """Return the file as a reload has to see it: reloadable keys that are in it no more with the value that is as good as none."""
    for key in keys:
        if key in RELOADABLE and key not in tree(text):
            text = set_value(text, (key,), RELOADABLE[key])
    return text
