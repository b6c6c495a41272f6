# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A release that is interrupted at a chosen moment. Afterwards the node routes with one of the two releases, whole; the next run
converges; nothing is left behind.

A moment is held without the product's help: the release waits for the node's lock, which the test has taken, or its process is
stopped (SIGSTOP) as soon as its transaction has come to the phase in question.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from network_probe import Lab, wait_for
from support import CHECKOUT, SESSION_WAIT, changed_hosts, playbook, wait_for_node

NODE = "fra1"
DIRECTORY = "/opt/dn42"
# What is in a node's directory when no release is at work.
AT_REST = {".lock", "compose.yaml", "history", "lib", "secrets", "services"}
# A cycle waits for containers, there and back, and for sessions, there and back.
CYCLE = 2 * (120 + 180)

# Stops the release's process in a phase of its transaction; prints its process id. The moment before there is a transaction is held
# by the node's lock instead.
STOP_IN_PHASE = """
import glob, os, signal, sys, time
deadline = time.monotonic() + 300
while time.monotonic() < deadline:
    try:
        reached = open("/opt/dn42/.transaction/phase").read() == sys.argv[1]
    except OSError:
        reached = False
    for process in glob.glob("/proc/[0-9]*/cmdline") if reached else []:
        try:
            words = open(process).read().split("\\0")
        except OSError:
            continue
        if "run" in words and "/opt/dn42/lib/release.pyz" in words:
            os.kill(int(process.split("/")[2]), signal.SIGSTOP)
            print(process.split("/")[2])
            sys.exit(0)
    time.sleep(0.005)
sys.exit("the phase was never reached")
"""
HOLD_LOCK = f"exec flock --exclusive --no-fork {DIRECTORY}/.lock sh -c 'echo held; exec sleep 300'"


class Limit:
    """The change that is released: another import limit. BIRD takes it over without touching a session."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.old = self.real()
        self.new = 8001 if self.old != 8001 else 8002

    @property
    def arguments(self) -> list[str]:
        """The arguments of a run that releases it to the node alone."""
        return ["site.yml", "--limit", NODE, "-e", f"dn42_router_import_limit={self.new}"]

    def real(self) -> int:
        """The limit that BIRD has now."""
        shown = re.search(r"Import limit:\s+(\d+)", self.lab.birdc(NODE, "show", "protocols", "all", "peer_peer1"))
        assert shown
        return int(shown[1])

    def written(self) -> int:
        """The limit in the release that is in use."""
        shown = re.search(r"import limit (\d+) action", self.lab.run(NODE, "cat", f"{DIRECTORY}/services/router/current/bird.conf").stdout)
        assert shown
        return int(shown[1])


@contextlib.contextmanager
def release(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A run of the playbook in a process group of its own."""
    command = ["ansible-playbook", "-i", "inventories/demo", *arguments]
    with subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True) as running:
        try:
            yield running
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)


def lab_command(lab: Lab, *argv: str) -> subprocess.Popen[str]:
    """A command in the node that runs beside the test."""
    command = [str(CHECKOUT / "tests/lab/lab"), "exec", "--name", lab.name, NODE, *argv]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


class Held:
    """A release that stands still."""

    def __init__(self, lab: Lab, running: subprocess.Popen[str], process: str, let_go: Callable[[], None]) -> None:
        self.lab = lab
        self.running = running
        self.process = process  # of the release program on the node
        self.let_go = let_go


def release_process(lab: Lab) -> str:
    """Process id of the release program on the node, empty for none."""
    return lab.run(NODE, "pgrep", "--full", f"^[^ ]*python[^ ]* -I {DIRECTORY}/lib/release.pyz run", check=False).stdout.strip()


@contextlib.contextmanager
def held(lab: Lab, moment: str, *arguments: str) -> Iterator[Held]:
    """Begin a release and hold it: `sent` before it has done anything, or in a phase of its transaction."""
    if moment == "sent":
        with lab_command(lab, "sh", "-c", HOLD_LOCK) as holder, release(*arguments) as running:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            holding = lab.run(NODE, "pgrep", "--full", "^sleep 300").stdout.split()
            wait_for("the release's process", lambda: bool(release_process(lab)), 300)

            def let_go() -> None:
                lab.run(NODE, "kill", *holding, check=False)

            try:
                yield Held(lab, running, release_process(lab), let_go)
            finally:
                let_go()
                holder.wait(60)
        return
    with lab_command(lab, "python3", "-c", STOP_IN_PHASE, moment) as watcher, release(*arguments) as running:
        process = watcher.communicate(timeout=320)[0].strip()
        assert watcher.returncode == 0, running.communicate(timeout=CYCLE)[0][-3000:]
        assert lab.run(NODE, "cat", f"{DIRECTORY}/.transaction/phase").stdout == moment
        yield Held(lab, running, process, lambda: lab.run(NODE, "kill", "-CONT", process, check=False) and None)


# Faults. Each leaves the node to itself.


def kill_controller(stopped: Held) -> None:
    """The operator's machine dies."""
    os.killpg(stopped.running.pid, signal.SIGKILL)
    stopped.let_go()


def cut_connection(stopped: Held) -> None:
    """The SSH connection ends; what it had started on the node gets a hangup."""
    stopped.lab.run(NODE, "sh", "-c", "pkill -KILL --full '^sshd-session: root' || pkill -KILL --full '^sshd: root'")
    stopped.let_go()
    output, _nothing = stopped.running.communicate(timeout=300)
    assert stopped.running.returncode != 0, output[-3000:]
    assert "UNREACHABLE" in output


def kill_process(stopped: Held) -> None:
    """The release's own process is killed, by the kernel for want of memory for one."""
    stopped.lab.run(NODE, "kill", "-KILL", stopped.process)
    stopped.let_go()
    output, _nothing = stopped.running.communicate(timeout=CYCLE)
    assert stopped.running.returncode != 0, output[-3000:]
    assert "ended before it had a result" in output


def reboot(stopped: Held) -> None:
    """The node reboots."""
    os.killpg(stopped.running.pid, signal.SIGKILL)
    stopped.lab.lab("reboot", NODE)


def stop_docker(stopped: Held) -> None:
    """Docker is stopped and comes back later."""
    stopped.lab.run(NODE, "systemctl", "stop", "docker.socket", "docker.service", timeout=120)
    stopped.let_go()
    output, _nothing = stopped.running.communicate(timeout=CYCLE)
    assert stopped.running.returncode != 0, output[-3000:]
    stopped.lab.run(NODE, "systemctl", "start", "docker.socket", "docker.service", timeout=120)


FAULTS = [kill_controller, cut_connection, kill_process, reboot, stop_docker]
# Which of the two releases the node must have afterwards; None: either.
OUTCOMES = {kill_controller: "new", cut_connection: "new", kill_process: "old", reboot: "old", stop_docker: None}


def at_rest(lab: Lab) -> bool:
    """Whether no release is at work and none is to be undone."""
    units = lab.run(NODE, "systemctl", "list-units", "--no-legend", "--plain", "--state=active,activating,deactivating", "dn42-release*", check=False)
    return units.returncode == 0 and not units.stdout.strip() and ".transaction" not in listing(lab)


def listing(lab: Lab) -> set[str]:
    """What is in the node's directory."""
    return set(lab.run(NODE, "ls", "-A", DIRECTORY).stdout.split())


def assert_whole(lab: Lab, limit: Limit, outcome: str | None) -> None:
    """One of the two releases is in use, all of it, and nothing is left of the attempt."""
    wait_for("the node at rest", lambda: at_rest(lab), CYCLE)
    wait_for_node(lab, NODE)
    wait_for("BIRD with the release in use", lambda: limit.real() == limit.written(), 60)
    allowed = {"old": [limit.old], "new": [limit.new], None: [limit.old, limit.new]}[outcome]
    assert limit.real() in allowed
    assert listing(lab) == AT_REST
    assert lab.run(NODE, "systemctl", "list-units", "--failed", "--no-legend", "--plain", "dn42-release*").stdout.strip() == ""
    releases = lab.run(NODE, "sh", "-c", f"ls -A {DIRECTORY}/services/*/releases").stdout
    assert ".edited" not in releases


def assert_converges(limit: Limit) -> None:
    """The next run brings the node to what it was about to be, and the one after it has nothing to do."""
    if changed_hosts(playbook(*limit.arguments).stdout) != {NODE: 0}:
        assert changed_hosts(playbook(*limit.arguments).stdout) == {NODE: 0}
    assert limit.real() == limit.written() == limit.new


@pytest.fixture(scope="module", autouse=True)
def back_to_the_demo(lab: Lab) -> Iterator[None]:
    """After the tests the node is as the demo's inventory says."""
    yield
    playbook("site.yml", "--limit", NODE)


SHORT = [(kill_process, "starting"), (cut_connection, "confirming")]
CELLS = [
    pytest.param(fault, moment, id=f"{fault.__name__}-{moment}", marks=[] if (fault, moment) in SHORT else [pytest.mark.full])
    for fault in FAULTS
    for moment in ("sent", "starting", "confirming")
]


@pytest.mark.parametrize(("fault", "moment"), CELLS)
def test_an_interrupted_release_leaves_one_of_the_two_whole(lab: Lab, fault: Callable[[Held], None], moment: str) -> None:
    """The fault table. A dead controller or connection interrupts nothing; whatever else dies, the release is undone by the node."""
    wait_for_node(lab, NODE)
    limit = Limit(lab)
    with held(lab, moment, *limit.arguments) as stopped:
        fault(stopped)
    assert_whole(lab, limit, OUTCOMES[fault])
    assert_converges(limit)


# The node's directory on a file system of its own, and back: what is in it moves while the containers are stopped.
MOVE = f"""
set -e
cd {DIRECTORY} && docker compose stop && cd /
cp --archive {{source}}/. {{target}}/
{{mount}}
cd {DIRECTORY} && docker compose up --detach --wait
"""
FILLER = "/opt/filler"


@pytest.fixture(scope="module")
def small_disk(lab: Lab) -> Iterator[None]:
    """The node's directory on a disk of its own, in memory. Smaller, preflight would refuse it."""
    wait_for_node(lab, NODE)
    small = "mkdir /run/small && mount -t tmpfs -o size=400m,mode=755 tmpfs /run/small"
    lab.run(NODE, "sh", "-c", small + MOVE.format(source="/opt", target="/run/small", mount="mount --move /run/small /opt && rmdir /run/small"), timeout=300)
    try:
        yield
    finally:
        back = f"mkdir /run/opt && mount --bind / /run/opt && rm -r /run/opt{DIRECTORY}"
        lab.run(NODE, "sh", "-c", back + MOVE.format(source="/opt", target="/run/opt/opt", mount="umount --lazy /opt; umount /run/opt; rmdir /run/opt"), timeout=300)


@pytest.mark.full
@pytest.mark.parametrize("moment", ["sent", "starting", "confirming"])
@pytest.mark.usefixtures("small_disk")
def test_a_disk_that_fills_up_leaves_one_of_the_two_whole(lab: Lab, moment: str) -> None:
    """The fault table's row of the full disk. The node routes while it is full; when there is room again the next run converges."""
    wait_for_node(lab, NODE)
    limit = Limit(lab)
    before = lab.container_starts(NODE)
    try:
        with held(lab, moment, *limit.arguments) as stopped:
            full = lab.run(NODE, "dd", "if=/dev/zero", f"of={FILLER}", "bs=64k", check=False)
            assert "No space left" in full.stderr
            stopped.let_go()
            output, _nothing = stopped.running.communicate(timeout=CYCLE)
        if moment != "confirming":
            assert stopped.running.returncode != 0, output[-3000:]
            assert re.search("are free on the file system of|No space left", output), output[-3000:]
        wait_for("the node at rest", lambda: at_rest(lab), CYCLE)
        wait_for_node(lab, NODE)
        assert lab.container_starts(NODE) == before
    finally:
        lab.run(NODE, "rm", "-f", FILLER)
    assert_whole(lab, limit, "new" if moment == "confirming" else "old")
    assert_converges(limit)


def spoilt(tmp_path: Path) -> list[str]:
    """Arguments of a release that passes every check and loses the session with peer1."""
    peers = yaml.safe_load((CHECKOUT / "inventories/demo/host_vars" / f"{NODE}.yml").read_text())["dn42_peers"]
    extra = tmp_path / "extra.yml"
    extra.write_text(yaml.safe_dump({"dn42_stack_confirm_seconds": 20, "dn42_peers": [{**peers[0], "peer_address": "fe80::9999"}]}))
    return ["site.yml", "--limit", NODE, "-e", f"@{extra}"]


def test_a_release_that_loses_a_session_is_undone_and_says_what_it_lost(lab: Lab, tmp_path: Path) -> None:
    """The other session keeps its age through both, and no container was touched."""
    wait_for_node(lab, NODE)
    limit = Limit(lab)
    before = (lab.container_starts(NODE), lab.ages(NODE)["ibgp_hkg1"])
    done = playbook(*spoilt(tmp_path), check=False)
    assert done.returncode != 0
    assert "The release was undone" in done.stdout
    assert re.search(r"session peer_peer1 \(peer1 .*\) was established, now: ", done.stdout), done.stdout[-3000:]
    assert_whole(lab, limit, "old")
    assert (lab.container_starts(NODE), lab.ages(NODE)["ibgp_hkg1"]) == before


@pytest.mark.full
def test_a_release_that_loses_a_session_is_undone_without_its_controller(lab: Lab, tmp_path: Path) -> None:
    """The node judges by itself; the next run tells what happened."""
    wait_for_node(lab, NODE)
    limit = Limit(lab)
    with held(lab, "confirming", *spoilt(tmp_path)) as stopped:
        kill_controller(stopped)
    assert_whole(lab, limit, "old")
    done = playbook(*limit.arguments)
    assert "The last release to this node was undone" in done.stdout + done.stderr
    assert_converges(limit)


def test_a_checker_and_a_failed_build_end_the_run_before_anything_is_touched(lab: Lab) -> None:
    """These faults have one moment: images are built and configuration is checked before the first switch."""
    wait_for_node(lab, NODE)
    limit = Limit(lab)
    before = (lab.container_starts(NODE), lab.ages(NODE))
    for variable in ("dn42_router_import_limit=-5", "dn42_stack_base_image=localhost/not-there:1"):
        done = playbook("site.yml", "--limit", NODE, "-e", variable, check=False)
        assert done.returncode != 0, variable
        assert_whole(lab, limit, "old")
    assert (lab.container_starts(NODE), lab.ages(NODE)) == before


@pytest.mark.full
def test_a_second_controller_waits_and_then_stops_with_a_clear_message(lab: Lab) -> None:
    """One release is held for longer than the second waits; then the first one goes on as if nothing had been."""
    wait_for_node(lab, NODE)
    limit = Limit(lab)
    with held(lab, "starting", *limit.arguments) as first:
        done = playbook("site.yml", "--limit", NODE, "-e", "dn42_router_import_limit=7777", check=False)
        assert done.returncode != 0
        assert "another run is releasing to this node" in done.stdout
        first.let_go()
        output, _nothing = first.running.communicate(timeout=CYCLE)
        assert first.running.returncode == 0, output[-3000:]
    assert_whole(lab, limit, "new")


@pytest.mark.full
def test_two_controllers_at_once_mix_nothing(lab: Lab) -> None:
    """Both want another limit: the node gets one of them, whole, and both releases are in its history."""
    wait_for_node(lab, NODE)
    limit = Limit(lab)
    other = limit.new + 10
    with release(*limit.arguments) as first, release("site.yml", "--limit", NODE, "-e", f"dn42_router_import_limit={other}") as second:
        outputs = [running.communicate(timeout=2 * CYCLE)[0] for running in (first, second)]
        assert first.returncode == second.returncode == 0, "\n".join(output[-2000:] for output in outputs)
    wait_for("the node at rest", lambda: at_rest(lab), CYCLE)
    assert limit.real() == limit.written()
    assert limit.real() in (limit.new, other)
    assert listing(lab) == AT_REST
    assert_converges(limit)


def test_the_history_goes_back_and_the_next_run_goes_forward(lab: Lab) -> None:
    """Back to the release before and forward again; the history says so and holds no secret."""
    wait_for_node(lab, NODE)
    limit = Limit(lab)
    playbook(*limit.arguments)
    before = (lab.container_starts(NODE), lab.ages(NODE))
    assert limit.real() == limit.new

    predicted = playbook("playbooks/rollback.yml", "--limit", NODE, "--check")
    assert changed_hosts(predicted.stdout) == {NODE: 1}
    assert limit.written() == limit.new
    playbook("playbooks/rollback.yml", "--limit", NODE)
    assert limit.real() == limit.written() == limit.old
    shown = playbook("playbooks/history.yml", "--limit", NODE).stdout
    assert "back to " in shown
    assert f"{os.environ.get('USER', 'root')}@" in shown

    refused = playbook("playbooks/rollback.yml", "--limit", NODE, "-e", "dn42_rollback_to=000000000000", check=False)
    assert refused.returncode != 0
    assert "the history of this node has no release 000000000000" in refused.stdout

    assert changed_hosts(playbook(*limit.arguments).stdout) == {NODE: 1}
    assert limit.real() == limit.new
    assert (lab.container_starts(NODE), lab.ages(NODE)) == before
    kept = lab.run(NODE, "sh", "-c", f"cat {DIRECTORY}/history/*/*").stdout
    for key in lab.run(NODE, "sh", "-c", f"cat {DIRECTORY}/secrets/*/*").stdout.split():
        assert key not in kept
    entries = lab.run(NODE, "ls", f"{DIRECTORY}/history").stdout.split()
    assert len(entries) <= 10


@pytest.mark.full
def test_a_run_that_removes_many_tunnels_is_refused_unless_told(lab: Lab, tmp_path: Path) -> None:
    """Three peers more, then none of them: refused in check mode and outside of it, with their names, and done when told."""
    peers = yaml.safe_load((CHECKOUT / "inventories/demo/host_vars" / f"{NODE}.yml").read_text())["dn42_peers"]
    more = []
    for number in range(3):
        newcomer = {**peers[0], "name": f"many{number}", "asn": 4200429010 + number, "listen_port": 22910 + number, "peer_address": f"fe80::91{number}0"}
        # Without an endpoint: peer1 must not hear of tunnels with its own key.
        newcomer = {key: value for key, value in newcomer.items() if key not in ("preshared_key", "endpoint")}
        more.append(newcomer)
    with_more, without = tmp_path / "with.json", tmp_path / "without.json"
    with_more.write_text(json.dumps({"dn42_peers": [*peers, *more]}))
    without.write_text(json.dumps({"dn42_peers": peers}))
    wait_for_node(lab, NODE)
    playbook("site.yml", "--limit", NODE, "-e", f"@{with_more}")
    before = lab.ages(NODE)["peer_peer1"]
    for extra in ([], ["--check"]):
        done = playbook("site.yml", "--limit", NODE, "-e", f"@{without}", *extra, check=False)
        assert done.returncode != 0
        assert "would remove 3 of the node's 5 tunnels" in done.stdout
        assert "wg-many0, wg-many1, wg-many2" in done.stdout
    assert "wg-many1" in lab.in_router(NODE, "ip", "-brief", "link").stdout
    playbook("site.yml", "--limit", NODE, "-e", f"@{without}", "-e", "dn42_stack_allow_removal=true")
    wait_for("the tunnels to go", lambda: "wg-many" not in lab.in_router(NODE, "ip", "-brief", "link").stdout, SESSION_WAIT)
    assert lab.ages(NODE)["peer_peer1"] == before
