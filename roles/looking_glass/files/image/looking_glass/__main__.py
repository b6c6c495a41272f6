# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Command line: `serve` the looking glass, `check` a configuration, ask for the `health` of a running one."""

from __future__ import annotations

import argparse
import http.client
import logging
import signal
import sys
from pathlib import Path

from .settings import SettingsError, SettingsFile, parse_settings

BIRD_SECONDS = 1.5
HEALTH_SECONDS = 3.0


def main() -> int:
    """Run the command; return the exit status."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    arguments = _parser().parse_args()
    return int(arguments.run(arguments))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="looking_glass", description=__doc__)
    commands = parser.add_subparsers(required=True)
    serve = commands.add_parser("serve", help="serve the pages")
    serve.add_argument("--config", type=Path, required=True, help="configuration file; read again when it is replaced")
    serve.add_argument("--bird", required=True, help="BIRD's control socket")
    serve.add_argument("--listen", action="append", required=True, help="ADDRESS:PORT, [ADDRESS]:PORT for IPv6")
    serve.set_defaults(run=_serve)
    check = commands.add_parser("check", help="check a configuration file")
    check.add_argument("config", type=Path)
    check.set_defaults(run=_check)
    health = commands.add_parser("health", help="ask a running looking glass whether it answers")
    health.add_argument("address", help="ADDRESS:PORT")
    health.set_defaults(run=_health)
    return parser


def _serve(arguments: argparse.Namespace) -> int:
    # Loaded here, so that the health check, which runs often, stays light.
    from waitress import serve

    from .bird import BirdClient
    from .cluster import Cluster
    from .web import create_app

    # As the first process of a container, Python would ignore the signal that asks it to stop.
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(0))
    app = create_app(SettingsFile(arguments.config), Cluster(BirdClient(arguments.bird, BIRD_SECONDS)))
    serve(
        app,
        listen=" ".join(arguments.listen),
        threads=16,
        connection_limit=200,
        channel_timeout=15,
        cleanup_interval=5,
        max_request_header_size=8192,
        max_request_body_size=1024,
        ident=None,
    )
    return 0


def _check(arguments: argparse.Namespace) -> int:
    try:
        parse_settings(arguments.config.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, SettingsError) as error:
        print(f"{arguments.config}: {error}", file=sys.stderr)
        return 1
    return 0


def _health(arguments: argparse.Namespace) -> int:
    connection = http.client.HTTPConnection(arguments.address, timeout=HEALTH_SECONDS)
    try:
        connection.request("GET", "/health")
        return 0 if connection.getresponse().status == http.client.OK else 1
    except (OSError, http.client.HTTPException) as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
