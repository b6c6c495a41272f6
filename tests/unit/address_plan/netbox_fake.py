# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A NetBox in miniature: the part of its REST API that the store uses, with the behaviour of NetBox 4.

Written after NetBox's own sources: pages of 50 and of at most 1000, filters that are ignored when unknown and loose for
text fields, unique slugs and names, prefixes that may exist twice, bulk requests that are one transaction and
skip ids that are not there, custom fields that are checked or dropped, tags looked up by id for each object in
turn and gone from everything when deleted, a change log, and answers of 400, 403, 404 and 500.

A test makes it worse with `faults`: each is called with the request before it is carried out and may return
`DROP` (carried out, but the connection closes without an answer), `LOSE` (closed before), a status to answer with, or
None; or wait.
"""

from __future__ import annotations

import copy
import datetime
import ipaddress
import json
import re
import threading
import urllib.parse
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

DROP, LOSE = "drop", "lose"
ALL = frozenset(f"{kind}.{verb}" for kind in ("prefixes", "tags", "custom-fields", "object-changes") for verb in ("view", "add", "change", "delete"))
VERBS = {"GET": "view", "POST": "add", "PATCH": "change", "DELETE": "delete"}
PATHS = {"ipam/prefixes": "prefixes", "extras/tags": "tags", "extras/custom-fields": "custom-fields", "core/object-changes": "object-changes"}
STATUSES = {"container": "Container", "active": "Active", "reserved": "Reserved", "deprecated": "Deprecated"}
REQUIRED = {"prefixes": ("prefix",), "tags": ("name", "slug"), "custom-fields": ("name", "type", "object_types")}


class Invalid(Exception):
    """A 400."""

    def __init__(self, errors: Any) -> None:
        self.errors = errors


class NetBox:
    """The whole state. `with NetBox() as netbox:` serves it at `netbox.url` until the end."""

    token = "0123456789abcdef0123456789abcdef01234567"

    def __init__(self, unique: bool = False, page: int = 1000) -> None:
        self.unique = unique  # ENFORCE_GLOBAL_UNIQUE
        self.page = page  # MAX_PAGE_SIZE
        self.allowed = set(ALL)
        self.tables: dict[str, dict[int, dict[str, Any]]] = {"prefixes": {}, "tags": {}, "custom-fields": {}, "object-changes": {}}
        self.lock = threading.RLock()
        self.last = 0
        self.skew = datetime.timedelta()
        self.requests: list[tuple[str, str, Any]] = []
        self.faults: list[Callable[[str, str, Any], Any]] = []
        self.html = False

    def __enter__(self) -> NetBox:
        handler = type("Handler", (_Handler,), {"netbox": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    # For tests

    @property
    def writes(self) -> list[tuple[str, str, Any]]:
        return [request for request in self.requests if request[0] != "GET"]

    def prefixes(self) -> list[dict[str, Any]]:
        with self.lock:
            return [copy.deepcopy(row) for row in self.tables["prefixes"].values()]

    def now(self) -> datetime.datetime:
        return datetime.datetime.now(datetime.timezone.utc) + self.skew

    # The API

    def handle(self, method: str, path: str, query: dict[str, list[str]], body: Any) -> tuple[int, Any]:
        match = re.fullmatch(r"/api/([a-z-]+/[a-z-]+)/(?:(\d+)/)?", path)
        kind = PATHS.get(match[1]) if match else None
        if kind is None or match is None:
            return 404, {"detail": "Not found."}
        if f"{kind}.{VERBS[method]}" not in self.allowed:
            return 403, {"detail": "You do not have permission to perform this action."}
        with self.lock:
            before = copy.deepcopy(self.tables) if method != "GET" else self.tables  # every request is one transaction
            try:
                return self._run(method, kind, int(match[2]) if match[2] else None, query, body)
            except Invalid as error:
                self.tables = before
                return 400, error.errors

    def _run(self, method: str, kind: str, pk: int | None, query: dict[str, list[str]], body: Any) -> tuple[int, Any]:
        table = self.tables[kind]
        if pk is not None:
            if pk not in table:
                return 404, {"detail": "No object matches the given query."}
            if method == "GET":
                return 200, self._shown(kind, table[pk])
            body = [{**(body or {}), "id": pk}]
        if method == "GET":
            return 200, self._list(kind, query)
        if method == "POST":
            many = isinstance(body, list)
            created = self._create(kind, body if many else [body])
            return 201, created if many else created[0]
        if any(not isinstance(entry.get("id"), int) for entry in body):
            raise Invalid([{"id": ["This field is required."]}])
        there = [entry for entry in sorted(body, key=lambda entry: entry["id"]) if entry["id"] in table]
        if method == "DELETE":
            for entry in there:
                self._remove(kind, entry["id"])
            return 204, None
        for entry in there:
            self._update(kind, table[entry["id"]], entry)
        answer = [self._shown(kind, table[entry["id"]]) for entry in there]
        return 200, answer if pk is None else answer[0]

    def _list(self, kind: str, query: dict[str, list[str]]) -> dict[str, Any]:
        rows = [row for row in self.tables[kind].values() if all(self._matches(kind, row, key, values) for key, values in query.items())]
        for order in reversed(query.get("ordering", [""])[0].split(",")):
            if order:
                rows.sort(key=lambda row: row[order.lstrip("-")], reverse=order.startswith("-"))
        limit, offset = int(query.get("limit", ["50"])[0]), int(query.get("offset", ["0"])[0])
        limit = min(limit or self.page, self.page)
        path = next(path for path, name in PATHS.items() if name == kind)
        more = f"{self.url}/api/{path}/?{urllib.parse.urlencode({**query, 'limit': limit, 'offset': offset + limit}, doseq=True)}"
        results = [self._shown(kind, row) for row in rows[offset : offset + limit]]
        return {"count": len(rows), "next": more if offset + limit < len(rows) else None, "previous": None, "results": results}

    def _matches(self, kind: str, row: dict[str, Any], key: str, values: list[str]) -> bool:
        if kind == "prefixes" and key.startswith("cf_"):
            field = next((field for field in self.tables["custom-fields"].values() if field["name"] == key[3:]), None)
            value = str(row["custom_fields"].get(key[3:]) or "")
            if field is None:  # filters that are not known are ignored
                return True
            return value in values if field["filter_logic"] == "exact" else any(text.lower() in value.lower() for text in values)
        if key in ("prefix", "name", "slug", "id", "changed_object_type"):
            return str(row.get(key)) in values
        return True

    def _shown(self, kind: str, row: dict[str, Any]) -> dict[str, Any]:
        shown = {**copy.deepcopy(row), "url": f"{self.url}/api/{kind}/{row['id']}/", "display": str(row.get("prefix") or row.get("name") or row["id"])}
        if kind == "prefixes":
            shown["status"] = {"value": row["status"], "label": STATUSES[row["status"]]}
            shown["family"] = {"value": int(":" in row["prefix"]) * 2 + 4, "label": ""}
            shown["tags"] = [self._shown("tags", self.tables["tags"][tag]) for tag in row["tags"]]
            shown["custom_fields"] = {name: row["custom_fields"].get(name) for name in self._fields()}
        if kind == "custom-fields":
            shown["type"] = {"value": row["type"], "label": row["type"].title()}
        if kind == "object-changes":
            shown["action"] = {"value": row["action"], "label": row["action"].title()}
        return shown

    def _create(self, kind: str, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        # NetBox checks the whole list before it saves any of it, so it does not see a duplicate within the list.
        rows = [self._checked(kind, self._defaults(kind), entry, None) for entry in entries]
        for row in rows:
            self.last += 1
            row["id"] = self.last
            row["created"] = row["last_updated"] = self.now().isoformat()
            self.tables[kind][row["id"]] = row
            self._log(kind, "create", None, row)
        return [self._shown(kind, row) for row in rows]

    def _update(self, kind: str, row: dict[str, Any], entry: dict[str, Any]) -> None:
        before = copy.deepcopy(row)
        row.update(self._checked(kind, copy.deepcopy(row), entry, row["id"]))
        row["last_updated"] = self.now().isoformat()
        if {**before, "last_updated": None} != {**row, "last_updated": None}:
            self._log(kind, "update", before, row)

    def _remove(self, kind: str, pk: int) -> None:
        row = self.tables[kind].pop(pk)
        if kind == "tags":
            for prefix in self.tables["prefixes"].values():
                prefix["tags"] = [tag for tag in prefix["tags"] if tag != pk]
        self._log(kind, "delete", row, None)

    def _defaults(self, kind: str) -> dict[str, Any]:
        if kind == "prefixes":
            return {"vrf": None, "status": "active", "role": None, "description": "", "comments": "", "tags": [], "custom_fields": {}}
        if kind == "tags":
            return {"description": "", "color": "9e9e9e", "weight": 1000, "object_types": []}
        return {"label": "", "description": "", "required": False, "filter_logic": "loose", "validation_regex": "", "validation_minimum": None, "group_name": ""}

    def _checked(self, kind: str, row: dict[str, Any], entry: dict[str, Any], pk: int | None) -> dict[str, Any]:
        errors = {} if pk else {name: ["This field is required."] for name in REQUIRED[kind] if name not in entry}
        if errors:
            raise Invalid(errors)
        fields = {**row["custom_fields"], **entry.get("custom_fields", {})} if kind == "prefixes" else None
        row.update({key: value for key, value in entry.items() if key not in ("id", "custom_fields", "created", "last_updated")})
        for key in {"tags": ("name", "slug"), "custom-fields": ("name",)}.get(kind, ()):
            if any(other["id"] != pk and other[key].lower() == row[key].lower() for other in self.tables[kind].values()):
                errors[key] = [f"{kind[:-1].replace('-', ' ')} with this {key} already exists."]
        if errors:
            raise Invalid(errors)
        if kind == "prefixes":
            self._check_prefix(row, fields or {}, pk)
        return row

    def _check_prefix(self, row: dict[str, Any], fields: dict[str, Any], pk: int | None) -> None:
        try:
            row["prefix"] = str(ipaddress.ip_network(row["prefix"], strict=False))
        except ValueError:
            raise Invalid({"prefix": [f"Invalid IP address format: {row['prefix']}"]}) from None
        if row["status"] not in STATUSES:
            raise Invalid({"status": [f"{row['status']} is not a valid choice."]})
        if len(row["description"]) > 200:
            raise Invalid({"description": ["Ensure this field has no more than 200 characters."]})
        for tag in row["tags"]:
            if tag not in self.tables["tags"]:
                raise Invalid({"tags": [f"Related object not found using the provided numeric ID: {tag}"]})
        twins = [other for other in self.tables["prefixes"].values() if other["id"] != pk and (other["prefix"], other["vrf"]) == (row["prefix"], row["vrf"])]
        if self.unique and twins and not row["vrf"]:
            raise Invalid({"prefix": [f"Duplicate prefix found in global table: {row['prefix']}"]})
        known = self._fields()
        row["custom_fields"] = {name: value for name, value in fields.items() if name in known}  # others are dropped silently
        for name, field in known.items():
            self._check_field(field, row["custom_fields"].get(name))

    def _check_field(self, field: dict[str, Any], value: Any) -> None:
        wrong = None
        if value in (None, ""):
            wrong = "Required field cannot be empty." if field["required"] else None
        elif field["type"] == "text" and type(value) is not str:
            wrong = "Value must be a string."
        elif field["type"] == "text" and field["validation_regex"] and not re.match(field["validation_regex"], value):
            wrong = f"Value must match regex '{field['validation_regex']}'"
        elif field["type"] == "integer" and type(value) is not int:
            wrong = "Value must be an integer."
        if wrong:
            raise Invalid({"__all__": [f"Invalid value for custom field '{field['name']}': {wrong}"]})

    def _fields(self) -> dict[str, dict[str, Any]]:
        return {field["name"]: field for field in self.tables["custom-fields"].values() if "ipam.prefix" in field["object_types"]}

    def _log(self, kind: str, action: str, before: Any, after: Any) -> None:
        self.last += 1
        types = {"prefixes": "ipam.prefix", "tags": "extras.tag", "custom-fields": "extras.customfield"}
        self.tables["object-changes"][self.last] = {
            "id": self.last,
            "time": self.now().isoformat(),
            "user_name": "alice",
            "action": action,
            "message": "",
            "changed_object_type": types[kind],
            "changed_object_id": (after or before)["id"],
            "prechange_data": copy.deepcopy(before),
            "postchange_data": copy.deepcopy(after),
        }


class _Handler(BaseHTTPRequestHandler):
    netbox: NetBox
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # headers and body in one packet; else each answer waits for a delayed acknowledgement
    disable_nagle_algorithm = True

    def _serve(self) -> None:
        netbox = self.netbox
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        parts = urllib.parse.urlsplit(self.path)
        netbox.requests.append((self.command, parts.path, body))
        if netbox.html:
            self._answer(200, "<html>Welcome to nginx!</html>", "text/html")
            return
        if self.headers.get("Authorization") != f"Token {netbox.token}":
            self._answer(403, json.dumps({"detail": "Invalid token"}))
            return
        verdict = next((verdict for verdict in [fault(self.command, parts.path, body) for fault in list(netbox.faults)] if verdict), None)
        if isinstance(verdict, int):
            self._answer(verdict, json.dumps({"detail": "a passing trouble"}))
        elif verdict == LOSE:
            self._hang_up()
        else:
            status, answer = netbox.handle(self.command, parts.path, urllib.parse.parse_qs(parts.query), body)
            if verdict == DROP:
                self._hang_up()
            else:
                self._answer(status, "" if answer is None else json.dumps(answer))

    do_GET = do_POST = do_PATCH = do_DELETE = _serve

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.close()

    def _answer(self, status: int, text: str, kind: str = "application/json") -> None:
        content = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("API-Version", "4.4")
        if 300 <= status < 400:
            self.send_header("Location", f"https://user:pass@elsewhere.example{self.path}")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def date_time_string(self, timestamp: float | None = None) -> str:
        return self.netbox.now().strftime("%a, %d %b %Y %H:%M:%S GMT")

    def log_message(self, format: str, *args: Any) -> None:
        pass
