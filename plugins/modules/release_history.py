#!/usr/bin/python
# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: release_history
short_description: Show the last releases of a node
description:
  - Reads who released what to this node and when, newest first. The last ten are kept. Changes nothing.
author:
  - the dn42.compose contributors
attributes:
  check_mode:
    description: Reads only.
    support: full
  diff_mode:
    description: Nothing is changed.
    support: none
options:
  directory:
    description: Directory on the node that holds everything.
    type: path
    required: true
"""

EXAMPLES = r"""
- name: Read the node's history
  dn42.compose.release_history:
    directory: /opt/dn42
  register: history
"""

RETURN = r"""
present:
  description: Name of the release in use, V(null) where there is none.
  returned: always
  type: str
releases:
  description: The last releases, newest first. C(who) is empty for what was found when the history began.
  returned: always
  type: list
  elements: dict
  sample: [{id: 0123456789ab, when: "2026-01-02T03:04:05Z", who: alice@laptop, what: [router/bird.conf]}]
undone:
  description: A release that was undone since the last one was confirmed, V(null) for none.
  returned: always
  type: dict
table:
  description: The same as lines for people.
  returned: always
  type: list
  elements: str
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dn42.compose.plugins.module_utils._release_history import History, present_id, table


def main() -> None:
    """Read the history."""
    module = AnsibleModule(argument_spec={"directory": {"type": "path", "required": True}}, supports_check_mode=True)
    directory = Path(module.params["directory"])
    past, present = History(directory), present_id(directory)
    releases = [entry.public() for entry in reversed(past.entries())]
    module.exit_json(changed=False, present=present, releases=releases, undone=past.undone(), table=table(releases, present))


if __name__ == "__main__":
    main()
