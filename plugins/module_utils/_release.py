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

Every step leaves the node able to run, and is found out by comparing with reality: a run that was killed anywhere
is completed by the next one. Runs on nodes: Python 3.9, standard library only.

This module util is PRIVATE to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import hashlib
import json
import os
import shutil
import stat
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

from ansible_collections.dn42.compose.plugins.module_utils import _release_network as docker_network

COMPOSE_HASH_LABEL = "com.docker.compose.config-hash"  # what Compose itself compares
KEPT_RELEASES = 3
LOCK_WAIT = 60.0  # seconds; another controller's release takes about this long at most
TEXT_LIMIT = 1 << 20  # bytes; a larger file is not shown in a diff

# Runs a command, answers (exit status, output, error output).
Runner = Callable[[Sequence[str]], Tuple[int, str, str]]


class ReleaseError(Exception):
    """A release that was refused or could not be completed; the text is for the operator."""


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
        self.before_recreate: List[List[str]] = declared["before_recreate"]
        self.recreate_failed: List[List[str]] = declared["recreate_failed"]
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


def file_hashes(root: Path) -> Dict[str, str]:
    """{path below root: sha256} of all files below a directory, {} where there is none."""
    return {str(path.relative_to(root)): sha256(path) for path in root.rglob("*") if path.is_file()}


def sha256(path: Path) -> Optional[str]:
    """Hash of a file's content, None where there is no file."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None


def read_text(path: Path) -> str:
    """A file's text for a diff; empty where there is none, a remark where it is not text."""
    try:
        content = path.read_bytes()
        return content.decode() if len(content) <= TEXT_LIMIT else f"(file of {len(content)} bytes)\n"
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError):
        return "(not readable as text)\n"


def write_atomically(path: Path, content: bytes, mode: int, owner: Optional[int] = None) -> None:
    """Write beside, flush to disk, rename: readers see the old file or the new one, also after a power cut."""
    handle, temporary = tempfile.mkstemp(prefix=".new-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as target:
            os.fchmod(target.fileno(), mode)
            if owner is not None:
                os.fchown(target.fileno(), owner, owner)
            target.write(content)
            target.flush()
            os.fsync(target.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def point_link(link: Path, target: str) -> None:
    """Make `link` point to `target` in one step."""
    temporary = link.with_name(f".{link.name}.new")
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    temporary.symlink_to(target)
    os.replace(temporary, link)


def container_time(text: str) -> float:
    """Docker's RFC 3339 time with nanoseconds as seconds since the epoch."""
    whole, _dot, fraction = text.rstrip("Z").partition(".")
    moment = datetime.datetime.strptime(whole, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=datetime.timezone.utc)
    return moment.timestamp() + float(f"0.{fraction or 0}")


class Node:
    """This node: its directory, its Docker, and the release it should have."""

    def __init__(self, declared: Dict[str, Any], run: Runner, docker: Optional[str]) -> None:
        self.directory = Path(declared["directory"])
        self.project: str = declared["project"]
        self.compose_hash: str = declared["compose_sha256"]
        self.network: Dict[str, Any] = declared["network"]
        self.renumber: bool = declared["renumber"]
        self.wait: int = declared["wait"]
        self.services = [Service(role, service, self.directory) for role, service in sorted(declared["services"].items())]
        self.run = run
        self.docker = docker

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
        containers = self.containers()
        outdated: List[str] = []
        if sha256(self.directory / "compose.yaml") != self.compose_hash:
            found.append({"what": "compose.yaml", "file": "compose.yaml", "before": read_text(self.directory / "compose.yaml")})
        else:
            outdated = [service.role for service in self._outdated(containers)]
        for service in self.services:
            found += self._service_changes(service, containers.get(service.container), service.role in outdated)
        found += [{"what": f"service {name} leaves"} for name in self.orphans()]
        return found

    def _outdated(self, containers: Dict[str, Dict[str, Any]]) -> List[Service]:
        """Services whose container runs but was made from another definition than compose.yaml has: Compose makes it anew."""
        running = [service for service in self.services if containers.get(service.container, {}).get("State", {}).get("Running")]
        if not running:
            return []
        _code, out, _err = self.run([str(self.docker), "compose", "--project-directory", str(self.directory), "config", "--hash", "*"])
        hashes = dict(line.split() for line in out.splitlines() if len(line.split()) == 2)
        # Without an answer nothing is known, and nothing is said.
        return [service for service in running if hashes.get(service.name) not in (None, containers[service.container]["Config"]["Labels"].get(COMPOSE_HASH_LABEL))]

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
        elif not differing and service.current != service.release:
            yield {"what": f"{service.role}: current is not the declared release"}
        elif not differing and not self.is_loaded(service, container):
            yield {"what": f"{service.role} has not loaded its configuration yet"}

    # How to get there

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One release at a time on a node; the kernel frees the lock of a run that died."""
        self.directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        with open(self.directory / ".lock", "w", encoding="utf-8") as lock:
            deadline = time.monotonic() + LOCK_WAIT
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise ReleaseError(f"another run is releasing to this node ({self.directory}/.lock has been held for {LOCK_WAIT:.0f} s)") from None
                    time.sleep(0.2)
            yield

    def apply(self, archive: str) -> List[str]:
        """Bring the node to the declared release; answers what was done. Raises ReleaseError."""
        with self.locked():
            done: List[str] = []
            anew = self.network_change()
            with self._unpacked(archive) as incoming:
                self._store(incoming)
                try:
                    self._check(incoming)
                except ReleaseError:
                    self._discard()
                    raise
                if anew:
                    # Before anything is switched: what runs always has the files that it was started with.
                    done += self._take_down()
                done += self._write_secrets(incoming)
                done += self._switch(incoming)
            # What runs on is told first: a peer that leaves loses its session before Compose takes its time.
            done += self._reload(self._running_on())
            done += self._up()
            done += self._reload(self.services)
            self._wait_healthy()
            self._prune()
            return done

    @contextlib.contextmanager
    def _unpacked(self, archive: str) -> Iterator[Path]:
        for leftover in self.directory.glob(".incoming-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        incoming = Path(tempfile.mkdtemp(prefix=".incoming-", dir=self.directory))  # 0700: it may hold secrets
        try:
            with tarfile.open(archive) as tar:
                for member in tar.getmembers():
                    if not member.isfile() or member.name.startswith("/") or ".." in Path(member.name).parts:
                        raise ReleaseError(f"the archive holds an entry that does not belong there: {member.name}")
                # Python 3.12 and newer (and 3.9 to 3.11 with their security fixes) want to be told how far to trust an archive.
                trust = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
                tar.extractall(incoming, **trust)
            yield incoming
        finally:
            shutil.rmtree(incoming, ignore_errors=True)

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
        candidate = incoming / "compose.yaml"
        command = [str(self.docker), "compose", "--project-directory", str(self.directory), "--file", str(candidate), "config", "--quiet"]
        code, out, err = self.run(command)
        if code != 0:
            raise ReleaseError(f"compose.yaml was refused by `docker compose config`; the node goes on as before:\n{(out + err).strip()}")

    def _discard(self) -> None:
        """Take a refused release away again; nothing has pointed to it."""
        for service in self.services:
            if service.current != service.release:
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
                point_link(service.directory / "current", f"releases/{service.release}")
                done.append(f"{service.role} switched to {service.release}")
        if sha256(self.directory / "compose.yaml") != self.compose_hash:
            write_atomically(self.directory / "compose.yaml", (incoming / "compose.yaml").read_bytes(), 0o644)
            done.append("compose.yaml written")
        return done

    def _take_down(self) -> List[str]:
        """Remove the node's containers and its network, which Compose then makes anew. Volumes stay."""
        label = f"label={docker_network.PROJECT_LABEL}={self.project}"
        _code, out, _err = self.run([str(self.docker), "ps", "--all", "--quiet", "--filter", label])
        containers = out.split()
        commands = [["stop", *containers], ["rm", "--force", *containers]] if containers else []
        for command in [*commands, ["network", "rm", self.network["name"]]]:
            code, out, err = self.run([str(self.docker), *command])
            if code != 0:
                raise ReleaseError(f"`docker {' '.join(command)}` failed; run again to go on from here:\n{(out + err).strip()}")
        return [f"network {self.network['name']} removed, with {len(containers)} containers"]

    def _up(self) -> List[str]:
        """Let Compose create, recreate and remove containers, of the services whose definition changed and no others."""
        containers = self.containers()
        before = {name: item["Id"] for name, item in containers.items()}
        outdated = self._outdated(containers)
        self._exec_all(outdated, "before_recreate")
        command = [str(self.docker), "compose", "--ansi", "never", "--project-directory", str(self.directory)]
        command += ["up", "--detach", "--no-build", "--pull", "never", "--remove-orphans"]
        code, out, err = self.run(command)
        if code != 0:
            self._exec_all(outdated, "recreate_failed")
            raise ReleaseError(f"`docker compose up` failed in {self.directory}:\n{(out + err).strip()}")
        return [f"container {name} started" for name, item in sorted(self.containers().items()) if before.get(name) != item["Id"]]

    def _exec_all(self, services: List[Service], step: str) -> None:
        """Run a service's commands of a step in its container. That they fail stops nothing: the container's end is near anyway."""
        for service in services:
            for command in getattr(service, step):
                self.run([str(self.docker), "exec", service.container, *command])

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
                code, out, err = self.run([str(self.docker), "exec", service.container, *command])
                if code != 0:
                    raise ReleaseError(f"{service.role}: `{' '.join(command)}` failed in the running container:\n{(out + err).strip()}")
            record = {"release": service.release, "started": container["State"]["StartedAt"]}
            write_atomically(service.directory / "loaded.json", json.dumps(record, sort_keys=True).encode(), 0o644)
            done.append(f"{service.role} reloaded")
        return done

    def _wait_healthy(self) -> None:
        """Wait until every container runs and is healthy, at most `wait` seconds."""
        deadline = time.monotonic() + self.wait
        while True:
            waiting = self._unhealthy()
            if not waiting:
                return
            if time.monotonic() > deadline:
                raise ReleaseError(f"after {self.wait} s the node is not healthy:\n" + "\n".join(waiting))
            time.sleep(1)

    def _unhealthy(self) -> List[str]:
        containers = self.containers()
        problems = []
        for service in self.services:
            state = containers.get(service.container, {}).get("State", {})
            health = state.get("Health", {})
            if not state.get("Running"):
                problems.append(f"{service.container} is not running; `docker logs {service.container}` says why")
            elif health.get("Status", "healthy") != "healthy":
                log = health.get("Log") or [{}]
                problems.append(f"{service.container} is {health['Status']}: {log[-1].get('Output', '').strip()}")
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

    def _prune(self) -> None:
        """Keep the last releases of each service, and no service directory that nobody declares. Keys are never removed."""
        for service in self.services:
            releases = sorted((service.directory / "releases").iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
            others = [path for path in releases if path.name != service.release]
            for path in others[KEPT_RELEASES - 1 :]:
                shutil.rmtree(path, ignore_errors=True)
        declared = {service.role for service in self.services}
        for path in (self.directory / "services").iterdir():
            if path.name not in declared:
                shutil.rmtree(path, ignore_errors=True)


def make_secrets_directory(path: Path, owner: int) -> None:
    """A directory that only the service's user can enter; the one above can be passed but not listed."""
    path.mkdir(parents=True, exist_ok=True)
    path.parent.chmod(0o711)
    os.chown(path, owner, owner)
    path.chmod(0o700)
