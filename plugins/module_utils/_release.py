# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Node side of a release: what is there, what would change, and how to get there without taking the node down.

Layout below the node's directory:

    compose.yaml                            what Docker Compose runs
    services/<role>/releases/<hash>/...     configuration of a service, one directory for each content
    services/<role>/current                 relative link to the release in use
    services/<role>/loaded.json             which release the running container was told to read
    secrets/<role>/...                      keys, readable by the service's user alone

Every step leaves the node able to run, and is found out by comparing with reality. In which order they are taken, and how a
node goes back, is in _release_cycle.py. Runs on nodes: Python 3.9, standard library only.

This module util is PRIVATE to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import json
import os
import re
import shutil
import stat
import tarfile
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Set, Tuple

from ansible_collections.dn42.compose.plugins.module_utils import _release_history as history
from ansible_collections.dn42.compose.plugins.module_utils import _release_network as docker_network
from ansible_collections.dn42.compose.plugins.module_utils._release_files import file_hashes, point_link, read_text, sha256, write_atomically

HASH_LABEL = "com.docker.compose.config-hash"
LOCK_WAIT = 60.0  # seconds that a second controller waits for the first one's release
ROUTER = "router"  # the service role whose tunnels are protected, and that is asked for its sessions
RESOLVER = "dns"  # the service role that answers names
# Fewer removed tunnels than this need no permission, whatever their share (tunnels).
FEW_TUNNELS = 3
TAKE_DOWN_WAIT = 30.0  # seconds for Docker to end what a killed release had told it to do
_IMAGE = re.compile(r"^(dn42-[a-z0-9-]+):[0-9a-f]{12}$")

# Runs a command, answers (exit status, output, error output).
Runner = Callable[[Sequence[str]], Tuple[int, str, str]]


class ReleaseError(Exception):
    """A release that was refused or could not be completed; the text is for the operator."""


class DockerSilentError(ReleaseError):
    """Docker does not answer; what is left to do is done when it runs again."""


class Service:
    """One service of the declared release, as the controller sent it."""

    def __init__(self, role: str, declared: Dict[str, Any], directory: Path) -> None:
        self.role = role
        self.name: str = declared["service"]
        self.container: str = declared["container"]
        self.image: str = declared["image"]
        self.release: str = declared["release"]
        self.files: Dict[str, str] = declared["files"]
        self.addresses: Dict[str, str] = declared["addresses"]
        self.check: List[List[str]] = declared["check"]
        self.check_capabilities: List[str] = declared["check_capabilities"]
        self.reload: List[List[str]] = declared["reload"]
        self.before_recreate: List[List[str]] = declared.get("before_recreate") or []
        self.secrets: Dict[str, Any] = declared["secrets"]
        self.directory = directory / "services" / role
        self.secrets_directory = directory / "secrets" / role
        self.restored = False

    @property
    def current(self) -> Optional[str]:
        """Hash of the release that `current` points to, None before the first one."""
        try:
            return os.path.basename(os.readlink(self.directory / "current"))
        except OSError:
            return None

    @property
    def complete(self) -> bool:
        """Whether the declared release lies on the node just as declared (it may have been edited by hand)."""
        return self.differing(self.release) == []

    def differing(self, release: Optional[str]) -> List[str]:
        """Files of the declared release that a release on the node lacks, has with other content, or has too much."""
        present = file_hashes(self.directory / "releases" / release) if release else {}
        return sorted(name for name in {*present, *self.files} if present.get(name) != self.files.get(name))

    def switched_at(self) -> float:
        """When `current` was last set, seconds since the epoch; in the future where there is no link."""
        try:
            return os.lstat(self.directory / "current").st_mtime
        except OSError:
            return float("inf")


def container_time(text: str) -> float:
    """Docker's RFC 3339 time with nanoseconds as seconds since the epoch."""
    whole, _dot, fraction = text.rstrip("Z").partition(".")
    moment = datetime.datetime.strptime(whole, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=datetime.timezone.utc)
    return moment.timestamp() + float(f"0.{fraction or 0}")


@contextlib.contextmanager
def locked(directory: Path, wait: float = LOCK_WAIT) -> Iterator[None]:
    """One release at a time on a node; the kernel frees the lock of a process that died. Raises ReleaseError after `wait` seconds."""
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    with open(directory / ".lock", "w", encoding="utf-8") as lock:
        deadline = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise ReleaseError(f"another run is releasing to this node ({directory}/.lock has been held for {wait:.0f} s); nothing was changed by this one") from None
                time.sleep(0.2)
        yield


def health_output(container: Dict[str, Any]) -> str:
    """What the last health check of a container said."""
    log = (container["State"].get("Health") or {}).get("Log") or [{}]
    return str(log[-1].get("Output", "")).strip()


class Node:
    """This node: its directory, its Docker, and the release it should have."""

    def __init__(self, declared: Dict[str, Any], run: Runner, docker: Optional[str]) -> None:
        self.directory = Path(declared["directory"])
        self.project: str = declared["project"]
        self.compose_hash: str = declared["compose_sha256"]
        self.network: Dict[str, Any] = declared["network"]
        self.renumber: bool = declared["renumber"]
        self.wait: int = declared["wait"]
        self.declared = declared
        self.services = [Service(role, service, self.directory) for role, service in sorted(declared["services"].items())]
        self.run = run
        self.docker = docker
        self.composed = False  # whether compose.yaml is another one than its containers and networks were made from, as far as we know
        self.seen: Dict[str, Dict[str, Any]] = {}  # the containers as changes() found them

    # What is there

    def containers(self) -> Dict[str, Dict[str, Any]]:
        """{name: docker's description} of our containers that exist."""
        if not self.docker or not self.services:
            return {}
        _code, out, _err = self.run([self.docker, "container", "inspect", *[service.container for service in self.services]])
        return {item["Name"].lstrip("/"): item for item in json.loads(out or "[]")}

    def orphans(self) -> List[str]:
        """Services of the project that are not declared any more."""
        if not self.docker:
            return []
        label = "com.docker.compose"
        command = [self.docker, "ps", "--all", "--filter", f"label={label}.project={self.project}", "--format", f'{{{{.Label "{label}.service"}}}}']
        _code, out, _err = self.run(command)
        return sorted(set(out.split()) - {service.name for service in self.services})

    def _live_network(self) -> Optional[Dict[str, str]]:
        """The settings of the Docker network that exists, None where there is none yet."""
        if not self.docker:
            return None
        code, out, _err = self.run([self.docker, "network", "inspect", self.network["name"]])
        return docker_network.live_settings(json.loads(out)[0], self.network["driver_opts"]) if code == 0 else None

    def _in_network(self) -> List[docker_network.Container]:
        """All containers in the Docker network, of whatever project, running or not."""
        columns = "\t".join(["{{.Names}}", f'{{{{.Label "{docker_network.PROJECT_LABEL}"}}}}', "{{.State}}"])
        _code, out, _err = self.run([str(self.docker), "ps", "--all", "--filter", f"network={self.network['name']}", "--format", columns])
        return docker_network.read_containers(out)

    def network_change(self) -> Optional[Dict[str, Any]]:
        """The change that makes the Docker network anew, None where it is as declared or there is none yet.

        Raises ReleaseError where that would take down containers that run and nobody said so, or containers of others.
        """
        live = self._live_network()
        if live is None:
            return None
        declared = docker_network.declared_settings(self.network, self.project)
        found = docker_network.differences(live, declared)
        if not found:
            return None
        name, attached = self.network["name"], self._in_network()
        foreign = [container for container in attached if container.project != self.project]
        # Nothing runs in it after a run that was killed half-way, or on a node that was stopped: nothing to lose.
        running = [container for container in attached if container.running]
        problems = [docker_network.refusal(name, found, running)] if running and not self.renumber else []
        problems += [docker_network.foreign_text(name, foreign)] if foreign else []
        if problems:
            raise ReleaseError("\n".join(problems))
        what = f"network {name} is made anew, and every container with it ({'; '.join(map(str, found))})"
        return {"what": what, "file": f"network {name}", "before": docker_network.as_text(live), "after": docker_network.as_text(declared)}

    def stale_secrets(self, service: Service) -> List[str]:
        """Secret files that are missing, different, superfluous or too widely readable. Names only."""
        owner, declared = service.secrets["owner"], service.secrets["files"]
        directory = service.secrets_directory
        if owner is None:
            return []
        present = {path.name: path for path in directory.iterdir()} if directory.is_dir() else {}
        stale = {name for name, digest in declared.items() if name not in present or sha256(present[name]) != digest}
        stale |= set(present) - set(declared) - set(service.secrets["keep"])
        for name, path in present.items():
            state = path.lstat()
            if state.st_uid != owner or stat.S_IMODE(state.st_mode) & 0o077:
                stale.add(name)
        return sorted(stale)

    def is_loaded(self, service: Service, container: Optional[Dict[str, Any]]) -> bool:
        """Whether the running container has read the declared release: it started after the switch, or was told since."""
        if service.current != service.release or not container or not container["State"]["Running"]:
            return False
        started = container["State"]["StartedAt"]
        if container_time(started) > service.switched_at():
            return True
        try:
            record = json.loads((service.directory / "loaded.json").read_text())
        except (OSError, ValueError):
            return False
        return record == {"release": service.release, "started": started}

    def changes(self) -> List[Dict[str, Any]]:
        """What a release would change, in words and as files with their present text. Raises ReleaseError as network_change()."""
        found: List[Dict[str, Any]] = []
        network = self.network_change()
        if network:
            found.append(network)
        containers = self.seen = self.containers()
        outdated: List[str] = []
        if sha256(self.directory / "compose.yaml") != self.compose_hash:
            found.append({"what": "compose.yaml", "file": "compose.yaml", "before": read_text(self.directory / "compose.yaml")})
        elif any(container["State"]["Running"] for container in containers.values()):
            outdated = [service.role for service in self._to_recreate(containers, self._definition_hashes())]
        for service in self.services:
            found += self._service_changes(service, containers.get(service.container), service.role in outdated)
        found += [{"what": f"service {name} leaves"} for name in self.orphans()]
        return found

    def _service_changes(self, service: Service, container: Optional[Dict[str, Any]], outdated: bool) -> Iterator[Dict[str, Any]]:
        differing = service.differing(service.current)
        for name in differing:
            before = service.directory / "current" / name
            yield {"what": f"{service.role}/{name}", "file": f"{service.role}/{name}", "before": read_text(before)}
        for name in self.stale_secrets(service):
            yield {"what": f"secret {service.role}/{name}"}
        if not container:
            yield {"what": f"container {service.container} is missing"}
        elif not container["State"]["Running"]:
            yield {"what": f"container {service.container} is not running ({container['State']['Status']})"}
        elif container["Config"]["Image"] != service.image:
            yield {"what": f"container {service.container} runs {container['Config']['Image']} instead of {service.image}"}
        elif outdated:
            yield {"what": f"container {service.container} was made from another definition"}
        elif (container["State"].get("Health") or {}).get("Status") == "unhealthy":
            yield {"what": f"container {service.container} is unhealthy: {health_output(container)}"}
        elif not differing and service.current != service.release:
            yield {"what": f"{service.role}: current is not the declared release"}
        elif not differing and not self.is_loaded(service, container):
            yield {"what": f"{service.role} has not loaded its configuration yet"}

    def remarks(self) -> List[str]:
        """What healthy containers say beside it in their health check, as changes() found them: a tunnel that could not be made, for one."""
        found = []
        for name, container in sorted(self.seen.items()):
            said = health_output(container)
            healthy = (container["State"].get("Health") or {}).get("Status") == "healthy"
            if healthy and said.startswith("healthy; "):
                found.append(f"{name}: {said[len('healthy; ') :]}")
        return found

    # How to get there

    def prepare(self, incoming: Path) -> None:
        """Put the release beside the old ones and have it checked. A refused one leaves nothing behind."""
        try:
            self._store(incoming)
            self._check(incoming)
        except BaseException:
            self.discard()
            raise

    def put_in_place(self, incoming: Path, anew: bool) -> List[str]:
        """Make the release the one that counts: secrets, links, compose.yaml. anew: the Docker network has to go."""
        done: List[str] = []
        if anew:
            # Before anything is switched: what runs always has the files that it was started with.
            done += self.take_down()
        done += self._write_secrets(incoming)
        done += self._switch(incoming)
        return done

    def start(self) -> List[str]:
        """Have the containers run what is in place; answers what was done, when all of them are healthy."""
        done = self._start_newcomers()
        # What runs on is told first: a peer that leaves loses its session before Compose takes its time.
        done += self._reload(self._running_on())
        done += self._up()
        done += self._reload(self.services)
        self._wait_healthy(self.services)
        return done

    def _store(self, incoming: Path) -> None:
        """Put the releases beside the old ones. A release directory appears whole, by a rename."""
        for service in self.services:
            releases = service.directory / "releases"
            releases.mkdir(parents=True, exist_ok=True)
            for directory in (self.directory / "services", service.directory, releases):
                directory.chmod(0o755)
            if service.complete:
                continue
            target, source = releases / service.release, incoming / "services" / service.role
            source.mkdir(parents=True, exist_ok=True)
            for path in [source, *source.rglob("*")]:
                path.chmod(0o755 if path.is_dir() else 0o644)
            if target.exists():  # edited by hand: the old content moves out of the way, which is atomic too
                os.replace(target, releases / f".edited-{service.release}-{time.time_ns()}")
                service.restored = True
            os.replace(source, target)

    def _check(self, incoming: Path) -> None:
        """Ask the very images that will run it whether they accept the configuration."""
        for service in self.services:
            if service.current == service.release and not service.restored:
                continue
            for check in service.check:
                argv = [word.replace("{release}", f"releases/{service.release}") for word in check]
                command = [str(self.docker), "run", "--rm", "--pull", "never", "--network", "none", "--read-only", "--cap-drop", "ALL"]
                command += [f"--cap-add={capability}" for capability in service.check_capabilities]
                command += ["--volume", f"{service.directory}:/config:ro", "--entrypoint", argv[0], service.image, *argv[1:]]
                code, out, err = self.run(command)
                if code != 0:
                    raise ReleaseError(f"{service.role}: the configuration was refused by `{' '.join(argv)}`; the node goes on as before:\n{(out + err).strip()}")
        if sha256(self.directory / "compose.yaml") == self.compose_hash:
            return  # it is in use
        candidate = incoming / "compose.yaml"
        command = [str(self.docker), "compose", "--project-directory", str(self.directory), "--file", str(candidate), "config", "--quiet"]
        code, out, err = self.run(command)
        if code != 0:
            raise ReleaseError(f"compose.yaml was refused by `docker compose config`; the node goes on as before:\n{(out + err).strip()}")

    def discard(self) -> None:
        """Take a refused release away again; what is in use or in the history stays."""
        kept = history.History(self.directory).releases()
        for service in self.services:
            if service.current != service.release and service.release not in kept.get(service.role, set()):
                shutil.rmtree(service.directory / "releases" / service.release, ignore_errors=True)

    def _write_secrets(self, incoming: Path) -> List[str]:
        done = []
        for service in self.services:
            if service.secrets["owner"] is None:
                continue
            make_secrets_directory(service.secrets_directory, service.secrets["owner"])
            for name in self.stale_secrets(service):
                path, source = service.secrets_directory / name, incoming / "secrets" / service.role / name
                if source.is_file():
                    write_atomically(path, source.read_bytes(), 0o400, service.secrets["owner"])
                elif name in service.secrets["keep"]:
                    os.chown(path, service.secrets["owner"], service.secrets["owner"])
                    path.chmod(0o400)
                else:
                    path.unlink()
                done.append(f"secret {service.role}/{name}")
        return done

    def _switch(self, incoming: Path) -> List[str]:
        done = []
        for service in self.services:
            # A restored release is pointed to anew, so that its container counts as not having read it.
            if service.current != service.release or service.restored:
                # Until it was told, nobody knows for sure what the running container has read.
                (service.directory / "loaded.json").unlink(missing_ok=True)
                point_link(service.directory / "current", f"releases/{service.release}")
                done.append(f"{service.role} switched to {service.release}")
        if sha256(self.directory / "compose.yaml") != self.compose_hash:
            write_atomically(self.directory / "compose.yaml", (incoming / "compose.yaml").read_bytes(), 0o644)
            self.composed = True
            done.append("compose.yaml written")
        return done

    def take_down(self) -> List[str]:
        """Remove the node's containers and its network, which Compose then makes anew. Volumes stay. Raises ReleaseError.

        After a release that was killed Docker may still be at work on the very same: an error counts when something is left.
        """
        containers = self._own_containers()
        found = len(containers)
        deadline = time.monotonic() + TAKE_DOWN_WAIT
        while True:
            problems = self._remove(containers)
            containers = self._own_containers() if problems else []
            if not problems or not (containers or self._live_network()):
                return [f"network {self.network['name']} removed, with {found} containers"]
            if time.monotonic() > deadline:
                raise ReleaseError("\n".join(["the node's network cannot be removed; run again to go on from here:", *problems]))
            time.sleep(1)

    def _own_containers(self) -> List[str]:
        """Ids of all containers of the project."""
        label = f"label={docker_network.PROJECT_LABEL}={self.project}"
        return self.run([str(self.docker), "ps", "--all", "--quiet", "--filter", label])[1].split()

    def _remove(self, containers: Sequence[str]) -> List[str]:
        """Stop and remove these containers, then the network; what Docker refused."""
        commands = [["stop", *containers], ["rm", "--force", *containers]] if containers else []
        problems = []
        for command in [*commands, ["network", "rm", self.network["name"]]]:
            code, out, err = self.run([str(self.docker), *command])
            if code != 0:
                problems.append(f"`docker {' '.join(command)}` failed: {(out + err).strip()}")
        return problems

    def _start_newcomers(self) -> List[str]:
        """On a node that routes, services without a container come first: a router that is told to judge by ROAs needs who fetches them."""
        containers = self.containers()
        newcomers = [service for service in self.services if service.container not in containers]
        router = next((containers.get(service.container) for service in self.services if service.role == ROUTER), None)
        if not newcomers or not router or not router["State"]["Running"]:
            return []
        code, _out, _err = self.run([*self._compose(), "up", "--no-deps", *self._up_options(), *[service.name for service in newcomers]])
        if code != 0:
            return []  # an address may still be another container's; the command for all of them finds the order
        self._wait_healthy(newcomers)
        return [f"container {service.container} started" for service in newcomers]

    def _up(self) -> List[str]:
        """Let Compose create, recreate and remove containers, of the services whose definition changed and no others.

        One service after the other, each healthy before the next; the router comes last.
        """
        before = self.containers()
        hashes = self._definition_hashes()
        if not self.composed and self._as_defined(before, hashes):
            return []
        recreated = self._to_recreate(before, hashes)
        done: List[str] = []
        for service in sorted(recreated, key=lambda service: (service.role == ROUTER, service.role)):
            done += self._announce_end(service)
            # An address may still be another container's; then the command for all of them, below, finds the order.
            code, _out, _err = self.run([*self._compose(), "up", "--no-deps", *self._up_options(), service.name])
            if code == 0:
                self._wait_healthy([service])
        code, out, err = self.run([*self._compose(), "up", "--remove-orphans", *self._up_options()])
        if code != 0:
            raise ReleaseError(f"`docker compose up` failed in {self.directory}:\n{(out + err).strip()}")
        after = self.containers()
        for service in recreated:
            if service.before_recreate and after.get(service.container, {}).get("Id") == before[service.container]["Id"]:
                self.run([str(self.docker), "restart", service.container])  # Compose thought otherwise: what was ended comes back
        return done + [f"container {name} started" for name, item in sorted(after.items()) if before.get(name, {}).get("Id") != item["Id"]]

    def _compose(self) -> List[str]:
        return [str(self.docker), "compose", "--ansi", "never", "--project-directory", str(self.directory)]

    @staticmethod
    def _up_options() -> List[str]:
        return ["--detach", "--no-build", "--pull", "never"]

    def _definition_hashes(self) -> Dict[str, str]:
        """{service: hash of its definition}, as Compose writes them on containers; empty when it does not tell."""
        code, out, _err = self.run([*self._compose(), "config", "--hash", "*"])
        fields = [line.split() for line in out.splitlines()] if code == 0 else []
        return {words[0]: words[1] for words in fields if len(words) == 2}

    def _as_defined(self, containers: Dict[str, Dict[str, Any]], hashes: Mapping[str, str]) -> bool:
        """Whether every service runs by its present definition, and no other service of the project is left: then Compose has nothing to do."""
        running = [containers.get(service.container) for service in self.services]
        if not all(container and container["State"]["Running"] for container in running):
            return False
        labels = {service.name: (container["Config"].get("Labels") or {}).get(HASH_LABEL) for service, container in zip(self.services, running) if container}
        return labels == dict(hashes) and not self.orphans()

    def _to_recreate(self, containers: Dict[str, Dict[str, Any]], hashes: Mapping[str, str]) -> List[Service]:
        """Services whose running container Compose is about to replace: their definition has another hash than at their start."""
        found = []
        for service in self.services:
            container = containers.get(service.container)
            if not container or not container["State"]["Running"] or service.name not in hashes:
                continue
            if (container["Config"].get("Labels") or {}).get(HASH_LABEL) != hashes[service.name]:
                found.append(service)
        return found

    def _announce_end(self, service: Service) -> List[str]:
        """Let a container end in its own way before it is replaced; a failure costs no more than the politeness."""
        done = []
        for command in service.before_recreate:
            code, out, err = self.run([str(self.docker), "exec", service.container, *command])
            problem = "" if code == 0 else f" failed: {(out + err).strip()}"
            done.append(f"{service.role}: `{' '.join(command)}` before it is replaced{problem}")
        return done

    def _running_on(self) -> List[Service]:
        """Services whose container runs the declared image already, and that Compose probably leaves alone."""
        containers = self.containers()
        found = []
        for service in self.services:
            container = containers.get(service.container)
            if container and container["State"]["Running"] and container["Config"]["Image"] == service.image:
                found.append(service)
        return found

    def _reload(self, services: List[Service]) -> List[str]:
        """Tell running services to read their new configuration; nothing is restarted."""
        done = []
        containers = self.containers()
        for service in services:
            container = containers.get(service.container)
            if self.is_loaded(service, container):
                continue
            if not container or not container["State"]["Running"]:
                raise ReleaseError(f"container {service.container} does not run; `docker logs {service.container}` says why")
            for command in service.reload:
                self._tell(service, command)
            record = {"release": service.release, "started": container["State"]["StartedAt"]}
            write_atomically(service.directory / "loaded.json", json.dumps(record, sort_keys=True).encode(), 0o644)
            done.append(f"{service.role} reloaded")
        return done

    def _tell(self, service: Service, command: List[str]) -> None:
        """Run a command in a running container. One that has just started may need a while before it can be talked to."""
        deadline = time.monotonic() + self.wait
        while True:
            code, out, err = self.run([str(self.docker), "exec", service.container, *command])
            if code == 0:
                return
            state = self.containers().get(service.container, {}).get("State", {})
            starting = state.get("Running") and (state.get("Health") or {}).get("Status") == "starting"
            if not starting or time.monotonic() > deadline:
                raise ReleaseError(f"{service.role}: `{' '.join(command)}` failed in the running container:\n{(out + err).strip()}")
            time.sleep(1)

    def _wait_healthy(self, services: List[Service]) -> None:
        """Wait until the containers of these services run and are healthy, at most `wait` seconds."""
        deadline = time.monotonic() + self.wait
        while True:
            waiting = self._unhealthy(services)
            if not waiting:
                return
            if time.monotonic() > deadline:
                raise ReleaseError(f"after {self.wait} s the node is not healthy:\n" + "\n".join(waiting))
            time.sleep(1)

    def _unhealthy(self, services: List[Service]) -> List[str]:
        containers = self.containers()
        problems = []
        for service in services:
            state = containers.get(service.container, {}).get("State", {})
            health = state.get("Health") or {}
            if not state.get("Running"):
                problems.append(f"{service.container} is not running; `docker logs {service.container}` says why")
            elif health.get("Status", "healthy") != "healthy":
                problems.append(f"{service.container} is {health['Status']}: {health_output(containers[service.container])}")
            else:
                problems += self._address_problems(service, containers[service.container])
        return problems

    def _address_problems(self, service: Service, container: Dict[str, Any]) -> List[str]:
        """Addresses that Docker did not give: an IPv6 one is left out silently where the network has no IPv6."""
        network = container["NetworkSettings"]["Networks"].get(self.network["name"]) or {}
        given = {"ipv4": network.get("IPAddress"), "ipv6": network.get("GlobalIPv6Address")}
        return [
            f"{service.container} has the address {given[family] or 'none'} instead of {address}"
            for family, address in sorted(service.addresses.items())
            if given[family] != address
        ]

    def drop_services(self) -> None:
        """Take the links of services away that are not declared any more: they are no part of the release."""
        declared = {service.role for service in self.services}
        for role in (self.directory / "services").iterdir():
            if role.name not in declared:
                (role / "current").unlink(missing_ok=True)
                (role / "loaded.json").unlink(missing_ok=True)

    def prune(self) -> None:
        """Keep what the history refers to and what is in use; nothing else of ours. Keys and volumes are never removed."""
        past = history.History(self.directory)
        kept = past.releases()
        for service in self.services:
            kept.setdefault(service.role, set()).add(service.release)
        for role in (self.directory / "services").iterdir():
            if role.name not in kept:
                shutil.rmtree(role, ignore_errors=True)
                continue
            for path in (role / "releases").glob("*"):
                if path.name not in kept[role.name]:
                    shutil.rmtree(path, ignore_errors=True)
        self._prune_images(past.images() | {service.image for service in self.services})
        self._prune_networks()

    def _prune_images(self, kept: Set[str]) -> None:
        """Remove tags that service_images made and no release refers to: of the same repositories, and named by a hash."""
        repositories = {tag.partition(":")[0] for tag in kept if _IMAGE.match(tag)}
        _code, out, _err = self.run([str(self.docker), "image", "ls", "--format", "{{.Repository}}:{{.Tag}}"])
        unused = [tag for tag in out.split() if _IMAGE.match(tag) and tag.partition(":")[0] in repositories and tag not in kept]
        if unused:
            self.run([str(self.docker), "image", "rm", *sorted(unused)])

    def _prune_networks(self) -> None:
        """Remove the project's networks that compose.yaml has no more; Compose leaves them. One that is in use stays."""
        declared = self.declared.get("networks")
        if not declared:
            return
        label = f"label={docker_network.PROJECT_LABEL}={self.project}"
        _code, out, _err = self.run([str(self.docker), "network", "ls", "--filter", label, "--format", "{{.Name}}"])
        for name in sorted(set(out.split()) - set(declared)):
            self.run([str(self.docker), "network", "rm", name])

    # What a release may not do unasked

    def removed_tunnels(self) -> List[str]:
        """Tunnels that the node has and the declared release has not."""
        return sorted(set(self._present_tunnels()) - set(self.declared.get("tunnels") or []))

    def _present_tunnels(self) -> List[str]:
        try:
            content = json.loads((self.directory / "services" / ROUTER / "current" / "tunnels.json").read_text())
            return [tunnel["name"] for tunnel in content["tunnels"]]
        except (OSError, ValueError, KeyError, TypeError):
            return []

    def refuse_removal(self) -> None:
        """Raise ReleaseError where the release would remove more of the node's tunnels than may go without permission."""
        removal = self.declared.get("removal") or {"allowed": True}
        gone, present = self.removed_tunnels(), self._present_tunnels()
        if removal["allowed"] or len(gone) < FEW_TUNNELS or len(gone) * 100 <= len(present) * removal["limit"]:
            return
        raise ReleaseError(
            f"This release would remove {len(gone)} of the node's {len(present)} tunnels, more than {removal['limit']} %: {', '.join(gone)}. Nothing was changed"
            " on this node. If that is meant, run again with -e dn42_stack_allow_removal=true; else look for a mistake in the peers' data."
        )


def unpack(archive: Path, target: Path) -> None:
    """Unpack what the controller sent into an empty directory that is root's alone: it may hold secrets. Raises ReleaseError."""
    with tarfile.open(archive) as tar:
        for member in tar.getmembers():
            if not member.isfile() or member.name.startswith("/") or ".." in Path(member.name).parts:
                raise ReleaseError(f"the archive holds an entry that does not belong there: {member.name}")
        # Python 3.12 and newer (and 3.9 to 3.11 with their security fixes) want to be told how far to trust an archive.
        trust = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        tar.extractall(target, **trust)


def make_secrets_directory(path: Path, owner: int) -> None:
    """A directory that only the service's user can enter; the one above can be passed but not listed."""
    path.mkdir(parents=True, exist_ok=True)
    path.parent.chmod(0o711)
    os.chown(path, owner, owner)
    path.chmod(0o700)
