# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Wrong inputs and exactly what is said about them. Values go through YAML and the module, as they do for a user."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.dn42.compose.plugins.module_utils._address_plan.model import Refused
from ansible_collections.dn42.compose.plugins.modules import address_blocks

GOOD = """
pools: [{name: dn42, ipv4: ["172.23.255.0/26"], ipv6: ["fd99:4242:1::/48"], block_size: {ipv4: 29, ipv6: 64}}]
holders: [fra1, {name: hkg1}]
offsets: {gateway: 2, router: 3, dns: 4, looking_glass: 5}
"""


def run(path: Path, source: str) -> dict[str, Any]:
    """Run the module with a request in YAML, which is laid over a good one."""
    values = {**yaml.safe_load(GOOD), "store": {"path": str(path)}, **yaml.safe_load(source)}
    checked = ArgumentSpecValidator(address_blocks.ARGUMENT_SPEC).validate(values)
    assert checked.error_messages == []
    return address_blocks.run(checked.validated_parameters, True).values


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plan in which old1 has the first block."""
    path = tmp_path_factory.mktemp("plan") / "addresses.yml"
    values = {**yaml.safe_load(GOOD), "holders": ["old1"], "store": {"path": str(path)}}
    address_blocks.run(ArgumentSpecValidator(address_blocks.ARGUMENT_SPEC).validate(values).validated_parameters, False)
    return path


def faults(path: Path, source: str) -> list[str]:
    with pytest.raises(Refused) as refusal:
        run(path, source)
    return [str(fault).replace(str(path), "PLAN") for fault in refusal.value.faults]


def four(value: str) -> str:
    return f"pools: [{{name: dn42, ipv4: [{value}], block_size: {{ipv4: 29}}}}]"


def six(value: str) -> str:
    return f"pools: [{{name: dn42, ipv6: [{value}], block_size: {{ipv6: 64}}}}]"


def more(value: str) -> str:
    return f"pools: [{{name: dn42, ipv4: [172.23.255.0/26], block_size: {{ipv4: 29}}, {value}}}]"


NUMBER = "YAML made a number of it, put it in quotes and write it in full, such as"
CASES = [
    # YAML's accidents (B62)
    (four("172.20"), f'pools[0].ipv4[0]: 172.2: {NUMBER} "172.23.255.0/26"'),
    (four("17220"), f'pools[0].ipv4[0]: 17220: {NUMBER} "172.23.255.0/26"'),
    (six("2001:10:20:30:40:50:10:20"), f'pools[0].ipv6[0]: 5602001869620620: {NUMBER} "fd99:4242:1::/48"'),
    (six("fd99::"), 'pools[0].ipv6[0]: {"fd99:": null}: YAML made a mapping of it (it ends in a colon), put it in quotes, such as "fd99:4242:1::/48"'),
    (four("on"), 'pools[0].ipv4[0]: true: YAML made a boolean of it (yes, no, on and off are booleans), put it in quotes, such as "172.23.255.0/26"'),
    (four("~"), 'pools[0].ipv4[0]: null: is empty or null, put the text in quotes, such as "172.23.255.0/26"'),
    (four("[172.23.255.0/26]"), 'pools[0].ipv4[0]: ["172.23.255.0/26"]: is a list where one text belongs, such as "172.23.255.0/26"'),
    ("holders: [{name: 010}]", 'holders[0].name: 8: YAML made a number of it, put it in quotes and write it in full, such as "fra1"'),
    ("holders: [1_000]", 'holders[0]: 1000: YAML made a number of it, put it in quotes and write it in full, such as "fra1"'),
    ("holders: [{name: null}]", 'holders[0].name: null: is empty or null, put the text in quotes, such as "fra1"'),
    ("holders: [{name: on}]", 'holders[0].name: true: YAML made a boolean of it (yes, no, on and off are booleans), put it in quotes, such as "fra1"'),
    # spellings of IPv4 (B72)
    (four("172.23.255.010/27"), 'pools[0].ipv4[0]: "172.23.255.010/27": has a leading zero, which some programs read as octal, write 172.23.255.10 if that is meant'),
    (four("172.23.255"), 'pools[0].ipv4[0]: "172.23.255": is no address, an IPv4 address is four decimal numbers with dots, such as 172.23.255.0'),
    (four("172.23/16"), 'pools[0].ipv4[0]: "172.23/16": is no address, an IPv4 address is four decimal numbers with dots, such as 172.23.255.0'),
    (four("0xac17ff00/26"), 'pools[0].ipv4[0]: "0xac17ff00/26": is no address, an IPv4 address is four decimal numbers with dots, such as 172.23.255.0'),
    (
        four("'\uff11\uff17\uff12.23.255.0/26'"),
        'pools[0].ipv4[0]: "\uff11\uff17\uff12.23.255.0/26": is no address, an IPv4 address is four decimal numbers with dots, such as 172.23.255.0',
    ),
    (four("172.23.256.0/26"), 'pools[0].ipv4[0]: "172.23.256.0/26": has a number above 255'),
    (four("172.23.255.0/255.255.255.192"), 'pools[0].ipv4[0]: "172.23.255.0/255.255.255.192": has a mask behind the slash, write the length as a number, such as /26'),
    (four("172.23.255.0/0.0.0.31"), 'pools[0].ipv4[0]: "172.23.255.0/0.0.0.31": has a mask behind the slash, write the length as a number, such as /26'),
    (four("172.23.255.0/026"), 'pools[0].ipv4[0]: "172.23.255.0/026": has no valid length, write a number from 0 to 32 without leading zeros'),
    (four("172.23.255.0/33"), 'pools[0].ipv4[0]: "172.23.255.0/33": has no valid length, write a number from 0 to 32 without leading zeros'),
    (four("172.23.255.0/+26"), 'pools[0].ipv4[0]: "172.23.255.0/+26": has no valid length, write a number from 0 to 32 without leading zeros'),
    (four("172.23.255.0/"), 'pools[0].ipv4[0]: "172.23.255.0/": has no valid length, write a number from 0 to 32 without leading zeros'),
    (four("172.23.255.0"), 'pools[0].ipv4[0]: "172.23.255.0": has no length, write address and length, such as "172.23.255.0/26"'),
    (four("172.23.255.1/26"), 'pools[0].ipv4[0]: "172.23.255.1/26": has bits set behind the length; the network is 172.23.255.0/26'),
    (four("''"), 'pools[0].ipv4[0]: "": is empty, write a prefix such as "172.23.255.0/26"'),
    (four("'fd99::/48'"), 'pools[0].ipv4[0]: "fd99::/48": is an IPv6 prefix under ipv4, move it to ipv6'),
    # spellings of IPv6 (B71)
    (six("'::ffff:172.23.255.0/122'"), 'pools[0].ipv6[0]: "::ffff:172.23.255.0/122": is an IPv4 address written as IPv6, write it under ipv4 as a dotted quad'),
    (six("'fd99::/ffff:ffff:ffff::'"), 'pools[0].ipv6[0]: "fd99::/ffff:ffff:ffff::": has a mask behind the slash, write the length as a number, such as /48'),
    (six("'fd99::/048'"), 'pools[0].ipv6[0]: "fd99::/048": has no valid length, write a number from 0 to 128 without leading zeros'),
    (six("'fe80::%eth0/64'"), 'pools[0].ipv6[0]: "fe80::%eth0/64": has a zone (%), a prefix has none'),
    (six("'fd99:::1/64'"), 'pools[0].ipv6[0]: "fd99:::1/64": is no IPv6 address'),
    (six("172.23.255.0/26"), 'pools[0].ipv6[0]: "172.23.255.0/26": is an IPv4 prefix under ipv6, move it to ipv4'),
    # pools
    ("pools: []", 'pools: []: must be a list of at least one pool, such as [{name: dn42, ipv4: ["172.23.255.0/26"], block_size: {ipv4: 29}}]'),
    ("pools: [{name: dn42, ipv4: '172.23.255.0/26', block_size: {ipv4: 29}}]", 'pools[0].ipv4: "172.23.255.0/26": must be a list, such as ["172.23.255.0/26"]'),
    ("pools: [{name: dn42, ipv4: [172.23.255.0/26]}]", "pools[0].block_size.ipv4: null: must be a prefix length from 26 to 32, such as 29, without quotes or slash"),
    (
        "pools: [{name: dn42, ipv4: [172.23.255.0/26], block_size: {ipv4: '/29'}}]",
        'pools[0].block_size.ipv4: "/29": must be a prefix length from 26 to 32, such as 29, without quotes or slash',
    ),
    (
        "pools: [{name: dn42, ipv4: [172.23.255.0/26], block_size: {ipv4: 25}}]",
        "pools[0].block_size.ipv4: 25: must be a prefix length from 26 to 32, such as 29, without quotes or slash",
    ),
    (
        "pools: [{name: dn42, ipv4: [172.23.255.0/26], blocksize: 29, block_size: {ipv4: 29}}]",
        "pools[0].blocksize: 29: unknown key, do you mean block_size? known are name, ipv4, ipv6, block_size, reserved, purpose, placement, aggregates",
    ),
    (four("172.23.255.0/26, 172.23.255.32/27"), 'pools[0].ipv4: "172.23.255.32/27": overlaps 172.23.255.0/26 of pool dn42, an address belongs to one pool only once'),
    (six("'fd99:4242:1::/48', 'FD99:4242:0001:0::/48'"), 'pools[0].ipv6: "fd99:4242:1::/48": overlaps fd99:4242:1::/48 of pool dn42, an address belongs to one pool only once'),
    (
        "pools: [{name: a, ipv4: [172.23.255.0/26], block_size: {ipv4: 29}}, {name: a, ipv4: [172.23.254.0/26], block_size: {ipv4: 29}}]",
        'pools[1].name: "a": is the name of another pool (pools[0].name)',
    ),
    (
        "pools: [{name: dn42, ipv4: [172.23.255.0/26], block_size: {ipv4: 29}, reserved: [172.23.254.0/29]}]",
        'pools[0].reserved: "172.23.254.0/29": is not inside the pool, reserve only parts of its prefixes',
    ),
    # holders and pins
    ("holders: fra1", 'holders: "fra1": must be a list of names or of mappings such as {name: fra1}'),
    ("holders: [fra1, {name: fra1}]", 'holders[1]: "fra1": is asked for twice, a holder is named once (holders[0])'),
    ("holders: [{name: fra1, pool: other}]", 'holders[0].pool: "other": no such pool, there are dn42'),
    ("holders: ['fra 1']", 'holders[0]: "fra 1": a name is not empty and has no blanks or control characters'),
    ("holders: [{name: fra1, pins: {}}]", "holders[0].pins: {}: unknown key, do you mean pin? known are name, pool, size, pin"),
    ("holders: [{name: fra1, pin: 172.23.255.0/29}]", 'holders[0].pin: "172.23.255.0/29": must be a mapping with the keys ipv4, ipv6'),
    ("holders: [{name: fra1, pin: {ipv4: 172.23.255.4/29}}]", 'holders[0].pin.ipv4: "172.23.255.4/29": has bits set behind the length; the network is 172.23.255.0/29'),
    ("pins: {nrt1: {ipv4: 172.23.255.0/29}}", 'pins.nrt1: {"ipv4": "172.23.255.0/29"}: nobody of that name is among the holders'),
    # offsets (B73)
    ("offsets: {host: 1}", "offsets.host: 1: host is always 1, the bridge address that Docker takes on the node"),
    ("offsets: {router: 1}", "offsets.router: 1: is reserved for the bridge address that Docker takes on the node, start at 2"),
    ("offsets: {router: 2, dns: 2}", "offsets.dns: 2: is the offset of router, every service has its own"),
    ("offsets: {dns: '4'}", 'offsets.dns: "4": must be a number from 2 on, without quotes'),
    ("offsets: {dns: true}", "offsets.dns: true: must be a number from 2 on, without quotes"),
    ("offsets: {on: 4}", "offsets.True: 4: the name of a service starts with a letter and has letters, digits, _ and -"),
    ("offsets: [4]", "offsets: [4]: must be a mapping of service names to numbers, such as {dns: 4}"),
    # purposes, placements, aggregates
    (more("purpose: Anycast"), 'pools[0].purpose: "Anycast": must be node, anycast, loopback or a word of your own in small letters'),
    (more("purpose: yes"), "pools[0].purpose: true: must be node, anycast, loopback or a word of your own in small letters"),
    (more("placement: growabel"), 'pools[0].placement: "growabel": do you mean growable? must be one of compact, growable'),
    (more("aggregates: [172.23.254.0/24]"), 'pools[0].aggregates: "172.23.254.0/24": holds no prefix of the pool, name the registered prefixes that the pool is part of'),
    (
        "pools: [{name: a, ipv4: [172.23.254.0/26, 172.23.255.0/26], block_size: {ipv4: 29}, aggregates: [172.23.255.0/24]}]",
        'pools[0].ipv4: "172.23.254.0/26": is in none of the pool\'s aggregates, add the registered prefix that it is part of',
    ),
    # sizes
    ("sizes: {fra1: {ipv4: 25}}", "sizes.fra1.ipv4: 25: must be a prefix length from 26 to 32, such as 29, without quotes or slash"),
    ("sizes: {fra1: {ipv4: '28'}}", 'sizes.fra1.ipv4: "28": must be a prefix length from 26 to 32, such as 29, without quotes or slash'),
    ("sizes: {fra1: {ip4: 28}}", "sizes.fra1.ip4: 28: unknown key, do you mean ipv4? known are ipv4, ipv6"),
    ("sizes: {frq1: {ipv4: 28}}", 'sizes.frq1: {"ipv4": 28}: nobody of that name is among the holders; do you mean fra1?'),
    ("sizes: [fra1]", 'sizes: ["fra1"]: must be a mapping of names, such as {fra1: {ipv4: 28}}'),
    ("pools: [{name: a, ipv4: [172.23.255.0/26], block_size: {ipv4: 29}}]\nsizes: {fra1: {ipv6: 64}}", "sizes.fra1.ipv6: 64: pool a has no ipv6"),
    (
        "sizes: {fra1: {ipv4: 28}}\npins: {fra1: {ipv4: 172.23.255.16/29}}",
        "sizes.fra1.ipv4: 28: and pins.fra1 says 172.23.255.16/29; a pin is adopted with the size that it has, so leave one of them out",
    ),
    ("holders: [{name: fra1, size: {ipv4: 28}}]\nsizes: {fra1: {ipv4: 28}}", 'holders[0].size: {"ipv4": 28}: is said a second time in sizes.fra1, keep one'),
    # too small for what is in it (B67, B73)
    ("sizes: {fra1: {ipv4: 30}}", "offsets.router: 3: a /30 (sizes.fra1.ipv4) has host offsets 1 to 2; a /29 would do"),
    ("pins: {fra1: {ipv4: 172.23.255.32/31}}", "offsets.host: 1: a /31 (pins.fra1.ipv4) has no host offset; a /30 would do"),
    ("pins: {fra1: {ipv6: 'fd99:4242:1:ff::/127'}}", "offsets.gateway: 2: a /127 (pins.fra1.ipv6) has host offsets 1 to 1; a /126 would do"),
    ("offsets: {web: 200}", "offsets.web: 200: a /29 (pools[0].block_size.ipv4) has host offsets 1 to 6; a /24 would do"),
    # pins
    ("pins: {fra1: {ipv4: 172.23.254.0/29}}", 'pins.fra1.ipv4: "172.23.254.0/29": is not inside pool dn42 (172.23.255.0/26)'),
    ("pins: {fra1: {ipv6: '::ffff:172.23.255.0/125'}}", 'pins.fra1.ipv6: "::ffff:172.23.255.0/125": is an IPv4 address written as IPv6, write it under ipv4 as a dotted quad'),
    (
        "pins: {fra1: {ipv6: 'FD99:4242:1:9:0:0:0:0/64'}, hkg1: {ipv6: 'fd99:4242:0001:9::/64'}}",
        'pins.hkg1.ipv6: "fd99:4242:1:9::/64": fd99:4242:1:9::/64 is pinned for fra1',
    ),
    ("pins: {true: {ipv4: 172.23.255.0/29}}", 'pins: true: YAML made a boolean of it (yes, no, on and off are booleans), put it in quotes, such as "fra1"'),
    # releases and renumbering; old1 is in the plan and not asked for
    (
        "release: {fra1: [172.23.255.0/29]}\nholders: [fra1, old1]",
        'release.fra1: "172.23.255.0/29": fra1 is still asked for (holders[0]); take it out of the inventory first, or out of this list',
    ),
    (
        "release: {old1: [172.23.255.8/29]}",
        'release.old1: "172.23.255.8/29": old1 has 172.23.255.0/29, fd99:4242:1::/64 in the plan; name exactly this if nothing of it is in use any more',
    ),
    ("release: {old1: 172.23.255.0/29}", 'release.old1: "172.23.255.0/29": must be a list, such as ["172.23.255.0/26"]'),
    ("release: {old1: []}", "release.old1: []: names no prefix; name those that you expect it to have, so that nothing else is given up by mistake"),
    ("release: [old1]", 'release: ["old1"]: must be a mapping of names, such as {fra1: ["172.23.255.0/26"]}'),
    ("renumber: [hkg11]", 'renumber[0]: "hkg11": nobody of that name is among the holders; do you mean hkg1?'),
    ("renumber: fra1", 'renumber: "fra1": must be a list, such as ["fra1"]'),
    # what is there already
    ("in_use: [{host: fra1, prefix: 172.23.255.9/29, what: x}]", 'in_use[0].prefix: "172.23.255.9/29": has bits set behind the length; the network is 172.23.255.8/29'),
    (
        "adopt: {fra1: [172.23.255.32/28]}",
        'adopt.fra1: "172.23.255.32/28": is a /28, and fra1 is to have a /29; say what it keeps with the size {ipv4: 28} (in an inventory dn42_address_plan_size)',
    ),
    ("adopt: {fra1: [172.23.255.32/29, 172.23.255.48/29]}", 'adopt.fra1: ["172.23.255.32/29", "172.23.255.48/29"]: are 2 networks of fra1 in pool dn42; pin the one that it keeps'),
    (
        "adopt: {fra1: [172.23.255.0/29]}",
        'adopt.fra1.ipv4: "172.23.255.0/29": 172.23.255.0/29 belongs to old1 (held: no longer asked for; release it if nobody uses it) (PLAN line 6)',
    ),
    ("adopt: {frq1: [172.23.255.32/29]}", 'adopt.frq1: ["172.23.255.32/29"]: nobody of that name is among the holders; do you mean fra1?'),
    # names, profile, store
    ("domain: on", 'domain: true: YAML made a boolean of it (yes, no, on and off are booleans), put it in quotes, such as "example.dn42"'),
    ("domain: exa mple.dn42", "domain: \"exa mple.dn42\": gives the label 'exa mple', and DNS takes 1 to 63 of a-z, 0-9 and '-', with '-' neither first nor last"),
    (
        "profile: dn42\n" + four("10.127.8.0/24"),
        'pools[0].ipv4: "10.127.8.0/24": belongs to NeoNetwork (10.127.0.0/16), whose routes DN42 takes from them alone; use a prefix that the DN42 registry gave you',
    ),
    ("store: {path: plan/addresses.yml}", 'store.path: "plan/addresses.yml": must be absolute, such as /srv/dn42/addresses.yml'),
]


@pytest.mark.parametrize(("source", "expected"), CASES, ids=[case[0] for case in CASES])
def test_wrong_input(plan: Path, source: str, expected: str) -> None:
    before = plan.read_bytes()
    assert expected in faults(plan, source)
    assert plan.read_bytes() == before


def test_good_input_has_no_faults(plan: Path) -> None:
    assert run(plan, "{}")["changed"]
    assert run(plan, "pins: {fra1: {ipv4: 172.23.255.8/29}, hkg1: {}}\nsizes: {hkg1: {ipv4: 28}}")["blocks"]["hkg1"]["ipv4"]["prefix_length"] == 28


def test_all_faults_at_once_in_a_stable_order(plan: Path) -> None:
    source = """
pools: [{name: no, ipv4: [172.20, 172.23.255.1/26], block_size: {ipv4: 29}}]
holders: [1, a b]
offsets: {dns: 1, web: x}
release: {old1: x}
domain: on
"""
    found = faults(plan, source)
    keys = ["pools[0].name", "pools[0].ipv4[0]", "pools[0].ipv4[1]", "holders[0]", "holders[1]", "offsets.dns", "offsets.web", "release.old1", "domain"]
    assert [fault.partition(": ")[0] for fault in found] == keys
    assert faults(plan, source) == found
