#!/usr/bin/python
# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: guard
short_description: Keep the packet filter between DN42 and a host loaded
description:
  - Writes a file of nftables rules and the systemd units that load it, loads it now and at every boot, and loads it again when what
    runs is not what the file says, be it that a rule was taken out or that the table was flushed.
  - All in one step, since it is done in every run.
author:
  - the dn42.compose contributors
attributes:
  check_mode:
    description: Reports what would be written and loaded, and does neither.
    support: full
  diff_mode:
    description: A difference for each file.
    support: full
options:
  rules:
    description: The rules, as C(nft -f) reads them. They replace their table in one transaction.
    type: str
    required: true
  path:
    description: Where the rules are kept.
    type: path
    default: /etc/dn42/guard.nft
  family:
    description: Family of the rules' table.
    type: str
    default: inet
  table:
    description: Name of the rules' table.
    type: str
    default: dn42_guard
  units:
    description: Content of the units and drop-ins by their path below C(/etc/systemd/system).
    type: dict
    required: true
  service:
    description: The one of O(units) that loads the rules.
    type: str
    default: dn42-guard.service
  watcher:
    description: The one of O(units), if any, that runs beside the service and loads the rules again when somebody flushes them.
    type: str
"""

EXAMPLES = r"""
- name: Keep the guard loaded
  dn42.compose.guard:
    rules: "{{ lookup('ansible.builtin.template', 'guard.nft.j2') }}"
    units:
      dn42-guard.service: "{{ lookup('ansible.builtin.template', 'dn42-guard.service.j2') }}"
"""

RETURN = r"""
actions:
  description: What was done, or would be.
  returned: always
  type: list
  elements: str
  sample: [write /etc/dn42/guard.nft, load table inet dn42_guard]
"""

import os
import stat
import tempfile
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dn42.compose.plugins.module_utils import _guard, _systemd
from ansible_collections.dn42.compose.plugins.module_utils._release import read_text, write_atomically

UNITS = Path("/etc/systemd/system")
MODE = 0o644


def is_as_wanted(path: Path, content: str) -> bool:
    """Whether a file has this content, is root's, and writable by nobody else."""
    try:
        state = path.lstat()
        there = stat.S_ISREG(state.st_mode) and (state.st_uid, state.st_gid, stat.S_IMODE(state.st_mode)) == (0, 0, MODE)
        return there and path.read_bytes() == content.encode()
    except OSError:
        return False


class Guard:
    """The guard of this host: its files, what is loaded, and what is to be done about them."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.rules = module.params["rules"]
        self.path = Path(module.params["path"])
        self.table = [module.params["family"], module.params["table"]]
        self.units = {UNITS / name: content for name, content in sorted(module.params["units"].items())}
        self.service = module.params["service"]
        self.watcher = module.params["watcher"]
        self.actions: list[str] = []
        self.diff: list[dict[str, str]] = []

    def command(self, *argv: str) -> str:
        """What a command prints; the module fails with its words when it fails."""
        code, out, err = self.module.run_command(list(argv), environ_update={"LC_ALL": "C.UTF-8"})
        if code != 0:
            self.module.fail_json(msg=f"`{' '.join(argv)}` failed: {err.strip() or out.strip()}", actions=self.actions)
        return out

    def check_rules(self) -> None:
        """Fail where nft refuses the rules: nothing is written then."""
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=self.module.tmpdir) as candidate:
            candidate.write(self.rules)
            candidate.flush()
            self.command("nft", "-c", "-f", candidate.name)

    def write(self, path: Path, content: str) -> bool:
        """Bring a file to its content, owner and mode; whether that was needed."""
        if is_as_wanted(path, content):
            return False
        self.actions.append(f"write {path}")
        self.diff.append({"before_header": str(path), "after_header": str(path), "before": read_text(path), "after": content})
        if not self.module.check_mode:
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            write_atomically(path, content.encode(), MODE, 0)
        return True

    def runs_as_written(self) -> bool:
        """Whether the loaded table is what the rules say."""
        listing = _guard.listing(*self.table)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=self.module.tmpdir) as candidate:
            candidate.write(self.rules)
            candidate.flush()
            wanted = self.command(*_guard.listing_of(candidate.name, listing))
        code, running, _err = self.module.run_command(listing, environ_update={"LC_ALL": "C.UTF-8"})
        return code == 0 and running == wanted

    def unit_states(self) -> tuple[str, str, str]:
        """ActiveState and UnitFileState of the service, and ActiveState of the watcher."""
        names = [name for name in (self.service, self.watcher) if name]
        found = _systemd.units(self.module.run_command, ["ActiveState", "UnitFileState"], *names)
        service, watcher = found.get(self.service, {}), found.get(self.watcher, {})
        return service.get("ActiveState", ""), service.get("UnitFileState", ""), watcher.get("ActiveState", "")

    def load(self, rewritten: bool, watcher_rewritten: bool) -> None:
        """Load the rules where they do not run as written, and see to it that every boot does, and that they are watched."""
        active, enabled, watched = self.unit_states()
        steps = []
        if rewritten or not self.runs_as_written():
            self.actions.append(f"load table {' '.join(self.table)}")
            steps.append(("reload-or-restart", self.service))
        elif active != "active":
            self.actions.append(f"start {self.service}")
            steps.append(("start", self.service))
        if enabled != "enabled":
            self.actions.append(f"enable {self.service}")
            steps.append(("enable", "--quiet", self.service))
        if self.watcher and (watcher_rewritten or watched != "active"):
            self.actions.append(f"watch table {' '.join(self.table)}")
            steps.append(("restart" if watcher_rewritten else "start", self.watcher))
        for step in () if self.module.check_mode else steps:
            self.command("systemctl", *step)

    def execute(self) -> None:
        """Do what is to be done, and leave."""
        # Where nft is still to be installed, a dry run cannot ask it.
        has_nft = self.module.get_bin_path("nft") is not None
        if has_nft or not self.module.check_mode:
            self.check_rules()
        rewritten = self.write(self.path, self.rules)
        units = [path for path, content in self.units.items() if self.write(path, content)]
        if units and not self.module.check_mode:
            self.command("systemctl", "daemon-reload")
        if os.path.exists(UNITS / self.service):
            self.load(rewritten, bool(self.watcher) and UNITS / self.watcher in units)
        else:
            self.actions.append(f"load table {' '.join(self.table)}")
        self.module.exit_json(changed=bool(self.actions), actions=self.actions, diff=self.diff)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "rules": {"type": "str", "required": True},
            "path": {"type": "path", "default": "/etc/dn42/guard.nft"},
            "family": {"type": "str", "default": "inet"},
            "table": {"type": "str", "default": "dn42_guard"},
            "units": {"type": "dict", "required": True},
            "service": {"type": "str", "default": "dn42-guard.service"},
            "watcher": {"type": "str"},
        },
        supports_check_mode=True,
    )
    Guard(module).execute()


if __name__ == "__main__":
    main()
