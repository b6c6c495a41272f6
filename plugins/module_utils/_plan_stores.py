# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which stores there are, the option `store` of the modules that use one, and how it is opened.

Each store is imported when it is asked for: nobody needs the library of a store that he does not use.

This module util is PRIVATE to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import os
from typing import Any, Dict, List, Mapping

from ansible_collections.dn42.compose.plugins.module_utils._address_plan.model import Fault, Refused
from ansible_collections.dn42.compose.plugins.module_utils._plan_store import Store

# The suboptions of `store`: {"store": {"type": "dict", "required": True, "options": STORE_SPEC}}
STORE_SPEC: Dict[str, Dict[str, Any]] = {
    "kind": {"type": "str", "choices": ["file", "postgresql", "netbox"], "default": "file"},
    "path": {"type": "path"},
    "dsn": {"type": "str"},
    "password": {"type": "str", "no_log": True},
    "network": {"type": "str", "default": "dn42"},
    "lock_timeout": {"type": "int", "default": 60},
    "url": {"type": "str"},
    "token": {"type": "str", "no_log": True},
    "validate_certs": {"type": "bool", "default": True},
    "ca_path": {"type": "path"},
    "timeout": {"type": "int", "default": 30},
}

# What each kind needs and what it also knows, of those that have no default.
_NEEDS = {
    "file": {"path": "/srv/dn42/addresses.yml"},
    "postgresql": {"dsn": "host=db.example.org dbname=dn42"},
    "netbox": {"url": "https://netbox.example.org", "token": "a token"},
}
_KNOWS = {"file": (), "postgresql": ("password",), "netbox": ("ca_path",)}
_SECRET = "********"  # in place of a value that no message may show


def open_store(options: Mapping[str, Any]) -> Store:
    """The store that `options` (checked against `STORE_SPEC`) name; it isn't touched before its first use.

    Raises `Refused` when the options do not belong together, `StoreError` when its library is missing.
    """
    faults = _check(options)
    if faults:
        raise Refused(faults)
    kind = options["kind"]
    if kind == "file":
        from ansible_collections.dn42.compose.plugins.module_utils._plan_file import PlanFile

        return PlanFile(options["path"], options["lock_timeout"])
    if kind == "postgresql":
        from ansible_collections.dn42.compose.plugins.module_utils._plan_postgresql import PlanPostgreSQL

        return PlanPostgreSQL(options["dsn"], options["password"], options["network"], options["lock_timeout"])
    from ansible_collections.dn42.compose.plugins.module_utils._plan_netbox import PlanNetBox

    return PlanNetBox(
        url=options["url"],
        token=options["token"],
        network=options["network"],
        validate_certs=options["validate_certs"],
        ca_path=options["ca_path"],
        timeout=options["timeout"],
    )


def _check(options: Mapping[str, Any]) -> List[Fault]:
    """Options that are missing, or belong to another kind of store, or cannot be."""
    kind = options["kind"]
    faults = [Fault(f"store.{name}", None, f"is missing, a store of kind {kind} needs it, such as {example}") for name, example in _NEEDS[kind].items() if not options.get(name)]
    for other, needs in _NEEDS.items():
        for name in (*needs, *_KNOWS[other]):
            if other != kind and options.get(name) is not None:
                shown = _SECRET if STORE_SPEC[name].get("no_log") or name == "dsn" else options[name]
                faults.append(Fault(f"store.{name}", shown, f"belongs to kind {other} and this is kind {kind}; remove it or write kind: {other}"))
    if kind == "file" and options.get("path") and not os.path.isabs(options["path"]):
        faults.append(Fault("store.path", options["path"], "must be absolute, such as /srv/dn42/addresses.yml"))
    for name in ("lock_timeout", "timeout"):
        if options[name] < 1:
            faults.append(Fault(f"store.{name}", options[name], "must be a number of seconds from 1 on"))
    if not str(options["network"]).strip():
        faults.append(Fault("store.network", options["network"], "is empty, give the plan a name such as dn42"))
    return faults
