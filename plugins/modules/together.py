#!/usr/bin/python
# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: together
short_description: Run several modules of this collection in one exchange with a node
description:
  - Packing, sending and compiling a module takes longer than most of what modules do. The action plugins of this collection put what
    is asked of a node at the same moment into one exchange with this module; playbooks use the modules themselves.
  - The modules run in a fixed order; one that fails keeps no other from being run.
author:
  - the dn42.compose contributors
attributes:
  check_mode:
    description: As each module supports it.
    support: full
  diff_mode:
    description: As each module supports it.
    support: full
options:
  modules:
    description:
      - The options of each module by its name, one of C(host_facts), C(docker_daemon), C(firewalld_settings), C(node_state), C(release).
      - With C(firewalld_settings) beside it, C(node_state) is told which check of firewalld the guard replaces.
    type: dict
    required: true
  check_mode:
    description: The modules that run in check mode, whatever mode the task is in.
    type: list
    elements: str
    default: []
  archive:
    description: The files of C(release), a compressed tar archive in Base64. Secrets may be in it.
    type: str
"""

EXAMPLES = r"""
- name: Read the host and see what Docker's settings would change
  dn42.compose.together:
    modules:
      host_facts: {}
      docker_daemon:
        options: {live-restore: true}
    check_mode: [docker_daemon]
  register: node
"""

RETURN = r"""
answers:
  description: What each module returns, by its name; C(failed) and C(msg) where it failed.
  returned: always
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dn42.compose.plugins.module_utils import _together


def main() -> None:
    """Run the modules."""
    module = AnsibleModule(
        argument_spec={"modules": {"type": "dict", "required": True}, "check_mode": {"type": "list", "elements": "str", "default": []}, "archive": {"type": "str", "no_log": True}},
        supports_check_mode=True,
    )
    unknown = sorted(set(module.params["modules"]) - set(_together.NAMES))
    if unknown:
        module.fail_json(msg=f"modules: {', '.join(unknown)}: not among {', '.join(_together.NAMES)}")
    results = _together.run(module, module.params["modules"], module.params["check_mode"], module.params["archive"])
    module.exit_json(changed=any(result.get("changed") for result in results.values()), answers=results)


if __name__ == "__main__":
    main()
