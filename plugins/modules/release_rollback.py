#!/usr/bin/python
# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: release_rollback
short_description: Bring a node back to a release of its history
description:
  - Takes a release of the node's history and applies it like any other one; it is checked by the images that will run it, and undone if it
    leaves the node worse than it is.
  - Secrets stay as they are on the node. Those that the old release was made with and that are others now are named in warnings.
  - The next run of C(site.yml) brings the node forward again to what the inventory says.
extends_documentation_fragment: dn42.compose.release_tolerances
author:
  - the dn42.compose contributors
attributes:
  check_mode:
    description: Reports what would change and changes nothing.
    support: full
  diff_mode:
    description: An old release is not on the controller.
    support: none
options:
  directory:
    description: Directory on the node that holds everything.
    type: path
    required: true
  to:
    description: Name of the release to go back to. Without it the newest that is not in use.
    type: str
    default: ""
  renumber:
    description: Whether containers that run may be removed to make the Docker network anew, where the old release had other addresses.
    type: bool
    default: false
  who:
    description: Set by the action plugin, who goes back from where, for the node's history.
    type: str
"""

EXAMPLES = r"""
- name: Go back to the release before
  dn42.compose.release_rollback:
    directory: /opt/dn42
"""

RETURN = r"""
release:
  description: Name of the release in use afterwards.
  returned: success
  type: str
changes:
  description: What differed from the old release, in words.
  returned: in check mode
  type: list
  elements: str
done:
  description: What was done to the node.
  returned: when something was changed
  type: list
  elements: str
report:
  description: What got worse, line by line.
  returned: when going back failed after it had begun
  type: list
  elements: str
undone:
  description: Whether going back was undone.
  returned: when going back failed after it had begun
  type: bool
"""

from pathlib import Path
from typing import Any, Dict, Sequence, Tuple

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dn42.compose.plugins.module_utils._release import Node, ReleaseError
from ansible_collections.dn42.compose.plugins.module_utils._release_cycle import declare_past
from ansible_collections.dn42.compose.plugins.module_utils._release_history import History, present_id
from ansible_collections.dn42.compose.plugins.module_utils._release_unit import TOLERANCE_SPEC, ask, seconds, told


def main() -> None:
    """Go back, or say what going back would change."""
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "to": {"type": "str", "default": ""},
            "renumber": {"type": "bool", "default": False},
            **TOLERANCE_SPEC,
            "who": {"type": "str"},
        },
        supports_check_mode=True,
    )

    def run(command: Sequence[str]) -> Tuple[int, str, str]:
        code, out, err = module.run_command(list(command))
        return code, out, err

    params = module.params
    directory = Path(params["directory"])
    past, docker = History(directory), module.get_bin_path("docker")
    confirm = {"seconds": params["confirm_seconds"], "lost_sessions": params["lost_sessions"], "lost_routes": params["lost_routes"]}
    # Whoever goes back means it: what a release may not remove unasked is no question here.
    settings: Dict[str, Any] = {"confirm": confirm, "renumber": params["renumber"], "removal": {"limit": 100, "allowed": True}}
    try:
        entry, declared, remarks = declare_past(past, params["to"] or None, settings, run, docker)
        changes = [change["what"] for change in Node(declared, run, docker).changes()]
        if module.check_mode or not changes:
            for remark in remarks:
                module.warn(remark)
            module.exit_json(changed=bool(changes), changes=changes, release=entry.id if changes else present_id(directory))
        # The name and not "the one before": somebody else may release meanwhile.
        asked = {"operation": "rollback", "to": entry.id, "settings": settings, "who": params["who"] or "unknown"}
        result = ask(directory, asked, None, seconds(declared), run)
    except (ReleaseError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**told(module, result))


if __name__ == "__main__":
    main()
