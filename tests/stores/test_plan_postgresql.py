# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The PostgreSQL store against a real server: what the database guards, what is refused, what survives."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import psycopg
import pytest
from ansible_collections.dn42.compose.plugins.module_utils import _plan_postgresql as plan_postgresql
from ansible_collections.dn42.compose.plugins.module_utils._address_plan.decide import decide
from ansible_collections.dn42.compose.plugins.module_utils._address_plan.model import Decision, Plan, Refused
from ansible_collections.dn42.compose.plugins.module_utils._plan_postgresql import PlanPostgreSQL
from ansible_collections.dn42.compose.plugins.module_utils._plan_store import LockTimeout, StoreError
from postgresql_server import Server
from writer import ask_for


@pytest.fixture
def dsn(server: Server, request: pytest.FixtureRequest) -> Iterator[str]:
    """A database of its own."""
    name = f"test_{abs(hash(request.node.name))}"
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    yield server.dsn.replace("dbname=postgres", f"dbname={name}")
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def store_of(dsn: str, network: str = "dn42", lock_timeout: float = 20) -> PlanPostgreSQL:
    return PlanPostgreSQL(dsn, None, network, lock_timeout)


def giving(*names: str):
    def decide_names(plan: Plan) -> Decision:
        return decide(plan, ask_for(*names))

    return decide_names


def test_nothing_is_made_before_something_is_kept(dsn: str) -> None:
    store = store_of(dsn)
    assert store.read() == Plan() and store.history(5) == []
    assert store.transact(giving("fra1"), True).changed
    with psycopg.connect(dsn) as connection:
        assert connection.execute("SELECT count(*) FROM pg_namespace WHERE nspname = 'dn42_plan'").fetchone() == (0,)


def test_plans_in_one_database_do_not_meet(dsn: str) -> None:
    first, second = store_of(dsn), store_of(dsn, "o'ther; --%s {x}")
    assert first.transact(giving("fra1"), False).decision.given == second.transact(giving("fra1"), False).decision.given
    first.transact(giving("hkg1"), False)
    assert [block.holder for block in second.read().blocks] == ["fra1"]
    assert [(event.kind, event.holder) for event in first.history(9)] == [("given", "hkg1"), ("given", "fra1")]
    assert [event.holder for event in first.history(1)] == ["hkg1"]


@pytest.mark.parametrize(("prefix", "released", "constraint"), [("172.20.0.0/28", 0, "exclu"), ("172.20.0.0/32", 7, "exclu"), ("172.20.9.0/29", 0, "unique")])
def test_the_database_refuses_what_other_clients_must_not_do(dsn: str, prefix: str, released: int, constraint: str) -> None:
    store_of(dsn).transact(giving("fra1"), False)  # has 172.20.0.0/29
    with psycopg.connect(dsn) as connection, pytest.raises(psycopg.errors.IntegrityError, match=constraint):
        connection.execute("INSERT INTO dn42_plan.block VALUES ('dn42', %s, 'fra1', 'dn42', %s)", (prefix, released))


def test_another_client_in_the_way_makes_the_call_decide_again(dsn: str) -> None:
    """Somebody writes blocks without taking the lock, between our read and our write."""
    store = store_of(dsn)
    store.transact(giving("fra1"), False)
    seen = []

    def decide_late(plan: Plan) -> Decision:
        seen.append(len(plan.blocks))
        decision = decide(plan, ask_for("fra1", "hkg1"))
        if len(seen) == 1:
            with psycopg.connect(dsn) as connection:
                connection.execute("INSERT INTO dn42_plan.block VALUES ('dn42', '172.20.0.8/29', 'stranger', 'dn42')")
        return decision

    store.transact(decide_late, False)
    assert seen == [1, 2]
    assert [str(block.prefix) for block in store.read().blocks] == ["172.20.0.0/29", "172.20.0.8/29", "172.20.0.16/29"]


def test_waiting_for_the_lock_ends_and_says_who_has_it(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store_of(dsn).transact(giving("fra1"), False)
    monkeypatch.setattr(PlanPostgreSQL, "_write", lambda *_arguments: pytest.fail("writes without the lock"))
    with psycopg.connect(dsn, application_name="somebody's psql") as connection:
        connection.execute("SELECT FROM dn42_plan.network FOR UPDATE")
        with pytest.raises(LockTimeout, match=r"more than 0\.3 s \(postgres, somebody's psql\)"):
            store_of(dsn, lock_timeout=0.3).transact(giving("hkg1"), False)
        assert not store_of(dsn, lock_timeout=0.3).transact(giving("fra1"), False).changed


@pytest.mark.parametrize("happened", [True, False])
def test_a_lost_answer_to_commit(dsn: str, happened: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection dies around COMMIT; the call itself finds out, and tells what it did."""
    store = store_of(dsn)
    store.transact(giving("fra1"), False)
    commit = psycopg.Connection.commit
    lost = []

    def lose(connection: psycopg.Connection) -> None:
        if happened or lost:
            commit(connection)
        if not lost:
            lost.append(True)
            with psycopg.connect(dsn, autocommit=True) as other:
                other.execute("SELECT pg_terminate_backend(%s)", (connection.info.backend_pid,))
            connection.execute("SELECT 1")  # raises, as an answer that never comes

    monkeypatch.setattr(plan_postgresql.psycopg.Connection, "commit", lose)
    outcome = store.transact(giving("hkg1"), False)
    assert lost and outcome.changed
    assert [block.holder for block in store.read().blocks] == ["fra1", "hkg1"]
    assert [event.holder for event in store.history(9)] == ["hkg1", "fra1"]


def test_a_newer_schema_is_refused(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_postgresql, "MIGRATIONS", (*plan_postgresql.MIGRATIONS, "CREATE TABLE dn42_plan.future ()"))
    store_of(dsn).transact(giving("fra1"), False)
    monkeypatch.undo()
    for use in (store_of(dsn).read, lambda: store_of(dsn).history(1), lambda: store_of(dsn).transact(giving("hkg1"), False)):
        with pytest.raises(StoreError, match=r"schema has version 2, written by a newer version of dn42\.compose; this one knows version 1"):
            use()


def test_many_first_calls_at_once_make_one_schema(dsn: str) -> None:
    failures: list = []

    def work(number: int) -> None:
        try:
            store_of(dsn, f"plan {number % 2}").transact(giving(f"n{number}"), False)
        except Exception as error:  # told by the assertion below
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures
    assert [len(store_of(dsn, f"plan {number}").read().blocks) for number in range(2)] == [4, 4]


def test_the_documented_privileges_are_enough(dsn: str) -> None:
    store_of(dsn).transact(giving("fra1"), False)
    with psycopg.connect(dsn) as connection:
        connection.execute(
            """
            CREATE ROLE controller LOGIN; CREATE ROLE viewer LOGIN;
            GRANT USAGE ON SCHEMA dn42_plan TO controller, viewer;
            GRANT SELECT ON ALL TABLES IN SCHEMA dn42_plan TO controller, viewer;
            GRANT INSERT, DELETE ON dn42_plan.block TO controller;
            GRANT INSERT ON dn42_plan.call, dn42_plan.event TO controller;
            GRANT UPDATE (revision) ON dn42_plan.network TO controller;
            """
        )
    try:
        controller, viewer = (store_of(dsn.replace("user=postgres", f"user={name}")) for name in ("controller", "viewer"))
        assert controller.transact(giving("hkg1"), False).changed
        assert controller.history(1)[0].who.startswith("controller (")
        assert not viewer.transact(giving("fra1"), False).changed
        assert viewer.transact(giving("nrt1"), True).changed
        with pytest.raises(StoreError, match=r"permission denied.*privileges"):
            viewer.transact(giving("nrt1"), False)
    finally:
        with psycopg.connect(dsn) as connection:
            connection.execute("DROP OWNED BY controller, viewer; DROP ROLE controller, viewer")


@pytest.mark.parametrize("dsn", ["host=/nowhere password=s3cret", "postgresql://plan:s3cret@127.0.0.1/x", "host=x s3cret", "postgresql://127.0.0.1/x?password=s3cret"], ids="abcd")
def test_a_password_in_the_connection_string_is_refused_and_not_shown(dsn: str) -> None:
    with pytest.raises(Refused) as refusal:
        store_of(dsn)
    assert "s3cret" not in str(refusal.value) and "store.dsn" in str(refusal.value)


def test_no_server() -> None:
    with pytest.raises(StoreError, match=r"plan dn42 in PostgreSQL \(host /nowhere\): no connection: .*No such file") as failure:
        PlanPostgreSQL("host=/nowhere", "s3cret", "dn42", 5).read()
    assert "s3cret" not in str(failure.value)
