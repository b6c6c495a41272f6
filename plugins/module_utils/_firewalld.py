# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read and edit firewalld's files the way firewalld itself reads them.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
Nothing here writes a file; the one class that asks the running firewalld is given the function that runs a command.
"""

from __future__ import annotations

import json
import re
import shlex
import xml.etree.ElementTree as ElementTree
from typing import Callable, Iterable, Mapping, NamedTuple

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
# The check as firewalld puts it into its table; up to 0.9 without the mark.
_NFTABLES_CHECK = re.compile(r"fib saddr(?: \. mark)?( \. iif)? oif missing (?:log .*)?drop")
# Rules that Docker owns, or hangs into the chains of others.
_DOCKER_OWN = re.compile(r"[ :]DOCKER\b")
# Before the zones (which are at 0) and before a block list at firewalld's default of -1, after one that was put far ahead on purpose.
POLICY_PRIORITY = -10

_LINE = re.compile(rb"[^\r\n]*(?:\r\n|\r|\n|\Z)")
_TRACE_OF_KEY = re.compile(r"^\ufeff?\s*[#;]?\s*ipv6_rpfilter\s*=", re.IGNORECASE)


STRATEGIES = ("auto", "rpfilter", "bridge_nf", "none")
KEEP, RESTORE = "keep", "restore"


class SettingError(ValueError):
    """A value or a file that firewalld would refuse; the message is for the operator."""


class FirewalldError(RuntimeError):
    """The running firewalld did not answer as expected."""


class _Line(NamedTuple):
    """One line of firewalld.conf: the bytes without line end, the line end, and the pair firewalld reads from it."""

    body: bytes
    end: bytes
    pair: tuple[str, str] | None


class Situation(NamedTuple):
    """What decides whether bridged IPv6 is dropped by the reverse-path check, and what cures it.

    firewalld: absent, stopped or running; check: what it does now (no, strict, loose, strict-forward, loose-forward);
    bridge_nf: net.bridge.bridge-nf-call-ip6tables, None while br_netfilter is not loaded; default_route: what the host has
    for IPv6, one of none, passing (from router advertisements: it ends with its lifetime) and lasting.
    """

    firewalld: str
    version: str
    backend: str
    check: str
    bridge_nf: int | None
    default_route: str


class Cure(NamedTuple):
    """What a strategy does: the value for IPv6_rpfilter and the one for bridge-nf-call-ip6tables, and why.

    RESTORE puts back what was there before us, KEEP leaves a setting alone whoever made it.
    """

    rpfilter: str
    bridge_nf: str
    reason: str


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


def running_check(ruleset: str) -> str | None:
    """Return the check in the output of ``nft list table inet firewalld``, None when there is none in it."""
    chain = ""
    for line in ruleset.splitlines():
        words = line.split()
        if words[:1] == ["chain"]:
            chain = words[1]
        found = _NFTABLES_CHECK.search(line)
        if found:
            return ("strict" if found.group(1) else "loose") + ("-forward" if "FORWARD" in chain else "")
    return None


def default_route_kind(routes: Iterable[Mapping]) -> str:
    """Return what a host has for its IPv6 default route (routes as host_facts gives them): none, passing or lasting."""
    protocols = {route["protocol"] for route in routes if route["family"] == "ipv6" and route["interface"] not in (None, "lo")}
    if not protocols:
        return "none"
    return "lasting" if protocols - {"ra"} else "passing"


def drops_bridged(situation: Situation) -> bool:
    """Tell whether firewalld's check drops what the router hands its siblings.

    The source of such a packet is anywhere in DN42. The strict checks want the host's own route to it through the bridge; the
    loose ones any route, so a default route is enough.
    """
    if situation.firewalld != "running" or situation.bridge_nf != 1 or situation.check == "no":
        return False
    return not situation.check.startswith("loose") or situation.default_route == "none"


def _not_dropped(situation: Situation) -> str:
    """Say why bridged IPv6 passes as it is."""
    if situation.firewalld != "running":
        return f"firewalld is {situation.firewalld}"
    if situation.bridge_nf is None:
        return "br_netfilter is not loaded, so bridged IPv6 does not meet the host's rules"
    if situation.bridge_nf != 1:
        return "net.bridge.bridge-nf-call-ip6tables is 0, so bridged IPv6 does not meet the host's rules"
    if situation.check == "no":
        return "firewalld makes no IPv6 reverse-path check"
    return f"firewalld's check is {situation.check} and the host has an IPv6 default route, so a source in DN42 passes it"


def _knows_loose(situation: Situation) -> bool:
    """Tell whether loose is a cure here: known to this firewalld, seen to work with this backend, on a route that lasts."""
    named = parse_version(situation.version) >= _RPFILTER_NAMED_SINCE
    return named and situation.backend.lower() == "nftables" and situation.default_route == "lasting"


def choose_cure(strategy: str, situation: Situation, value: str = "no") -> Cure:
    """Return what a strategy does in a situation; `value` is what rpfilter sets.

    The situation is the one without a sysctl of ours, else leaving the strategy bridge_nf would look as if nothing were to do.
    """
    if strategy == "none":
        return Cure(RESTORE, RESTORE, "what was there before is left or put back")
    if strategy == "bridge_nf":
        return Cure(RESTORE, "0", "no bridged IPv6 of this host meets its rules any more, that of other networks included")
    if strategy == "rpfilter":
        return Cure(value, RESTORE, f"IPv6_rpfilter is {value} whether needed or not")
    if not drops_bridged(situation):
        return Cure(KEEP, RESTORE, _not_dropped(situation))
    why = f"bridge-nf-call-ip6tables is 1 and firewalld's IPv6_rpfilter is {situation.check}, which drops what crosses the DN42 bridge"
    if situation.check.startswith("strict") and _knows_loose(situation):
        value = "loose-forward" if situation.check == "strict-forward" else "loose"
        return Cure(value, RESTORE, f"{why}; with this host's IPv6 default route {value} is enough, and the guard keeps the strict check for every other interface")
    return Cure("no", RESTORE, f"{why}; {_why_no(situation)}, so the check is off and the guard makes it for every interface but the bridge")


def _why_no(situation: Situation) -> str:
    """Say why loose is no cure here."""
    if situation.default_route == "none":
        return "loose needs an IPv6 default route, which this host has not"
    if situation.default_route == "passing":
        return "loose needs an IPv6 default route that stays, and this one is from router advertisements"
    if situation.backend.lower() != "nftables":
        return f"loose is not known to work with FirewallBackend={situation.backend}"
    return f"firewalld {situation.version} does not know loose"


# A container's own address: as a destination or source of one address, or behind a published port.
_LEASE = re.compile(r"(-[sd] )[0-9a-f.:]+/(?:32|128)\b|(--to-destination )(?:[0-9.]+|\[[0-9a-f:]+\])(?=:\d)")


def docker_rules(saved: str, bridges: Iterable[str]) -> frozenset[str]:
    """Return Docker's own rules in the output of ``iptables-save``, without counters; `bridges` are its interfaces.

    Rules in DOCKER-USER are the operator's, see user_rules. The place of the jumps is left out: Docker moves them.
    """
    named = [re.compile(rf"(?:-i|-o) {re.escape(bridge)}(?: |$)") for bridge in bridges]
    found, table = set(), ""
    for line in saved.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith(("-A DOCKER-USER ", ":DOCKER-USER ")):
            continue
        elif line.startswith((":", "-A ")) and (_DOCKER_OWN.search(line) or any(pattern.search(line) for pattern in named)):
            found.add(f"{table} {line.split(' [')[0]}")
    return frozenset(found)


def without_leases(rules: Iterable[str]) -> frozenset[str]:
    """Return Docker's rules without the single addresses in them: containers get others from its networks when Docker starts again."""
    return frozenset(_LEASE.sub(lambda found: f"{found[1] or found[2]}*", rule) for rule in rules)


def user_rules(saved: str) -> frozenset[str]:
    """Return what the operator has put into DOCKER-USER; the RETURN at its end is Docker's."""
    return frozenset(line for line in saved.splitlines() if line.startswith("-A DOCKER-USER ") and line != "-A DOCKER-USER -j RETURN")


def udp_port_set(ports: list[int]) -> frozenset[str]:
    """Return ports as firewalld writes them. Raises SettingError for a number that is no port."""
    for port in ports:
        if not 1 <= port <= 65535:
            raise SettingError(f"{port} is not a UDP port (1 to 65535)")
    return frozenset(f"{port}/udp" for port in ports)


def parse_ports(text: str) -> frozenset[str]:
    """Return the ports in the settings of a policy as ``busctl --json=short`` prints them."""
    (settings,) = json.loads(text)["data"]
    return frozenset("/".join(port) for port in settings.get("ports", {}).get("data", []))


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

    def policy_ports(self, policy: str) -> frozenset[str] | None:
        """Return the ports that a policy opens now, None when there is no such policy. Raises FirewalldError."""
        code, out, err = self._run(["busctl", "--system", "--json=short", "call", self.NAME, self.PATH, f"{self.NAME}.policy", "getPolicySettings", "s", policy])
        if code == 0:
            return parse_ports(out)
        # A firewalld before 0.9 has no policies at all.
        if any(sign in err + out for sign in ("INVALID_POLICY", "Unknown method", "Unknown interface", "UnknownMethod", "UnknownInterface")):
            return None
        raise FirewalldError(f"busctl call getPolicySettings {policy}: {err.strip() or out.strip()}")
