# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""BIRD in the versions that Debian has, and other programs to test with, unpacked beside the checkout; nothing is installed on the machine."""

from __future__ import annotations

import fcntl
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

CACHE = (Path(__file__).resolve().parents[3] / ".cache" / "birds").resolve()


@dataclass(frozen=True)
class Release:
    """Packages of one of Debian's suites; `name` tells apart what is of the same suite."""

    suite: str
    packages: str
    options: tuple[str, ...] = ()
    name: str = ""

    @property
    def root(self) -> Path:
        """Root file system to run them in."""
        return CACHE / (self.name or self.suite)


# The default is what the router's image has.
DEFAULT = "2.17"
RELEASES = {
    "2.0": Release("bookworm", "bird2"),
    "2.17": Release("trixie", "bird2"),
    # The lists of a suite that never ends may be older than they say; they are signed all the same.
    "3": Release("sid", "bird3", ('--aptopt=Acquire::Check-Valid-Until "false"',)),
    # Not a BIRD: an RTR server, and the ping of the router's image.
    "tools": Release("trixie", "stayrtr,iputils-ping", name="tools"),
}


def root(version: str = DEFAULT) -> Path:
    """The root file system with that BIRD, or with the tools, unpacked when it is missing."""
    release = RELEASES[version]
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / f"{release.root.name}.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (release.root / "complete").exists():
            _unpack(release)
    return release.root


def command_lines(version: str = DEFAULT) -> dict[str, list[str]] | None:
    """How to run bird and birdc as this user without their root file system: the machine's, or those that are unpacked already; None without either."""
    if os.access("/usr/sbin/bird", os.X_OK):
        return {name: [f"/usr/sbin/{name}"] for name in ("bird", "birdc")}
    unpacked = RELEASES[version].root
    if not (unpacked / "complete").exists():
        return None
    (loader,) = unpacked.glob("lib64/ld-linux*")
    libraries = ":".join(str(path) for path in (unpacked / "usr/lib").glob("*-linux-gnu"))
    return {name: [str(loader), "--library-path", libraries, str(unpacked / "usr/sbin" / name)] for name in ("bird", "birdc")}


def _unpack(release: Release) -> None:
    subprocess.run(["rm", "-rf", "--one-file-system", str(release.root)], check=True)
    command = ["unshare", "--mount", "mmdebstrap", "--quiet", "--mode=root", "--variant=extract", f"--include={release.packages},libc-bin", "--dpkgopt=path-exclude=/usr/share/*"]
    made = subprocess.run([*command, *release.options, release.suite, str(release.root)], check=False, capture_output=True, text=True, timeout=600)
    if made.returncode != 0:
        raise RuntimeError(f"cannot unpack {release.packages} of {release.suite}:\n{made.stderr}")
    for name in ("bin", "lib", "lib64", "sbin"):  # what the package base-files would do
        link = release.root / name
        if not link.exists() and (release.root / "usr" / name).exists():
            link.symlink_to(f"usr/{name}")
    (release.root / "run").mkdir(exist_ok=True)
    (release.root / "complete").touch()
