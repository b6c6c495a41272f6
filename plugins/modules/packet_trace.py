#!/usr/bin/python
# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: follow one packet through the host's and the router's network namespace."""

from __future__ import annotations

DOCUMENTATION = r"""
module: packet_trace
short_description: Follow a packet through the host's and the router's packet filters
version_added: 0.1.0
description:
  - Sends one packet from a service of a DN42 node, or waits for the user's own, and follows it through every chain of every
    table in the host's and in the router's network namespace, there and back.
  - Where it is lost, says which rule or which setting it was, what that is for, and how to mend it.
  - Changes nothing that lasts. The trace rules belong to a process of the module; when that ends, in whatever way, the kernel
    removes them. Where legacy C(iptables) rules are in use, C(net.netfilter.nf_log) is set for the time of the trace and put
    back by a process of its own.
  - Only one trace runs on a host at a time.
author:
  - the dn42.compose contributors (@dn42-compose)
options:
  to:
    description:
      - Address the packet is sent to, IPv4 or IPv6.
    type: str
    required: true
  from:
    description:
      - Service of the node that sends, V(dns) or V(router) for example.
      - With O(wait) also an address, for packets that come from elsewhere.
      - The default is V(dns) if it runs, else V(router).
    type: str
  protocol:
    description:
      - What is sent. With O(wait), what is waited for; any protocol when the option is not given.
      - V(icmp) is the default without O(wait).
    type: str
    choices: [icmp, udp, tcp]
  port:
    description:
      - Port of O(to). Needed for V(udp) and V(tcp), unless O(wait) is given. To UDP port 53 a question of DNS is sent.
    type: int
  size:
    description:
      - Bytes of data in a packet of V(icmp) or V(udp). 1400 finds out whether large packets pass the tunnels.
    type: int
    default: 56
  wait:
    description:
      - Seconds to wait for the user's own packet, at most 600. V(0) sends a packet instead.
    type: int
    default: 0
  timeout:
    description:
      - Seconds to wait for an answer to one packet. Unless its way shows where it was lost, it is sent three times.
    type: int
    default: 2
  network:
    description:
      - Docker network of the node.
    type: str
    default: dn42
  bridge:
    description:
      - Bridge of that network on the host.
    type: str
    default: br-dn42
requirements:
  - root
  - nftables 1.0 or newer and kernel 5.12 or newer on the host; nothing in the containers
attributes:
  check_mode:
    support: full
    description: Says what would be traced and with which rules. Loads none and sends nothing.
  diff_mode:
    support: none
    description: Nothing is changed.
"""

EXAMPLES = r"""
- name: Why does the resolver not reach this address?
  dn42.compose.packet_trace:
    to: fd42:d42:d42:54::1
  register: trace

- name: Show the way of the packet
  ansible.builtin.debug:
    msg: "{{ trace.journey }}"

- name: Wait a minute for a question that a peer sends to our resolver
  dn42.compose.packet_trace:
    from: 172.22.200.80
    to: 172.23.255.4
    protocol: udp
    port: 53
    wait: 60
"""

RETURN = r"""
journey:
  description: The way of the packet and what became of it, as a text to be shown.
  returned: success
  type: str
hops:
  description:
    - The chains that the packet went through, in the order of its way. RV(hops[].observer) is true for the chains of the trace
      itself, which tell that a hook was reached.
  returned: success, empty in check mode
  type: list
  elements: dict
  contains:
    number:
      description: Number in RV(journey).
      type: int
    direction:
      description: V(request), V(reply), or V(error) for an ICMP error about the request.
      type: str
    namespace:
      description: V(host) or V(router).
      type: str
    iif:
      description: Interface the packet came in by, empty if it was made here.
      type: str
    oif:
      description: Interface it leaves by, empty where that is not decided yet.
      type: str
    hook:
      description: Hook of the kernel.
      type: str
    family:
      description: Family of the table.
      type: str
    table:
      description: Table.
      type: str
    chain:
      description: Chain that ended the packet's way through the hook.
      type: str
    rule:
      description: Text of that rule, V(policy) for a chain's policy.
      type: str
    verdict:
      description: What it decided.
      type: str
    rules:
      description: All rules that the packet met there, with chain, rule and verdict.
      type: list
      elements: dict
    observer:
      description: Whether it is a chain of the trace itself.
      type: bool
fault:
  description: Name, cause and cure of what is wrong, null if an answer came.
  returned: success
  type: dict
  contains:
    name:
      description: Short name of the fault.
      type: str
    cause:
      description: What happened, in a sentence.
      type: str
    cure:
      description: How to mend it, in a sentence.
      type: str
answered:
  description: Whether an answer came back.
  returned: success
  type: bool
flow:
  description: What was traced, with source, destination, protocol and port.
  returned: success
  type: dict
rules:
  description: The commands of nft that were used in each namespace.
  returned: success
  type: list
  elements: str
msg:
  description: The result in a sentence.
  returned: success
  type: str
"""

import fcntl
import ipaddress
import json
import os
import select
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dn42.compose.plugins.module_utils import _trace_faults, _trace_journey
from ansible_collections.dn42.compose.plugins.module_utils._trace_capture import Capture, CaptureError, Namespace
from ansible_collections.dn42.compose.plugins.module_utils._trace_events import parse_chains, parse_save
from ansible_collections.dn42.compose.plugins.module_utils._trace_probe import Probe, source_address
from ansible_collections.dn42.compose.plugins.module_utils._trace_rules import Flow, commands

LOCK = "/run/dn42-trace.lock"
TRIES = 3
LONGEST_WAIT = 600
LARGEST = 1400
PUMP = 0.05
HEARTBEAT = 1.0
SERVICE_LABEL = "com.docker.compose.service"


class InputError(Exception):
    """An option cannot be meant like that; the message says what would be right."""


def service_name(container: dict[str, Any]) -> str:
    """Return the name of a container's service, its own name if it is none of Compose's."""
    return (container["Config"].get("Labels") or {}).get(SERVICE_LABEL) or container["Name"].lstrip("/")


def destination_of(text: str) -> str:
    """Return an address in its usual form. Raises InputError."""
    try:
        address = ipaddress.ip_address(text.strip())
    except ValueError:
        raise InputError(f"to: {text!r} is not an address; give an IPv4 or IPv6 address such as 172.20.0.53 or fd42:d42:d42:54::1, names are not looked up") from None
    if address.is_multicast or address.is_unspecified or address.is_loopback or address.is_link_local:
        raise InputError(f"to: {text} is a multicast, link-local or loopback address, which no router forwards; give an address of DN42")
    return str(address)


class Trace:
    """One trace on one host."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.options: dict[str, Any] = module.params
        self.wait: int = module.params["wait"]
        self.nft = module.get_bin_path("nft") or ""
        self.containers: dict[str, dict[str, Any]] = {}
        self.beat = 0.0

    # --- what is asked ------------------------------------------------------------------------------------------------

    def run(self, argv: list[str]) -> str:
        """Return what a command prints, empty if it fails."""
        code, out, _err = self.module.run_command(argv, environ_update={"LC_ALL": "C"})
        return out if code == 0 else ""

    def check_options(self) -> None:
        """Refuse what cannot be meant. Raises InputError."""
        protocol, port = self.options["protocol"], self.options["port"]
        if protocol in ("udp", "tcp") and port is None and not self.wait:
            raise InputError(f"port: needed with protocol {protocol}; 53 for a resolver, 80 for a web server")
        if port is not None and (protocol not in ("udp", "tcp") or not 1 <= port <= 65535):
            raise InputError(f"port: {port} goes with protocol udp or tcp and is a number from 1 to 65535")
        if not 0 <= self.wait <= LONGEST_WAIT:
            raise InputError(f"wait: {self.wait} must be from 0 (send a packet) to {LONGEST_WAIT} seconds")
        if not 1 <= self.options["timeout"] <= 60:
            raise InputError(f"timeout: {self.options['timeout']} must be from 1 to 60 seconds")
        if not 0 <= self.options["size"] <= LARGEST:
            raise InputError(f"size: {self.options['size']} must be from 0 to {LARGEST}: more does not fit into one packet on the bridge")

    def find_containers(self) -> None:
        """Read the running containers of the network. Raises InputError where there is no router."""
        network = self.options["network"]
        docker = self.module.get_bin_path("docker")
        if docker is None:
            raise InputError("this host is no DN42 node: it has no Docker. Name one with --limit, or run site.yml for it first")
        names = self.run([docker, "ps", "--quiet", "--no-trunc", "--filter", f"network={network}", "--filter", "status=running"]).split()
        shown = json.loads(self.run([docker, "inspect", "--type", "container", *names]) or "[]") if names else []
        self.containers = {service_name(container): container for container in shown}
        if "router" not in self.containers:
            raise InputError(
                f"this host is no DN42 node, or its router does not run: no container of the service router is in the Docker network {network}"
                " (`docker compose -f /opt/dn42/compose.yaml ps` on the node). Name a node with --limit, or run site.yml for it first"
            )

    def sender(self) -> tuple[str, str]:
        """Return the sending service and the sending address; one of them is empty. Raises InputError."""
        wanted = self.options["from"]
        if not wanted:
            return ("dns" if "dns" in self.containers else "router"), ""
        for name, container in self.containers.items():
            if wanted.replace("_", "-") in (name, container["Name"].lstrip("/")):
                return name, ""
        try:
            address = str(ipaddress.ip_address(wanted))
        except ValueError:
            raise InputError(f"from: no service {wanted!r} runs on this node; there are {', '.join(sorted(self.containers))}") from None
        if not self.wait:
            raise InputError(
                f"from: {wanted} is an address; a packet can be sent from a service ({', '.join(sorted(self.containers))}), and one from elsewhere can be waited for (wait)"
            )
        return "", address

    def address_of(self, service: str, destination: str) -> str:
        """Return the address that a service sends from, toward a destination. Raises InputError without one of its family."""
        endpoint = self.containers[service]["NetworkSettings"]["Networks"].get(self.options["network"]) or {}
        version = ipaddress.ip_address(destination).version
        address = endpoint.get("GlobalIPv6Address" if version == 6 else "IPAddress") or ""
        if not address:
            raise InputError(
                f"to: {destination} is IPv{version}, and {service} has no IPv{version} address in the network {self.options['network']}; use an address of the other family"
            )
        return str(address)

    # --- carrying it out ----------------------------------------------------------------------------------------------

    def main(self) -> dict[str, Any]:
        """Return the module's answer. Raises InputError and CaptureError."""
        self.check_options()
        destination = destination_of(self.options["to"])
        self.find_containers()
        service, source = self.sender()
        if not self.nft:
            raise CaptureError("nft is not there; install the package nftables on the host (site.yml does)")
        if os.geteuid() != 0:
            raise CaptureError("network namespaces can be entered and rules loaded by root only: use become: true")
        self.destination, self.service = destination, service
        self.host = Namespace("host", os.getpid())
        self.router = Namespace("router", self.containers["router"]["State"]["Pid"])
        self.from_namespace = None
        self.unreachable = ""
        if service:
            source = self.address_of(service, destination)
            self.from_namespace = self.router if service == "router" else Namespace(service, self.containers[service]["State"]["Pid"])
            try:
                source = source_address(self.from_namespace, destination, ipaddress.ip_address(destination).version)
            except OSError as error:
                self.unreachable = error.strerror or "unreachable"
        elif ipaddress.ip_address(source).version != ipaddress.ip_address(destination).version:
            raise InputError(f"from: {source} and to: {destination} are of different families; give two IPv4 or two IPv6 addresses")
        self.source = source
        if self.module.check_mode:
            return self.would()
        with open(LOCK, "a", encoding="ascii") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise CaptureError("another trace is running on this host; try again when it has ended") from None
            return self.trace()

    def flow(self, ident: int | None) -> Flow:
        """Return the flow; the probe gives it its identifier."""
        protocol = self.options["protocol"] or (None if self.wait else "icmp")
        return Flow(self.source, self.destination, protocol, ident, self.options["port"])

    def would(self) -> dict[str, Any]:
        """Return the answer of check mode."""
        flow = self.flow(None)
        sentence = f"would {'wait for' if self.wait else 'send'} a packet from {self.service or self.source} ({flow.source}) to {flow.destination} and trace it on the host and in the router"
        return self.answer(flow, [], None, False, sentence, sentence)

    def answer(self, flow: Flow, hops: list[dict[str, Any]], fault: dict[str, str] | None, answered: bool, journey: str, msg: str) -> dict[str, Any]:
        """Return what the module returns."""
        shown = {"source": flow.source, "destination": flow.destination, "protocol": flow.protocol, "port": flow.port}
        return {"changed": False, "journey": journey, "hops": hops, "fault": fault, "answered": answered, "flow": shown, "rules": commands(flow, 9), "msg": msg}

    def legacy(self, version: int) -> list[str]:
        """Return the names of the namespaces where legacy tables of this IP version are in use."""
        path = f"/proc/net/{'ip6' if version == 6 else 'ip'}_tables_names"
        return [namespace.name for namespace in (self.host, self.router) if namespace.read(path)]

    def trace(self) -> dict[str, Any]:
        """Trace, and return the module's answer."""
        probe, failure = None, self.unreachable
        if not self.wait and not failure:
            try:
                probe = Probe(self.from_namespace, self.options["protocol"] or "icmp", self.source, self.destination, self.options["port"], self.options["size"])
            except OSError as error:
                failure = error.strerror or str(error)
        flow = self.flow(probe.ident if probe else None)
        received = ""
        if failure:
            return self.result(flow, None, failure, received)
        longest = self.wait or TRIES * self.options["timeout"]
        with Capture(self.nft, flow, [self.host, self.router], self.run, self.legacy(flow.version)) as capture:
            capture.watch_legacy(longest)
            try:
                received = self.send(capture, flow, probe) if probe else self.watch(capture, flow)
            except OSError as error:
                failure = error.strerror or str(error)
            capture.mark()
            return self.result(flow, capture, failure, received)

    def abandoned(self) -> bool:
        """Whether nobody waits for the answer any more: the connection to the controller is gone.

        ssh learns of its reader's end when it has something to write, so a blank line is sent each second; Ansible skips those.
        """
        now = time.monotonic()
        try:
            if now >= self.beat:
                self.beat = now + HEARTBEAT
                os.write(1, b"\n")
        except OSError:
            return True
        poll = select.poll()
        poll.register(1, 0)
        return bool(poll.poll(0)) or os.getppid() == 1

    def send(self, capture: Capture, flow: Flow, probe: Probe) -> str:
        """Send the probe until an answer comes or the place of its loss is clear; return the answer. Raises OSError."""
        tries = TRIES if probe.repeats else 1
        for _try in range(tries):
            probe.send()
            end = time.monotonic() + self.options["timeout"] * TRIES / tries
            while time.monotonic() < end and not self.abandoned():
                capture.pump(PUMP)
                received = probe.answered()
                if received:
                    return received
            capture.mark()
            situation = self.situation(capture, flow, "")
            if situation.drop or situation.lost or situation.error:
                break
        return ""

    def watch(self, capture: Capture, flow: Flow) -> str:
        """Wait for the user's packet and its answer; return what was seen of the answer."""
        end, known = time.monotonic() + self.wait, 0
        while time.monotonic() < end and not self.abandoned():
            capture.pump(1.0)
            total = sum(len(member.events) for member in capture.members.values())
            if total == known:
                continue
            known = total
            capture.mark()
            situation = self.situation(capture, flow, "")
            if self.came_back(situation):
                return "the answer passed here"
            if situation.drop or situation.error:
                break
        return ""

    def came_back(self, situation: _trace_faults.Situation) -> bool:
        """Whether the answer was seen on the last part of its way."""
        last = (_trace_journey.ROUTER, "") if self.service in ("", "router") else (_trace_journey.HOST, "from router")
        replies = [passage for passage in situation.passages if passage.direction == "reply"]
        direct = any(passage.side == "other" for passage in replies)
        return bool(replies) and all(passage.complete for passage in replies) and (direct or any((item.namespace, item.side) == last for item in replies))

    # --- what became of it --------------------------------------------------------------------------------------------

    def chains(self, namespace: Namespace) -> dict:
        """Return the base chains of a namespace."""
        with namespace.entered():
            return parse_chains(self.run([self.nft, "-j", "list", "chains"]))

    def legacy_rules(self, namespace: Namespace, version: int) -> dict:
        """Return the legacy rules of a namespace."""
        name = "ip6tables-legacy-save" if version == 6 else "iptables-legacy-save"
        program = self.module.get_bin_path(name) or self.module.get_bin_path(name.replace("-legacy", ""))
        if program is None:
            return {}
        with namespace.entered():
            return parse_save(self.run([program]))

    def interface_names(self, namespace: Namespace) -> dict[int, str]:
        """Return the interfaces of a namespace by number."""
        with namespace.entered():
            return {link["ifindex"]: link["ifname"] for link in json.loads(self.run(["ip", "-j", "link"]) or "[]") if link.get("ifname")}

    def passages(self, capture: Capture | None, flow: Flow) -> list[_trace_journey.Passage]:
        """Return the journey as far as it has been told."""
        if capture is None:
            return []
        endpoint = self.containers["router"]["NetworkSettings"]["Networks"][self.options["network"]]
        hops, legacy, all_chains = [], [], {}
        for namespace in (self.host, self.router):
            member = capture.members[namespace.name]
            chains = self.chains(namespace)
            all_chains.update(chains)
            hops += _trace_journey.read_hops(namespace.name, member.events, chains, flow, endpoint.get("MacAddress", ""))
            if member.log is not None:
                rules = {flow.version: self.legacy_rules(namespace, flow.version)}
                legacy += _trace_journey.legacy_hops(namespace.name, member.legacy, rules, self.interface_names(namespace), flow)
        found = _trace_journey.passages(hops)
        _trace_journey.add_legacy(found, legacy, all_chains)
        return found

    def route(self, destination: str, source: str, interface: str) -> str:
        """Return the router's route for a packet from a source that comes in by an interface, empty for none."""
        family = "-6" if ":" in destination else "-4"
        way = ["from", source, "iif", interface] if interface else []
        with self.router.entered():
            route = (json.loads(self.run(["ip", "-j", family, "route", "get", destination, *way]) or "[]") or [{}])[0]
        if not route or route.get("type") in ("unreachable", "blackhole", "prohibit"):
            return ""
        return " ".join(f"{word} {route[key]}" for word, key in (("via", "gateway"), ("dev", "dev")) if route.get(key)) or "local"

    def source_route(self) -> dict[str, Any]:
        """Return the sender's gateway toward the destination; ``local`` for a neighbour."""
        if self.from_namespace is None or self.from_namespace is self.router:
            return {}
        family = "-6" if ":" in self.destination else "-4"
        with self.from_namespace.entered():
            route = (json.loads(self.run(["ip", "-j", family, "route", "get", self.destination]) or "[]") or [{}])[0]
        return {"gateway": route.get("gateway"), "local": bool(route) and "gateway" not in route}

    def router_addresses(self) -> list[str]:
        """Return the addresses of the router's namespace."""
        with self.router.entered():
            links = json.loads(self.run(["ip", "-j", "addr"]) or "[]")
        addresses = [item["local"] for link in links if link.get("ifname") != "lo" for item in link.get("addr_info", [])]
        version = ipaddress.ip_address(self.destination).version
        return [address for address in addresses if ipaddress.ip_address(address).version == version and not ipaddress.ip_address(address).is_link_local]

    def situation(self, capture: Capture | None, flow: Flow, received: str) -> _trace_faults.Situation:
        """Return what is known."""
        found = self.passages(capture, flow)
        ways = {passage.direction: passage.iif for passage in found if passage.namespace == _trace_journey.ROUTER}
        stem = "net.ipv6.conf.all.forwarding" if flow.version == 6 else "net.ipv4.ip_forward"
        checked = [self.router.read(f"/proc/sys/net/ipv4/conf/{name}/rp_filter") for name in ("all", *ways.values())]
        facts = {
            "answered": bool(received),
            "bridge": self.options["bridge"],
            "service": self.service or self.source,
            "unreachable": self.unreachable,
            "waited": self.wait,
            "source_route": self.source_route(),
            "router_addresses": self.router_addresses(),
            "forwarding": {stem: int(self.router.read("/proc/sys/" + stem.replace(".", "/")) or 0)},
            "rp_filter": max(int(value or 0) for value in checked),
            "route_there": self.route(flow.destination, flow.source, ways.get("request", "")),
            "route_back": self.route(flow.source, flow.destination, ways.get("reply", "")),
        }
        return _trace_faults.Situation(flow, found, facts)

    def result(self, flow: Flow, capture: Capture | None, failure: str, received: str) -> dict[str, Any]:
        """Return the module's answer."""
        situation = self.situation(capture, flow, received)
        fault = _trace_faults.explain(situation)
        what = flow.protocol or "any protocol"
        port = f" port {flow.port}" if flow.port else ""
        lines = [f"{'Waited for' if self.wait else 'Traced'} {what}{port} from {self.service or 'elsewhere'} ({flow.source}) to {flow.destination}", ""]
        hops = _trace_journey.without_doubles(situation.passages)
        lines += _trace_journey.journey_lines(hops, flow)
        notes = [f"The monitor lost events in the namespace of the {name}: hops may be missing." for name in (capture.lost if capture else [])]
        if failure:
            notes.append(f"The sender's own kernel refused to send: {failure}.")
        msg = f"answered: {received}" if fault is None else f"{fault['name']}: {fault['cause']}"
        end = [f"Result: answered ({received})."] if fault is None else self.fault_lines(situation, fault)
        text = "\n".join([*lines, "", *notes, *end])
        return self.answer(flow, [_trace_journey.hop_dictionary(number, hop) for number, hop in enumerate(hops, 1)], fault, fault is None, text, msg)

    @staticmethod
    def fault_lines(situation: _trace_faults.Situation, fault: dict[str, str]) -> list[str]:
        """Return what is wrong as lines of the text."""
        words = situation.words()
        lines = [f"Result: no answer. {fault['name']}"]
        if situation.drop is not None:
            lines += [f"  where: namespace {words['namespace']}, table {words['table']}, chain {words['chain']}", f"  rule:  {words['rule']}"]
        elif situation.lost is not None:
            lines.append(f"  where: namespace {words['namespace']}, behind {words['hook']}; no rule dropped it")
        return [*lines, f"  cause: {fault['cause']}", f"  cure:  {fault['cure']}"]


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "to": {"type": "str", "required": True},
            "from": {"type": "str"},
            "protocol": {"type": "str", "choices": ["icmp", "udp", "tcp"]},
            "port": {"type": "int"},
            "size": {"type": "int", "default": 56},
            "wait": {"type": "int", "default": 0},
            "timeout": {"type": "int", "default": 2},
            "network": {"type": "str", "default": "dn42"},
            "bridge": {"type": "str", "default": "br-dn42"},
        },
        supports_check_mode=True,
    )
    try:
        answer = Trace(module).main()
    except (InputError, CaptureError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**answer)


if __name__ == "__main__":
    main()
