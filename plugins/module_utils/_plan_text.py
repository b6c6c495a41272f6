# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The text of a plan file: one line per block, keyed by prefix and sorted by address.

Two branches that take the same space write the same line and conflict in the merge. No dates, so equal plans
are equal files. The last line is YAML's end of document, without which a file that was cut short would look like
a plan with fewer owners.

What we write ourselves is read line by line, strictly, which is an order of magnitude faster than YAML. Anything
else, such as what people have edited, goes through YAML's own reader, which knows what it may mean and where it stands.

This module util is PRIVATE to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import json
import re
import socket
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

from ansible_collections.dn42.compose.plugins.module_utils._address_plan.decide import check_blocks
from ansible_collections.dn42.compose.plugins.module_utils._address_plan.model import BITS, FAMILY_NAMES, Block, Fault, Plan, Prefix, Refused
from ansible_collections.dn42.compose.plugins.module_utils._address_text import MAPPED, Unreadable, read_name, read_prefix

try:
    import yaml
except ImportError as error:
    MISSING_YAML: Optional[str] = str(error)
else:
    MISSING_YAML = None

VERSION = 1
INTRODUCTION = """\
# Address plan of this network, written by dn42.compose.address_blocks.
# Keep it in git. A block belongs to its holder; once it is released, its holder may still come back to it.
"""
START = "---"
VERSION_LINE = f"version: {VERSION}"
END = "..."
PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9._-]*")
# What some YAML reader or other takes for a boolean or null, in lower case.
WORDS = frozenset(("y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf", "none"))
MARKER = re.compile(r"(<{7}|>{7}|\|{7}|={7})( |$)")
_NUMBER = "(0|[1-9][0-9]{0,2})"
_NAME = r'([A-Za-z][A-Za-z0-9._-]*|"(?:[^"\\]|\\["\\])+")'
_OWNER = rf"/{_NUMBER}%s: \{{holder: {_NAME}, pool: {_NAME}(?:, released: ([1-9][0-9]{{0,17}}))?\}}( +#.*)?"
# A block's line as we write it; the groups are address, length, holder, pool, released and a comment behind it.
LINES = {
    4: re.compile(rf"  ((?:(?:0|[1-9][0-9]{{0,2}})\.){{3}}(?:0|[1-9][0-9]{{0,2}})){_OWNER % ''}"),
    6: re.compile(rf'  "([0-9a-f:]+){_OWNER % chr(34)}'),
}
_SOCKET_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}

Place = Tuple[int, int]  # of a line among the others: family and address, or one of those below
_TOP = (0, 0)
_VERSION_PLACE = (1, 0)
_BOTTOM = (9, 0)


class Comments(NamedTuple):
    """What people have written into a plan: whole lines with the place that they stand before, and comments behind a block."""

    lines: Tuple[Tuple[Place, str], ...] = ()
    behind: Tuple[Tuple[Prefix, str], ...] = ()


def render(plan: Plan, comments: Optional[Comments] = None) -> str:
    """The text of a plan. Comments stand before the line that they stood before, or where that would be."""
    if comments is None:
        comments = Comments(tuple((_TOP, line) for line in INTRODUCTION.splitlines()))
    pending = iter((*comments.lines, ((10, 0), "")))  # the last one is never reached
    place, comment = next(pending)
    lines = []
    for own, line in _own_lines(plan, dict(comments.behind)):
        while place <= own:
            lines.append(comment)
            place, comment = next(pending)
        lines.append(line)
    return "\n".join(lines) + "\n"


def _own_lines(plan: Plan, behind: Dict[Prefix, str]) -> Iterator[Tuple[Place, str]]:
    """Every line that we write ourselves, with its place."""
    ordered = sorted((*plan.blocks, *plan.released), key=lambda block: block.prefix)
    yield _TOP, START
    yield _VERSION_PLACE, VERSION_LINE
    for family, name in sorted(FAMILY_NAMES.items()):
        few = [block for block in ordered if block.prefix.family == family]
        yield (family, -1), f"{name}:" if few else f"{name}: {{}}"
        for block in few:
            yield (family, block.prefix.network), block_line(block) + behind.get(block.prefix, "")
    yield _BOTTOM, END


def block_line(block: Block) -> str:
    """One block, without the end of the line."""
    prefix = str(block.prefix) if block.prefix.family == 4 else f'"{block.prefix}"'
    released = f", released: {block.released}" if block.released else ""
    return f"  {prefix}: {{holder: {scalar(block.holder)}, pool: {scalar(block.pool)}{released}}}"


def scalar(name: str) -> str:
    """A name as YAML text, in quotes wherever a reader could take it for something else."""
    if PLAIN.fullmatch(name) and name.lower() not in WORDS:
        return name
    return json.dumps(name, ensure_ascii=False)


def parse(text: str, path: str) -> Plan:
    """The blocks of a plan; raises `Refused` with the lines of everything that is wrong in it."""
    blocks = _own_text(text, path)
    if blocks is None:
        blocks = _any_text(text, path)
    faults = check_blocks(blocks)
    if faults:
        raise Refused(faults)
    blocks.sort(key=lambda block: block.prefix)
    return Plan(tuple(block for block in blocks if not block.released), tuple(block for block in blocks if block.released))


def _own_text(text: str, path: str) -> Optional[List[Block]]:
    """The blocks of a text that is as we write it, comments apart; None when it is not."""
    lines = text.split("\n")
    if lines.pop() or not lines or lines[-1] != END:
        return None
    lines.pop()
    expected = [START, VERSION_LINE, "ipv4", "ipv6"]
    blocks: Dict[Prefix, Block] = {}
    names: Dict[str, Optional[str]] = {}
    family = 0
    for number, line in enumerate(lines, 1):
        block = _own_block(line, family, f"{path} line {number}", names) if family else None
        if block is not None:
            if block.prefix in blocks:
                return None
            blocks[block.prefix] = block
        elif _is_comment(line):
            continue
        elif expected and line in (expected[0], f"{expected[0]}:", f"{expected[0]}: {{}}"):
            family = {"ipv4:": 4, "ipv6:": 6}.get(line, 0)
            expected.pop(0)
        else:
            return None
    return None if expected else list(blocks.values())


def _own_block(line: str, family: int, origin: str, names: Dict[str, Optional[str]]) -> Optional[Block]:
    """The block of a line that is as we write it. `names` remembers the names that were read already."""
    match = LINES[family].fullmatch(line)
    if match is None:
        return None
    address, length_text, holder_text, pool_text, released, _comment = match.groups()
    try:
        network = int.from_bytes(socket.inet_pton(_SOCKET_FAMILY[family], address), "big")
    except OSError:
        return None
    length = int(length_text)
    for name in (holder_text, pool_text):
        if name not in names:
            names[name] = _own_name(name)
    holder, pool = names[holder_text], names[pool_text]
    if holder is None or pool is None or length > BITS[family] or network & ((1 << (BITS[family] - length)) - 1):
        return None
    prefix = Prefix(family, network, length)
    if family == 6 and length >= MAPPED.length and MAPPED.covers(prefix):
        return None
    return Block(prefix, holder, pool, int(released or 0), origin)


def read_line(line: str) -> Optional[Block]:
    """The block of a single line as we write it, without a file around it; None for any other line."""
    for family in LINES:
        block = _own_block(line, family, "", {})
        if block is not None:
            return block
    return None


def _own_name(text: str) -> Optional[str]:
    """A name as we write it; None when it needs YAML to be understood, or is none."""
    if text[0] != '"':
        return None if text.lower() in WORDS else text
    try:
        return read_name(json.loads(text))
    except ValueError:  # Unreadable among them
        return None


def _is_comment(line: str) -> bool:
    """A whole-line comment or a blank line, with nothing in it that YAML refuses."""
    return not line or (line.isspace() and "\r" not in line) or (line.lstrip(" ").startswith("#") and line.isprintable())


def read_comments(text: str, plan: Plan) -> Comments:
    """What people have written into the text of this plan."""
    places: Dict[int, Prefix] = {int(block.origin.rpartition(" ")[2]): block.prefix for block in (*plan.blocks, *plan.released)}
    sections = {"---": _TOP, "version": _VERSION_PLACE, "ipv4": (4, -1), "ipv6": (6, -1), "...": _BOTTOM}
    found: List[Tuple[Place, str]] = []
    waiting: List[str] = []
    behind: Dict[Prefix, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        prefix = places.get(number)
        if prefix is None and _is_comment(line):
            waiting.append(line.rstrip())
            continue
        place = (prefix.family, prefix.network) if prefix else sections.get(line.partition(":")[0].rstrip())
        if place is None:
            continue
        found += [(place, comment) for comment in waiting]
        waiting = []
        match = LINES[prefix.family].fullmatch(line) if prefix else None
        if prefix and match and match.group(6):
            behind[prefix] = match.group(6)
    found.sort(key=lambda item: item[0])
    return Comments(tuple(found), tuple(behind.items()))


def _any_text(text: str, path: str) -> List[Block]:
    """The blocks of whatever YAML it is; raises `Refused`."""
    faults = _unfinished(text, path)
    if faults:
        raise Refused(faults)
    try:
        root = yaml.compose(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as error:
        raise Refused([_yaml_fault(error, text, path)]) from None
    reader = _Reader(path)
    blocks = reader.plan(root)
    if reader.faults:
        raise Refused(reader.faults + check_blocks(blocks))
    return blocks


def _unfinished(text: str, path: str) -> List[Fault]:
    """Merge markers, and a file that is cut short."""
    faults = []
    lines = text.splitlines()
    if "\r\n" in text:
        number = text.count("\n", 0, text.index("\r\n")) + 1
        message = r"ends in CR LF; a merge would see every line as changed. Let git keep line ends (*.yml eol=lf in .gitattributes) and run sed -i 's/\r$//'"
        faults.append(Fault(_place(path, number), lines[number - 1], message))
    for number, line in enumerate(lines, 1):
        if MARKER.match(line):
            message = "is a merge marker, finish the merge: keep one line per block"
            faults.append(Fault(_place(path, number), line, message))
    if not faults and (not lines or lines[-1] != END):
        message = 'the last line is not "...", so the file is cut short; take it from git, or add the line if it is complete'
        faults.append(Fault(_place(path, max(len(lines), 1)), lines[-1] if lines else "", message))
    return faults


def _place(path: str, line: int) -> str:
    return f"{path} line {line}"


def _yaml_fault(error: Any, text: str, path: str) -> Fault:
    """Where and why a file is no YAML."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    line = mark.line + 1 if mark else text.count("\n", 0, getattr(error, "position", 0) or 0) + 1
    lines = text.splitlines()
    reason = getattr(error, "problem", None) or getattr(error, "reason", None) or "cannot be read"
    return Fault(_place(path, line), lines[line - 1] if line <= len(lines) else "", f"is no valid YAML: {reason}")


class _Reader:
    """Reads the nodes of a YAML file, which know their lines and their spelling, and collects faults."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.faults: List[Fault] = []

    def plan(self, root: Any) -> List[Block]:
        """The whole file."""
        top = self.mapping(root, ("version", *FAMILY_NAMES.values()))
        if not self.version(top.get("version"), root):
            return []
        blocks = []
        for family, name in sorted(FAMILY_NAMES.items()):
            if name not in top:
                self.fault(root, "", f"the key {name} is missing; write {name}: {{}} when it has no blocks")
                continue
            for key, node in self.entries(top[name]):
                block = self.block(key, node, family)
                if block is not None:
                    blocks.append(block)
        return blocks

    def version(self, node: Any, root: Any) -> bool:
        """Whether this is a version that we know."""
        if node is None:
            self.fault(root, "", f"the key version is missing; this is version: {VERSION}")
        elif node.value == str(VERSION) and node.tag == "tag:yaml.org,2002:int":
            return True
        elif str(node.value).isdigit() and int(node.value) > VERSION:
            message = f"was written by a newer version of dn42.compose, this one knows version {VERSION}; upgrade it"
            self.fault(node, node.value, message)
        else:
            self.fault(node, str(node.value), f"must be version: {VERSION}")
        return False

    def block(self, key: Any, node: Any, family: int) -> Optional[Block]:
        """One line: a prefix with its owner."""
        origin = _place(self.path, key.start_mark.line + 1)
        owner = self.mapping(node, ("holder", "pool", "released"))
        names = {name: self.name(owner.get(name), name, node) for name in ("holder", "pool")}
        try:
            prefix = read_prefix(self.text(key), family)
        except Unreadable as error:
            self.fault(key, key.value, str(error))
            return None
        released = self.released(owner.get("released"))
        holder, pool = names["holder"], names["pool"]
        return None if holder is None or pool is None or released is None else Block(prefix, holder, pool, released, origin)

    def released(self, node: Any) -> Optional[int]:
        """The number of the release; 0 for a block that is owned."""
        if node is None:
            return 0
        value = self.text(node)
        if type(value) is int and value > 0:
            return value
        self.fault(node, value, "must be the number of the release from 1 on; remove it when the holder still has the block")
        return None

    def name(self, node: Any, key: str, parent: Any) -> Optional[str]:
        """A holder or pool."""
        if node is None:
            if isinstance(parent, yaml.MappingNode):
                self.fault(parent, "", f"the key {key} is missing")
            return None
        try:
            return read_name(self.text(node))
        except Unreadable as error:
            self.fault(node, self.text(node), str(error))
            return None

    def text(self, node: Any) -> Any:
        """The value of a node as YAML reads it, so that an unquoted `no` is seen as what it is."""
        if isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:str":
            return node.value
        try:
            return yaml.safe_load(yaml.serialize(node))
        except yaml.YAMLError:
            return None

    def mapping(self, node: Any, known: Tuple[str, ...]) -> Dict[str, Any]:
        """A mapping with no other than the known keys."""
        found = {}
        for key, value in self.entries(node):
            if key.value in known:
                found[key.value] = value
            else:
                self.fault(key, self.text(key), f"unknown key, known are {', '.join(known)}")
        return found

    def entries(self, node: Any) -> List[Tuple[Any, Any]]:
        """The keys and values of a mapping, each key once."""
        if not isinstance(node, yaml.MappingNode):
            self.fault(node, self.text(node) if node is not None else None, "must be a mapping")
            return []
        seen: Dict[Any, int] = {}
        for key, _value in node.value:
            name = str(key.value)
            if name in seen:
                self.fault(key, name, f"is the same key as in line {seen[name]}; keep the one that is in use")
            seen.setdefault(name, key.start_mark.line + 1)
        return node.value

    def fault(self, node: Any, value: Any, message: str) -> None:
        line = node.start_mark.line + 1 if node is not None else 1
        self.faults.append(Fault(_place(self.path, line), value, message))
