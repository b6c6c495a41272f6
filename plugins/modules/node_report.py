#!/usr/bin/python
# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: node_report
short_description: Tell in which ways the nodes are not as declared
description:
  - Puts together what the tasks of the playbook C(verify) have read of every node, prints a table, and fails when something is not as declared
    or does not work, or when a node was not reached.
  - Is an action plugin and runs on the controller alone.
author:
  - the dn42.compose contributors
attributes:
  check_mode:
    description: There is nothing to change; the file O(json) is written in check mode as well.
    support: full
  diff_mode:
    description: There is nothing to compare.
    support: none
options:
  json:
    description: File on the controller for the report as JSON.
    type: path
  peers:
    description: Whether sessions with foreign networks that are down, and their tunnels without a handshake, count.
    type: bool
    default: true
"""

EXAMPLES = r"""
- name: Report
  dn42.compose.node_report:
    json: /var/lib/monitoring/dn42.json
  run_once: true
"""

RETURN = r"""
report:
  description:
    - C(ok), and for each of C(nodes) C(reached), C(ok) and C(findings) with C(area), C(kind) and C(what).
    - C(kind) is V(drift) for what the next run of site.yml repairs, V(down) for what is as declared and does not work.
  returned: when everything is as declared; else the table says it, and the file O(json)
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule


def main() -> None:
    """The action plugin of the same name does the work; it never sends this module."""
    module = AnsibleModule(argument_spec={"json": {"type": "path"}, "peers": {"type": "bool", "default": True}}, supports_check_mode=True)
    module.fail_json(msg="dn42.compose.node_report runs as an action plugin on the controller")


if __name__ == "__main__":
    main()
