# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""daemon.json is edited in place, and what each version of Docker needs is known."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.dn42.compose.plugins.module_utils import _docker_daemon as daemon_json
from hypothesis import given, settings
from hypothesis import strategies as st

USERS = """{
  "registry-mirrors": ["https://mirror.example.net"],
  "log-opts": {
    "max-file": "3",
    "tag": "caf\\u00e9 \u00e9"
  },
  "max-concurrent-downloads": 1e1,
  "default-address-pools": [ {"base":"192.168.0.0/16", "size":24} ],
\t"live-restore" : true
}
"""

scalars = st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8)
keys = st.text(alphabet='ab-"\\é: {,}', min_size=1, max_size=4)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=8)
objects = st.dictionaries(keys, values, max_size=5)
layouts = st.sampled_from([{}, {"indent": 2}, {"indent": "\t"}, {"separators": (",", ":")}, {"indent": 4, "ensure_ascii": False}])


def in_order(text: str) -> Any:
    """A file's content with the order of keys in it, numbers as written."""
    return json.loads(text, object_pairs_hook=lambda pairs: pairs, parse_float=lambda word: ("float", word), parse_int=lambda word: ("int", word))


@settings(max_examples=100, deadline=None)
@given(objects, layouts, st.lists(keys, min_size=1, max_size=3), values)
def test_setting_a_value_leaves_everything_else(before: dict, layout: dict, path: list[str], value: Any) -> None:
    text = json.dumps(before, **layout)
    edited = daemon_json.set_value(text, path, value)
    assert daemon_json.get(daemon_json.tree(edited), path) == (True, value)
    # All but the key that leads to it: the same pairs, in the same order, written the same way.
    old, new = in_order(text), in_order(edited)
    assert [pair for pair in new if pair[0] != path[0]] == [pair for pair in old if pair[0] != path[0]]
    assert [pair[0] for pair in new] == [pair[0] for pair in old] + ([] if path[0] in before else [path[0]])
    assert daemon_json.set_value(edited, path, value) == edited


@settings(max_examples=100, deadline=None)
@given(objects.filter(bool), layouts, objects)
def test_what_was_merged_can_be_taken_back_byte_for_byte(before: dict, layout: dict, wanted: dict) -> None:
    """Nothing of the user's is replaced here: his file comes back as he wrote it."""
    wanted = {key: value for key, value in wanted.items() if key not in before}
    text = json.dumps(before, **layout)
    merged = daemon_json.merge(text, wanted, [])
    tree = daemon_json.tree(merged.text)
    assert all(daemon_json.same(tree[key], value) for key, value in {**before, **wanted}.items())
    again = daemon_json.merge(merged.text, wanted, merged.memory)
    assert (again.text, again.set, again.removed) == (merged.text, [], [])
    assert daemon_json.merge(merged.text, {}, merged.memory).text == text


def test_objects_are_merged_and_the_style_is_kept() -> None:
    merged = daemon_json.merge(USERS, {"log-opts": {"max-size": "10m"}, "debug": False}, [])
    lines = USERS.splitlines()
    lines[4] += ","
    lines[5:5] = ['    "max-size": "10m"']
    lines[-2] += ","
    lines[-1:-1] = ['\t"debug": false']
    assert merged.text.splitlines() == lines
    assert merged.set == [("log-opts", "max-size"), ("debug",)]
    assert daemon_json.merge(merged.text, {}, merged.memory).text == USERS


def test_values_of_the_user_come_back_as_written_unless_changed_meanwhile() -> None:
    text = '{"labels": [ "a","b"], "mtu": 15e2}'
    merged = daemon_json.merge(text, {"labels": ["c"], "mtu": 1400}, [])
    assert merged.text == '{"labels": ["c"], "mtu": 1400}'
    assert daemon_json.merge(merged.text, {}, merged.memory).text == text
    assert daemon_json.merge(merged.text.replace("1400", "1300"), {}, merged.memory).text == '{"labels": [ "a","b"], "mtu": 1300}'


def test_a_setting_that_the_user_had_is_his() -> None:
    merged = daemon_json.merge('{"live-restore": true}', {"live-restore": True}, [])
    assert (merged.memory, merged.set) == ([], [])


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", '{\n    "a": 1\n}\n'),
        ("\n", '{\n    "a": 1\n}\n'),
        ("{}", '{\n    "a": 1\n}'),
        ("\ufeff{}\n", '\ufeff{\n    "a": 1\n}\n'),
        ('{"b":2}', '{"b":2,"a":1}'),
        ('{"b": 2}', '{"b": 2, "a": 1}'),
        ('{\r\n  "b": 2\r\n}\r\n', '{\r\n  "b": 2,\r\n  "a": 1\r\n}\r\n'),
        ('{"a": 2, "a": 3}', '{"a": 2, "a": 1}'),
        ('{"a": true}', '{"a": 1}'),
        ('{"a": 1.0}', '{"a": 1}'),
    ],
)
def test_layouts(before: str, after: str) -> None:
    assert daemon_json.set_value(before, ("a",), 1) == after


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (b'{\n  "debug": true,\n}\n', "line"),
        (b'{\n  "debug": true\n  "mtu": 1400\n}\n', "line 3, column 3"),
        (b'{\n  // note\n  "debug": true\n}\n', "line 2, column 3"),
        (b"{'debug': true}", "line 1, column 2"),
        (b'{"a": 1} x', "line 1, column 10"),
        (b'{"a": NaN}', "NaN is no value"),
        (b'{"a": "caf\xe9",\n "b": 1}', "line 1"),
        (b'{"a": "x\ty"}', "line 1"),
        (b"[]", "list where an object"),
        (b"\xff\xfe{\x00}\x00", "not UTF-8"),
    ],
)
def test_broken_file_is_refused_with_the_place(content: bytes, place: str) -> None:
    with pytest.raises(daemon_json.DaemonFileError, match=place) as caught:
        daemon_json.decode(content, "/etc/docker/daemon.json")
    assert "/etc/docker/daemon.json" in str(caught.value)
    assert "untouched" in str(caught.value)


@pytest.mark.parametrize(
    ("version", "wanted", "current", "written"),
    [
        ((20, 10, 24), {"ip6tables": True}, {}, {"ip6tables": True, "experimental": True}),
        ((26, 1, 5), {"ip6tables": True}, {}, {"ip6tables": True, "experimental": True}),
        ((26, 1, 5), {"ip6tables": False}, {}, {"ip6tables": False}),
        ((27, 0), {"ip6tables": True}, {}, {}),
        ((29, 9), {"ip6tables": True}, {"ip6tables": False}, {"ip6tables": True}),
        ((28, 2), {"ip-forward-no-drop": True}, {}, {"ip-forward-no-drop": True}),
        ((), {"ip-forward-no-drop": True, "ip6tables": True}, {}, {"ip-forward-no-drop": True, "ip6tables": True}),
        *(((major,), {}, {"userland-proxy": False}, {}) for major in (24, 25, 26, 27, 28, 29)),
    ],
)
def test_what_a_version_needs(version: tuple[int, ...], wanted: dict, current: dict, written: dict) -> None:
    assert daemon_json.for_version(wanted, current, version) == written


def test_experimental_goes_with_the_version_that_needed_it() -> None:
    """B10: on 27 what was written for 26 is taken out again, unless the user had it."""
    for before in ("{}\n", '{"experimental": true}\n'):
        wanted = daemon_json.for_version({"ip6tables": True}, {}, (26, 1, 5))
        merged = daemon_json.merge(before, wanted, [])
        assert daemon_json.tree(merged.text) == {"ip6tables": True, "experimental": True}
        wanted = daemon_json.for_version({"ip6tables": True}, daemon_json.tree(merged.text), (27, 5))
        upgraded = daemon_json.merge(merged.text, wanted, merged.memory)
        assert daemon_json.tree(upgraded.text).get("experimental", False) is (before != "{}\n")


@pytest.mark.parametrize(("version", "key"), [((27, 5), "ip-forward-no-drop"), ((28, 5), "firewall-backend")])
def test_setting_that_this_version_does_not_know(version: tuple[int, ...], key: str) -> None:
    with pytest.raises(daemon_json.DaemonFileError, match=f"{key} came with"):
        daemon_json.for_version({key: "x"}, {}, version)


def test_pools_of_the_user_stay_and_come_first() -> None:
    ours = [{"base": "192.168.128.0/18", "size": 24}, {"base": "10.200.0.0/16", "size": 24}]
    assert daemon_json.merged_pools(None, ours) == ours
    assert daemon_json.merged_pools([{"base": "192.168.0.0/16", "size": 20}], ours) == [{"base": "192.168.0.0/16", "size": 20}, ours[1]]
    assert daemon_json.merged_pools(ours, ours) == ours


def test_pools_of_the_user_in_dn42_are_told_and_stay() -> None:
    found = daemon_json.notices({"default-address-pools": [{"base": "172.16.0.0/12", "size": 24}, {"base": "10.0.0.0/16", "size": 24}]}, (26,), [])
    assert len(found) == 1
    assert "172.20.0.0/14" in found[0]


@pytest.mark.parametrize(("version", "told"), [((26, 1, 5), True), ((27, 0), False), ((), False)])
def test_pool_that_eats_memory(version: tuple[int, ...], told: bool) -> None:
    """B17, with the report's own pool."""
    pools = {"default-address-pools": [{"base": "fd99:4242:9001::/48", "size": 80}]}
    assert any("until memory runs out" in text for text in daemon_json.notices(pools, version, [])) is told
    assert any("fd99:4242:9001::/48" in text for text in daemon_json.notices(pools, version, ["fd99:4242:9001::/48"]))


@pytest.mark.parametrize("base", ["172.20.0.0/16", "172.0.0.0/8", "fd99:4242:1:5::/64", "192.168.0.1/16", "nonsense"])
def test_wanted_pool_that_is_refused(base: str) -> None:
    with pytest.raises(daemon_json.DaemonFileError, match="dn42_docker_address_pools"):
        daemon_json.check_pools([{"base": base, "size": 64 if ":" in base else 24}], ["fd99:4242:1::/48"])


def test_wanted_pool_with_a_size_that_is_none() -> None:
    daemon_json.check_pools([{"base": "192.168.128.0/18", "size": 24}], [])
    with pytest.raises(daemon_json.DaemonFileError, match="from 18 to 30"):
        daemon_json.check_pools([{"base": "192.168.128.0/18", "size": 16}], [])


@pytest.mark.parametrize(
    ("found", "version", "uses"),
    [({}, (26,), False), ({}, (27,), True), ({"ip6tables": False}, (28,), False), ({"ip6tables": True}, (26,), True), ({"iptables": False}, (28,), False)],
)
def test_who_uses_ip6tables(found: dict, version: tuple[int, ...], uses: bool) -> None:
    assert daemon_json.uses_ip6tables(found, version) is uses


RELOADED = (
    r'time="2026-11-25T10:13:34.931175405Z" level=info msg="Reloaded configuration: {\"live-restore\":true,\"mtu\":1400,\"bip\":\"10.9.8.1/24\",'
    r"\"default-address-pools\":{\"Values\":[{\"base\":\"192.168.128.0/18\",\"size\":24}]},\"experimental\":false}" + '"'
)


def test_the_daemons_own_account() -> None:
    """As Docker 26.1.5 logs it after its file was changed from bip 10.9.8.1/24 to another: a reload does not take that over."""
    running = daemon_json.parse_reloaded(RELOADED)
    assert running is not None
    assert daemon_json.in_force("bip", (True, "10.9.8.1/24"), running)
    assert not daemon_json.in_force("bip", (True, "10.9.7.1/24"), running)
    assert daemon_json.in_force("default-address-pools", (True, [{"size": 24, "base": "192.168.128.0/18"}]), running)
    assert daemon_json.in_force("icc", (True, False), running)
    assert not daemon_json.in_force("log-opts", (True, {"max-size": "1m"}), running)
    logged = json.dumps({"level": "info", "msg": 'Reloaded configuration: {"mtu":1400}'})
    assert daemon_json.parse_reloaded(logged) == {"mtu": 1400}
    assert daemon_json.parse_reloaded("something else") is None


@pytest.mark.parametrize(
    ("key", "new", "known", "edited", "expected"),
    [
        ("mtu", {"mtu": 1400}, {"mtu": (True, 1400)}, [], ([], [], [])),
        ("mtu", {"mtu": 1400}, {"mtu": (False, None)}, [], ([], ["mtu"], [])),
        ("mtu", {"mtu": 1400}, {"mtu": (True, 1400)}, ["mtu"], ([], [], [])),
        ("mtu", {"mtu": 1400}, {}, [], ([], ["mtu"], ["mtu"])),
        ("mtu", {}, {"mtu": (True, 1400)}, ["mtu"], ([], ["mtu"], [])),
        ("debug", {"debug": True}, {"debug": (True, True)}, ["debug"], (["debug"], [], [])),
        ("debug", {"debug": True}, {}, [], (["debug"], [], ["debug"])),
    ],
)
def test_reload_restart_or_nothing(key: str, new: dict, known: dict, edited: list[str], expected: tuple) -> None:
    assert daemon_json.sort_out([key], new, known, edited) == expected


def test_a_reload_is_shown_what_was_taken_out() -> None:
    """Docker keeps a reloadable setting that is no more in the file, so the reload sees it switched off."""
    assert daemon_json.tree(daemon_json.for_reload('{"mtu": 1}', ["live-restore", "mtu"])) == {"mtu": 1, "live-restore": False}
