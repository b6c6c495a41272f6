# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the module firewalld_settings does on a node: let bridged IPv6 pass and the tunnels in.

This module util is PRIVATE to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import time
from typing import Any, NamedTuple

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dn42.compose.plugins.module_utils import _firewalld, _host, _systemd

SYSCTL = "/proc/sys/net/bridge/bridge-nf-call-ip6tables"
# The key exists only while br_netfilter is loaded, which may be long after boot (B08): the rule applies the file at that moment.
SYSCTL_FILES = {
    "/etc/sysctl.d/90-dn42-bridge-nf.conf": b"# Written by dn42.compose: bridged IPv6 does not meet this host's rules.\nnet.bridge.bridge-nf-call-ip6tables = 0\n",
    "/etc/udev/rules.d/90-dn42-bridge-nf.rules": (
        b"# Written by dn42.compose: what /etc/sysctl.d says of bridges counts from the moment the module is there.\n"
        b'ACTION=="add", SUBSYSTEM=="module", KERNEL=="br_netfilter", RUN+="/usr/lib/systemd/systemd-sysctl --prefix=/net/bridge"\n'
    ),
}
CONFIGURATION = "/etc/firewalld/firewalld.conf"
POLICIES = "/etc/firewalld/policies"
DOCKER_ZONE = "docker"
# Docker puts its bridges back about two seconds after the reload; much more means that it did not hear of it.
DOCKER_WAIT = 30.0
# A Docker that has restarted starts its containers one after the other, and their rules come with them.
RESTART_WAIT = 90.0
RUNNING_WAIT = 30.0
POLL = 0.3
PORTS_IN_A_SENTENCE = 6
SHOWN_RULES = 5


def read_file(path: str) -> bytes | None:
    """Return a file's content, None if there is none."""
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except FileNotFoundError:
        return None


def read_int(path: str) -> int | None:
    """Return the number in a file of /proc/sys, None if there is none."""
    text = (read_file(path) or b"").strip()
    return int(text) if text.isdigit() else None


def listing(ports: frozenset[str]) -> str:
    """Return ports for a sentence; many are counted."""
    names = _firewalld.sorted_ports(ports)
    if len(names) > PORTS_IN_A_SENTENCE:
        return f"{len(names)} ports from {names[0]} to {names[-1]}"
    return ", ".join(names) or "no port"


class DockerSnapshot(NamedTuple):
    """What Docker has in the host's firewall: its bridges in firewalld's zone, its rules, and what the operator hung into its chain."""

    bridges: frozenset[str]
    rules: frozenset[str]
    users: frozenset[str]


class Settings:
    """Compares and sets; every change is first planned, so that check mode and a real run say the same."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.strategy: str | None = module.params["strategy"]
        ports = module.params["udp_ports"]
        self.ports = None if ports is None else _firewalld.udp_port_set(ports)
        self.policy: str = module.params["policy"]
        self.policy_path = f"{POLICIES}/{self.policy}.xml"
        self.state_path: str = module.params["state_path"]
        self.bus = _firewalld.Firewalld(self.run)
        self.found = "running" if self.bus.running() else "absent" if module.get_bin_path("firewall-cmd") is None else "stopped"
        self.actions: list[str] = []
        self.before: dict[str, str] = {}
        self.after: dict[str, str] = {}
        self.files: dict[str, bytes | None] = {}
        self.reasons: list[str] = []
        self.reason: str | None = None
        # Files and the live value that bring the sysctl back, for the end; None when there is nothing to bring back.
        self.leaving: tuple[dict[str, bytes | None], int | None] | None = None
        self.docker_restarted = False
        self.lost: list[str] = []

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

    # --- what is there ----------------------------------------------------------------------------------------------

    def situation(self, version: str, in_force: bool) -> _firewalld.Situation:
        """Return what decides about the cure, as it would be without our own sysctl."""
        content = read_file(CONFIGURATION) or b""
        text = self.run(["ip", "-j", "-6", "route", "show", "default"])[1]
        live = read_int(SYSCTL)
        remembered = self.state().get("bridge_nf_call_ip6tables")
        return _firewalld.Situation(
            firewalld=self.found,
            version=version,
            backend=_firewalld.read_key(content, "FirewallBackend") or "nftables",
            check=self.check_in_force(content, version, in_force),
            bridge_nf=remembered if live is not None and isinstance(remembered, int) else live,
            default_route=_firewalld.default_route_kind(_host.parse_default_routes(text, "ipv6")),
        )

    def check_in_force(self, content: bytes, version: str, in_force: bool) -> str:
        """Return the check of the running firewalld; its rules tell strict from loose, where its property does not."""
        if not in_force:
            return "no"
        found = _firewalld.running_check(self.run(["nft", "list", "table", "inet", "firewalld"])[1])
        value = found or _firewalld.effective_rpfilter(content, version)
        return value if value != "no" else _firewalld.RPFILTER_DEFAULT

    # --- the reverse-path check -------------------------------------------------------------------------------------

    def plan_rpfilter(self, wish: str, situation: _firewalld.Situation) -> None:
        """Plan the edit of firewalld.conf, and the reload when the file or the running check differs from what is wanted."""
        content = read_file(CONFIGURATION) or b""
        if wish == _firewalld.RESTORE:
            edited = self.restored(content)
        else:
            value = _firewalld.wanted_rpfilter(wish, situation.version, situation.backend)
            edited = _firewalld.set_rpfilter(content, value)
            if edited != content:
                self.remember("ipv6_rpfilter", {"before": self.value_before(content), "set_to": value})
        wanted = _firewalld.effective_rpfilter(edited, situation.version)
        if edited != content:
            self.files[CONFIGURATION] = edited
            self.note_rpfilter(content, edited)
            self.reasons.append(f"IPv6_rpfilter is {wanted} now")
        elif situation.check != wanted and (wish != _firewalld.RESTORE or self.remembered_rpfilter()):
            self.actions.append("reload firewalld: its file was changed and not read since")
            self.reasons.append(f"the running firewalld had not read IPv6_rpfilter={wanted} yet")

    def value_before(self, content: bytes) -> str | None:
        """Return the operator's own value: the one in the file, unless it is the one we put there over his."""
        current = _firewalld.read_key(content, _firewalld.RPFILTER_KEY)
        remembered = self.remembered_rpfilter()
        return remembered.get("before") if remembered.get("set_to") == current else current

    def restored(self, content: bytes) -> bytes:
        """Return firewalld.conf with the operator's value back; one that he has changed since stays."""
        remembered = self.remembered_rpfilter()
        if not remembered:
            return content
        self.remember("ipv6_rpfilter", None)
        if _firewalld.read_key(content, _firewalld.RPFILTER_KEY) != remembered.get("set_to"):
            return content
        before = remembered.get("before")
        return _firewalld.unset_rpfilter(content) if before is None else _firewalld.set_rpfilter(content, str(before))

    def remembered_rpfilter(self) -> dict:
        """Return what is remembered of IPv6_rpfilter, empty for nothing."""
        remembered = self.state().get("ipv6_rpfilter")
        return remembered if isinstance(remembered, dict) else {}

    def remember(self, key: str, value: object) -> None:
        """Plan the file of what was there before; None forgets."""
        planned = self.files.get(self.state_path)
        state = self.state() if planned is None else json.loads(planned)
        if value is None:
            state.pop(key, None)
        else:
            state[key] = value
        self.files[self.state_path] = (json.dumps(state, sort_keys=True) + "\n").encode("utf-8")

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

    # --- the sysctl -------------------------------------------------------------------------------------------------

    def set_bridge_nf(self, wish: str) -> None:
        """Set bridge-nf-call-ip6tables now and for every boot, or plan to put it back. Needs no reload of anything.

        It is set before firewalld's check comes back and put back after that was weakened, so that bridged IPv6 passes all the time.
        """
        live, remembered = read_int(SYSCTL), self.state().get("bridge_nf_call_ip6tables")
        if wish == _firewalld.RESTORE:
            contents: dict[str, bytes | None] = dict.fromkeys(path for path in SYSCTL_FILES if os.path.lexists(path))
            if not contents and remembered is None:
                return
            self.note_sysctl(contents, live, remembered)
            self.leaving = (contents, remembered)
            return
        contents = {path: content for path, content in SYSCTL_FILES.items() if read_file(path) != content}
        if remembered is None:
            # What a kernel does without being told, where the key is not there yet.
            self.remember("bridge_nf_call_ip6tables", 1 if live is None else live)
        self.note_sysctl(contents, live, 0)
        if self.module.check_mode:
            return
        if self.state_path in self.files:
            self.write(self.state_path, self.files[self.state_path])
        self.write_sysctl(contents, 0)

    def leave_bridge_nf(self, contents: dict[str, bytes | None], value: int | None) -> None:
        """Put the sysctl back, and forget only then what it was."""
        self.write_sysctl(contents, value)
        state = self.state()
        state.pop("bridge_nf_call_ip6tables", None)
        self.write(self.state_path, (json.dumps(state, sort_keys=True) + "\n").encode("utf-8"))

    def write_sysctl(self, contents: dict[str, bytes | None], value: int | None) -> None:
        """Write or remove the files for the next boot, and set the live value; None leaves that as it is."""
        for path, content in contents.items():
            self.write(path, content)
        live = read_int(SYSCTL)
        if live is not None and value is not None and live != value:
            with open(SYSCTL, "w", encoding="ascii") as stream:
                stream.write(f"{value}\n")

    def note_sysctl(self, contents: dict[str, bytes | None], live: int | None, value: int | None) -> None:
        """Put what changes of the sysctl into the diff and the list of actions."""
        for path, content in contents.items():
            self.before[path] = (read_file(path) or b"").decode("utf-8", "replace")
            self.after[path] = (content or b"").decode("utf-8")
            self.actions.append(f"{'remove' if content is None else 'write'} {path}")
        if live is not None and value is not None and live != value:
            self.actions.append(f"set net.bridge.bridge-nf-call-ip6tables={value} (was {live})")

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

    def plan_removal(self) -> None:
        """Plan to remove the policy object from the files and from the running firewalld."""
        content = read_file(self.policy_path)
        if content is None and (self.found != "running" or self.runtime_ports() is None):
            return
        self.before[self.policy_path], self.after[self.policy_path] = (content or b"").decode("utf-8", "replace"), ""
        self.files[self.policy_path] = None
        self.actions.append(f"remove policy {self.policy}")
        self.reasons.append(f"policy {self.policy} is gone")

    def runtime_ports(self) -> frozenset[str] | None:
        """Return the ports open in the policy now, None when the running firewalld has no such policy."""
        return self.bus.policy_ports(self.policy)

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
        # A run that dies between the two must not forget what was there: remembered before it is changed, forgotten after it is back.
        forgets = self.state_path in self.files and "ipv6_rpfilter" not in json.loads(self.files[self.state_path])
        paths = sorted(self.files, key=lambda path: (path == self.state_path) == forgets)
        old = {path: read_file(path) for path in paths}
        docker = self.docker_snapshot()
        reloading = False
        try:
            for path in paths:
                self.write(path, self.files[path])
            if self.reasons:
                self.firewall_cmd("--check-config")
                reloading = True
                self.firewall_cmd("--reload")
        except _firewalld.FirewalldError as error:
            for path in reversed(paths):
                self.write(path, old[path])
            if reloading:
                self.run(["firewall-cmd", "--reload"])
            raise _firewalld.FirewalldError(f"{error} (the files were put back as they were)") from error
        if self.reasons:
            self.wait_running()
            self.wait_docker(docker)

    def wait_running(self) -> None:
        """Wait until firewalld says that it runs. Raises FirewalldError."""
        end = time.monotonic() + RUNNING_WAIT
        while not (self.bus.running() and self.bus.properties()[1] == "RUNNING"):
            if time.monotonic() > end:
                raise _firewalld.FirewalldError(f"firewalld is not running {RUNNING_WAIT:.0f} s after its reload; see journalctl -u firewalld")
            time.sleep(POLL)

    # --- Docker after the reload ------------------------------------------------------------------------------------

    def docker_snapshot(self) -> DockerSnapshot:
        """Return what Docker has in the host's firewall now; nothing when it does not run."""
        if not _systemd.is_active(self.run, "docker.service"):
            return DockerSnapshot(frozenset(), frozenset(), frozenset())
        bridges = frozenset(name for name in self.bus.interfaces(DOCKER_ZONE) if os.path.exists(f"/sys/class/net/{name}"))
        rules: set[str] = set()
        users: set[str] = set()
        for program in ("iptables-save", "ip6tables-save"):
            # Not a subset by table: Docker has rules in nat, filter and, since 28, raw.
            text = self.run([program])[1]
            rules |= {f"{program[:-5]} {rule}" for rule in _firewalld.docker_rules(text, bridges)}
            users |= {f"{program[:-5]} {rule}" for rule in _firewalld.user_rules(text)}
        return DockerSnapshot(bridges, frozenset(rules), frozenset(users))

    def missing(self, before: DockerSnapshot) -> list[str]:
        """Return what Docker had before and has not now."""
        now = self.docker_snapshot()
        if self.docker_restarted:
            before, now = (found._replace(rules=_firewalld.without_leases(found.rules)) for found in (before, now))
        gone = [f"{name} in zone {DOCKER_ZONE}" for name in sorted(before.bridges - now.bridges) if os.path.exists(f"/sys/class/net/{name}")]
        return gone + sorted(before.rules - now.rules)

    def wait_until_back(self, before: DockerSnapshot, wait: float) -> list[str]:
        """Wait until Docker has everything back; return what it has not after `wait` seconds."""
        end = time.monotonic() + wait
        while True:
            gone = self.missing(before)
            if not gone or time.monotonic() > end:
                return gone
            time.sleep(POLL)

    def wait_docker(self, before: DockerSnapshot) -> None:
        """Wait until Docker has its zone and its rules again; until then nothing it has published is reachable. Raises FirewalldError.

        Docker hears of the reload and does that by itself; a restart is for the one that did not hear.
        """
        if self.wait_until_back(before, DOCKER_WAIT):
            self.docker_restarted = True
            self.actions.append(f"restart Docker: it had not put its rules back {DOCKER_WAIT:.0f} s after firewalld's reload")
            code, out, err = self.run(["systemctl", "restart", "docker.service"])
            gone = self.wait_until_back(before, RESTART_WAIT)
            if code != 0 or gone:
                raise _firewalld.FirewalldError(
                    f"after firewalld's reload and a restart of Docker{f' ({err.strip() or out.strip()})' if code else ''} these are missing, and published ports may be closed:"
                    f" {'; '.join(gone[:SHOWN_RULES]) or 'nothing'}. See journalctl -u docker; `systemctl restart docker` brings them back once its cause is gone"
                )
        self.lost = sorted(before.users - self.docker_snapshot().users)
        if self.lost:
            self.module.warn(f"firewalld's reload took rules out of chain DOCKER-USER, which are yours to add again: {'; '.join(self.lost[:SHOWN_RULES])}")

    def replaced(self, value: str) -> str | None:
        """Return the check that we weakened or switched off and that still is, for whoever puts another one in its place."""
        planned = self.files.get(self.state_path)
        state = self.state() if planned is None else json.loads(planned)
        remembered = state.get("ipv6_rpfilter")
        if value.startswith("strict") or not isinstance(remembered, dict):
            return None
        replaced = _firewalld.normalize_rpfilter(remembered.get("before"))
        return None if replaced in ("no", value) else replaced

    def message(self) -> str:
        """Return what was done and why, in sentences."""
        done = "would " if self.module.check_mode else ""
        message = "; ".join(done + action for action in self.actions) or f"firewalld is {self.found} on this host: nothing to do"
        if self.reasons:
            message += f". firewalld {'would be' if self.module.check_mode else 'was'} reloaded once, because {' and '.join(self.reasons)}"
        elif self.actions:
            message += ", without a reload"
        return f"{message}. {self.strategy}: {self.reason}." if self.reason else f"{message}."

    def result(self, version: str) -> dict:
        """Return the module's result."""
        result = {
            "changed": bool(self.actions),
            "firewalld": self.found,
            "bridge_nf_call_ip6tables": read_int(SYSCTL),
            "reloaded": bool(self.reasons),
            "docker_restarted": self.docker_restarted,
            "lost_user_rules": self.lost,
            "actions": self.actions,
            "msg": self.message(),
            "diff": [{"before_header": name, "after_header": name, "before": self.before[name], "after": self.after[name]} for name in self.after],
        }
        if self.reason:
            result["reason"] = self.reason
        if self.found != "absent":
            content = self.files.get(CONFIGURATION) or read_file(CONFIGURATION) or b""
            value = _firewalld.effective_rpfilter(content, version)
            result["ipv6_rpfilter"] = {"value": value, "replaced": self.replaced(value)}
        if self.found == "running":
            ports = self.ports
            if ports is None:
                policy = _firewalld.read_policy(read_file(self.policy_path) or b"")
                ports = frozenset() if policy is None else policy.ports
            result["udp_ports"] = _firewalld.sorted_ports(ports)
        return result

    def plan_strategy(self, situation: _firewalld.Situation) -> None:
        """Plan what the strategy asks for; a file that the running firewalld has not read counts as well as what runs."""
        content = read_file(CONFIGURATION) or b""
        unread = situation._replace(check=_firewalld.effective_rpfilter(content, situation.version))
        file_drops, runs_drops = _firewalld.drops_bridged(unread), _firewalld.drops_bridged(situation)
        cure = _firewalld.choose_cure(self.strategy, unread if file_drops else situation, self.module.params["ipv6_rpfilter"])
        if self.strategy == "auto" and runs_drops and not file_drops:
            cure = cure._replace(rpfilter=unread.check, reason=f"the running firewalld's check is {situation.check}; its file has a value that helps")
        self.reason = cure.reason
        # Without a running firewalld its file is left as it is: nobody would read it, and what this version knows is not told.
        leaves = self.module.params["remove_policy"] and self.found == "stopped"
        if (self.found == "running" or leaves) and cure.rpfilter != _firewalld.KEEP:
            self.plan_rpfilter(cure.rpfilter, situation)
        self.set_bridge_nf(cure.bridge_nf)

    def execute(self) -> dict:
        """Bring firewalld to the wanted state and return the module's result."""
        version, in_force = "", False
        if self.found == "running":
            version, _state, in_force = self.bus.properties()
        if self.strategy is not None:
            self.plan_strategy(self.situation(version, in_force))
        if self.module.params["remove_policy"]:
            self.plan_removal()
        elif self.ports is not None and self.found == "running":
            self.plan_policy(version)
        if self.found != "running":
            self.reasons.clear()
        if self.files and not self.module.check_mode:
            self.apply()
        if self.leaving is not None and not self.module.check_mode:
            self.leave_bridge_nf(*self.leaving)
        return self.result(version)


ARGUMENT_SPEC: dict[str, Any] = {
    "strategy": {"type": "str", "choices": list(_firewalld.STRATEGIES)},
    "ipv6_rpfilter": {"type": "str", "default": "no"},
    "udp_ports": {"type": "list", "elements": "int"},
    "remove_policy": {"type": "bool", "default": False},
    "policy": {"type": "str", "default": "dn42-tunnels"},
    "state_path": {"type": "path", "default": "/etc/dn42/firewall.json"},
}


def run(module: AnsibleModule) -> dict[str, Any]:
    """Bring firewalld to the settings, or say what that would take."""
    # firewalld takes no longer name: it makes chains of it.
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,17}", module.params["policy"]):
        module.fail_json(msg=f"policy: {module.params['policy']!r} is no name for a policy (1 to 17 letters, digits, _ and -)")
    try:
        return Settings(module).execute()
    except (_firewalld.SettingError, _firewalld.FirewalldError) as error:
        return module.fail_json(msg=str(error))
