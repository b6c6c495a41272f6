#!/usr/bin/python
# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: what a DN42 node needs from firewalld, with one reload at most."""

from __future__ import annotations

DOCUMENTATION = r"""
module: firewalld_settings
short_description: Set the IPv6 reverse-path check and open the tunnels' UDP ports in firewalld
version_added: 0.1.0
description:
  - Sets C(IPv6_rpfilter) in firewalld's configuration and keeps the UDP ports of the tunnels in a policy object of their own.
  - firewalld is reloaded only when the reverse-path check changes or the policy object is made; both together are one reload.
    After it the module waits until Docker has put its bridges back into its zone.
  - Ports are added and removed without a reload, in the permanent and in the running configuration.
  - On a host where firewalld is absent or stopped nothing is done.
author:
  - the dn42.compose contributors (@dn42-compose)
options:
  ipv6_rpfilter:
    description:
      - The reverse-path check to set. Left alone when the option is not given.
      - V(no) is the only value that every version of firewalld knows. The others are refused where this version or its
        backend does not know them. An unquoted no or yes of YAML is understood.
      - V(restore) puts back the value that was there before this module changed it, and does nothing if it never did.
    type: str
  udp_ports:
    description:
      - The UDP ports that are open, and no other, in the policy object. Left alone when the option is not given.
    type: list
    elements: int
  policy:
    description:
      - Name of the policy object.
    type: str
    default: dn42-tunnels
  state_path:
    description:
      - File on the host that remembers the reverse-path check as it was before.
    type: path
    default: /etc/dn42/firewall.json
requirements:
  - firewalld 0.9 or newer for O(udp_ports)
attributes:
  check_mode:
    support: full
    description: Can predict what would change without changing it.
  diff_mode:
    support: full
    description: Shows the changed line, the changed ports and the policy object that is made.
notes:
  - A reload of firewalld ends what was set with C(firewall-cmd) without C(--permanent).
"""

EXAMPLES = r"""
- name: Let bridged IPv6 pass and open two tunnels
  dn42.compose.firewalld_settings:
    ipv6_rpfilter: "no"
    udp_ports: [22900, 22901]

- name: Put the reverse-path check back as it was
  dn42.compose.firewalld_settings:
    ipv6_rpfilter: restore
"""

RETURN = r"""
firewalld:
  description: What firewalld does on this host, V(absent), V(stopped) or V(running).
  returned: success
  type: str
ipv6_rpfilter:
  description: The reverse-path check after the run.
  returned: when firewalld is installed
  type: dict
  contains:
    value:
      description: What firewalld makes of its file, one of no, strict, loose, strict-forward, loose-forward.
      type: str
    replaced:
      description: The check that this module switched off, null when it did not.
      type: str
udp_ports:
  description: Ports open in the policy object after the run.
  returned: when firewalld is running
  type: list
  elements: str
reloaded:
  description: Whether firewalld was (in check mode, would be) reloaded.
  returned: success
  type: bool
actions:
  description: What was done, item by item.
  returned: success
  type: list
  elements: str
msg:
  description: What was done and why, in a sentence.
  returned: success
  type: str
"""

import json
import os
import re
import tempfile
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dn42.compose.plugins.module_utils import _firewalld

CONFIGURATION = "/etc/firewalld/firewalld.conf"
POLICIES = "/etc/firewalld/policies"
DOCKER_ZONE = "docker"
# Docker puts its bridges back about two seconds after the reload; much more means that it did not hear of it.
DOCKER_WAIT = 30.0
RUNNING_WAIT = 30.0
POLL = 0.3
PORTS_IN_A_SENTENCE = 6


def read_file(path: str) -> bytes | None:
    """Return a file's content, None if there is none."""
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except FileNotFoundError:
        return None


def listing(ports: frozenset[str]) -> str:
    """Return ports for a sentence; many are counted."""
    names = _firewalld.sorted_ports(ports)
    if len(names) > PORTS_IN_A_SENTENCE:
        return f"{len(names)} ports from {names[0]} to {names[-1]}"
    return ", ".join(names) or "no port"


class Settings:
    """Compares and sets; every change is first planned, so that check mode and a real run say the same."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.rpfilter: str | None = module.params["ipv6_rpfilter"]
        ports = module.params["udp_ports"]
        self.ports = None if ports is None else _firewalld.udp_port_set(ports)
        self.policy: str = module.params["policy"]
        self.policy_path = f"{POLICIES}/{self.policy}.xml"
        self.state_path: str = module.params["state_path"]
        self.bus = _firewalld.Firewalld(self.run)
        self.actions: list[str] = []
        self.before: dict[str, str] = {}
        self.after: dict[str, str] = {}
        self.files: dict[str, bytes | None] = {}
        self.reasons: list[str] = []

    def run(self, argv: list[str]) -> tuple[int, str, str]:
        """Run a command in the C locale; a missing program is exit code 127."""
        if not self.module.get_bin_path(argv[0]):
            return 127, "", f"{argv[0]} is not there"
        return self.module.run_command(argv, environ_update={"LC_ALL": "C.UTF-8"})

    def firewall_cmd(self, *arguments: str) -> str:
        """Run firewall-cmd and return its output. Raises FirewalldError."""
        code, out, err = self.run(["firewall-cmd", *arguments])
        if code != 0:
            raise _firewalld.FirewalldError(f"firewall-cmd {' '.join(arguments)}: {err.strip() or out.strip()}")
        return out

    def state(self) -> dict:
        """Return what was remembered, empty if nothing or if the file is not ours."""
        try:
            state = json.loads(read_file(self.state_path) or b"{}")
        except ValueError:
            return {}
        return state if isinstance(state, dict) else {}

    # --- the reverse-path check -------------------------------------------------------------------------------------

    def plan_rpfilter(self, version: str, in_force: bool) -> None:
        """Plan the edit of firewalld.conf, and the reload when the file or the running check differs from what is wanted."""
        content = read_file(CONFIGURATION) or b""
        remembered = self.state().get("ipv6_rpfilter")
        if self.rpfilter == "restore":
            if not isinstance(remembered, dict):
                return
            value = remembered.get("before")
            edited = _firewalld.unset_rpfilter(content) if value is None else _firewalld.set_rpfilter(content, str(value))
            state = {key: value for key, value in self.state().items() if key != "ipv6_rpfilter"}
        else:
            backend = _firewalld.read_key(content, "FirewallBackend") or "nftables"
            value = _firewalld.wanted_rpfilter(self.rpfilter, version, backend)
            edited = _firewalld.set_rpfilter(content, value)
            before = _firewalld.read_key(content, _firewalld.RPFILTER_KEY)
            state = dict(self.state(), ipv6_rpfilter={"before": before, "set_to": value})
        wanted = _firewalld.effective_rpfilter(edited, version)
        if edited != content:
            # A run that dies between the two files must not forget what was there: remembered before it is changed,
            # forgotten after it is back.
            paths = {self.state_path: (json.dumps(state, sort_keys=True) + "\n").encode("utf-8"), CONFIGURATION: edited}
            order = reversed(list(paths)) if self.rpfilter == "restore" else list(paths)
            self.files.update({path: paths[path] for path in order})
            self.note_rpfilter(content, edited)
            self.reasons.append(f"IPv6_rpfilter is {wanted} now")
        elif in_force != (wanted != "no"):
            self.actions.append("reload firewalld: its file was changed and not read since")
            self.reasons.append(f"the running firewalld had not read IPv6_rpfilter={wanted} yet")

    def note_rpfilter(self, old: bytes, new: bytes) -> None:
        """Put the changed lines into the diff and the list of actions."""
        key = _firewalld.RPFILTER_KEY
        values = [_firewalld.read_key(content, key) for content in (old, new)]
        lines = [f"{key}={value}" if value is not None else "" for value in values]
        self.before[CONFIGURATION], self.after[CONFIGURATION] = (f"{line}\n" if line else "" for line in lines)
        if lines[1]:
            self.actions.append(f"set {lines[1]} in {CONFIGURATION} (was {lines[0] or 'not set'})")
        else:
            self.actions.append(f"take {lines[0]} out of {CONFIGURATION}")

    # --- the ports --------------------------------------------------------------------------------------------------

    def plan_policy(self, version: str) -> None:
        """Plan the policy object when it is missing, changed by somebody, or not known to the running firewalld."""
        content = read_file(self.policy_path)
        policy = None if content is None else _firewalld.read_policy(content)
        runtime = self.runtime_ports()
        if _firewalld.policy_is_ours(policy) and runtime is not None:
            self.plan_ports("permanent", policy.ports, ["--permanent"])
            self.plan_ports("running", runtime, [])
            return
        if content is None and runtime is None and not self.ports:
            return
        if _firewalld.parse_version(version) < _firewalld.POLICIES_SINCE:
            raise _firewalld.SettingError(f"firewalld {version} has no policy objects (0.9 or newer has): open {listing(self.ports)} yourself and leave udp_ports out")
        wanted = _firewalld.write_policy(self.ports)
        self.before[self.policy_path] = (content or b"").decode("utf-8", "replace")
        self.after[self.policy_path] = wanted.decode("utf-8")
        if wanted != content:
            self.files[self.policy_path] = wanted
        self.actions.append(f"make policy {self.policy} with {listing(self.ports)}")
        self.reasons.append(f"policy {self.policy} holds the tunnels' UDP ports")

    def runtime_ports(self) -> frozenset[str] | None:
        """Return the ports open in the policy now, None when the running firewalld has no such policy."""
        code, out, err = self.run(["firewall-cmd", f"--policy={self.policy}", "--list-ports"])
        if code == 0:
            return _firewalld.parse_ports(out)
        if "INVALID_POLICY" in err + out:
            return None
        raise _firewalld.FirewalldError(f"firewall-cmd --policy={self.policy} --list-ports: {err.strip() or out.strip()}")

    def plan_ports(self, where: str, current: frozenset[str], options: list[str]) -> None:
        """Make the ports of one configuration equal to the wanted ones; in check mode only say so.

        firewalld joins ranges that overlap, so the same ports can look different. Removing comes first: a port that is added
        while a range holds it would go with the range.
        """
        same = _firewalld.single_ports(current) == self.ports
        for verb, ports in (("remove", current - self.ports), ("add", self.ports - current)):
            if same or not ports:
                continue
            listed = _firewalld.sorted_ports(ports)
            self.actions.append(f"{verb} {listing(ports)} ({where})")
            key = f"policy {self.policy} ({where})"
            self.before[key] = "".join(f"{port}\n" for port in _firewalld.sorted_ports(current))
            self.after[key] = "".join(f"{port}\n" for port in _firewalld.sorted_ports(self.ports))
            if not self.module.check_mode:
                self.firewall_cmd(*options, f"--policy={self.policy}", *[f"--{verb}-port={port}" for port in listed])

    # --- carrying it out --------------------------------------------------------------------------------------------

    def write(self, path: str, content: bytes | None) -> None:
        """Replace a file in one step, keeping its mode and owner and the symlink it may be; None removes it."""
        real = os.path.realpath(path)
        if content is None:
            if os.path.exists(real):
                os.unlink(real)
            return
        os.makedirs(os.path.dirname(real), mode=0o755, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=self.module.tmpdir)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
        if not os.path.exists(real):
            os.chmod(temporary, 0o644)
        self.module.atomic_move(temporary, real)

    def apply(self) -> None:
        """Write the files, let firewalld check them, reload once. Whatever it refuses is put back. Raises FirewalldError."""
        old = {path: read_file(path) for path in self.files}
        bridges = self.bus.interfaces(DOCKER_ZONE)
        reloading = False
        try:
            for path, content in self.files.items():
                self.write(path, content)
            self.firewall_cmd("--check-config")
            reloading = True
            self.firewall_cmd("--reload")
        except _firewalld.FirewalldError as error:
            for path, content in reversed(list(old.items())):
                self.write(path, content)
            if reloading:
                self.run(["firewall-cmd", "--reload"])
            raise _firewalld.FirewalldError(f"{error} (the files were put back as they were)") from error
        self.wait_running()
        self.wait_docker(bridges)

    def wait_running(self) -> None:
        """Wait until firewalld says that it runs. Raises FirewalldError."""
        end = time.monotonic() + RUNNING_WAIT
        while not (self.bus.running() and self.bus.properties()[1] == "RUNNING"):
            if time.monotonic() > end:
                raise _firewalld.FirewalldError(f"firewalld is not running {RUNNING_WAIT:.0f} s after its reload; see journalctl -u firewalld")
            time.sleep(POLL)

    def wait_docker(self, bridges: frozenset[str]) -> None:
        """Wait until the bridges that were in Docker's zone are in it again: until then firewalld refuses what they forward."""
        end = time.monotonic() + DOCKER_WAIT
        while True:
            missing = {name for name in bridges - self.bus.interfaces(DOCKER_ZONE) if os.path.exists(f"/sys/class/net/{name}")}
            if not missing:
                return
            if time.monotonic() > end:
                raise _firewalld.FirewalldError(
                    f"{DOCKER_WAIT:.0f} s after firewalld's reload Docker has not put {', '.join(sorted(missing))} back into zone {DOCKER_ZONE}; `systemctl restart docker` does"
                )
            time.sleep(POLL)

    def replaced(self, value: str) -> str | None:
        """Return the check that we switched off and that is still off, for whoever puts another one in its place."""
        planned = self.files.get(self.state_path)
        state = self.state() if planned is None else json.loads(planned)
        remembered = state.get("ipv6_rpfilter")
        if value != "no" or not isinstance(remembered, dict):
            return None
        replaced = _firewalld.normalize_rpfilter(remembered.get("before"))
        return None if replaced == "no" else replaced

    def result(self, version: str) -> dict:
        """Return the module's result for a running firewalld."""
        content = self.files.get(CONFIGURATION) or read_file(CONFIGURATION) or b""
        value = _firewalld.effective_rpfilter(content, version)
        ports = self.ports
        if ports is None:
            policy = _firewalld.read_policy(read_file(self.policy_path) or b"")
            ports = frozenset() if policy is None else policy.ports
        done = "would " if self.module.check_mode else ""
        message = "; ".join(done + action for action in self.actions) or "nothing to do"
        if self.reasons:
            message += f". firewalld {'would be' if self.module.check_mode else 'was'} reloaded once, because {' and '.join(self.reasons)}"
        elif self.actions:
            message += ", without a reload"
        return {
            "changed": bool(self.actions),
            "firewalld": "running",
            "ipv6_rpfilter": {"value": value, "replaced": self.replaced(value)},
            "udp_ports": _firewalld.sorted_ports(ports),
            "reloaded": bool(self.reasons),
            "actions": self.actions,
            "msg": f"{message}.",
            "diff": [{"before_header": name, "after_header": name, "before": self.before[name], "after": self.after[name]} for name in self.after],
        }

    def not_running(self) -> dict:
        """Return the module's result where nothing is done; a stopped firewalld still has its file, and may be started again."""
        there = self.module.get_bin_path("firewall-cmd") is not None
        found = "stopped" if there else "absent"
        message = f"firewalld is {found} on this host: nothing to do."
        result = {"changed": False, "firewalld": found, "reloaded": False, "actions": [], "msg": message}
        if there:
            value = _firewalld.effective_rpfilter(read_file(CONFIGURATION) or b"")
            result["ipv6_rpfilter"] = {"value": value, "replaced": self.replaced(value)}
        return result

    def execute(self) -> dict:
        """Bring firewalld to the wanted state and return the module's result."""
        if not self.bus.running():
            return self.not_running()
        version, _state, in_force = self.bus.properties()
        if self.rpfilter is not None:
            self.plan_rpfilter(version, in_force)
        if self.ports is not None:
            self.plan_policy(version)
        if self.reasons and not self.module.check_mode:
            self.apply()
        return self.result(version)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "ipv6_rpfilter": {"type": "str"},
            "udp_ports": {"type": "list", "elements": "int"},
            "policy": {"type": "str", "default": "dn42-tunnels"},
            "state_path": {"type": "path", "default": "/etc/dn42/firewall.json"},
        },
        supports_check_mode=True,
    )
    # firewalld takes no longer name: it makes chains of it.
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,17}", module.params["policy"]):
        module.fail_json(msg=f"policy: {module.params['policy']!r} is no name for a policy (1 to 17 letters, digits, _ and -)")
    try:
        result = Settings(module).execute()
    except (_firewalld.SettingError, _firewalld.FirewalldError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
