# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""daemon.json on a real Docker: merged, in force or undone, and nobody's container pays for it without being named."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator

import pytest
from network_probe import LAB_PROGRAM, Lab
from support import changed_hosts, playbook, wait_for_node

NODE, BARE = "fra1", "nrt1"
FILE = "/etc/docker/daemon.json"
IMAGE = "debian:trixie-slim"
# Somebody else's containers on the host: one that Docker starts again by itself, one that nobody does.
OTHERS = {"other-service": "unless-stopped", "other-job": "no"}
# A user's file with a style, types and an order of his own.
USERS = """{
  "registry-mirrors": ["https://mirror.example.net"],
  "log-opts": {"tag": "caf\\u00e9 {{.Name}}", "max-file": "3"},
  "shutdown-timeout": 15,
\t"default-address-pools": [ {"base":"192.168.64.0/18", "size":24} ],
  "live-restore" : true
}
"""
# dockerd --validate accepts it, and Docker does not start with it.
FATAL = {"storage-driver": "nosuch"}
Role = Callable[..., str]


@pytest.fixture(scope="module")
def role(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Role]:
    """Runs the role docker alone on the node, with options of daemon.json; returns what Ansible printed."""
    path = tmp_path_factory.mktemp("docker") / "docker.yml"
    path.write_text("---\n- hosts: dn42_nodes\n  gather_facts: false\n  roles:\n    - role: dn42.compose.docker\n")

    def run(options: dict | None = None, *arguments: str, failing: bool = False, **variables: object) -> str:
        given = {"dn42_docker_daemon_options": options or {}, **{f"dn42_docker_{key}": value for key, value in variables.items()}}
        done = playbook(str(path), "--limit", NODE, "--diff", "-e", json.dumps(given), *arguments, check=not failing)
        assert (done.returncode != 0) is failing, done.stdout[-4000:]
        return done.stdout

    lab.run(NODE, "docker", "load", "--quiet", "--input", "/srv/images/debian-trixie-slim.tar")
    for name, policy in OTHERS.items():
        lab.run(NODE, "docker", "run", "--detach", "--name", name, "--restart", policy, "--init", IMAGE, "sleep", "infinity")
    yield run
    lab.run(NODE, "docker", "rm", "--force", *OTHERS)
    wait_for_node(lab, NODE)


@pytest.fixture(autouse=True)
def node_as_before(lab: Lab, request: pytest.FixtureRequest) -> Iterator[None]:
    """Leaves no daemon.json, no memory and no override behind, Docker running as distributed, every container up."""
    yield
    if "role" in request.fixturenames:
        lab.run(NODE, "rm", "-f", "/usr/local/sbin/systemctl")
        if file(lab) is not None:
            # A daemon that is told of live-restore's end while it runs stops its containers, and starts them again.
            lab.run(NODE, "sh", "-c", f"echo '{{\"live-restore\": false}}' > {FILE}; systemctl reload docker; rm {FILE}; systemctl restart docker")
        lab.run(NODE, "sh", "-c", f"rm -f {FILE}.*.dn42 /etc/dn42/docker.json /run/dn42/docker.json")
        lab.run(NODE, "docker", "start", *OTHERS, "dn42-router", "dn42-dns", "dn42-looking-glass", "dn42-rpki")


def file(lab: Lab) -> str | None:
    """daemon.json, byte for byte; None if there is none."""
    done = lab.run(NODE, "cat", FILE, check=False)
    return done.stdout if done.returncode == 0 else None


def write(lab: Lab, content: str) -> None:
    """Write daemon.json as its user does, with an owner and a mode of his own."""
    lab.run(NODE, "sh", "-c", 'printf %s "$1" > "$2" && chown root:adm "$2" && chmod 0640 "$2"', "sh", content, FILE)


def invocation(lab: Lab) -> str:
    """Which start of Docker this is."""
    return lab.run(NODE, "systemctl", "show", "--property=InvocationID", "--value", "docker").stdout.strip()


def starts(lab: Lab) -> dict[str, str]:
    """{container: when it was started} of all running containers of the node."""
    out = lab.run(NODE, "sh", "-c", "docker inspect --format '{{.Name}} {{.State.StartedAt}}' $(docker ps -q)").stdout
    return dict(line.lstrip("/").split() for line in out.splitlines())


def info(lab: Lab, field: str) -> str:
    """What the running daemon says of a setting."""
    return lab.run(NODE, "docker", "info", "--format", f"{{{{json .{field}}}}}").stdout.strip()


def unchanged(output: str) -> bool:
    """Whether a run of the role changed nothing."""
    return changed_hosts(output) == {NODE: 0}


def flat(output: str) -> str:
    """What Ansible printed, without the line breaks it puts into messages."""
    return " ".join(output.split())


def test_node_needs_no_setting(lab: Lab, role: Role) -> None:
    """Docker as distributed is enough: the role writes nothing, and says the same in check mode."""
    before = invocation(lab)
    assert unchanged(role())
    assert unchanged(role(None, "--check"))
    assert (file(lab), invocation(lab)) == (None, before)


def test_broken_file_stops_the_run_with_the_line(lab: Lab, role: Role) -> None:
    """Before anything is touched; the file stays as it is, and so does Docker."""
    before = invocation(lab)
    broken = USERS.replace('"3"},', '"3"}')
    write(lab, broken)
    output = flat(role({"debug": True}, failing=True))
    assert "line 4, column 3" in output
    assert "shutdown-timeout" in output
    assert (file(lab), invocation(lab)) == (broken, before)
    lab.run(NODE, "rm", FILE)


def test_users_file_survives_and_comes_back(lab: Lab, role: Role) -> None:
    """Merged with types, order and style, in force, without touching a container; taken back byte for byte."""
    write(lab, USERS)
    lab.run(NODE, "systemctl", "reload", "docker")
    lab.run(NODE, "systemctl", "restart", "docker")
    before = starts(lab)
    assert set(OTHERS) < set(before)
    wanted = {"log-opts": {"max-size": "10m"}, "debug": True}
    pools = [{"base": "10.200.0.0/16", "size": 24}]
    assert '"max-size": "10m"' in role(wanted, "--check", address_pools=pools)
    assert file(lab) == USERS

    role(wanted, address_pools=pools)
    merged = file(lab)
    assert merged is not None
    assert merged.startswith(USERS[: USERS.index('"3"')])
    # No key, order, escape or number changed; only what was added is new.
    assert [line for line in USERS.splitlines() if line not in merged.splitlines()] == [
        '  "log-opts": {"tag": "caf\\u00e9 {{.Name}}", "max-file": "3"},',
        '\t"default-address-pools": [ {"base":"192.168.64.0/18", "size":24} ],',
        '  "live-restore" : true',
    ]
    assert '  "log-opts": {"tag": "caf\\u00e9 {{.Name}}", "max-file": "3", "max-size": "10m"},' in merged.splitlines()
    assert list(json.loads(merged)) == [*json.loads(USERS), "debug"]
    assert lab.run(NODE, "stat", "-c", "%U %G %a", FILE).stdout.split() == ["root", "adm", "640"]
    assert json.loads(info(lab, "DefaultAddressPools")) == [{"Base": "192.168.64.0/18", "Size": 24}, {"Base": "10.200.0.0/16", "Size": 24}]
    assert info(lab, "Debug") == "true"
    assert starts(lab) == before

    second = invocation(lab)
    assert unchanged(role(wanted, address_pools=pools))
    assert invocation(lab) == second

    role()
    assert file(lab) == USERS
    assert info(lab, "Debug") == "false"
    assert starts(lab) == before
    assert lab.run(NODE, "sh", "-c", f"ls {FILE}.*.dn42 | wc -l").stdout.strip() == "2"


def test_reload_where_it_is_enough(lab: Lab, role: Role) -> None:
    """live-restore comes and goes without a restart, and with it the file that was made for it."""
    before = (invocation(lab), starts(lab))
    assert changed_hosts(role({"live-restore": True}, "--check", restart="forbidden")) == {NODE: 1}
    role({"live-restore": True}, restart="forbidden")
    assert info(lab, "LiveRestoreEnabled") == "true"
    role(restart="forbidden")
    assert info(lab, "LiveRestoreEnabled") == "false"
    assert (file(lab), (invocation(lab), starts(lab))) == (None, before)


def test_forbidden_restart_is_refused_with_the_containers(lab: Lab, role: Role) -> None:
    """Nothing is written, and the operator reads what a restart would cost."""
    before = (invocation(lab), starts(lab))
    output = flat(role({"mtu": 1400}, failing=True, restart="forbidden"))
    assert "mtu takes effect only with a restart" in output
    assert all(name in output for name in (*OTHERS, "dn42-router"))
    assert (file(lab), (invocation(lab), starts(lab))) == (None, before)


def test_interrupted_run_is_completed_by_the_next(lab: Lab, role: Role) -> None:
    """B26: killed between writing and restarting. The next run restarts; containers with a restart policy are back."""
    before = invocation(lab)
    pools = [{"base": "192.168.128.0/18", "size": 24}]
    killer = '#!/bin/sh\n[ "$1" = restart ] || exec /usr/bin/systemctl "$@"\nkill -9 $(cut -d" " -f4 /proc/$PPID/stat) $PPID\n'
    lab.run(NODE, "sh", "-c", 'printf %s "$1" > /usr/local/sbin/systemctl && chmod 0755 /usr/local/sbin/systemctl', "sh", killer)
    role(failing=True, address_pools=pools)
    lab.run(NODE, "rm", "/usr/local/sbin/systemctl")
    assert "192.168.128.0/18" in (file(lab) or "")
    assert (invocation(lab), info(lab, "DefaultAddressPools")) == (before, "null")

    assert "without a restart policy, other-job stays stopped" in flat(role(address_pools=pools))
    assert json.loads(info(lab, "DefaultAddressPools")) == [{"Base": "192.168.128.0/18", "Size": 24}]
    assert {"dn42-router", "dn42-dns", "other-service"} <= set(starts(lab))
    after = invocation(lab)
    assert unchanged(role(address_pools=pools))
    assert invocation(lab) == after != before


def test_bad_merge_is_undone(lab: Lab, role: Role) -> None:
    """Docker does not start with the new file: the old one is back and Docker with it, the play fails and says so."""
    users = '{"log-opts": {"max-file": "3"}}\n'
    write(lab, users)
    lab.run(NODE, "systemctl", "restart", "docker")
    before = invocation(lab)
    output = flat(role(FATAL, failing=True))
    assert "driver not supported: nosuch" in output
    assert "put back as it was and Docker runs with it again" in output
    assert file(lab) == users
    assert lab.run(NODE, "systemctl", "is-active", "docker").stdout.strip() == "active"
    assert invocation(lab) != before
    assert {"dn42-router", "dn42-dns", "other-service"} <= set(starts(lab))
    assert unchanged(role())


@pytest.mark.full
@pytest.mark.parametrize(("fatal", "survive"), [({"default-address-pools": [{"base": "10.0.0.0/8", "size": 6}]}, True), (FATAL, False)], ids=["late", "early"])
def test_bad_merge_with_live_restore(lab: Lab, role: Role, fatal: dict, survive: bool) -> None:
    """The old file has no live-restore: a daemon that starts with it would stop what survived, for good.

    One that gives up before it has looked for containers takes their root file systems away; then they are started anew.
    """
    before = starts(lab)
    output = flat(role({**fatal, "live-restore": True}, failing=True))
    assert (file(lab), info(lab, "LiveRestoreEnabled")) == (None, "false")
    assert ("had lost the root file system" in output) is not survive
    assert (starts(lab) == before) is survive
    for name in ("dn42-router", "dn42-dns", "other-service"):
        lab.run(NODE, "docker", "exec", name, "true")


# --- where Docker comes from ----------------------------------------------------------------------------------------------

# Debian's own programs under the names of Docker's packages, in a signed repository: what apt sees of Docker's.
REPOSITORY = r"""
set -eu
export DEBIAN_FRONTEND=noninteractive GNUPGHOME=/root/repository-key
rm -rf /srv/repository /root/repository-key /root/debs; mkdir -p /srv/repository/dists/trixie/stable/binary-amd64 /root/debs; mkdir -m 0700 $GNUPGHOME
apt-get -q update; apt-get -qy install --no-install-recommends gnupg >/dev/null
cd /root/debs
apt-get -q download docker.io docker-cli docker-compose containerd runc
repack() {  # name, version, depends, packages whose files it has
  name=$1; version=$2; depends=$3; shift 3
  mkdir -p $name
  for package in "$@"; do dpkg-deb -R ${package}_*.deb from-$package; cp -a from-$package/. $name/; rm -r from-$package; done
  rm -f $name/DEBIAN/md5sums
  printf 'Package: %s\nVersion: %s\nArchitecture: amd64\nMaintainer: Test <test@example.net>\nDepends: %s\nDescription: test\n' \
    $name $version "$depends" > $name/DEBIAN/control
  dpkg-deb -Znone --root-owner-group -b $name /srv/repository/${name}_${version#*:}.deb >/dev/null; rm -r $name
}
repack containerd.io 1.7.24-1 libc6 containerd runc
repack docker-ce-cli 5:26.1.5-1 libc6 docker-cli
repack docker-compose-plugin 2.26.1-1 libc6 docker-compose
repack docker-ce 5:26.1.5-1 'containerd.io, docker-ce-cli, iptables, adduser' docker.io
# A newer one that must not be taken: it cannot even be installed.
mkdir -p newer/DEBIAN; printf 'Package: docker-ce\nVersion: 5:99.0-1\nArchitecture: amd64\nMaintainer: Test <test@example.net>\nDepends: nosuch\nDescription: test\n' > newer/DEBIAN/control
dpkg-deb -Znone -b newer /srv/repository/docker-ce_99.0-1.deb >/dev/null
cd /srv/repository
for deb in *.deb; do
  dpkg-deb -f $deb; printf 'Filename: %s\nSize: %s\nSHA256: %s\n\n' $deb $(stat -c %s $deb) $(sha256sum $deb | cut -d' ' -f1)
done > dists/trixie/stable/binary-amd64/Packages
cd dists/trixie; index=stable/binary-amd64/Packages
printf 'Origin: Test\nSuite: trixie\nCodename: trixie\nArchitectures: amd64\nComponents: stable\nDate: %s\nSHA256:\n %s %s %s\n' \
  "$(date -Ru)" $(sha256sum $index | cut -d' ' -f1) $(stat -c %s $index) $index > Release
gpg --batch --quiet --passphrase '' --quick-generate-key 'Test <test@example.net>' ed25519 sign never
gpg --batch --quiet --clearsign --output InRelease Release
chmod -R a+rX /srv/repository
gpg --batch --armor --export
"""


REMOVAL = r"""
if command -v dockerd; then
  systemctl stop docker.socket docker containerd
  apt-get -qy purge docker-ce docker-ce-cli docker-compose-plugin containerd.io gnupg; apt-get -qy autoremove --purge
fi
rm -rf /srv/repository /root/repository-key /root/debs /etc/docker /var/lib/docker /etc/dn42/docker.json /etc/firewalld/zones/docker.xml \
  /etc/firewalld/policies/docker-forwarding.xml /etc/apt/sources.list.d/dn42-docker.sources /etc/apt/keyrings/dn42-docker.asc /etc/apt/preferences.d/dn42-docker.pref
apt-get -q update
"""


@pytest.fixture(scope="module")
def bare(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., str]]:
    """Runs the role on a host of its own without Docker, and leaves it without Docker."""
    lab.lab("add", BARE)
    folder = tmp_path_factory.mktemp("bare")
    (folder / "docker.yml").write_text("---\n- hosts: dn42_nodes\n  gather_facts: false\n  roles:\n    - role: dn42.compose.docker\n")
    hosts = {BARE: {"ansible_host": "203.0.113.13", "lab_program": str(LAB_PROGRAM)}}
    (folder / "hosts.json").write_text(json.dumps({"dn42_nodes": {"hosts": hosts}}))

    def run(variables: dict, *arguments: str, failing: bool = False) -> str:
        done = playbook(str(folder / "docker.yml"), "-i", str(folder / "hosts.json"), "--limit", BARE, "-e", json.dumps(variables), *arguments, check=not failing)
        assert (done.returncode != 0) is failing, done.stdout[-4000:]
        return done.stdout

    yield run
    lab.run(BARE, "sh", "-c", REMOVAL, timeout=120)
    lab.lab("reboot", BARE)


@pytest.mark.full
def test_debian_12_is_refused_with_a_way_out(lab: Lab, bare: Callable[..., str]) -> None:
    """Debian 12 has no Compose v2; nothing was installed or written when the run says so."""
    lab.run(BARE, "sh", "-c", "cp -L /etc/os-release /root/os-release; rm /etc/os-release; sed 's/13/12/; s/trixie/bookworm/' /root/os-release > /etc/os-release")
    try:
        assert "set dn42_docker_source: upstream" in flat(bare({}, failing=True))
        assert lab.run(BARE, "sh", "-c", "command -v dockerd", check=False).returncode != 0
    finally:
        lab.run(BARE, "sh", "-c", "rm /etc/os-release; ln -s ../usr/lib/os-release /etc/os-release")


@pytest.mark.full
def test_upstream_packages_from_a_repository(lab: Lab, bare: Callable[..., str]) -> None:
    """Check mode changes nothing; then the pinned version is installed from the signed repository alone, and works."""
    assert "needs dn42_docker_upstream_repository" in flat(bare({"dn42_docker_source": "upstream"}, failing=True))
    key = lab.run(BARE, "sh", "-c", REPOSITORY, timeout=300).stdout
    key = key[key.index("-----BEGIN") :]
    listing = "cd /etc/apt; find . -type f ! -name 'dn42-docker.*' | sort | xargs sha256sum"
    sources = lab.run(BARE, "sh", "-c", listing).stdout
    variables = {
        "dn42_docker_source": "upstream",
        "dn42_docker_upstream_repository": "file:///srv/repository",
        "dn42_docker_upstream_key": key,
        "dn42_docker_upstream_version": "5:26.1.*",
        "dn42_docker_daemon_options": {"log-opts": {"max-size": "10m"}},
    }
    checked = flat(bare(variables, "--check", "--diff"))
    assert "Would install docker-ce-cli=5:26.1.*, docker-compose-plugin, docker-ce=5:26.1.*" in checked
    assert lab.run(BARE, "sh", "-c", "ls /etc/apt/sources.list.d/dn42-docker.sources /etc/docker/daemon.json", check=False).stdout == ""

    bare(variables)
    assert lab.run(BARE, "docker", "version", "--format", "{{.Server.Version}}").stdout.startswith("26.1.5")
    assert lab.run(BARE, "docker", "compose", "version", "--short").stdout.startswith("2.26.1")
    assert lab.run(BARE, "dpkg-query", "-W", "-f", "${Version}", "docker-ce").stdout == "5:26.1.5-1"
    assert json.loads(lab.run(BARE, "cat", FILE).stdout) == {"log-opts": {"max-size": "10m"}}
    assert re.search(r"Candidate: 5:26\.1\.5-1", lab.run(BARE, "apt-cache", "policy", "docker-ce").stdout)
    assert lab.run(BARE, "sh", "-c", listing).stdout == sources
    assert changed_hosts(bare(variables)) == {BARE: 0}
