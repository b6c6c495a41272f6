# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the module docker_daemon does on a node: bring settings into daemon.json and into force.

This module util is PRIVATE to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dn42.compose.plugins.module_utils import _docker_daemon as daemon_json
from ansible_collections.dn42.compose.plugins.module_utils import _host, _systemd

UNIT = "docker.service"
# What the running daemon is known to have read. In /run, because it means nothing after a boot.
KNOWN_PATH = "/run/dn42/docker.json"
KEPT_BACKUPS = 5
# Containers get ten seconds each to stop, and the start of a daemon with many of them takes a while.
UNIT_WAIT = 300  # seconds
ANSWER_WAIT = 60.0
RELOAD_WAIT = 20.0
POLL = 0.3


class DaemonError(Exception):
    """Docker did not do what it was told; the text is for the operator."""


def read_bytes(path: str) -> bytes | None:
    """Return a file's content, None if there is none."""
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except FileNotFoundError:
        return None


def read_json(path: str) -> dict[str, Any]:
    """Return a file of ours, empty if there is none or if it is damaged."""
    try:
        found = json.loads(read_bytes(path) or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def masked(text: str) -> str:
    """Return text without the user names and passwords of URLs."""
    return re.sub(r"://[^/@\s\"]+@", "://***@", text)


class Docker:
    """The installed and the running Docker."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.program: str | None = module.get_bin_path("dockerd", opt_dirs=["/usr/sbin", "/usr/local/bin"])
        self.client: str | None = module.get_bin_path("docker")
        self.refresh()

    def run(self, *argv: str) -> tuple[int, str, str]:
        """Run a command in the C locale; a missing program is exit code 127."""
        if not self.module.get_bin_path(argv[0]):
            return 127, "", f"{argv[0]} is not there"
        return self.module.run_command(list(argv), environ_update={"LC_ALL": "C.UTF-8"})

    def refresh(self) -> None:
        """Read the state of the unit."""
        values = _systemd.units(lambda argv: self.run(*argv), ["ActiveState", "InvocationID", "MainPID"], UNIT).get(UNIT, {})
        self.active = values.get("ActiveState") == "active"
        self.invocation = values.get("InvocationID", "")
        self.pid = values.get("MainPID", "0")

    def version(self) -> str:
        """Return the version of the installed program, which is what the next start runs; empty without one."""
        if self.program is None:
            return ""
        return self.run(self.program, "--version")[1].partition("version ")[2].split(",")[0].strip()

    def flags(self) -> list[str]:
        """Return the flags the running daemon was started with, none when it does not run."""
        command = (read_bytes(f"/proc/{self.pid}/cmdline") or b"") if self.active else b""
        return [part.decode("utf-8", "surrogateescape") for part in command.split(b"\0")[1:] if part]

    def started(self) -> int | None:
        """Return when the running daemon was started, in ns since 1970; None when systemd does not say."""
        path = "/org/freedesktop/systemd1/unit/docker_2eservice"
        name = "org.freedesktop.systemd1"
        out = self.run("busctl", "get-property", name, path, f"{name}.Service", "ExecMainStartTimestamp")[1]
        found = re.match(r"t (\d+)", out)
        return int(found.group(1)) * 1000 if found else None

    def info(self, template: str) -> str:
        """Return what the running daemon says of itself, empty if it does not answer."""
        if not (self.active and self.client):
            return ""
        code, out, _err = self.run("timeout", "20", self.client, "info", "--format", template)
        return out.strip() if code == 0 else ""

    def containers(self) -> list[dict[str, Any]]:
        """Return the running containers, with whether their restart policy brings them back."""
        if not (self.active and self.client):
            return []
        names = self.run("timeout", "20", self.client, "ps", "--quiet")[1].split()
        if not names:
            return []
        out = self.run("timeout", "20", self.client, "inspect", "--format", "{{.Name}} {{.HostConfig.RestartPolicy.Name}}", *names)[1]
        found = [line.split() for line in out.splitlines()]
        return sorted(({"name": words[0].lstrip("/"), "returns": words[-1] in ("always", "unless-stopped")} for words in found if words), key=lambda item: item["name"])

    def damaged(self) -> list[str]:
        """Return the running containers without their root file system.

        A daemon that gives up early in its start takes away the mounts of containers that survived it by live-restore. They run
        on, but nothing can be executed in them, and only a start of a daemon that finds them stopped mounts it again.
        """
        if not self.client:
            return []
        names = self.run("timeout", "20", self.client, "ps", "--quiet")[1].split()
        out = self.run("timeout", "20", self.client, "inspect", "--format", "{{.Name}} {{.GraphDriver.Data.MergedDir}}", *names)[1] if names else ""
        found = [line.lstrip("/").split(None, 1) for line in out.splitlines()]
        return sorted(words[0] for words in found if len(words) == 2 and words[1].startswith("/") and not os.path.isdir(words[1]))

    def start_containers(self, names: list[str]) -> None:
        """Start containers that ran before; Docker does not do it for those that it could not stop in good order."""
        for name in names:
            self.run("timeout", "60", self.client or "docker", "start", name)

    def complaint(self) -> str:
        """Return the daemon's last words of failure."""
        out = self.run("journalctl", f"--unit={UNIT}", "--output=cat", "--no-pager", "--lines=60")[1]
        lines = [line for line in out.splitlines() if re.search(r"failed to start daemon|unable to configure|validation failed|level=(error|fatal)|panic:", line)]
        return (lines[-1] if lines else "see journalctl -u docker").strip()[-400:]

    def restart(self) -> None:
        """Restart (or start) Docker and wait until it answers. Raises DaemonError."""
        self.run("systemctl", "reset-failed", UNIT, "docker.socket")
        code, _out, err = self.run("timeout", str(UNIT_WAIT), "systemctl", "restart", UNIT)
        self.refresh()
        if code != 0 or not self.active:
            raise DaemonError(self.complaint() if code != 124 else f"it was not up {UNIT_WAIT} s later: {err.strip() or self.complaint()}")
        end = time.monotonic() + ANSWER_WAIT
        while self.client and not self.info("{{.ServerVersion}}"):
            if time.monotonic() > end:
                raise DaemonError(f"it does not answer: {self.complaint()}")
            time.sleep(POLL)
        self.refresh()

    def reload(self) -> dict[str, Any] | None:
        """Let the daemon read its file again; return its own account of all its settings, if it logs one. Raises DaemonError.

        systemctl only sends the signal. The event tells that the file was taken, whatever the log level; what is refused is
        only in the log.
        """
        began = time.time()
        code, _out, err = self.run("systemctl", "reload", UNIT)
        end = time.monotonic() + RELOAD_WAIT
        while code == 0:
            now = f"{time.time():.6f}"
            events = self.run("timeout", "20", self.client or "docker", "events", "--since", f"{began:.6f}", "--until", now, "--filter", "type=daemon", "--filter", "event=reload")[
                1
            ]
            log = self.run("journalctl", f"_SYSTEMD_INVOCATION_ID={self.invocation}", f"--since=@{began:.6f}", "--output=cat", "--no-pager")[1]
            if "reload" in events:
                return next((found for found in map(daemon_json.parse_reloaded, reversed(log.splitlines())) if found is not None), None)
            refused = [line for line in log.splitlines() if re.search(r"validation failed|unable to configure|Error reconfiguring", line)]
            if refused:
                raise DaemonError(refused[-1].strip()[-400:])
            if time.monotonic() > end:
                raise DaemonError(f"it did not take the file within {RELOAD_WAIT:.0f} s: {self.complaint()}")
            time.sleep(POLL)
        raise DaemonError(f"systemctl reload {UNIT}: {err.strip()}")


class Settings:
    """Plans first, so that check mode and a real run say the same; then carries it out."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.docker = Docker(module)
        self.version = self.docker.version()
        self.flags = self.docker.flags()
        self.path = os.path.realpath(self.configured_path())
        self.memory_path: str = module.params["memory_path"]
        self.old = read_bytes(self.path)
        self.text = daemon_json.decode(self.old or b"", self.path)
        self.before = daemon_json.tree(self.text)
        self.record = self.read_record()
        self.memory = read_json(self.memory_path)
        self.backup: str | None = None
        self.merged = self.plan()
        self.after = daemon_json.tree(self.merged.text)
        self.edited = sorted({path[0] for path in self.merged.set + self.merged.removed})
        self.known = self.known_settings()
        self.reloads: list[str] = []
        self.restarts: list[str] = []
        self.new = None if self.old is None else self.text  # the file as it stays
        self.stopped = False  # whether this run has stopped the daemon that it found

    def configured_path(self) -> str:
        """Return the file that the running daemon reads."""
        for flag, value in zip(self.flags, [*self.flags[1:], ""]):
            if flag == "--config-file":
                return value
            if flag.startswith("--config-file="):
                return flag.partition("=")[2]
        return self.module.params["path"]

    def plan(self) -> daemon_json.Merge:
        """Return the file as it is going to be. Raises DaemonFileError."""
        params = self.module.params
        wanted = dict(params["options"])
        if params["address_pools"]:
            if daemon_json.POOLS in wanted:
                raise daemon_json.DaemonFileError(f"dn42_docker_daemon_options has {daemon_json.POOLS} and dn42_docker_address_pools is set: give one of them.")
            daemon_json.check_pools(params["address_pools"], params["own_prefixes"])
            pools = daemon_json.merged_pools(self.before.get(daemon_json.POOLS), params["address_pools"])
            if pools != self.before.get(daemon_json.POOLS) or self.remembered(daemon_json.POOLS):
                wanted[daemon_json.POOLS] = pools
        wanted = daemon_json.for_version(wanted, self.before, _host.version_tuple(self.version))
        return daemon_json.merge(self.text, wanted, self.memory.get("settings", []))

    def remembered(self, key: str) -> bool:
        """Tell whether a setting of the file is one of ours."""
        return any(entry["path"] == [key] for entry in self.memory.get("settings", []))

    # --- what the daemon has ----------------------------------------------------------------------------------------

    def read_record(self) -> dict[str, Any]:
        """Return what the last run noted, as far as it is about this daemon or about one that did not come up again."""
        record = read_json(KNOWN_PATH)
        return {} if self.docker.active and record.get("invocation") != self.docker.invocation else record

    def known_settings(self) -> dict[str, tuple[bool, Any]]:
        """Return (there, value) by key of what the running daemon is known to have read; keys of which nothing is known are not in it."""
        known: dict[str, tuple[bool, Any]] = {}
        started = self.docker.started() if self.docker.active else None
        if self.old is None or (started is not None and os.stat(self.path).st_ctime_ns < started):
            known = {key: daemon_json.get(self.before, (key,)) for key in self.keys()}
        if self.docker.active:
            known.update({key: (bool(found[0]), found[1]) for key, found in self.record.get("known", {}).items()})
        return known

    def keys(self) -> list[str]:
        """Return the settings that are ours to see in force: wanted ones, and those of a run that did not end."""
        pending = self.record.get("pending", [])
        return sorted({entry["path"][0] for entry in self.merged.memory} | set(self.edited) | set(self.module.params["options"]) | set(pending))

    def sort_out(self) -> list[str]:
        """Find what needs a reload or a restart; return the settings of which nobody knows what the daemon has."""
        keys = [key for key in self.keys() if key in self.after or key in self.edited or key in self.known]
        self.reloads, self.restarts, unknown = daemon_json.sort_out(keys, self.after, self.known, self.edited)
        return unknown

    def ask_daemon(self, unknown: list[str]) -> None:
        """Reload Docker, which interrupts nothing, and learn from its log what it runs with."""
        with contextlib.suppress(DaemonError):
            running = self.docker.reload()
            if running is not None:
                for key in unknown:
                    if daemon_json.in_force(key, daemon_json.get(self.before, (key,)), running):
                        self.known[key] = daemon_json.get(self.before, (key,))
                self.sort_out()

    # --- checks before anything is written --------------------------------------------------------------------------

    def validate(self, text: str) -> None:
        """Let Docker check the file, with the flags it runs with. Raises DaemonFileError."""
        if self.docker.program is None:
            return
        flags = []
        skip = False
        for flag in self.flags:
            if skip or flag.startswith("--config-file"):
                skip = flag == "--config-file"
                continue
            flags.append(flag)
        with tempfile.NamedTemporaryFile(dir=self.module.tmpdir, suffix=".json") as stream:
            stream.write(text.encode("utf-8"))
            stream.flush()
            code, out, err = self.docker.run(self.docker.program, *flags, "--validate", f"--config-file={stream.name}")
            if code != 0:
                words = (err.strip() or out.strip()).replace(stream.name, self.path)
                raise daemon_json.DaemonFileError(f"Docker refuses the settings, and {self.path} was left untouched: {words[-600:]}")

    def check_host(self) -> None:
        """Raise DaemonFileError for what keeps a restarted Docker from coming up on this host."""
        if daemon_json.uses_ip6tables(self.after, _host.version_tuple(self.version)):
            code, out, err = self.docker.run("ip6tables", "-w", "10", "-n", "-L", "FORWARD")
            if code != 0:
                raise daemon_json.DaemonFileError(
                    f"Docker sets IPv6 rules with ip6tables, which does not work on this host ({(err or out).strip()[-200:]}): restarted, it would not come up. Boot the"
                    " kernel with IPv6 and its ip6_tables module, or set ip6tables: false in dn42_docker_daemon_options. Nothing was changed."
                )
        if self.after.get("firewall-backend") == "nftables":
            for name in ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"):
                if (read_bytes(f"/proc/sys/{name}") or b"1").strip() == b"0":
                    raise daemon_json.DaemonFileError(
                        f"With firewall-backend: nftables Docker does not start while {name} is 0: switch it on in /etc/sysctl.d first, or use iptables. Nothing was changed."
                    )

    def interrupted(self) -> list[dict[str, Any]]:
        """Return the running containers that the restart stops; the reload before it tells the daemon about live-restore."""
        if not self.restarts or self.after.get(daemon_json.LIVE_RESTORE) is True:
            return []
        if self.docker.info("{{.LiveRestoreEnabled}}") == "true" and daemon_json.LIVE_RESTORE not in self.edited:
            return []
        return self.docker.containers()

    # --- carrying it out --------------------------------------------------------------------------------------------

    def write(self, path: str, content: bytes | None, mode: int) -> None:
        """Replace a file in one step, keeping its mode and owner; None removes it."""
        if content is None:
            if os.path.exists(path):
                os.unlink(path)
            return
        directory = os.path.dirname(path)
        os.makedirs(directory, mode=0o755, exist_ok=True)
        there = os.path.exists(path)
        descriptor, temporary = tempfile.mkstemp(dir=self.module.tmpdir if there else directory)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(descriptor)
        if there:
            self.module.atomic_move(temporary, path)
            return
        # Never readable by more than it is going to be: it may hold credentials.
        os.chmod(temporary, mode)
        os.replace(temporary, path)

    def write_json(self, path: str, content: dict[str, Any]) -> None:
        """Replace a file of ours; it may hold credentials."""
        self.write(path, (json.dumps(content, sort_keys=True) + "\n").encode("utf-8"), 0o600)

    def write_text(self, text: str | None) -> None:
        """Replace daemon.json."""
        self.write(self.path, None if text is None else text.encode("utf-8"), 0o644)

    def keep_backup(self) -> None:
        """Keep the file from before beside it, and the last few of these."""
        if self.old is None:
            return
        self.backup = f"{self.path}.{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}.dn42"
        self.write(self.backup, self.old, 0o600)
        directory, name = os.path.split(self.path)
        kept = sorted(entry for entry in os.listdir(directory) if entry.startswith(f"{name}.") and entry.endswith("Z.dn42"))
        for entry in kept[:-KEPT_BACKUPS]:
            os.unlink(f"{directory}/{entry}")

    def remember(self, pending: list[str], old: str | None) -> None:
        """Note what the daemon has read, what is still on its way there, and the file to go back to."""
        known = {key: list(value) for key, value in self.known.items()}
        self.write_json(KNOWN_PATH, {"invocation": self.docker.invocation, "known": known, "pending": pending, "old": old})

    def apply(self) -> None:
        """Write the file and bring it into force. Raises DaemonError after everything was put back."""
        pending = self.reloads + self.restarts if self.docker.active else self.keys()
        # A run that did not end left a file that the daemon has not read: the way back leads to the one before it.
        old = self.record["old"] if self.record.get("pending") and "old" in self.record else None if self.old is None else self.text
        self.remember(pending, old)
        if self.merged.text != self.text:
            # A file that was made for our settings goes with the last of them.
            created = self.old is None or self.memory.get("created", False)
            gone = created and not self.merged.memory and not self.after
            self.write_json(self.memory_path, {"settings": self.merged.memory, "created": created and not gone})
            self.keep_backup()
            self.new = None if gone else self.merged.text
            self.write_text(self.new)
        try:
            self.put_in_force()
        except DaemonError as error:
            raise DaemonError(self.put_back(old, error)) from error
        for key in pending:
            self.known[key] = daemon_json.get(self.after, (key,))
        self.remember([], None)

    def put_in_force(self) -> None:
        """Reload, then restart, as far as needed. Raises DaemonError."""
        if self.docker.program is None:
            return
        if self.reloads and self.docker.active:
            self.reload_with(self.new, self.reloads)
        if self.restarts or not self.docker.active:
            self.stopped = True
            self.docker.restart()

    def reload_with(self, text: str | None, keys: list[str]) -> None:
        """Let the daemon read the file; reloadable settings that were taken out are in it meanwhile as good as none."""
        shown = daemon_json.for_reload(text or "", keys)
        if shown != text:
            self.write_text(shown)
        try:
            self.docker.reload()
        finally:
            if shown != text:
                self.write_text(text)

    def put_back(self, old: str | None, error: DaemonError) -> str:
        """Put the old file back and Docker with it; return what to tell the operator."""
        text = old or ""
        self.write_json(self.memory_path, self.memory or {"settings": []})
        survived = self.after.get(daemon_json.LIVE_RESTORE) is True and daemon_json.tree(text).get(daemon_json.LIVE_RESTORE) is not True
        tale = f"Docker did not take the new {self.path}: {error}. The file was put back as it was"
        self.write_text(old)
        try:
            if self.stopped:
                # Without live-restore a starting daemon would stop the containers that survived it, for good.
                if survived:
                    self.write_text(daemon_json.set_value(text, (daemon_json.LIVE_RESTORE,), True))
                self.docker.restart()
        except DaemonError as second:
            return f"{tale}, but Docker does not run with it either: {second}. Look at journalctl -u docker."
        finally:
            self.write_text(old)
        damaged = self.docker.damaged() if self.stopped else []
        # A file that cannot be reloaded has changed nothing in the daemon.
        with contextlib.suppress(DaemonError):
            if survived or damaged or not self.stopped:
                off = text if not damaged else daemon_json.set_value(text, (daemon_json.LIVE_RESTORE,), False)
                self.reload_with(old if off == text else off, [*self.reloads, daemon_json.LIVE_RESTORE])
            if damaged:
                self.docker.restart()
                self.docker.start_containers(damaged)
                self.write_text(old)
                self.docker.reload()
                tale += f", {', '.join(damaged)} had lost the root file system by the failed start and was started anew,"
        self.write_text(old)
        self.remember([], None)
        return f"{tale} and Docker runs with it again. Correct dn42_docker_daemon_options, then run again."

    # --- the result -------------------------------------------------------------------------------------------------

    def actions(self) -> list[str]:
        """Return what there is to do, item by item."""
        found = []
        for path in self.merged.set:
            there, value = daemon_json.get(self.before, path)
            now = json.dumps(daemon_json.get(self.after, path)[1], ensure_ascii=False)
            found.append(masked(f"set {daemon_json.dotted(path)} to {now} in {self.path} ({f'was {json.dumps(value, ensure_ascii=False)}' if there else 'was not set'})"))
        found += [f"take {daemon_json.dotted(path)} out of {self.path}" for path in self.merged.removed]
        if self.docker.program is not None and self.docker.active:
            if self.restarts:
                found.append(f"restart Docker, which runs without the file's {', '.join(self.restarts)}")
            elif self.reloads:
                found.append(f"reload Docker for {', '.join(self.reloads)}")
        elif self.docker.program is not None and (found or self.record.get("pending")):
            found.append("start Docker")
        return found

    def sentence(self, actions: list[str], interrupted: list[dict[str, Any]]) -> str:
        """Return the module's message."""
        would = "would " if self.module.check_mode else ""
        message = "; ".join(would + action for action in actions) or "nothing to do"
        if interrupted:
            stay = [item["name"] for item in interrupted if not item["returns"]]
            message += f". The restart interrupts {', '.join(item['name'] for item in interrupted)}"
            message += f"; without a restart policy, {', '.join(stay)} stays stopped" if stay else "; Docker starts them again"
            message += ". live-restore: true in dn42_docker_daemon_options keeps containers running"
        return f"{message}."

    def refuse_restart(self, interrupted: list[dict[str, Any]], unknown: list[str]) -> None:
        """Raise DaemonFileError when a restart is needed and forbidden; in check mode the daemon was not asked about unknown settings."""
        needed = set(self.restarts) - set(unknown if self.module.check_mode else [])
        if needed and self.docker.active and self.module.params["restart"] == "forbidden":
            names = ", ".join(item["name"] for item in interrupted) or "no container"
            raise daemon_json.DaemonFileError(
                f"{', '.join(self.restarts)} takes effect only with a restart of Docker, and dn42_docker_restart is forbidden. Nothing was written. A restart would interrupt"
                f" {names}: run again with -e dn42_docker_restart=allowed when that suits, or take the setting out of dn42_docker_daemon_options."
            )

    def execute(self) -> dict[str, Any]:
        """Bring the settings into force and return the module's result."""
        unknown = self.sort_out() if self.docker.active else []
        if unknown and not self.module.check_mode:
            self.ask_daemon(unknown)
        interrupted = self.interrupted()
        actions = self.actions()
        notices = daemon_json.notices(self.after, _host.version_tuple(self.version), self.module.params["own_prefixes"])
        for notice in notices:
            self.module.warn(notice)
        if actions:
            self.refuse_restart(interrupted, unknown)
            if self.merged.text != self.text:
                self.validate(self.merged.text)
            if self.restarts or not self.docker.active:
                self.check_host()
            if not self.module.check_mode:
                self.apply()
        elif unknown and not self.module.check_mode:
            self.remember([], None)
        return {
            "changed": bool(actions),
            "version": self.version,
            "actions": actions,
            "reloaded": self.reloads,
            "restarted": self.restarts,
            "interrupted": interrupted,
            "backup": self.backup,
            "notices": notices,
            "msg": self.sentence(actions, interrupted),
            "diff": {"before_header": self.path, "after_header": self.path, "before": masked(self.text), "after": masked(self.merged.text)},
        }


ARGUMENT_SPEC: dict[str, Any] = {
    "options": {"type": "dict", "default": {}},
    "address_pools": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {"base": {"type": "str", "required": True}, "size": {"type": "int", "required": True}},
    },
    "own_prefixes": {"type": "list", "elements": "str", "default": []},
    "restart": {"type": "str", "choices": ["allowed", "forbidden"], "default": "allowed"},
    "path": {"type": "path", "default": "/etc/docker/daemon.json"},
    "memory_path": {"type": "path", "default": "/etc/dn42/docker.json"},
}


def run(module: AnsibleModule) -> dict[str, Any]:
    """Bring the settings into force, or say what that would take."""
    try:
        return Settings(module).execute()
    except (daemon_json.DaemonFileError, DaemonError) as error:
        return module.fail_json(msg=str(error))
