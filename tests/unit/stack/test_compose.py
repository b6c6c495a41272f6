# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""compose.yaml from the fragments of services."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from ansible_collections.dn42.compose.plugins.module_utils import _compose

MODEL = {
    "block": {"ipv4": {"prefix": "172.23.255.0/29"}, "ipv6": {"prefix": "fd99:4242:1::/64"}},
    "addresses": {
        "host": {"ipv4": "172.23.255.1", "ipv6": "fd99:4242:1::1"},
        "gateway": {"ipv4": "172.23.255.2", "ipv6": "fd99:4242:1::2"},
        "dns": {"ipv4": "172.23.255.4", "ipv6": "fd99:4242:1::4"},
        "web": {"ipv4": "172.23.255.6", "ipv6": "fd99:4242:1::6"},
    },
}


def assemble(fragments: dict[str, str], model: dict[str, Any] | None = None, egress: tuple[str, ...] = ()) -> str:
    """compose.yaml of services that are called like their roles."""
    services = {role: role for role in fragments}
    images = {role: f"dn42-{role}:0" for role in fragments}
    return _compose.assemble(fragments, services, images, model or MODEL, "/opt/dn42", "dn42", "br-dn42", egress)


def test_every_service_gets_its_fixed_addresses_and_the_hardening() -> None:
    compose = yaml.safe_load(assemble({"dns": "", "web": "services: {web: {user: '5', volumes: ['a:/b']}}"}))
    for role, service in compose["services"].items():
        assert service["networks"]["dn42"] == {f"{family}_address": MODEL["addresses"][role][family] for family in ("ipv4", "ipv6")}
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
    assert compose["services"]["web"]["volumes"] == ["/opt/dn42/services/web:/config:ro", "a:/b"]


def test_siblings_get_their_default_route_from_docker() -> None:
    config = yaml.safe_load(assemble({"dns": ""}))["networks"]["dn42"]["ipam"]["config"]
    assert [entry["aux_addresses"] for entry in config] == [{"DefaultGatewayIPv4": "172.23.255.2"}, {"DefaultGatewayIPv6": "fd99:4242:1::2"}]
    assert [entry["gateway"] for entry in config] == ["172.23.255.1", "fd99:4242:1::1"]


def test_order_of_services_does_not_matter() -> None:
    fragments = {"dns": "", "web": "services: {web: {user: '5'}}"}
    assert assemble(fragments) == assemble(dict(reversed(fragments.items())))


def test_a_network_of_one_family_has_one_subnet() -> None:
    model = {"block": {"ipv4": None, "ipv6": MODEL["block"]["ipv6"]}, "addresses": {name: {"ipv6": item["ipv6"]} for name, item in MODEL["addresses"].items()}}
    network = yaml.safe_load(assemble({"dns": ""}, model))["networks"]["dn42"]
    assert [entry["subnet"] for entry in network["ipam"]["config"]] == ["fd99:4242:1::/64"]
    assert network["enable_ipv6"] is True


@pytest.mark.parametrize("setting", ["privileged: true", "network_mode: host", "read_only: false", "cap_drop: []"])
def test_a_fragment_cannot_loosen_what_all_have_in_common(setting: str) -> None:
    with pytest.raises(_compose.ComposeError, match=setting.split(":")[0]):
        assemble({"dns": f"services: {{dns: {{{setting}}}}}"})


def test_a_service_without_an_address_is_refused_with_what_to_do() -> None:
    with pytest.raises(_compose.ComposeError, match="dn42_address_plan_extra_offsets"):
        assemble({"mail": ""})


def test_a_service_on_the_internet_is_hardened_and_not_in_dn42() -> None:
    compose = yaml.safe_load(assemble({"dns": "", "fetcher": ""}, egress=("fetcher",)))
    fetcher = compose["services"]["fetcher"]
    assert fetcher["networks"] == {"egress": {}}
    assert "dns" not in fetcher, "the resolver in DN42 is out of its reach"
    assert (fetcher["read_only"], fetcher["cap_drop"]) == (True, ["ALL"])
    assert list(compose["services"]["dns"]["networks"]) == ["dn42"]
    assert compose["networks"]["egress"]["driver_opts"]["com.docker.network.bridge.name"] == "br-dn42-egress"


def test_without_such_a_service_there_is_no_way_out() -> None:
    assert list(yaml.safe_load(assemble({"dns": ""}))["networks"]) == ["dn42"]
