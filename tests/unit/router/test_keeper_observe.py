# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading the output of ip and wg, as Debian 13's programs write it."""

from __future__ import annotations

from dn42_router.observe import parse_default_routes, parse_links, parse_wireguard

LINKS = """[{"ifname":"lo","flags":["LOOPBACK","UP"],"mtu":65536,"addr_info":[
  {"family":"inet","local":"127.0.0.1","prefixlen":8}]},
 {"ifname":"wg-a","flags":["POINTOPOINT","NOARP"],"mtu":1420,"linkinfo":{"info_kind":"tun"},"addr_info":[
  {"family":"inet6","local":"fe80::1","prefixlen":64}]},{}]"""
DUMP = (
    "wg-a\tPRIVATE\tPUBLIC\t21001\toff\n"
    "wg-a\tPEER\t(none)\t[2001:db8::1]:21002\t10.0.0.0/8,fe80::/64\t1700000000\t1\t2\toff\n"
    "wg-b\t(none)\t(none)\t0\toff\n"
    "wg-b\tPEER\tPSK\t(none)\t(none)\t0\t0\t0\t25\n"
)


def test_links() -> None:
    links = parse_links(LINKS)
    assert sorted(links) == ["lo", "wg-a"]
    assert (links["wg-a"].kind, links["wg-a"].up, links["wg-a"].mtu) == ("tun", False, 1420)
    assert links["wg-a"].addresses == {"fe80::1/64"}
    assert links["lo"].kind == "" and links["lo"].up


def test_an_address_without_a_network_is_shown_with_the_other_ends() -> None:
    infos = (
        '[{"family":"inet","local":"172.23.255.2","address":"172.20.1.9","prefixlen":32,"scope":"global","label":"tun7"},'
        '{"family":"inet","local":"172.20.240.1","prefixlen":30,"scope":"global","label":"tun7"}]'
    )
    links = parse_links(f'[{{"ifname":"tun7","flags":[],"mtu":1500,"addr_info":{infos}}}]')
    assert links["tun7"].addresses == {"172.23.255.2 peer 172.20.1.9/32", "172.20.240.1/30"}


def test_wireguard() -> None:
    devices = parse_wireguard(DUMP)
    peer = devices["wg-a"].peers["PEER"]
    assert devices["wg-a"].public_key == "PUBLIC" and devices["wg-a"].listen_port == 21001
    assert peer.endpoint == "[2001:db8::1]:21002" and peer.keepalive == 0
    assert peer.allowed_ips == {"10.0.0.0/8", "fe80::/64"} and peer.handshake == 1700000000
    assert devices["wg-b"].public_key is None
    assert devices["wg-b"].peers["PEER"].allowed_ips == frozenset()
    assert devices["wg-b"].peers["PEER"].keepalive == 25


def test_no_secret_is_shown() -> None:
    text = repr(parse_wireguard(DUMP))
    assert "PRIVATE" not in text and "PSK" not in text


def test_default_routes() -> None:
    text = '[{"dst":"default","gateway":"172.23.255.2","dev":"eth0","flags":[]},{"type":"unreachable","dst":"default","dev":"lo","metric":4278198272,"flags":[]}]'
    assert [route.arguments for route in parse_default_routes(text, "6")] == [
        ("default", "via", "172.23.255.2", "dev", "eth0"),
        ("unreachable", "default", "dev", "lo", "metric", "4278198272"),
    ]
    assert parse_default_routes("", "4") == ()
