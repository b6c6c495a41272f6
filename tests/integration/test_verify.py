# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Declared against real: every kind of drift is named, and the next run repairs exactly that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from network_probe import Lab, wait_for
from support import NODES, SESSION_WAIT, changed_hosts, playbook, wait_for_node

VERIFY = "playbooks/verify.yml"


def verify(path: Path, *arguments: str) -> tuple[int, dict[str, Any], str]:
    """Run the playbook; its exit status, what it wrote for machines, and what it printed."""
    path.unlink(missing_ok=True)
    done = playbook(VERIFY, "-e", f"dn42_verify_json={path}", *arguments, check=False)
    assert path.exists(), done.stdout[-4000:]
    return done.returncode, json.loads(path.read_text()), done.stdout


def drift(report: dict[str, Any], node: str) -> set[tuple[str, str]]:
    """(area, what) of what site.yml would repair on a node."""
    return {(finding["area"], finding["what"]) for finding in report["nodes"][node]["findings"] if finding["kind"] == "drift"}


def test_a_converged_network_is_as_declared(lab: Lab, tmp_path: Path) -> None:
    """Exit status 0, a row of dots for each node, and nothing changed."""
    for node in NODES:
        wait_for_node(lab, node)
    starts = {node: (lab.container_starts(node), lab.ages(node)) for node in NODES}
    code, report, output = verify(tmp_path / "report.json")
    assert (code, report["ok"]) == (0, True), output[-3000:]
    for node in NODES:
        assert report["nodes"][node] == {"reached": True, "ok": True, "findings": []}
        row = next(line for line in output.splitlines() if line.startswith(f"{node} "))
        assert set(row.split()[1:]) == {"."}
    assert set(changed_hosts(output).values()) == {0}
    assert {node: (lab.container_starts(node), lab.ages(node)) for node in NODES} == starts


def test_drift_is_named_and_repaired_and_nothing_else(lab: Lab, tmp_path: Path) -> None:
    """A hand-edited file, a stopped container, a flushed table, a closed port and a disabled unit, all at once."""
    before = {node: (lab.container_starts(node), lab.ages(node)) for node in NODES}
    lab.run("hkg1", "sh", "-c", "echo '# edited by hand' >> /opt/dn42/services/router/current/bird.conf")
    lab.run("hkg1", "docker", "stop", "dn42-dns")
    # It would load the table again.
    lab.run("hkg1", "systemctl", "stop", "dn42-guard-watch.service")
    lab.run("hkg1", "nft", "delete", "table", "inet", "dn42_guard")
    lab.run("hkg1", "firewall-cmd", "--policy=dn42-tunnels", "--remove-port=22900/udp")
    lab.run("hkg1", "systemctl", "disable", "dn42-guard.service")
    code, report, output = verify(tmp_path / "report.json")
    assert code != 0
    assert drift(report, "hkg1") == {
        ("files", "router/bird.conf differs"),
        ("containers", "container dn42-dns is not running (exited)"),
        ("firewall", "the guard's table inet dn42_guard is not loaded"),
        ("firewall", "to do: add 22900/udp (running)"),
        ("firewall", "dn42-guard.service is active, disabled"),
        ("firewall", "dn42-guard-watch.service is inactive, static"),
    }
    assert drift(report, "fra1") == set()
    for _area, what in drift(report, "hkg1"):
        assert what in output
    assert changed_hosts(playbook().stdout)["fra1"] == 0
    for node in NODES:
        wait_for_node(lab, node)
    after = {node: (lab.container_starts(node), lab.ages(node)) for node in NODES}
    assert after["fra1"] == before["fra1"]
    starts, ages = after["hkg1"]
    assert {name for name, start in starts.items() if start != before["hkg1"][0][name]} == {"dn42-dns"}
    assert ages == before["hkg1"][1]
    code, report, output = verify(tmp_path / "report.json")
    assert (code, report["ok"]) == (0, True), output[-3000:]


@pytest.mark.full
def test_what_is_down_is_told_from_drift(lab: Lab, tmp_path: Path) -> None:
    """A session that an operator disabled: as declared, and not working. Foreign peers may be left out."""
    lab.birdc("hkg1", "disable", "peer_peer1")
    try:
        code, report, _output = verify(tmp_path / "report.json", "--limit", "hkg1")
        assert code != 0
        assert set(report["nodes"]) == {"hkg1"}
        findings = [finding for finding in report["nodes"]["hkg1"]["findings"] if finding["area"] == "sessions"]
        assert [finding["kind"] for finding in findings] == ["down"]
        assert "peer_peer1" in findings[0]["what"]
        code, report, output = verify(tmp_path / "report.json", "--limit", "hkg1", "-e", "dn42_verify_peers=false")
        assert (code, report["ok"]) == (0, True), output[-3000:]
    finally:
        lab.birdc("hkg1", "enable", "peer_peer1")
        wait_for_node(lab, "hkg1")


def test_a_deleted_interface_is_back_before_anybody_asks(lab: Lab, tmp_path: Path) -> None:
    """The keeper repairs it; there is nothing left to do for a run."""
    lab.in_router("hkg1", "ip", "link", "del", "wg-peer1")
    wait_for("wg-peer1 again", lambda: lab.in_router("hkg1", "ip", "link", "show", "wg-peer1", check=False).returncode == 0, 60)
    wait_for_node(lab, "hkg1")
    code, report, output = verify(tmp_path / "report.json")
    assert (code, report["ok"]) == (0, True), output[-3000:]


def test_a_node_that_is_not_reached_is_no_node_without_faults(lab: Lab, tmp_path: Path) -> None:
    """The other one is read all the same, and the exit status says that one is missing."""
    # Ansible keeps connections open from run to run; those end as well.
    lab.run("hkg1", "sh", "-c", "systemctl stop ssh.socket ssh.service; pkill sshd || true")
    try:
        code, report, output = verify(tmp_path / "report.json")
    finally:
        lab.run("hkg1", "systemctl", "start", "ssh.service")
    assert code != 0
    assert report["nodes"]["fra1"]["ok"] is True
    assert report["nodes"]["hkg1"] == {"reached": False, "ok": False, "findings": []}
    assert "not reached" in output
    wait_for("hkg1 again", lambda: lab.run("hkg1", "systemctl", "is-active", "ssh.service").stdout.strip() == "active", SESSION_WAIT)
