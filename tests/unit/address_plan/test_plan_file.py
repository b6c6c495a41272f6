# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan file: what is written, what is refused, and what survives."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import threading
from pathlib import Path

import pytest
import yaml
from ansible_collections.dn42.compose.plugins.module_utils import _address_plan as engine
from ansible_collections.dn42.compose.plugins.module_utils import _plan_file as plan_file
from ansible_collections.dn42.compose.plugins.module_utils._address_text import Unreadable, read_name
from hypothesis import assume, given
from hypothesis import strategies as st

TRAPS = ["no", "Y", "on", "null", "~", "1e3", "010", "1_000", "12:30:45", "0x1f", ".nan", "true", "=", "<<", "- a", "a: b", "#x", "{x}", "'", '"', "\\", "é", "日本"]
GOOD = """\
# Address plan of this network, written by dn42.compose.address_blocks.
# Keep it in git. A block belongs to its holder until its line is removed.
---
version: 1
ipv4:
  172.23.255.0/29: {holder: fra1, pool: dn42}
  172.23.255.8/29: {holder: "no", pool: dn42}
ipv6:
  "fd99:4242:1::/64": {holder: fra1, pool: dn42}
...
"""


def readable(name: str) -> bool:
    try:
        return read_name(name) == name
    except Unreadable:
        return False


names = st.one_of(st.sampled_from(TRAPS), st.text(min_size=1, max_size=8)).filter(readable)


@given(st.lists(st.tuples(names, names, st.sampled_from([4, 6]), st.integers(0, 255)), unique_by=(lambda item: item[0], lambda item: item[2:])))
def test_what_is_written_is_read_again(entries: list) -> None:
    base = {4: 0xAC17FF00, 6: 0xFD99 << 112}
    blocks = [engine.Block(engine.Prefix(family, base[family] + number, engine.BITS[family]), holder, pool) for holder, pool, family, number in entries]
    text = plan_file.render(blocks)
    again = plan_file.parse(text, "plan.yml")
    assert sorted(again, key=lambda block: block.prefix) == sorted(blocks, key=lambda block: block.prefix)
    assert plan_file.render(reversed(again)) == text
    assert text.count("\n") == plan_file.HEADER.count("\n") + 3 + len(blocks)
    plain = yaml.safe_load(text)
    assert {str(block.prefix): {"holder": block.holder, "pool": block.pool} for block in blocks} == {**plain["ipv4"], **plain["ipv6"]}


def test_the_format() -> None:
    assert plan_file.render(plan_file.parse(GOOD, "plan.yml")) == GOOD
    assert [block.origin for block in plan_file.parse(GOOD, "plan.yml")] == ["plan.yml line 6", "plan.yml line 7", "plan.yml line 9"]


def changed(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


WRONG = [
    (changed("  172.23.255.8/29", "<<<<<<< HEAD\n  172.23.255.8/29"), ['plan.yml line 7: "<<<<<<< HEAD": is a merge marker, finish the merge: keep one line per block']),
    (changed("...\n", ""), ["plan.yml line 9", "the file is cut short"]),
    (GOOD[: GOOD.index("ipv6")], ["the file is cut short"]),
    ("", ["plan.yml line 1", "the file is cut short"]),
    (changed("{holder: fra1, pool: dn42}\n  172", "{holder: fra1, pool: dn42\n  172"), ["plan.yml line 7", "is no valid YAML"]),
    (changed("ipv4:\n", "ipv4:\n\t"), ["plan.yml line 6", "is no valid YAML"]),
    (changed("172.23.255.8/29", "172.23.255.0/29"), ['plan.yml line 7: "172.23.255.0/29": is the same key as in line 6']),
    (changed("version: 1", "version: 2"), ['plan.yml line 4: "2": was written by a newer version of dn42.compose, this one knows version 1; upgrade it']),
    (changed("version: 1", "version: one"), ['plan.yml line 4: "one": must be version: 1']),
    (changed("version: 1\n", ""), ["the key version is missing"]),
    (changed("ipv6:\n", "#"), ["the key ipv6 is missing"]),
    (changed("172.23.255.8/29", "172.23.255.0/28"), ['plan.yml line 6: "172.23.255.0/29": overlaps 172.23.255.0/28 of no (plan.yml line 7)']),
    (changed('holder: "no"', "holder: fra1"), ['plan.yml line 7: "172.23.255.8/29": fra1 already has 172.23.255.0/29 in pool dn42 (plan.yml line 6)']),
    (changed('holder: "no"', "holder: no"), ["plan.yml line 7: false: YAML made a boolean of it"]),
    (changed('holder: "no"', "holder: 010"), ["plan.yml line 7: 8: YAML made a number of it"]),
    (changed('{holder: "no", pool: dn42}', "{holder: hkg1}"), ["plan.yml line 7", "the key pool is missing"]),
    (changed('{holder: "no", pool: dn42}', "hkg1"), ['plan.yml line 7: "hkg1": must be a mapping']),
    (changed("pool: dn42}\nipv6", "pool: dn42, since: 2020}\nipv6"), ['plan.yml line 7: "since": unknown key, known are holder, pool']),
    (changed("version: 1", "version: 1\nnotes: []"), ['plan.yml line 5: "notes": unknown key, known are version, ipv4, ipv6']),
    (changed("172.23.255.8/29", "172.23.255.9/29"), ["plan.yml line 7", "has bits set behind the length"]),
    (changed('"fd99:4242:1::/64"', "172.23.255.16/29"), ["plan.yml line 9", "is an IPv4 prefix under ipv6, move it to ipv4"]),
    (changed("version: 1", "version: 1\x00"), ["plan.yml line 4", "is no valid YAML"]),
]


@pytest.mark.parametrize(("text", "expected"), WRONG)
def test_refuses_with_file_and_line(text: str, expected: list) -> None:
    with pytest.raises(engine.Refused) as refusal:
        plan_file.parse(text, "plan.yml")
    for part in expected:
        assert part in str(refusal.value)


@given(st.integers(0, len(GOOD) - 1))
def test_no_part_of_a_plan_is_taken_for_a_plan(length: int) -> None:
    assume(GOOD[:length].strip() != GOOD.strip())
    with pytest.raises(engine.Refused):
        plan_file.parse(GOOD[:length], "plan.yml")


def test_all_faults_of_a_file_at_once() -> None:
    text = changed('holder: "no"', "holder: no").replace('"fd99:4242:1::/64"', "'fd99::1/64'")
    with pytest.raises(engine.Refused) as refusal:
        plan_file.parse(text, "plan.yml")
    assert len(refusal.value.faults) == 2


def adding(*names: str):
    """A decision function that adds single addresses."""

    def decide(blocks: tuple) -> engine.Decision:
        owners = {block.holder for block in blocks}
        added = tuple(engine.Block(engine.Prefix(4, 0xAC17FF00 + len(blocks) + index, 32), name, "dn42") for index, name in enumerate(names) if name not in owners)
        return engine.Decision(tuple(blocks) + added, added, (), {})

    return decide


def test_mode_and_leftovers(tmp_path: Path) -> None:
    path = tmp_path / "new" / "plan" / "addresses.yml"
    before = os.umask(0o077)
    try:
        plan_file.PlanFile(str(path), 1).transact(adding("fra1"), False)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o644
    assert [entry.name for entry in path.parent.iterdir()] == ["addresses.yml"]


def test_unchanged_is_not_written_and_takes_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "addresses.yml"
    text = "# my own comment\n" + GOOD
    path.write_text(text)
    stamp = path.stat()
    (tmp_path / "addresses.yml.lock").mkdir()  # a lock could not even be made
    outcome = plan_file.PlanFile(str(path), 1).transact(adding("fra1"), False)
    assert outcome.before == outcome.after == text
    assert path.stat() == stamp


def test_a_link_to_the_plan_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "addresses.yml").write_text(GOOD)
    link = tmp_path / "addresses.yml"
    link.symlink_to("real/addresses.yml")
    plan_file.PlanFile(str(link), 1).transact(adding("nrt1"), False)
    assert link.is_symlink()
    assert "nrt1" in (tmp_path / "real" / "addresses.yml").read_text()


def test_waiting_for_the_lock_ends(tmp_path: Path) -> None:
    path = tmp_path / "addresses.yml"
    with (tmp_path / "addresses.yml.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(plan_file.LockTimeout, match=r"another run holds .*addresses\.yml\.lock for more than 0\.2 s"):
            plan_file.PlanFile(str(path), 0.2).transact(adding("fra1"), False)
    assert not path.exists()


def test_a_failed_write_leaves_the_old_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "addresses.yml"
    path.write_text(GOOD)

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(plan_file.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        plan_file.PlanFile(str(path), 1).transact(adding("nrt1"), False)
    assert path.read_text() == GOOD
    assert [entry.name for entry in tmp_path.iterdir()] == ["addresses.yml"]


def test_threads_lose_nothing(tmp_path: Path) -> None:
    """flock is per open file, so threads exclude each other as processes do."""
    path = tmp_path / "addresses.yml"
    failures: list = []

    def work(worker: int) -> None:
        try:
            for number in range(8):
                plan_file.PlanFile(str(path), 30).transact(adding(f"n{worker}-{number}"), False)
        except Exception as error:  # told by the assertion below
            failures.append(error)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures
    blocks = plan_file.parse(path.read_text(), str(path))
    assert {block.holder for block in blocks} == {f"n{worker}-{number}" for worker in range(4) for number in range(8)}
    assert [entry.name for entry in tmp_path.iterdir()] == ["addresses.yml"]


@pytest.mark.skipif(shutil.which("git") is None, reason="git merges the files")
@given(ours=st.integers(1, 40), theirs=st.integers(1, 40), lengths=st.tuples(st.integers(2, 4), st.integers(2, 4)))
def test_a_merge_conflicts_or_is_sound_or_is_refused(tmp_path_factory: pytest.TempPathFactory, ours: int, theirs: int, lengths: tuple) -> None:
    folder = tmp_path_factory.mktemp("merge")
    base = [engine.Block(engine.Prefix(4, 0xAC17FF00 + number * 16, 28), f"old{number}", "dn42") for number in (3, 20)]
    texts = {"base": base}
    for name, place, bits in (("ours", ours, lengths[0]), ("theirs", theirs, lengths[1])):
        prefix = engine.Prefix(4, 0xAC17FF00 + (place * 4 >> bits << bits), 32 - bits)
        texts[name] = base if any(block.prefix.overlaps(prefix) for block in base) else [*base, engine.Block(prefix, name, "dn42")]
    for name, blocks in texts.items():
        (folder / name).write_text(plan_file.render(blocks))
    merged = subprocess.run(["git", "merge-file", "-p", "ours", "base", "theirs"], cwd=folder, capture_output=True, text=True, timeout=30, check=False).stdout
    try:
        blocks = plan_file.parse(merged, "merged")
    except engine.Refused:
        return
    assert not engine.check_blocks(blocks)
    assert {block.holder for block in blocks} == {block.holder for few in texts.values() for block in few}
