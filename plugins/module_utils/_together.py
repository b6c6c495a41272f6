# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Several modules of the collection in one exchange with a node.

An exchange costs a second before its module does anything: the module is packed, sent, unpacked and compiled. What is asked of a
node at the same moment is therefore asked together. Runs on nodes: Python 3.9.

This module util is PRIVATE to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any, Dict, Iterable, List, Mapping, NoReturn, Optional

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

# In this order, whatever the order in which they are asked for.
NAMES = ("host_facts", "docker_daemon", "firewalld_settings", "node_state", "release")


class PartError(Exception):
    """A part failed; `result` is what the module alone would have ended with."""

    def __init__(self, result: Dict[str, Any]) -> None:
        super().__init__(result.get("msg"))
        self.result = result


class Part:
    """One of several modules: an AnsibleModule with options, check mode and an end of its own."""

    def __init__(self, module: AnsibleModule, params: Dict[str, Any], check_mode: bool) -> None:
        self.module = module
        self.params = params
        self.check_mode = check_mode
        self.warnings: List[str] = []

    def __getattr__(self, name: str) -> Any:
        """All else is the same for all parts."""
        return getattr(self.module, name)

    def warn(self, text: str) -> None:
        """Keep a warning with the result that it belongs to."""
        self.warnings.append(text)

    def fail_json(self, **result: Any) -> NoReturn:
        """End this part alone."""
        raise PartError({"changed": False, **result, "failed": True})


def implementation(name: str) -> ModuleType:
    """The code of a module. Imported when it is asked for: a node compiles all it imports anew in each exchange."""
    if name == "host_facts":
        from ansible_collections.dn42.compose.plugins.module_utils._modules import host_facts as found
    elif name == "docker_daemon":
        from ansible_collections.dn42.compose.plugins.module_utils._modules import docker_daemon as found
    elif name == "firewalld_settings":
        from ansible_collections.dn42.compose.plugins.module_utils._modules import firewalld_settings as found
    elif name == "node_state":
        from ansible_collections.dn42.compose.plugins.module_utils._modules import node_state as found
    else:
        from ansible_collections.dn42.compose.plugins.module_utils._modules import release as found
    return found


def run(module: AnsibleModule, asked: Mapping[str, Mapping[str, Any]], check_mode: Iterable[str], archive: Optional[str] = None) -> Dict[str, Dict[str, Any]]:
    """{module: its result}. asked: {module: options}; check_mode: modules that change nothing, whatever mode the run is in;
    archive: the option of that name of `release`, which is given apart so that it is shown nowhere.

    A part that fails has `failed` in its result, as a task would, and keeps no other part from being run.
    """
    looking = set(check_mode)
    results: Dict[str, Dict[str, Any]] = {}
    for name in (name for name in NAMES if name in asked):
        options = dict(asked[name])
        if name == "node_state" and "firewalld_settings" in results:
            # Which rules the guard needs follows from what firewalld checks itself.
            options["guard_check"] = (results["firewalld_settings"].get("ipv6_rpfilter") or {}).get("replaced") or ""
        if name == "release" and archive:
            options["archive"] = archive
        results[name] = _part(module, name, options, module.check_mode or name in looking)
    return results


def _part(module: AnsibleModule, name: str, options: Dict[str, Any], check_mode: bool) -> Dict[str, Any]:
    code = implementation(name)
    valid = ArgumentSpecValidator(code.ARGUMENT_SPEC).validate(options)
    if valid.error_messages:
        return {"changed": False, "failed": True, "msg": f"{name}: {'; '.join(valid.error_messages)}"}
    part = Part(module, valid.validated_parameters, check_mode)
    try:
        result = code.run(part)
    except PartError as error:
        result = error.result
    return {**result, "warnings": part.warnings} if part.warnings else result
