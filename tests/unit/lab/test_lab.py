# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What of the lab can be told without starting one."""

from __future__ import annotations

import dataclasses
import importlib
import io
import pathlib
import sys
import tarfile

import pytest

LAB = pathlib.Path(__file__).resolve().parents[2] / "lab"


@pytest.fixture(scope="module")
def lab():
    """Return a function that imports a module of the lab program."""
    sys.path.insert(0, str(LAB))
    yield lambda name: importlib.import_module(f"dn42lab.{name}")
    sys.path.remove(str(LAB))


@pytest.mark.parametrize("name", ["demo", "a", "molecule", "x123456789"])
def test_good_names(lab, name):
    assert lab("facts").check_name(name) == name


@pytest.mark.parametrize("name", ["", "Demo", "a-b", "1a", "../x", "a234567890b", "a\n"])
def test_bad_names(lab, name):
    with pytest.raises(lab("facts").LabError, match="lab name"):
        lab("facts").check_name(name)


def test_longest_interface_name_fits(lab):
    assert len(lab("network").uplink_name("x123456789")) <= 15


@pytest.mark.parametrize("known_as", ["peer1", "203.0.113.100", "2001:db8::100"])
def test_a_host_is_found_by_name_and_address(lab, known_as):
    assert lab("facts").find_host(known_as).name == "peer1"


def test_an_unknown_host_is_refused_with_the_known_ones(lab):
    with pytest.raises(lab("facts").LabError, match="fra1, hkg1, nrt1, peer1, sin1, syd1"):
        lab("facts").find_host("ams1")


def test_hosts_differ_in_number_and_mac(lab):
    hosts = lab("facts").HOSTS.values()
    assert len({host.number for host in hosts}) == len({host.mac for host in hosts}) == len(hosts)


def test_a_changed_recipe_is_another_image(lab):
    recipe = lab("images").RECIPES["node"]
    changed = dataclasses.replace(recipe, packages=(*recipe.packages, "tcpdump"))
    assert changed.reference != recipe.reference
    assert dataclasses.replace(recipe).reference == recipe.reference


def test_only_dns_and_web_leave_the_lab(lab):
    rules = lab("network").inside_rules(["192.0.2.53"], "", ["203.0.113.80"])
    accepted = [line.strip() for line in rules.splitlines() if line.strip().endswith("accept")]
    assert accepted[0] == "ct state established,related accept"
    assert len(accepted) == 4
    assert all("ip saddr 203.0.113.0/24" in line for line in accepted[1:])
    assert "th dport 53 ip daddr { 192.0.2.53 }" in accepted[1]
    assert all("tcp dport { 80, 443 }" in line for line in accepted[2:])
    assert "policy drop" in rules


def test_dn42_is_refused_before_the_web_is_accepted(lab):
    lines = lab("network").inside_rules(["192.0.2.53"], "", []).splitlines()
    refused = next(number for number, line in enumerate(lines) if "172.20.0.0/14" in line)
    accepted = next(number for number, line in enumerate(lines) if line.endswith("443 } accept"))
    assert refused < accepted


def test_the_port_of_a_proxy_may_leave(lab):
    rules = lab("network").inside_rules(["192.0.2.53"], "http://proxy.example:3128/", [])
    assert "tcp dport { 80, 443, 3128 }" in rules


def test_files_of_a_host_are_given_with_their_modes(lab):
    files = {"etc/key": (0o600, b"secret"), "usr/local/sbin/tool": (0o755, b"#!/bin/sh\n")}
    with tarfile.open(fileobj=io.BytesIO(lab("hosts")._archive(files))) as archive:
        modes = {member.name: member.mode for member in archive}
        assert min(member.mtime for member in archive if member.isfile()) > 0
    assert modes == {"root/.ssh": 0o700, "etc/key": 0o600, "usr/local/sbin/tool": 0o755}


def test_peer1_and_the_demo_agree_on_the_key(lab):
    comment = (LAB / "peer1/etc/wireguard/interface.conf").read_text(encoding="utf-8")
    inventory = LAB.parents[1] / "inventories/demo/host_vars"
    for node in ("fra1", "hkg1"):
        text = (inventory / f"{node}.yml").read_text(encoding="utf-8")
        key = text.split('public_key: "')[1].split('"')[0]
        assert f"we gave to our peers: {key}\n" in comment
