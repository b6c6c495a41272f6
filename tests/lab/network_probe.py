# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask the lab's real hosts what they do. Used by the demo and by the integration tests, standard library only."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

LAB_PROGRAM = Path(__file__).resolve().parent / "lab"
Answer = TypeVar("Answer")


class Session(NamedTuple):
    """One BGP session as BIRD shows it."""

    protocol: str
    state: str
    since: str
    info: str


class Age:
    """A session's state and since when, equal for one that nothing has touched.

    BIRD reckons the time of day anew for each answer, so that one and the same moment may differ by a millisecond.
    """

    def __init__(self, state: str, since: str) -> None:
        self.state = state
        hours, minutes, seconds = since.rpartition(" ")[2].split(":")
        self.since = int(hours) * 3600 + int(minutes) * 60 + float(seconds)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Age) and self.state == other.state and abs(self.since - other.since) < 0.1

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Age({self.state}, {self.since:.3f})"


class Lab:
    """A running lab, by name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def run(self, host: str, *argv: str, check: bool = True, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a command in a host of the lab."""
        command = [str(LAB_PROGRAM), "exec", "--name", self.name, host, *argv]
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
        if check and done.returncode != 0:
            raise AssertionError(f"{host}: {' '.join(argv)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done

    def lab(self, *argv: str, timeout: float = 300) -> str:
        """Run a command of the lab program itself, such as `reboot fra1`."""
        command = [str(LAB_PROGRAM), argv[0], "--name", self.name, *argv[1:]]
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
        if done.returncode != 0:
            raise AssertionError(f"lab {' '.join(argv)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout

    def birdc(self, node: str, *words: str) -> str:
        """Ask BIRD on one of our nodes, or on peer1."""
        if node == "peer1":
            return self.run(node, "birdc", *words).stdout
        return self.run(node, "docker", "exec", "dn42-router", "birdc", *words).stdout

    def sessions(self, node: str) -> dict[str, Session]:
        """BGP sessions of a node by protocol name."""
        found = {}
        for line in self.birdc(node, "show", "protocols").splitlines():
            words = line.split(None, 5)
            if len(words) >= 4 and words[1] == "BGP":
                match = re.match(r"(\S+)\s+BGP\s+\S+\s+(\S+)\s+(\S+(?: \d\d:\d\d:\S+)?)\s*(.*)", line)
                if match:
                    found[match[1]] = Session(*(text.strip() for text in match.groups()))
        return found

    def established(self, node: str) -> list[str]:
        """Names of the sessions of a node that are established."""
        return sorted(name for name, session in self.sessions(node).items() if session.info.startswith("Established"))

    def ages(self, node: str) -> dict[str, Age]:
        """How long each session of a node is as it is."""
        return {name: Age(session.state, session.since) for name, session in self.sessions(node).items()}

    def prefixes(self, node: str, *words: str) -> set[str]:
        """Prefixes that `show route <words>` lists on a node."""
        return set(re.findall(r"^(\d+\.\S+/\d+|[0-9a-f:]+/\d+)\s", self.birdc(node, "show", "route", *words), re.MULTILINE))

    def ping(self, node: str, container: str, address: str, count: int = 3) -> bool:
        """Whether a container of ours gets an answer from an address within a few packets."""
        argv = ["docker", "exec", container, "ping", "-n", "-c", str(count), "-i", "0.3", "-W", "2", address]
        return self.run(node, *argv, check=False).returncode == 0

    def router_pid(self, node: str) -> str:
        """Process id of the router container's PID 1 as its host sees it."""
        return self.run(node, "docker", "inspect", "--format", "{{.State.Pid}}", "dn42-router").stdout.strip()

    def in_router(self, node: str, *argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a program of the host in the network namespace of the node's router."""
        return self.run(node, "nsenter", f"--net=/proc/{self.router_pid(node)}/ns/net", *argv, check=check)

    def interfaces(self, node: str) -> dict[str, int]:
        """{name: index} of the interfaces of a node's router. An interface that is made anew gets another index."""
        return {link["ifname"]: link["ifindex"] for link in json.loads(self.in_router(node, "ip", "-json", "link").stdout)}

    def container_starts(self, node: str) -> dict[str, str]:
        """{container: when it was started} of a node's containers of ours."""
        names = self.run(node, "docker", "ps", "--all", "--filter", "label=com.docker.compose.project=dn42", "--format", "{{.Names}}").stdout.split()
        shown = json.loads(self.run(node, "docker", "inspect", *sorted(names)).stdout) if names else []
        return {item["Name"].lstrip("/"): item["State"]["StartedAt"] for item in shown}

    def addresses(self, node: str, container: str) -> tuple[str, str]:
        """A container's IPv4 and IPv6 address in the dn42 network."""
        shown = json.loads(self.run(node, "docker", "inspect", container).stdout)[0]
        network = shown["NetworkSettings"]["Networks"]["dn42"]
        return network["IPAddress"], network["GlobalIPv6Address"]

    def public_key(self, node: str) -> str:
        """The WireGuard public key that a node tells its peers."""
        return self.run(node, "docker", "exec", "dn42-router", "wg", "show", "all", "public-key").stdout.split()[1]

    def introduce_all(self, nodes: list[str]) -> None:
        """Let peer1's operator paste the public keys of our nodes into his configuration."""
        for node in nodes:
            self.lab("introduce", node, self.public_key(node))

    def resolve(self, server: str, name: str, kind: str) -> str:
        """Ask a resolver of ours from peer1's side of the tunnels."""
        return self.run("peer1", "dig", "+short", "+time=2", "+tries=2", f"@{server}", name, kind, check=False).stdout.strip()


def wait_for(what: str, probe: Callable[[], Answer], seconds: float, interval: float = 1.0) -> Answer:
    """Repeat `probe` until it answers with something true, for at most `seconds`; an error counts as not yet."""
    deadline = time.monotonic() + seconds
    last: object = None
    while True:
        try:
            answer = probe()
            if answer:
                return answer
            last = answer
        except (AssertionError, subprocess.TimeoutExpired) as error:
            last = error
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds:.0f} s; last answer: {last}")
        time.sleep(interval)
