# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""One writer of the crash rounds: `writer.py OPTIONS`, a process that asks a store for one block after the other.

OPTIONS is JSON: `store` (as the module takes it), `name`, `first`, `count`, `acknowledged` (a file that gets a line
for every block that the store said was kept) and `die` (null, or the number of a call and the moment in it at
which the process kills itself: nothing else stops between two steps on purpose).
"""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
from ansible_collections.dn42.compose.plugins.module_utils import _plan_file
from ansible_collections.dn42.compose.plugins.module_utils._address_plan.decide import decide
from ansible_collections.dn42.compose.plugins.module_utils._address_plan.model import Ask, Plan, Pool, Prefix, Request
from ansible_collections.dn42.compose.plugins.module_utils._plan_postgresql import PlanPostgreSQL
from ansible_collections.dn42.compose.plugins.module_utils._plan_store import StoreError
from ansible_collections.dn42.compose.plugins.module_utils._plan_stores import STORE_SPEC, open_store

PATIENCE = 60  # seconds that a call may take, server restarts included
POOL = Pool("dn42", {4: (Prefix(4, 0xAC140000, 14),)}, {4: 29})
MOMENTS: dict[str, dict[str, tuple[Any, str]]] = {
    "file": {
        "read": (_plan_file.PlanFile, "_read"),
        "wait": (_plan_file.PlanFile, "_wait"),
        "create": (os, "fchmod"),  # the new file is there and still empty
        "fsync": (os, "fsync"),
        "rename": (Path, "rename"),
        "directory": (_plan_file, "_sync_directory"),
        "unlock": (Path, "unlink"),
    },
    "postgresql": {
        "read": (PlanPostgreSQL, "_read"),
        "lock": (PlanPostgreSQL, "_lock"),
        "write": (PlanPostgreSQL, "_write"),
        "commit": (psycopg.Connection, "commit"),
    },
}


def ask_for(*names: str) -> Ask:
    """A request for these holders; the others keep what they have."""
    return Ask((POOL,), tuple(Request(name, POOL.name, POOL.lengths) for name in names), {"host": 1})


def deadly(function: Callable[..., Any], when: str) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if when == "after":
            function(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)

    return call


def arm(kind: str, moment: str) -> None:
    name, when = moment.split()
    owner, attribute = MOMENTS[kind][name]
    setattr(owner, attribute, deadly(getattr(owner, attribute), when))


def transact(options: dict, name: str) -> Prefix:
    """Ask until the store can be reached, as the people at the controller would."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            outcome = open_store(options["store"]).transact(functools.partial(decide_one, name=name), False)
            return outcome.decision.given[name][4]
        except StoreError as error:
            if "no connection" not in str(error) or time.monotonic() >= deadline:
                raise
            time.sleep(0.1)


def decide_one(plan: Plan, name: str) -> Any:
    return decide(plan, ask_for(name))


def store_options(**options: Any) -> dict[str, Any]:
    """The options of a store with the defaults that the module has."""
    return {**{name: entry.get("default") for name, entry in STORE_SPEC.items()}, **options}


def main() -> None:
    options = json.loads(sys.argv[1])
    handle = os.open(options["acknowledged"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for number in range(options["first"], options["count"]):
        if options["die"] and options["die"][0] == number:
            arm(options["store"]["kind"], options["die"][1])
        name = f"{options['name']}-{number}"
        os.write(handle, f"{name} {transact(options, name)}\n".encode())


if __name__ == "__main__":
    main()
