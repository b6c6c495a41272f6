# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A lab's hosts: what is put into them, starting, stopping, waiting for them."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pathlib
import socket
import tarfile
import time
import uuid
from dataclasses import dataclass

from . import network, podman
from .facts import HOSTS, LAB_DIRECTORY, NETNS_DIRECTORY, STATE, Host, LabError
from .images import BASE, RECIPES
from .machine import CLONE_NEWNET, nameservers, setns
from .shell import run, wait_until

BOOT_WAIT = 120  # seconds until sshd answers and systemd has started everything
STOP_WAIT = 60  # seconds for systemd to stop everything

# podman's view of the limits: a machine without CAP_SYS_RESOURCE cannot have podman's defaults
_LIMITS = ("--pids-limit=-1", "--ulimit=nofile=20000:20000", "--ulimit=nproc=30000:30000")


@dataclass(frozen=True)
class Place:
    """Where a lab keeps its keys on the machine."""

    lab: str

    @property
    def directory(self) -> pathlib.Path:
        """The lab's directory."""
        return STATE / "labs" / self.lab

    @property
    def key(self) -> pathlib.Path:
        """The private key that logs in to the hosts."""
        return self.directory / "id_ed25519"

    @property
    def known_hosts(self) -> pathlib.Path:
        """The hosts' public keys, in OpenSSH's format."""
        return self.directory / "known_hosts"

    def host_key(self, host: Host) -> pathlib.Path:
        """Return the private key a host identifies itself with."""
        return self.directory / f"{host.name}_ed25519"


def container_name(lab: str, host: Host) -> str:
    """Return the name of a host's container, which is that of its network namespace too."""
    return network.netns_name(lab, host.name)


def _make_key(path: pathlib.Path, comment: str) -> None:
    if not (path.exists() and path.with_suffix(".pub").exists()):
        path.unlink(missing_ok=True)
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)])


def make_keys(lab: str, hosts: list[Host]) -> None:
    """Make the lab's keys that do not exist yet, and list those of all its hosts in known_hosts."""
    place = Place(lab)
    place.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    (place.directory.parent).chmod(0o711)
    _make_key(place.key, f"dn42-lab {lab}")
    for host in hosts:
        _make_key(place.host_key(host), host.name)
    _write_known_hosts(place)


def _write_known_hosts(place: Place) -> None:
    lines = []
    for host in HOSTS.values():
        public = place.host_key(host).with_suffix(".pub")
        if public.exists():
            kind, key = public.read_text(encoding="utf-8").split()[:2]
            lines.append(f"{host.name},{host.ipv4},{host.ipv6} {kind} {key}\n")
    place.known_hosts.write_text("".join(sorted(lines)), encoding="utf-8")


def _tree(directory: pathlib.Path) -> dict[str, tuple[int, bytes]]:
    """Return mode and content of each file below etc, srv and usr of a directory, by absolute path."""
    files = {}
    for path in sorted(directory.glob("*/**/*")):
        if path.is_file() and path.relative_to(directory).parts[0] in ("etc", "srv", "usr"):
            mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
            files[str(path.relative_to(directory))] = (mode, path.read_bytes())
    return files


def _given(host: Host) -> dict[str, tuple[int, bytes]]:
    """Return the files a host gets that are equal in every lab."""
    files: dict[str, tuple[int, bytes]] = {}
    for tree in host.trees:
        files.update(_tree(LAB_DIRECTORY / tree))
    files["etc/hosts"] = (
        0o644,
        f"127.0.0.1 localhost\n::1 localhost ip6-localhost\n{host.ipv4} {host.name}\n{host.ipv6} {host.name}\n".encode(),
    )
    if network.proxy():
        text = f'Acquire::http::Proxy "{network.proxy()}";\n'
        files["etc/apt/apt.conf.d/95lab-proxy"] = (0o644, text.encode())
    return files


def _identity(lab: str, host: Host) -> dict[str, tuple[int, bytes]]:
    """Return the files that make a container this very host."""
    place = Place(lab)
    key = place.host_key(host)
    servers = "".join(f"nameserver {server}\n" for server in nameservers())
    return {
        "etc/machine-id": (0o444, f"{uuid.uuid4().hex}\n".encode()),
        "etc/resolv.conf": (0o644, servers.encode()),
        "etc/ssh/ssh_host_ed25519_key": (0o600, key.read_bytes()),
        "etc/ssh/ssh_host_ed25519_key.pub": (0o644, key.with_suffix(".pub").read_bytes()),
        "root/.ssh/authorized_keys": (0o600, place.key.with_suffix(".pub").read_bytes()),
    }


def _archive(files: dict[str, tuple[int, bytes]]) -> bytes:
    """Return a tar archive of these files, all root's. Directories that exist keep their mode."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        private = tarfile.TarInfo("root/.ssh")
        private.type, private.mode = tarfile.DIRTYPE, 0o700
        archive.addfile(private)
        for name, (mode, content) in sorted(files.items()):
            member = tarfile.TarInfo(name)
            member.mode, member.size = mode, len(content)
            member.mtime = int(time.time())  # nsd takes a zone file from 1970 for one it has read
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def _options(lab: str, host: Host) -> list[str]:
    """Return how the container is run."""
    options = [
        "--privileged",
        "--systemd=always",
        *_LIMITS,
        f"--network=ns:{NETNS_DIRECTORY / container_name(lab, host)}",
        f"--hostname={host.name}",
        "--dns=none",
        "--no-hosts",
        f"--stop-timeout={STOP_WAIT}",
        f"--label=dn42-lab={lab}",
    ]
    if "node" in host.trees:
        options.append(f"--volume={container_name(lab, host)}-docker:/var/lib/docker")
        options.append(f"--volume={BASE.archive}:/srv/images/{BASE.name}.tar:ro")
    return options


def recipe_digest(lab: str, host: Host) -> str:
    """Return the content hash of all that makes the host: image, files, options, login key."""
    files = {name: (mode, content.hex()) for name, (mode, content) in _given(host).items()}
    key = Place(lab).key.with_suffix(".pub").read_text(encoding="utf-8")
    whole = [RECIPES[host.image].reference, files, _options(lab, host), nameservers(), key]
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:12]


def state(lab: str, host: Host) -> str:
    """Return 'running', 'stopped', 'broken' or 'absent'.

    podman's word that a container runs is checked: it may be from before a reboot or a crash, or
    the container may live in a network namespace that is no longer the host's.
    """
    known = podman.inspect(container_name(lab, host))
    if known is None:
        return "absent"
    if known["State"]["Status"] in ("exited", "stopped"):
        return "stopped"
    if known["State"]["Status"] != "running":  # such as 'created': a killed run never filled it
        return "broken"
    try:
        inside = os.stat(f"/proc/{known['State']['Pid']}/ns/net").st_ino
        outside = os.stat(NETNS_DIRECTORY / container_name(lab, host)).st_ino
    except OSError:
        return "broken"
    return "running" if inside == outside else "broken"


def same_recipe(lab: str, host: Host) -> bool:
    """Tell whether an existing host was made from what this checkout would make it from."""
    known = podman.inspect(container_name(lab, host)) or {"Config": {}}
    labels = known["Config"].get("Labels") or {}
    return labels.get("dn42-lab.recipe") == recipe_digest(lab, host)


def remove(lab: str, host: Host) -> None:
    """Remove a host's container and everything on its volume."""
    run(["podman", "rm", "--force", "--time=2", "--volumes", container_name(lab, host)], check=False)
    run(["podman", "volume", "rm", "--force", f"{container_name(lab, host)}-docker"], check=False)


def create(lab: str, host: Host) -> None:
    """Create a host's container and put its files in place; it is not started."""
    name = container_name(lab, host)
    remove(lab, host)
    if "node" in host.trees:
        run(["podman", "volume", "create", f"--label=dn42-lab={lab}", f"{name}-docker"])
    digest = f"--label=dn42-lab.recipe={recipe_digest(lab, host)}"
    image = RECIPES[host.image].reference
    run(["podman", "create", "--name", name, *_options(lab, host), digest, image, "/sbin/init"])
    files = {**_given(host), **_identity(lab, host)}
    run(["podman", "cp", "-", f"{name}:/"], stdin=_archive(files))


def start(lab: str, host: Host) -> None:
    """Start a host that exists."""
    run(["podman", "start", container_name(lab, host)])


def stop(lab: str, host: Host) -> None:
    """Shut a host down the way a machine is: systemd stops everything, the namespace ends."""
    run(["podman", "stop", container_name(lab, host)], timeout=STOP_WAIT + 30)
    network.delete_netns(container_name(lab, host))


def kill(lab: str, host: Host) -> None:
    """End a host without a word, as a power cut would."""
    run(["podman", "kill", container_name(lab, host)])
    # One that podman still believes to run would be made anew when it is started.
    run(["podman", "wait", container_name(lab, host)], timeout=60)
    network.delete_netns(container_name(lab, host))


def wait(lab: str, host: Host) -> str:
    """Wait until systemd has started everything and sshd answers; return what systemd calls it.

    Raises LabError when that takes longer than BOOT_WAIT.
    """
    name = container_name(lab, host)
    last = ""

    def ready() -> bool:
        nonlocal last
        last = podman.execute(name, "systemctl", "is-system-running", check=False)
        return last in ("running", "degraded") and _sshd_answers(lab, host)

    if not wait_until(ready, BOOT_WAIT):
        raise LabError(f"{host.name} is not ready after {BOOT_WAIT} s (systemd says: {last})")
    if last == "degraded":
        failed = podman.execute(name, "systemctl", "--failed", "--plain", "--no-legend", check=False)
        last += ": " + ", ".join(line.split()[0] for line in failed.splitlines() if line)
    return last


def _sshd_answers(lab: str, host: Host) -> bool:
    """Ask from the lab's Internet, in a child: a process does not come back from a namespace."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            setns(NETNS_DIRECTORY / network.netns_name(lab, "internet"), CLONE_NEWNET)
            with socket.create_connection((host.ipv4, 22), timeout=2) as connection:
                connection.settimeout(5)
                status = 0 if connection.recv(4) == b"SSH-" else 1
        except (OSError, LabError):
            pass
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1] == 0
