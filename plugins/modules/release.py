#!/usr/bin/python
# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: release
short_description: Give a node the configuration that its inventory describes
description:
  - Renders the whole configuration of a node on the controller, asks the node once what it has, and sends one archive with what differs.
    The cost does not depend on the number of peers, services or files.
  - A release is checked by the images that will run it before it counts, and what can reload is never restarted.
author:
  - the dn42.compose contributors
attributes:
  check_mode:
    description: Reports what would change and changes nothing.
    support: full
  diff_mode:
    description: Shows a difference for each file. Secret files are named and never shown.
    support: full
options:
  services:
    description: Names of the service roles that the node runs.
    type: list
    elements: str
  model:
    description: The node as C(dn42.compose.network_model) describes it. Templates see it as C(dn42).
    type: dict
  images:
    description: Tag of the image for each service role, as C(dn42.compose.service_images) returns it.
    type: dict
  directory:
    description: Directory on the node that holds everything.
    type: path
  project:
    description: Name of the Docker Compose project.
    type: str
  bridge:
    description: Name of the Docker network's bridge on the host.
    type: str
  wait:
    description: Seconds that containers may take to become healthy.
    type: int
    default: 120
  renumber:
    description:
      - Whether containers that run may be removed, the Docker network made anew and everything started again, when the network is not
        as declared. Docker cannot change a network in place. Without it such a run refuses the node before anything is changed.
      - A node none of whose containers runs needs no permission. Containers of others in the network are named and refused in any case.
    type: bool
    default: false
  network_only:
    description:
      - Only tell whether a release would make the Docker network anew, and refuse what it would refuse. Changes nothing, and needs
        neither O(services) nor O(images).
    type: bool
    default: false
  operation:
    description: Set by the action plugin.
    type: str
    choices: [inspect, inspect_network, apply]
  declared:
    description: Set by the action plugin, what the node should have.
    type: dict
  archive:
    description: Set by the action plugin, path on the node of the archive to apply.
    type: path
"""

EXAMPLES = r"""
- name: See whether the release would renumber the node, and refuse that
  dn42.compose.release:
    network_only: true
    model: "{{ __dn42_network.nodes[inventory_hostname] }}"
    directory: /opt/dn42
    project: dn42
    bridge: br-dn42

- name: Release the node's configuration
  dn42.compose.release:
    services: [router, dns]
    model: "{{ __dn42_network.nodes[inventory_hostname] }}"
    images: "{{ __dn42_stack_images.images }}"
    directory: /opt/dn42
    project: dn42
    bridge: br-dn42
"""

RETURN = r"""
changes:
  description: What differed from the declared release, in words.
  returned: always
  type: list
  elements: str
  sample: [router/bird.conf]
done:
  description: What was done to the node.
  returned: when something was changed
  type: list
  elements: str
  sample: [router switched to 0123456789abcdef, router reloaded]
"""

from typing import List, Sequence, Tuple

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dn42.compose.plugins.module_utils._release import Node, ReleaseError


def main() -> None:
    """Inspect the node, or apply the release that was sent."""
    module = AnsibleModule(
        argument_spec={
            "services": {"type": "list", "elements": "str"},
            "model": {"type": "dict"},
            "images": {"type": "dict"},
            "directory": {"type": "path"},
            "project": {"type": "str"},
            "bridge": {"type": "str"},
            "wait": {"type": "int", "default": 120},
            "renumber": {"type": "bool", "default": False},
            "network_only": {"type": "bool", "default": False},
            "operation": {"type": "str", "choices": ["inspect", "inspect_network", "apply"]},
            "declared": {"type": "dict"},
            "archive": {"type": "path"},
        },
        supports_check_mode=True,
    )

    def run(command: Sequence[str]) -> Tuple[int, str, str]:
        code, out, err = module.run_command(list(command))
        return code, out, err

    node = Node(module.params["declared"], run, module.get_bin_path("docker"))
    try:
        if module.params["operation"] == "inspect":
            found = node.changes()
            module.exit_json(changed=bool(found), found=found)
        if module.params["operation"] == "inspect_network":
            change = node.network_change()
            module.exit_json(changed=False, found=[change] if change else [])
        done: List[str] = node.apply(module.params["archive"])
    except ReleaseError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=True, done=done)


if __name__ == "__main__":
    main()
