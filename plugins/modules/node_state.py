#!/usr/bin/python
# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: node_state
short_description: Read what a node is like at this moment
description:
  - Reads containers, sessions, tunnels, addresses and the resolver, and compares the guard's files and its loaded table with what is
    declared. Changes nothing.
author:
  - the dn42.compose contributors
attributes:
  check_mode:
    description: Reads in check mode as well.
    support: full
  diff_mode:
    description: There is nothing to compare.
    support: none
options:
  containers:
    description: Names of the node's containers.
    type: list
    elements: str
    default: []
  resolver:
    description: Addresses of the node's resolver by family, C(ipv4) and C(ipv6). Empty for none.
    type: dict
    default: {}
  files:
    description: Declared files with their contents, by path.
    type: dict
    default: {}
  guard:
    description: The file with the guard's rules. Its table is compared with the one that is loaded.
    type: path
  guard_rules:
    description:
      - Declared content of the file O(guard), by the IPv6 check of firewalld that the guard makes in its place; the empty name is for none.
      - Empty when the file is among O(files), or not compared.
    type: dict
    default: {}
  guard_check:
    description: The name in O(guard_rules) that counts. In one exchange with M(dn42.compose.firewalld_settings) it is what that found.
    type: str
    default: ""
  units:
    description: Units that have to be active, and enabled unless another one brings them.
    type: list
    elements: str
    default: []
  absent:
    description: Files that must not be there.
    type: list
    elements: str
    default: []
  before:
    description: An earlier C(reading). The module fails where the node is worse now.
    type: dict
  name:
    description: The node's name, for the message of O(before).
    type: str
    default: the node
  changed:
    description: The nodes that were changed since O(before), for its message.
    type: list
    elements: str
    default: []
  lost_sessions:
    description: How many sessions may be lost, with O(before).
    type: int
    default: 0
  lost_routes:
    description: Percent of a session's routes of one family that may be gone, with O(before).
    type: float
    default: 50
  sessions:
    description: Sessions that are to be up, with O(before). Others are about to leave, or were shut down on purpose, and are not compared.
    type: list
    elements: str
    default: []
  tunnels:
    description: Tunnels that are to be there, with O(before). Others are about to leave and are not compared.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Read the node
  dn42.compose.node_state:
    containers: [dn42-router, dn42-dns]
    resolver: {ipv4: 172.23.255.4}
    guard: /etc/dn42/guard.nft
    units: [dn42-guard.service]

- name: Fail where the node is worse than before
  dn42.compose.node_state:
    containers: [dn42-router, dn42-dns]
    before: "{{ before.reading }}"
"""

RETURN = r"""
reading:
  description: Containers, sessions, tunnels, keeper, resolver, addresses, and problems of reading.
  returned: success
  type: dict
resolver:
  description: What was given as O(resolver), for the next reading.
  returned: success
  type: dict
files:
  description: Those of O(files) that are missing or have other contents, and those of O(absent) that are there.
  returned: success
  type: list
  elements: str
guard:
  description: V(same), V(differs) or V(missing).
  returned: when O(guard) is given
  type: str
units:
  description: Those of O(units) that are not active and enabled, and what they are.
  returned: success
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dn42.compose.plugins.module_utils._modules import node_state


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=node_state.ARGUMENT_SPEC, supports_check_mode=True)
    module.exit_json(**node_state.run(module))


if __name__ == "__main__":
    main()
