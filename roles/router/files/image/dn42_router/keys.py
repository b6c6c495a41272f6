# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The node's private key: made once, read by the keeper, never shown."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from .model import is_key


class KeyFileError(Exception):
    """A key file is missing, unreadable or no key; the message never holds its content."""


def read_key(path: Path) -> str:
    """The key in a file; KeyFileError when there is none."""
    try:
        text = path.read_text("ascii").strip()
    except FileNotFoundError as error:
        raise KeyFileError(f"{path}: there is no such file") from error
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise KeyFileError(f"{path}: this is not a WireGuard key") from error
    if not is_key(text):
        raise KeyFileError(f"{path}: this is not a WireGuard key (32 bytes in base64)")
    return text


def public_key(private_key: str) -> str:
    """The public key of a private key, by way of wg's standard input."""
    result = subprocess.run(["wg", "pubkey"], input=private_key + "\n", text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=5, check=True)
    return result.stdout.strip()


def make_key(path: Path) -> None:
    """Make a private key, mode 0600; never replaces a file that is there already.

    The key is written beside and linked into place, so that neither a killed run nor two runs at
    once leave half a key or two of them.
    """
    private = subprocess.run(["wg", "genkey"], text=True, stdout=subprocess.PIPE, timeout=5, check=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            stream.write(private.stdout)
            stream.flush()
            os.fsync(stream.fileno())
        try:
            os.link(beside, path)
        except FileExistsError:
            return
        _sync_directory(path.parent)
    finally:
        beside.unlink(missing_ok=True)


def _sync_directory(path: Path) -> None:
    """Make the new name survive a power failure."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def main(directory: str = "/secrets") -> int:
    """Make the key if it is missing and print the public key. 1: refused, the reason on stderr."""
    path = Path(directory, "private.key")
    try:
        if not path.exists():
            make_key(path)
        key = read_key(path)
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)
    except KeyFileError as error:
        print(f"node-key: {error}; left as it is", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"node-key: {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    print(public_key(key))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
