# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan file: what is written, what is refused, and what survives."""

from __future__ import annotations

import fcntl
import os
import subprocess
import threading
from pathlib import Path

import pytest
import yaml
from ansible_collections.dn42.compose.plugins.module_utils import _plan_file as plan_file
from ansible_collections.dn42.compose.plugins.module_utils import _plan_text as plan_text
from ansible_collections.dn42.compose.plugins.module_utils._address_plan.model import BITS, Block, Decision, Plan, Prefix, Refused
from ansible_collections.dn42.compose.plugins.module_utils._address_text import Unreadable, read_name
from ansible_collections.dn42.compose.plugins.module_utils._plan_store import LockTimeout, StoreError
from hypothesis import assume, given
from hypothesis import strategies as st

TRAPS = ["no", "Y", "on", "null", "~", "1e3", "010", "1_000", "12:30:45", "0x1f", ".nan", "true", "=", "<<", "- a", "a: b", "#x", "{x}", "'", '"', "\\", "é", "日本"]
GOOD = """\
# Address plan of this network, written by dn42.compose.address_blocks.
# Keep it in git. A block belongs to its holder; once it is released, its holder may still come back to it.
---
version: 1
ipv4:
  172.23.255.0/29: {holder: fra1, pool: dn42}
  172.23.255.8/29: {holder: "no", pool: dn42}
  172.23.255.16/29: {holder: fra1, pool: dn42, released: 1}
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


@given(st.lists(st.tuples(names, names, st.sampled_from([4, 6]), st.integers(0, 255), st.integers(0, 3)), unique_by=(lambda item: item[0], lambda item: item[2:4])))
def test_what_is_written_is_read_again(entries: list) -> None:
    base = {4: 0xAC17FF00, 6: 0xFD99 << 112}
    blocks = [Block(Prefix(family, base[family] + number, BITS[family]), holder, pool, released) for holder, pool, family, number, released in entries]
    ordered = sorted(blocks, key=lambda block: block.prefix)
    plan = Plan(tuple(block for block in ordered if not block.released), tuple(block for block in ordered if block.released))
    text = plan_text.render(plan)
    assert plan_text.parse(text, "plan.yml") == plan
    assert text.count("\n") == plan_text.INTRODUCTION.count("\n") + 5 + len(blocks)
    plain = yaml.safe_load(text)
    told = {str(block.prefix): {"holder": block.holder, "pool": block.pool, **({"released": block.released} if block.released else {})} for block in blocks}
    assert told == {**plain["ipv4"], **plain["ipv6"]}


def test_the_format() -> None:
    plan = plan_text.parse(GOOD, "plan.yml")
    assert plan_text.render(plan) == GOOD
    assert [block.origin for block in plan.blocks + plan.released] == ["plan.yml line 6", "plan.yml line 7", "plan.yml line 10", "plan.yml line 8"]


def test_every_spelling_that_yaml_knows_is_read() -> None:
    """What is not as we write it goes through YAML's reader, with the same result."""
    text = GOOD.replace('{holder: "no", pool: dn42}', "\n    pool: 'dn42'\n    holder: 'no'").replace('"fd99:4242:1::/64"', "'FD99:4242:0001::/64'")
    assert plan_text._own_text(text, "plan.yml") is None
    assert plan_text.parse(text, "plan.yml") == plan_text.parse(GOOD, "plan.yml")


def test_people_s_comments_stay(tmp_path: Path) -> None:
    """Also those before a block that goes, which then stand before the next one."""
    path = tmp_path / "addresses.yml"
    text = (
        GOOD.replace("# Keep", "# ours, not theirs\n# Keep")
        .replace("  172.23.255.8/29", "\n  # in the cellar\n  172.23.255.8/29")
        .replace("{holder: fra1, pool: dn42}\n\n", "{holder: fra1, pool: dn42}  # Frankfurt\n\n")
        .replace("ipv6:", "# the new world\nipv6:")
        .replace("...", "# the end\n...")
    )
    path.write_text(text)
    plan_file.PlanFile(str(path), 1).transact(adding("nrt1"), False)
    assert path.read_text() == text.replace("# the new world", "  172.23.255.32/32: {holder: nrt1, pool: dn42}\n# the new world")
    plan_file.PlanFile(str(path), 1).transact(lambda plan: Decision(Plan(plan.blocks[:1]), (), ()), False)
    assert [line.strip() for line in path.read_text().splitlines() if "#" in line][3:] == [
        "172.23.255.0/29: {holder: fra1, pool: dn42}  # Frankfurt",
        "# in the cellar",
        "# the new world",
        "# the end",
    ]


def changed(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


WRONG = [
    (changed("  172.23.255.8/29", "<<<<<<< HEAD\n  172.23.255.8/29"), ['plan.yml line 7: "<<<<<<< HEAD": is a merge marker, finish the merge: keep one line per block']),
    (changed("...\n", ""), ["plan.yml line 10", "the file is cut short"]),
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
    (changed('"no", pool: dn42}', '"no", pool: dn42, since: 2020}'), ['plan.yml line 7: "since": unknown key, known are holder, pool, released']),
    (changed("version: 1", "version: 1\nnotes: []"), ['plan.yml line 5: "notes": unknown key, known are version, ipv4, ipv6']),
    (changed("172.23.255.8/29", "172.23.255.9/29"), ["plan.yml line 7", "has bits set behind the length"]),
    (changed('"fd99:4242:1::/64"', "172.23.255.24/29"), ["plan.yml line 10", "is an IPv4 prefix under ipv6, move it to ipv4"]),
    (changed("released: 1", "released: 0"), ["plan.yml line 8: 0: must be the number of the release from 1 on"]),
    (changed("released: 1", "released: yes"), ["plan.yml line 8: true: must be the number of the release from 1 on"]),
    (changed("172.23.255.16/29", "172.23.255.0/30"), ['plan.yml line 8: "172.23.255.0/30": overlaps 172.23.255.0/29 of fra1 (plan.yml line 6)']),
    (changed('"fd99:4242:1::/64"', '"::ffff:ac17:ff00/120"'), ["plan.yml line 10", "is an IPv4 address written as IPv6"]),
    (GOOD.replace("\n", "\r\n"), ["plan.yml line 1", "ends in CR LF"]),
    (changed("version: 1", "version: 1\x00"), ["plan.yml line 4", "is no valid YAML"]),
]


@pytest.mark.parametrize(("text", "expected"), WRONG)
def test_refuses_with_file_and_line(text: str, expected: list) -> None:
    with pytest.raises(Refused) as refusal:
        plan_text.parse(text, "plan.yml")
    for part in expected:
        assert part in str(refusal.value)


@given(st.integers(0, len(GOOD) - 1))
def test_no_part_of_a_plan_is_taken_for_a_plan(length: int) -> None:
    assume(GOOD[:length].strip() != GOOD.strip())
    with pytest.raises(Refused):
        plan_text.parse(GOOD[:length], "plan.yml")


def test_all_faults_of_a_file_at_once() -> None:
    text = changed('holder: "no"', "holder: no").replace('"fd99:4242:1::/64"', "'fd99::1/64'")
    with pytest.raises(Refused) as refusal:
        plan_text.parse(text, "plan.yml")
    assert len(refusal.value.faults) == 2


def adding(*names: str):
    """A decision function that adds single addresses behind everything else."""

    def decide(plan: Plan) -> Decision:
        owners = {block.holder for block in plan.blocks}
        start = 0xAC17FF20 + len([block for block in plan.blocks if block.prefix.length == 32])
        new = [Block(Prefix(4, start + index, 32), name, "dn42") for index, name in enumerate(name for name in names if name not in owners)]
        return Decision(Plan(tuple(sorted([*plan.blocks, *new])), plan.released), (), ())

    return decide


def test_a_plan_that_contradicts_itself_is_not_written(tmp_path: Path) -> None:
    """Whatever decided it: the file would be refused at its next reading."""
    path = tmp_path / "addresses.yml"
    path.write_text(GOOD)
    doubled = (Block(Prefix(4, 0xAC17FF00, 24), "hkg1", "dn42"), Block(Prefix(4, 0xAC17FF10, 28), "fra1", "dn42", 2))
    for dry_run in (True, False):
        with pytest.raises(StoreError, match=r"contradicts itself.*172\.23\.255\.16/28"):
            plan_file.PlanFile(str(path), 1).transact(lambda plan: Decision(Plan(doubled[:1], doubled[1:]), (), ()), dry_run)
    assert path.read_text() == GOOD


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
    assert not outcome.changed and path.read_text() == text
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
        with pytest.raises(LockTimeout, match=r"another run holds .*addresses\.yml\.lock for more than 0\.2 s \(it does not say who\)"):
            plan_file.PlanFile(str(path), 0.2).transact(adding("fra1"), False)
    assert not path.exists()


def test_a_failed_write_leaves_the_old_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "addresses.yml"
    path.write_text(GOOD)

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(plan_file.os, "fsync", full)
    with pytest.raises(StoreError, match="No space"):
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
    blocks = plan_text.parse(path.read_text(), str(path))
    assert {block.holder for block in blocks.blocks} == {f"n{worker}-{number}" for worker in range(4) for number in range(8)}
    assert [entry.name for entry in tmp_path.iterdir()] == ["addresses.yml"]


def git(folder: Path, *arguments: str) -> None:
    identity = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
    for role in ("AUTHOR", "COMMITTER"):
        identity.update({f"GIT_{role}_NAME": "Ada", f"GIT_{role}_EMAIL": "ada@example.org", f"GIT_{role}_DATE": "2026-01-02T03:04:05+01:00"})
    subprocess.run(["git", *arguments], cwd=folder, env={**os.environ, **identity}, check=True, capture_output=True, timeout=30)


def test_history_is_what_git_remembers(tmp_path: Path) -> None:
    path = tmp_path / "addresses.yml"
    store = plan_file.PlanFile(str(path), 1)
    assert store.history(9) == []
    path.write_text(GOOD)
    assert store.history(9) == []
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message=first")
    changed_text = GOOD.replace("172.23.255.0/29: {holder: fra1", "172.23.255.0/30: {holder: fra1").replace('"no", pool: dn42}', '"no", pool: dn42, released: 2}')
    path.write_text(changed_text)
    git(tmp_path, "commit", "--quiet", "--all", "--message=second")
    events = store.history(9)
    assert [(event.kind, event.prefix, event.holder) for event in events] == [
        ("changed", "172.23.255.0/30", "fra1"),
        ("released", "172.23.255.8/29", "no"),
        ("given", "172.23.255.0/29", "fra1"),
        ("given", "172.23.255.8/29", "no"),
        ("given", "fd99:4242:1::/64", "fra1"),
    ]
    assert {(event.when, event.who) for event in events} == {("2026-01-02T02:04:05Z", "Ada")}
    assert events[0].note.startswith("was 172.23.255.0/29; ") and events[0].note.endswith(" second")
    assert store.history(1) == events[:1]
