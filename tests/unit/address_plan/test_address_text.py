# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Wrong inputs and what is said about them. Values that come from YAML go through YAML, as they do for a user."""

from __future__ import annotations

import ipaddress
from typing import Any

import netaddr
import pytest
import yaml
from ansible_collections.dn42.compose.plugins.module_utils import _address_plan as engine
from ansible_collections.dn42.compose.plugins.module_utils import _address_text as text
from hypothesis import given
from hypothesis import strategies as st

GOOD = """
pools: [{name: dn42, ipv4: ["172.23.255.0/26"], ipv6: ["fd99:4242:1::/48"], block_size: {ipv4: 29, ipv6: 64}}]
holders: [fra1, {name: hkg1}]
offsets: {gateway: 2, router: 3, dns: 4, looking_glass: 5}
"""


def faults(source: str) -> list[str]:
    """All faults of a request in YAML, which is laid over a good one."""
    values: dict[str, Any] = {**yaml.safe_load(GOOD), **yaml.safe_load(source)}
    wanted = text.read_request(values["pools"], values["holders"], values["offsets"], values.get("pins"))
    return [str(fault) for fault in wanted.faults]


def four(value: str) -> str:
    return f"pools: [{{name: dn42, ipv4: [{value}], block_size: {{ipv4: 29}}}}]"


def six(value: str) -> str:
    return f"pools: [{{name: dn42, ipv6: [{value}], block_size: {{ipv6: 64}}}}]"


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
    ("pools: [{name: dn42, ipv4: [172.23.255.0/26], size: 29, block_size: {ipv4: 29}}]", "pools[0].size: 29: unknown key, known are name, ipv4, ipv6, block_size, reserved"),
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
    ("holders: [{name: fra1, pins: {}}]", "holders[0].pins: {}: unknown key, known are name, pool, pin"),
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
]


@pytest.mark.parametrize(("source", "expected"), CASES, ids=[case[0] for case in CASES])
def test_wrong_input(source: str, expected: str) -> None:
    assert expected in faults(source)


def test_good_input_has_no_faults() -> None:
    assert faults("{}") == []
    assert faults("pins: {fra1: {ipv4: 172.23.255.8/29}, hkg1: {}}") == []


def test_all_faults_at_once() -> None:
    source = "pools: [{name: no, ipv4: [172.20, 172.23.255.1/26], block_size: {ipv4: 29}}]\nholders: [1, a b]\noffsets: {dns: 1, web: x}"
    assert len(faults(source)) == 7


SPELLINGS = ["FD99:4242:9001:0:0:0:0:0/64", "fd99:4242:9001::/64", "fd99:4242:9001:0::/64", " fd99:4242:9001::/64 ", "FD99:4242:9001:0000::0/64"]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_one_prefix_of_many_spellings(spelling: str) -> None:
    assert str(text.read_prefix(spelling)) == "fd99:4242:9001::/64"


@given(st.integers(0, 2**128 - 1), st.integers(0, 128), st.sampled_from(["exploded", "upper", "netaddr"]))
def test_reads_every_spelling_of_ipv6(number: int, length: int, spelling: str) -> None:
    number = number >> (128 - length) << (128 - length)
    if number >> 32 == 0xFFFF:
        return
    address = ipaddress.IPv6Address(number)
    words = {"exploded": address.exploded, "upper": str(address).upper(), "netaddr": str(netaddr.IPAddress(number, version=6))}
    prefix = text.read_prefix(f"{words[spelling]}/{length}", 6)
    assert prefix == engine.Prefix(6, number, length)
    assert str(prefix) == str(ipaddress.IPv6Network((number, length)))


@given(st.one_of(st.text(alphabet="0123456789./:abcdef x", max_size=20), st.text(max_size=8), st.integers(), st.floats(), st.none()))
def test_reads_nothing_that_the_standard_library_refuses(value: Any) -> None:
    try:
        prefix = text.read_prefix(value)
    except text.Unreadable:
        return
    assert isinstance(value, str)
    assert str(ipaddress.ip_network(value.strip(" \t"))) == str(prefix)
