# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The evening of the origin post as one command: the faults are real, the packets too, and nothing stays behind."""

from __future__ import annotations

import contextlib
import difflib
import re
import subprocess
import time
from collections.abc import Iterator

import pytest
from network_probe import Lab, wait_for
from support import CHECKOUT, playbook

NODE = "fra1"
BEHIND_PEER = "fdc0:ffee:9002::80"
NOBODY_BEHIND_PEER = "fdc0:ffee:9002::99"
CONF = "/etc/firewalld/firewalld.conf"
BRIDGE_NF = "/proc/sys/net/bridge/bridge-nf-call-ip6tables"
FORWARDING = "/proc/sys/net/ipv6/conf/all/forwarding"
TRACING = ("nft -i", "nft monitor trace")
# Longer than any of these tests needs; what has to end earlier ends by itself.
WAIT = 90


# Rules of all tables and sysctls of the network, in the host's and the router's namespace. Left out are numbers of what is going
# on, and keys that are new each time they are read.
LOOK = r"""
router=$(docker inspect --format '{{.State.Pid}}' dn42-router)
for pid in 1 $router; do
  echo "namespace of $pid"
  nsenter --net=/proc/$pid/ns/net sh -c "nft -s list ruleset; sysctl -a" 2>/dev/null |
    grep -vE 'nf_conntrack_count|random|uuid|stable_secret|fastopen_key|^(abi|debug|dev|fs|kernel|sunrpc|user|vm)\.'
done
ps axwwo args | grep -E '^(/\S*/)?nft (-i|monitor)' || true
"""


def state(lab: Lab) -> str:
    """Everything on the node that a trace could leave behind."""
    return lab.run(NODE, "sh", "-c", LOOK).stdout


def settled_state(lab: Lab) -> str:
    """The state when Docker has put everything back after a reload of firewalld: nothing has changed for three seconds."""
    readings = [state(lab)]

    def same() -> bool:
        readings.append(state(lab))
        return readings[-1] == readings[-2]

    time.sleep(3)
    wait_for("Docker's rules after the reload", same, 60, 3)
    return readings[-1]


def tracing_processes(lab: Lab) -> list[str]:
    """Lines of ps with the parent's id, one for each process that a trace has started."""
    listed = lab.run(NODE, "ps", "axwwo", "ppid,args").stdout.splitlines()
    return [line for line in listed if any(name in line for name in TRACING)]


@pytest.fixture(scope="module")
def before(lab: Lab) -> list[str]:
    """The node before the next trace; the last one counts."""
    found = state(lab)
    assert "table inet dn42_guard" in found
    assert "table inet dn42_router" in found
    assert "net.ipv6.conf.wg-peer1.forwarding = 1" in found
    return [found]


@pytest.fixture(autouse=True)
def nothing_stays(lab: Lab, before: list[str]) -> Iterator[None]:
    """Whatever a test does, the node is afterwards as it was before."""
    yield
    assert state(lab) == before[-1]


@contextlib.contextmanager
def forwarding_off(lab: Lab) -> Iterator[None]:
    """The first fault of the origin post."""
    lab.in_router(NODE, "sh", "-c", f"echo 0 > {FORWARDING}")
    try:
        yield
    finally:
        lab.in_router(NODE, "sh", "-c", f"echo 1 > {FORWARDING}")


@contextlib.contextmanager
def strict_firewalld(lab: Lab) -> Iterator[None]:
    """The second fault of the origin post."""
    before = lab.run(NODE, "cat", BRIDGE_NF).stdout.strip()
    lab.run(NODE, "sh", "-c", f"cp -a {CONF} /tmp/firewalld.conf && sed -i 's/^IPv6_rpfilter=.*/IPv6_rpfilter=strict/' {CONF} && echo 1 > {BRIDGE_NF} && firewall-cmd --reload")
    try:
        # Until Docker has its bridge back in its zone, firewalld refuses all forwarding.
        wait_for("IPv4 after the reload", lambda: lab.ping(NODE, "dn42-dns", "172.22.200.80", count=1), 30)
        yield
    finally:
        lab.run(NODE, "sh", "-c", f"cp -a /tmp/firewalld.conf {CONF} && rm /tmp/firewalld.conf && echo {before} > {BRIDGE_NF} && firewall-cmd --reload")
        wait_for("IPv4 after the reload", lambda: lab.ping(NODE, "dn42-dns", "172.22.200.80", count=1), 30)
        wait_for("zone docker", lambda: "br-dn42" in lab.run(NODE, "firewall-cmd", "--zone=docker", "--list-interfaces").stdout, 30)


def arguments(to: str, **options: object) -> list[str]:
    """What an operator types behind ansible-playbook."""
    given = {"to": to, **options}
    return ["playbooks/trace.yml", "--limit", NODE, *(part for name, value in given.items() for part in ("-e", f"dn42_trace_{name}={value}"))]


def trace(to: str, **options: object) -> str:
    """Run the playbook and return what it shows."""
    shown = playbook(*arguments(to, **options)).stdout
    assert "changed=0" in shown.partition("PLAY RECAP")[2]
    return re.sub(r"^ +", "", shown, flags=re.MULTILINE)


def hops(shown: str, way: str) -> list[list[str]]:
    """The rows of one direction, in columns: number, namespace, interfaces, table, hook and chain, rule, verdict."""
    part = shown.partition(f"-- {way}")[2].partition("\n-- ")[0].partition("\n\n")[0]
    return [re.split(r"\s{2,}", line) for line in part.splitlines()[1:]]


@contextlib.contextmanager
def running(to: str, **options: object) -> Iterator[subprocess.Popen[str]]:
    """The playbook in the background."""
    command = ["ansible-playbook", "-i", "inventories/demo", *arguments(to, **options)]
    process = subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_until_tracing(lab: Lab) -> None:
    """Wait until both namespaces have the rules and both monitors run."""
    wait_for("two owners and two monitors", lambda: len(tracing_processes(lab)) == 4, 60, 0.3)
    for tables in (lab.run(NODE, "nft", "list", "tables").stdout, lab.in_router(NODE, "nft", "list", "tables").stdout):
        assert "table inet dn42_trace" in tables


def test_healthy_way_is_shown_there_and_back(lab: Lab) -> None:
    """Each hook of both namespaces, in the order of the way, and the answer."""
    shown = trace(BEHIND_PEER)
    there, back = hops(shown, "there"), hops(shown, "back")
    assert [row[1] for row in there] == sorted((row[1] for row in there), key=["host", "router"].index)
    assert [row[1] for row in back] == sorted((row[1] for row in back), key=["router", "host"].index)
    assert any(row[1:5] == ["router", "eth0 > wg-peer1", "inet dn42_router", "forward: forward"] and row[-1] == "accept" for row in there), shown
    assert any(row[2:5] == ["br-dn42 > br-dn42", "inet dn42_guard", "forward: forward"] for row in back), shown
    assert there[-1][2:] == ["eth0 > wg-peer1", "-", "postrouting: leaves"]
    assert "Result: answered (echo-reply)." in shown


@pytest.mark.parametrize(
    ("to", "options"),
    [("172.22.200.53", {"from": "looking_glass", "protocol": "udp", "port": 53}), ("172.22.200.80", {"from": "router", "protocol": "tcp", "port": 80})],
)
def test_other_protocols_and_services(lab: Lab, to: str, options: dict[str, object]) -> None:
    """A question to a name server from a container without tools, and a connection from the router itself."""
    shown = trace(to, **options)
    assert "Result: answered" in shown
    assert hops(shown, "back")


def test_forwarding_off_is_recognised(lab: Lab) -> None:
    """No rule drops it: it passes prerouting in the router and is never seen again."""
    with forwarding_off(lab):
        shown = trace(BEHIND_PEER)
    assert "Result: no answer. router, forwarding off" in shown
    assert "where: namespace router, behind prerouting; no rule dropped it" in shown
    assert "cause: Forwarding is off in the router's network namespace (net.ipv6.conf.all.forwarding is not 1)" in shown
    assert re.search(r"cure: .*site\.yml", shown)
    assert hops(shown, "there")[-1][1] == "router"
    assert not hops(shown, "back")


def test_firewalld_reverse_path_is_recognised(lab: Lab, before: list[str]) -> None:
    """The answer comes back as far as the host's bridge, and firewalld's rule is named with its text."""
    with strict_firewalld(lab):
        faulty = settled_state(lab)
        shown = trace(BEHIND_PEER)
        assert state(lab) == faulty
    # After a reload of firewalld Docker puts the same rules back, those of its networks in an order of its own.
    rules = sorted(before[-1].splitlines())

    def all_there() -> bool:
        differing = list(difflib.unified_diff(rules, sorted(state(lab).splitlines()), n=0, lineterm=""))[2:]
        assert not differing, "; ".join(differing)
        return True

    wait_for("all rules again", all_there, 30)
    before.append(settled_state(lab))
    assert "Result: no answer. firewalld IPv6_rpfilter" in shown
    assert "where: namespace host, table inet firewalld, chain filter_PREROUTING" in shown
    assert "rule:  meta nfproto ipv6 fib saddr . mark . iif oif missing drop" in shown
    assert re.search(r"cure: .*IPv6_rpfilter=no.*firewall-cmd --reload", shown)
    last = hops(shown, "back")[-1]
    assert (last[1], last[-1]) == ("host", "DROP")


@pytest.mark.parametrize(
    ("to", "fault", "word"),
    [
        ("fd42:d42:d42:54::1", "router, no route", "birdc show route for fd42:d42:d42:54::1"),
        (NOBODY_BEHIND_PEER, "no answer through the tunnel", "left by wg-peer1"),
        ("the bridge", "guard, to the host", "the host is not in DN42"),
    ],
)
def test_other_ends_of_the_way_are_recognised(lab: Lab, to: str, fault: str, word: str) -> None:
    """Nobody announces it; it left and nobody answered; our own guard."""
    if to == "the bridge":
        to = re.findall(r"inet6 (fd\S+)/", lab.run(NODE, "ip", "-6", "addr", "show", "br-dn42").stdout)[0]
    shown = trace(to, timeout=1)
    assert f"Result: no answer. {fault}" in shown
    assert word in shown


@pytest.mark.full
def test_rule_of_a_legacy_table_is_named(lab: Lab) -> None:
    """Legacy ip6tables tell by NFLOG, and the sysctl that this needs is as before afterwards (see nothing_stays)."""
    rule = ["-s", BEHIND_PEER, "-j", "DROP"]
    lab.run(NODE, "ip6tables-legacy", "-t", "raw", "-A", "PREROUTING", *rule)
    try:
        shown = trace(BEHIND_PEER)
    finally:
        lab.run(NODE, "ip6tables-legacy", "-t", "raw", "-D", "PREROUTING", *rule)
    assert "where: namespace host, table ip6 (legacy) raw, chain PREROUTING" in shown
    assert f"rule:  -A PREROUTING -s {BEHIND_PEER}/128 -j DROP" in shown


@pytest.mark.full
def test_waits_for_the_users_own_packet_and_only_one_trace_runs(lab: Lab) -> None:
    """A second trace is refused; the packet of a peer, from outside, ends the first."""
    dns = lab.addresses(NODE, "dn42-dns")[0]
    with running(dns, **{"from": "172.22.200.1", "wait": WAIT}) as first:
        wait_until_tracing(lab)
        second = playbook(*arguments(BEHIND_PEER), check=False)
        assert second.returncode != 0
        assert "another trace is running on this host" in second.stdout + second.stderr
        # The monitors may need a moment more than the rules.
        wait_for("the end of the trace", lambda: lab.run("peer1", "ping", "-c1", "-W1", "-I", "172.22.200.1", dns) and first.poll() is not None, WAIT)
        shown = re.sub(r"^ +", "", first.communicate()[0], flags=re.MULTILINE)
    assert first.returncode == 0
    assert hops(shown, "there")[0][1:3] == ["router", "wg-peer1"]
    assert "Result: answered" in shown


@pytest.mark.parametrize("victim", ["playbook", "module"])
def test_nothing_stays_after_kill_minus_nine(lab: Lab, victim: str) -> None:
    """In the middle of a trace; nothing_stays compares rules, sysctls and processes."""
    with running(NOBODY_BEHIND_PEER, wait=WAIT) as process:
        wait_until_tracing(lab)
        begun = time.monotonic()
        if victim == "playbook":
            process.kill()
        else:
            lab.run(NODE, "kill", "-9", tracing_processes(lab)[0].split()[0])
        wait_for("the end of all processes", lambda: not tracing_processes(lab), WAIT, 0.3)
        # Not merely because the time of the trace was over.
        assert time.monotonic() - begun < WAIT / 2


def test_unknown_service_is_refused_with_the_list(lab: Lab) -> None:
    """Nothing is traced, and the message says what there is."""
    done = playbook(*arguments(BEHIND_PEER, **{"from": "mail"}), check=False)
    assert done.returncode != 0
    assert "no service 'mail' runs on this node; there are dns, looking-glass, router" in " ".join((done.stdout + done.stderr).split())
