#!/usr/bin/python
# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: network_model
short_description: Read the inventory of all nodes as the network it describes
description:
  - Reads the C(dn42_*) variables of every host in the group C(dn42_nodes), whatever C(--limit) says, and checks them.
  - Reports all faults at once, each with host, key, the value as written and what would be right.
  - Is an action plugin and runs on the controller alone.
author:
  - the dn42.compose contributors
attributes:
  check_mode:
    description: Changes nothing.
    support: full
  diff_mode:
    description: Changes nothing.
    support: none
options:
  plan:
    description: Result of M(dn42.compose.address_blocks). Without it the inventory is only read and checked.
    type: dict
  public_keys:
    description: Public key of each node. A node without one has no internal tunnels yet.
    type: dict
  check_options:
    description: Check the C(dn42_*) options of every role as well, and refuse options that no role has.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Read the inventory
  dn42.compose.network_model:
    check_options: true
  run_once: true
  register: __dn42_inventory
"""

RETURN = r"""
nodes:
  description:
    - The model of each node, which templates see as C(dn42).
    - Without a plan, what the inventory says of each node.
  returned: success
  type: dict
prefixes:
  description: The operator's registered prefixes of both families.
  returned: success
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule


def main() -> None:
    """The action plugin of the same name does the work; it never sends this module."""
    spec = {"plan": {"type": "dict"}, "public_keys": {"type": "dict"}, "check_options": {"type": "bool", "default": False}}
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    module.fail_json(msg="dn42.compose.network_model runs as an action plugin on the controller")


if __name__ == "__main__":
    main()
