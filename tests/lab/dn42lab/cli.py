# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line of the lab program."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from . import commands, machine
from .facts import DEFAULT_HOSTS, DEFAULT_NAME, LabError, check_name


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lab", description="The test lab. Runs as root on Debian 12 or 13.")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str, named: bool = True) -> argparse.ArgumentParser:
        sub = subparsers.add_parser(name, help=text, description=text)
        if named:
            default = os.environ.get("DN42_LAB") or DEFAULT_NAME
            sub.add_argument("--name", default=default, help="the lab (default: $DN42_LAB or demo)")
        return sub

    sub = command("up", "start a lab, or what of it is not running")
    sub.add_argument("--hosts", default=",".join(DEFAULT_HOSTS), help="which hosts (default: %(default)s)")
    sub = command("add", "start one more host in a lab")
    sub.add_argument("host")
    command("down", "remove one lab and everything it made")
    command("purge", "remove all labs and the image cache, restore the machine's settings", named=False)
    command("status", "show all labs", named=False)
    command("require", "install the Debian packages the lab needs", named=False)
    sub = command("exec", "run a command in a host")
    sub.add_argument("host")
    sub.add_argument("argv", nargs=argparse.REMAINDER)
    sub = command("reboot", "shut a host down and start it again")
    sub.add_argument("host")
    sub = command("kill", "end a host at once, as a power cut would; 'lab add' starts it again")
    sub.add_argument("host")
    sub = command("remove", "remove one host and everything on it; 'lab add' makes it anew")
    sub.add_argument("host")
    sub = command("ssh-proxy", "connect stdin and stdout to a host (for ssh's ProxyCommand)")
    sub.add_argument("host")
    sub.add_argument("port", type=int)
    sub = command("introduce", "tell peer1's operator the WireGuard public key of a node")
    sub.add_argument("node")
    sub.add_argument("public_key")
    return parser


def _dispatch(options: argparse.Namespace) -> None:
    if options.command in ("purge", "status"):
        getattr(commands, options.command)()
        return
    if options.command == "require":
        if not machine.require():
            print("nothing is missing")
        return
    lab = check_name(options.name)
    if options.command == "up":
        commands.up(lab, options.hosts.split(","))
    elif options.command == "add":
        commands.up(lab, [options.host])
    elif options.command == "down":
        commands.down(lab)
    elif options.command == "exec":
        commands.execute(lab, options.host, options.argv)
    elif options.command == "reboot":
        commands.reboot(lab, options.host)
    elif options.command == "kill":
        commands.kill(lab, options.host)
    elif options.command == "remove":
        commands.remove(lab, options.host)
    elif options.command == "ssh-proxy":
        commands.ssh_proxy(lab, options.host, options.port)
    else:
        commands.introduce(lab, options.node, options.public_key)


def main(argv: Sequence[str]) -> int:
    """Run one command; return the exit status."""
    options = _parser().parse_args(argv)
    if os.geteuid() != 0:
        print("lab: run it as root (it makes namespaces and starts containers)", file=sys.stderr)
        return 1
    try:
        _dispatch(options)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("lab: interrupted; the next run continues from here", file=sys.stderr)
        return 130
    return 0
