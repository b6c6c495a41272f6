# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The address plan in PostgreSQL, for teams whose controllers are many.

A call is one transaction. The row of the plan in `network`, taken FOR UPDATE, is the mutex; an exclusion constraint
makes an overlap impossible whatever other clients do. Each plan has a partition of its own, since an SP-GiST index
has one column: this way the constraint holds per plan and needs no extension.

A connection that is lost is made again, and the call begins anew with the plan as it is then. Whether a COMMIT
without an answer has happened is looked up by the identifier of the call. (The server's own `pg_xact_status` cannot
tell: after a crash a transaction number whose COMMIT was lost is given to somebody else.)

This module util is PRIVATE to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import sys
import time
import uuid
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple, TypeVar

from ansible_collections.dn42.compose.plugins.module_utils._address_plan.model import Block, Fault, Plan, Prefix, Refused
from ansible_collections.dn42.compose.plugins.module_utils._plan_store import Decide, Event, LockTimeout, Outcome, Store, StoreError, client_name, decided, differences

try:
    import psycopg
    from psycopg import conninfo, errors, sql
except ImportError as error:
    MISSING_PSYCOPG: Optional[str] = str(error)
else:
    MISSING_PSYCOPG = None

SCHEMA = "dn42_plan"
ADVISORY_KEY = 0x646E3432  # "dn42"; whoever changes the schema holds this lock
TRIES = 8  # how often a call begins anew before it gives up
RETRY_PAUSE = 0.25  # seconds between two attempts to reach a server that was there before
CONNECT_DEFAULTS = {"connect_timeout": "10", "keepalives_idle": "30", "tcp_user_timeout": "30000"}

# Only ever add to this list. Its length is the version of the schema.
MIGRATIONS = (
    f"""
CREATE TABLE {SCHEMA}.network (
    id integer GENERATED ALWAYS AS IDENTITY UNIQUE,
    name text PRIMARY KEY CHECK (name <> ''),
    revision bigint NOT NULL DEFAULT 0
);
CREATE TABLE {SCHEMA}.block (
    network text NOT NULL REFERENCES {SCHEMA}.network (name),
    prefix cidr NOT NULL,
    holder text NOT NULL CHECK (holder <> ''),
    pool text NOT NULL CHECK (pool <> ''),
    released bigint NOT NULL DEFAULT 0 CHECK (released >= 0),
    PRIMARY KEY (network, prefix)
) PARTITION BY LIST (network);
CREATE UNIQUE INDEX block_owner ON {SCHEMA}.block (network, holder, pool, family(prefix)) WHERE released = 0;
CREATE TABLE {SCHEMA}.call (
    network text NOT NULL REFERENCES {SCHEMA}.network (name),
    revision bigint NOT NULL,
    id uuid NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    who text NOT NULL,
    PRIMARY KEY (network, revision)
);
CREATE TABLE {SCHEMA}.event (
    network text NOT NULL,
    revision bigint NOT NULL,
    number integer NOT NULL,
    kind text NOT NULL,
    prefix cidr NOT NULL,
    holder text NOT NULL,
    pool text NOT NULL,
    note text NOT NULL,
    PRIMARY KEY (network, revision, number),
    FOREIGN KEY (network, revision) REFERENCES {SCHEMA}.call (network, revision)
);
""",
)
PARTITION = """
CREATE TABLE {schema}.block_{id} (LIKE {schema}.block INCLUDING ALL, EXCLUDE USING spgist (prefix WITH &&));
ALTER TABLE {schema}.block ATTACH PARTITION {schema}.block_{id} FOR VALUES IN ({name});
"""
# Not to_regclass(): within a transaction it goes on saying no to what somebody else has made meanwhile.
EXISTS = f"SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = '{SCHEMA}' AND c.relname = 'migration'"
READ = f"""
SELECT n.revision, b.prefix::text, b.holder, b.pool, b.released
FROM {SCHEMA}.network n LEFT JOIN {SCHEMA}.block b ON b.network = n.name WHERE n.name = %s ORDER BY b.prefix
"""
DELETE = f"DELETE FROM {SCHEMA}.block WHERE network = %s AND prefix = ANY(%s::text[]::cidr[])"
INSERT = f"""
INSERT INTO {SCHEMA}.block (network, prefix, holder, pool, released)
SELECT %s, * FROM unnest(%s::text[]::cidr[], %s::text[], %s::text[], %s::bigint[])
"""
CALL = f"INSERT INTO {SCHEMA}.call (network, revision, id, who) VALUES (%s, %s, %s, session_user || ' (' || %s || ')')"
EVENT = f"""
INSERT INTO {SCHEMA}.event (network, revision, number, kind, prefix, holder, pool, note)
SELECT %s, %s, * FROM unnest(%s::int[], %s::text[], %s::text[]::cidr[], %s::text[], %s::text[], %s::text[])
"""
HISTORY = f"""
SELECT to_char(c.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), c.who, e.kind, e.prefix::text, e.holder, e.pool, e.note
FROM {SCHEMA}.event e JOIN {SCHEMA}.call c USING (network, revision)
WHERE e.network = %s ORDER BY e.revision DESC, e.number DESC LIMIT %s
"""
# Whoever has a lock on a row holds this lock on the table; so do those who wait, and they wait for another lock too.
LOCKED_BY = f"""
SELECT a.usename, a.application_name FROM pg_locks l JOIN pg_stat_activity a USING (pid)
WHERE l.relation = '{SCHEMA}.network'::regclass AND l.mode IN ('RowShareLock', 'RowExclusiveLock') AND l.granted
AND pid <> pg_backend_pid() AND NOT EXISTS (SELECT FROM pg_locks w WHERE w.pid = l.pid AND NOT w.granted) LIMIT 1
"""

Result = TypeVar("Result")


class _Again(Exception):
    """The plan is another one than was read; begin anew."""


class _Attempt(NamedTuple):
    """What was about to be committed, in case that the answer is lost."""

    revision: int
    outcome: Outcome


class PlanPostgreSQL(Store):
    """The store that is a database. `network` names the plan in it; `lock_timeout` is in seconds."""

    def __init__(self, dsn: str, password: Optional[str], network: str, lock_timeout: float) -> None:
        if MISSING_PSYCOPG:
            raise StoreError(f"The Python library psycopg is missing in {sys.executable} ({MISSING_PSYCOPG}). Install it there: {sys.executable} -m pip install 'psycopg[binary]'")
        self._options = _read_dsn(dsn)
        self._password = password
        self.network = network
        self.lock_timeout = lock_timeout
        where = [f"{name} {self._options[name]}" for name in ("service", "host", "dbname") if self._options.get(name)]
        self.shown = f"plan {network} in PostgreSQL" + (f" ({', '.join(where)})" if where else "")
        self._client = client_name()

    def read(self) -> Plan:
        """The plan as it is."""
        return self._retried(lambda connection: self._read(connection)[1])

    def transact(self, decide: Decide, dry_run: bool) -> Outcome:
        """See `Store`. A call that changes nothing takes no lock, so a role that may only read is enough for it."""
        call = uuid.uuid4()
        attempts: List[_Attempt] = []

        def once(connection: Any) -> Outcome:
            for attempt in attempts:
                if self._happened(connection, attempt.revision, call):
                    return attempt.outcome
            attempts.clear()
            revision, before = self._read(connection)
            outcome = decided(decide, before)
            if dry_run or not outcome.changed:
                return outcome
            if revision is None:
                self._create(connection)
            locked = self._lock(connection)
            if locked != (revision or 0):  # somebody was faster
                before = self._read(connection)[1]
                outcome = decided(decide, before)
                if not outcome.changed:
                    return outcome
            self._write(connection, outcome, locked + 1, call)
            attempts.append(_Attempt(locked + 1, outcome))
            connection.commit()
            return outcome

        return self._retried(once)

    def history(self, limit: int) -> List[Event]:
        """The last events, from the table that every change writes into."""

        def once(connection: Any) -> List[Event]:
            if self._version(connection) == 0:
                return []
            return [Event(*row) for row in connection.execute(HISTORY, (self.network, limit))]

        return self._retried(once)

    def _retried(self, once: Callable[[Any], Result]) -> Result:
        """Run `once` in a transaction of its own, anew when the connection is lost or another client was in the way."""
        deadline = time.monotonic() + self.lock_timeout
        last: Optional[BaseException] = None
        for number in range(TRIES):
            try:
                with self._connected(deadline, again=number > 0) as connection:
                    return once(connection)
            except _Again as error:
                last = error
            except (errors.ExclusionViolation, errors.UniqueViolation, errors.DeadlockDetected, errors.SerializationFailure) as error:
                last = error
            except errors.LockNotAvailable:
                raise LockTimeout(self._lock_message()) from None
            except psycopg.Error as error:
                if not _is_lost(error):
                    raise StoreError(f"{self.shown}: {_told(error)}{_hint(error)}") from None
                last = error
            if time.monotonic() >= deadline:
                break
            time.sleep(RETRY_PAUSE * (number > 0))
        reason = _told(last) if isinstance(last, psycopg.Error) else "other clients change the plan without taking its lock"
        raise StoreError(f"{self.shown}: gave up after several attempts: {reason}. Run again: a change that was made after all is found then")

    @contextlib.contextmanager
    def _connected(self, deadline: float, again: bool) -> Iterator[Any]:
        connection = self._connect(deadline, again)
        try:
            yield connection
            connection.rollback()  # what was to be kept is committed
        finally:
            connection.close()

    def _connect(self, deadline: float, again: bool) -> Any:
        """A new connection. A server that starts, or that was there before, is waited for."""
        while True:
            try:
                connection = psycopg.connect(**self._options, password=self._password, prepare_threshold=None)
            except psycopg.OperationalError as error:
                starting = "starting up" in str(error) or "shutting down" in str(error) or "recovery mode" in str(error)
                if not (starting or (again and _is_absent(error))) or time.monotonic() >= deadline:
                    raise StoreError(f"{self.shown}: no connection: {_told(error)}") from None
                time.sleep(RETRY_PAUSE)
                continue
            try:
                self._set_up(connection)
            except BaseException:
                connection.close()
                raise
            return connection

    def _set_up(self, connection: Any) -> None:
        """What must not depend on the server's configuration."""
        connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        connection.execute("SELECT set_config('lock_timeout', %s, true)", (f"{int(self.lock_timeout * 1000)}ms",))
        # A machine that lost its power does not close its connection: the server lets go of the lock by itself.
        connection.execute("SELECT set_config('idle_in_transaction_session_timeout', %s, true)", (f"{int(max(self.lock_timeout, 60) * 1000)}ms",))
        # An answer to COMMIT has to mean that it is on the disk.
        connection.execute("SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off'")

    def _version(self, connection: Any) -> int:
        """The version of the schema, 0 when there is none. Raises `StoreError` when it is not one that we can use."""
        if connection.execute(EXISTS).fetchone() is None:
            return 0
        version = connection.execute(f"SELECT coalesce(max(version), 0) FROM {SCHEMA}.migration").fetchone()[0]
        if version > len(MIGRATIONS):
            message = f"its schema has version {version}, written by a newer version of dn42.compose; this one knows version {len(MIGRATIONS)}; upgrade it"
            raise StoreError(f"{self.shown}: {message}")
        return version

    def _read(self, connection: Any) -> Tuple[Optional[int], Plan]:
        """The plan and its revision, in one statement and thus of one moment; None and nothing when there is none yet."""
        if self._version(connection) == 0:
            return None, Plan()
        rows = connection.execute(READ, (self.network,)).fetchall()
        if not rows:
            return None, Plan()
        blocks = [_block(*row[1:], origin=self.shown) for row in rows if row[1] is not None]
        blocks.sort(key=lambda block: block.prefix)
        plan = Plan(tuple(block for block in blocks if not block.released), tuple(block for block in blocks if block.released))
        return rows[0][0], plan

    def _create(self, connection: Any) -> None:
        """Bring the schema up to date and make the plan, as part of the transaction that needs it."""
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (ADVISORY_KEY,))
        version = self._version(connection)
        if version == 0:
            if connection.execute("SELECT FROM pg_namespace WHERE nspname = %s", (SCHEMA,)).fetchone() is None:
                connection.execute(f"CREATE SCHEMA {SCHEMA}")
            connection.execute(f"CREATE TABLE {SCHEMA}.migration (version integer PRIMARY KEY, at timestamptz NOT NULL DEFAULT now())")
        for number, statements in enumerate(MIGRATIONS[version:], version + 1):
            connection.execute(statements)
            connection.execute(f"INSERT INTO {SCHEMA}.migration (version) VALUES (%s)", (number,))
        row = connection.execute(f"INSERT INTO {SCHEMA}.network (name) VALUES (%s) ON CONFLICT DO NOTHING RETURNING id", (self.network,)).fetchone()
        if row is not None:
            connection.execute(PARTITION.format(schema=SCHEMA, id=row[0], name=sql.quote(self.network)))

    def _lock(self, connection: Any) -> int:
        """Be the only writer until the end of the transaction; returns the plan's revision."""
        return connection.execute(f"SELECT revision FROM {SCHEMA}.network WHERE name = %s FOR UPDATE", (self.network,)).fetchone()[0]

    def _write(self, connection: Any, outcome: Outcome, revision: int, call: uuid.UUID) -> None:
        """Write what differs, and what happened."""
        before = set(outcome.before.blocks + outcome.before.released)
        after = set(outcome.decision.plan.blocks + outcome.decision.plan.released)
        gone, new = before - after, after - before
        if gone and connection.execute(DELETE, (self.network, [str(block.prefix) for block in gone])).rowcount != len(gone):
            raise _Again
        if new:
            columns = list(zip(*((str(block.prefix), block.holder, block.pool, block.released) for block in sorted(new, key=lambda item: item.prefix))))
            connection.execute(INSERT, (self.network, *map(list, columns)))
        connection.execute(f"UPDATE {SCHEMA}.network SET revision = %s WHERE name = %s", (revision, self.network))
        connection.execute(CALL, (self.network, revision, call, self._client))
        found = [(number, item.kind, str(item.block.prefix), item.block.holder, item.block.pool, item.note) for number, item in enumerate(differences(gone, new))]
        if found:
            connection.execute(EVENT, (self.network, revision, *map(list, zip(*found))))

    def _happened(self, connection: Any, revision: int, call: uuid.UUID) -> bool:
        """Whether a COMMIT whose answer was lost has been done."""
        if self._version(connection) == 0:
            return False
        row = connection.execute(f"SELECT 1 FROM {SCHEMA}.call WHERE network = %s AND revision = %s AND id = %s", (self.network, revision, call)).fetchone()
        return row is not None

    def _lock_message(self) -> str:
        """Who has the lock, as far as the server tells."""
        who = "the server does not say who"
        with contextlib.suppress(psycopg.Error, StoreError), self._connected(time.monotonic(), again=False) as connection:
            row = connection.execute(LOCKED_BY).fetchone()
            who = f"{row[0]}, {row[1]}" if row else "it is free by now"
        return f"another run holds the lock of {self.shown} for more than {self.lock_timeout:g} s ({who}); wait for it to end and run again"


def _read_dsn(dsn: str) -> Dict[str, Any]:
    """The parts of a connection string; raises `Refused` without ever showing it, since there may be a password in it."""
    hidden = "********"
    try:
        options = conninfo.conninfo_to_dict(dsn)
    except psycopg.ProgrammingError:
        message = 'is no connection string of libpq, such as "host=db.example.org dbname=dn42 user=plan" or postgresql://plan@db.example.org/dn42'
        raise Refused([Fault("store.dsn", hidden, message)]) from None
    if "password" in options or re.search(r"[?&]password=", dsn):
        message = "has a password in it; give it as store.password (from a vault), or in libpq's password file (~/.pgpass)"
        raise Refused([Fault("store.dsn", hidden, message)])
    client = f"dn42.compose: {client_name()}, process {os.getpid()}"
    return {"application_name": client[:63], **CONNECT_DEFAULTS, **options}


def _block(text: str, holder: str, pool: str, released: int, origin: str) -> Block:
    """A row. PostgreSQL has checked the prefix, which is read fast."""
    address, _slash, length = text.partition("/")
    family = 6 if ":" in address else 4
    network = int.from_bytes(socket.inet_pton(socket.AF_INET6 if family == 6 else socket.AF_INET, address), "big")
    return Block(Prefix(family, network, int(length)), holder, pool, released, origin)


def _is_lost(error: psycopg.Error) -> bool:
    """Whether the connection is gone, and not for a reason that would come back at once."""
    if isinstance(error, (errors.AdminShutdown, errors.CrashShutdown, errors.CannotConnectNow, errors.IdleInTransactionSessionTimeout)):
        return True
    return isinstance(error, psycopg.OperationalError) and error.sqlstate is None


def _is_absent(error: psycopg.Error) -> bool:
    """Whether there is no server now, unlike one that says no."""
    text = str(error)
    return any(word in text for word in ("refused", "No such file", "timeout expired", "closed the connection", "reset by peer", "unreachable"))


def _told(error: BaseException) -> str:
    """What the server or libpq says, in one line."""
    return " ".join(str(error).split())


def _hint(error: psycopg.Error) -> str:
    if isinstance(error, errors.InsufficientPrivilege):
        return f". The first run of a plan needs the owner of the schema {SCHEMA}; docs/address-plan.md has the privileges for the others"
    return ""
