# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Controller side of dn42.compose.release: render everything, ask the node once, send one archive."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Tuple

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase

try:  # ansible-core 2.19 renders only what is marked as a template
    from ansible.template import trust_as_template
except ImportError:

    def trust_as_template(value: str) -> str:
        """Before 2.19 every string was a template."""
        return value


from ansible_collections.dn42.compose.plugins.module_utils import _compose
from ansible_collections.dn42.compose.plugins.module_utils import _release_network as docker_network
from ansible_collections.dn42.compose.plugins.module_utils import _service_role as service_role
from ansible_collections.dn42.compose.plugins.module_utils._action import load_service_roles, operator, plain, together, with_others


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _identity(declared: Mapping[str, Any]) -> str:
    return _sha256(json.dumps(declared, sort_keys=True).encode())


def _shut_down(model: Mapping[str, Any]) -> List[str]:
    """BIRD's names of the sessions that the release shuts down on purpose."""
    return sorted(session["protocol"] for peer in model.get("peers") or [] if peer.get("shutdown") for session in peer["sessions"])


class Rendered(NamedTuple):
    """What one service role contributes to the node."""

    role: service_role.ServiceRole
    files: Dict[str, bytes]
    secrets: Dict[str, bytes]
    fragment: str

    @property
    def release(self) -> str:
        """Hash of the configuration's paths and contents: equal content, equal release."""
        lines = "".join(f"{name}\0{_sha256(content)}\n" for name, content in sorted(self.files.items()))
        return _sha256(lines.encode())[:16]


class ActionModule(ActionBase):
    """Render the node's configuration, compare it with the node's, and apply what differs."""

    def run(self, tmp: Optional[str] = None, task_vars: Optional[Dict[str, Any]] = None) -> Dict[str, Any]:
        """Answer with `changes`, `done` and, if asked for, `diff`."""
        result = super().run(tmp, task_vars)
        task_vars = task_vars or {}
        args = plain(self._task.args)
        if boolean(args.get("network_only", False)):
            declared = self._declared([], b"", args)
            if self._network_is_known(args.get("known") or {}, declared):
                result.update(changed=False, changes=[])
                return result
            result.update(together(self, {"release": {"operation": "inspect_network", "declared": declared}}, task_vars)["release"])
            result["changes"] = [change["what"] for change in result.pop("found", [])]
            return result
        rendered = [self._render(role, args["model"], task_vars) for role in load_service_roles(args["services"], task_vars)]
        try:
            compose = self._compose(rendered, args)
        except _compose.ComposeError as error:
            raise AnsibleActionFail(str(error)) from error
        declared = self._declared(rendered, compose, args)
        answer = self._inspect(declared, args, task_vars)
        result.update(answer)
        found = result.pop("found", [])
        if found:
            result["inspected"] = {"declared": _identity(declared), "found": found}
        result["changes"] = [change["what"] for change in found]
        if self._task.diff:
            result["diff"] = self._diff(found, rendered, compose)
        if answer.get("failed") or not found or self._task.check_mode:
            return result
        applied = self._apply(declared, rendered, compose, result["changes"], task_vars)
        # What was found before is not unsaid by what came of it.
        result.update(applied, warnings=[*answer.get("warnings", []), *applied.get("warnings", [])])
        return result

    @staticmethod
    def _network_is_known(known: Mapping[str, Any], declared: Mapping[str, Any]) -> bool:
        """Whether host_facts found the network as declared, or none at all. Else only the node can tell what it would mean."""
        if "network" not in known:
            return False
        if known["network"] is None:
            return True
        live = docker_network.live_settings(known["network"], declared["network"]["driver_opts"])
        return not docker_network.differences(live, docker_network.declared_settings(declared["network"], declared["project"]))

    def _inspect(self, declared: Dict[str, Any], args: Mapping[str, Any], task_vars: Dict[str, Any]) -> Dict[str, Any]:
        """Ask the node what it has, unless an earlier task of the run has asked about the very same."""
        inspected = args.get("inspected") or {}
        if inspected.get("declared") == _identity(declared):
            return {"changed": True, "found": inspected["found"]}
        also = args.get("also") or {}
        others = together(self, {"release": {"operation": "inspect", "declared": declared}, **also}, task_vars, check_mode=also)
        return with_others(others.pop("release"), others) if also else others["release"]

    def _apply(self, declared: Dict[str, Any], rendered: List[Rendered], compose: bytes, what: List[str], task_vars: Dict[str, Any]) -> Dict[str, Any]:
        entries: List[Tuple[str, bytes, int]] = [("compose.yaml", compose, 0o644)]
        for part in rendered:
            entries += [(f"services/{part.role.name}/{name}", content, 0o644) for name, content in part.files.items()]
            entries += [(f"secrets/{part.role.name}/{name}", content, 0o400) for name, content in part.secrets.items()]
        request = {"operation": "apply", "declared": declared, "who": operator(), "what": what}
        return together(self, {"release": request}, task_vars, archive=service_role.archive(entries))["release"]

    # Rendering

    def _render(self, role: service_role.ServiceRole, model: Mapping[str, Any], task_vars: Dict[str, Any]) -> Rendered:
        variables = {**role.defaults, **task_vars, "dn42": model}
        templates = role.path / "templates"
        files = {name: self._template(path, variables) for name, path in role.templates()}
        secrets_template = templates / "secrets.json.j2"
        secrets = json.loads(self._template(secrets_template, variables)) if secrets_template.is_file() else {}
        return Rendered(
            role=role,
            files={name: text.encode() for name, text in files.items()},
            secrets={name: content.encode() for name, content in secrets.items()},
            fragment=self._template(templates / "compose.yaml.j2", variables),
        )

    def _template(self, path: Path, variables: Dict[str, Any]) -> str:
        source = trust_as_template(path.read_text(encoding="utf-8"))
        templar = self._templar.copy_with_new_env(searchpath=[str(path.parent)], available_variables=variables)
        try:
            return str(templar.template(source, escape_backslashes=False))
        except AnsibleError as error:
            raise AnsibleActionFail(f"{path.relative_to(path.parents[2])} of the role {path.parents[2].name}: {error}") from error

    def _compose(self, rendered: List[Rendered], args: Mapping[str, Any]) -> bytes:
        return _compose.assemble(
            fragments={part.role.name: part.fragment for part in rendered},
            services={part.role.name: part.role.service for part in rendered},
            images=args["images"],
            model=args["model"],
            directory=args["directory"],
            project=args["project"],
            bridge=args["bridge"],
            egress=[part.role.name for part in rendered if part.role.egress],
        ).encode()

    def _declared(self, rendered: List[Rendered], compose: bytes, args: Mapping[str, Any]) -> Dict[str, Any]:
        return {
            "directory": args["directory"],
            "project": args["project"],
            "wait": int(args.get("wait") or 120),
            "compose_sha256": _sha256(compose),
            "network": _compose.network(args["model"], args["bridge"]),
            "renumber": boolean(args.get("renumber", False)),
            "networks": _compose.network_names(any(part.role.egress for part in rendered)),
            "tunnels": sorted(tunnel["name"] for tunnel in args["model"].get("tunnels") or []),
            "removal": {"limit": int(args.get("removal_limit", 50)), "allowed": boolean(args.get("allow_removal", False))},
            "confirm": {
                "seconds": int(args.get("confirm_seconds", 180)),
                "lost_sessions": int(args.get("lost_sessions", 0)),
                "lost_routes": int(args.get("lost_routes", 50)),
                "expected_down": _shut_down(args["model"]),
            },
            "services": {part.role.name: self._declared_service(part, args) for part in rendered},
        }

    @staticmethod
    def _declared_service(part: Rendered, args: Mapping[str, Any]) -> Dict[str, Any]:
        role = part.role
        addresses = {} if role.egress else args["model"]["addresses"][role.name]
        return {
            "service": role.service,
            "container": f"dn42-{role.service}",
            "image": args["images"][role.name],
            "addresses": {family: address for family, address in addresses.items() if address},
            "release": part.release,
            "files": {name: _sha256(content) for name, content in part.files.items()},
            "check": [list(command) for command in role.check],
            "check_capabilities": list(role.check_capabilities),
            "reload": [list(command) for command in role.reload],
            "before_recreate": [list(command) for command in role.before_recreate],
            "secrets": {
                "owner": role.secrets_owner,
                "keep": list(role.secrets_kept),
                # Keys are 256 random bits: their hash tells nothing about them.
                "files": {name: _sha256(content) for name, content in part.secrets.items()},
            },
        }

    @staticmethod
    def _diff(found: List[Dict[str, Any]], rendered: List[Rendered], compose: bytes) -> List[Dict[str, str]]:
        after = {"compose.yaml": compose}
        for part in rendered:
            after.update({f"{part.role.name}/{name}": content for name, content in part.files.items()})
        files = [change for change in found if change.get("file")]
        return [
            {"before_header": change["file"], "after_header": change["file"], "before": change["before"], "after": change.get("after", after.get(change["file"], b"").decode())}
            for change in files
        ]
