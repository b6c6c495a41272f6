# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Check the options of all roles at once, before anything is touched. Controller only.

Ansible checks a role's options when the role begins, which may be after other roles have changed the host, and says
nothing of an option that no role has: a misspelt one is silently not there.

This module util is PRIVATE to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, Dict, Iterable, List, Mapping

import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.dn42.compose.plugins.module_utils._network import Fault

# Options of a node that belong to no role.
NODE_OPTIONS = ("dn42_asn", "dn42_pools", "dn42_peers", "dn42_node_endpoint", "dn42_node_number")


def read_options(roles: Iterable[Path]) -> Dict[str, Dict[str, Any]]:
    """{option: its specification} of the roles in these directories, from their meta/argument_specs.yml."""
    options: Dict[str, Dict[str, Any]] = {}
    for role in roles:
        path = role / "meta" / "argument_specs.yml"
        if path.is_file():
            content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
            options.update(content.get("argument_specs", {}).get("main", {}).get("options") or {})
    return options


def _unknown(host: str, name: str, value: Any, known: List[str], prefixes: List[str]) -> List[Fault]:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.85)
    if close:
        return [Fault(host, name, value, f"is no option; do you mean {close[0]}?")]
    owner = next((prefix for prefix in prefixes if name.startswith(prefix)), None)
    if owner:
        return [Fault(host, name, value, f"is no option (those that begin with {owner} are {', '.join(option for option in known if option.startswith(owner))})")]
    return []  # a variable of the user's own


def check(host: str, variables: Mapping[str, Any], options: Mapping[str, Mapping[str, Any]], roles: Iterable[str]) -> List[Fault]:
    """Faults of one host's `dn42_*` variables: options that do not exist, and values of the wrong type or choice."""
    known = sorted([*options, *NODE_OPTIONS])
    prefixes = [f"dn42_{role}_" for role in sorted(roles)]
    faults: List[Fault] = []
    for name in sorted(variables):
        if not name.startswith("dn42_"):
            continue
        if name in options:
            result = ArgumentSpecValidator({name: dict(options[name])}).validate({name: variables[name]})
            faults += [Fault(host, name, variables[name], message) for message in result.error_messages]
        elif name not in NODE_OPTIONS:
            faults += _unknown(host, name, variables[name], known, prefixes)
    return faults
