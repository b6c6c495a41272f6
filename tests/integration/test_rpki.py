# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""ROA data from a web server on the lab's Internet into the router's filters, and what a source can do wrong."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator

import pytest
import yaml
from network_probe import Lab, wait_for
from support import CHECKOUT, SESSION_WAIT, changed_hosts, playbook

NODE = "fra1"
PEER_ASN = 4200429002
# Announced by peer1 beside 172.22.200.0/25.
PREFIX = "172.22.200.128/27"
# What the demo's source says, without that prefix. Most of it nobody announces: it makes a set in which one ROA more or less is no
# drastic change.
LAB_ROAS = json.loads((CHECKOUT / "tests/lab/peer1/srv/roa/dn42_roa_46.json").read_text())["roas"]
ROAS = {roa["prefix"]: roa["maxLength"] for roa in LAB_ROAS if roa["prefix"] != PREFIX}
SOURCE = "http://203.0.113.100:8042/roa.json"
# Every origin is believed.
WITHOUT = {"dn42_stack_services": ["router", "dns", "looking_glass"], "dn42_router_roa": "off"}
# A look takes seconds, the keeper looks every 2 s, and BIRD goes through its routes once more.
APPLIED = 60
SERVER = """
import http.server, pathlib, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        status, _newline, body = pathlib.Path("/run/roa-answer").read_bytes().partition(b"\\n")
        self.send_response(int(status))
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(("203.0.113.100", 8042), Handler).serve_forever()
"""


def serve(lab: Lab) -> None:
    """Start the source."""
    lab.run("peer1", "systemd-run", "--collect", "--unit", "roa-source", "python3", "-c", SERVER)


class Roas:
    """The source on peer1's side of the lab's Internet, and what the node makes of it."""

    def __init__(self, lab: Lab, options: list[str]) -> None:
        """Not deployed yet; `options` for the playbook do that."""
        self.lab = lab
        self.options = options
        self.before = (lab.container_starts(NODE)["dn42-router"], lab.ages(NODE))

    def answer(self, body: str, status: int = 200) -> None:
        """What the source says from now on."""
        text = shlex.quote(f"{status}\n{body}")
        self.lab.run("peer1", "sh", "-c", f"printf %s {text} > /run/roa-answer.new && mv /run/roa-answer.new /run/roa-answer")

    def publish(self, roas: dict[str, int]) -> None:
        """A good set: {prefix: maximum length}."""
        self.answer(json.dumps({"roas": [{"prefix": prefix, "maxLength": longest, "asn": f"AS{PEER_ASN}"} for prefix, longest in roas.items()]}))

    def look(self) -> None:
        """Have the node look at once instead of in its next cycle."""
        self.lab.run(NODE, "docker", "kill", "--signal", "HUP", "dn42-rpki")

    def status(self) -> dict:
        """What the fetcher says."""
        return json.loads(self.lab.run(NODE, "docker", "exec", "dn42-rpki", "cat", "/roa/status.json").stdout)

    def accepted(self, prefix: str = PREFIX) -> bool:
        """Whether the node has a route to a prefix from peer1 itself; the other node, which believes everything, sends it too."""
        return prefix in self.lab.prefixes(NODE, prefix, "protocol", "peer_peer1")


@pytest.fixture(scope="module")
def roas(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Roas]:
    """A node that believed every origin is told to judge by ROAs, and its source has some for all that peer1 announces but one prefix."""
    serve(lab)
    extra = tmp_path_factory.mktemp("rpki") / "extra.yml"
    extra.write_text(yaml.safe_dump({"dn42_rpki_sources": [{"url": SOURCE}], "dn42_rpki_smallest_first": 9}))
    playbook("site.yml", "--limit", NODE, "-e", json.dumps(WITHOUT))
    found = Roas(lab, ["site.yml", "--limit", NODE, "-e", f"@{extra}"])
    found.publish(ROAS)
    try:
        playbook(*found.options)
        wait_for("route with a ROA", lambda: found.accepted("172.22.200.0/25"), SESSION_WAIT)
        yield found
    finally:
        lab.run("peer1", "systemctl", "stop", "roa-source", check=False)
        playbook("site.yml", "--limit", NODE)


def test_switching_it_on_leaves_the_router_and_its_sessions_alone(lab: Lab, roas: Roas) -> None:
    assert (lab.container_starts(NODE)["dn42-router"], lab.ages(NODE)) == roas.before
    assert changed_hosts(playbook(*roas.options).stdout) == {NODE: 0}


def test_a_new_roa_lets_a_refused_route_in_and_its_end_out(lab: Lab, roas: Roas) -> None:
    """Without a reset, in both directions."""
    ages = lab.ages(NODE)
    wait_for("refusal of a route without a ROA", lambda: not roas.accepted(), APPLIED)
    roas.publish({**ROAS, PREFIX: 27})
    roas.look()
    wait_for("route after its ROA was published", roas.accepted, APPLIED)
    roas.publish(ROAS)
    roas.look()
    wait_for("route gone with its ROA", lambda: not roas.accepted(), APPLIED)
    assert lab.ages(NODE) == ages


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ("<html><body>It works!</body></html>", 200, "is no ROA"),
        ("", 200, "nothing was sent"),
        ("gone", 404, "HTTP status 404"),
        ('{"roas": [{"prefix": "172.22.200.0/25", "maxLe', 200, "JSON that cannot be read"),
        ("route fdc0:ffee:9002::/48 max 48 as 4200429002;\n", 200, "it holds no IPv4 ROA"),
        ("route 172.22.200.0/25 max 25 as 4200429002;\n", 200, "it holds 1 IPv4 ROAs, less than 50 %"),
    ],
    ids=["html", "empty", "not found", "truncated", "other family", "a ninth"],
)
def test_a_bad_answer_takes_nothing_away_and_is_told(lab: Lab, roas: Roas, body: str, status: int, said: str) -> None:
    ages = lab.ages(NODE)
    confirmed = roas.status()["ipv4"]["confirmed"]
    try:
        roas.answer(body, status)
        roas.look()
        wait_for(f"'{said}' in the status", lambda: said in " ".join(roas.status()["ipv4"]["problems"]), APPLIED)
        told = roas.status()["ipv4"]
        assert (told["count"], told["source"], told["confirmed"]) == (9, SOURCE, confirmed)
        assert roas.accepted("172.22.200.0/25")
        assert lab.ages(NODE) == ages
    finally:
        roas.publish(ROAS)
        roas.look()
        wait_for("a good answer in the status", lambda: not roas.status()["ipv4"]["problems"], APPLIED)


def test_everything_starts_again_without_the_source(lab: Lab, roas: Roas) -> None:
    """The fetcher and the router have the last good set from the first second on."""
    lab.run("peer1", "systemctl", "stop", "roa-source")
    lab.run(NODE, "docker", "restart", "dn42-rpki", "dn42-router", timeout=120)
    wait_for("route with a ROA", lambda: roas.accepted("172.22.200.0/25"), SESSION_WAIT)
    wait_for("the fault in the status", lambda: roas.status()["ipv4"]["problems"], APPLIED)
    assert roas.status()["ipv4"]["count"] == 9
    health = lab.run(NODE, "docker", "exec", "dn42-router", "healthcheck").stdout
    assert health == "healthy\n"
    serve(lab)


def test_the_fetcher_is_not_in_dn42(lab: Lab, roas: Roas) -> None:
    """It has no address there, and no way there: the container that talks to strangers is on the Internet's side."""
    networks = lab.run(NODE, "docker", "inspect", "--format", "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}", "dn42-rpki").stdout.split()
    assert networks == ["dn42-egress"]
    connect = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 3)"
    address = lab.addresses(NODE, "dn42-looking-glass")[0]
    assert lab.run(NODE, "docker", "exec", "dn42-rpki", "python3", "-c", connect, address, "80", check=False).returncode != 0


def test_a_volume_with_rubbish_does_not_reach_bird(lab: Lab, roas: Roas) -> None:
    """Should the fetcher be taken over, it can still put nothing but ROAs into BIRD's configuration."""
    write = "open('/roa/roa4.conf', 'w').write('route 172.22.200.0/25 max 25 as 4200429002;\\n} include \"/secrets/private.key\";\\n')"
    lab.run(NODE, "docker", "exec", "dn42-rpki", "python3", "-c", write)
    wait_for("the refusal in the router's health", lambda: "is not used" in lab.run(NODE, "docker", "exec", "dn42-router", "healthcheck").stdout, APPLIED)
    assert roas.accepted("172.22.200.0/25")
    lab.run(NODE, "docker", "exec", "dn42-router", "birdc", "configure", "check")


def empty(lab: Lab) -> None:
    """Take every ROA from the volume and from the router, as on a node that has never judged by them."""
    image = lab.run(NODE, "docker", "inspect", "--format", "{{.Config.Image}}", "dn42-router").stdout.strip()
    lab.run(NODE, "docker", "run", "--rm", "--volume", "dn42_roa:/roa", "--user", "0", "--entrypoint", "sh", image, "-c", "rm -f /roa/*")
    lab.in_router(NODE, "rm", "-f", *(f"/proc/{lab.router_pid(NODE)}/root/roa/roa{family}.conf" for family in "46"))


@pytest.mark.full
def test_switching_it_on_without_a_good_source_is_undone(lab: Lab, roas: Roas) -> None:
    """The router is not told before there is a set: no route is refused meanwhile, and the node goes back by itself."""
    playbook("site.yml", "--limit", NODE, "-e", json.dumps(WITHOUT))
    empty(lab)
    ages = lab.ages(NODE)
    roas.answer("gone", 404)
    done = playbook(*roas.options, "-e", "dn42_stack_wait=30", check=False)
    assert done.returncode != 0
    assert "The release was undone" in done.stdout
    assert "no ROA data for IPv4" in done.stdout
    assert roas.accepted(), "a route without a ROA, which the node believes as before"
    assert lab.ages(NODE) == ages
    roas.publish(ROAS)
    playbook(*roas.options)
    wait_for("refusal of a route without a ROA", lambda: not roas.accepted(), APPLIED)
    assert roas.accepted("172.22.200.0/25")
    assert lab.ages(NODE) == ages
