#!/usr/bin/python
# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: address_plan
short_description: Decide the addresses of every node of the inventory
description:
  - Puts together what the hosts of the group C(dn42_nodes) say about their addresses, whatever C(--limit) says, and decides
    all of them with one call of M(dn42.compose.address_blocks).
  - A node says C(dn42_address_plan_size) and C(dn42_address_plan_pin) in its own variables. Networks that are in use on it are
    taken from C(__dn42_host), the registered result of M(dn42.compose.host_facts), where this run has read it.
  - Is an action plugin. Delegate it to the controller.
author:
  - the dn42.compose contributors
attributes:
  check_mode:
    description: Decides exactly what a real run would, and writes nothing.
    support: full
  diff_mode:
    description: A table of what moves from where to where, and why.
    support: full
options:
  pools:
    description: As in M(dn42.compose.address_blocks).
    type: raw
    required: true
  offsets:
    description: As in M(dn42.compose.address_blocks).
    type: raw
  extra_holders:
    description: Holders that are no nodes, as the option O(dn42.compose.address_blocks#module:holders).
    type: raw
  release:
    description: As in M(dn42.compose.address_blocks).
    type: raw
  renumber:
    description: As in M(dn42.compose.address_blocks).
    type: raw
  reuse_held:
    description: As in M(dn42.compose.address_blocks).
    type: bool
  profile:
    description: As in M(dn42.compose.address_blocks).
    type: str
  domain:
    description: As in M(dn42.compose.address_blocks).
    type: raw
  store:
    description: As in M(dn42.compose.address_blocks). Without it the plan is the file at O(path).
    type: dict
  path:
    description: The plan file, where O(store) names none.
    type: path
  leaving:
    description: Nodes that leave; whatever blocks they hold are released.
    type: list
    elements: str
  adopt_network:
    description:
      - The name of a Docker network on the nodes, made before this collection came.
      - Its subnets inside the pools become the blocks of nodes that have none in the plan yet.
    type: str
"""

EXAMPLES = r"""
- name: Decide every node's addresses
  dn42.compose.address_plan:
    pools: "{{ dn42_pools }}"
    offsets: {gateway: 2, router: 3, dns: 4}
    path: "{{ inventory_dir }}/plan/addresses.yml"
  run_once: true
  delegate_to: localhost
  register: plan
"""

RETURN = r"""
blocks:
  description: This and all else is what M(dn42.compose.address_blocks) returns.
  returned: success
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule


def main() -> None:
    """The action plugin of the same name does the work; it never sends this module."""
    raw = {name: {"type": "raw"} for name in ("offsets", "extra_holders", "release", "renumber", "domain")}
    spec = {
        **raw,
        "pools": {"type": "raw", "required": True},
        "reuse_held": {"type": "bool"},
        "profile": {"type": "str"},
        "store": {"type": "dict"},
        "path": {"type": "path"},
        "leaving": {"type": "list", "elements": "str"},
        "adopt_network": {"type": "str"},
    }
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    module.fail_json(msg="dn42.compose.address_plan runs as an action plugin on the controller")


if __name__ == "__main__":
    main()
