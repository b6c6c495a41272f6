# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read and edit firewalld's files the way firewalld itself reads them.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
Nothing here writes a file; the one class that asks the running firewalld is given the function that runs a command.
"""

from __future__ import annotations

import re
import shlex
import xml.etree.ElementTree as ElementTree
from typing import Callable, NamedTuple

# Runs a command: argv in, exit code, stdout and stderr out.
Runner = Callable[[list], "tuple[int, str, str]"]

RPFILTER_KEY = "IPv6_rpfilter"
# What firewalld takes for a key that is absent or has a value it does not know: `yes` up to 2.1, `strict` since; both
# are the strict check.
RPFILTER_DEFAULT = "strict"
_RPFILTER_ALIASES = {"yes": "strict", "true": "strict", "false": "no"}
_RPFILTER_VALUES = ("no", "strict", "loose", "strict-forward", "loose-forward")
_RPFILTER_OLD_VALUES = ("yes", "no", "true", "false")
_RPFILTER_NAMED_SINCE = (2, 2)
POLICIES_SINCE = (0, 9)
# Before the zones (which are at 0) and before a block list at firewalld's default of -1, after one that was put far ahead on purpose.
POLICY_PRIORITY = -10

_LINE = re.compile(rb"[^\r\n]*(?:\r\n|\r|\n|\Z)")
_TRACE_OF_KEY = re.compile(r"^\ufeff?\s*[#;]?\s*ipv6_rpfilter\s*=", re.IGNORECASE)


class SettingError(ValueError):
    """A value or a file that firewalld would refuse; the message is for the operator."""


class FirewalldError(RuntimeError):
    """The running firewalld did not answer as expected."""


class _Line(NamedTuple):
    """One line of firewalld.conf: the bytes without line end, the line end, and the pair firewalld reads from it."""

    body: bytes
    end: bytes
    pair: tuple[str, str] | None


class Policy(NamedTuple):
    """What we look at of a policy object; ports are strings such as ``22900/udp``."""

    priority: int
    target: str
    ingress: tuple[str, ...]
    egress: tuple[str, ...]
    ports: frozenset[str]


def parse_version(text: str) -> tuple[int, ...]:
    """Return the leading numbers of a version, ``2.3.1`` as ``(2, 3, 1)``; an empty tuple for anything else."""
    found = re.match(r"\s*v?(\d+(?:\.\d+)*)", text or "")
    return tuple(int(part) for part in found.group(1).split(".")) if found else ()


def _parse(content: bytes) -> list[_Line]:
    """Split a firewalld.conf into lines; ``pair`` is None where firewalld ignores the line (comment, no value, two ``=``)."""
    lines = []
    for match in _LINE.finditer(content):
        raw = match.group(0)
        if raw == b"":
            continue
        body = raw.rstrip(b"\r\n")
        text = body.decode("utf-8", "surrogateescape").strip()
        pair = None
        if text and text[0] not in "#;":
            parts = [part.strip() for part in text.split("=")]
            if len(parts) == 2 and parts[1] != "":
                pair = (parts[0], parts[1])
        lines.append(_Line(body, raw[len(body) :], pair))
    return lines


def _first(lines: list[_Line], key: str) -> int | None:
    """Return the index of the line that counts for a key: the first one, because firewalld skips repetitions."""
    for index, line in enumerate(lines):
        if line.pair is not None and line.pair[0] == key:
            return index
    return None


def read_key(content: bytes, key: str) -> str | None:
    """Return the value firewalld reads for a key, None when no line gives one. Quotes and ``# …`` are part of the value."""
    lines = _parse(content)
    index = _first(lines, key)
    return None if index is None else lines[index].pair[1]


def normalize_rpfilter(value: str | None) -> str:
    """Return the check that a value of IPv6_rpfilter means: one of no, strict, loose, strict-forward, loose-forward.

    A value that firewalld does not know (quoted, with a comment behind it, ``off``, ``0``) means its default.
    """
    text = (value or "").lower()
    text = _RPFILTER_ALIASES.get(text, text)
    return text if text in _RPFILTER_VALUES else RPFILTER_DEFAULT


def effective_rpfilter(content: bytes, version: str = "") -> str:
    """Return the check that firewalld of this version makes of the file; named values mean ``yes`` before 2.2."""
    value = normalize_rpfilter(read_key(content, RPFILTER_KEY))
    known = parse_version(version)
    if known and known < _RPFILTER_NAMED_SINCE and value != "no":
        return RPFILTER_DEFAULT
    return value


def wanted_rpfilter(value: str, version: str, backend: str) -> str:
    """Return how to write a wanted value, so that this firewalld understands it.

    Accepts what YAML makes of an unquoted no or yes ("False", "True"). Raises SettingError for a value that this version
    or this backend does not know.
    """
    text = value.strip().lower()
    if text in ("no", "false"):
        return "no"
    if text in ("yes", "true"):
        return "yes"
    if text not in _RPFILTER_VALUES:
        raise SettingError(f"firewalld knows no {RPFILTER_KEY}={value!r}; use one of {', '.join(('yes', *_RPFILTER_VALUES))}")
    if parse_version(version) < _RPFILTER_NAMED_SINCE:
        raise SettingError(f"firewalld {version or 'of unknown version'} knows only yes and no for {RPFILTER_KEY}; {value!r} needs 2.2 or newer")
    if text.endswith("-forward") and backend.lower() == "iptables":
        raise SettingError(f"firewalld refuses {RPFILTER_KEY}={text} while FirewallBackend=iptables")
    return text


def _with_value(line: _Line, value: bytes) -> bytes:
    """Return a line with another value, its spacing and line end kept.

    What stands behind ``#`` was never a comment for firewalld but is the operator's note: it moves to a line of its own.
    """
    head, _equals, tail = line.body.partition(b"=")
    old = tail.strip()
    lead = tail[: len(tail) - len(tail.lstrip())]
    trail = tail[len(tail.rstrip()) :]
    note = b""
    if b"#" in old:
        note = old[old.index(b"#") :] + (line.end or b"\n")
    return note + head + b"=" + lead + value + trail + line.end


def set_rpfilter(content: bytes, value: str) -> bytes:
    """Return the file with IPv6_rpfilter set to a value; nothing else changes, and nothing at all when it has that meaning.

    A missing key goes behind the place where the file mentions it (the commented key or a line firewalld cannot read), else
    to the end.
    """
    lines = _parse(content)
    index = _first(lines, RPFILTER_KEY)
    if index is not None:
        current = lines[index].pair[1].lower()
        if current == value or (value == "no" and current == "false"):
            return content
        parts = [line.body + line.end for line in lines]
        parts[index] = _with_value(lines[index], value.encode("ascii"))
        return b"".join(parts)
    return _insert(lines, f"{RPFILTER_KEY}={value}".encode("ascii"))


def _insert(lines: list[_Line], body: bytes) -> bytes:
    """Return the file with one more line, in the file's own kind of line end."""
    end = next((line.end for line in lines if line.end), b"\n")
    place = len(lines)
    for index, line in enumerate(lines):
        if _TRACE_OF_KEY.match(line.body.decode("utf-8", "surrogateescape")):
            place = index + 1
            break
    parts = [line.body + line.end for line in lines]
    if place > 0 and not lines[place - 1].end:
        parts[place - 1] += end
    parts.insert(place, body + end)
    return b"".join(parts)


def unset_rpfilter(content: bytes) -> bytes:
    """Return the file without the line that gives IPv6_rpfilter its value, as it was before the key was added."""
    lines = _parse(content)
    index = _first(lines, RPFILTER_KEY)
    return b"".join(line.body + line.end for number, line in enumerate(lines) if number != index)


def udp_port_set(ports: list[int]) -> frozenset[str]:
    """Return ports as firewalld writes them. Raises SettingError for a number that is no port."""
    for port in ports:
        if not 1 <= port <= 65535:
            raise SettingError(f"{port} is not a UDP port (1 to 65535)")
    return frozenset(f"{port}/udp" for port in ports)


def parse_ports(text: str) -> frozenset[str]:
    """Return the ports of the output of ``firewall-cmd --list-ports``."""
    return frozenset(text.split())


def single_ports(ports: frozenset[str]) -> frozenset[str]:
    """Return ports with every range written out, ``10-11/udp`` as ``10/udp`` and ``11/udp``."""
    singles = set()
    for port in ports:
        numbers, _slash, protocol = port.partition("/")
        first, _dash, last = numbers.partition("-")
        singles.update(f"{number}/{protocol}" for number in range(int(first), int(last or first) + 1))
    return frozenset(singles)


def sorted_ports(ports: frozenset[str]) -> list[str]:
    """Return ports in the order of their numbers."""
    return sorted(ports, key=lambda port: (int(re.split(r"[-/]", port)[0]), port))


def read_policy(content: bytes) -> Policy | None:
    """Read a policy's file; None when it is no policy (then it is written anew)."""
    try:
        root = ElementTree.fromstring(content)
    except ElementTree.ParseError:
        return None
    if root.tag != "policy":
        return None
    try:
        priority = int(root.get("priority", "-1"))
    except ValueError:
        return None
    ports = frozenset(f"{node.get('port')}/{node.get('protocol')}" for node in root.findall("port"))
    ingress = tuple(sorted(node.get("name", "") for node in root.findall("ingress-zone")))
    egress = tuple(sorted(node.get("name", "") for node in root.findall("egress-zone")))
    return Policy(priority, root.get("target", "CONTINUE"), ingress, egress, ports)


def policy_is_ours(policy: Policy | None) -> bool:
    """Tell whether a policy object has the frame that write_policy gives it, whatever its ports."""
    return policy is not None and policy[:4] == (POLICY_PRIORITY, "CONTINUE", ("ANY",), ("HOST",))


def write_policy(ports: frozenset[str]) -> bytes:
    """Return the file of our policy object: everything may reach these ports of the host itself."""
    lines = [
        '<?xml version="1.0" encoding="utf-8"?>',
        f'<policy priority="{POLICY_PRIORITY}" target="CONTINUE">',
        "  <short>DN42 tunnels</short>",
        "  <description>UDP ports of the WireGuard tunnels of this DN42 node, kept by dn42.compose.</description>",
        '  <ingress-zone name="ANY"/>',
        '  <egress-zone name="HOST"/>',
    ]
    for port in sorted_ports(ports):
        number, protocol = port.split("/")
        lines.append(f'  <port port="{number}" protocol="{protocol}"/>')
    return ("\n".join(lines) + "\n</policy>\n").encode("utf-8")


def zones_binding(zones: dict[str, bytes], interface: str) -> list[str]:
    """Return the names of zone files (name to content) that hold an interface permanently, sorted."""
    found = []
    for name, content in zones.items():
        try:
            root = ElementTree.fromstring(content)
        except ElementTree.ParseError:
            continue
        if any(node.get("name") == interface for node in root.findall("interface")):
            found.append(name)
    return sorted(found)


def parse_busctl(text: str) -> list[str]:
    """Return the values in the output of busctl: ``b true`` as ``["true"]``, ``as 1 "docker0"`` as ``["docker0"]``."""
    values = []
    for line in text.splitlines():
        words = shlex.split(line)
        if words:
            values += words[2:] if words[0] == "as" else words[1:]
    return values


class Firewalld:
    """The running firewalld, asked over D-Bus: 10 ms a question, where each start of firewall-cmd takes 200."""

    NAME = "org.fedoraproject.FirewallD1"
    PATH = "/org/fedoraproject/FirewallD1"

    def __init__(self, run: Runner) -> None:
        self._run = run

    def _ask(self, *arguments: str) -> list[str]:
        """Run busctl and return the values it prints. Raises FirewalldError."""
        code, out, err = self._run(["busctl", "--system", *arguments])
        if code != 0:
            raise FirewalldError(f"busctl {arguments[0]} {arguments[-1]}: {err.strip() or out.strip()}")
        return parse_busctl(out)

    def running(self) -> bool:
        """Tell whether firewalld is on the bus; asked of the bus itself, because a question to firewalld would start it."""
        bus = "org.freedesktop.DBus"
        try:
            return self._ask("call", bus, "/org/freedesktop/DBus", bus, "NameHasOwner", "s", self.NAME) == ["true"]
        except FirewalldError:
            return False

    def properties(self) -> tuple[str, str, bool]:
        """Return version, state (RUNNING, INIT, FAILED) and whether the IPv6 reverse-path check is in force now."""
        values = self._ask("get-property", self.NAME, self.PATH, self.NAME, "version", "state", "IPv6_rpfilter")
        if len(values) != 3:
            raise FirewalldError(f"firewalld answered {values!r} instead of version, state and IPv6_rpfilter")
        return values[0], values[1], values[2] == "true"

    def default_zone(self) -> str:
        """Return the name of the default zone."""
        return "".join(self._ask("call", self.NAME, self.PATH, self.NAME, "getDefaultZone"))

    def zone_of(self, interface: str) -> str | None:
        """Return the zone an interface is in now, None for the default zone by not being named anywhere."""
        answer = self._ask("call", self.NAME, self.PATH, f"{self.NAME}.zone", "getZoneOfInterface", "s", interface)
        return "".join(answer) or None

    def interfaces(self, zone: str) -> frozenset[str]:
        """Return the interfaces in a zone now; none when there is no such zone."""
        try:
            return frozenset(self._ask("call", self.NAME, self.PATH, f"{self.NAME}.zone", "getInterfaces", "s", zone))
        except FirewalldError:
            return frozenset()
