#!/usr/bin/env python3
# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A PostgreSQL server of one's own: a new cluster in a temporary directory, on a Unix socket, gone afterwards.

`postgresql_server.py COMMAND...` runs a command with DN42_TEST_DSN in its environment.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator

USER = "postgres"  # of Debian's package; the server refuses to run as root
START_TIMEOUT = 60  # seconds


class Server:
    """A cluster in `directory`. fsync stays on: the tests are about what a crash leaves."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        self.data = directory / "data"
        self.dsn = f"host={directory} dbname=postgres user={USER}"

    def create(self) -> None:
        """Make the cluster. No password, and a socket that only this machine can reach."""
        self._run("initdb", "--pgdata", self.data, "--username", USER, "--auth", "trust", "--encoding", "UTF8", "--locale", "C.UTF-8")
        settings = f"listen_addresses = ''\nunix_socket_directories = '{self.directory}'\nmax_connections = 60\nshared_buffers = 32MB\n"
        with (self.data / "postgresql.conf").open("a", encoding="utf-8") as file:
            file.write(settings)

    def start(self) -> None:
        """Start, and wait until it answers."""
        self._control("start")

    def stop(self, mode: str = "immediate") -> None:
        """Stop; `immediate` is as good as a crash."""
        self._control("stop", "--mode", mode)

    def restart(self) -> None:
        """Crash and come back."""
        self._control("restart", "--mode", "immediate")

    def _control(self, action: str, *options: str) -> None:
        self._run("pg_ctl", action, "--pgdata", self.data, "--log", self.directory / "log", "--wait", "--timeout", str(START_TIMEOUT), *options)

    def _run(self, program: str, *arguments: object) -> None:
        command = [str(_program(program)), *map(str, arguments)]
        if os.geteuid() == 0:
            command = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--init-groups", "--", *command]
        done = subprocess.run(command, cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=START_TIMEOUT + 30, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}")


def _program(name: str) -> pathlib.Path:
    """A server program; Debian keeps them out of the PATH, one directory per version."""
    found = sorted(pathlib.Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: float(path.parts[-3]))
    path = str(found[-1]) if found else shutil.which(name)
    if path is None:
        raise RuntimeError(f"{name} is not installed; run scripts/require_postgresql")
    return pathlib.Path(path)


@contextlib.contextmanager
def running_server() -> Iterator[Server]:
    """A new server, stopped and removed at the end."""
    # Not below pytest's own directory, which only root may enter; a socket's path has at most 107 characters.
    directory = pathlib.Path(tempfile.mkdtemp(prefix="dn42-postgresql-"))
    try:
        if os.geteuid() == 0:
            shutil.chown(directory, USER, USER)
        server = Server(directory)
        server.create()
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(directory)


if __name__ == "__main__":
    with running_server() as the_server:
        status = subprocess.run(sys.argv[1:], env={**os.environ, "DN42_TEST_DSN": the_server.dsn}, check=False).returncode
    sys.exit(status)
