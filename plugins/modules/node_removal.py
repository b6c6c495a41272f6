#!/usr/bin/python
# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: node_removal
short_description: Take a node off its host and leave the host as it was found
description:
  - In two steps, with M(dn42.compose.firewalld_settings) and M(dn42.compose.docker_daemon) between them, which put back what they remember.
  - V(stack) closes the sessions, then removes the containers (the router first), volumes, images and the node's directory with
    its private key.
  - V(host) removes the networks, the guard and all other units, sysctl files and files of this collection.
  - Docker and packages stay. Whatever else stays is listed in RV(kept) with its reason.
author:
  - the dn42.compose contributors
attributes:
  check_mode:
    description: Lists what would be removed.
    support: full
  diff_mode:
    description: There is nothing to compare.
    support: none
options:
  step:
    description: Which half.
    type: str
    choices: [stack, host]
    required: true
  directory:
    description: The node's directory.
    type: path
    default: /opt/dn42
  project:
    description: Name of the Docker Compose project.
    type: str
    default: dn42
  router:
    description: Name of the router's container.
    type: str
    default: dn42-router
  message:
    description: What the neighbours of the node's sessions are told (RFC 9003). No quotes, at most 128 bytes.
    type: str
    default: this node leaves the network
  base_image:
    description: The image that the services' images were built from. It goes if it was not on the host before.
    type: str
"""

EXAMPLES = r"""
- name: Close the sessions and remove the node's containers and directory
  dn42.compose.node_removal:
    step: stack

- name: Remove the guard, units and settings
  dn42.compose.node_removal:
    step: host
"""

RETURN = r"""
actions:
  description: What was (in check mode, would be) done, item by item.
  returned: success
  type: list
  elements: str
kept:
  description: What of the node stays on the host, and why.
  returned: success
  type: list
  elements: str
"""

import glob
import os
import shutil
import time
from pathlib import Path
from typing import Callable

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dn42.compose.plugins.module_utils import _firewalld
from ansible_collections.dn42.compose.plugins.module_utils import _found_host as found_host
from ansible_collections.dn42.compose.plugins.module_utils import _release_network as docker_network
from ansible_collections.dn42.compose.plugins.module_utils._release import ReleaseError, locked

STOP_WAIT = 30  # seconds the router may take to stop; BIRD needs one
DOWN_WAIT = 10.0  # seconds until every neighbour was told
UNITS = "/etc/systemd/system"
BRIDGES = ("br-dn42", "br-dn42-egress")
GUARD = "dn42-guard.service"
TABLE = ["table", "inet", "dn42_guard"]


def read_text(path: str) -> str:
    """A file's text, empty if there is none."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


FORWARDING = "/proc/sys/net/ipv6/conf/all/forwarding"


class Removal:
    """Finds what is there, removes it, and remembers both what it did and what it left."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.directory: str = os.path.realpath(module.params["directory"])
        self.project: str = module.params["project"]
        self.record = found_host.read_record(read_text(found_host.RECORD))
        self.docker = module.get_bin_path("docker")
        self.actions: list[str] = []
        self.kept: list[str] = []

    def run(self, *argv: str) -> tuple[int, str]:
        """Run a command; return its exit status and everything it printed."""
        code, out, err = self.module.run_command(list(argv), environ_update={"LC_ALL": "C.UTF-8"})
        return code, out if code == 0 else out + err

    def must(self, *argv: str) -> None:
        """Run a command that has to succeed."""
        code, out = self.run(*argv)
        if code != 0:
            self.module.fail_json(msg=f"`{' '.join(argv)}` failed; run again to go on from here: {out.strip()}", actions=self.actions)

    def act(self, what: str, function: Callable[[], object]) -> None:
        """Note an action and do it, unless this is check mode."""
        if not self.module.check_mode:
            function()
        self.actions.append(what)

    def remove_path(self, path: str | Path) -> None:
        """Remove a file or a directory with everything in it."""
        path = str(path)
        if os.path.isdir(path) and not os.path.islink(path):
            self.act(f"remove {path} with everything in it", lambda: shutil.rmtree(path))
        elif os.path.lexists(path):
            self.act(f"remove {path}", lambda: os.unlink(path))

    # --- containers and what belongs to them ------------------------------------------------------------------------

    def stack(self) -> None:
        """Remove what Docker has of the node, then its directory."""
        if found_host.harmful(self.directory):
            self.module.fail_json(msg=f"dn42_stack_directory: {self.directory} is no directory of a node; nothing was removed")
        if self.module.check_mode or not os.path.isdir(self.directory):
            self.remove_stack()
            return
        try:
            with locked(Path(self.directory)):
                self.remove_stack()
        except ReleaseError as error:
            self.module.fail_json(msg=str(error))

    def remove_stack(self) -> None:
        """The same, while nobody else is at work."""
        if self.docker and self.run("systemctl", "is-active", "--quiet", "docker.service")[0] == 0:
            self.refuse_foreign()
            self.close_sessions()
            self.remove_containers()
            self.remove_rest()
        elif self.docker and os.path.exists(f"{self.directory}/compose.yaml"):
            self.module.fail_json(msg="Docker does not run on this host, so its containers of the node cannot be removed. Start it, then run again; nothing was removed.")
        if os.path.isdir(self.directory):
            self.remove_path(self.directory)

    def names(self, *argv: str) -> list[str]:
        """The lines that a docker command prints, sorted."""
        return sorted(set(self.run(str(self.docker), *argv)[1].split("\n")) - {""})

    def labelled(self) -> str:
        """The filter for what Compose made for the node."""
        return f"label={docker_network.PROJECT_LABEL}={self.project}"

    def refuse_foreign(self) -> None:
        """Fail while containers of others are in the node's networks: those could not be removed."""
        columns = "\t".join(["{{.Names}}", f'{{{{.Label "{docker_network.PROJECT_LABEL}"}}}}', "{{.State}}"])
        refusals = []
        for network in self.networks():
            lines = self.run(str(self.docker), "ps", "--all", "--filter", f"network={network}", "--format", columns)[1]
            foreign = [container for container in docker_network.read_containers(lines) if container.project != self.project]
            refusals += [docker_network.foreign_text(network, foreign)] if foreign else []
        if refusals:
            self.module.fail_json(msg="\n".join(["Nothing was removed.", *refusals]))

    def networks(self) -> list[str]:
        """The node's Docker networks."""
        return self.names("network", "ls", "--filter", self.labelled(), "--format", "{{.Name}}")

    def containers(self) -> list[str]:
        """The node's containers, the router first: it is what others notice."""
        found = self.names("ps", "--all", "--filter", self.labelled(), "--format", "{{.Names}}")
        return sorted(found, key=lambda name: (name != self.module.params["router"], name))

    def close_sessions(self) -> None:
        """Tell every neighbour that the session ends and why, and wait until it was sent."""
        router = self.module.params["router"]
        code, out = self.run(str(self.docker), "exec", router, "birdc", "show", "protocols") if router in self.containers() else (1, "")
        sessions = found_host.bgp_up(out) if code == 0 else []
        if sessions:
            self.act(f"close {len(sessions)} BGP sessions: {', '.join(sessions)}", lambda: self.tell_neighbours(router, sessions))

    def tell_neighbours(self, router: str, sessions: list[str]) -> None:
        """Disable the sessions with a message, which sends a Cease to each neighbour. Not what brings the routes to neighbours."""
        birdc = [str(self.docker), "exec", router, "birdc"]
        message = self.module.params["message"].replace('"', "").encode()[:128].decode("utf-8", "ignore")
        commands = "".join(f'disable {name} "{message}"\n' for name in sessions)
        self.module.run_command([str(self.docker), "exec", "--interactive", router, "birdc"], data=commands)
        end = time.monotonic() + DOWN_WAIT
        # A session that does not end by itself ends with its container.
        while time.monotonic() < end and found_host.bgp_up(self.run(*birdc, "show", "protocols")[1]):
            time.sleep(0.5)

    def remove_containers(self) -> None:
        """Stop and remove the containers, the router before the others, with their anonymous volumes."""
        for name in self.containers():

            def remove(name: str = name) -> None:
                self.run(str(self.docker), "stop", "--time", str(STOP_WAIT), name)
                self.must(str(self.docker), "rm", "--force", "--volumes", name)

            self.act(f"remove container {name}", remove)

    def remove_networks(self) -> None:
        """Remove the node's networks.

        When firewalld reloads, Docker puts the rules of its networks back, those of networks that are gone as well. So this comes
        after the last reload.
        """
        if not self.docker or self.run("systemctl", "is-active", "--quiet", "docker.service")[0] != 0:
            return
        for name in self.networks():
            self.act(f"remove network {name}", lambda name=name: self.must(str(self.docker), "network", "rm", name))
        self.stop_forwarding()

    def stop_forwarding(self) -> None:
        """Put IPv6 forwarding back to off where it was: Docker switches it on for a network with IPv6 and never off again."""
        ids = self.names("network", "ls", "--quiet")
        with_ipv6 = self.names("network", "inspect", "--format", "{{if .EnableIPv6}}{{.Name}}{{end}}", *ids) if ids else []
        ours = self.networks() if self.module.check_mode else []
        was_off = self.record.get("ipv6_forwarding") == 0 and read_text(FORWARDING).strip() == "1"
        if was_off and not set(with_ipv6) - set(ours):
            self.act("set net.ipv6.conf.all.forwarding back to 0", lambda: Path(FORWARDING).write_text("0\n"))

    def remove_rest(self) -> None:
        """Remove volumes and images."""
        docker = str(self.docker)
        for name in self.names("volume", "ls", "--filter", self.labelled(), "--format", "{{.Name}}"):
            self.act(f"remove volume {name}", lambda name=name: self.must(docker, "volume", "rm", name))
        tags = self.names("image", "ls", "--format", "{{.Repository}}:{{.Tag}}")
        base = self.module.params["base_image"]
        brought = [base] if base in tags and self.record.get("images") is not None and base not in self.record["images"] else []
        # The base image last: the others are made of it.
        for tag in found_host.own_images(tags) + brought:
            self.remove_image(tag)

    def remove_image(self, tag: str) -> None:
        """Remove an image's tag unless a container that is not ours was made from it."""
        lines = self.names("ps", "--all", "--format", "{{.Image}} {{.Names}}")
        users = [name for image, _blank, name in (line.partition(" ") for line in lines) if image == tag and name not in self.containers()]
        if users:
            self.kept.append(f"image {tag}: used by {', '.join(users)}")
        else:
            self.act(f"remove image {tag}", lambda: self.must(str(self.docker), "image", "rm", tag))

    # --- the host ---------------------------------------------------------------------------------------------------

    def host(self) -> None:
        """Remove the networks, the guard, all other units, settings and files of ours."""
        self.remove_networks()
        self.leave_zones()
        self.remove_units()
        self.remove_settings()
        for path in [*sorted(glob.glob("/etc/docker/daemon.json.*Z.dn42")), "/run/dn42"]:
            self.remove_path(path)
        own = Path(found_host.OWN_DIRECTORY)
        ours, others = found_host.own_entries(own, self.record)
        for path in sorted(ours, key=lambda path: path.name == os.path.basename(found_host.RECORD)):
            self.remove_path(path)
        if others:
            self.kept.append(f"{own}: {', '.join(path.name for path in others)} are not of this collection")
        self.remove_empty_directories([str(own)] if own.is_dir() and not others else [])

    def leave_zones(self) -> None:
        """Take bridges that are gone out of firewalld's zones: Docker put them there and forgets it."""
        bus = _firewalld.Firewalld(lambda argv: self.module.run_command(argv, environ_update={"LC_ALL": "C.UTF-8"}))
        if not (self.module.get_bin_path("busctl") and bus.running()):
            return
        for bridge in BRIDGES:
            zone = bus.zone_of(bridge)
            if zone and not os.path.exists(f"/sys/class/net/{bridge}"):
                command = ("firewall-cmd", f"--zone={zone}", f"--remove-interface={bridge}")
                self.act(f"take {bridge} out of firewalld's zone {zone}", lambda command=command: self.must(*command))

    def remove_units(self) -> None:
        """Stop, disable and remove units and drop-ins; the guard is the last."""
        files = sorted(glob.glob(f"{UNITS}/dn42-*"), key=lambda path: (os.path.basename(path) == GUARD, path))
        listed = self.run("systemctl", "list-units", "--all", "--plain", "--no-legend", "dn42-*")[1]
        loaded = {line.split()[0] for line in listed.splitlines() if line.split()}
        names = [os.path.basename(path) for path in files]
        for name in sorted(loaded - set(names)):
            self.act(f"stop {name}", lambda name=name: self.run("systemctl", "stop", name))
        for name, path in zip(names, files):

            def remove(name: str = name, path: str = path) -> None:
                self.run("systemctl", "disable", "--now", name)
                os.unlink(path)

            self.act(f"stop and remove {name}", remove)
        drop_ins = sorted(glob.glob(f"{UNITS}/*.d/dn42-*.conf"))
        for path in drop_ins:
            self.remove_path(path)
        if (files or drop_ins) and not self.module.check_mode:
            self.must("systemctl", "daemon-reload")
            self.run("systemctl", "reset-failed", "dn42-*")
        # The guard's unit takes its table with it; one that was loaded without it does not go by itself.
        guarded = GUARD in names and self.module.check_mode
        if self.module.get_bin_path("nft") and not guarded and self.run("nft", "list", *TABLE)[0] == 0:
            self.act(f"remove {' '.join(TABLE)}", lambda: self.must("nft", "delete", *TABLE))

    def remove_settings(self) -> None:
        """Remove sysctl files, and put values back where that does not take the host's default route."""
        text = read_text(found_host.ACCEPT_RA_FILE)
        current = {name: value for name in found_host.parse_accept_ra_file(text) for value in [self.accept_ra(name)] if value is not None}
        choice = found_host.accept_ra_choice(current, self.record, read_text(FORWARDING).strip() == "1")
        for path in sorted(glob.glob("/etc/sysctl.d/90-dn42-*.conf") + glob.glob("/etc/udev/rules.d/90-dn42-*.rules")):
            if path == found_host.ACCEPT_RA_FILE and choice.stay:
                self.kept.append(f"{path} with accept_ra=2 for {', '.join(choice.stay)}: Docker forwards IPv6, and without it this host would lose its IPv6 default route")
            else:
                self.remove_path(path)
        for name, value in choice.back.items():
            path = Path(f"/proc/sys/net/ipv6/conf/{name}/accept_ra")
            self.act(f"set accept_ra of {name} back to {value}", lambda path=path, value=value: path.write_text(f"{value}\n"))

    @staticmethod
    def accept_ra(interface: str) -> int | None:
        """What the kernel does with router advertisements on an interface, None without the interface."""
        text = read_text(f"/proc/sys/net/ipv6/conf/{interface}/accept_ra").strip()
        return int(text) if text.isdigit() else None

    def remove_empty_directories(self, own: list[str]) -> None:
        """Remove directories that were not there before and are empty now."""
        for path in [*own, *self.record.get("missing_directories", [])]:
            emptied = os.path.isdir(path) and (path in own or not os.listdir(path))
            if emptied and not (self.module.check_mode and path in own):
                self.act(f"remove the empty {path}", lambda path=path: os.rmdir(path))


def main() -> None:
    """Remove one half of the node."""
    module = AnsibleModule(
        argument_spec={
            "step": {"type": "str", "choices": ["stack", "host"], "required": True},
            "directory": {"type": "path", "default": "/opt/dn42"},
            "project": {"type": "str", "default": "dn42"},
            "router": {"type": "str", "default": "dn42-router"},
            "message": {"type": "str", "default": "this node leaves the network"},
            "base_image": {"type": "str"},
        },
        supports_check_mode=True,
    )
    removal = Removal(module)
    (removal.stack if module.params["step"] == "stack" else removal.host)()
    module.exit_json(changed=bool(removal.actions), actions=removal.actions, kept=removal.kept)


if __name__ == "__main__":
    main()
