# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan in NetBox: what is kept, what is left alone, and what survives other writers and a bad day.

Tests that take `place` also run against a real NetBox where DN42_TEST_NETBOX_URL and DN42_TEST_NETBOX_TOKEN name one,
each with a plan of its own name.
"""

from __future__ import annotations

import datetime
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from ansible_collections.dn42.compose.plugins.module_utils import _plan_netbox as plan_netbox
from ansible_collections.dn42.compose.plugins.module_utils._address_plan.decide import decide
from ansible_collections.dn42.compose.plugins.module_utils._address_plan.model import Ask, Block, Decision, Plan, Pool, Prefix, Refused, Release, Request
from ansible_collections.dn42.compose.plugins.module_utils._plan_netbox import PlanNetBox
from ansible_collections.dn42.compose.plugins.module_utils._plan_store import LockTimeout, StoreError

from .netbox_fake import DROP, LOSE, NetBox

BASE = {4: 0xAC17FF00, 6: 0xFD99 << 112}  # 172.23.255.0 and fd99::
PREFIXES = "/api/ipam/prefixes/"
TAGS = "/api/extras/tags/"


class Place(NamedTuple):
    url: str
    token: str
    network: str

    def store(self, **options: Any) -> PlanNetBox:
        given = {"url": self.url, "token": self.token, "network": self.network, "validate_certs": True, "ca_path": None, "timeout": 10, **options}
        return PlanNetBox(**given)


def block(text: str, holder: str, released: int = 0, pool: str = "dn42") -> Block:
    return Block(plan_netbox.read_prefix(text), holder, pool, released)


def plan(*blocks: Block) -> Plan:
    ordered = sorted(blocks, key=lambda each: each.prefix)
    return Plan(tuple(each for each in ordered if not each.released), tuple(each for each in ordered if each.released))


def decision(wanted: Plan) -> Decision:
    return Decision(plan=wanted, changes=(), held=())


def becomes(*blocks: Block) -> Any:
    return lambda _before: decision(plan(*blocks))


def next_free(holder: str) -> Any:
    """A /29 for one more holder, the lowest that is free; nothing when it has one."""

    def allocate(before: Plan) -> Decision:
        if holder in {each.holder for each in before.blocks}:
            return decision(before)
        taken = {each.prefix.network for each in (*before.blocks, *before.released)}
        network = next(number for number in range(BASE[4], 1 << 32, 8) if number not in taken)
        return decision(plan(*before.blocks, *before.released, Block(Prefix(4, network, 29), holder, "dn42")))

    return allocate


@pytest.fixture
def netbox() -> Iterator[NetBox]:
    with NetBox() as server:
        yield server


@pytest.fixture
def fake(netbox: NetBox, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr(plan_netbox, "GRACE", 0.05)
    monkeypatch.setattr(plan_netbox, "RETRY_PAUSE", 0.05)
    return Place(netbox.url, netbox.token, "dn42")


@pytest.fixture(params=["fake", "fake-unique", "real"])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setattr(plan_netbox, "GRACE", 0.05)
    if request.param != "real":
        with NetBox(unique=request.param == "fake-unique", page=20) as server:
            yield Place(server.url, server.token, "dn42")
        return
    if "DN42_TEST_NETBOX_URL" not in os.environ:
        pytest.skip("DN42_TEST_NETBOX_URL names no NetBox")
    real = Place(os.environ["DN42_TEST_NETBOX_URL"], os.environ["DN42_TEST_NETBOX_TOKEN"], f"test-{uuid.uuid4().hex[:8]}")
    yield real
    store = real.store()
    for name in (store.network, store.unfinished):
        store._delete([row["id"] for row in store._filter(name)])
    held = store._held()
    if held:
        store._unlock(held["id"])


SMALL = (block("172.23.255.0/29", "fra1"), block("172.23.255.8/29", "no"), block("fd99::/64", "fra1"), block("172.23.255.32/28", "old", released=2))


def test_every_change_is_read_again_and_the_second_run_writes_nothing(place: Place) -> None:
    many = [block(f"172.23.{number // 32}.{number % 32 * 8}/29", f"node{number}") for number in range(45)]
    steps = [
        SMALL,
        (*SMALL, block("172.23.255.16/28", "big", pool="other"), *many),
        (
            block("172.23.255.0/28", "fra1"),
            block("fd99::/64", "fra1", released=3),
            block("fd99:0:0:1::/64", "fra1"),
            block("172.23.255.32/29", "new"),
            block("172.23.255.40/29", "old", released=2),
        ),
        (),
    ]
    before = Plan()
    for step in steps:
        store = place.store()
        foretold = store.transact(becomes(*step), dry_run=True)
        assert store.read() == before, "a dry run writes nothing"
        outcome = store.transact(becomes(*step), dry_run=False)
        assert outcome.before == foretold.before == before
        assert outcome.changed and outcome.decision.plan == foretold.decision.plan
        before = place.store().read()
        assert before == plan(*step)
        assert not place.store().transact(becomes(*step), dry_run=False).changed
        assert store._held() is None


def test_it_keeps_what_the_engine_decides(place: Place) -> None:
    """Holders come, grow, leave, return and take what others left, as in memory."""
    prefixes = {4: (plan_netbox.read_prefix("172.23.255.0/26"),), 6: (plan_netbox.read_prefix("fd99::/48"),)}
    pool = Pool("dn42", prefixes, {4: 29, 6: 64}, reserved=(plan_netbox.read_prefix("172.23.255.56/29"),), placement="growable")

    def ask(holders: dict[str, int], *released: Block) -> Ask:
        releases = [Release(holder, tuple(each.prefix for each in released if each.holder == holder)) for holder in sorted({each.holder for each in released})]
        requests = tuple(Request(name, "dn42", {4: length, 6: 64}) for name, length in holders.items())
        return Ask((pool,), requests, {}, releases=tuple(releases), renumber=frozenset(holders))

    memory = Plan()
    for holders, leaving in [
        ({"a": 29, "b": 29, "c": 29}, ""),
        ({"a": 28, "c": 29, "d": 29}, ""),
        ({"a": 28, "c": 29}, "bd"),
        ({"a": 29, "b": 29, "c": 28}, ""),
        (dict.fromkeys("abcefg", 29), ""),
        ({}, "abcefg"),
        ({"z": 27}, ""),
    ]:
        asked = ask(holders, *(each for each in memory.blocks if each.holder in leaving))
        expected = decide(memory, asked)
        outcome = place.store().transact(lambda before, asked=asked: decide(before, asked), dry_run=False)
        assert (outcome.before, outcome.decision) == (memory, expected)
        memory = expected.plan
        assert place.store().read() == memory
        assert not place.store().transact(lambda before, asked=asked: decide(before, asked), dry_run=False).changed
    assert memory.released


def test_only_differences_are_written(fake: Place, netbox: NetBox) -> None:
    fake.store().transact(becomes(*SMALL), dry_run=False)
    ids = {row["prefix"]: row["id"] for row in netbox.prefixes()}
    netbox.requests.clear()
    fake.store().transact(becomes(*SMALL), dry_run=False)
    fake.store().transact(becomes(), dry_run=True)
    assert netbox.writes == []
    grown = (block("172.23.255.0/29", "fra1"), block("172.23.255.8/29", "no"), block("fd99::/63", "fra1"), SMALL[3])
    fake.store().transact(becomes(*grown), dry_run=False)
    sent = [body for method, path, body in netbox.writes if path == PREFIXES]
    assert len(sent) == 1, "one update, nothing created or deleted"
    assert {entry["id"]: entry.get("prefix") for entry in sent[0]} == {ids["fd99::/64"]: "fd99::/63", ids["172.23.255.0/29"]: None}
    assert all(not row["tags"] for row in netbox.prefixes())


def test_what_people_edit_stays_and_changes_nothing(fake: Place, netbox: NetBox) -> None:
    fake.store().transact(becomes(*SMALL), dry_run=False)
    assert {row["prefix"]: (row["status"], row["description"]) for row in netbox.prefixes()} == {
        "172.23.255.0/29": ("active", "fra1"),
        "172.23.255.8/29": ("active", "no"),
        "fd99::/64": ("active", "fra1"),
        "172.23.255.32/28": ("deprecated", "released by old"),
    }
    tag = netbox.handle("POST", TAGS, {}, {"name": "mine", "slug": "mine"})[1]["id"]
    row = next(row for row in netbox.tables["prefixes"].values() if row["prefix"] == "172.23.255.0/29")
    row.update(description="Frankfurt, cold aisle", tags=[tag], vrf=None, role=7)
    assert not fake.store().transact(becomes(*SMALL), dry_run=False).changed
    fake.store().transact(becomes(block("172.23.255.0/29", "fra1", released=1), *SMALL[1:]), dry_run=False)
    row = netbox.tables["prefixes"][row["id"]]
    assert row["status"] == "deprecated"
    assert (row["description"], row["tags"], row["role"]) == ("Frankfurt, cold aisle", [tag], 7)


def test_prefixes_of_others_are_never_touched(fake: Place, netbox: NetBox) -> None:
    other = fake._replace(network="dn42-test")  # a loose filter for dn42 finds it too
    other.store().transact(becomes(block("172.23.255.64/29", "x1")), dry_run=False)
    for field in netbox.tables["custom-fields"].values():
        field["filter_logic"] = "loose"
    for body in ({"prefix": "172.23.255.0/24", "status": "container"}, {"prefix": "172.23.255.8/29", "vrf": 3}, {"prefix": "172.23.255.16/29", "description": "printer"}):
        assert netbox.handle("POST", PREFIXES, {}, body)[0] == 201
    before = netbox.prefixes()
    fake.store().transact(becomes(*SMALL), dry_run=False)
    for dry_run in (True, False):
        with pytest.raises(Refused) as refusal:
            fake.store().transact(becomes(*SMALL, block("172.23.255.16/29", "fra2"), block("172.23.255.64/29", "fra3")), dry_run)
        printer, theirs = sorted(str(fault) for fault in refusal.value.faults)
        assert f'{fake.url} plan dn42 prefix 172.23.255.16/29: "printer": is in NetBox already (id {before[3]["id"]}) and not part of this plan.' in printer
        assert "hand it over by its custom fields dn42_network: dn42, dn42_holder: fra2, dn42_pool: dn42" in printer
        assert "belongs to the plan dn42-test in this NetBox" in theirs
    fake.store().transact(becomes(), dry_run=False)
    assert netbox.prefixes() == before
    # Handing it over is enough.
    netbox.tables["prefixes"][before[3]["id"]]["custom_fields"] = {"dn42_network": "dn42", "dn42_holder": "fra2", "dn42_pool": "dn42"}
    assert fake.store().read() == plan(block("172.23.255.16/29", "fra2"))


def test_a_plan_that_was_edited_into_nonsense_is_refused_with_all_of_it(fake: Place, netbox: NetBox) -> None:
    fake.store().transact(becomes(*SMALL), dry_run=False)
    rows = {row["prefix"]: row for row in netbox.tables["prefixes"].values()}
    rows["172.23.255.8/29"]["custom_fields"]["dn42_holder"] = None
    rows["172.23.255.32/28"]["custom_fields"]["dn42_released"] = -1
    with pytest.raises(Refused) as refusal:
        fake.store().transact(becomes(), dry_run=False)
    holder, released = (str(fault) for fault in refusal.value.faults)
    assert f"prefix 172.23.255.8/29 (id {rows['172.23.255.8/29']['id']}) dn42_holder: null: " in holder
    assert f"prefix 172.23.255.32/28 (id {rows['172.23.255.32/28']['id']}) dn42_released: -1: " in released
    rows["172.23.255.8/29"]["custom_fields"]["dn42_holder"] = "a"
    rows["172.23.255.32/28"]["custom_fields"]["dn42_released"] = 1
    rows["172.23.255.8/29"]["prefix"] = "172.23.255.0/28"
    with pytest.raises(Refused, match=r"172\.23\.255\.0/28"):
        fake.store().read()


def test_writers_at_once_never_share_a_block(place: Place) -> None:
    problems: list[BaseException] = []
    given: list[tuple[str, Block]] = []

    def work(name: int) -> None:
        try:
            for number in range(3):
                holder = f"w{name}-{number}"
                outcome = place.store(timeout=30).transact(next_free(holder), dry_run=False)
                given.append((holder, next(each for each in outcome.decision.plan.blocks if each.holder == holder)))
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert problems == []
    assert len(given) == 24
    assert plan(*(each for _holder, each in given)) == place.store().read()


def stop(netbox: NetBox, method: str, path: str, verdict: Any, times: int = 1) -> None:
    """Let the next `times` such requests end with `verdict`."""
    left = [times]

    def fault(verb: str, where: str, _body: Any) -> Any:
        if (verb, where) == (method, path) and left[0] > 0:
            left[0] -= 1
            return verdict
        return None

    netbox.faults.append(fault)


MOMENTS = [("POST", TAGS), ("POST", PREFIXES), ("PATCH", TAGS), ("PATCH", PREFIXES), ("DELETE", PREFIXES), ("DELETE", TAGS), ("GET", PREFIXES)]
BEFORE = (block("172.23.255.0/29", "fra1"), block("172.23.255.64/28", "big"))
AFTER = (block("172.23.255.0/29", "fra1", released=1), block("172.23.255.8/29", "new"), block("172.23.255.64/29", "other"))


@pytest.mark.parametrize("verdict", [DROP, LOSE, 500, 429])
@pytest.mark.parametrize("moment", MOMENTS, ids=" ".join)
def test_one_bad_answer_at_any_moment_is_made_good_in_the_same_call(fake: Place, netbox: NetBox, moment: tuple[str, str], verdict: Any) -> None:
    fake.store().transact(becomes(*BEFORE), dry_run=False)
    stop(netbox, *moment, verdict)
    if moment == ("GET", PREFIXES) and verdict == 500:
        with pytest.raises(StoreError, match="now \\(500\\)"):
            fake.store().transact(becomes(*AFTER), dry_run=False)
    outcome = fake.store().transact(becomes(*AFTER), dry_run=False)
    assert outcome.changed and outcome.before == plan(*BEFORE)
    assert fake.store().read() == plan(*AFTER)
    assert not netbox.tables["tags"]
    fake.store().transact(becomes(*BEFORE), dry_run=False)
    assert {row["custom_fields"]["dn42_network"] for row in netbox.prefixes()} == {"dn42"}, "nothing unfinished stays"


class Killed(BaseException):
    """Nothing after it is sent any more, as after kill -9."""


@pytest.mark.parametrize("count", range(1, 8))
def test_a_writer_killed_anywhere_blocks_nobody_and_leaves_the_old_plan_or_the_new(fake: Place, netbox: NetBox, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    fake.store().transact(becomes(*BEFORE), dry_run=False)
    store = fake.store()
    sent = [0]
    send = plan_netbox._Adapter.send

    def deadly(self: Any, request: Any, **options: Any) -> Any:
        if request.method != "GET":
            sent[0] += 1
            if sent[0] >= count:
                raise Killed
        return send(self, request, **options)

    with monkeypatch.context() as patch:
        patch.setattr(plan_netbox._Adapter, "send", deadly)
        try:
            store.transact(becomes(*AFTER), dry_run=False)
        except Killed:
            assert sent[0] >= count
        else:
            assert count > 6, "lock, stage, renew, commit, delete, unlock"
    assert fake.store().read() in (plan(*BEFORE), plan(*AFTER)), "no state between"
    assert bool(netbox.tables["tags"]) == (1 < count < 7)
    netbox.skew = datetime.timedelta(seconds=store.lease + 5)
    fake.store().transact(becomes(*AFTER, block("fd99::/64", "late")), dry_run=False)
    assert fake.store().read() == plan(*AFTER, block("fd99::/64", "late"))
    assert not netbox.tables["tags"]
    assert {row["custom_fields"]["dn42_network"] for row in netbox.prefixes()} == {"dn42"}


def released_or_free(holder: str) -> Any:
    """Take the released block as it is, the very same prefix in NetBox, else the next free one."""

    def allocate(before: Plan) -> Decision:
        if not before.released or holder in {each.holder for each in before.blocks}:
            return next_free(holder)(before)
        return decision(plan(*before.blocks, Block(before.released[0].prefix, holder, "dn42"), *before.released[1:]))

    return allocate


@pytest.mark.parametrize("allocate", [next_free, released_or_free])
def test_a_writer_whose_lock_was_taken_cannot_write_any_more(fake: Place, netbox: NetBox, allocate: Any) -> None:
    """It is paused for longer than the lease just before its update; both have decided to take the same block."""
    fake.store().transact(becomes(*BEFORE, block("172.23.255.8/29", "old", released=1)), dry_run=False)
    paused, go_on = threading.Event(), threading.Event()

    def pause(method: str, path: str, _body: Any) -> None:
        if (method, path) == ("PATCH", PREFIXES) and not paused.is_set():
            paused.set()
            assert go_on.wait(20)

    netbox.faults.append(pause)
    outcomes = []
    slow = threading.Thread(target=lambda: outcomes.append(fake.store(timeout=30).transact(allocate("slow"), dry_run=False)))
    slow.start()
    assert paused.wait(20)
    netbox.skew = datetime.timedelta(seconds=1000)
    quick = fake.store().transact(allocate("quick"), dry_run=False)
    go_on.set()
    slow.join(30)
    assert outcomes[0].changed and quick.changed
    after = fake.store().read()
    assert {each.holder for each in after.blocks} == {"fra1", "big", "quick", "slow"}
    for outcome, holder in ((quick, "quick"), (outcomes[0], "slow")):
        assert [each for each in outcome.decision.plan.blocks if each.holder == holder] == [each for each in after.blocks if each.holder == holder]
    assert sorted(row["prefix"] for row in netbox.prefixes()) == sorted(str(each.prefix) for each in (*after.blocks, *after.released))


def test_a_row_that_goes_while_it_is_changed_is_noticed(fake: Place, netbox: NetBox) -> None:
    fake.store().transact(becomes(*BEFORE), dry_run=False)

    def delete(method: str, path: str, body: Any) -> None:
        if (method, path) == ("PATCH", PREFIXES):
            netbox.faults.clear()
            netbox.handle("DELETE", PREFIXES, {}, [{"id": body[0]["id"]}])

    netbox.faults.append(delete)
    fake.store().transact(becomes(*AFTER), dry_run=False)
    assert fake.store().read() == plan(*AFTER)


def test_others_wait_for_a_lock_that_is_alive(fake: Place, netbox: NetBox, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.store().transact(becomes(*BEFORE), dry_run=False)
    holder = fake.store()
    lock = holder._lock()
    monkeypatch.setattr(plan_netbox, "LOCK_PATIENCE", 0)
    with pytest.raises(LockTimeout, match=f"pid {os.getpid()}"):
        fake.store().transact(becomes(*AFTER), dry_run=False)
    assert fake.store().transact(becomes(*AFTER), dry_run=True).changed, "who writes nothing needs no lock"
    holder._unlock(lock)
    assert fake.store().read() == plan(*BEFORE)


def test_history(place: Place) -> None:
    place.store().transact(becomes(*BEFORE), dry_run=False)
    place.store().transact(becomes(*AFTER), dry_run=False)
    place.store().transact(becomes(block("172.23.255.8/30", "new"), block("172.23.255.12/30", "new", released=2), *AFTER[2:]), dry_run=False)
    events = place.store().history(20)
    assert sorted((event.kind, event.prefix, event.holder, event.pool) for event in events) == [
        ("changed", "172.23.255.8/30", "new", "dn42"),
        ("given", "172.23.255.0/29", "fra1", "dn42"),
        ("given", "172.23.255.64/28", "big", "dn42"),
        ("given", "172.23.255.64/29", "other", "dn42"),
        ("given", "172.23.255.8/29", "new", "dn42"),
        ("released", "172.23.255.0/29", "fra1", "dn42"),
        ("released", "172.23.255.12/30", "new", "dn42"),
        ("released", "172.23.255.64/28", "big", "dn42"),
    ]
    assert all(event.who and datetime.datetime.fromisoformat(event.when.replace("Z", "+00:00")).tzinfo for event in events)
    assert {event.prefix for event in events[:2]} == {"172.23.255.8/30", "172.23.255.12/30"}, "the latest first"
    assert place.store().history(1) == events[:1]


def test_advice(fake: Place, netbox: NetBox, tmp_path: Path) -> None:
    """Each thing that can be wrong, in words, and never with the token."""

    def problem(**options: Any) -> str:
        with pytest.raises(StoreError) as error:
            fake.store(**options).transact(becomes(*SMALL), dry_run=False)
        assert options.get("token", netbox.token).strip() not in str(error.value)
        return str(error.value)

    assert "(403)" in problem(token="wrong" * 8) and "Check store.token" in problem(token="wrong" * 8)
    assert "store.token: has blanks" in problem(token=f"{netbox.token}\n")
    assert "cannot be reached: " in problem(url="http://127.0.0.1:9") and "Check store.url" in problem(url="http://127.0.0.1:9")
    assert "no trusted TLS connection" in problem(url=netbox.url.replace("http", "https"))
    assert "API is not there (404)" in problem(url=f"{netbox.url}/netbox")
    assert "must be the address of NetBox" in problem(url="netbox.example.org")
    assert "is not there" in problem(ca_path=str(tmp_path / "ca.pem"))
    assert "store.network: 'a b'" in problem(network="a b")
    netbox.faults.append(lambda *_request: time.sleep(2))
    assert "no answer within 1 s when asked to read prefixes" in problem(timeout=1)
    netbox.faults.clear()
    netbox.faults.append(lambda *_request: 301)
    assert "sends us on to https://elsewhere.example/api/ipam/prefixes/; write" in problem()
    netbox.faults.clear()
    netbox.html = True
    assert "the answer is no JSON" in problem()
    netbox.html = False
    netbox.allowed -= {"custom-fields.add"}
    assert "let an administrator create these custom fields for the object type ipam.prefix: dn42_network (text); " in problem()
    netbox.allowed |= {"custom-fields.add"}
    netbox.allowed -= {"tags.add"}
    assert "may not create the tag that is the lock (403)" in problem() and "extras.tag (view, add, change, delete)" in problem()
    netbox.allowed |= {"tags.add"}
    netbox.faults.append(lambda method, path, _body: 503 if (method, path) == ("POST", TAGS) else None)
    assert "cannot create the tag that is the lock now (503)" in problem()
    netbox.faults.clear()
    next(field for field in netbox.tables["custom-fields"].values() if field["name"] == "dn42_holder")["validation_regex"] = "^x"
    assert "Value must match regex '^x'" in problem()
    assert not netbox.tables["tags"], "the lock is given back"
    next(field for field in netbox.tables["custom-fields"].values() if field["name"] == "dn42_pool")["type"] = "select"
    assert "the custom field dn42_pool must be of type text" in problem()
    assert fake.store().read() == Plan()


def test_the_environment_cannot_replace_the_token(fake: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert fake.store().read() == Plan()


def test_without_pynetbox_the_file_can_be_imported_and_says_what_to_do() -> None:
    code = """
import sys
sys.modules["pynetbox"] = None
from ansible_collections.dn42.compose.plugins.module_utils import _plan_netbox
try:
    _plan_netbox.PlanNetBox("https://netbox.example.org", "t", "dn42", True, None, 1)
except _plan_netbox.StoreError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert f"pynetbox is missing in {sys.executable}" in done.stdout
    assert f"{sys.executable} -m pip install pynetbox" in done.stdout


def test_a_plan_in_several_requests(fake: Place, netbox: NetBox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_netbox, "CHUNK", 7)
    netbox.page = 5
    blocks = [Block(Prefix(6, BASE[6] + (number << 64), 64), f"n{number}", "dn42") for number in range(30)]
    fake.store().transact(becomes(*blocks), dry_run=False)
    assert fake.store().read() == plan(*blocks)
    assert len([path for method, path, _body in netbox.writes if (method, path) == ("PATCH", PREFIXES)]) == 1, "but one that counts"
    assert len(fake.store().history(100)) == 30
