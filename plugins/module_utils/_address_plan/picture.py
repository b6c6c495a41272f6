# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Pictures of the pools: plain text for a terminal, SVG for the documentation. The same plan gives the same picture.

A pool's prefix is cut into windows of equal size, one row each, so that a block of the pool's usual size is wide
enough for a name. Windows in which nothing begins or ends are not drawn but named, so that a /48 with three blocks
is one row. When there are too many rows the windows grow.

This module util is PRIVATE to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

from html import escape
from typing import Collection, Iterable, List, NamedTuple, Optional, Sequence, Set, Tuple, Union

from ansible_collections.dn42.compose.plugins.module_utils._address_plan.model import BITS, Plan, Pool, Prefix, address_text
from ansible_collections.dn42.compose.plugins.module_utils._address_plan.report import FREE, HELD, RELEASED, RESERVED, USED, Part, parts

MIXED = "mixed"  # several things in a place that is too small to show each
BLOCKS_PER_ROW = 8
MOST_ROWS = 12  # of one prefix
FILL = {USED: "=", HELD: "~", RELEASED: "-", RESERVED: "x", FREE: ".", MIXED: "%"}
WORDS = {USED: "in use", HELD: "held (no longer asked for)", RELEASED: "released", RESERVED: "reserved", FREE: "free", MIXED: "several"}


class Row(NamedTuple):
    """A part of a prefix that is drawn."""

    window: Prefix
    parts: Sequence[Part]


class Gap(NamedTuple):
    """A part of a prefix that is one thing and only named."""

    part: Part


class Drawing(NamedTuple):
    """One prefix of a pool."""

    pool: Pool
    prefix: Prefix
    rows: Sequence[Union[Row, Gap]]


def drawings(plan: Plan, pools: Iterable[Pool], asked: Optional[Collection[Tuple[str, str]]]) -> List[Drawing]:
    """Every prefix of every pool, by the pool's name, cut into rows."""
    found = []
    for pool in sorted(pools, key=lambda item: item.name):
        for family in sorted(pool.prefixes):
            for prefix in pool.prefixes[family]:
                whole = parts(plan, prefix, pool.reserved, asked)
                found.append(Drawing(pool, prefix, _rows(prefix, whole, pool.lengths.get(family, prefix.length))))
    return found


def _rows(prefix: Prefix, whole: Sequence[Part], block_length: int) -> List[Union[Row, Gap]]:
    bits = BITS[prefix.family]
    size = min((1 << (bits - block_length)) * BLOCKS_PER_ROW, prefix.end - prefix.network)
    while True:
        numbers = _interesting(prefix, whole, size)
        if len(numbers) <= MOST_ROWS or size == prefix.end - prefix.network:
            break
        size *= 2
    length = bits - (size.bit_length() - 1)
    rows: List[Union[Row, Gap]] = []
    position = prefix.network
    index = 0
    for number in sorted(numbers) or [0]:
        window = Prefix(prefix.family, prefix.network + number * size, length)
        index = _cut(whole, index, position, window.network, rows)
        end = window.end
        inside = []
        while index < len(whole) and whole[index].start < end:
            inside.append(whole[index]._replace(start=max(whole[index].start, window.network), end=min(whole[index].end, end)))
            if whole[index].end > end:
                break
            index += 1
        rows.append(Row(window, inside))
        position = end
    _cut(whole, index, position, prefix.end, rows)
    return rows


def _interesting(prefix: Prefix, whole: Sequence[Part], size: int) -> Set[int]:
    """The numbers of the windows that are not wholly one thing."""
    numbers = set()
    for part in whole:
        first, start = divmod(part.start - prefix.network, size)
        last, end = divmod(part.end - prefix.network, size)
        if start:
            numbers.add(first)
        if end:
            numbers.add(last)
        if not start and not end and last - first == 1 and part.kind not in (FREE, RESERVED):
            numbers.add(first)  # a block that fills its window
    return numbers


def _cut(whole: Sequence[Part], index: int, start: int, end: int, rows: List[Union[Row, Gap]]) -> int:
    """Name what lies between two rows; returns where the next row begins in `whole`."""
    while index < len(whole) and whole[index].start < end:
        part = whole[index]
        if max(part.start, start) < min(part.end, end):
            rows.append(Gap(part._replace(start=max(part.start, start), end=min(part.end, end))))
        if part.end > end:
            break
        index += 1
    return index


def amount(part: Part, pool: Pool, family: int) -> str:
    """How large a range is, in blocks of the pool where it is that large."""
    size = part.end - part.start
    length = pool.lengths.get(family, BITS[family])
    blocks = size >> (BITS[family] - length)
    if blocks:
        return f"{blocks:,} block{'s' if blocks > 1 else ''} of /{length}"
    return f"{size:,} address{'es' if size > 1 else ''}"


def _range_words(gap: Gap, drawing: Drawing) -> str:
    part, family = gap.part, drawing.prefix.family
    whose = f" ({part.prefix} of {part.holder})" if part.holder and part.prefix else ""
    span = f"{address_text(family, part.start)} to {address_text(family, part.end - 1)}"
    return f"{WORDS[part.kind]}{whose}: {amount(part, drawing.pool, family)}, {span}"


# --- text -------------------------------------------------------------------------------------------------------------------


def text(plan: Plan, pools: Iterable[Pool], asked: Optional[Collection[Tuple[str, str]]] = None, width: int = 100) -> str:
    """The pools in plain ASCII. A block is `[name===]`, or one sign where there is no room for that."""
    lines: List[str] = []
    used: Set[str] = set()
    for drawing in drawings(plan, pools, asked):
        margin = max((len(str(row.window)) for row in drawing.rows if isinstance(row, Row)), default=0) + 4
        cells = 1 << (max(width - margin - 2, 8).bit_length() - 1)
        lines.append(f"{drawing.pool.name}  {drawing.prefix}")
        for row in drawing.rows:
            if isinstance(row, Row):
                bar = "".join(_bar(row, cells, used))
                lines.append(f"  {row.window!s:<{margin - 2}}|{bar}|")
            else:
                lines.append(f"  {'':<{margin - 2}}: {_range_words(row, drawing)}")
        lines.append("")
    legend = "   ".join(f"{FILL[kind]} {WORDS[kind]}" for kind in FILL if kind in used)
    return "\n".join([*lines, legend]) + "\n" if lines else ""


def _bar(row: Row, cells: int, used: Set[str]) -> Iterable[str]:
    """The signs of one row."""
    first, size = row.window.network, row.window.end - row.window.network
    if size < cells:
        cells = size
    scale = size // cells
    position = 0
    for part in row.parts:
        start = (part.start - first + scale - 1) // scale
        end = (part.end - first) // scale
        if start > position:  # what is smaller than a sign was left out so far
            used.add(MIXED)
            yield FILL[MIXED] * (start - position)
            position = start
        if end > position:
            used.add(part.kind)
            yield _cells(part, end - position)
            position = end
    if position < cells:
        used.add(MIXED)
        yield FILL[MIXED] * (cells - position)


def _cells(part: Part, count: int) -> str:
    """One part in so many signs."""
    fill = FILL[part.kind]
    if part.kind in (FREE, RESERVED) or count < 2:
        return fill * count
    return f"[{part.holder[: count - 2]:{fill}<{count - 2}}]"


# --- SVG --------------------------------------------------------------------------------------------------------------------

WIDTH = 960
LEFT = 190  # where the bars begin
RIGHT = 24
BAR = 40
STEP = 50
SIGN = 6.9  # how wide a character of the labels is at most
STYLE = """
  text { font: 13px ui-sans-serif, system-ui, "DejaVu Sans", sans-serif; fill: #1f2933; }
  .page { fill: #ffffff; } .title { font-size: 17px; font-weight: 600; } .pool { font-size: 14px; font-weight: 600; }
  .quiet { font-size: 11px; fill: #616e7c; } .small { font-size: 10px; }
  rect { stroke: #ffffff; stroke-width: 1.5; } .page { stroke: none; }
  .used { fill: #9fd3c7; } .held { fill: #f5cf87; } .released { fill: #dcd3f0; } .reserved { fill: #b8c0c9; }
  .free { fill: #eef1f4; } .mixed { fill: #7fb6d9; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e4e7eb; } .quiet { fill: #9aa5b1; } .page { fill: #12181f; } rect { stroke: #12181f; }
    .used { fill: #1f6f63; } .held { fill: #8a6116; } .released { fill: #54457d; } .reserved { fill: #4a5562; }
    .free { fill: #232c36; } .mixed { fill: #2b5f84; }
  }
"""


def svg(plan: Plan, pools: Iterable[Pool], asked: Optional[Collection[Tuple[str, str]]] = None, title: str = "Address plan") -> str:
    """The pools as an SVG document that follows the reader's light or dark scheme; every block has a tooltip."""
    body: List[str] = []
    used: Set[str] = set()
    y = 64
    for drawing in drawings(plan, pools, asked):
        body.append(_label(20, y, f"{drawing.pool.name}  {drawing.prefix}", "pool"))
        y += 14
        for row in drawing.rows:
            if isinstance(row, Row):
                body += _row(row, drawing, y, used)
                y += STEP
            else:
                body.append(_label(LEFT, y + 12, f"… {_range_words(row, drawing)}", "quiet"))
                y += 24
        y += 26
    body += _legend(y, used)
    height = y + 34
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img" aria-label="{escape(title)}">',
        f"<title>{escape(title)}</title>",
        f"<style>{STYLE}</style>",
        f'<rect class="page" width="{WIDTH}" height="{height}"/>',
        _label(20, 32, title, "title"),
    ]
    return "\n".join([*head, *body, "</svg>"]) + "\n"


def _label(x: float, y: float, words: str, kind: str = "", anchor: str = "") -> str:
    attributes = (f' class="{kind}"' if kind else "") + (f' text-anchor="{anchor}"' if anchor else "")
    return f'<text x="{x:g}" y="{y:g}"{attributes}>{escape(words)}</text>'


def _row(row: Row, drawing: Drawing, y: int, used: Set[str]) -> Iterable[str]:
    """One bar, with its window written at the left."""
    yield _label(20, y + BAR / 2 + 5, str(row.window), "quiet")
    first, size = row.window.network, row.window.end - row.window.network
    scale = (WIDTH - LEFT - RIGHT) / size
    for group in _groups(row.parts, scale):
        start, end = group[0].start, group[-1].end
        kinds = {part.kind for part in group}
        kind = kinds.pop() if len(kinds) == 1 else MIXED
        used.add(kind)
        x, width = LEFT + (start - first) * scale, (end - start) * scale
        about = _about(group, drawing) if len(group) == 1 else f"{len(group):,} blocks and gaps"
        yield f'<rect class="{kind}" x="{x:.2f}" y="{y}" width="{width:.2f}" height="{BAR}" rx="4"><title>{escape(about)}</title></rect>'
        if len(group) == 1:
            yield from _inscribed(group[0], x + width / 2, y, width)


def _groups(whole: Sequence[Part], scale: float) -> Iterable[List[Part]]:
    """Parts that are each too narrow to see are drawn as one."""
    group: List[Part] = []
    for part in whole:
        narrow = (part.end - part.start) * scale < 4
        if group and not (narrow and (group[-1].end - group[-1].start) * scale < 4):
            yield group
            group = []
        group.append(part)
    if group:
        yield group


def _about(group: Sequence[Part], drawing: Drawing) -> str:
    part, family = group[0], drawing.prefix.family
    if part.prefix is not None:
        return f"{part.prefix} {part.holder} ({WORDS[part.kind]})"
    return f"{WORDS[part.kind]}: {amount(part, drawing.pool, family)} from {address_text(family, part.start)}"


def _inscribed(part: Part, x: float, y: int, width: float) -> Iterable[str]:
    """The name in a block, and its prefix below where both have room."""
    name = part.holder or (WORDS[part.kind] if part.kind == RESERVED else "")
    room = int((width - 8) / SIGN)
    if not name or room < 2:
        return
    name = name if len(name) <= room else name[: room - 1] + "…"
    prefix = str(part.prefix) if part.prefix else ""
    if prefix and len(prefix) * 5.9 > width - 6:
        prefix = f"/{prefix.partition('/')[2]}"
    yield _label(round(x, 2), y + (17 if prefix else 25), name, "", "middle")
    if prefix:
        yield _label(round(x, 2), y + 31, prefix, "small", "middle")


def _legend(y: int, used: Set[str]) -> Iterable[str]:
    x = float(LEFT)
    for kind in FILL:
        if kind in used:
            yield f'<rect class="{kind}" x="{x:g}" y="{y - 11}" width="14" height="14" rx="3"/>'
            yield _label(x + 20, y, WORDS[kind], "quiet")
            x += 44 + len(WORDS[kind]) * 6
