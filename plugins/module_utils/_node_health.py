# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a node is like: one reading of its containers, sessions, tunnels and resolver, and what is worse than in another one.

A reading costs two commands, one `docker container inspect` and one `docker exec` in the router. It needs nothing of the router's
image but python3, birdc, wg and ip, so that a node with an older image can be read as well. A reading is plain data (JSON):

    containers  {name: {running, health, image, id, started}}; health is "healthy", "starting", "unhealthy" or None (no health check)
    sessions    {BIRD's protocol: {state, since, info, established, description, neighbor_as, channels}}, BGP only
                channels: {ipv4, ipv6: {imported, filtered, exported, preferred}}, counts of routes
    tunnels     {interface: {handshake, ok, error, mode}}; handshake: seconds since the last one, None: there was none
    keeper      {age, problems}: seconds since the keeper's last word, {what: problem} that concerns no tunnel; None without the keeper
    resolver    {family: "answers" or why it does not}, of the node's own resolver at its address in DN42, asked by the router
    addresses   {interface of the router's namespace: [addresses with their length]}
    problems    [why a part could not be read]

Runs on nodes: Python 3.9, standard library only. Parsing and comparison are pure functions.

This module util is PRIVATE to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import json
import re
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

ROUTER = "dn42-router"
# WireGuard makes a new handshake every two minutes and uses no key for longer than three (seconds).
HANDSHAKE_LIFE = 180

# Runs a command, answers (exit status, output, error output).
Runner = Callable[[Sequence[str]], Tuple[int, str, str]]
Reading = Dict[str, Any]

# Runs in the router's container with the resolver's addresses as {family: address} in its argument, and prints JSON.
READER = r"""
import json, socket, subprocess, sys, time

def output(*argv):
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"text": "", "error": str(error)}
    return {"text": done.stdout, "error": "" if done.returncode == 0 else (done.stderr or done.stdout).strip()[-300:]}

def asked(family, address):
    # localhost. A, which the resolver answers by itself, whatever the rest of the network does.
    question = b"\x64\x42\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x09localhost\x00\x00\x01\x00\x01"
    kind = socket.AF_INET6 if family == "ipv6" else socket.AF_INET
    problem = "no answer"
    for _attempt in range(2):
        try:
            with socket.socket(kind, socket.SOCK_DGRAM) as ask:
                ask.settimeout(1)
                ask.connect((address, 53))
                ask.send(question)
                answer = ask.recv(4096)
        except OSError as error:
            problem = "no answer: " + (error.strerror or str(error) or "timed out")
            continue
        if answer[:2] == question[:2] and len(answer) >= 12:
            code = answer[3] & 15
            return "answers" if code == 0 else "answers with error code %d" % code
    return problem

try:
    with open("/run/keeper/status.json") as status:
        keeper = json.load(status)
except (OSError, ValueError):
    keeper = None
resolver = {family: asked(family, address) for family, address in json.loads(sys.argv[1]).items()}
print(json.dumps({
    "now": time.time(),
    "keeper": keeper,
    "resolver": resolver,
    "protocols": output("birdc", "show", "protocols", "all"),
    "handshakes": output("wg", "show", "all", "latest-handshakes"),
    "addresses": output("ip", "-j", "address"),
}))
"""


def read(run: Runner, docker: Optional[str], containers: Iterable[str], resolver: Mapping[str, str], router: str = ROUTER) -> Reading:
    """Read the node. containers: names of those to look at; resolver: {"ipv4", "ipv6": address of the node's resolver}, {} for none."""
    reading = empty()
    if not docker:
        reading["problems"].append("Docker is not installed")
        return reading
    names = sorted({*containers, router})
    code, out, err = run([docker, "container", "inspect", *names])
    try:
        reading["containers"] = parse_containers(json.loads(out or "[]"))
    except ValueError:
        reading["problems"].append(f"docker container inspect: {(err or out).strip()[-300:] or code}")
    if not reading["containers"].get(router, {}).get("running"):
        # Without a container and with a daemon that does not answer, the error output tells which of the two it is.
        reason = err.strip()[-300:] if not reading["containers"] and "No such container" not in err else ""
        reading["problems"].append(f"the container {router} does not run" + (f": {reason}" if reason else ""))
        return reading
    code, out, err = run([docker, "exec", router, "python3", "-I", "-c", READER, json.dumps(dict(sorted(resolver.items())))])
    try:
        told = json.loads(out)
    except ValueError:
        reading["problems"].append(f"the router could not be asked: {(err or out).strip()[-300:] or code}")
        return reading
    for part in ("protocols", "handshakes", "addresses"):
        if told[part]["error"]:
            reading["problems"].append(f"{part}: {told[part]['error']}")
    reading["sessions"] = parse_protocols(told["protocols"]["text"])
    reading["tunnels"] = parse_tunnels(told["handshakes"]["text"], told["keeper"], told["now"])
    reading["keeper"] = parse_keeper(told["keeper"], told["now"])
    reading["resolver"] = told["resolver"]
    reading["addresses"] = parse_addresses(told["addresses"]["text"])
    return reading


def empty() -> Reading:
    """A reading of nothing."""
    return {"containers": {}, "sessions": {}, "tunnels": {}, "keeper": None, "resolver": {}, "addresses": {}, "problems": []}


def parse_containers(inspected: Iterable[Mapping[str, Any]]) -> Dict[str, Dict[str, Any]]:
    """{name: what counts} of `docker container inspect`."""
    found = {}
    for item in inspected:
        state = item["State"]
        found[item["Name"].lstrip("/")] = {
            "running": bool(state.get("Running")) and not state.get("Paused"),
            "health": (state.get("Health") or {}).get("Status"),
            "image": item["Config"]["Image"],
            "id": item["Id"],
            "started": state.get("StartedAt"),
        }
    return found


# Name, "BGP", table, state, since (a time, or a date and a time) and what BIRD says of it.
_PROTOCOL = re.compile(r"^(\S+)\s+BGP\s+\S+\s+(\S+)\s+((?:\d{4}-\d\d-\d\d\s+)?\d\d:\d\d:\d\d(?:\.\d+)?|\d{4}-\d\d-\d\d)[ \t]*(.*)$")
_COUNT = re.compile(r"(\d+) (imported|filtered|exported|preferred)")


def parse_protocols(text: str) -> Dict[str, Dict[str, Any]]:
    """{protocol: session} of `birdc show protocols all`, BGP only. BIRD 2.0, 2.17 and 3."""
    sessions: Dict[str, Dict[str, Any]] = {}
    session: Optional[Dict[str, Any]] = None
    channel: Optional[Dict[str, int]] = None
    for line in text.splitlines():
        if line[:1].strip():  # a new protocol begins at the margin
            match = _PROTOCOL.match(line)
            session, channel = None, None
            if match:
                session = {"state": match[2], "since": match[3], "info": " ".join(match[4].split()), "established": match[4].startswith("Established")}
                session.update(description=None, neighbor_as=None, channels={})
                sessions[match[1]] = session
            continue
        key, _colon, value = line.strip().partition(":")
        if session is None:
            continue
        if line.strip().startswith("Channel "):
            channel = session["channels"].setdefault(line.split()[1], {"imported": 0, "filtered": 0, "exported": 0, "preferred": 0})
        elif key == "Description" and channel is None:
            session["description"] = value.strip()
        elif key == "Neighbor AS" and value.strip().isdigit():
            session["neighbor_as"] = int(value)
        elif key == "Routes" and channel is not None:
            channel.update({name: int(count) for count, name in _COUNT.findall(value)})
    return sessions


def parse_tunnels(handshakes: str, keeper: Optional[Mapping[str, Any]], now: float) -> Dict[str, Dict[str, Any]]:
    """{interface: tunnel} of `wg show all latest-handshakes` and the keeper's status; `now` in seconds since the epoch."""
    found: Dict[str, Dict[str, Any]] = {}
    for name, state in ((keeper or {}).get("tunnels") or {}).items():
        found[name] = {"handshake": None, "ok": bool(state.get("ok")), "error": state.get("error"), "mode": state.get("mode")}
    for line in handshakes.splitlines():
        fields = line.split()
        if len(fields) != 3 or not fields[2].isdigit():
            continue
        tunnel = found.setdefault(fields[0], {"handshake": None, "ok": True, "error": None, "mode": None})
        if int(fields[2]):
            age = max(0, int(now) - int(fields[2]))
            tunnel["handshake"] = age if tunnel["handshake"] is None else min(age, tunnel["handshake"])
    return found


def parse_keeper(status: Optional[Mapping[str, Any]], now: float) -> Optional[Dict[str, Any]]:
    """The keeper's own state, None where it has not written any."""
    if not status:
        return None
    return {"age": max(0, int(now - status.get("written", 0))), "problems": dict(status.get("problems") or {})}


def parse_addresses(text: str) -> Dict[str, List[str]]:
    """{interface: [address/length]} of `ip -j address`."""
    try:
        interfaces = json.loads(text or "[]")
    except ValueError:
        return {}
    return {
        item["ifname"]: sorted(f"{address['local']}/{address['prefixlen']}" for address in item.get("addr_info", []) if "local" in address)
        for item in interfaces
        if item.get("ifname")
    }


# What is thought of a reading


def unhealthy(reading: Reading) -> List[str]:
    """What is wrong with a node by itself, whatever it was before: sentences for the operator, [] for a healthy node.

    Sessions that are down are none of it: they may be the peer's business.
    """
    found = list(reading["problems"])
    for name, container in sorted(reading["containers"].items()):
        if not container["running"]:
            found.append(f"container {name} is not running")
        elif container["health"] == "unhealthy":
            found.append(f"container {name} is unhealthy")
    keeper = reading["keeper"]
    found += [f"{what}: {problem}" for what, problem in sorted(keeper["problems"].items())] if keeper else []
    found += [f"tunnel {name}: {tunnel['error']}" for name, tunnel in sorted(reading["tunnels"].items()) if _failed(tunnel)]
    found += [f"the resolver ({family}): {answer}" for family, answer in sorted(reading["resolver"].items()) if answer != "answers"]
    return found


def _failed(tunnel: Mapping[str, Any]) -> bool:
    """Whether the keeper could not make the tunnel as declared; one that it is at work on has not failed."""
    return not tunnel["ok"] and tunnel["error"] not in (None, "starting")


def only(reading: Reading, sessions: Iterable[str], tunnels: Iterable[str]) -> Reading:
    """The reading without sessions and tunnels that are not among these: what is about to leave may end at any time."""
    kept = {"sessions": set(sessions), "tunnels": set(tunnels)}
    return {**reading, **{part: {name: value for name, value in reading[part].items() if name in names} for part, names in kept.items()}}


def worse(before: Reading, after: Reading, tolerances: Optional[Mapping[str, Any]] = None) -> List[str]:
    """What is worse in `after` than in `before`: sentences for the operator, [] when nothing is.

    tolerances:
        lost_sessions   sessions that may be down, and tunnels that may have no handshake any more, default 0
        lost_routes     percent of the routes of a session and family that may be gone, default 50
        expected_down   names of BIRD protocols that were shut down on purpose, default none

    What the node has no more (a session, a tunnel, a container that left with this release) was taken away on purpose and is not
    worse, as long as the router can be asked; what was broken before cannot get worse.
    """
    allowed = dict(tolerances or {})
    found = [f"container {name} {what}" for name, what in _lost_containers(before, after)]
    unread = [problem for problem in after["problems"] if problem not in before["problems"]]
    if before["sessions"] and unread:
        return found + [f"the node cannot be read: {problem}" for problem in unread]
    lost = _lost_sessions(before, after, set(allowed.get("expected_down") or ()))
    silent = _silent_tunnels(before, after)
    found += [line for lines in (lost, silent) if len(lines) > int(allowed.get("lost_sessions") or 0) for line in lines]
    limit = allowed.get("lost_routes")
    found += _lost_routes(before, after, 50.0 if limit is None else float(limit))
    found += _failed_tunnels(before, after)
    answered = [family for family, answer in before["resolver"].items() if answer == "answers"]
    for family in sorted(answered):
        answer = after["resolver"].get(family, "answers")
        if answer != "answers":
            found.append(f"the resolver ({family}) answered before, now: {answer}")
    return found


def _lost_containers(before: Reading, after: Reading) -> List[Tuple[str, str]]:
    lost = []
    for name, container in sorted(before["containers"].items()):
        now = after["containers"].get(name)
        if not container["running"] or now is None:
            continue
        if not now["running"]:
            lost.append((name, "ran before and does not run now"))
        elif container["health"] == "healthy" and now["health"] != "healthy":
            lost.append((name, f"was healthy before and is {now['health'] or 'without a health check'} now"))
    return lost


def _title(name: str, session: Mapping[str, Any]) -> str:
    return f"session {name} ({session['description']})" if session["description"] else f"session {name}"


def _lost_sessions(before: Reading, after: Reading, expected_down: Iterable[str]) -> List[str]:
    lost = []
    for name, session in sorted(before["sessions"].items()):
        now = after["sessions"].get(name)
        if session["established"] and now is not None and not now["established"] and name not in expected_down:
            lost.append(f"{_title(name, session)} was established, now: {now['info'] or now['state']}")
    return lost


def _lost_routes(before: Reading, after: Reading, limit: float) -> List[str]:
    """Falls of routes of sessions that are up in both readings, of more than `limit` percent."""
    lost = []
    for name, session in sorted(before["sessions"].items()):
        now = after["sessions"].get(name)
        if not session["established"] or now is None or not now["established"]:
            continue
        for family, channel in sorted(session["channels"].items()):
            for what in ("imported", "exported"):
                had, has = channel[what], now["channels"].get(family, {}).get(what, 0)
                if had - has > had * limit / 100:
                    lost.append(f"{_title(name, session)}: {has} {family} routes {what} instead of {had}, more than {limit:g} % less")
    return lost


def _failed_tunnels(before: Reading, after: Reading) -> List[str]:
    """Tunnels that the keeper could make before and cannot now."""
    both = [(name, tunnel, after["tunnels"][name]) for name, tunnel in sorted(before["tunnels"].items()) if name in after["tunnels"]]
    return [f"tunnel {name} worked before, now: {now['error']}" for name, tunnel, now in both if _failed(now) and not _failed(tunnel)]


def _silent_tunnels(before: Reading, after: Reading) -> List[str]:
    """Tunnels that had a handshake lately and have none now."""
    silent = []
    for name, tunnel in sorted(before["tunnels"].items()):
        now = after["tunnels"].get(name)
        if now is None or tunnel["handshake"] is None or tunnel["handshake"] > HANDSHAKE_LIFE:
            continue
        if now["handshake"] is None or now["handshake"] > HANDSHAKE_LIFE:
            since = "no handshake yet" if now["handshake"] is None else f"last handshake {now['handshake']} s ago"
            silent.append(f"tunnel {name} had a handshake {tunnel['handshake']} s ago, now: {since}")
    return silent
