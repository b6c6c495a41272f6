# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Declared against real, for people and for machines. Controller only; pure computation.

What was read of a node are the results of the tasks of the playbook verify, by the names in RESULTS. Each area of a node gets its
findings, of one of two kinds:

    drift   something is not as declared; the next run of site.yml repairs it
    down    everything is as declared, and yet it does not work

This module util is PRIVATE to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import re
from typing import Any, Callable, Dict, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Set

from ansible_collections.dn42.compose.plugins.module_utils import _node_health as health

DRIFT, DOWN = "drift", "down"
AREAS = ("host", "plan", "docker", "images", "containers", "files", "network", "firewall", "addresses", "tunnels", "sessions", "routes", "roa", "resolver")
HOST, PLAN, DOCKER, IMAGES, KEY, KEYS, FIREWALL, RELEASE, STATE, MODEL = RESULTS = (
    "__dn42_host",
    "__dn42_address_plan",
    "__dn42_docker_plan",
    "__dn42_stack_images",
    "__dn42_stack_key",
    "__dn42_stack_public_keys",
    "__dn42_firewall_plan",
    "__dn42_stack_release",
    "__dn42_node_state",
    "__dn42_stack_network",
)
KEEPER_FRESH = 30  # seconds; it writes its status every two

Results = Mapping[str, Any]


class Finding(NamedTuple):
    """One difference: where, of which kind, and what it is, for the operator."""

    area: str
    kind: str
    what: str


def findings(node: str, results: Results, peers: bool = True) -> List[Finding]:
    """What of a node is not as declared, sorted by area. `peers` false leaves out what may be a foreign peer's business."""
    found = [finding for reader in _READERS for finding in reader(node, results)]
    return sorted({*found, *_failures(results), *_running(node, results, peers)}, key=lambda finding: (AREAS.index(finding.area), finding.kind, finding.what))


def _failures(results: Results) -> Iterator[Finding]:
    """Tasks that failed: what they say is what keeps site.yml from running as well."""
    areas = {HOST: "host", PLAN: "plan", DOCKER: "docker", IMAGES: "images", KEY: "files", FIREWALL: "firewall", RELEASE: "files", STATE: "host"}
    for name, area in areas.items():
        result = results.get(name) or {}
        if result.get("failed"):
            yield Finding(area, DOWN, one_line(str(result.get("msg") or "could not be read")))


def _host(_node: str, results: Results) -> Iterator[Finding]:
    for problem in (results.get(HOST) or {}).get("problems") or []:
        yield Finding("host", DOWN, one_line(problem))


def _plan(node: str, results: Results) -> Iterator[Finding]:
    for change in (results.get(PLAN) or {}).get("changes") or []:
        if change["holder"] == node:
            yield Finding("plan", DRIFT, f"{change['kind']}: {change['before'] or 'nothing'} -> {change['after'] or 'nothing'} ({change['reason']})")
    told = (results.get(KEY) or {}).get("public_key")
    known = ((results.get(KEYS) or {}).get("known") or {}).get(node)
    if told and told != known:
        yield Finding("plan", DRIFT, f"public key {told} is not the one in the file of public keys ({known or 'none'})")


def _todo(area: str, name: str) -> Callable[[str, Results], Iterator[Finding]]:
    """A reader of a module that tells in check mode what it would do."""

    def read(_node: str, results: Results) -> Iterator[Finding]:
        for action in (results.get(name) or {}).get("actions") or []:
            yield Finding(area, DRIFT, f"to do: {action}")

    return read


def _images(_node: str, results: Results) -> Iterator[Finding]:
    images = results.get(IMAGES) or {}
    for role in images.get("missing") or []:
        yield Finding("images", DRIFT, f"image {(images.get('images') or {}).get(role, role)} is missing")


# How the sentences of dn42.compose.release about a node begin, by area; the rest are files.
_RELEASE_AREAS = (("container ", "containers"), ("service ", "containers"), ("network ", "network"))


def _release(_node: str, results: Results) -> Iterator[Finding]:
    for change in (results.get(RELEASE) or {}).get("changes") or []:
        area = next((area for beginning, area in _RELEASE_AREAS if change.startswith(beginning)), "files")
        # A change that is only the name of a file says that the file differs.
        yield Finding(area, DRIFT, f"{change} differs" if re.fullmatch(r"(secret )?[\w./-]+", change) else change)


def _firewall(_node: str, results: Results) -> Iterator[Finding]:
    state = results.get(STATE) or {}
    for path in state.get("files") or []:
        yield Finding("firewall", DRIFT, f"{path} is not as declared")
    if state.get("guard") not in (None, "same"):
        yield Finding("firewall", DRIFT, f"the guard's table inet dn42_guard is {'not loaded' if state['guard'] == 'missing' else 'not the declared one'}")
    for unit, what in sorted((state.get("units") or {}).items()):
        yield Finding("firewall", DRIFT, f"{unit} is {what}")


_READERS: Sequence[Callable[[str, Results], Iterator[Finding]]] = (
    _host,
    _plan,
    _todo("docker", DOCKER),
    _images,
    _release,
    _todo("firewall", FIREWALL),
    _firewall,
)


# What runs


def _running(node: str, results: Results, peers: bool) -> Iterator[Finding]:
    reading = (results.get(STATE) or {}).get("reading")
    model = ((results.get(MODEL) or {}).get("nodes") or {}).get(node)
    if not reading or not model:
        return
    stopped = {name for name, container in reading["containers"].items() if not container["running"]}
    for problem in reading["problems"]:
        if not (stopped and "does not run" in problem):
            yield Finding("containers", DOWN, one_line(problem))
    for name, container in sorted(reading["containers"].items()):
        if container["running"] and container["health"] == "unhealthy":
            yield Finding("containers", DOWN, f"container {name} is unhealthy")
    # Without its router a node has no sessions and no tunnels; that it does not run is said once.
    if not reading["sessions"] and not reading["tunnels"]:
        return
    yield from _addresses(reading, model)
    foreign, silent = _foreign_interfaces(model), _shut_down(model)
    for name, tunnel in sorted(reading["tunnels"].items()):
        yield from _tunnel(name, tunnel, name in foreign and not peers, silent)
    yield from _sessions(reading, model, peers, silent)
    keeper = reading["keeper"]
    if keeper is None or keeper["age"] > KEEPER_FRESH:
        yield Finding("tunnels", DOWN, "the keeper says nothing" if keeper is None else f"the keeper's last word is {keeper['age']} s old")
    for what, problem in sorted((keeper or {}).get("problems", {}).items()):
        yield Finding("roa" if what == "roa" else "tunnels", DOWN, f"{what}: {one_line(str(problem))}")
    for family, answer in sorted(reading["resolver"].items()):
        if answer != "answers":
            yield Finding("resolver", DOWN, f"{family}: {answer}")


def _addresses(reading: health.Reading, model: Mapping[str, Any]) -> Iterator[Finding]:
    """The node's own address in each family has to be on an interface of the router: it is what others reach it by."""
    present = {address.partition("/")[0] for addresses in reading["addresses"].values() for address in addresses}
    for family, address in sorted((model["addresses"].get("gateway") or {}).items()):
        if address and address not in present:
            yield Finding("addresses", DOWN, f"the router has not its address {address} ({family})")


def _foreign_interfaces(model: Mapping[str, Any]) -> Set[str]:
    return {peer["interface"] for peer in model.get("peers") or []}


def _shut_down(model: Mapping[str, Any]) -> Set[str]:
    """Interfaces and protocols of peers that are shut down on purpose."""
    peers = [peer for peer in model.get("peers") or [] if peer.get("shutdown")]
    return {name for peer in peers for name in [peer["interface"], *(session["protocol"] for session in peer.get("sessions") or [])]}


def _tunnel(name: str, tunnel: Mapping[str, Any], lenient: bool, silent: Iterable[str]) -> Iterator[Finding]:
    if not tunnel["ok"]:
        yield Finding("tunnels", DOWN, f"{name}: {tunnel['error'] or 'not as declared'}")
    elif not lenient and name not in silent and (tunnel["handshake"] is None or tunnel["handshake"] > health.HANDSHAKE_LIFE):
        age = "no handshake" if tunnel["handshake"] is None else f"no handshake for {tunnel['handshake']} s"
        yield Finding("tunnels", DOWN, f"{name}: {age}")


def _sessions(reading: health.Reading, model: Mapping[str, Any], peers: bool, silent: Iterable[str]) -> Iterator[Finding]:
    for name, session in sorted(reading["sessions"].items()):
        if name in silent or (not peers and session["neighbor_as"] != model["asn"]):
            continue
        title = f"{name} ({session['description']})" if session["description"] else name
        if not session["established"]:
            yield Finding("sessions", DOWN, f"{title}: {session['info'] or session['state']}")
            continue
        for family, channel in sorted(session["channels"].items()):
            # A node of our own is told what only we have heard, which may be nothing; the rest is the IGP's.
            if not channel["exported"] and session["neighbor_as"] != model["asn"]:
                yield Finding("routes", DOWN, f"{title}: tells no {family} route")


def one_line(text: str) -> str:
    """A message on one line."""
    return " ".join(text.split())


# For people and machines


def as_json(nodes: Mapping[str, Optional[List[Finding]]]) -> Dict[str, Any]:
    """The report as plain data; a node without findings because nobody reached it has `reached` false."""
    return {
        "ok": all(found == [] for found in nodes.values()),
        "nodes": {
            name: {
                "reached": found is not None,
                "ok": found == [],
                "findings": [finding._asdict() for finding in found or []],
            }
            for name, found in sorted(nodes.items())
        },
    }


def table(nodes: Mapping[str, Optional[List[Finding]]]) -> List[str]:
    """One row for each node and one column for each area: a dot where all is well, else how many findings; then these."""
    names = sorted(nodes)
    width = max([len("node"), *map(len, names)])
    lines = ["  ".join(["node".ljust(width), *AREAS])]
    for name in names:
        found = nodes[name]
        if found is None:
            lines.append(f"{name.ljust(width)}  not reached")
            continue
        counts = [sum(finding.area == area for finding in found) for area in AREAS]
        lines.append("  ".join([name.ljust(width), *(str(count or ".").center(len(area)) for area, count in zip(AREAS, counts))]).rstrip())
    rows = [(name, finding) for name in names for finding in nodes[name] or []]
    if rows:
        lines.append("")
    for name, finding in rows:
        lines.append(f"{name.ljust(width)}  {finding.area.ljust(10)}  {finding.kind.ljust(5)}  {finding.what}")
    return lines


def summary(nodes: Mapping[str, Optional[List[Finding]]]) -> str:
    """One sentence about the whole."""
    drift = sum(finding.kind == DRIFT for found in nodes.values() for finding in found or [])
    down = sum(finding.kind == DOWN for found in nodes.values() for finding in found or [])
    lost = sorted(name for name, found in nodes.items() if found is None)
    parts = [f"{drift} not as declared (site.yml repairs these)"] if drift else []
    parts += [f"{down} as declared but not working"] if down else []
    parts += [f"not reached: {', '.join(lost)}"] if lost else []
    return f"{len(nodes)} nodes: {'; '.join(parts) or 'all as declared'}."
