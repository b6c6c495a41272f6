# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Anycast: two nodes announce a prefix, each for as long as its service answers. The keeper's own code beside real BIRD,
nftables and packets.

Timers: a service is asked every second for a second; three lost answers take it out, two answers bring it back.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import rendering
from foreign import Announcement
from laboratory import Foreign, Node, foreign_network, join, network, peer
from routers import Router, address, connect, wait_for

IMAGE = Path(__file__).resolve().parents[3] / "roles" / "router" / "files" / "image"
sys.dont_write_bytecode = True
sys.path.insert(0, str(IMAGE))
from dn42_router import model as declaration  # noqa: E402
from dn42_router.anycast import AnycastServices  # noqa: E402
from dn42_router.system import CommandError  # noqa: E402

RESOLVER = str(Path(__file__).with_name("resolver.py"))
PEER_ASN = 4200429002
NAMES = ("fra1", "hkg1")
ADDRESSES = {"ipv4": "172.23.254.1", "ipv6": "fd99:4242:2::53"}
PREFIXES = {"172.23.254.0/28", "fd99:4242:2::/48"}
POOLS = [*rendering.POOLS, {"name": "anycast", "ipv4": ["172.23.254.0/28"], "ipv6": ["fd99:4242:2::/48"], "block_size": {"ipv4": 32, "ipv6": 128}, "purpose": "anycast"}]
AGGREGATES = {"ipv4": ["172.23.254.0/28", "172.23.255.0/26"], "ipv6": ["fd99:4242:1::/48", "fd99:4242:2::/48"]}
OFFERED = {"dn42_pools": POOLS, "dn42_anycast": [{"name": "dns", "service": "dns", **ADDRESSES}]}
# Lost answers or answers in a row take it there within six seconds; this only bounds the wait for what never comes.
CHANGE = 20.0
PASS_SECONDS = 2.0


class Keeper:
    """The keeper's part in a node of the laboratory: its own code, told to work on the node's namespace."""

    def __init__(self, node: Node) -> None:
        """Not running yet."""
        self.node = node
        self.problems: list[str] = []
        self._wake = threading.Event()
        self._stop = False
        self._thread: threading.Thread | None = None

    def command(self, argv: Sequence[str], timeout: float = 30) -> str:
        """Run birdc or nft for the node."""
        if argv[0] == "birdc":
            return self.node.router.birdc(" ".join(argv[1:]), timeout)
        return self.node.router.run(*argv, timeout=timeout).stdout

    @property
    def wanted(self) -> tuple[declaration.Anycast, ...]:
        """What the release declares, as the keeper reads it."""
        text = rendering.files(self.node.model, self.node.options)["tunnels.json"]
        (self.node.router.files / "tunnels.json").write_text(text, encoding="utf-8")
        return declaration.load(self.node.router.files / "tunnels.json").anycast

    def load_filter(self) -> None:
        """Load the node's packet filter as the keeper does."""
        rules = self.node.router.files / "nftables.conf"
        rules.write_text(rendering.files(self.node.model, self.node.options)["nftables.conf"].replace("/roa/", f"{self.node.router.included}/"), encoding="utf-8")
        self.node.router.run("nft", "--file", str(rules))

    def start(self) -> None:
        """Begin to look after the services, as a keeper does that was just started."""
        self._stop = False
        prober = self.node.router.in_network(sys.executable, str(IMAGE / "dn42_router" / "prober.py"))
        services = AnycastServices(self._wake.set, self.node.router.included, self.command, prober)
        self._thread = threading.Thread(target=self._run, args=(services, self.wanted), daemon=True)
        self._thread.start()

    def end(self) -> None:
        """End like a keeper that is killed: what it did stays, its child goes."""
        if self._thread:
            self._stop = True
            self._wake.set()
            self._thread.join()
            self._thread = None

    def _run(self, services: AnycastServices, wanted: tuple[declaration.Anycast, ...]) -> None:
        while not self._stop:
            try:
                services.keep(wanted, bird_may_be_down=False, log=lambda text: None)
            except CommandError as error:
                self.problems.append(str(error))
            self._wake.wait(PASS_SECONDS)
            self._wake.clear()
        services._prober._end()


class Site:
    """A node with its bridge: the resolver, and a neighbour of it."""

    def __init__(self, make: Callable[..., Router], node: Node) -> None:
        """Joined, without programs."""
        self.node = node
        self.keeper = Keeper(node)
        self.bridge, self.dns, self.neighbour = (make(f"{node.name}-{what}") for what in ("bridge", "dns", "neighbour"))
        self.bridge.run("ip", "link", "add", "bridge0", "type", "bridge")
        self.bridge.run("ip", "link", "set", "bridge0", "up")
        for port, (router, interface) in {"router": (node.router, "eth0"), "dns": (self.dns, "eth0"), "neighbour": (self.neighbour, "eth0")}.items():
            connect(router, interface, self.bridge, port, 1500)
            self.bridge.run("ip", "link", "set", port, "master", "bridge0")
        node.bring_up()
        for router, service in ((self.dns, "dns"), (self.neighbour, "looking_glass")):
            fixed = node.model["addresses"][service]
            address(router, "eth0", *(f"{fixed[family]}/{node.model['block'][family]['prefix_length']}" for family in ADDRESSES))
            for family, option in (("ipv4", "-4"), ("ipv6", "-6")):
                router.run("ip", option, "route", "add", "default", "via", node.model["addresses"]["gateway"][family])
        self._service = contextlib.ExitStack()

    def serve(self) -> None:
        """Start the resolver."""
        fixed = self.node.model["addresses"]["dns"]
        self._service.enter_context(self.dns.running(sys.executable, RESOLVER, "serve", self.node.name, fixed["ipv4"], fixed["ipv6"]))

    def fail(self) -> None:
        """End the resolver."""
        self._service.close()


class World:
    """Two nodes that offer the same address, and a foreign network with a session to each."""

    def __init__(self, make: Callable[..., Router]) -> None:
        """Everything up."""
        self.inventory: dict[str, dict[str, Any]] = {name: {**OFFERED, "dn42_peers": [peer("peer1", PEER_ASN)]} for name in NAMES}
        self.nodes = network(make, self.inventory, aggregates=AGGREGATES)
        self.peer = foreign_network(make, "peer1", PEER_ASN, "172.20.1.1", "fd11:1:1::1", [Announcement(route) for route in ("172.20.1.0/24", "fd11:1:1::/48")])
        for node in self.nodes.values():
            join(node, "peer1", self.peer)
        self.sites = {name: Site(make, node) for name, node in self.nodes.items()}
        for site in self.sites.values():
            site.keeper.load_filter()
            site.node.start()
            site.serve()
            site.keeper.start()
        self.peer.start()
        for node in self.nodes.values():
            node.router.wait_established("peer_peer1", *(session["protocol"] for session in node.model["ibgp"]))

    def announced(self, name: str) -> set[str]:
        """The anycast prefixes that the foreign network has from a node."""
        return PREFIXES & set(self.peer.table("us" if name == NAMES[0] else f"us_{name}"))

    def wait(self, name: str, prefixes: set[str]) -> None:
        """Wait until a node announces these and no others of its anycast prefixes."""
        told = self.nodes[name].router.birdc
        wait_for(f"{prefixes or 'nothing'} from {name}", lambda: self.announced(name) == prefixes, CHANGE, lambda: f"{told('show route all')}\n{self.sites[name].keeper.problems}")

    def ages(self) -> dict[str, Any]:
        """Since when sessions are up, on every side."""
        found = {f"{name} {protocol}": node.router.since(protocol) for name, node in self.nodes.items() for protocol in ("peer_peer1", node.model["ibgp"][0]["protocol"])}
        return {**found, **{session: self.peer.router.since(session) for session in ("us", "us_hkg1")}}

    def ask(self, where: Router, source: str, destination: str, port: int = 53, transport: str = "udp") -> str:
        """Which node answers a question, or what went wrong."""
        return where.run(sys.executable, RESOLVER, "ask", transport, source, destination, str(port)).stdout.strip()

    def from_peer(self, family: str, transport: str = "udp", port: int = 53) -> str:
        """Which node answers the foreign network."""
        return self.ask(self.peer.router, getattr(self.peer, family), ADDRESSES[family], port, transport)

    def from_neighbour(self, name: str, family: str, transport: str = "udp") -> str:
        """Which node answers a container beside the resolver."""
        return self.ask(self.sites[name].neighbour, self.nodes[name].model["addresses"]["looking_glass"][family], ADDRESSES[family], 53, transport)


@pytest.fixture(scope="module")
def world(lasting_router: Callable[..., Router]) -> Iterator[World]:
    """The network; keepers and resolvers end before their namespaces."""
    made = World(lasting_router)
    yield made
    for site in made.sites.values():
        site.keeper.end()
        site.fail()


@pytest.fixture(autouse=True)
def settled(world: World) -> None:
    """Every test begins with both services up."""
    for name in NAMES:
        world.wait(name, PREFIXES)


def test_a_service_that_fails_takes_its_prefix_along_and_brings_it_back(world: World) -> None:
    """The other node takes over for everybody; no session notices."""
    fra1 = world.sites["fra1"]
    ages = world.ages()
    for family in ADDRESSES:
        assert world.from_neighbour("fra1", family) == "fra1"
    fra1.fail()
    world.wait("fra1", set())
    assert world.announced("hkg1") == PREFIXES
    for family in ADDRESSES:
        for transport in ("udp", "tcp"):
            assert world.from_peer(family, transport) == "hkg1"
            wait_for("the other node's service", lambda family=family, transport=transport: world.from_neighbour("fra1", family, transport) == "hkg1")
    fra1.serve()
    world.wait("fra1", PREFIXES)
    for family in ADDRESSES:
        wait_for("the own service", lambda family=family: world.from_neighbour("fra1", family) == "fra1")
    assert world.ages() == ages
    assert not fra1.keeper.problems


@pytest.mark.parametrize("family", ADDRESSES)
@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_everybody_is_answered_from_the_address_that_was_asked(world: World, family: str, transport: str) -> None:
    """A client takes an answer from the address that it asked only: from outside, and from beside the resolver."""
    assert world.from_peer(family, transport) in NAMES
    for name in NAMES:
        assert world.from_neighbour(name, family, transport) == name
        own = world.nodes[name].model["addresses"]["dns"][family]
        assert world.ask(world.peer.router, getattr(world.peer, family), own, 53, transport) == name


@pytest.mark.parametrize("family", ADDRESSES)
@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_other_ports_are_refused_with_an_error(world: World, family: str, transport: str) -> None:
    """At once, and not by silence."""
    assert "unreachable" in world.from_peer(family, transport, 54)


def updates(world: World) -> dict[str, int]:
    """How many routes the foreign network was told by each node so far, announced or withdrawn."""
    return {session: world.peer.router.received(session) for session in ("us", "us_hkg1")}


def updates_from_peer(world: World) -> dict[str, int]:
    """How many routes each node was told by the foreign network so far."""
    return {name: node.router.received("peer_peer1") for name, node in world.nodes.items()}


def test_a_reload_of_something_else_is_no_flap(world: World) -> None:
    """A release that changes a word, the packet filter loaded anew, and a new keeper: the peer is told nothing."""
    fra1 = world.sites["fra1"]
    before, ages = updates(world), world.ages()
    fra1.node.start()
    changed = rendering.models({**world.inventory, "fra1": {**world.inventory["fra1"], "dn42_peers": [peer("peer1", PEER_ASN, description="another word")]}}, AGGREGATES)
    fra1.node.router.start(rendering.configuration(changed["fra1"]))
    fra1.keeper.load_filter()
    assert world.from_neighbour("fra1", "ipv4") == "fra1"
    fra1.keeper.end()
    assert world.from_neighbour("fra1", "ipv4") == "fra1"
    fra1.keeper.start()
    # Long enough for a keeper that begins with nothing to have withdrawn it and brought it back.
    fra1.fail()
    world.wait("fra1", set())
    assert {session: number - before[session] for session, number in updates(world).items()} == {"us": len(PREFIXES), "us_hkg1": 0}
    fra1.serve()
    world.wait("fra1", PREFIXES)
    assert world.ages() == ages


def test_a_bird_that_starts_anew_knows_what_was_announced(world: World) -> None:
    """And what was not: the service of hkg1 is down meanwhile."""
    hkg1, fra1 = world.sites["hkg1"], world.sites["fra1"]
    hkg1.fail()
    world.wait("hkg1", set())
    fra1.keeper.end()
    hkg1.keeper.end()
    for site in (fra1, hkg1):
        site.node.router.kill()
        site.node.start()
        site.node.router.wait_established("peer_peer1")
    assert {prefix for family in ADDRESSES for prefix in fra1.node.table(f"anycast_dns_{family}")} == PREFIXES
    assert not any(hkg1.node.table(f"anycast_dns_{family}") for family in ADDRESSES)
    wait_for("own prefixes", lambda: "172.23.255.0/26" in world.peer.table("us_hkg1"))
    world.wait("fra1", PREFIXES)
    assert world.announced("hkg1") == set()
    hkg1.serve()
    for site in (fra1, hkg1):
        site.keeper.start()


def test_nobody_else_announces_our_anycast(world: World) -> None:
    """Not taken from a foreign network; our own nodes take each other's."""
    told, honest = updates_from_peer(world), list(world.peer.announcements)
    world.peer.announcements += [Announcement(prefix) for prefix in sorted(PREFIXES)]
    world.peer.start()
    for name, node in world.nodes.items():
        wait_for(f"{name} told", lambda name=name: updates_from_peer(world)[name] >= told[name] + len(PREFIXES))
        assert not PREFIXES & set(node.table("peer_peer1"))
        wait_for("the other node's", lambda node=node: set(node.table(node.model["ibgp"][0]["protocol"])) >= PREFIXES, CHANGE)
    world.peer.announcements = honest
    world.peer.start()


@pytest.mark.parametrize("version", ["2.0", "2.17", "3"])
def test_every_bird_reads_it_without_a_warning(router: Callable[..., Router], version: str) -> None:
    variables = {**OFFERED, "dn42_router_bird_version": version, "dn42_stack_services": ["router", "dns"]}
    model = rendering.models({name: {**variables, "dn42_peers": [peer("peer1", PEER_ASN)]} for name in NAMES}, AGGREGATES)["fra1"]
    one = router("fra1", version)
    one.write_roa("anycast_dns_ipv4.conf", "route 172.23.254.0/28 unreachable;")
    assert one.parse(rendering.configuration(model, {"dn42_router_bird_version": version})) == ""


def test_a_node_of_the_network_without_the_service_leaves_it_to_the_others(router: Callable[..., Router]) -> None:
    """It announces the other prefixes alone, and hands packets on to a node that has the service."""
    nodes = network(router, {"fra1": {"dn42_pools": POOLS, "dn42_peers": [peer("peer1", PEER_ASN)]}, "hkg1": OFFERED}, aggregates=AGGREGATES)
    other: Foreign = foreign_network(router, "peer1", PEER_ASN, "172.20.1.1", "fd11:1:1::1")
    join(nodes["fra1"], "peer1", other)
    nodes["hkg1"].router.write_roa("anycast_dns_ipv4.conf", "route 172.23.254.0/28 unreachable;")
    for node in nodes.values():
        node.bring_up()
        node.start()
    other.start()
    wait_for("our prefixes", lambda: set(other.table()) == {"172.23.255.0/26", "fd99:4242:1::/48"}, CHANGE)
    link = nodes["fra1"].model["ibgp"][0]["protocol"]
    nodes["fra1"].router.wait_established(link)
    wait_for("the other node's", lambda: "172.23.254.0/28" in nodes["fra1"].table(link), CHANGE)
    assert set(other.table()) == {"172.23.255.0/26", "fd99:4242:1::/48"}
