# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Look up host names with the host's resolver configuration.

The keeper starts this in the host's network namespace, without any capability. Names are read as
a JSON list from standard input; the result of each is printed as one JSON line as soon as it is
there, so that a name that hangs holds up none of the others.
"""

from __future__ import annotations

import concurrent.futures
import json
import socket
import sys
from pathlib import Path

import dns.exception
import dns.resolver

DIRECTORY = Path("/run/host-resolv")
FILE_NAMES = ("resolv.conf", "stub-resolv.conf")
NAME_SECONDS = 4.0
AT_ONCE = 32


def configuration(directory: Path = DIRECTORY) -> Path:
    """The resolver configuration file of the host."""
    files = [directory / name for name in FILE_NAMES]
    return next((path for path in files if path.is_file()), files[0])


def reachable(address: str) -> bool:
    """Tell whether the host has a route to the address; nothing is sent."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((address, 9))
        except OSError:
            return False
    return True


def lookup(resolver: dns.resolver.Resolver, name: str) -> dict[str, object]:
    """The addresses of a name, those with a route only, if any has one; or an error."""
    addresses: list[str] = []
    errors: list[str] = []
    for kind in ("AAAA", "A"):
        try:
            answer = resolver.resolve(name, kind, search=False, lifetime=NAME_SECONDS / 2)
            addresses += sorted(item.address for item in answer)
        except dns.resolver.NoAnswer:
            continue
        except dns.resolver.NXDOMAIN:
            errors.append("the name does not exist")
        except dns.exception.Timeout:
            errors.append("no answer from the host's name servers")
        except (dns.exception.DNSException, OSError) as error:
            errors.append(" ".join(str(error).split()))
    routed = [address for address in addresses if reachable(address)]
    error = None if addresses else (errors[0] if errors else "the name has no address")
    return {"name": name, "addresses": routed or addresses, "error": error}


def main() -> int:
    """Look up all names at once; always 0, errors are part of the output."""
    names = json.load(sys.stdin)
    try:
        resolver = dns.resolver.Resolver(filename=str(configuration()))
    except (dns.exception.DNSException, OSError) as error:
        for name in names:
            print(json.dumps({"name": name, "addresses": [], "error": f"{configuration()}: {error}"}))
        return 0
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        for future in concurrent.futures.as_completed([pool.submit(lookup, resolver, name) for name in names]):
            print(json.dumps(future.result()), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
