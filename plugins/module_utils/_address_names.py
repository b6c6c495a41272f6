# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names for the addresses of the plan: `<service>.<node>.<domain>`, and the node's own name for its gateway address.

This module util is PRIVATE to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import re
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Tuple

from ansible_collections.dn42.compose.plugins.module_utils._address_plan.model import HOST, NODE, Ask, Fault
from ansible_collections.dn42.compose.plugins.module_utils._address_text import quote_hint

GATEWAY = "gateway"  # the router's own address, which stands for the node
LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
LONGEST = 253


class Owner(NamedTuple):
    """Whose address a name stands for."""

    holder: str
    service: str


def _labels(text: str) -> str:
    """A name as DNS has it: small letters, and hyphens where an inventory has underscores."""
    return text.lower().replace("_", "-")


def _wrong(name: str) -> Optional[str]:
    """What is wrong with a name, if anything."""
    for label in name.split("."):
        if not LABEL.fullmatch(label):
            return f"gives the label '{label}', and DNS takes 1 to 63 of a-z, 0-9 and '-', with '-' neither first nor last"
    if len(name) > LONGEST:
        return f"gives a name of {len(name)} characters, and DNS takes {LONGEST}"
    return None


def read_domain(value: Any, faults: List[Fault]) -> Optional[str]:
    """The domain below which the names are, without a dot at its end; None where no names are wanted."""
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        faults.append(Fault("domain", value, quote_hint(value, '"example.dn42"')))
        return None
    domain = value.strip(" \t").lower()
    domain = domain[:-1] if domain.endswith(".") else domain
    wrong = _wrong(domain)
    if wrong:
        faults.append(Fault("domain", value, wrong))
        return None
    return domain


def owners(ask: Ask, domain: str) -> Tuple[Dict[str, Owner], List[Fault]]:
    """Every name and whose it is, and what is wrong with names. The host's bridge is not in DN42 and has none."""
    nodes = {pool.name for pool in ask.pools if pool.purpose == NODE}
    found: Dict[str, Owner] = {}
    faults: List[Fault] = []
    for request in sorted((request for request in ask.requests if request.pool in nodes), key=lambda item: item.name):
        node = _labels(request.name)
        node = node if node.endswith(f".{domain}") else f"{node}.{domain}"
        wrong = _wrong(node)
        if wrong:
            faults.append(Fault(f"{request.key}.name", request.name, wrong))
            continue
        for service in ask.offsets:
            if service == HOST:
                continue
            own = [(f"{_labels(service)}.{node}", f"offsets.{service}", service)]
            own += [(node, f"{request.key}.name", request.name)] if service == GATEWAY else []
            for name, key, written in own:
                _add(found, name, Owner(request.name, service), Fault(key, written, ""), faults)
    return found, list(dict.fromkeys(faults))


def _add(found: Dict[str, Owner], name: str, owner: Owner, where: Fault, faults: List[Fault]) -> None:
    wrong = _wrong(name)
    other = found.get(name)
    if other is not None:
        wrong = f"gives the name {name}, which {other.service} of {other.holder} has already; rename one of them"
    if wrong:
        faults.append(Fault(where.key, where.value, wrong))
    else:
        found[name] = owner


def names(found: Mapping[str, Owner], holders: Mapping[str, Any]) -> Dict[str, Dict[str, Optional[str]]]:
    """The addresses of every name, sorted by name; `holders` is {holder: {addresses: {service: {ipv4, ipv6}}}}."""
    return {name: holders[owner.holder]["addresses"][owner.service] for name, owner in sorted(found.items())}
