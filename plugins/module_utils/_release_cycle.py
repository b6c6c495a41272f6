# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The release cycle of a node: checked, applied, then confirmed or undone.

It runs as a systemd unit of the node, apart from the connection of whoever asked for it (see _release_unit.py), so a cut connection
or a dead controller does not interrupt it. A process that dies, or a node that reboots, leaves a transaction on the disk; the
unit's end, the next boot, the next start of Docker or the next run finds it and puts back what was before.

Runs on nodes: Python 3.9, standard library only.

This module util is PRIVATE to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from ansible_collections.dn42.compose.plugins.module_utils import _node_health as health
from ansible_collections.dn42.compose.plugins.module_utils import _release_history as release_history
from ansible_collections.dn42.compose.plugins.module_utils import _release_request as requests
from ansible_collections.dn42.compose.plugins.module_utils._release import RESOLVER, ROUTER, DockerSilentError, Node, ReleaseError, locked, unpack
from ansible_collections.dn42.compose.plugins.module_utils._release_files import file_hashes, hard_copy, sha256
from ansible_collections.dn42.compose.plugins.module_utils._release_transaction import Transaction

# Room that a release needs beside its archive, for itself, the previous one and what Docker writes (bytes).
SPARE_ROOM = 16 << 20
# A session that its peer is about to close looks well for a moment: good readings in a row when the router was told something.
GOOD_READINGS = 2
PAUSE = 1.0  # seconds between two readings


class Cycle:
    """The release cycle below a node's directory. Its methods are called with the node's lock held."""

    def __init__(self, directory: Path, run: health.Runner, docker: Optional[str]) -> None:
        self.directory = directory
        self.run = run
        self.docker = docker
        self.transaction = Transaction(directory)
        self.history = release_history.History(directory)

    # What can be asked for

    def heal(self) -> List[str]:
        """Undo a release that was never confirmed; answers what was found, [] for nothing. Raises DockerSilentError."""
        self.transaction.sweep()
        if not self.transaction.open:
            return []
        record = self.transaction.record
        if record["previous"] is None:
            self.transaction.end()
            return ["the node's first release was interrupted; there is nothing to go back to"]
        report = ["it was interrupted before it was confirmed", *self._undo()]
        self.history.note_undone(record["who"], report)
        return [f"an unconfirmed release of {record['who']} was undone", *report]

    def release(self, declared: Dict[str, Any], archive: Path, scratch: Path, who: str, what: List[str]) -> Dict[str, Any]:
        """Bring the node to the declared release that was sent. Answers the result. Raises ReleaseError, OSError."""
        node = Node(declared, self.run, self.docker)
        node.refuse_removal()
        self._require_room(archive.stat().st_size)
        unpack(archive, scratch)
        archive.unlink()
        return self._carry_out(node, scratch, declared, who, what)

    def rollback(self, wanted: Optional[str], settings: Dict[str, Any], scratch: Path, who: str) -> Dict[str, Any]:
        """Bring the node to a release of its history. settings: what declare_past() takes. Answers the result."""
        entry, declared, missing = declare_past(self.history, wanted, settings, self.run, self.docker)
        hard_copy(entry.path / "compose.yaml", scratch / "compose.yaml")
        node = Node(declared, self.run, self.docker)
        what = [f"back to {entry.id} of {entry.content['when']}", *[change["what"] for change in node.changes()]]
        result = self._carry_out(node, scratch, entry.declared, who, what)
        result["warnings"] = [*result.get("warnings", []), *missing]
        return result

    # The cycle

    def _require_room(self, size: int) -> None:
        """Refuse to begin on a disk that is full: not having begun is better than having to go back."""
        state = os.statvfs(self.directory)
        room = state.f_bavail * state.f_frsize
        if room < SPARE_ROOM + 8 * size:
            raise ReleaseError(f"only {room >> 20} MiB are free on the file system of {self.directory}; the node goes on as before")

    def _carry_out(self, node: Node, incoming: Path, declared: Dict[str, Any], who: str, what: List[str]) -> Dict[str, Any]:
        anew = node.network_change() is not None
        node.prepare(incoming)
        try:
            previous = self._previous(node)
            before = self._read(node)
            self.transaction.begin(previous, before, who, anew)
        except OSError:
            node.discard()
            raise
        if previous and not self.history.entries():
            self.history.add(previous, "", ["found on the node"])
        done: List[str] = []
        failures: List[str] = []
        try:
            self.transaction.phase("switching")
            done += node.put_in_place(incoming, anew)
            self.transaction.phase("starting")
            done += node.start()
            self.transaction.phase("confirming")
            worse = self._watch(node, before, any(line.startswith((f"{ROUTER} ", node_container(node, ROUTER))) for line in done))
        except (ReleaseError, OSError, ValueError, KeyError) as error:
            failures = [text_of(error)]
            worse = health.worse(before, self._read(node), node.declared.get("confirm"))
        if not failures and not worse:
            return self._confirm(node, declared, who, what, done)
        return self._fail(node, previous, before, failures, worse, who, done)

    def _watch(self, node: Node, before: health.Reading, router_told: bool) -> List[str]:
        """Wait until the node is as good as it was, at most the declared time; what is still worse then."""
        confirm = node.declared.get("confirm") or {}
        deadline = time.monotonic() + float(confirm.get("seconds", 0))
        good = 0
        while True:
            worse = health.worse(before, self._read(node), confirm)
            good = 0 if worse else good + 1
            if good >= (GOOD_READINGS if router_told else 1):
                return []
            if worse and time.monotonic() > deadline:
                return worse
            time.sleep(PAUSE)

    def _confirm(self, node: Node, declared: Dict[str, Any], who: str, what: List[str], done: List[str]) -> Dict[str, Any]:
        node.drop_services()
        self.transaction.end()
        result: Dict[str, Any] = {"failed": False, "done": done, "release": release_history.present_id(self.directory)}
        try:
            if not self.history.latest() or any(line.startswith("secret ") for line in what):
                self.history.add(declared, who, what)
        except OSError as error:
            result["warnings"] = [f"the release is confirmed, but could not be noted in the node's history: {text_of(error)}"]
        self.history.forget_undone()
        node.prune()
        return result

    def _fail(self, node: Node, previous: Optional[Dict[str, Any]], before: health.Reading, failures: List[str], worse: List[str], who: str, done: List[str]) -> Dict[str, Any]:
        """Go back, if there is something to go back to that was better; the result for the operator."""
        report = [*failures, *worse]
        result: Dict[str, Any] = {"failed": True, "report": report, "done": done, "undone": False}
        if previous is None:
            self.transaction.end()
            return {**result, "msg": text("The node's first release did not succeed. There is no earlier one to go back to, so everything stays as it is", report)}
        if not worse and broken_containers(previous, before):
            self.transaction.end()
            broken = ", ".join(broken_containers(previous, before))
            return {**result, "msg": text(f"The release did not succeed. The node was no better before ({broken}), so the release stays", report)}
        try:
            problems = self._undo()
        except DockerSilentError as error:
            self.history.note_undone(who, report)
            return {**result, "msg": text(f"The release is being undone: its files are put back, the containers follow as soon as Docker answers ({error})", report)}
        node.discard()
        self.history.note_undone(who, report)
        head = f"The release was undone and the node is back at {release_history.present_id(self.directory)}. What got worse"
        message = text(head, report)
        if problems:
            message += text("\nAfter going back not everything is well", problems)
        return {**result, "undone": True, "msg": message}

    def _undo(self) -> List[str]:
        """Put back the previous release; what is not well after it, [] for nothing. Raises DockerSilentError: then the transaction stays."""
        record = self.transaction.record
        self.transaction.phase("undoing")
        self.transaction.restore_files()
        node = Node(record["previous"], self.run, self.docker)
        node.composed = True  # how far the release had come is not asked
        self._require_docker()
        try:
            if record["renumbered"]:
                node.take_down()
            node.start()
            problems = self._watch(node, record["before"], True)
        except (ReleaseError, OSError) as error:
            problems = [text_of(error)]
            self._require_docker()
        self.transaction.end()
        return problems

    def _require_docker(self) -> None:
        code, out, err = self.run([str(self.docker), "version", "--format", "{{.Server.Version}}"]) if self.docker else (1, "", "docker is not installed")
        if code != 0:
            raise DockerSilentError((err or out).strip())

    def _read(self, node: Node) -> health.Reading:
        resolver = next((service.addresses for service in node.services if service.role == RESOLVER), {})
        return health.read(self.run, self.docker, [service.container for service in node.services], resolver, node_container(node, ROUTER))

    def _previous(self, node: Node) -> Optional[Dict[str, Any]]:
        """The release in use as it was declared; put together from what is there where the history does not know it. None: there is none."""
        compose, links = sha256(self.directory / "compose.yaml"), release_history.links(self.directory)
        if not compose or not links:
            return None
        latest = self.history.latest()
        if latest:
            return {**latest.declared, "confirm": node.declared.get("confirm")}
        containers = node.containers()
        services = {}
        for role, release in links.items():
            known = node.declared["services"].get(role) or bare_service(role)
            container = containers.get(known["container"])
            files = file_hashes(self.directory / "services" / role / "releases" / release)
            image = container["Config"]["Image"] if container else known["image"]
            services[role] = {**known, "release": release, "files": files, "image": image, "addresses": {}, "secrets": {"owner": None, "keep": [], "files": {}}}
        return {**node.declared, "compose_sha256": compose, "services": services}


def declare_past(
    history: release_history.History, wanted: Optional[str], settings: Mapping[str, Any], run: health.Runner, docker: Optional[str]
) -> Tuple[release_history.Entry, Dict[str, Any], List[str]]:
    """A release of the history as something to bring the node to: (entry, declared, remarks on secrets). Raises ReleaseError.

    wanted: its id, None for the one before; settings: confirm, removal, renumber of the run that goes back.
    """
    entry = history.find(wanted)
    if entry is None:
        known = ", ".join(dict.fromkeys(entry.id for entry in reversed(history.entries()))) or "none"
        raise ReleaseError(f"the history of this node has no release {wanted}; it has: {known}" if wanted else f"the history of this node has no other release; it has: {known}")
    declared = {**entry.declared, **settings}
    past = Node(declared, run, docker)
    gone = [service.role for service in past.services if service.differing(service.release)]
    if gone:
        raise ReleaseError(f"the files of release {entry.id} are not complete any more: {', '.join(gone)}")
    missing = [service.image for service in past.services if run([str(docker), "image", "inspect", "--format", "{{.Id}}", service.image])[0] != 0]
    if missing:
        raise ReleaseError(f"images of release {entry.id} are not on the node any more: {', '.join(missing)}. They cannot be built again from here")
    remarks = []
    for service in past.services:
        remarks += [
            f"secret {service.role}/{name} is not the one that release {entry.id} was made with; the present one stays"
            for name in past.stale_secrets(service)
            if name in service.secrets["files"]
        ]
    # The secrets on the node stay: those of the past are nowhere.
    services = {role: {**service, "secrets": {"owner": None, "keep": [], "files": {}}} for role, service in declared["services"].items()}
    return entry, {**declared, "services": services}, remarks


def bare_service(role: str) -> Dict[str, Any]:
    """What is taken for true of a service that nobody describes any more."""
    service = role.replace("_", "-")
    return {"service": service, "container": f"dn42-{service}", "image": "", "check": [], "check_capabilities": [], "reload": [], "before_recreate": []}


def node_container(node: Node, role: str) -> str:
    """Name of the container of a service role."""
    return next((service.container for service in node.services if service.role == role), f"dn42-{role}")


def broken_containers(previous: Mapping[str, Any], reading: health.Reading) -> List[str]:
    """Containers of a release that did not run or were not healthy."""
    names = [service["container"] for service in previous["services"].values()]
    states = {name: reading["containers"].get(name) for name in names}
    return sorted(name for name, state in states.items() if not state or not state["running"] or state["health"] == "unhealthy")


def text(head: str, lines: Sequence[str]) -> str:
    """A message with one line for each reason."""
    return head + ":\n" + "\n".join(f"  {line}" for entry in lines for line in entry.splitlines())


def text_of(error: BaseException) -> str:
    """An error for the operator."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return str(error) if isinstance(error, ReleaseError) else f"{type(error).__name__}: {error}"


# The program that systemd starts


def run_command(command: Sequence[str]) -> Tuple[int, str, str]:
    """Run a command; (exit status, output, error output)."""
    try:
        done = subprocess.run(list(command), stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False)
    except OSError as error:
        return 127, "", str(error)
    return done.returncode, done.stdout, done.stderr


def carry_out_request(path: Path) -> None:
    """Do what the request in this directory asks for and write the result beside it."""
    request = requests.Request(path)
    request.hold()
    asked = request.asked
    directory = path.parent
    cycle = Cycle(directory, run_command, shutil.which("docker"))
    print(f"{asked['operation']} asked for by {asked['who']}", flush=True)
    result: Dict[str, Any]
    try:
        with locked(directory):
            requests.sweep(directory, path)
            healed = cycle.heal()
            scratch = request.scratch()
            if asked["operation"] == "rollback":
                result = cycle.rollback(asked["to"], asked["settings"], scratch, asked["who"])
            else:
                result = cycle.release(asked["declared"], request.archive, scratch, asked["who"], asked["what"])
            result["warnings"] = [*healed, *result.get("warnings", [])]
    except (ReleaseError, OSError) as error:
        result = {"failed": True, "msg": text_of(error)}
    except Exception:
        traceback.print_exc()
        result = {"failed": True, "msg": f"the release ended with an error of its own:\n{traceback.format_exc()}"}
    for line in (result.get("msg") or "confirmed").splitlines() + result.get("done", []):
        print(line, flush=True)
    request.answer(result)


def heal_node(directory: Path) -> int:
    """Undo what was left unconfirmed. 0: nothing is left to do, or it is not our turn; 1: try again later."""
    if run_command(["systemctl", "is-system-running"])[1].strip() == "stopping":
        return 0  # the next boot is a better moment
    try:
        with locked(directory, wait=0):
            requests.sweep(directory, None)
            for line in Cycle(directory, run_command, shutil.which("docker")).heal():
                print(line, flush=True)
    except DockerSilentError as error:
        print(f"the release is undone when Docker answers: {error}", flush=True)
        return 1
    except ReleaseError as error:
        print(str(error), flush=True)  # somebody else has the lock, and heals before anything else
    return 0


def main(argv: Sequence[str]) -> int:
    """`run <request>` or `heal <directory>`."""
    if argv[0] == "run":
        carry_out_request(Path(argv[1]))
        return 0
    return heal_node(Path(argv[1]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
