# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The node's WireGuard key on its disk: whose it has to be, and its public half, written down beside it.

Only an image of ours can compute a public key, and starting a container in every run to hear it again takes long.
Runs on nodes: Python 3.9, standard library only.

This module util is PRIVATE to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import hashlib
import stat
from pathlib import Path

from ansible_collections.dn42.compose.plugins.module_utils._release_files import write_atomically

PRIVATE_KEY = "private.key"
PUBLIC_KEY = "public.key"


def is_safe(key: Path, owner: int) -> bool:
    """Whether the private key is there, its owner's, and nobody else's to read."""
    try:
        state = key.stat()
    except OSError:
        return False
    return state.st_uid == owner and not stat.S_IMODE(state.st_mode) & 0o077


def known_public_key(directory: Path) -> str:
    """The public half as an earlier run wrote it down, empty where the key has become another one since."""
    try:
        noted, public = (directory / PUBLIC_KEY).read_text().split()
        private = (directory / PRIVATE_KEY).read_bytes()
    except (OSError, ValueError):
        return ""
    return public if noted == hashlib.sha256(private).hexdigest() else ""


def note_public_key(directory: Path, owner: int, public: str) -> None:
    """Write the public half down with the hash of its key."""
    digest = hashlib.sha256((directory / PRIVATE_KEY).read_bytes()).hexdigest()
    write_atomically(directory / PUBLIC_KEY, f"{digest} {public}\n".encode(), 0o400, owner)
