# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The node's release program: how it comes onto the node, how it is started, how a module waits for it.

    <directory>/lib/release.pyz                 the module utils of the cycle, as one file that Python can run
    /etc/systemd/system/dn42-release.service    undoes an unconfirmed release at boot and whenever Docker starts
    dn42-release-<name>.service                 one release at work; transient, gone when it is done

systemd keeps the cycle apart from the connection that asked for it, ends it at its deadline, and heals after it, however it ended.
Runs on nodes: Python 3.9, standard library only.

This module util is PRIVATE to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import io
import sys
import time
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from ansible_collections.dn42.compose.plugins.module_utils import (
    _node_health,
    _release,
    _release_cycle,
    _release_files,
    _release_history,
    _release_network,
    _release_request,
    _release_transaction,
)
from ansible_collections.dn42.compose.plugins.module_utils._release_files import sha256, write_atomically

PROGRAM: Sequence[ModuleType] = (_node_health, _release, _release_cycle, _release_files, _release_history, _release_network, _release_request, _release_transaction)
PACKAGE = "ansible_collections/dn42/compose/plugins/module_utils"
MAIN = "import sys\nfrom ansible_collections.dn42.compose.plugins.module_utils._release_cycle import main\nsys.exit(main(sys.argv[1:]))\n"
UNIT = Path("/etc/systemd/system/dn42-release.service")
# Beyond the waits that are declared: for checks, for Compose, for stopping containers (seconds).
SLACK = 600
# When a release has made a node worse: options of the modules release and release_rollback, documented in a fragment of the name.
TOLERANCE_SPEC: Dict[str, Any] = {
    "confirm_seconds": {"type": "int", "default": 180},
    "lost_sessions": {"type": "int", "default": 0},
    "lost_routes": {"type": "int", "default": 50},
}
GONE_AFTER = 5.0  # seconds without a unit and without a result

Runner = Callable[[Sequence[str]], Tuple[int, str, str]]


def program() -> bytes:
    """The release program as a zip that Python can run; equal bytes for equal sources."""
    parts = PACKAGE.split("/")
    files = {f"{'/'.join(parts[: depth + 1])}/__init__.py": "" for depth in range(len(parts))}
    files["__main__.py"] = MAIN
    for module in PROGRAM:
        loader: Any = module.__spec__.loader  # type: ignore[union-attr]  # of a zip or of files
        files[f"{PACKAGE}/{module.__name__.rpartition('.')[2]}.py"] = loader.get_source(module.__name__)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, source in sorted(files.items()):
            archive.writestr(zipfile.ZipInfo(name), source)
    return buffer.getvalue()


def unit(directory: Path, python: str) -> bytes:
    """The unit that heals at boot and after Docker's start."""
    return f"""\
# Written by the collection dn42.compose; the next run replaces changes made here.
[Unit]
Description=Undo a DN42 release that was never confirmed
After=docker.service
ConditionPathExistsGlob=|{directory}/.transaction*
ConditionPathExistsGlob=|{directory}/.incoming-*
StartLimitIntervalSec=0

[Service]
Type=oneshot
Environment=HOME=/root LC_ALL=C.UTF-8
ExecStart={python} -I {directory}/lib/release.pyz heal {directory}
TimeoutStartSec={SLACK * 2}
Restart=on-failure
RestartSec=15

[Install]
WantedBy=docker.service multi-user.target
""".encode()


def missing_parts(directory: Path) -> List[str]:
    """What of the release program is not on the node as it should be."""
    found = []
    for path, content in wanted_files(directory).items():
        if not path.is_file() or path.read_bytes() != content:
            found.append(f"{path} is {'not as it should be' if path.exists() else 'missing'}")
    return found


def wanted_files(directory: Path) -> Dict[Path, bytes]:
    """{path: content} of the release program on the node."""
    return {directory / "lib" / "release.pyz": program(), UNIT: unit(directory, sys.executable)}


def install(directory: Path, run: Runner) -> None:
    """Put the release program and its unit onto the node. Raises ReleaseError, OSError."""
    before = sha256(UNIT)
    (directory / "lib").mkdir(mode=0o755, parents=True, exist_ok=True)
    for path, content in wanted_files(directory).items():
        if not path.is_file() or path.read_bytes() != content:
            write_atomically(path, content, 0o644)
    if sha256(UNIT) == before:
        return
    for command in (["systemctl", "daemon-reload"], ["systemctl", "enable", UNIT.name]):
        code, out, err = run(command)
        if code != 0:
            raise _release.ReleaseError(f"`{' '.join(command)}` failed; the node goes on as before:\n{(out + err).strip()}")


def seconds(declared: Mapping[str, Any]) -> int:
    """The waits that a release declares: for the lock, for healthy containers on the way there and back, to confirm both."""
    return int(_release.LOCK_WAIT) + 3 * int(declared["wait"]) + 2 * int(declared["confirm"]["seconds"])


def told(module: Any, result: Dict[str, Any]) -> Dict[str, Any]:
    """What the release program answered as the result of a module (AnsibleModule), which it fails where the release failed."""
    for warning in result.pop("warnings", []):
        module.warn(warning)
    if result.pop("failed"):
        module.fail_json(**result)
    return {"changed": True, **result}


def ask(directory: Path, asked: Mapping[str, Any], archive: Optional[bytes], seconds: int, run: Runner) -> Dict[str, Any]:
    """Have the node's release program do something and wait for its result. seconds: the waits that the request declares.

    Raises ReleaseError, OSError; then nothing was begun.
    """
    install(directory, run)
    request = _release_request.Request.create(directory, asked, archive)
    name = f"dn42-release-{request.path.name[len(_release_request.PREFIX) :]}.service"
    pyz = directory / "lib" / "release.pyz"
    properties = {
        "Description": "Release to this DN42 node",
        "After": "docker.service",
        "Environment": "HOME=/root LC_ALL=C.UTF-8",
        "RuntimeMaxSec": str(seconds + SLACK),
        "TimeoutStopSec": str(seconds + SLACK),
        # However the process ends, also by SIGKILL: what it left unconfirmed is undone.
        "ExecStopPost": f"{sys.executable} -I {pyz} heal {directory}",
    }
    command = ["systemd-run", f"--unit={name}", "--collect", "--quiet", "--no-block", *[f"--property={key}={value}" for key, value in properties.items()]]
    try:
        code, out, err = run([*command, sys.executable, "-I", str(pyz), "run", str(request.path)])
        if code != 0:
            raise _release.ReleaseError(f"systemd did not start the release; the node goes on as before:\n{(out + err).strip()}")
        # What it says of an undone release is told again by the next run: a module outlives the controller that would have heard it.
        return _wait(request, name, run)
    finally:
        request.remove()


def _wait(request: _release_request.Request, name: str, run: Runner) -> Dict[str, Any]:
    """The result of a request that a unit is at work on."""
    alive = looked = time.monotonic()
    while True:
        result = request.result()
        if result is not None:
            return result
        now = time.monotonic()
        if now - looked > 1:
            looked = now
            state = run(["systemctl", "is-active", name])[1].strip()
            alive = now if state in ("active", "activating", "reloading", "deactivating") else alive
        if now - alive > GONE_AFTER:
            reason = f"The release's process ended before it had a result (journalctl --unit {name}). What was not confirmed is undone by the node itself"
            return {"failed": True, "msg": f"{reason}; run again."}
        time.sleep(0.1)
