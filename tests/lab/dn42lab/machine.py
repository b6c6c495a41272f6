# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The machine the lab runs on: packages, sysctls, the mount namespace, what a reboot left."""

from __future__ import annotations

import ctypes
import json
import os
import pathlib
import shutil

from .facts import MOUNT_NAMESPACE, RUNTIME, STATE, LabError
from .shell import output, run

# command -> Debian package that has it
REQUIRED = {
    "/usr/bin/podman": "podman",
    "/usr/bin/crun": "crun",
    "/usr/lib/podman/netavark": "netavark",
    "/usr/bin/mmdebstrap": "mmdebstrap",
    "/usr/sbin/nft": "nftables",
    "/usr/sbin/ip": "iproute2",
    "/usr/bin/ssh": "openssh-client",
    "/usr/bin/nsenter": "util-linux",
    "/usr/bin/mount": "mount",
    "/usr/share/keyrings/debian-archive-keyring.gpg": "debian-archive-keyring",
    "/etc/ssl/certs/ca-certificates.crt": "ca-certificates",
}
SYSCTL_FILE = STATE / "sysctl.json"
# Docker in the hosts raises these for the whole machine
_RAISED_BY_HOSTS = ("kernel/keys/root_maxbytes", "kernel/keys/root_maxkeys")
CGROUP = pathlib.Path("/sys/fs/cgroup")
CLONE_NEWNS = 0x00020000
CLONE_NEWNET = 0x40000000


def require() -> list[str]:
    """Install the Debian packages that are missing; return their names."""
    missing = sorted({package for path, package in REQUIRED.items() if not os.path.exists(path)})
    if missing:
        print(f"installing: {' '.join(missing)}", flush=True)
        environment = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q"]
        run([*environment, "update"], timeout=600)
        run([*environment, "install", "-y", "--no-install-recommends", *missing], timeout=1800)
    return missing


def setns(path: pathlib.Path, kind: int) -> None:
    """Move this process into the namespace behind path (os.setns is newer than Python 3.9)."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.setns(descriptor, kind) != 0:
            number = ctypes.get_errno()
            raise LabError(f"cannot enter {path}: {os.strerror(number)}")
    finally:
        os.close(descriptor)


def _mounted(path: pathlib.Path) -> bool:
    mounts = pathlib.Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    return any(line.split()[4] == str(path) for line in mounts)


def _mounts_below(directory: pathlib.Path) -> list[str]:
    mounts = pathlib.Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    points = [line.split()[4] for line in mounts]
    return [point for point in points if point == str(directory) or point.startswith(f"{directory}/")]


def remove_tree(directory: pathlib.Path) -> None:
    """Remove a directory of the lab's own. Never follows a mount: what is mounted below may be the
    machine's /dev, left by a killed run. Raises LabError when a mount cannot be undone."""
    for point in reversed(_mounts_below(directory)):
        run(["umount", point], check=False)
    left = _mounts_below(directory)
    if left:
        raise LabError(f"{directory} is not removed: still mounted: {' '.join(left)}")
    if directory.exists():
        shutil.rmtree(directory)


def _pure_cgroup2() -> bool:
    return (CGROUP / "cgroup.controllers").exists()


def enter() -> bool:
    """Enter the lab's mount namespace where there is one; return whether labs can run here now.

    A machine with pure cgroup v2 needs none.
    """
    if not _pure_cgroup2():
        if not _mounted(MOUNT_NAMESPACE):
            return False
        here = os.getcwd()
        setns(MOUNT_NAMESPACE, CLONE_NEWNS)
        os.chdir(here)
    return True


def prepare() -> None:
    """Make the machine able to run labs. The caller holds the machine's lock; safe to repeat."""
    STATE.mkdir(mode=0o711, parents=True, exist_ok=True)
    _load_modules()
    _raise_sysctl("fs/inotify/max_user_instances", 1024)
    _raise_sysctl("net/ipv4/ip_forward", 1)
    for key in _RAISED_BY_HOSTS:
        if (pathlib.Path("/proc/sys") / key).exists():
            _remember_sysctl(key)
    open_namespace()


def open_namespace() -> None:
    """Enter the lab's mount namespace, made when it is missing; the caller holds the machine's lock."""
    _forget_before_reboot()
    if not enter():
        _make_mount_namespace()
        enter()


def _boot_id() -> str:
    return pathlib.Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()


def _forget_before_reboot() -> None:
    """Where /run survives a reboot, what is in ours describes containers that are gone."""
    marker = RUNTIME / "boot-id"
    if RUNTIME.exists() and (not marker.exists() or marker.read_text(encoding="utf-8") != _boot_id()):
        for name in ("containers", "libpod"):
            remove_tree(RUNTIME / name)
    RUNTIME.mkdir(mode=0o711, parents=True, exist_ok=True)
    marker.write_text(_boot_id(), encoding="utf-8")


def _load_modules() -> None:
    """Hosts cannot load modules of the machine's kernel; a module that does not exist is no error."""
    if shutil.which("modprobe"):
        for module in ("br_netfilter", "overlay", "tun", "wireguard"):
            run(["modprobe", "--quiet", module], check=False)


def _make_mount_namespace() -> None:
    """crun and current systemd refuse hybrid cgroups: give them a mount namespace with pure v2."""
    if not _mounted(RUNTIME):  # a namespace can only be bound where mounts do not propagate
        run(["mount", "--bind", str(RUNTIME), str(RUNTIME)])
        run(["mount", "--make-private", str(RUNTIME)])
    MOUNT_NAMESPACE.touch()
    script = f"umount -R {CGROUP} && mount -t cgroup2 cgroup2 {CGROUP}"
    run(["unshare", f"--mount={MOUNT_NAMESPACE}", "sh", "-c", script])


def drop_mount_namespace() -> bool:
    """Give up the mount namespace (called from outside of it); False when somebody is still in it."""
    if _mounted(MOUNT_NAMESPACE):
        inode = os.stat(MOUNT_NAMESPACE).st_ino
        for process in pathlib.Path("/proc").glob("[0-9]*/ns/mnt"):
            try:
                if os.stat(process).st_ino == inode:
                    return False
            except OSError:  # ended in the meantime
                continue
        run(["umount", str(MOUNT_NAMESPACE)])
    if _mounted(RUNTIME):
        # Lazily: a command that was killed may be on its way out with a file open in there.
        run(["umount", "--lazy", str(RUNTIME)])
    return True


def _remembered() -> dict[str, str]:
    """Return the values from before the first lab since this boot."""
    if SYSCTL_FILE.exists():
        saved = json.loads(SYSCTL_FILE.read_text(encoding="utf-8"))
        if saved.pop("boot_id", None) == _boot_id():
            return saved
    return {}


def _remember_sysctl(key: str) -> int:
    """Write down the value a sysctl has, unless one from this boot is known; return today's value."""
    value = (pathlib.Path("/proc/sys") / key).read_text(encoding="utf-8").strip()
    saved = _remembered()
    if key not in saved:
        saved[key] = value
        text = json.dumps({"boot_id": _boot_id(), **saved}, indent=2, sort_keys=True)
        SYSCTL_FILE.write_text(text + "\n", encoding="utf-8")
    return int(value)


def _raise_sysctl(key: str, least: int) -> None:
    if _remember_sysctl(key) < least:
        (pathlib.Path("/proc/sys") / key).write_text(f"{least}\n", encoding="utf-8")


def restore_sysctls() -> list[str]:
    """Set the sysctls back to what they were; return what was done, one line each."""
    done = []
    for key, value in sorted(_remembered().items()):
        path = pathlib.Path("/proc/sys") / key
        if path.read_text(encoding="utf-8").strip() != value:
            path.write_text(value + "\n", encoding="utf-8")
            done.append(f"{key.replace('/', '.')} is {value} again")
    SYSCTL_FILE.unlink(missing_ok=True)
    return done


def nameservers() -> list[str]:
    """Return the IPv4 resolvers the machine uses; those of systemd-resolved in place of its stub."""
    for path in ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"):
        try:
            lines = pathlib.Path(path).read_text(encoding="utf-8").splitlines()
        except OSError:
            continue
        servers = [words[1] for words in map(str.split, lines) if words[:1] == ["nameserver"]]
        usable = [server for server in servers if ":" not in server and not server.startswith("127.")]
        if usable:
            return usable
    raise LabError("no IPv4 name server outside of 127.0.0.0/8 in /etc/resolv.conf: the lab's hosts need one")


def debian_architecture() -> str:
    """Return the machine's architecture as Debian and container images call it."""
    return output(["dpkg", "--print-architecture"])
