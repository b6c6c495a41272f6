# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Command line: `serve` fetches for ever, `check` a configuration, `health` of a running fetcher, `fetch` one URL."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType

from .settings import Settings, SettingsError, load

CONFIG_SECONDS = 5  # between two looks at the configuration file


def main() -> int:
    """Run the command; return the exit status."""
    arguments = _parser().parse_args()
    return int(arguments.run(arguments))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="dn42_rpki", description=__doc__)
    commands = parser.add_subparsers(required=True)
    serve = commands.add_parser("serve", help="keep the files in a directory up to date; SIGHUP: look now")
    check = commands.add_parser("check", help="check a configuration file")
    health = commands.add_parser("health", help="tell whether the data is there and fresh")
    for command, run in ((serve, _serve), (check, _check), (health, _health)):
        command.add_argument("config", type=Path)
        command.set_defaults(run=run)
    for command in (serve, health):
        command.add_argument("directory", type=Path, help="where the published files are")
    fetch = commands.add_parser("fetch", help="write the content at a URL to standard output")
    fetch.add_argument("--limit", type=int, required=True, help="bytes")
    fetch.add_argument("url")
    fetch.set_defaults(run=_fetch)
    return parser


def _serve(arguments: argparse.Namespace) -> int:
    from .fetcher import Fetcher, log
    from .store import Store

    wake = threading.Event()
    now = threading.Event()

    def hurry(_number: int, _frame: FrameType | None) -> None:
        now.set()
        wake.set()

    # As the first process of a container, Python would ignore the signal that asks it to stop.
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(0))
    signal.signal(signal.SIGHUP, hurry)
    settings: Settings | None = None
    fetcher = Fetcher(Store(arguments.directory))
    due = 0.0
    while True:
        try:
            read = load(arguments.config)
        except SettingsError as error:
            if settings is None:
                log(str(error))
                return 1
            read = settings  # a release was checked; this is a moment between two of them
        if read != settings or now.is_set() or time.monotonic() >= due:
            now.clear()
            settings = read
            due = time.monotonic() + fetcher.look(settings)
        wake.wait(CONFIG_SECONDS)
        wake.clear()


def _check(arguments: argparse.Namespace) -> int:
    try:
        load(arguments.config)
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _health(arguments: argparse.Namespace) -> int:
    from .health import problems

    found = problems(arguments.directory, load(arguments.config), time.time())
    print("; ".join(found) or "healthy")
    return 1 if found else 0


def _fetch(arguments: argparse.Namespace) -> int:
    from .download import DownloadError, download

    try:
        sys.stdout.buffer.write(download(arguments.url, arguments.limit))
    except DownloadError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
