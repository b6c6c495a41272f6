# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files of a release: read, hashed, and replaced in one step. Runs on nodes: Python 3.9, standard library only.

This module util is PRIVATE to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Dict, Optional

TEXT_LIMIT = 1 << 20  # bytes; a larger file is not shown in a diff


def file_hashes(root: Path) -> Dict[str, str]:
    """{path below root: sha256} of all files below a directory, {} where there is none."""
    return {str(path.relative_to(root)): sha256(path) or "" for path in root.rglob("*") if path.is_file()}


def sha256(path: Path) -> Optional[str]:
    """Hash of a file's content, None where there is no file."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None


def read_text(path: Path) -> str:
    """A file's text for a diff; empty where there is none, a remark where it is not text."""
    try:
        content = path.read_bytes()
        return content.decode() if len(content) <= TEXT_LIMIT else f"(file of {len(content)} bytes)\n"
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError):
        return "(not readable as text)\n"


def write_atomically(path: Path, content: bytes, mode: int, owner: Optional[int] = None) -> None:
    """Write beside, flush to disk, rename: readers see the old file or the new one, also after a power cut."""
    handle, temporary = tempfile.mkstemp(prefix=".new-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as target:
            os.fchmod(target.fileno(), mode)
            if owner is not None:
                os.fchown(target.fileno(), owner, owner)
            target.write(content)
            target.flush()
            os.fsync(target.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def point_link(link: Path, target: str) -> None:
    """Make `link` point to `target` in one step."""
    temporary = link.with_name(f".{link.name}.new")
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    temporary.symlink_to(target)
    os.replace(temporary, link)


def hard_copy(source: Path, target: Path) -> None:
    """A second name for a file that is only ever replaced and never written in place: takes no room, also on a full disk."""
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)
        state = source.stat()
        os.chown(target, state.st_uid, state.st_gid)


def put_back(saved: Path, path: Path) -> None:
    """Replace a file by its saved second name, in one step; nothing where it is the same file."""
    if path.exists() and os.path.samefile(saved, path):
        return
    temporary = path.with_name(f".back-{path.name}")
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    hard_copy(saved, temporary)
    os.replace(temporary, path)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
