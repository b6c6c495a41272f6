# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A copy of the demo's inventory that a test may change as an operator does, with a plan of its own."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from support import CHECKOUT, playbook

DEMO = CHECKOUT / "inventories" / "demo"


class InventoryCopy:
    """The demo's inventory in a folder beside it, so that its paths still hold."""

    def __init__(self, name: str, lab: str) -> None:
        """Copy the inventory with the plan of a lab."""
        self.folder = DEMO.with_name(f"demo-{name}")
        self.lab = lab
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(DEMO, self.folder)

    def remove(self) -> None:
        """Take the copy away."""
        shutil.rmtree(self.folder)

    @property
    def plan(self) -> Path:
        """The plan file."""
        return self.folder / "plan" / self.lab / "addresses.yml"

    def hosts(self, addresses: Mapping[str, str]) -> None:
        """The nodes and how Ansible reaches them, in this order."""
        nodes = {name: {"ansible_host": address} for name, address in addresses.items()}
        (self.folder / "hosts.yml").write_text(yaml.safe_dump({"dn42_nodes": {"hosts": nodes}}, sort_keys=False))

    def addresses(self) -> dict[str, str]:
        """The nodes as the inventory has them now."""
        hosts = yaml.safe_load((self.folder / "hosts.yml").read_text())["dn42_nodes"]["hosts"]
        return {name: values["ansible_host"] for name, values in hosts.items()}

    def set(self, node: str, **variables: Any) -> None:
        """Give a node variables besides those it has; None takes one away."""
        path = self.folder / "host_vars" / f"{node}.yml"
        present = yaml.safe_load(path.read_text()) if path.exists() else {}
        path.write_text(yaml.safe_dump({key: value for key, value in {**present, **variables}.items() if value is not None}))

    def rename(self, old: str, new: str) -> None:
        """Call a node otherwise."""
        (self.folder / "host_vars" / f"{old}.yml").rename(self.folder / "host_vars" / f"{new}.yml")
        self.hosts({new if name == old else name: address for name, address in self.addresses().items()})

    def know_key(self, node: str, key: str) -> None:
        """Enter the public key of a node that this run does not reach."""
        path = self.plan.with_name("public_keys.yml")
        path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), node: key}))

    def blocks(self) -> dict[str, set[str]]:
        """{holder: its prefixes} of the plan, without what was released."""
        content = yaml.safe_load(self.plan.read_text())
        found: dict[str, set[str]] = {}
        for family in ("ipv4", "ipv6"):
            for prefix, block in content[family].items():
                if not block.get("released"):
                    found.setdefault(block["holder"], set()).add(prefix)
        return found

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run site.yml with this inventory."""
        return playbook("site.yml", *arguments, check=check, inventory=str(self.folder))
