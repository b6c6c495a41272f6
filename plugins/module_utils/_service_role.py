# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A service role seen as what it contributes to a node: options, templates, an image, checks. Controller only.

A service role has no tasks. `stack` finds it by name, so that adding a service is adding a role:

    defaults/main.yml              its options
    meta/argument_specs.yml        the reference of its options
    meta/service.yml               service, check, reload, before_recreate, secrets, egress (see ServiceRole)
    templates/compose.yaml.j2      what is special about its container
    templates/config/**.j2         its configuration, mounted at /config/current
    templates/secrets.json.j2      optional: {file name: content} of its secret files, mounted at /secrets
    files/image/**                 build context of its image

This module util is PRIVATE to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, Iterable, List, Optional, Tuple

import yaml

COLLECTION_ROLES = Path(__file__).resolve().parent.parent.parent / "roles"


class ServiceRoleError(ValueError):
    """A service role that cannot be found or read; the text says what is wrong with which file."""


@dataclass(frozen=True)
class ServiceRole:
    """One service role, read from its directory.

    check: commands run in the image before a release counts, `{release}` stands for releases/<hash>.
    check_capabilities: what they need beyond nothing, in a network namespace of their own.
    reload: commands run in the running container after `current` was switched.
    before_recreate: commands run in a running container that is about to be replaced, and only then.
    secrets_owner: numeric user id that owns the secret files, None where there are none.
    egress: it talks to the Internet and is not in DN42: no address of the node's block, another network.
    """

    name: str
    path: Path
    service: str
    check: Tuple[Tuple[str, ...], ...] = ()
    check_capabilities: Tuple[str, ...] = ()
    reload: Tuple[Tuple[str, ...], ...] = ()
    before_recreate: Tuple[Tuple[str, ...], ...] = ()
    secrets_owner: Optional[int] = None
    secrets_kept: Tuple[str, ...] = ()
    egress: bool = False
    defaults: Dict[str, Any] = field(default_factory=dict)

    @property
    def image_repository(self) -> str:
        """Name of the image without its tag."""
        return f"dn42-{self.service}"

    def templates(self) -> List[Tuple[str, Path]]:
        """The configuration's templates as (path in the release, file), sorted."""
        root = self.path / "templates" / "config"
        files = sorted(path for path in root.rglob("*.j2") if path.is_file())
        return [(str(path.relative_to(root))[: -len(".j2")], path) for path in files]

    def image_files(self) -> List[Tuple[str, Path]]:
        """The files of the image's build context as (path, file), sorted; leftovers of Python are not part of it."""
        root = self.path / "files" / "image"
        files = sorted(path for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        return [(str(path.relative_to(root)), path) for path in files]

    def image_tag(self, base_image: str) -> str:
        """`dn42-<service>:<hash>`, the hash being that of everything the image is built from."""
        digest = hashlib.sha256(base_image.encode())
        for name, path in self.image_files():
            executable = b"x" if os.access(path, os.X_OK) else b"-"
            digest.update(b"\0" + name.encode() + b"\0" + executable + hashlib.sha256(path.read_bytes()).digest())
        return f"{self.image_repository}:{digest.hexdigest()[:12]}"


def _read_yaml(path: Path) -> Dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ServiceRoleError(f"{path}: {error}") from error
    return content or {}


def _commands(value: Any, path: Path) -> Tuple[Tuple[str, ...], ...]:
    if not isinstance(value, list) or not all(isinstance(command, list) for command in value):
        raise ServiceRoleError(f"{path}: check, reload and before_recreate are lists of commands, each a list of words")
    return tuple(tuple(str(word) for word in command) for command in value)


def _switch(value: Any, path: Path) -> bool:
    if not isinstance(value, bool):
        raise ServiceRoleError(f"{path}: egress is true or false, not {value!r}")
    return value


def find(name: str, search: Iterable[str]) -> Path:
    """The directory of a role: this collection's, else one of the directories in `search`."""
    for root in [COLLECTION_ROLES, *map(Path, search)]:
        if (root / name / "meta" / "service.yml").is_file():
            return root / name
    raise ServiceRoleError(f"service role '{name}' has no meta/service.yml in {', '.join(str(root) for root in [COLLECTION_ROLES, *search])}")


def role_defaults(path: Path) -> Dict[str, Any]:
    """The defaults of the role in a directory."""
    return _read_yaml(path / "defaults" / "main.yml")


def load(name: str, search: Iterable[str] = ()) -> ServiceRole:
    """Read the service role `name`. Raises ServiceRoleError."""
    path = find(name, list(search))
    meta_file = path / "meta" / "service.yml"
    meta = _read_yaml(meta_file)
    secrets = meta.get("secrets") or {}
    return ServiceRole(
        name=name,
        path=path,
        service=str(meta.get("service") or name.replace("_", "-")),
        check=_commands(meta.get("check") or [], meta_file),
        check_capabilities=tuple(str(name) for name in meta.get("check_capabilities") or ()),
        reload=_commands(meta.get("reload") or [], meta_file),
        before_recreate=_commands(meta.get("before_recreate") or [], meta_file),
        secrets_owner=secrets.get("owner"),
        secrets_kept=tuple(secrets.get("keep") or ()),
        egress=_switch(meta.get("egress", False), meta_file),
        defaults=role_defaults(path),
    )


def archive(entries: Iterable[Tuple[str, bytes, int]]) -> bytes:
    """A gzipped tar of (path, content, mode), equal bytes for equal entries: no dates, no owners."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", format=tarfile.PAX_FORMAT, compresslevel=6) as tar:
        for name, content, mode in sorted(entries):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            info.mode = mode
            info.mtime = 0
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def image_archive(role: ServiceRole) -> bytes:
    """The build context of a role's image as a gzipped tar."""
    return archive((name, path.read_bytes(), 0o755 if os.access(path, os.X_OK) else 0o644) for name, path in role.image_files())
