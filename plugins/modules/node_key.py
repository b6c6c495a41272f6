#!/usr/bin/python
# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: node_key
short_description: Make a node's WireGuard key on the node and tell its public half
description:
  - The private key is made on the node by the router's image, or comes from the user's vault, and never leaves the node.
  - A key that exists is kept. Permissions that are too wide are repaired.
author:
  - the dn42.compose contributors
attributes:
  check_mode:
    description: Makes no key. The public key is reported only where the private one exists.
    support: full
  diff_mode:
    description: A key has no readable difference.
    support: none
options:
  directory:
    description: Directory of the router's secrets on the node.
    type: path
    required: true
  owner:
    description: Numeric id of the user that may read the key.
    type: int
    required: true
  image:
    description: The router's image.
    type: str
    required: true
  known:
    description:
      - The public key that M(dn42.compose.host_facts) found written down beside a private key that nobody has touched. The node is not asked
        again then, unless O(private_key) is given.
    type: str
  private_key:
    description: A key of the user's own instead of one made on the node.
    type: str
"""

EXAMPLES = r"""
- name: Make the node's key
  dn42.compose.node_key:
    directory: /opt/dn42/secrets/router
    owner: 64243
    image: dn42-router:0123456789ab
"""

RETURN = r"""
public_key:
  description: Public key of the node, empty in check mode where there is no key yet.
  returned: always
  type: str
"""

import os
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dn42.compose.plugins.module_utils import _node_key as node_key
from ansible_collections.dn42.compose.plugins.module_utils._release import make_secrets_directory
from ansible_collections.dn42.compose.plugins.module_utils._release_files import write_atomically


def needs_change(key: Path, owner: int, supplied: str) -> bool:
    """Whether the key is missing, another one, or readable by others."""
    return not node_key.is_safe(key, owner) or bool(supplied and key.read_text().strip() != supplied)


def public_key(module: AnsibleModule, directory: str, owner: int) -> str:
    """Let the image make the key if there is none, and answer with the public half."""
    docker = module.get_bin_path("docker", required=True)
    command = [docker, "run", "--rm", "--pull", "never", "--network", "none", "--read-only", "--cap-drop", "ALL", "--user", f"{owner}:{owner}"]
    command += ["--volume", f"{directory}:/secrets", module.params["image"], "node-key"]
    code, out, err = module.run_command(command)
    if code != 0:
        module.fail_json(msg=f"the node's key in {directory} cannot be used: {err.strip() or out.strip()}")
    return out.strip()


def image_exists(module: AnsibleModule) -> bool:
    """Whether the router's image is there. In check mode nothing has built one whose recipe is new."""
    docker = module.get_bin_path("docker")
    return bool(docker) and module.run_command([docker, "image", "inspect", "--format", "{{.Id}}", module.params["image"]])[0] == 0


def main() -> None:
    """Make or repair the key and report its public half."""
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "owner": {"type": "int", "required": True},
            "image": {"type": "str", "required": True},
            "private_key": {"type": "str", "no_log": True},
            "known": {"type": "str", "no_log": False},
        },
        supports_check_mode=True,
    )
    directory, owner = module.params["directory"], module.params["owner"]
    supplied = (module.params["private_key"] or "").strip()
    key = Path(directory) / node_key.PRIVATE_KEY
    changed = needs_change(key, owner, supplied)
    known = "" if changed else node_key.known_public_key(Path(directory))
    if known:
        module.exit_json(changed=False, public_key=known)
    if module.check_mode:
        known = public_key(module, directory, owner) if key.exists() and image_exists(module) else ""
        module.exit_json(changed=changed, public_key=known)
    if changed:
        make_secrets_directory(Path(directory), owner)
        if supplied:
            write_atomically(key, supplied.encode() + b"\n", 0o400, owner)
        elif key.exists():
            os.chown(key, owner, owner)
            key.chmod(0o400)
    public = public_key(module, directory, owner)
    node_key.note_public_key(Path(directory), owner, public)
    module.exit_json(changed=changed, public_key=public)


if __name__ == "__main__":
    main()
