# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Pictures of the pools: what is to be seen on them, and that they stay readable whatever the plan."""

from __future__ import annotations

import ipaddress
from xml.etree import ElementTree

from ansible_collections.dn42.compose.plugins.module_utils._address_plan import picture
from ansible_collections.dn42.compose.plugins.module_utils._address_plan.model import Block, Plan, Pool, Prefix

SVG = "{http://www.w3.org/2000/svg}"


def prefix(text: str) -> Prefix:
    network = ipaddress.ip_network(text)
    return Prefix(network.version, int(network.network_address), network.prefixlen)


NODES = Pool("dn42", {4: (prefix("172.23.255.0/26"),), 6: (prefix("fd99:4242:1::/48"),)}, {4: 29, 6: 64}, (prefix("172.23.255.56/29"), prefix("fd99:4242:1:ff00::/56")))
ANYCAST = Pool("anycast", {4: (prefix("172.23.255.64/28"),)}, {4: 32}, purpose="anycast")
BLOCKS = (
    Block(prefix("172.23.255.0/29"), "fra1", "dn42"),
    Block(prefix("172.23.255.8/29"), "a-long-name.example", "dn42"),
    Block(prefix("172.23.255.16/29"), "lax1", "dn42"),
    Block(prefix("172.23.255.66/32"), 'x<&"y', "anycast"),
    Block(prefix("fd99:4242:1::/64"), "fra1", "dn42"),
)
PLAN = Plan(BLOCKS, (Block(prefix("172.23.255.40/29"), "old1", "dn42", 1),))
ASKED = {("fra1", "dn42"), ("a-long-name.example", "dn42"), ('x<&"y', "anycast")}

EXPECTED = """\
anycast  172.23.255.64/28
  172.23.255.64/29  |..=.....|
                    : free: 8 blocks of /32, 172.23.255.72 to 172.23.255.79

dn42  172.23.255.0/26
  172.23.255.0/26  |[fra1==][a-long][lax1~~]................[old1--]........xxxxxxxx|

dn42  fd99:4242:1::/48
  fd99:4242:1::/61  |[fra1==]........................................................|
                    : free: 65,272 blocks of /64, fd99:4242:1:8:: to fd99:4242:1:feff:ffff:ffff:ffff:ffff
                    : reserved: 256 blocks of /64, fd99:4242:1:ff00:: to fd99:4242:1:ffff:ffff:ffff:ffff:ffff

= in use   ~ held (no longer asked for)   - released   x reserved   . free
"""


def many(count: int, step: int) -> Plan:
    return Plan(tuple(Block(Prefix(4, (10 << 24) + index * step * 8, 29), f"n{index}", "wide") for index in range(count)))


def test_text() -> None:
    assert picture.text(PLAN, [NODES, ANYCAST], ASKED) == EXPECTED


def test_nobody_is_held_when_nobody_says_who_is_asked_for() -> None:
    assert "~" not in picture.text(PLAN, [NODES], None)


def test_text_fits_the_terminal() -> None:
    for width in (40, 60, 80, 120, 200):
        bars = [line for line in picture.text(PLAN, [NODES, ANYCAST], ASKED, width).splitlines() if line.endswith("|")]
        assert len(bars) == 3
        assert all(len(line) <= width for line in bars)


def test_what_is_smaller_than_a_sign_is_told_as_several() -> None:
    pool = Pool("wide", {4: (prefix("10.0.0.0/8"),)}, {4: 29})
    bars = [line for line in picture.text(many(10_000, 2), [pool]).splitlines() if line.endswith("|")]
    assert 1 <= len(bars) <= picture.MOST_ROWS
    assert bars[0].endswith("|" + "%" * 64 + "|")


def test_the_order_of_pools_means_nothing() -> None:
    assert picture.svg(PLAN, [ANYCAST, NODES], ASKED) == picture.svg(PLAN, [NODES, ANYCAST], ASKED)
    assert picture.text(PLAN, [ANYCAST, NODES], ASKED) == picture.text(PLAN, [NODES, ANYCAST], ASKED)


def test_svg_has_every_block_with_its_name() -> None:
    root = ElementTree.fromstring(picture.svg(PLAN, [NODES, ANYCAST], ASKED, title="A & B"))
    assert root.find(f"{SVG}title").text == "A & B"
    titles = [(rect.get("class"), rect.find(f"{SVG}title").text) for rect in root.iter(f"{SVG}rect") if rect.find(f"{SVG}title") is not None]
    assert ("used", "172.23.255.0/29 fra1 (in use)") in titles
    assert ("held", "172.23.255.16/29 lax1 (held (no longer asked for))") in titles
    assert ("released", "172.23.255.40/29 old1 (released)") in titles
    assert ("used", '172.23.255.66/32 x<&"y (in use)') in titles
    labels = [text.text for text in root.iter(f"{SVG}text")]
    assert {"fra1", 'x<&"y', "lax1"} <= set(labels)
    assert "a-long-name.example" not in labels  # cut, since its block is narrower
    assert any(label.startswith("a-long") and label.endswith("…") for label in labels)


def test_svg_bars_are_to_scale_and_inside_of_the_page() -> None:
    root = ElementTree.fromstring(picture.svg(PLAN, [NODES], ASKED))
    bars: dict[str, float] = {}
    for rect in root.iter(f"{SVG}rect"):
        if rect.find(f"{SVG}title") is None:
            continue
        left, width = float(rect.get("x")), float(rect.get("width"))
        assert left >= picture.LEFT
        assert left + width <= picture.WIDTH - picture.RIGHT + 0.01
        bars[rect.get("y")] = bars.get(rect.get("y"), 0) + width
    assert all(abs(total - (picture.WIDTH - picture.LEFT - picture.RIGHT)) < 0.5 for total in bars.values())


def test_svg_of_many_blocks_stays_small() -> None:
    pool = Pool("wide", {4: (prefix("10.0.0.0/8"),)}, {4: 29})
    assert len(picture.svg(many(10_000, 2), [pool])) < 20_000


def test_a_plan_without_pools_is_an_empty_picture() -> None:
    assert picture.text(Plan(), []) == ""
    assert ElementTree.fromstring(picture.svg(Plan(), [])).tag == f"{SVG}svg"
