# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asking nodes at the same time: BIRD on this one, the looking glasses of the others over HTTP."""

from __future__ import annotations

import http.client
import io
import json
import socket
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlencode

from .bird import BirdClient, BirdError, Channel, Route, Session
from .deadline import Deadline, read_until
from .settings import Node, Settings

PAGE_SECONDS = 2.0  # after which a page no longer waits for a node
NODE_SECONDS = 1.8  # for one node, all its addresses together
CONNECT_SECONDS = 0.8  # for one address
ANSWER_LIMIT = 2 * 1024 * 1024  # bytes of one answer
KEEP_SECONDS = 2.0  # for which the same question is not asked again
KEEP_ANSWERS = 512
QUESTIONS_PER_NODE = 4  # at the same time, so that a dead node cannot take all threads
THREADS = 64


@dataclass(frozen=True)
class Question:
    """The sessions of a node, or its routes to a canonical `target`."""

    target: str | None = None

    @property
    def path(self) -> str:
        """Return the question as a request to the API of a looking glass."""
        if self.target is None:
            return "/api/v1/sessions"
        return "/api/v1/route?" + urlencode({"target": self.target})


@dataclass(frozen=True)
class Answer:
    """What a node said: sessions or routes, or an error for people."""

    node: str
    sessions: list[Session] | None = None
    routes: list[Route] | None = None
    error: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return what the API says; only what there is."""
        return {key: value for key, value in asdict(self).items() if value is not None}


class NodeError(Exception):
    """A node cannot be asked or its answer cannot be used; the message is for people."""


class Cluster:
    """All nodes. The same question to the same node is asked once and its answer shared."""

    def __init__(self, bird: BirdClient) -> None:
        """Ask `bird` about this node."""
        self._bird = bird
        self._pool = ThreadPoolExecutor(max_workers=THREADS, thread_name_prefix="node")
        self._lock = threading.Lock()
        self._asked: dict[tuple[Node, Question], tuple[float, Future[Answer]]] = {}

    def ask(self, settings: Settings, nodes: Sequence[Node], question: Question) -> list[Answer]:
        """Ask all `nodes` and return their answers in that order, after PAGE_SECONDS at the latest."""
        futures = [self._future(settings, node, question) for node in nodes]
        done, _ = wait(futures, timeout=PAGE_SECONDS)
        return [future.result() if future in done else Answer(node.name, error="unreachable: no answer in time") for node, future in zip(nodes, futures, strict=True)]

    def _future(self, settings: Settings, node: Node, question: Question) -> Future[Answer]:
        """Return the answer that is under way or just given, else ask."""
        key = (node, question)
        with self._lock:
            self._forget()
            if key in self._asked:
                return self._asked[key][1]
            busy = sum(1 for (other, _), (_, future) in self._asked.items() if other == node and not future.done())
            if busy >= QUESTIONS_PER_NODE or len(self._asked) >= KEEP_ANSWERS:
                refused: Future[Answer] = Future()
                refused.set_result(Answer(node.name, error="busy: too many questions at once, try again"))
                return refused
            future = self._pool.submit(self._answer, settings, node, question)
            self._asked[key] = (time.monotonic(), future)
            return future

    def _forget(self) -> None:
        """Drop the answers that are too old to be given again; the lock is held."""
        oldest = time.monotonic() - KEEP_SECONDS
        for key, (asked, future) in list(self._asked.items()):
            if asked < oldest and future.done():
                del self._asked[key]

    def _answer(self, settings: Settings, node: Node, question: Question) -> Answer:
        try:
            if node.name != settings.node:
                return parse_answer(node.name, question, fetch(node, settings.port, question.path))
            if question.target is None:
                return Answer(node.name, sessions=self._bird.sessions())
            return Answer(node.name, routes=self._bird.routes(question.target))
        except (BirdError, NodeError) as error:
            return Answer(node.name, error=str(error))


class _Received:
    """A socket, as far as http.client needs one to read an answer that is already there."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, _mode: str) -> io.BytesIO:
        return io.BytesIO(self._data)


def fetch(node: Node, port: int, path: str) -> Any:
    """GET `path` from the first address of the node that answers; return JSON, raise NodeError."""
    deadline = Deadline(NODE_SECONDS)
    reason = "no address"
    for address in node.addresses:
        try:
            return _get(address, port, path, deadline)
        except TimeoutError:
            reason = "no answer in time"
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "strerror", None) or "no valid HTTP"
        except (ValueError, RecursionError) as error:
            raise NodeError(f"answer cannot be used: {error}") from error
    raise NodeError(f"unreachable: {reason}")


def _get(address: str, port: int, path: str, deadline: Deadline) -> Any:
    """Ask one address. The whole answer is read before it is parsed, so that time and size are bounded."""
    host = f"[{address}]" if ":" in address else address
    request = f"GET {path} HTTP/1.0\r\nHost: {host}:{port}\r\nAccept: application/json\r\n\r\n"
    with socket.create_connection((address, port), timeout=min(CONNECT_SECONDS, deadline.left())) as connection:
        connection.settimeout(deadline.left())
        connection.sendall(request.encode("ascii"))
        data = read_until(connection, deadline, ANSWER_LIMIT, lambda _read: False)
    response = http.client.HTTPResponse(_Received(data))  # type: ignore[arg-type]
    response.begin()
    body = json.loads(response.read())
    if response.status != http.client.OK:
        error = body.get("error") if isinstance(body, dict) else None
        raise NodeError(str(error or f"HTTP status {response.status}")[:200])
    return body


def parse_answer(name: str, question: Question, data: Any) -> Answer:
    """Read what another looking glass said, trusting nothing of it; raise NodeError."""
    try:
        if question.target is None:
            return Answer(name, sessions=[_session(entry) for entry in data["sessions"]])
        return Answer(name, routes=[_route(entry) for entry in data["routes"]])
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
        raise NodeError("answer cannot be used: another version of the looking glass?") from error


def _session(data: dict[str, Any]) -> Session:
    fields: dict[str, Any] = {key: str(data[key]) for key in ("name", "state", "since", "info", "table", "description", "neighbor")}
    fields |= {key: _count(data[key]) for key in ("neighbor_as", "local_as")}
    return Session(**fields, channels=[_channel(entry) for entry in data["channels"]])


def _channel(data: dict[str, Any]) -> Channel:
    fields: dict[str, Any] = {key: str(data[key]) for key in ("name", "table", "state")}
    fields |= {key: _count(data[key]) for key in ("imported", "filtered", "exported", "preferred")}
    return Channel(**fields)


def _route(data: dict[str, Any]) -> Route:
    return Route(
        **{key: str(data[key]) for key in ("prefix", "type", "protocol", "since", "source", "origin")},
        best=bool(data["best"]),
        preference=int(data["preference"]),
        via=[str(text) for text in data["via"]],
        attributes=[(str(key), str(value)) for key, value in data["attributes"]],
    )


def _count(value: Any) -> int | None:
    return None if value is None else int(value)
