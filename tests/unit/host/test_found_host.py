# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host was before it became a node, and what putting it back means."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.dn42.compose.plugins.module_utils import _found_host as found_host

PROTOCOLS = """BIRD 2.17.1 ready.
Name       Proto      Table      State  Since         Info
device1    Device     ---        up     14:41:01.262
static4    Static     master4    up     14:41:01.262
peer_peer1 BGP        ---        up     14:45:20.560  Established
ibgp_hkg1  BGP        ---        start  14:42:20.169  Active        Socket: Connection refused
ibgp_nrt1  BGP        ---        down   14:51:10.305
"""


def test_sessions_that_are_at_work_are_closed() -> None:
    """Also one that is only trying; not one that is disabled, and no other protocol."""
    assert found_host.bgp_up(PROTOCOLS) == ["peer_peer1", "ibgp_hkg1"]


def test_only_images_with_the_hash_of_a_recipe_are_ours() -> None:
    """Somebody's own image may be called dn42-something."""
    tags = ["dn42-router:a3d76e011f2c", "dn42-web:latest", "dn42-my-web:12d8717fdbef", "x/dn42-router:a3d76e011f2c", "debian:trixie-slim"]
    assert found_host.own_images(tags) == ["dn42-my-web:12d8717fdbef", "dn42-router:a3d76e011f2c"]


@pytest.mark.parametrize(
    ("record", "forwarding", "back", "stay"),
    [
        # Docker, which stays, forwards, and did not before us: the host would lose its default route.
        ({"accept_ra": {"eth0": 1}, "ipv6_forwarding": 0}, True, {}, {"eth0": 2}),
        ({"accept_ra": {"eth0": 1}, "ipv6_forwarding": 0}, False, {"eth0": 1}, {}),
        ({"accept_ra": {"eth0": 1}, "ipv6_forwarding": 1}, True, {"eth0": 1}, {}),
        # The operator's own setting.
        ({"accept_ra": {"eth0": 2}, "ipv6_forwarding": 1}, True, {}, {}),
        ({"accept_ra": {"eth0": 2}, "ipv6_forwarding": 0}, True, {}, {}),
        # Nobody knows what it was.
        ({}, True, {}, {"eth0": 2}),
        ({}, False, {}, {}),
    ],
)
def test_router_advertisements(record: dict, forwarding: bool, back: dict, stay: dict) -> None:
    """Put back as it was found, unless that takes the host's default route."""
    assert found_host.accept_ra_choice({"eth0": 2}, record, forwarding) == (back, stay)


def test_interfaces_of_the_file() -> None:
    """Names with dots are written with slashes between keys."""
    text = "# Ansible managed\nnet/ipv6/conf/eth0.7/accept_ra = 2\nnet/ipv6/conf/eth0/accept_ra = 2\n"
    assert found_host.parse_accept_ra_file(text) == ["eth0", "eth0.7"]


def test_files_from_before_us_are_not_ours(tmp_path: Path) -> None:
    """With a record everything else goes; without one only what is known to be ours."""
    for name in ("notes", "guard.nft", "something-new"):
        (tmp_path / name).touch()
    ours, others = found_host.own_entries(tmp_path, {"own_directory": ["notes"]})
    assert ([path.name for path in ours], [path.name for path in others]) == (["guard.nft", "something-new"], ["notes"])
    ours, others = found_host.own_entries(tmp_path, {})
    assert ([path.name for path in ours], [path.name for path in others]) == (["guard.nft"], ["notes", "something-new"])
    assert found_host.own_entries(tmp_path / "absent", {}) == ([], [])


def test_a_record_that_cannot_be_read_is_none() -> None:
    """Cut short, no object, not there."""
    assert [found_host.read_record(text) for text in ('{"docker": tr', "[1]", None, "")] == [{}, {}, {}, {}]
    assert found_host.read_record(found_host.write_record({"docker": True})) == {"docker": True}


@pytest.mark.parametrize(("directory", "harmful"), [("/", True), ("/opt", True), ("/etc", True), ("/proc/1", True), ("/opt/dn42", False), ("/srv/a/dn42", False)])
def test_directories_that_are_never_removed(directory: str, harmful: bool) -> None:
    """A typo in dn42_stack_directory must not empty a host."""
    assert found_host.harmful(directory) is harmful
