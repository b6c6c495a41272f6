# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The address plan as prefixes in NetBox 4, through its REST API.

A prefix belongs to the plan by its custom fields, and by nothing else: people may edit descriptions, tags, roles
and sites, and prefixes of others are never touched.

NetBox offers no transaction over several requests and no lock. What it does offer is used like this:

- A slug is unique in the database, so creating the tag with the plan's slug is the mutex. Whoever finds one that is
  older than the lease deletes it.
- A bulk request is one transaction. New prefixes are created beside the plan first, marked as unfinished, and one bulk
  update then switches everything at once.
- That update puts the tag of the lock on every prefix it changes. It names the tag by its id, so with the tag gone it
  fails as a whole: a writer that was paused, or whose request was stuck somewhere, cannot write any more once its lock
  was taken from it. NetBox looks a tag up by id and assigns it by name, which leaves a moment for a deletion between
  the two; with two prefixes in an update the second one's look-up, or the foreign key, closes it.
- Deleting that tag is the release of the lock and takes it off all prefixes again.

This module util is PRIVATE to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import contextlib
import datetime
import email.utils
import getpass
import hashlib
import itertools
import os
import re
import socket
import sys
import time
import urllib.parse
import uuid
from typing import Any, Dict, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from ansible_collections.dn42.compose.plugins.module_utils._address_plan.decide import check_blocks
from ansible_collections.dn42.compose.plugins.module_utils._address_plan.model import Block, Fault, Plan, Prefix, Refused
from ansible_collections.dn42.compose.plugins.module_utils._address_text import Unreadable, read_name, read_prefix
from ansible_collections.dn42.compose.plugins.module_utils._plan_store import Decide, Event, LockTimeout, Outcome, Store, StoreError

try:
    import pynetbox
    import requests
    import urllib3
    from requests.adapters import HTTPAdapter
except ImportError as error:
    MISSING_PYNETBOX: Optional[str] = str(error)
    HTTPAdapter = object
else:
    MISSING_PYNETBOX = None

NETWORK, HOLDER, POOL, RELEASED = "dn42_network", "dn42_holder", "dn42_pool", "dn42_released"
FIELDS = {
    NETWORK: ("text", "Plan", "The address plan of dn42.compose that this prefix belongs to"),
    HOLDER: ("text", "Holder", "Who owns this block, or owned it last"),
    POOL: ("text", "Pool", "The pool that this block was taken from"),
    RELEASED: ("integer", "Released", "0 or empty while the block is owned, else the number of its release"),
}
OWNED_STATUS, RELEASED_STATUS, UNFINISHED_STATUS = "active", "deprecated", "reserved"
PAGE = 1000  # rows, NetBox's usual MAX_PAGE_SIZE; with a smaller one pynetbox follows the pages that come
CHUNK = 100  # rows per request where several will do, for short requests and short URLs
HISTORY_PAGES = 20  # of CHUNK changes each
ATTEMPTS = 3
RETRY_PAUSE = 1.0  # seconds before the second attempt, twice that before the third
LOCK_PAUSE = 0.2  # seconds between two attempts to get the lock
LOCK_PATIENCE = 5  # leases to wait for the lock
GRACE = 1.0  # seconds after taking a lock away, for what NetBox is just finishing
RIGHTS = "ipam.prefix and extras.tag (view, add, change, delete), extras.customfield (view; add for the first run), core.objectchange (view)"
TOKEN = re.compile(r"[!-~]+")


class _Unclear(StoreError):
    """A write whose outcome nobody knows, or that failed by a passing cause."""


class _Rejected(StoreError):
    """NetBox refused what was sent (400); `answer` is what it said."""

    def __init__(self, message: str, answer: str) -> None:
        super().__init__(message)
        self.answer = answer


class _Row(NamedTuple):
    """A prefix of the plan and what has to survive a change of it."""

    id: int
    block: Block
    description: str
    tags: Tuple[int, ...]


class _Difference(NamedTuple):
    """What makes a new plan out of the rows that are there."""

    create: List[Block]
    change: List[Tuple[_Row, Block]]
    drop: List[_Row]


class _Adapter(HTTPAdapter):
    """Gives every request a timeout and our own idea of TLS, whatever the environment says; repeats what is only read."""

    def __init__(self, timeout: int, verify: Any) -> None:
        self.timeout = timeout
        self.verify = verify
        retries = urllib3.Retry(
            total=3,
            connect=1,
            read=1,
            other=0,
            backoff_factor=0.3,
            allowed_methods=["GET"],
            status_forcelist=(429, 502, 503, 504),
            respect_retry_after_header=False,
            raise_on_status=False,
        )
        super().__init__(max_retries=retries)

    def send(self, request: Any, **options: Any) -> Any:  # type: ignore[override]
        options.update(timeout=self.timeout, verify=self.verify)
        return super().send(request, **options)


class PlanNetBox(Store):
    """The plan named `network` in the NetBox at `url`. `timeout` is in seconds and counts for each request.

    Raises `StoreError` when pynetbox is missing or an option cannot be used.
    """

    def __init__(self, url: str, token: str, network: str, validate_certs: bool, ca_path: Optional[str], timeout: int) -> None:
        if MISSING_PYNETBOX:
            raise StoreError(f"The Python library pynetbox is missing in {sys.executable} ({MISSING_PYNETBOX}). Install it there: {sys.executable} -m pip install pynetbox")
        _check_options(url, token, network, ca_path)
        self.network = network
        self.unfinished = f"{network} (unfinished)"  # no plan has this name, since names have no blanks
        self.url = re.sub(r"/(api/?)?$", "", url.strip())
        self.shown = f"{self.url} plan {network}"
        self.token = token
        self.lease = 60.0 + 2 * timeout  # seconds without a sign of life after which a lock counts for nothing
        self.slug = "dn42-plan-lock-" + hashlib.sha256(network.encode()).hexdigest()[:16]
        self.timeout = timeout
        self.now: Optional[datetime.datetime] = None  # the server's clock at its last answer
        self.answers = 0
        self.api = pynetbox.api(self.url, token=token)
        self.api.http_session = self._session(ca_path or validate_certs)

    # What a store is

    def read(self) -> Plan:
        """The plan as it is."""
        return _plan(self._rows())

    def transact(self, decide: Decide, dry_run: bool) -> Outcome:
        """Let `decide` see the plan and keep what it decides; see `Store`."""
        rows = self._rows()
        before = _plan(rows)
        outcome = Outcome(decide(before), before)
        if outcome.changed:
            self._refuse_foreign(rows, outcome.decision.plan)
        if dry_run or not outcome.changed:
            return outcome
        self._need_fields()
        return self._keep(decide)

    def history(self, limit: int) -> List[Event]:
        """The last events from NetBox's change log, as far back as NetBox keeps it."""
        return list(itertools.islice(self._events(), limit))

    # Writing

    def _keep(self, decide: Decide) -> Outcome:
        """Decide and write under the lock, again when somebody took the lock or an answer got lost."""
        unsure: Optional[Outcome] = None
        problem: Optional[StoreError] = None
        for attempt in range(ATTEMPTS):
            time.sleep(attempt * RETRY_PAUSE)
            lock = self._lock()
            try:
                rows = self._rows()
                before = _plan(rows)
                if unsure is not None and before == unsure.decision.plan:
                    return unsure  # the answer was lost, not the change
                outcome = Outcome(decide(before), before)
                if outcome.changed:
                    unsure = outcome
                    self._refuse_foreign(rows, outcome.decision.plan)
                    self._write(lock, rows, outcome.decision.plan)
                return outcome
            except _Unclear as error:
                problem = error
            except _Rejected as error:
                if self._lock_is_there(lock):
                    raise
                problem = error
            finally:
                released = self._unlock(lock)
            if not released:
                break  # a request may still be under way
        raise StoreError(f"{problem}\nWhether the plan was changed is not known; the next run finds out and finishes it.")

    def _write(self, lock: int, rows: Sequence[_Row], plan: Plan) -> None:
        """Bring NetBox from `rows` to `plan`; what counts changes in one request."""
        self._clear()
        difference = _difference(rows, plan)
        changes = [self._change(row, block) for row, block in difference.change]
        changes += [{"id": row.id, "custom_fields": {NETWORK: self.unfinished}, "tags": list(row.tags)} for row in difference.drop]
        for few in _chunks(difference.create):
            with self._talk("create prefixes"):
                staged = self.api.ipam.prefixes.create([self._staged(block) for block in few])
            changes += [
                {"id": row.id, "status": _status(block), "description": _description(block), "custom_fields": self._fields(block), "tags": []} for row, block in zip(staged, few)
            ]
            self._renew(lock)
        if len(changes) == 1:  # two close the gap that is described above
            changes += [{"id": row.id, "tags": list(row.tags)} for row in rows if row.id != changes[0]["id"]][:1]
        for change in changes:
            change["tags"].append(lock)
        with self._talk("update prefixes"):
            answer = self.api.ipam.prefixes.update(changes)
        if len(answer) != len(changes):
            raise _Unclear(f"{self.shown}: {len(changes) - len(answer)} of {len(changes)} prefixes were deleted while they were changed, or the token may not change them.")
        with contextlib.suppress(StoreError):  # they are no longer part of the plan; what stays is cleared by the next change
            self._delete([row.id for row in difference.drop])

    def _staged(self, block: Block) -> Dict[str, Any]:
        """A new prefix that nobody counts yet."""
        text = f"dn42.compose is about to give this to {block.holder}; not in use"
        return {"prefix": str(block.prefix), "status": UNFINISHED_STATUS, "description": text[:200], "custom_fields": {**self._fields(block), NETWORK: self.unfinished}}

    def _change(self, row: _Row, block: Block) -> Dict[str, Any]:
        """An update of a prefix that is there. The description changes only while it is still our own."""
        change = {"id": row.id, "prefix": str(block.prefix), "status": _status(block), "custom_fields": self._fields(block), "tags": list(row.tags)}
        if row.description in ("", _description(row.block)):
            change["description"] = _description(block)
        return change

    def _fields(self, block: Block) -> Dict[str, Any]:
        return {NETWORK: self.network, HOLDER: block.holder, POOL: block.pool, RELEASED: block.released}

    def _clear(self) -> None:
        """Delete what a writer left that did not come to its end."""
        self._delete([row["id"] for row in self._filter(self.unfinished)])

    def _delete(self, ids: Sequence[int]) -> None:
        for few in _chunks(ids):
            with self._talk("delete prefixes"):
                self.api.ipam.prefixes.delete(few)

    def _refuse_foreign(self, rows: Sequence[_Row], plan: Plan) -> None:
        """Raise `Refused` when a prefix that the plan wants anew is there already and belongs to somebody else."""
        have = {row.block.prefix for row in rows}
        wanted = {str(block.prefix): block for block in (*plan.blocks, *plan.released) if block.prefix not in have}
        faults = []
        for few in _chunks(list(wanted)):
            with self._talk("read prefixes"):
                found = [dict(record) for record in self.api.ipam.prefixes.filter(prefix=few, limit=PAGE)]
            faults += [self._foreign(row, wanted[row["prefix"]]) for row in found if row["prefix"] in wanted and self._is_foreign(row)]
        if faults:
            raise Refused(faults)

    def _is_foreign(self, row: Mapping[str, Any]) -> bool:
        return not row.get("vrf") and (row.get("custom_fields") or {}).get(NETWORK) not in (self.network, self.unfinished)

    def _foreign(self, row: Mapping[str, Any], block: Block) -> Fault:
        """What to do about a prefix that is in the way."""
        other = (row.get("custom_fields") or {}).get(NETWORK)
        if other:
            message = f"belongs to the plan {other} in this NetBox (id {row['id']}); keep the pools of the two plans apart"
        else:
            message = (
                f"is in NetBox already (id {row['id']}) and not part of this plan. Reserve it in its pool, or delete it in NetBox, "
                f"or hand it over by its custom fields {NETWORK}: {self.network}, {HOLDER}: {block.holder}, {POOL}: {block.pool}"
            )
        return Fault(f"{self.shown} prefix {row['prefix']}", row.get("description") or "", message)

    # Reading

    def _rows(self) -> List[_Row]:
        """The prefixes of the plan. Raises `Refused` with everything that was edited into nonsense."""
        asked = self.answers
        found = self._filter(self.network)
        paged = self.answers > asked + 1
        while paged:  # pages are read one after the other; twice the same is one state
            again = self._filter(self.network)
            if again == found:
                break
            found = again
        faults: List[Fault] = []
        rows = [self._row(row, faults) for row in found]
        good = [row for row in rows if row is not None]
        faults += [] if faults else check_blocks([row.block for row in good])
        if faults:
            raise Refused(faults)
        return good

    def _filter(self, network: str) -> List[Dict[str, Any]]:
        """The prefixes whose field says exactly `network`.

        NetBox itself may look for a part of the text, and ignores the filter where the field does not exist.
        """
        with self._talk("read prefixes"):
            found = [dict(record) for record in self.api.ipam.prefixes.filter(cf_dn42_network=network, ordering="id", limit=PAGE)]
        return [row for row in found if (row.get("custom_fields") or {}).get(NETWORK) == network]

    def _row(self, row: Mapping[str, Any], faults: List[Fault]) -> Optional[_Row]:
        """One prefix; appends to `faults` what is wrong with it."""
        origin = f"{self.shown} prefix {row['prefix']} (id {row['id']})"
        fields = row["custom_fields"]
        released = fields.get(RELEASED) or 0
        before = len(faults)
        for name in (HOLDER, POOL):
            try:
                read_name(fields.get(name))
            except Unreadable as error:
                faults.append(Fault(f"{origin} {name}", fields.get(name), str(error)))
        if not isinstance(released, int) or released < 0:
            faults.append(Fault(f"{origin} {RELEASED}", released, "must be empty or 0 for an owned block, or the number of its release"))
        prefix = _prefix(row["prefix"], origin, faults)
        if prefix is None or len(faults) > before:
            return None
        block = Block(prefix, fields[HOLDER], fields[POOL], released, origin)
        return _Row(row["id"], block, row.get("description") or "", tuple(tag["id"] for tag in row.get("tags") or () if tag["slug"] != self.slug))

    def _events(self) -> Iterator[Event]:
        endpoint = self.api.core.object_changes
        offset = 0
        for _page in range(HISTORY_PAGES):
            changes = self._changes(endpoint, offset)
            if changes is None:  # before NetBox 4.1
                endpoint = self.api.extras.object_changes
                changes = self._changes(endpoint, offset)
            if not changes:
                return
            offset += len(changes)
            for change in changes:
                yield from self._event(change)

    def _changes(self, endpoint: Any, offset: int) -> Optional[List[Dict[str, Any]]]:
        """A page of the change log, the latest first; None where NetBox keeps it elsewhere."""
        with self._talk("read the change log"):
            try:
                return [dict(record) for record in endpoint.filter(changed_object_type="ipam.prefix", ordering="-time", limit=CHUNK, offset=offset)]
            except pynetbox.RequestError as error:
                if error.req.status_code == 404:
                    return None
                raise

    def _event(self, change: Mapping[str, Any]) -> Iterator[Event]:
        """What a change of a prefix was to the plan, if anything."""
        old, new = (self._state(change.get(key)) for key in ("prechange_data", "postchange_data"))
        owned_before, owned_after = (state is not None and not state[3] for state in (old, new))
        if old == new or not (owned_before or owned_after or old is None):
            return  # nothing, or what became of a block that was released already
        kind = "changed" if owned_before and owned_after else "given" if owned_after else "released"
        prefix, holder, pool, _number = new or old or ("", "", "", 0)
        yield Event(_utc(change["time"]), change.get("user_name") or "", kind, prefix, holder, pool, change.get("message") or "")

    def _state(self, data: Optional[Mapping[str, Any]]) -> Optional[Tuple[str, str, str, int]]:
        """Prefix, holder, pool and release of a prefix at a moment, None where it was none of ours."""
        fields = (data or {}).get("custom_fields") or {}
        if not data or fields.get(NETWORK) != self.network:
            return None
        return data["prefix"], fields.get(HOLDER) or "", fields.get(POOL) or "", fields.get(RELEASED) or 0

    # The custom fields

    def _need_fields(self) -> None:
        """Create the custom fields that are missing."""
        with self._talk("read custom fields"):
            found = {record.name: dict(record) for record in self.api.extras.custom_fields.filter(name=list(FIELDS), limit=PAGE)}
        for name, (kind, label, description) in FIELDS.items():
            if name not in found:
                self._create_field(name, kind, label, description)
                continue
            field = found[name]
            actual = field["type"]["value"] if isinstance(field["type"], dict) else field["type"]
            if actual != kind or "ipam.prefix" not in field["object_types"]:
                raise StoreError(
                    f"{self.shown}: the custom field {name} must be of type {kind} and belong to ipam.prefix, and is of type {actual} for {', '.join(field['object_types'])}. Correct it in NetBox."
                )

    def _create_field(self, name: str, kind: str, label: str, description: str) -> None:
        field = {"name": name, "type": kind, "label": label, "description": description, "object_types": ["ipam.prefix"], "group_name": "dn42.compose", "filter_logic": "exact"}
        try:
            with self._talk(f"create the custom field {name}"):
                self.api.extras.custom_fields.create(field)
        except StoreError as error:
            with self._talk("read custom fields"):
                there = self.api.extras.custom_fields.count(name=name)
            if not there:  # else somebody was faster
                wanted = "; ".join(f"{each} ({FIELDS[each][0]})" for each in FIELDS)
                raise StoreError(f"{error}\nOr let an administrator create these custom fields for the object type ipam.prefix: {wanted}.") from None

    # The lock

    def _lock(self) -> int:
        """Be the only writer; the id of the lock. Raises `LockTimeout`."""
        owner = f"{_who()} {uuid.uuid4().hex[:12]}"
        tag = {"name": self.slug, "slug": self.slug, "description": f"{owner} changes the plan {self.network}"[:200]}
        deadline = time.monotonic() + LOCK_PATIENCE * self.lease
        problems = 0
        while True:
            try:
                with self._talk("create the tag that is the lock"):
                    return int(self.api.extras.tags.create(tag).id)
            except _Rejected as error:
                if "slug" not in error.answer:
                    raise
            except _Unclear:  # two at once may be an internal error, and an answer may be lost
                problems += 1
                if problems > ATTEMPTS:
                    raise
            held = self._held()
            if held is not None and held["description"] == tag["description"]:
                return int(held["id"])
            if held is not None and self._age(held) > self.lease:
                self._unlock(held["id"])
                time.sleep(GRACE)
                continue
            if time.monotonic() >= deadline:
                owner = held["description"] if held else "somebody"
                raise LockTimeout(f"{self.shown}: others were faster for {LOCK_PATIENCE * self.lease:g} s, the last is: {owner}; run again")
            time.sleep(LOCK_PAUSE)

    def _held(self) -> Optional[Dict[str, Any]]:
        """The lock that is there."""
        with self._talk("read tags"):
            return next((dict(record) for record in self.api.extras.tags.filter(slug=self.slug, limit=PAGE)), None)

    def _lock_is_there(self, lock: int) -> bool:
        held = self._held()
        return held is not None and held["id"] == lock

    def _age(self, held: Mapping[str, Any]) -> float:
        """Seconds since the lock was taken or renewed, by the server's clock alone."""
        now = self.now or datetime.datetime.now(datetime.timezone.utc)
        return (now - _time(held["last_updated"])).total_seconds()

    def _renew(self, lock: int) -> None:
        """Say that we are still there."""
        with self._talk("update the tag that is the lock"):
            if not self.api.extras.tags.update([{"id": lock, "weight": 1000}]):
                raise _Unclear(f"{self.shown}: this run was silent for more than {self.lease:g} s and lost its lock to another one.")

    def _unlock(self, lock: int) -> bool:
        """Delete the lock, with it its mark on prefixes; whether it is gone for sure."""
        for attempt in range(ATTEMPTS):
            time.sleep(attempt * LOCK_PAUSE)
            with contextlib.suppress(StoreError), self._talk("delete the tag that is the lock"):
                self.api.extras.tags.delete([lock])
                return True
        return False

    # Talking to NetBox

    def _session(self, verify: Any) -> Any:
        session = requests.Session()
        session.auth = lambda request: request  # else a .netrc would replace the token
        session.hooks["response"].append(self._seen)
        adapter = _Adapter(self.timeout, verify)
        session.mount("https://", adapter)
        session.mount("http://", adapter)
        if not verify:
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        return session

    def _seen(self, response: Any, **_options: Any) -> None:
        """Look at each answer: the server's clock, and redirects, which would lose the token or make a GET of a POST."""
        self.answers += 1
        with contextlib.suppress(TypeError, ValueError, KeyError):
            self.now = email.utils.parsedate_to_datetime(response.headers["Date"])
        if response.is_redirect:
            raise StoreError(f"{self.shown}: the server sends us on to {_bare(response.headers['location'])}; write the address of NetBox itself into store.url.")

    @contextlib.contextmanager
    def _talk(self, what: str) -> Iterator[None]:
        """Turn what can go wrong into advice."""
        try:
            yield
        except pynetbox.RequestError as error:
            raise self._explain(what, error) from None
        except pynetbox.AllocationError as error:
            raise _Unclear(self._clean(f"{self.shown}: cannot {what}, NetBox reports a conflict: {error.req.text[:500]}")) from None
        except pynetbox.ContentError:
            raise StoreError(
                f"{self.shown}: the answer is no JSON, so this is not the API of NetBox. store.url is the address of its start page, such as https://netbox.example.org."
            ) from None
        except requests.exceptions.SSLError as error:
            raise StoreError(self._clean(f"{self.shown}: no trusted TLS connection: {_reason(error)}. Give the CA that signed its certificate in store.ca_path.")) from None
        except requests.exceptions.ConnectTimeout:
            raise StoreError(f"{self.shown}: no connection within {self.timeout} s. Check store.url, the network and firewalls.") from None
        except (requests.exceptions.Timeout, requests.exceptions.ConnectionError) as error:
            cause = getattr(error.args[0] if error.args else None, "reason", None)
            if isinstance(error, requests.exceptions.Timeout) or isinstance(cause, urllib3.exceptions.ReadTimeoutError):
                raise _Unclear(f"{self.shown}: no answer within {self.timeout} s when asked to {what}. Run again, with a larger store.timeout if NetBox is slow.") from None
            if isinstance(cause, urllib3.exceptions.NewConnectionError):
                raise StoreError(self._clean(f"{self.shown}: cannot be reached: {_reason(error)}. Check store.url and whether NetBox runs.")) from None
            raise _Unclear(self._clean(f"{self.shown}: the connection broke when asked to {what}: {_reason(error)}.")) from None
        except requests.exceptions.RequestException as error:
            raise StoreError(self._clean(f"{self.shown}: cannot {what}: {_reason(error)}.")) from None
        except OSError as error:
            raise StoreError(self._clean(f"{self.shown}: cannot {what}: {error}")) from None

    def _explain(self, what: str, error: Any) -> StoreError:
        """An HTTP error in words."""
        status, answer = error.req.status_code, self._clean(error.req.text[:500])
        if status in (401, 403):
            return StoreError(
                f"{self.shown}: may not {what} ({status}): {answer}. Check store.token: it must be valid, allow writing, and its user needs the permissions {RIGHTS}."
            )
        if status == 404:
            return StoreError(
                f"{self.shown}: cannot {what}, NetBox's API is not there (404). store.url is the address of its start page, such as https://netbox.example.org; NetBox must be 4.0 or newer."
            )
        if status == 429 or status >= 500:
            return _Unclear(f"{self.shown}: cannot {what} now ({status}): {answer}")
        return _Rejected(f"{self.shown}: NetBox refuses to {what} ({status}): {answer}", answer)

    def _clean(self, text: str) -> str:
        return text.replace(self.token, "********")


def _check_options(url: str, token: str, network: str, ca_path: Optional[str]) -> None:
    """Refuse early what would fail with a worse message, or with the token in it, later."""
    parts = urllib.parse.urlsplit(url.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise StoreError(f"store.url: {url}: must be the address of NetBox, such as https://netbox.example.org")
    if parts.username is not None or parts.query or parts.fragment:
        raise StoreError(f"store.url: {_bare(url)}: must be the address alone; the token belongs into store.token")
    if not TOKEN.fullmatch(token):
        raise StoreError("store.token: has blanks, line ends or other characters that no token has; take it as NetBox shows it")
    if ca_path and not os.path.exists(ca_path):
        raise StoreError(f"store.ca_path: {ca_path}: is not there; give the file with the CA's certificate in PEM form")
    try:
        read_name(network)
    except Unreadable as error:
        raise StoreError(f"store.network: {network!r}: {error}") from None


def _bare(url: str) -> str:
    """A URL without user, password and query."""
    parts = urllib.parse.urlsplit(url.strip())
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _reason(error: BaseException) -> str:
    """The innermost reason of what requests and urllib3 wrap in layers, without addresses of objects."""
    inner: Any = error
    while True:
        deeper = getattr(inner, "reason", None) or (inner.args[0] if inner.args else None)
        if not isinstance(deeper, BaseException):
            break
        inner = deeper
    return re.sub(r"<[^>]*>:? ?|^HTTPS?Connection\([^)]*\): ", "", str(inner))


def _who() -> str:
    """Who holds a lock, for the one who waits."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()} pid {os.getpid()}"


def _time(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))


def _utc(text: str) -> str:
    return _time(text).astimezone(datetime.timezone.utc).replace(microsecond=0).isoformat().replace("+00:00", "Z")


def _prefix(text: str, origin: str, faults: List[Fault]) -> Optional[Prefix]:
    try:
        return read_prefix(text)
    except Unreadable as error:
        faults.append(Fault(origin, text, str(error)))
        return None


def _plan(rows: Iterable[_Row]) -> Plan:
    blocks = sorted((row.block for row in rows), key=lambda block: block.prefix)
    return Plan(tuple(block for block in blocks if not block.released), tuple(block for block in blocks if block.released))


def _status(block: Block) -> str:
    return RELEASED_STATUS if block.released else OWNED_STATUS


def _description(block: Block) -> str:
    """What a prefix is called until somebody calls it otherwise."""
    return f"released by {block.holder}"[:200] if block.released else block.holder[:200]


def _difference(rows: Sequence[_Row], plan: Plan) -> _Difference:
    """What to do. A block that only changes its size stays the same prefix in NetBox, with all that people attached to it."""
    have = {row.block.prefix: row for row in rows}
    wanted = {block.prefix: block for block in (*plan.blocks, *plan.released)}
    change = [(have[prefix], block) for prefix, block in wanted.items() if prefix in have and have[prefix].block != block]
    drop = {_owner(row.block): row for prefix, row in have.items() if prefix not in wanted and not row.block.released}
    create = []
    for prefix, block in wanted.items():
        if prefix in have:
            continue
        row = None if block.released else drop.pop(_owner(block), None)
        if row is None:
            create.append(block)
        else:
            change.append((row, block))
    kept = {row.id for row, _block in change}
    return _Difference(create, change, [row for prefix, row in have.items() if prefix not in wanted and row.id not in kept])


def _owner(block: Block) -> Tuple[int, str, str]:
    return block.prefix.family, block.holder, block.pool


def _chunks(items: Sequence[Any]) -> Iterator[List[Any]]:
    for start in range(0, len(items), CHUNK):
        yield list(items[start : start + CHUNK])
