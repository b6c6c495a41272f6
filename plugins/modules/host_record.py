#!/usr/bin/python
# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: host_record
short_description: Write down how a host was before it became a node
description:
  - Writes C(/etc/dn42/found.json) before anything else is changed, and never again. M(dn42.compose.node_removal) puts the host back to it.
  - What firewalld and C(daemon.json) were is remembered by M(dn42.compose.firewalld_settings) and M(dn42.compose.docker_daemon).
author:
  - the dn42.compose contributors
attributes:
  check_mode:
    description: Says whether the record would be written.
    support: full
  diff_mode:
    description: Shows the record.
    support: full
options:
  directory:
    description:
      - The node's directory. Where it has a C(compose.yaml) the host is a node already, and what is written down is how it is now.
    type: path
    default: /opt/dn42
"""

EXAMPLES = r"""
- name: Write down how the host was
  dn42.compose.host_record:
"""

RETURN = r"""
found:
  description: The record.
  returned: when it is written
  type: dict
"""

import os
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dn42.compose.plugins.module_utils import _found_host as found_host
from ansible_collections.dn42.compose.plugins.module_utils._release import write_atomically


def read_numbers(pattern: str) -> dict[str, int]:
    """{interface: value} of a sysctl that each interface has; `pattern` is a glob below /proc/sys/net."""
    found = {}
    for path in sorted(Path("/proc/sys/net").glob(pattern)):
        try:
            found[path.parent.name] = int(path.read_text())
        except (OSError, ValueError):
            continue
    return found


def image_tags(module: AnsibleModule) -> list[str]:
    """The tags of all images, none where Docker is absent or does not run: asking would start it."""
    docker = module.get_bin_path("docker")
    if not docker or module.run_command(["systemctl", "is-active", "--quiet", "docker.service"])[0] != 0:
        return []
    return sorted(module.run_command([docker, "image", "ls", "--format", "{{.Repository}}:{{.Tag}}"])[1].split())


def main() -> None:
    """Write the record where there is none."""
    module = AnsibleModule(argument_spec={"directory": {"type": "path", "default": "/opt/dn42"}}, supports_check_mode=True)
    record = Path(found_host.RECORD)
    if record.exists():
        module.exit_json(changed=False)
    own = Path(found_host.OWN_DIRECTORY)
    found = {
        "node_already": (Path(module.params["directory"]) / "compose.yaml").exists(),
        "own_directory": sorted(os.listdir(own)) if own.is_dir() else [],
        "missing_directories": [path for path in found_host.SHARED_DIRECTORIES if not os.path.isdir(path)],
        "docker": module.get_bin_path("dockerd") is not None,
        "nftables": module.get_bin_path("nft") is not None,
        "images": image_tags(module),
        "accept_ra": read_numbers("ipv6/conf/*/accept_ra"),
        "ipv6_forwarding": read_numbers("ipv6/conf/*/forwarding").get("all", 0),
    }
    if found["node_already"]:
        # What lies there by now is ours, and what the settings were before us is not known.
        found.update(own_directory=None, accept_ra={}, images=None)
    text = found_host.write_record(found)
    if not module.check_mode:
        own.mkdir(mode=0o755, parents=True, exist_ok=True)
        write_atomically(record, text.encode(), 0o644)
    module.exit_json(changed=True, found=found, diff={"before_header": str(record), "after_header": str(record), "before": "", "after": text})


if __name__ == "__main__":
    main()
