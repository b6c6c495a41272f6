# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Anycast addresses: announced and translated while the service behind them answers.

BIRD and nftables include files that only the keeper writes. So what holds is the same after each of them reads its
configuration again or starts anew; a protocol that was enabled by hand would not survive `configure`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Callable

from .loading import Runner, configure
from .lookups import WITHOUT_CAPABILITIES
from .model import Anycast
from .system import CommandError, run

INCLUDED = Path("/roa")  # what bird.conf and nftables.conf include
FILTER = "anycast.nft"
TABLE = "inet dn42_router"
PROBER = (*WITHOUT_CAPABILITIES, sys.executable, "-I", "-m", "dn42_router.prober")


class Prober:
    """The child that asks the services: it reads their answers without any capability, and holds nothing up."""

    def __init__(self, wake: Callable[[], None], command: Sequence[str] = PROBER) -> None:
        """`wake` is called from another thread when a service begins or ceases to answer."""
        self._wake = wake
        self._command = command
        self._process: subprocess.Popen[str] | None = None
        self._services: tuple[Anycast, ...] = ()
        self.up: set[str] = set()

    def keep(self, services: tuple[Anycast, ...]) -> None:
        """Have these services asked, beginning with what is known of them. Raises CommandError if the child had ended."""
        ended = None if self._process is None else self._process.poll()
        if services == self._services and ended is None and (self._process is not None or not services):
            return
        self._end()
        self._services = services
        self.up &= {service.address for service in services}
        if services:
            self._start(services)
        if ended is not None:
            raise CommandError(f"the child that asks the services ended ({ended}) and was started again")

    def _start(self, services: tuple[Anycast, ...]) -> None:
        process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        wanted = [{"id": one.address, "probe": one.probe, "address": one.target, "port": one.port, "up": one.address in self.up} for one in services]
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(wanted) + "\n")
            process.stdin.flush()  # it stays open: the child ends when it is closed
        except OSError as error:
            raise CommandError(f"the child that asks the services does not start: {error.strerror}") from error
        self._process = process
        threading.Thread(target=self._follow, args=(process,), daemon=True).start()

    def _follow(self, process: subprocess.Popen[str]) -> None:
        """Take in a child's lines until it ends."""
        assert process.stdout is not None
        for line in process.stdout:
            item = json.loads(line)
            if process is self._process:
                (self.up.add if item["up"] else self.up.discard)(item["id"])
                self._wake()

    def _end(self) -> None:
        if self._process is not None:
            process, self._process = self._process, None
            process.kill()
            process.wait()
            assert process.stdin is not None
            process.stdin.close()


class AnycastServices:
    """The files that BIRD and nftables include, and whether they know them."""

    def __init__(self, wake: Callable[[], None], included: Path = INCLUDED, command: Runner = run, prober: Sequence[str] = PROBER) -> None:
        """`command` runs `birdc` and `nft`."""
        self._included = included
        self._run = command
        self._prober = Prober(wake, prober)
        self._services: tuple[Anycast, ...] | None = None
        self._said: set[str] = set()
        self._filter: str | None = None
        self._routes: dict[str, str] | None = None

    def keep(self, services: tuple[Anycast, ...], bird_may_be_down: bool, log: Callable[[str], None]) -> None:
        """Put into effect what the services are like now. Raises CommandError with everything that is wrong."""
        problems: list[str] = []
        self._try(problems, lambda: self._probe(services))
        up = set(self._prober.up)  # the same for filter and routes
        self._log(services, up, log)
        translated = up if self._try(problems, lambda: self._load_filter(services, up)) else up & self._announced(services)
        self._try(problems, lambda: self._load_routes({one.protocol: f"route {one.prefix} unreachable;\n" for one in services if one.address in translated}, bird_may_be_down))
        if problems:
            raise CommandError("; ".join(problems))

    def status(self) -> dict[str, bool]:
        """For the keeper's status file: {address: does its service answer?}."""
        return {one.address: one.address in self._prober.up for one in self._services or ()}

    @staticmethod
    def _try(problems: list[str], step: Callable[[], None]) -> bool:
        try:
            step()
        except (CommandError, OSError) as error:
            problems.append(str(error))
            return False
        return True

    def _probe(self, services: tuple[Anycast, ...]) -> None:
        if self._services is None:  # what an earlier keeper of this container announced
            self._prober.up |= self._announced(services)
            self._said = set(self._prober.up)
        self._services = services
        self._prober.keep(services)

    def _announced(self, services: tuple[Anycast, ...]) -> set[str]:
        """The addresses whose route is in BIRD's files."""
        return {one.address for one in services if self._file(one.protocol).exists()}

    def _log(self, services: tuple[Anycast, ...], up: set[str], log: Callable[[str], None]) -> None:
        """Say what has changed since it was said last."""
        for one in services:
            if (one.address in up) != (one.address in self._said):
                log(f"{one.name} {one.address}: {'answers, is announced' if one.address in up else 'does not answer, is withdrawn'}")
        self._said = up

    def _load_filter(self, services: tuple[Anycast, ...], up: set[str]) -> None:
        """Have packets to the addresses of services that answer translated, and no others. Raises CommandError."""
        path = self._included / FILTER
        if not services:
            path.unlink(missing_ok=True)
            self._filter = None
            return
        lines = [f"flush set {TABLE} anycast_{family}" for family in ("ipv4", "ipv6")]
        lines += [f"add element {TABLE} anycast_{'ipv6' if ':' in address else 'ipv4'} {{ {address} }}" for address in sorted(up)]
        content = "".join(f"{line}\n" for line in lines)
        if content != self._filter:
            self._replace(path, content)
            self._run(["nft", "--file", str(path)])
            self._filter = content

    def _load_routes(self, routes: dict[str, str], bird_may_be_down: bool) -> None:
        """Have BIRD announce these routes, {protocol: its content}. Raises CommandError."""
        present = {path.stem: path for path in self._included.glob("anycast_*.conf")}
        if self._routes is None and not present and not routes:
            self._routes = {}  # a new container: BIRD has read that there is nothing
        for protocol in set(present) - set(routes):
            present[protocol].unlink()
        for protocol, content in routes.items():
            if protocol not in present or present[protocol].read_text("ascii") != content:
                self._replace(self._file(protocol), content)
        if routes == self._routes:
            return
        configure(self._run, bird_may_be_down, "BIRD has not taken the change")
        self._routes = routes

    def _file(self, protocol: str) -> Path:
        return self._included / f"{protocol}.conf"

    def _replace(self, path: Path, content: str) -> None:
        beside = path.with_name(f".{path.name}.new")
        beside.write_text(content, "ascii")
        beside.chmod(0o644)
        beside.rename(path)
