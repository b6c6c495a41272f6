#!/usr/bin/python
# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: settings merged into Docker's daemon.json, in force when it ends or undone."""

from __future__ import annotations

DOCUMENTATION = r"""
module: docker_daemon
short_description: Merge settings into Docker's daemon.json and see them in force
version_added: 0.1.0
description:
  - Merges settings into C(daemon.json). Everything else in the file stays byte for byte, and a file that is not valid JSON is
    refused with line and column.
  - The new file is checked with C(dockerd --validate) and the flags Docker runs with, the old one is kept beside it, and it is put
    back when Docker does not come back with the new one.
  - Docker is reloaded or restarted only for settings that the running daemon lacks. That is found out from the daemon, so a run
    that ended between writing and restarting is completed by the next.
  - A setting of an earlier run that is wanted no more is taken back, unless somebody changed it meanwhile.
author:
  - the dn42.compose contributors (@dn42-compose)
options:
  options:
    description:
      - Settings as in C(daemon.json). Objects are merged, lists and other values replace what is there.
      - What the installed version of Docker needs besides is added, what it has by default is not written.
    type: dict
    default: {}
  address_pools:
    description:
      - Pools for Docker's own choice of subnets, added behind those that the file has already; one that shares addresses with
        such a one is left out.
    type: list
    elements: dict
    default: []
    suboptions:
      base:
        description: The pool as a prefix, outside of DN42.
        type: str
        required: true
      size:
        description: Length of each network cut out of it.
        type: int
        required: true
  own_prefixes:
    description:
      - The operator's own DN42 prefixes, which no pool may contain.
    type: list
    elements: str
    default: []
  restart:
    description:
      - Whether Docker may be restarted. With V(forbidden) a setting that needs it is refused before anything is written.
    type: str
    choices: [allowed, forbidden]
    default: allowed
  path:
    description:
      - The file, unless the running daemon was given another one with C(--config-file).
    type: path
    default: /etc/docker/daemon.json
  memory_path:
    description:
      - File on the host that remembers which settings are not the user's own.
    type: path
    default: /etc/dn42/docker.json
requirements:
  - Docker Engine 23 or newer for C(dockerd --validate), systemd
attributes:
  check_mode:
    support: full
    description: Can predict what would change without changing it, also on a host without Docker.
  diff_mode:
    support: full
    description: Shows the file before and after. Credentials in URLs are masked.
notes:
  - Without a Docker that is installed the file is only written. A Docker that is stopped is started when the file changes.
"""

EXAMPLES = r"""
- name: Keep containers running while Docker restarts, and logs small
  dn42.compose.docker_daemon:
    options:
      live-restore: true
      log-opts:
        max-size: 10m

- name: Let Docker choose subnets outside of DN42
  dn42.compose.docker_daemon:
    address_pools:
      - base: 192.168.128.0/18
        size: 24
"""

RETURN = r"""
version:
  description: Version of the installed Docker, empty without one.
  returned: success
  type: str
actions:
  description: What was done (in check mode, would be done), item by item.
  returned: success
  type: list
  elements: str
reloaded:
  description: Settings for which Docker was (would be) reloaded.
  returned: success
  type: list
  elements: str
restarted:
  description: Settings for which Docker was (would be) restarted.
  returned: success
  type: list
  elements: str
interrupted:
  description:
    - Running containers that the restart interrupts, with C(name) and C(returns) (whether their restart policy brings them back).
      None with C(live-restore).
  returned: success
  type: list
  elements: dict
backup:
  description: Where the file from before was kept, null when there was none or it did not change.
  returned: success
  type: str
notices:
  description: What works but may surprise; also given as warnings.
  returned: success
  type: list
  elements: str
msg:
  description: What was done and why, in a sentence.
  returned: success
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dn42.compose.plugins.module_utils._modules import docker_daemon


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=docker_daemon.ARGUMENT_SPEC, supports_check_mode=True)
    module.exit_json(**docker_daemon.run(module))


if __name__ == "__main__":
    main()
