# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a host was before it became a node, and what putting it back means.

Runs on nodes: Python 3.9, standard library only. What firewalld and daemon.json were is remembered by the modules that change
them; here is the rest.

This module util is PRIVATE to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Optional, Tuple

RECORD = "/etc/dn42/found.json"
OWN_DIRECTORY = "/etc/dn42"
# Files of ours there, for a host that was a node before there was a record.
OWN_FILES = ("docker.json", "firewall.json", "found.json", "guard.nft", "host-access")
# Directories that a run makes where they are missing, deepest first.
SHARED_DIRECTORIES = ("/etc/docker", "/etc/firewalld/policies", "/etc/systemd/system/nftables.service.d", "/etc/udev/rules.d", "/etc/udev", "/etc/sysctl.d")
ACCEPT_RA_FILE = "/etc/sysctl.d/90-dn42-accept-ra.conf"
# The tag of an image of a service role: the hash of its recipe.
_OWN_IMAGE = re.compile(r"dn42-[a-z0-9-]+:[0-9a-f]{12}")


class SysctlChoice(NamedTuple):
    """Settings to put back {key: value}, and those that stay as they are now, because putting them back would harm."""

    back: Dict[str, int]
    stay: Dict[str, int]


def own_images(tags: Iterable[str]) -> List[str]:
    """Of image tags those of service roles; an image that somebody called dn42-x:latest is his."""
    return sorted(tag for tag in tags if _OWN_IMAGE.fullmatch(tag))


def read_record(text: Optional[str]) -> Dict[str, Any]:
    """The record in its file's text, empty where there is none or it cannot be read."""
    try:
        record = json.loads(text or "{}")
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def write_record(found: Mapping[str, Any]) -> str:
    """The text of the record's file."""
    return json.dumps(found, indent=1, sort_keys=True) + "\n"


def accept_ra_choice(current: Mapping[str, int], record: Mapping[str, Any], forwarding: bool) -> SysctlChoice:
    """What becomes of the interfaces of ACCEPT_RA_FILE; `current` {interface: its value now}, `forwarding` of IPv6 now.

    While the host forwards, an interface with less than 2 ignores router advertisements and the host loses its IPv6 default
    route. Docker, which stays, switched forwarding on: then the setting stays as well.
    """
    found = record.get("accept_ra") or {}
    forwarded_before = bool(record.get("ipv6_forwarding"))
    safe = not forwarding or forwarded_before
    back = {name: int(found[name]) for name, value in current.items() if safe and name in found and int(found[name]) != value}
    stay = {} if safe else {name: value for name, value in current.items() if value == 2 and found.get(name) != 2}
    return SysctlChoice(back, stay)


def parse_accept_ra_file(text: str) -> List[str]:
    """The interfaces in ACCEPT_RA_FILE."""
    return sorted(set(re.findall(r"^net/ipv6/conf/(.+)/accept_ra\s*=", text, re.MULTILINE)))


def own_entries(directory: Path, record: Mapping[str, Any]) -> Tuple[List[Path], List[Path]]:
    """The entries of OWN_DIRECTORY that are ours, and those that are not: what was there before us is not."""
    entries = sorted(directory.iterdir()) if directory.is_dir() else []
    before = record.get("own_directory")
    ours = [path for path in entries if (path.name in OWN_FILES if before is None else path.name not in before)]
    return ours, [path for path in entries if path not in ours]


def bgp_up(protocols: str) -> List[str]:
    """Names of the BGP protocols that are not down in the output of `birdc show protocols`."""
    rows = [line.split() for line in protocols.splitlines()]
    return [words[0] for words in rows if len(words) > 3 and words[1] == "BGP" and words[3] != "down"]


def harmful(directory: str) -> bool:
    """Whether a directory is too near to the root to be anybody's own."""
    return len(Path(directory).parts) < 3 or Path(directory).parts[1] in ("proc", "sys", "dev", "boot")
