# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""BIRD's command line protocol: asking over the socket, and what the answers mean.

A line of an answer starts with a four-digit code and `-` (more follows) or a blank (the last one).
A line that starts with a blank belongs to the code before it. Codes from 8000 on are errors.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from .deadline import Deadline, read_until

ANSWER_LIMIT = 4 * 1024 * 1024  # bytes; a hundred sessions with all their details take about 250 kB
ROUTES_LIMIT = 200  # routes shown for one target

WELCOME = 1
RESTRICTED = 16
PROTOCOL_ROW = 1002
PROTOCOL_DETAILS = 1006
ROUTE_ROW = 1007
NOT_FOUND = 8001
FIRST_ERROR = 8000

_LINE = re.compile(r"(\d{4})([- ])(.*)", re.DOTALL)
_LAST_LINE = re.compile(rb"(?:\A|\n)\d{4} [^\n]*\n\Z")
_COUNT = re.compile(r"(\d+) (\w+)")
_ROUTE = re.compile(
    r"(?P<prefix>\S*)\s+(?P<type>\S+) \[(?P<protocol>\S+) (?P<since>.*?)"
    r"(?: from (?P<source>\S+))?\](?P<best> \*| !)? \((?P<preference>\d+)[^)]*\)"
    r"(?: \[(?P<origin>[^\]]*)\])?"
)


class BirdError(Exception):
    """BIRD cannot be asked, or it refused; the message is for people."""


@dataclass(frozen=True)
class Line:
    """One line of an answer: its code and its text without the code."""

    code: int
    text: str


@dataclass
class Channel:
    """What one session exchanges for one address family; a count is None while it is down."""

    name: str
    table: str = ""
    state: str = ""
    imported: int | None = None
    filtered: int | None = None
    exported: int | None = None
    preferred: int | None = None


@dataclass
class Session:
    """One BGP session as BIRD shows it; times and states are BIRD's own words."""

    name: str
    state: str
    since: str
    info: str
    table: str = ""
    description: str = ""
    neighbor: str = ""
    neighbor_as: int | None = None
    local_as: int | None = None
    channels: list[Channel] = field(default_factory=list)

    @property
    def established(self) -> bool:
        """Tell whether routes can be exchanged."""
        return self.info.split(" ", 1)[0] == "Established"


@dataclass
class Route:
    """One route of an answer; `attributes` are pairs of a name and BIRD's text."""

    prefix: str
    type: str
    protocol: str
    since: str
    source: str
    best: bool
    preference: int
    origin: str
    via: list[str] = field(default_factory=list)
    attributes: list[tuple[str, str]] = field(default_factory=list)

    @property
    def as_path(self) -> str:
        """Return the AS path, in BIRD's notation, or nothing for a route of our own."""
        return next((text for name, text in self.attributes if name.lower() in {"bgp.as_path", "bgp_path"}), "")


class BirdClient:
    """Asks BIRD, with a connection of its own for each question, so that BIRD may restart at any time."""

    def __init__(self, path: str, timeout: float) -> None:
        """Use the socket at `path`; a question takes at most `timeout` seconds."""
        self._path = path
        self._timeout = timeout

    def sessions(self) -> list[Session]:
        """Return the BGP sessions in BIRD's order; raise BirdError."""
        return parse_sessions(self._ask("show protocols all"))

    def routes(self, target: str) -> list[Route]:
        """Return the routes to a canonical address or prefix, best first; raise BirdError."""
        return parse_routes(self._ask(f"show route for {target} all"))

    def _ask(self, command: str) -> list[Line]:
        deadline = Deadline(self._timeout)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(deadline.left())
                connection.connect(self._path)
                _expect(_answer(connection, deadline), WELCOME)
                # The socket is restricted by BIRD's configuration; this holds should it not be.
                _expect(_exchange(connection, deadline, "restrict"), RESTRICTED)
                return _exchange(connection, deadline, command)
        except TimeoutError as error:
            raise BirdError("BIRD did not answer in time") from error
        except OSError as error:
            raise BirdError("BIRD is not running or its socket cannot be reached") from error
        except ValueError as error:
            raise BirdError(f"BIRD's answer cannot be used: {error}") from error


def _exchange(connection: socket.socket, deadline: Deadline, command: str) -> list[Line]:
    connection.settimeout(deadline.left())
    connection.sendall(command.encode("ascii") + b"\n")
    return _answer(connection, deadline)


def _answer(connection: socket.socket, deadline: Deadline) -> list[Line]:
    data = read_until(connection, deadline, ANSWER_LIMIT, lambda read: _LAST_LINE.search(read[-4096:]) is not None)
    return parse_lines(data.decode("utf-8", "replace"))


def _expect(lines: list[Line], code: int) -> None:
    if not lines or lines[-1].code != code:
        raise ValueError(f"code {code:04d} is missing")


def parse_lines(text: str) -> list[Line]:
    """Split an answer into lines with their codes.

    Raise ValueError when it does not follow the protocol or stops before its last line.
    """
    lines: list[Line] = []
    last = False
    for raw in text.split("\n"):
        if raw.startswith("+") or (not raw and last):
            continue  # a message that BIRD sends unasked, or the end
        match = _LINE.match(raw)
        if match is not None:
            lines.append(Line(int(match[1]), match[3]))
            last = match[2] == " "
        elif raw.startswith(" ") and lines:
            lines.append(Line(lines[-1].code, raw[1:]))
        elif raw:
            raise ValueError("it does not follow the protocol")
    if not last:
        raise ValueError("it is cut off")
    return lines


def _refuse_errors(lines: list[Line]) -> None:
    for line in lines:
        if line.code >= FIRST_ERROR:
            raise BirdError(f"BIRD says: {line.text}")


def parse_sessions(lines: list[Line]) -> list[Session]:
    """Return the BGP sessions in an answer to `show protocols all`; raise BirdError."""
    _refuse_errors(lines)
    sessions: list[Session] = []
    wanted = False
    for line in lines:
        if line.code == PROTOCOL_ROW:
            session = _parse_row(line.text)
            wanted = session is not None
            if session is not None:
                sessions.append(session)
        elif line.code == PROTOCOL_DETAILS and wanted:
            _add_detail(sessions[-1], line.text)
    return sessions


def _parse_row(text: str) -> Session | None:
    """Read a row of the table of protocols; None for protocols other than BGP."""
    columns = text.split(None, 4)
    if len(columns) < 5 or columns[1] != "BGP":
        return None
    # The time may hold one blank, the columns are two apart.
    since, _, info = columns[4].partition("  ")
    table = "" if columns[2] == "---" else columns[2]
    return Session(columns[0], columns[3], since.strip(), " ".join(info.split()), table)


def _add_detail(session: Session, text: str) -> None:
    """Take one line of the details: those of the session first, those of its channels after."""
    key, _, value = (part.strip() for part in text.partition(":"))
    if text.startswith("  Channel "):
        session.channels.append(Channel(text.removeprefix("  Channel ").strip()))
    elif session.channels:
        _add_channel_detail(session.channels[-1], key, value)
    elif key == "Description":
        session.description = value
    elif key in {"Neighbor address", "Neighbor range"}:
        session.neighbor = value
    elif key == "Neighbor AS":
        session.neighbor_as = _number(value)
    elif key == "Local AS":
        session.local_as = _number(value)


def _add_channel_detail(channel: Channel, key: str, value: str) -> None:
    if key == "Table":
        channel.table = value
    elif key == "State":
        channel.state = value
    elif key == "Routes":
        counts = {name: int(count) for count, name in _COUNT.findall(value)}
        channel.imported = counts.get("imported")
        channel.filtered = counts.get("filtered", 0)
        channel.exported = counts.get("exported")
        channel.preferred = counts.get("preferred")


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() else None


def parse_routes(lines: list[Line]) -> list[Route]:
    """Return the routes in an answer to `show route for … all`, at most ROUTES_LIMIT; raise BirdError."""
    if any(line.code == NOT_FOUND for line in lines):
        return []
    _refuse_errors(lines)
    routes = list(_take_routes(lines))
    return sorted(routes, key=lambda route: not route.best)[:ROUTES_LIMIT]


def _take_routes(lines: Iterable[Line]) -> Iterator[Route]:
    route: Route | None = None
    prefix = ""
    for line in lines:
        match = None if line.text.startswith("\t") or line.code != ROUTE_ROW else _ROUTE.match(line.text)
        if match is not None:
            if route is not None:
                yield route
            # Further routes of the same prefix leave its column empty.
            prefix = match["prefix"] or prefix
            route = _route(prefix, match)
        elif route is not None and line.text.startswith("\t"):
            _add_attribute(route, line.text.strip())
    if route is not None:
        yield route


def _route(prefix: str, match: re.Match[str]) -> Route:
    return Route(
        prefix=prefix,
        type=match["type"],
        protocol=match["protocol"],
        since=match["since"],
        source=match["source"] or "",
        best=match["best"] is not None,
        preference=int(match["preference"]),
        origin=match["origin"] or "",
    )


def _add_attribute(route: Route, text: str) -> None:
    name, colon, value = text.partition(": ")
    if text.startswith(("via ", "dev ")):
        route.via.append(text)
    elif colon:
        route.attributes.append((name, value))
