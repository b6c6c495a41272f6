# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""podman with a storage, a configuration and locks of the lab's own: a user's podman is untouched."""

from __future__ import annotations

import json
import os
from typing import Any, Optional

from .facts import RUNTIME, STATE
from .shell import output, run

CONFIGURATION = f"""\
[containers]
log_size_max = 10485760

[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
lock_type = "file"
runtime = "crun"
tmp_dir = "{RUNTIME}/libpod"

[network]
network_backend = "netavark"
"""
STORAGE = f"""\
[storage]
driver = "overlay"
graphroot = "{STATE}/podman"
runroot = "{RUNTIME}/containers"
"""


def configure() -> None:
    """Point every podman that this process starts at the lab's own state."""
    for variable, name, text in (
        ("CONTAINERS_CONF", "containers.conf", CONFIGURATION),
        ("CONTAINERS_STORAGE_CONF", "storage.conf", STORAGE),
    ):
        path = RUNTIME / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
        os.environ[variable] = str(path)
    for variable in ("CONTAINER_HOST", "XDG_RUNTIME_DIR", "XDG_DATA_HOME", "STORAGE_DRIVER"):
        os.environ.pop(variable, None)


def image_exists(image: str) -> bool:
    """Tell whether the image is in the cache."""
    return run(["podman", "image", "exists", image], check=False).returncode == 0


def inspect(container: str) -> Optional[dict[str, Any]]:
    """Return what podman knows of a container, None when there is none of that name."""
    result = run(["podman", "container", "inspect", container], check=False)
    return json.loads(result.stdout)[0] if result.returncode == 0 else None


def containers(lab: str = "") -> list[str]:
    """Return the names of a lab's containers, of all labs without a name."""
    wanted = f"label=dn42-lab={lab}" if lab else "label=dn42-lab"
    return sorted(output(["podman", "ps", "-a", "--filter", wanted, "--format", "{{.Names}}"]).split())


def volumes(lab: str) -> list[str]:
    """Return the names of a lab's volumes."""
    return sorted(output(["podman", "volume", "ls", "--filter", f"label=dn42-lab={lab}", "--format", "{{.Name}}"]).split())


def execute(container: str, *argv: str, check: bool = True, timeout: float = 60) -> str:
    """Run a command in a container and return what it printed."""
    return output(["podman", "exec", container, *argv], check=check, timeout=timeout)
