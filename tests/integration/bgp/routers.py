# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Routers of the policy laboratory: a network namespace with a real BIRD in it, joined by veth pairs.

Every process dies with the test run, whatever ends it, and takes its namespace along: nothing has to be cleaned up.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import birds
from network_probe import Age

# Ends a process together with the one that started it.
MORTAL = ("setpriv", "--pdeathsig", "KILL")
# Sessions are up a few seconds after the slower side has noticed the other: connect delay 2 s, retry 10 s at most.
SESSION_WAIT = 40.0
# A route is there as soon as it was told; this only bounds the wait for what never comes.
ROUTE_WAIT = 20.0
PAUSE = 0.1
ECHO = Path(__file__).with_name("echo.py")

_link_numbers = itertools.count()


def wait_for(what: str, condition: Callable[[], object], timeout: float = ROUTE_WAIT, told: Callable[[], str] = lambda: "") -> None:
    """Wait until a condition holds; fails with `what` and what `told` says at the end."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout:g} s for: {what}\n{told()}")
        time.sleep(PAUSE)


@dataclass
class Route:
    """One path to a prefix as BIRD has it."""

    prefix: str
    protocol: str
    primary: bool
    attributes: dict[str, str] = field(default_factory=dict)

    @property
    def as_path(self) -> list[int]:
        """The AS path, ours excluded as BIRD keeps it."""
        return [int(number) for number in self.attributes.get("BGP.as_path", "").split()]

    @property
    def communities(self) -> set[tuple[int, int]]:
        """Plain communities."""
        return {(int(left), int(right)) for left, right in re.findall(r"\((\d+),(\d+)\)", self.attributes.get("BGP.community", ""))}

    @property
    def large_communities(self) -> set[tuple[int, int, int]]:
        """Large communities."""
        found = re.findall(r"\((\d+), (\d+), (\d+)\)", self.attributes.get("BGP.large_community", ""))
        return {(int(one), int(two), int(three)) for one, two, three in found}


class Router:
    """A namespace of its own, and the BIRD in it."""

    def __init__(self, name: str, version: str = birds.DEFAULT) -> None:
        self.name = name
        self.root = birds.root(version)
        run = self.root / "run"
        roa = self.root / "roa"
        script = f"mkdir -p {roa} && mount -t tmpfs none {run} && mount -t tmpfs none {roa} && mkdir {run}/bird {run}/bird-readonly && echo ready && exec sleep infinity"
        command = [*MORTAL, "unshare", "--net", "--mount", "--propagation", "private", "sh", "-c", script]
        self._holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        if self._holder.stdout.readline().strip() != "ready":
            raise RuntimeError(f"no namespace for {name}: is this run by root?")
        self._bird: subprocess.Popen | None = None
        self.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1", "net.ipv6.conf.all.accept_dad=0", "net.ipv6.conf.default.accept_dad=0")
        self.run("ip", "link", "set", "lo", "up")

    @property
    def files(self) -> Path:
        """The router's /run, seen from outside."""
        return Path(f"/proc/{self._holder.pid}/root{self.root}/run")

    def run(self, *command: str, check: bool = True, timeout: float = 30) -> subprocess.CompletedProcess:
        """Run one of the machine's commands in the network namespace."""
        done = subprocess.run(["nsenter", f"--net=/proc/{self._holder.pid}/ns/net", *command], check=False, capture_output=True, text=True, timeout=timeout)
        if check and done.returncode != 0:
            raise AssertionError(f"{self.name}: {' '.join(command)}: {done.stdout}{done.stderr}")
        return done

    def reaches(self, source: str, destination: str) -> bool:
        """Tell whether an address answers to one of ours."""
        return self.run(sys.executable, str(ECHO), source, destination, check=False).returncode == 0

    def in_network(self, *command: str) -> tuple[str, ...]:
        """The command that runs one of the machine's programs in the network namespace, and ends with the test run."""
        return (*MORTAL, "nsenter", f"--net=/proc/{self._holder.pid}/ns/net", *command)

    def command(self, root: Path, *command: str) -> list[str]:
        """The command line of a program of another root file system, in the network namespace."""
        return ["nsenter", f"--net=/proc/{self._holder.pid}/ns/net", "chroot", str(root), *command]

    @contextlib.contextmanager
    def running(self, *command: str) -> Iterator[None]:
        """Have one of the machine's programs in the network namespace, which says so when it is ready."""
        with subprocess.Popen(self.in_network(*command), stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout.readline().strip() == "ready", command
                yield
            finally:
                process.kill()

    def inside(self, *command: str) -> list[str]:
        """The command that runs one of the programs beside BIRD, in its namespaces and its root."""
        holder = self._holder.pid
        return ["nsenter", f"--net=/proc/{holder}/ns/net", f"--mount=/proc/{holder}/ns/mnt", "chroot", str(self.root), *command]

    def write(self, configuration: Mapping[str, str]) -> None:
        """Write files below /run."""
        for name, text in configuration.items():
            (self.files / name).write_text(text, encoding="utf-8")

    @property
    def included(self) -> Path:
        """The router's /roa, where the keeper puts what BIRD includes, seen from outside."""
        return self.files.parent / "roa"

    def write_roa(self, name: str, *statements: str) -> None:
        """Write a file of ROAs, as the service rpki does."""
        (self.included / name).write_text("".join(f"{statement}\n" for statement in statements), encoding="utf-8")

    def parse(self, configuration: Mapping[str, str]) -> str:
        """What `bird -p` says about a configuration; empty when it is accepted without a warning."""
        self.write(configuration)
        done = subprocess.run(self.inside("/usr/sbin/bird", "-p", "-c", "/run/bird.conf"), check=False, capture_output=True, text=True, timeout=30)
        return "" if done.returncode == 0 and not done.stderr else f"exit {done.returncode}: {done.stderr}{done.stdout}"

    def start(self, configuration: Mapping[str, str]) -> None:
        """Start BIRD the way the role does, or give the running one a new configuration."""
        self.write(configuration)
        if self._bird is None:
            log = open(self.files / "bird.log", "ab")  # noqa: SIM115 - BIRD's for as long as it runs
            command = [*MORTAL, *self.inside("/usr/sbin/bird", "-f", "-R", "-c", "/run/bird.conf", "-s", "/run/bird/bird.ctl")]
            self._bird = subprocess.Popen(command, stdout=log, stderr=log)
            wait_for(f"BIRD of {self.name}", self._answers, told=self.log)
        else:
            answer = self.birdc("configure")
            assert "Reconfigured" in answer or "Reconfiguration in progress" in answer, answer

    def kill(self) -> None:
        """End BIRD at once, as a crash would."""
        self._bird.kill()
        self._bird.wait()
        self._bird = None
        (self.files / "bird" / "bird.ctl").unlink(missing_ok=True)

    def log(self) -> str:
        """What BIRD has said so far."""
        return (self.files / "bird.log").read_text(encoding="utf-8", errors="replace")

    def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            return "BIRD" in self.birdc("show status")
        assert self._bird.poll() is None, f"BIRD of {self.name} ended: {self.log()}"
        return False

    def birdc(self, command: str, timeout: float = 30) -> str:
        """BIRD's answer without its codes."""
        handle = os.open(self.files / "bird", os.O_PATH)
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(timeout)
                connection.connect(f"/proc/self/fd/{handle}/bird.ctl")
                replies = _replies(connection)
                next(replies)  # the greeting
                connection.sendall(command.encode() + b"\n")
                return next(replies)
        finally:
            os.close(handle)

    def session(self, protocol: str) -> str:
        """State of a protocol: `Established`, `start Active …`, or empty when there is none."""
        for line in self.birdc("show protocols").splitlines():
            words = line.split()
            if words and words[0] == protocol:
                return " ".join(words[5:]) if words[3] == "up" else " ".join([words[3], *words[5:]])
        return ""

    def since(self, protocol: str) -> Age:
        """When a protocol got into its state."""
        words = next(line.split() for line in self.birdc("show protocols").splitlines() if line.split()[:1] == [protocol])
        return Age(words[3], words[4])

    def wait_established(self, *protocols: str) -> None:
        """Wait for sessions."""
        for protocol in protocols:
            wait_for(f"session {protocol} of {self.name}", lambda name=protocol: self.session(name).startswith("Established"), SESSION_WAIT, lambda: self.birdc("show protocols"))

    def routes(self, where: str = "") -> dict[str, list[Route]]:
        """All routes, or those that `show route <where>` selects, by prefix."""
        return parse_routes(self.birdc(f"show route {where} all" if where else "show route all"))

    def exported(self, protocol: str) -> dict[str, list[Route]]:
        """What a session is told."""
        return self.routes(f"export {protocol}")

    def received(self, protocol: str) -> int:
        """How many routes a session was told since it is up, whatever became of them."""
        return sum(int(number) for number in re.findall(r"Import (?:updates|withdraws): +(\d+)", self.birdc(f"show protocols all {protocol}")))

    def end(self) -> None:
        """End everything that runs in the namespace."""
        for process in (self._bird, self._holder):
            if process is not None:
                process.kill()
                process.wait()
        if self._holder.stdout:
            self._holder.stdout.close()


def _replies(connection: socket.socket) -> Iterator[str]:
    """BIRD's replies: lines with a code and `-` go on, one with a blank ends the reply; ` ` and `+` continue a line."""
    rest, lines = b"", []
    while True:
        received = connection.recv(1 << 16)
        if not received:
            return
        *complete, rest = (rest + received).split(b"\n")
        for raw in complete:
            line = raw.decode(errors="replace")
            code = re.match(r"(\d{4})([ -])", line)
            lines.append(line[5:] if code else line[1:])
            if code and code[2] == " ":
                yield "\n".join(lines)
                lines = []


def parse_routes(text: str) -> dict[str, list[Route]]:
    """Read the answer to `show route … all`."""
    found: dict[str, list[Route]] = {}
    prefix, route = "", None
    for line in text.splitlines():
        head = re.match(r"(\S+/\d+)?\s+(?:unicast|unreachable|blackhole|prohibit) \[(\S+) [^\]]*\](.*)", line)
        if head:
            prefix = head[1] or prefix
            route = Route(prefix, head[2], "*" in head[3])
            found.setdefault(prefix, []).append(route)
            continue
        attribute = re.match(r"\s+(?:([A-Za-z_.]+): (.*)|via (\S+) on (\S+).*)", line)
        if attribute and route is not None:
            if attribute[3]:
                route.attributes.update(via=attribute[3], interface=attribute[4])
            else:
                # BIRD 3 calls them as filters do.
                name = {"bgp_path": "BGP.as_path", "Type": "type"}.get(attribute[1], attribute[1].replace("bgp_", "BGP."))
                route.attributes[name] = attribute[2]
    return found


def connect(left: Router, left_interface: str, right: Router, right_interface: str, mtu: int = 1420) -> None:
    """Join two routers by a link, as a tunnel would."""
    number = next(_link_numbers)
    ends = (f"dn42a{os.getpid()}x{number}"[:15], f"dn42b{os.getpid()}x{number}"[:15])
    subprocess.run(["ip", "link", "add", ends[0], "mtu", str(mtu), "type", "veth", "peer", "name", ends[1], "mtu", str(mtu)], check=True)
    for end, router, interface in ((ends[0], left, left_interface), (ends[1], right, right_interface)):
        subprocess.run(["ip", "link", "set", end, "netns", str(router._holder.pid), "name", interface, "up"], check=True)


def stub(router: Router, interface: str, *addresses: str) -> None:
    """An interface that leads nowhere, up, with addresses."""
    router.run("ip", "link", "add", interface, "type", "veth", "peer", "name", f"{interface}-end")
    for end in (interface, f"{interface}-end"):
        router.run("ip", "link", "set", end, "up")
    address(router, interface, *addresses)


def address(router: Router, interface: str, *addresses: str) -> None:
    """Give an interface addresses."""
    for text in addresses:
        router.run("ip", "address", "add", *text.split(), "dev", interface, *(["nodad"] if ":" in text else []))
