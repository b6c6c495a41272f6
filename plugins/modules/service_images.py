#!/usr/bin/python
# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: service_images
short_description: Build the images of a node's services where they are missing
description:
  - The tag of an image is the hash of everything it is built from, so an image that is there needs nothing.
  - The controller sends a build context only for an image that the node lacks.
author:
  - the dn42.compose contributors
attributes:
  check_mode:
    description: Reports which images would be built and builds none.
    support: full
  diff_mode:
    description: An image has no readable difference.
    support: none
options:
  services:
    description: Names of the service roles whose images are wanted.
    type: list
    elements: str
  base_image:
    description: The image that all others are built from. Its name is part of every tag.
    type: str
    required: true
  archive:
    description:
      - Path on the node of an archive made by C(docker save) that holds O(base_image).
      - Loaded when the base image is missing. Without it Docker pulls the base image.
    type: path
  known:
    description: Tags of the images that M(dn42.compose.host_facts) found on the node. Where they are all that is wanted, the node is not asked again.
    type: list
    elements: str
  images:
    description: Set by the action plugin, the tag for each service role.
    type: dict
  contexts:
    description: Set by the action plugin, path on the node of the build context for each role to build.
    type: dict
"""

EXAMPLES = r"""
- name: Build the images of the node's services
  dn42.compose.service_images:
    services: [router, dns]
    base_image: debian:trixie-slim
"""

RETURN = r"""
images:
  description: Tag of the image for each service role.
  returned: always
  type: dict
  sample: {router: "dn42-router:0123456789ab"}
missing:
  description: Roles whose image was missing when the node was asked.
  returned: always
  type: list
  elements: str
"""

import os
from typing import Any, Dict, List

from ansible.module_utils.basic import AnsibleModule


class Images:
    """Docker's images on this node."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.docker = module.get_bin_path("docker")

    def exists(self, tag: str) -> bool:
        """Whether the image is there; without Docker, nothing is."""
        if not self.docker:
            return False
        code, _out, _err = self.module.run_command([self.docker, "image", "inspect", "--format", "{{.Id}}", tag])
        return code == 0

    def load(self, archive: str, wanted: str) -> None:
        """Load an image archive and make sure it held the image that is wanted."""
        if not os.path.isfile(archive):
            self.module.fail_json(msg=f"dn42_stack_image_archive: there is no file {archive} on the node")
        code, out, err = self.module.run_command([self.docker, "load", "--input", archive])
        if code != 0:
            self.module.fail_json(msg=f"docker load of {archive} failed: {err.strip() or out.strip()}")
        if not self.exists(wanted):
            self.module.fail_json(msg=f"{archive} does not hold the image {wanted}; docker said: {out.strip()}")

    def build(self, tag: str, context: str, base_image: str) -> None:
        """Build one image from its context. The last lines of a failed build say what went wrong."""
        with open(context, "rb") as source:
            data = source.read()
        command = [self.docker, "build", "--force-rm", "--build-arg", f"BASE_IMAGE={base_image}", "--tag", tag, "-"]
        code, out, err = self.module.run_command(command, data=data, binary_data=True)
        if code != 0:
            tail = "\n".join((out + err).strip().splitlines()[-30:])
            self.module.fail_json(msg=f"building the image {tag} failed (exit status {code}). The end of the build:\n{tail}")


def main() -> None:
    """Report the missing images, or build those whose context was sent."""
    module = AnsibleModule(
        argument_spec={
            "services": {"type": "list", "elements": "str"},
            "base_image": {"type": "str", "required": True},
            "archive": {"type": "path"},
            "images": {"type": "dict"},
            "contexts": {"type": "dict"},
            "known": {"type": "list", "elements": "str"},
        },
        supports_check_mode=True,
    )
    params: Dict[str, Any] = module.params
    tags: Dict[str, str] = params["images"] or {}
    images = Images(module)
    missing: List[str] = [role for role in sorted(tags) if not images.exists(tags[role])]
    if missing and not images.docker and not module.check_mode:
        module.fail_json(msg="Docker is not installed on this node; the role docker installs it")
    contexts: Dict[str, str] = params["contexts"] or {}
    if contexts and missing:
        if params["archive"] and not images.exists(params["base_image"]):
            images.load(params["archive"], params["base_image"])
        for role in missing:
            images.build(tags[role], contexts[role], params["base_image"])
    module.exit_json(changed=bool(missing), missing=missing, images=tags)


if __name__ == "__main__":
    main()
