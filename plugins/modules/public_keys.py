#!/usr/bin/python
# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: public_keys
short_description: Keep the nodes' public keys in a file beside the inventory
description:
  - Merges the keys that this run's nodes reported into a file made for git, so that a run with C(--limit) still knows all nodes.
  - Is an action plugin and runs on the controller alone.
author:
  - the dn42.compose contributors
attributes:
  check_mode:
    description: Writes nothing.
    support: full
  diff_mode:
    description: Shows the file before and after.
    support: full
options:
  path:
    description: The file on the controller.
    type: path
    required: true
  result:
    description:
      - Name of the variable under which each node's result of M(dn42.compose.node_key) is registered. Without it no key is added.
    type: str
  forget:
    description: Nodes that have left and whose keys are taken out of the file.
    type: list
    elements: str
"""

EXAMPLES = r"""
- name: Keep the public keys beside the inventory
  dn42.compose.public_keys:
    path: "{{ inventory_dir }}/plan/public_keys.yml"
    result: __dn42_stack_key
  run_once: true
"""

RETURN = r"""
public_keys:
  description: Public key of each node that ever had one.
  returned: success
  type: dict
known:
  description: Those that the file had before.
  returned: success
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule


def main() -> None:
    """The action plugin of the same name does the work; it never sends this module."""
    spec = {"path": {"type": "path", "required": True}, "result": {"type": "str"}, "forget": {"type": "list", "elements": "str", "no_log": False}}
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    module.fail_json(msg="dn42.compose.public_keys runs as an action plugin on the controller")


if __name__ == "__main__":
    main()
