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
  - A release that leaves the node worse than it was is undone by the node itself, also when the controller or its connection dies
    on the way. It runs as a systemd unit of the node; the module only waits for its result.
extends_documentation_fragment: dn42.compose.release_tolerances
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
  removal_limit:
    description: Percent of the node's tunnels that a release may remove without O(allow_removal). Up to two may go in any case.
    type: int
    default: 50
  allow_removal:
    description: Whether a release may remove as many tunnels as it likes.
    type: bool
    default: false
  network_only:
    description:
      - Only tell whether a release would make the Docker network anew, and refuse what it would refuse. Changes nothing, and needs
        neither O(services) nor O(images).
    type: bool
    default: false
  known:
    description: >-
      What M(dn42.compose.host_facts) found of the node (C(host.stack)). With O(network_only), a network that is as declared then needs no
      question to the node.
    type: dict
  also:
    description: >-
      Modules that run on the node in the same exchange, in check mode: their options by name, as the option C(modules) of
      M(dn42.compose.together) takes them.
    type: dict
  inspected:
    description: >-
      What an earlier task of the same run returned as RV(inspected), where nothing but this release changes what it found. The node is not
      asked again when what is declared is the same.
    type: dict
  operation:
    description: Set by the action plugin.
    type: str
    choices: [inspect, inspect_network, apply]
  declared:
    description: Set by the action plugin, what the node should have.
    type: dict
  archive:
    description: Set by the action plugin, the archive to apply in Base64.
    type: str
  who:
    description: Set by the action plugin, who releases from where, for the node's history.
    type: str
  what:
    description: Set by the action plugin, what differed, for the node's history.
    type: list
    elements: str
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
also:
  description: The results of the modules that were asked for with O(also), by name.
  returned: when asked for
  type: dict
inspected:
  description: What was compared and what was found, for a later task's O(inspected).
  returned: when something differs
  type: dict
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
release:
  description: Name of the node's release, a hash over C(compose.yaml) and the configuration of all services.
  returned: when something was changed
  type: str
  sample: 0123456789ab
undone:
  description: Whether the release was undone.
  returned: when the release failed after it had begun
  type: bool
report:
  description: What got worse, line by line.
  returned: when the release failed after it had begun
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dn42.compose.plugins.module_utils._modules import release


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=release.ARGUMENT_SPEC, supports_check_mode=True)
    module.exit_json(**release.run(module))


if __name__ == "__main__":
    main()
