# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The images: Debian root file systems, cached under a hash of their recipe."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import re
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from typing import TextIO

from . import podman
from .facts import STATE, LabError
from .machine import debian_architecture, remove_tree
from .shell import Progress, run

SUITE = "trixie"
# The next Debian moves on, and a mirror of it may stand still for longer than its index is valid.
NEXT_SUITE = "forky"
_NEXT_APT = 'Acquire::Check-Valid-Until "false"'
DIRECTORY = STATE / "images"
ARCHIVE_NAME = "debian:trixie-slim"

_HOST = (
    "ca-certificates", "dbus", "iproute2", "iputils-ping", "kmod", "nftables", "openssh-server", "procps",
    "python3", "systemd", "systemd-sysv",
)  # fmt: skip

# A host's identity is given to it when it is created, never baked into an image; and the machine's
# terminals are not the hosts'. Nothing takes the package manager's lock at a time of its own choice.
_HOOKS = (
    'rm -f "$1"/etc/ssh/ssh_host_* "$1/etc/hostname" "$1/etc/resolv.conf" "$1/etc/apt/apt.conf.d/99mmdebstrap"',
    ': > "$1/etc/machine-id"',
    'ln -s /dev/null "$1/etc/systemd/system/getty@.service"',
    'ln -s /dev/null "$1/etc/systemd/system/console-getty.service"',
    'ln -s /dev/null "$1/etc/systemd/system/apt-daily.timer"',
    'ln -s /dev/null "$1/etc/systemd/system/apt-daily-upgrade.timer"',
)


@dataclass(frozen=True)
class Recipe:
    """What an image is made of; two equal recipes are the same image."""

    name: str
    packages: tuple[str, ...]
    hooks: tuple[str, ...] = _HOOKS
    excluded: tuple[str, ...] = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*")
    suite: str = SUITE
    version: int = 2  # raise it when build() makes something else of the same recipe

    @property
    def digest(self) -> str:
        """Content hash of the recipe, 12 hexadecimal digits."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def reference(self) -> str:
        """Name of the image in the lab's storage."""
        return f"localhost/dn42-lab-{self.name}:{self.digest}"

    @property
    def archive(self) -> pathlib.Path:
        """Where the image is kept as an archive for docker load (the base image only)."""
        return DIRECTORY / f"{self.name}-{self.digest}.tar"

    @property
    def sources(self) -> pathlib.Path:
        """A copy of the image's package sources (the base image only)."""
        return self.archive.with_suffix(".sources")


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("node", (*_HOST, "firewalld")),
        Recipe(
            "node-next",
            (*_HOST, "firewalld"),
            hooks=(*_HOOKS, f"echo '{_NEXT_APT};' > \"$1/etc/apt/apt.conf.d/95lab-next\""),
            suite=NEXT_SUITE,
        ),
        Recipe("node-docker", (*_HOST, "firewalld", "docker.io", "docker-cli", "docker-compose")),
        Recipe(
            "peer",
            (*_HOST, "bird2", "bind9-dnsutils", "curl", "nsd", "radvd", "tcpdump", "wireguard-go", "wireguard-tools"),
            # A test that wants router advertisements starts them; no boot does.
            hooks=(*_HOOKS, 'rm -f "$1/etc/systemd/system/multi-user.target.wants/radvd.service"'),
        ),
        Recipe("debian-trixie-slim", ("ca-certificates",), hooks=_HOOKS[:2]),
    )
}
BASE = RECIPES["debian-trixie-slim"]


def cached(recipe: Recipe) -> bool:
    """Tell whether the image of this very recipe exists."""
    return recipe.archive.exists() if recipe is BASE else podman.image_exists(recipe.reference)


def source_names() -> list[str]:
    """Return the names of the servers that the hosts install packages from, as in the base image."""
    text = BASE.sources.read_text(encoding="utf-8")
    return sorted(set(re.findall(r"https?://(?:[^/@\s]*@)?([^/:\s]+)", text)))


def build(recipe: Recipe, progress: Progress, held: TextIO) -> None:
    """Build an image. `held` is the machine's lock: mmdebstrap inherits it, so that the next run
    waits for one that outlived a killed run instead of building beside it."""
    work = STATE / "build"
    remove_tree(work)  # whatever a killed run left
    work.mkdir(mode=0o755)
    root = work / "root.tar"
    try:
        _bootstrap(recipe, root, progress, held)
        progress.detail("importing")
        if recipe is BASE:
            DIRECTORY.mkdir(mode=0o755, exist_ok=True)
            _copy_sources(root, recipe.sources)
            _write_archive(root, recipe.archive)
        else:
            run(["podman", "import", "--quiet", "--change", "CMD /sbin/init", str(root), recipe.reference])
        _remove_older(recipe)
    finally:
        remove_tree(work)


def _bootstrap(recipe: Recipe, target: pathlib.Path, progress: Progress, held: TextIO) -> None:
    # In a mount namespace of its own: when it is killed, what it mounted is gone with it.
    argv = ["unshare", "--mount", "mmdebstrap", "--mode=root", "--variant=minbase", f"--include={','.join(recipe.packages)}"]
    argv += [f"--dpkgopt=path-exclude={pattern}" for pattern in recipe.excluded]
    argv += [f"--customize-hook={hook}" for hook in recipe.hooks]
    if recipe.suite != SUITE:
        argv.append(f"--aptopt={_NEXT_APT}")
    argv += [recipe.suite, str(target)]
    environment = {**os.environ, "TMPDIR": str(target.parent), "LC_ALL": "C.UTF-8"}
    log = []
    with subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        pass_fds=(held.fileno(),),
    ) as process:
        for line in process.stdout or ():
            log.append(line)
            if line.startswith("I: ") and line.rstrip().endswith("..."):
                progress.detail(line[3:].strip())
    if process.returncode != 0:
        raise LabError(f"mmdebstrap failed for image {recipe.name}:\n{''.join(log[-40:])}")


def _copy_sources(root: pathlib.Path, target: pathlib.Path) -> None:
    with tarfile.open(root) as archive:
        member = archive.extractfile("./etc/apt/sources.list")
        if member is None:
            raise LabError("mmdebstrap wrote no etc/apt/sources.list")
        target.write_bytes(member.read())


def _write_archive(root: pathlib.Path, target: pathlib.Path) -> None:
    """Write a root file system as the archive that docker load reads."""
    with open(root, "rb") as handle:
        layer = _sha256(handle)
    configuration = json.dumps(
        {
            "architecture": debian_architecture(),
            "config": {"Cmd": ["bash"], "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]},
            "created": "1970-01-01T00:00:00Z",
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer}"]},
        },
        sort_keys=True,
    ).encode()
    config_name = f"{hashlib.sha256(configuration).hexdigest()}.json"
    manifest = json.dumps([{"Config": config_name, "RepoTags": [ARCHIVE_NAME], "Layers": [f"{layer}/layer.tar"]}]).encode()
    with tempfile.NamedTemporaryFile(dir=root.parent, delete=False) as handle, tarfile.open(fileobj=handle, mode="w") as archive:
        archive.add(root, f"{layer}/layer.tar")
        for name, content in ((config_name, configuration), ("manifest.json", manifest)):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, BytesIO(content))
    os.chmod(handle.name, 0o644)
    os.replace(handle.name, target)


def _sha256(handle) -> str:  # a binary file
    digest = hashlib.sha256()
    for block in iter(lambda: handle.read(1 << 20), b""):
        digest.update(block)
    return digest.hexdigest()


def _remove_older(recipe: Recipe) -> None:
    """Remove images of the same kind and another recipe, unless a container still uses them."""
    if recipe is BASE:
        return  # running hosts have older archives mounted; purge removes them
    listed = run(["podman", "images", "--format", "{{.Repository}}:{{.Tag}}"]).stdout.decode().split()
    repository = recipe.reference.rsplit(":", 1)[0]
    for image in listed:
        if image.rsplit(":", 1)[0] == repository and image != recipe.reference:
            run(["podman", "rmi", image], check=False)


def needed(images: Sequence[str]) -> list[Recipe]:
    """Return the recipes for these images and for the base image."""
    return [RECIPES[name] for name in (*sorted(set(images)), BASE.name)]
