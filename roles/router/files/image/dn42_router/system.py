# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything that touches the system: commands, supervised programs, files of the keeper."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from .keys import KeyFileError, public_key, read_key
from .model import Tunnel
from .observe import (
    DefaultRoute,
    Observed,
    Service,
    WireGuard,
    parse_default_routes,
    parse_links,
    parse_wireguard,
)
from .plan import PRIVATE_KEY, Action, Secrets, Verb

IN_HOST = ("nsenter", "--net=/run/host-netns")
# By way of the keeper itself: the namespace of PID 1 is not for other users to look at.
ROUTER_NAMESPACE = f"/proc/{os.getpid()}/ns/net"
TUNNELS = Path("/run/tunnels")
USERSPACE_SERVICE = Path("/usr/local/lib/dn42-router/wireguard-go")
NFTABLES_TABLE = ("inet", "dn42_router")
COMMAND_SECONDS = 5
NO_KERNEL_MODULE = re.compile(r"unknown device type|not supported", re.IGNORECASE)
KEY_TEXT = re.compile(r"[A-Za-z0-9+/]{42,}={0,2}")


class CommandError(Exception):
    """A command failed; the message is what it said, with anything like a key blanked."""


def run(argv: Sequence[str], timeout: float = COMMAND_SECONDS) -> str:
    """Run a command and return its output; CommandError on failure or after `timeout` seconds."""
    try:
        result = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired as error:
        raise CommandError(f"{' '.join(argv[:4])}: no end after {timeout} s") from error
    except OSError as error:
        raise CommandError(f"{argv[0]}: {error.strerror}") from error
    if result.returncode != 0:
        # birdc tells what BIRD refuses on standard output.
        said = " ".join((result.stderr.strip() or result.stdout).split()) or f"exit code {result.returncode}"
        raise CommandError(f"{argv[0]}: {KEY_TEXT.sub('(key)', said)}")
    return result.stdout


class System:
    """The router's namespace, the host's, and the supervisor of wireguard-go."""

    def __init__(self) -> None:
        """Start with nothing known."""
        self._public: tuple[tuple[int, int, int], str] | None = None

    def observe(self, declared: Iterable[str]) -> Observed:
        """Look at everything; CommandError when the namespace cannot be looked at."""
        links = parse_links(run(["ip", "-json", "-details", "address", "show"]))
        wireguard = self._wireguard(links)
        suspect = {name for name in declared if name not in wireguard or name not in links}
        services = {name: self._service(name, name in suspect or name not in links) for name in self._service_names()}
        return Observed(links, wireguard, self._default_routes(), services)

    def secrets(self, tunnel: Tunnel) -> Secrets:
        """What the tunnel's key files hold; KeyFileError when one is missing or no key."""
        preshared = tunnel.peer.preshared_key_file
        return Secrets(self._public_key(), read_key(Path(preshared)) if preshared else None)

    def perform(self, tunnel: str, action: Action, userspace: bool) -> None:
        """Carry out one action; CommandError when it fails."""
        if action.verb is Verb.RUN:
            run(action.argv)
        elif action.verb is Verb.MOVE:
            run([*IN_HOST, "ip", "link", "set", "dev", tunnel, "netns", ROUTER_NAMESPACE])
        elif action.verb is Verb.CREATE:
            self._create(tunnel, userspace)
        elif action.verb is Verb.RESTART:
            run(["s6-svc", "-k", str(TUNNELS / tunnel)])
        elif action.verb is Verb.REMOVE_SERVICE:
            self._remove_service(tunnel)

    def nftables_loaded(self) -> bool:
        """Tell whether our table is in the kernel."""
        tables = json.loads(run(["nft", "--json", "list", "tables"]))["nftables"]
        return any((item["table"]["family"], item["table"]["name"]) == NFTABLES_TABLE for item in tables if "table" in item)

    def load_nftables(self, path: Path) -> None:
        """Replace our table by the one in the file, in one transaction."""
        run(["nft", "--file", str(path)], timeout=20)

    def _wireguard(self, links: Iterable[str]) -> dict[str, WireGuard]:
        """All devices in one call; one by one when one of them hangs or fails."""
        try:
            return parse_wireguard(run(["wg", "show", "all", "dump"]))
        except CommandError:
            devices: dict[str, WireGuard] = {}
            for name in links:
                try:
                    text = run(["wg", "show", name, "dump"], timeout=1)
                except CommandError:
                    continue
                devices.update(parse_wireguard("".join(f"{name}\t{line}\n" for line in text.splitlines())))
            return devices

    def _default_routes(self) -> tuple[DefaultRoute, ...]:
        """The default routes of both families."""
        found: list[DefaultRoute] = []
        for family in ("4", "6"):
            text = run(["ip", "-json", f"-{family}", "route", "show", "default"])
            found += parse_default_routes(text, family)
        return tuple(found)

    def _public_key(self) -> str:
        """The public key of the node, worked out again when the file changes."""
        path = Path(PRIVATE_KEY)
        try:
            info = path.stat()
        except OSError as error:
            raise KeyFileError(f"{path}: {error.strerror}") from error
        version = (info.st_ino, info.st_mtime_ns, info.st_size)
        if self._public is None or self._public[0] != version:
            self._public = (version, public_key(read_key(path)))
        return self._public[1]

    def _create(self, name: str, userspace: bool) -> None:
        """Make an interface whose socket is in the host's namespace.

        The kernel's WireGuard keeps its socket in the namespace that the request came from;
        asked for an interface in another namespace it never puts the name into the host's.
        """
        argv = [*IN_HOST, "ip", "link", "add", "dev", name, "netns", ROUTER_NAMESPACE, "type", "wireguard"]
        try:
            run(argv)
        except CommandError as error:
            if not NO_KERNEL_MODULE.search(str(error)):
                raise
            if not userspace:
                raise CommandError(f"the kernel has no WireGuard and wireguard-go is not allowed ({error})") from error
            self._add_service(name)

    def _add_service(self, name: str) -> None:
        """Let the supervisor run wireguard-go for a tunnel."""
        if name in parse_links(run([*IN_HOST, "ip", "-json", "link", "show"])):
            raise CommandError(f"the host has an interface {name} that is not ours")
        beside = TUNNELS / f".new-{name}"
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir()
        (beside / "run").symlink_to(USERSPACE_SERVICE / "run")
        (beside / "timeout-kill").write_text("3000\n", "ascii")
        beside.rename(TUNNELS / name)
        run(["s6-svscanctl", "-a", str(TUNNELS)])

    def _remove_service(self, name: str) -> None:
        """End a tunnel's wireguard-go and forget it."""
        pid = self._status(name)[0]
        gone = TUNNELS / f".gone-{name}"
        shutil.rmtree(gone, ignore_errors=True)
        (TUNNELS / name).rename(gone)
        run(["s6-svscanctl", "-an", str(TUNNELS)])
        # told directly, too: after a crash of its parent the supervisor is nobody's child
        with contextlib.suppress(CommandError):
            run(["s6-svc", "-xd", str(gone)])
        deadline = time.monotonic() + COMMAND_SECONDS
        while pid is not None and Path("/proc", str(pid)).exists():
            if time.monotonic() > deadline:
                raise CommandError(f"wireguard-go does not end after {COMMAND_SECONDS} s")
            time.sleep(0.05)
        shutil.rmtree(gone, ignore_errors=True)

    def _service_names(self) -> list[str]:
        """The tunnels that have a wireguard-go."""
        try:
            return sorted(entry.name for entry in TUNNELS.iterdir() if not entry.name.startswith("."))
        except OSError:
            return []

    def _service(self, name: str, closely: bool) -> Service:
        """State of a tunnel's wireguard-go; only looked at closely when something is missing."""
        if not closely:
            return Service(pid=None, age=0, interface_with_host=False)
        pid, age = self._status(name)
        return Service(pid, age, pid is not None and _holds_interface(pid, name) and self._with_host(name))

    def _status(self, name: str) -> tuple[int | None, int]:
        """Process id of a tunnel's wireguard-go and seconds in its present state."""
        try:
            words = run(["s6-svstat", "-o", "up,pid,updownfor", str(TUNNELS / name)]).split()
        except CommandError:
            return None, 0
        return (int(words[1]) if words[0] == "true" else None), int(words[2])

    def _with_host(self, name: str) -> bool:
        """Tell whether an interface of this name is in the host's namespace."""
        try:
            run([*IN_HOST, "ip", "link", "show", "dev", name])
        except CommandError:
            return False
        return True


def _holds_interface(pid: int, name: str) -> bool:
    """Tell whether the process is the one behind the TUN interface of this name."""
    directory = f"/proc/{pid}/fdinfo"
    try:
        for entry in os.listdir(directory):
            with open(f"{directory}/{entry}", encoding="ascii") as stream:
                if f"iff:\t{name}" in stream.read().splitlines():
                    return True
    except OSError:
        pass
    return False


def sysctl_problem(name: str) -> str | None:
    """Compare the settings that the interface took over from 'default' with what routing needs."""
    for path, wanted in ((f"ipv4/conf/{name}/rp_filter", "0"), (f"ipv6/conf/{name}/forwarding", "1")):
        try:
            value = Path("/proc/sys/net", path).read_text("ascii").strip()
        except OSError:
            continue
        if value != wanted:
            return f"net.{path.replace('/', '.')} is {value}, {wanted} is needed"
    return None


def sha256(path: Path) -> str | None:
    """Hexadecimal SHA-256 of a file, None when it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None


def write_json(path: Path, data: object) -> None:
    """Replace a world-readable JSON file in one step."""
    beside = path.with_name(f".{path.name}")
    beside.write_text(json.dumps(data, indent=1, sort_keys=True) + "\n", "utf-8")
    beside.chmod(0o644)
    beside.rename(path)
