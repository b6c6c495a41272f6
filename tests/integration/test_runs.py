# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run of the playbook does to nodes that work: nothing, or exactly what was asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from network_probe import Lab, wait_for
from support import CHECKOUT, NODES, changed_hosts, playbook, wait_for_node

PEERS_FILE = CHECKOUT / "inventories" / "demo" / "host_vars" / "fra1.yml"


def fingerprint(lab: Lab, node: str) -> str:
    """Names, contents, owners and modes of what a run could write on a node."""
    script = (
        "find /opt/dn42 /etc/dn42 /etc/firewalld /etc/docker /etc/systemd/system -printf '%p %U %m %l\\n' 2>/dev/null | sort;"
        "find /opt/dn42 /etc/dn42 /etc/firewalld /etc/docker /etc/systemd/system -type f 2>/dev/null | sort | xargs -r sha256sum"
    )
    return lab.run(node, "sh", "-c", script).stdout


def state(lab: Lab) -> dict[str, object]:
    """Everything that must be equal before and after a run that has nothing to do."""
    for node in NODES:
        wait_for_node(lab, node)
    return {node: (fingerprint(lab, node), lab.container_starts(node), lab.ages(node)) for node in NODES}


def test_second_run_changes_nothing(lab: Lab) -> None:
    """B75: judged by contents, start times and the age of sessions, besides what Ansible says."""
    before = state(lab)
    done = playbook()
    assert changed_hosts(done.stdout) == {"fra1": 0, "hkg1": 0}
    assert state(lab) == before


def test_check_mode_on_a_converged_node_reports_and_changes_nothing(lab: Lab) -> None:
    """--check --diff with nothing to do, and with something to do."""
    before = state(lab)
    done = playbook("site.yml", "--check", "--diff")
    assert changed_hosts(done.stdout) == {"fra1": 0, "hkg1": 0}
    done = playbook("site.yml", "--check", "--diff", "-e", "dn42_router_import_limit=8000")
    assert all(count > 0 for count in changed_hosts(done.stdout).values())
    assert "+    import limit 8000 action block;" in done.stdout
    assert state(lab) == before


def test_no_output_holds_a_secret(lab: Lab, tmp_path: Path) -> None:
    """B64: at -vvv with --diff, neither the node's key nor a peer's preshared key is printed."""
    preshared = yaml.safe_load(PEERS_FILE.read_text())["dn42_peers"][0]["preshared_key"]
    assert lab.run("fra1", "cat", "/opt/dn42/secrets/router/psk-wg-peer1").stdout.strip() == preshared, "the key is not in use"
    another = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXMhISE="
    extra = tmp_path / "extra.yml"
    peers = yaml.safe_load(PEERS_FILE.read_text())["dn42_peers"]
    supplied = "b3duLWtleS1vd24ta2V5LW93bi1rZXktb3duLWtleSE="
    others = [{**peers[0], "name": "other", "listen_port": 22999, "preshared_key": another}]
    extra.write_text(yaml.safe_dump({"dn42_peers": others, "dn42_router_private_key": supplied}))
    outputs = [playbook("site.yml", "--limit", "fra1", "--check", "--diff", "-vvv", "-e", f"@{extra}").stdout]
    outputs.append(playbook("site.yml", "--diff", "-vvv").stdout)
    keys = [lab.run(node, "cat", "/opt/dn42/secrets/router/private.key").stdout.strip() for node in NODES]
    for output in outputs:
        for secret in [preshared, another, supplied, *keys]:
            assert secret not in output
            assert secret[:10] not in output


def test_drift_is_repaired_and_nothing_else(lab: Lab) -> None:
    """A hand-edited file, a stopped container and a deleted interface come back, the other node keeps its age."""
    before = lab.container_starts("fra1")
    sessions = lab.ages("fra1")
    lab.run("hkg1", "sh", "-c", "echo '# edited by hand' >> /opt/dn42/services/router/current/bird.conf")
    lab.run("hkg1", "docker", "stop", "dn42-dns")
    router = lab.container_starts("hkg1")["dn42-router"]
    done = playbook()
    assert changed_hosts(done.stdout) == {"fra1": 0, "hkg1": 1}
    assert "edited by hand" not in lab.run("hkg1", "cat", "/opt/dn42/services/router/current/bird.conf").stdout
    assert lab.container_starts("hkg1")["dn42-router"] == router, "the router was restarted for a changed file"
    assert lab.container_starts("fra1") == before
    assert lab.ages("fra1") == sessions
    wait_for_node(lab, "hkg1")
    assert changed_hosts(playbook().stdout) == {"fra1": 0, "hkg1": 0}


def test_keeper_restores_a_deleted_tunnel_without_ansible(lab: Lab) -> None:
    """The keeper keeps declared and real equal, one tunnel at a time."""
    other = lab.ages("hkg1")["ibgp_fra1"]
    lab.in_router("hkg1", "ip", "link", "del", "wg-peer1")
    wait_for("wg-peer1 again", lambda: lab.in_router("hkg1", "ip", "link", "show", "wg-peer1", check=False).returncode == 0, 60)
    wait_for_node(lab, "hkg1")
    assert lab.ages("hkg1")["ibgp_fra1"] == other


def test_an_added_peer_touches_no_other_and_leaves_with_its_entry(lab: Lab, tmp_path: Path) -> None:
    """One more entry is one more tunnel and session; without the entry both are gone. Nothing restarts."""
    before = (lab.container_starts("fra1"), lab.ages("fra1"))
    peers = yaml.safe_load(PEERS_FILE.read_text())["dn42_peers"]
    newcomer = {**peers[0], "name": "newcomer", "asn": 4200429003, "listen_port": 22903, "peer_address": "fe80::9003"}
    newcomer["preshared_key"] = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXMhISE="
    newcomer["endpoint"] = "nobody.invalid:29002"  # B29: a name that nobody can resolve holds up no other tunnel
    newcomer["public_key"] = "bmV3Y29tZXItbmV3Y29tZXItbmV3Y29tZXItbmV3Y28="
    extra = tmp_path / "extra.yml"
    extra.write_text(yaml.safe_dump({"dn42_peers": [newcomer, *peers]}))
    # The order of the list does not matter either: the newcomer is the first.
    said = playbook("site.yml", "--limit", "fra1", "--diff", "-vvv", "-e", f"@{extra}").stdout
    # B64: the release that brings a secret shows neither it nor the archive that it travels in (Base64 of gzip's first bytes).
    assert "secret router/psk-wg-newcomer" in said
    assert newcomer["preshared_key"][:10] not in said and "H4sI" not in said
    wait_for("wg-newcomer", lambda: lab.in_router("fra1", "ip", "link", "show", "wg-newcomer", check=False).returncode == 0, 30)
    sessions = lab.ages("fra1")
    assert "peer_newcomer" in sessions
    assert {name: session for name, session in sessions.items() if name != "peer_newcomer"} == before[1]
    status = json.loads(lab.run("fra1", "docker", "exec", "dn42-router", "cat", "/run/keeper/status.json").stdout)
    assert "nobody.invalid" in status["tunnels"]["wg-newcomer"]["error"]
    assert status["tunnels"]["wg-peer1"]["ok"] is True
    assert "22903/udp" in lab.run("fra1", "firewall-cmd", "--policy=dn42-tunnels", "--list-ports").stdout
    playbook("site.yml", "--limit", "fra1")
    wait_for("no wg-newcomer", lambda: lab.in_router("fra1", "ip", "link", "show", "wg-newcomer", check=False).returncode != 0, 30)
    assert (lab.container_starts("fra1"), lab.ages("fra1")) == before
    assert "22903/udp" not in lab.run("fra1", "firewall-cmd", "--policy=dn42-tunnels", "--list-ports").stdout


@pytest.mark.parametrize("limit", NODES)
def test_limit_renders_the_same_as_a_full_run(lab: Lab, limit: str) -> None:
    """One node's run knows all the others."""
    before = state(lab)
    assert changed_hosts(playbook("site.yml", "--limit", limit).stdout) == {limit: 0}
    assert state(lab) == before


def test_a_refused_configuration_leaves_the_node_as_it_was(lab: Lab) -> None:
    """BIRD's own parser, in the image that will run it, decides before anything is switched."""
    before = state(lab)
    done = playbook("site.yml", "--limit", "fra1", "-e", "dn42_router_import_limit=-5", check=False)
    assert done.returncode != 0
    assert "refused" in done.stdout
    assert "bird.conf" in done.stdout
    assert state(lab) == before


def test_bad_input_lists_all_faults_before_anything_is_touched(lab: Lab, tmp_path: Path) -> None:
    """B37, B62: each fault with host, key, the value as written and what would be right."""
    before = state(lab)
    extra = tmp_path / "extra.yml"
    extra.write_text(
        "dn42_peers:\n"
        "  - {name: a-name-that-is-too-long, asn: 4200429002}\n"
        "  - {name: p2, asn: 64733.1234, endpoint: host.example.net, peer_address: fe80::2, public_key: AAAA}\n"
        "  - {name: on, asn: 4200429002, peer_address: 2001:10:20:30:40:50:10:20}\n"
    )
    done = playbook("site.yml", "-e", f"@{extra}", check=False)
    assert done.returncode != 0
    for words in ("fra1: dn42_peers[0].name", "15 characters", "64733.1234", "host.example.net", "AAAA", "in quotes", "hkg1: dn42_peers[2].name"):
        assert words in done.stdout, words
    assert state(lab) == before
