# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the lab program does, one function per command."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import socket
import sys
from collections.abc import Sequence

from . import hosts, images, machine, network, podman
from .facts import HOSTS, NETNS_DIRECTORY, RUNTIME, STATE, Host, LabError, find_host
from .hosts import Place
from .shell import Progress, lock, run


def _labs() -> list[str]:
    """Return the names of the labs that have state on the machine."""
    directory = STATE / "labs"
    return sorted(path.name for path in directory.iterdir()) if directory.exists() else []


def _settings(lab: str) -> dict[str, str]:
    path = Place(lab).directory / "settings.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # absent, or cut off by a killed run
        return {}


def _uplink(lab: str) -> str:
    """Return the lab's uplink subnet, chosen at the first call; the caller holds the machine's lock."""
    settings = _settings(lab)
    if "uplink" not in settings:
        taken = [_settings(other).get("uplink", "") for other in _labs()]
        settings["uplink"] = network.choose_uplink(taken)
        directory = Place(lab).directory
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        (directory / "settings.json").write_text(json.dumps(settings) + "\n", encoding="utf-8")
    return settings["uplink"]


def _open() -> None:
    """Make podman and the namespaces of running labs visible, or say that no lab can be running."""
    if not RUNTIME.exists() or not machine.enter():
        raise LabError("no lab is running on this machine; start one: tests/lab/lab up")
    podman.configure()


def _running(lab: str, name: str) -> Host:
    """Return a host that runs, or raise LabError."""
    host = find_host(name)
    if hosts.state(lab, host) != "running":
        raise LabError(f"{host.name} of lab {lab} is not running; start it: tests/lab/lab up")
    return host


def up(lab: str, names: Sequence[str]) -> None:
    """Build what is missing, start what is not running, wait until all answers."""
    wanted = [HOSTS[find_host(name).name] for name in names]
    recipes = images.needed([host.image for host in wanted])
    progress = Progress(3 + len(recipes) + 2 * len(wanted))
    with lock(f"lab-{lab}"):
        with lock("machine") as held:
            progress.step("machine: packages, sysctls, namespaces")
            machine.require()
            machine.prepare()
            podman.configure()
            for recipe in recipes:
                _image(recipe, progress, held)
            uplink = _uplink(lab)
        progress.step(f"the Internet of lab {lab}, with a way out through {uplink}.0/30")
        network.make_internet(lab, uplink, images.source_names())
        progress.step("keys")
        hosts.make_keys(lab, wanted)
        for host in wanted:
            _start(lab, host, progress)
        for host in wanted:
            progress.step(f"{host.name}: waiting for systemd and sshd")
            progress.detail(f"{hosts.wait(lab, host)}, {host.ipv4} {host.ipv6}")


def _image(recipe: images.Recipe, progress: Progress, held) -> None:  # held: the lock's file
    if images.cached(recipe):
        progress.step(f"image {recipe.name}: cached ({recipe.digest})")
    else:
        progress.step(f"image {recipe.name}: building ({len(recipe.packages)} packages asked for)")
        images.build(recipe, progress, held)


def _start(lab: str, host: Host, progress: Progress) -> None:
    found = hosts.state(lab, host)
    if found in ("running", "stopped") and not hosts.same_recipe(lab, host):
        found = "made from another recipe"
    if found == "running":
        progress.step(f"{host.name}: already running")
        network.make_host(lab, host)
        return
    progress.step(f"{host.name}: {found}, {'starting' if found == 'stopped' else 'creating'} it")
    if found != "stopped":
        hosts.remove(lab, host)
    network.delete_netns(hosts.container_name(lab, host))
    network.make_host(lab, host)
    if found != "stopped":
        hosts.create(lab, host)
    hosts.start(lab, host)


def down(lab: str) -> None:
    """Remove everything that belongs to one lab."""
    with lock(f"lab-{lab}"), lock("machine"):
        if (STATE / "podman").exists():
            machine.open_namespace()
            podman.configure()
            _remove(lab)
        _remove_outside(lab)
    print(f"lab {lab} is gone")


def _remove(lab: str) -> None:
    """Remove what a lab has inside of the mount namespace."""
    if shutil.which("podman"):
        for name in podman.containers(lab):
            print(f"removing {name}", flush=True)
            run(["podman", "rm", "--force", "--time=2", "--volumes", name])
        for name in podman.volumes(lab):
            run(["podman", "volume", "rm", "--force", name])
    for host in HOSTS.values():
        network.delete_netns(hosts.container_name(lab, host))
    network.delete_internet(lab)


def _remove_outside(lab: str) -> None:
    """Remove what a lab has in the machine's own namespaces and on disk."""
    network.remove_uplink(lab)
    machine.remove_tree(Place(lab).directory)


def purge() -> None:
    """Remove all labs, the image cache, the mount namespace, and restore the sysctls."""
    RUNTIME.mkdir(mode=0o711, parents=True, exist_ok=True)
    with contextlib.ExitStack() as held:
        labs = sorted({*_labs(), *network.labs_with_rules()})
        for lab in labs:
            held.enter_context(lock(f"lab-{lab}"))
        held.enter_context(lock("machine"))
        child = os.fork()  # the parent stays outside of the mount namespace, to be able to end it
        if child == 0:
            os._exit(_guarded(_purge_inside, labs))
        if os.waitpid(child, 0)[1] != 0:
            raise LabError("not everything could be removed, see above")
        for lab in labs:
            _remove_outside(lab)
        for line in machine.restore_sysctls():
            print(line)
        _purge_outside()


def _guarded(function, *arguments) -> int:
    try:
        function(*arguments)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    finally:
        sys.stdout.flush()
    return 0


def _purge_inside(labs: Sequence[str]) -> None:
    if not machine.enter():
        return
    podman.configure()
    for lab in labs:
        _remove(lab)
    if shutil.which("podman") and (STATE / "podman").exists():
        for name in podman.containers():  # of labs whose directory is gone
            run(["podman", "rm", "--force", "--time=2", "--volumes", name])
            network.delete_netns(name)
        run(["podman", "volume", "prune", "--force"])
        run(["podman", "rmi", "--all", "--force"])
    machine.remove_tree(STATE / "podman")


def _purge_outside() -> None:
    for name in ("podman", "images", "build", "labs"):
        machine.remove_tree(STATE / name)
    for name in ("containers", "libpod"):
        machine.remove_tree(RUNTIME / name)
    if not machine.drop_mount_namespace():
        print(f"{machine.MOUNT_NAMESPACE} stays: something that is not of a lab still runs in it")
        return
    machine.remove_tree(RUNTIME)
    with contextlib.suppress(OSError):  # somebody else's files are left alone
        STATE.rmdir()
    print("no lab, no image and no setting of the lab is left")


def status() -> None:
    """Print every lab and its hosts."""
    labs = _labs()
    if not labs:
        print("no lab")
        return
    _open()
    for lab in labs:
        print(f"{lab} (out through {_settings(lab).get('uplink', '?')}.0/30)")
        for host in HOSTS.values():
            found = hosts.state(lab, host)
            if found != "absent":
                print(f"  {host.name:6} {found:13} {host.ipv4:14} {host.ipv6}")


def execute(lab: str, name: str, argv: Sequence[str]) -> None:
    """Become a command in a host; its exit status is ours."""
    _open()
    container = hosts.container_name(lab, _running(lab, name))
    terminal = ["--tty"] if sys.stdin.isatty() and sys.stdout.isatty() else []
    os.execvp("podman", ["podman", "exec", "--interactive", *terminal, container, *(argv or ["bash"])])


def reboot(lab: str, name: str) -> None:
    """Reboot a host: systemd shuts down, the network namespace is made anew, it starts again."""
    progress = Progress(3)
    with lock(f"lab-{lab}"):
        _open()
        host = _running(lab, name)
        progress.step(f"{host.name}: shutting down")
        hosts.stop(lab, host)
        progress.step(f"{host.name}: starting in a new network namespace")
        network.make_host(lab, host)
        hosts.start(lab, host)
        progress.step(f"{host.name}: waiting for systemd and sshd")
        progress.detail(hosts.wait(lab, host))


def kill(lab: str, name: str) -> None:
    """End a host at once: nothing is told to anybody, its network is gone. `up` or `add` starts it again."""
    with lock(f"lab-{lab}"):
        _open()
        host = _running(lab, name)
        hosts.kill(lab, host)
        print(f"{host.name} is dead; it starts again by: tests/lab/lab add {host.name}")


def remove(lab: str, name: str) -> None:
    """Remove a host, running or not, and everything on it. `add` makes it anew, bare."""
    with lock(f"lab-{lab}"):
        _open()
        host = find_host(name)
        hosts.remove(lab, host)
        network.delete_netns(hosts.container_name(lab, host))
        print(f"{host.name} is gone")


def introduce(lab: str, node: str, public_key: str) -> None:
    """peer1's operator puts a node's public key into his configuration; nothing when he had it."""
    with lock(f"lab-{lab}"):
        _open()
        container = hosts.container_name(lab, _running(lab, "peer1"))
        argv = ["podman", "exec", container, "/usr/local/sbin/know-peer", node, public_key]
        result = run(argv, check=False)
        if result.returncode != 0:
            raise LabError(result.stderr.decode(errors="replace").strip())
        print(result.stdout.decode().strip())


def ssh_proxy(lab: str, address: str, port: int) -> None:
    """Connect stdin and stdout to a host, from the lab's Internet."""
    with contextlib.suppress(LabError):
        address = find_host(address).ipv4 if ":" not in address else address
    _enter_internet(lab)
    try:
        connection = socket.create_connection((address, port), timeout=10)
    except OSError as error:
        raise LabError(f"lab {lab}: {address} port {port}: {error}") from error
    connection.settimeout(None)
    _copy(connection)


def _enter_internet(lab: str) -> None:
    path = NETNS_DIRECTORY / network.netns_name(lab, "internet")
    if not machine.enter() or not path.exists():
        raise LabError(f"lab {lab} is not running; start it: tests/lab/lab up --name {lab}")
    machine.setns(path, machine.CLONE_NEWNET)


def _copy(connection: socket.socket) -> None:
    """Copy in both directions until the other side closes."""
    with selectors.DefaultSelector() as selector:
        selector.register(connection, selectors.EVENT_READ)
        selector.register(0, selectors.EVENT_READ)
        while True:
            for key, _ready in selector.select():
                if key.fileobj is connection:
                    data = connection.recv(65536)
                    if not data:
                        return
                    _write_all(1, data)
                    continue
                data = os.read(0, 65536)
                if data:
                    connection.sendall(data)
                else:
                    selector.unregister(0)
                    connection.shutdown(socket.SHUT_WR)


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
