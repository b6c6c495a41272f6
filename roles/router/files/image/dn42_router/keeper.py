# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tunnel keeper: makes the router's interfaces equal to their declaration and keeps them so."""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any, Callable

from . import endpoints
from .anycast import AnycastServices
from .keys import KeyFileError
from .latency import Latencies
from .lookups import Lookups
from .model import ConfigError, Desired, Tunnel, load
from .observe import Observed
from .plan import (
    STRUCTURAL,
    Action,
    PlanError,
    Verb,
    plan_bridge,
    plan_removals,
    plan_routes,
    plan_tunnel,
)
from .roa import RoaFiles
from .system import CommandError, System, sha256, sysctl_problem, write_json

CONFIG = Path("/config/current/tunnels.json")
NFTABLES = Path("/config/current/nftables.conf")
STATUS = Path("/run/keeper/status.json")
READY = Path("/run/keeper/ready")
INTERVAL_SECONDS = 2.0
# While an interface is on its way the next look comes soon, but not for ever.
SOON_SECONDS = 0.2
SOON_PASSES = 75
LOOKUP_SECONDS = 1.0


def log(text: str) -> None:
    """One line on standard error."""
    print(f"keeper: {text}", file=sys.stderr, flush=True)


class Keeper:
    """State of the keeper between two passes."""

    def __init__(self, system: System, wake: Callable[[], None] = lambda: None) -> None:
        """Take up what an earlier keeper of this container left; `wake` is called when the next pass should not wait."""
        self._system = system
        self._lookups = Lookups()
        self._desired: Desired | None = None
        self._config_hash: str | None = None
        self._nftables_hash: str | None = None
        self._problems: dict[str, str | None] = {}
        self._tunnels: dict[str, dict[str, Any]] = {}
        self._memos: dict[str, endpoints.Memo] = {}
        self._roa = RoaFiles()
        self._anycast = AnycastServices(wake)
        self._latency = Latencies()
        self._soon = 0
        self._began = 0.0
        self._told = True
        self._release: Path | None = None
        self._restore()

    def tell(self) -> None:
        """There may be a new release: read it in the next pass."""
        self._told = True

    def run_pass(self) -> float:
        """Look at everything once and mend it; the seconds until the next look."""
        self._began = time.time()
        # A new release counts when the stack says so and not when its link appears: a peer that leaves loses
        # its session, which BIRD closes politely, before its tunnel.
        told = self._told or self._desired is None
        self._told = False
        if told:
            self._release = CONFIG.parent.resolve()
            self._read_config()
        # Before BIRD may start, and whatever the namespace is like.
        self._guard("roa", self._keep_roa)
        pending = False
        try:
            names = [tunnel.name for tunnel in self._desired.tunnels] if self._desired else []
            observed = self._system.observe(names)
            self._guard("nftables", lambda: self._keep_nftables(told))
            self._guard("bridge", lambda: self._keep_bridge(observed))
            if self._desired is not None:
                pending = self._keep_tunnels(self._desired, observed)
            self._problem("namespace", None)
        except CommandError as error:
            self._problem("namespace", str(error))
        self._guard("anycast", self._keep_anycast)
        self._guard("latency", self._keep_latency)
        self._write_status()
        self._soon = self._soon + 1 if pending else 0
        if 0 < self._soon <= SOON_PASSES:
            return SOON_SECONDS
        return LOOKUP_SECONDS if self._lookups.busy else INTERVAL_SECONDS

    def _read_config(self) -> None:
        """Take the present declaration; one that is wrong changes nothing."""
        digest = sha256(CONFIG)
        try:
            desired = load(CONFIG)
        except ConfigError as error:
            self._problem("configuration", str(error))
            return
        self._problem("configuration", None)
        if digest != self._config_hash:
            log(f"configuration {str(digest)[:12]} with {len(desired.tunnels)} tunnels")
        self._desired, self._config_hash = desired, digest

    def _keep_nftables(self, told: bool) -> None:
        """Load the packet filter when it changed with a release or has vanished."""
        if not told and self._nftables_hash is not None and self._system.nftables_loaded():
            return
        digest = sha256(NFTABLES)
        if digest is None:
            raise CommandError(f"{NFTABLES} cannot be read")
        if digest == self._nftables_hash and self._system.nftables_loaded():
            return
        self._system.load_nftables(NFTABLES)
        self._nftables_hash = digest
        log(f"nftables: {digest[:12]} loaded")

    def _keep_roa(self) -> None:
        """Give BIRD the ROAs that were fetched."""
        self._roa.keep(bird_may_be_down=not READY.exists(), log=lambda text: log(f"roa: {text}"), untold=self._untold())

    def _untold(self) -> bool:
        """Whether a release is in place that we were not told of: what makes BIRD read its configuration now would run ahead of it."""
        return self._release != CONFIG.parent.resolve()

    def _keep_anycast(self) -> None:
        """Announce the addresses of services that answer, and no others."""
        if self._desired is not None:
            self._anycast.keep(self._desired.anycast, bird_may_be_down=not READY.exists(), log=lambda text: log(f"anycast: {text}"))

    def _keep_latency(self) -> None:
        """Measure latencies where the declaration wants it."""
        if self._desired is not None and not self._untold():
            self._latency.keep(self._desired.latency, bird_may_be_down=not READY.exists(), log=lambda text: log(f"latency: {text}"))

    def _keep_bridge(self, observed: Observed) -> None:
        """Gateway addresses, no default route; then BIRD may start."""
        actions = plan_routes(observed) if self._desired is None else plan_bridge(self._desired, observed)
        for action in actions:
            self._perform("bridge", action, userspace=False)
        if self._desired is not None:
            READY.touch()

    def _keep_tunnels(self, desired: Desired, observed: Observed) -> bool:
        """All tunnels, one after the other; a failing one is left to the next pass."""
        pending = False
        self._take_lookups(desired)
        for name, actions in plan_removals(desired, observed):
            self._tunnel(name, lambda name=name, actions=actions: self._perform_all(name, actions, False))
        declared = {tunnel.name for tunnel in desired.tunnels}
        for name in set(self._tunnels) - declared:
            if name not in observed.links:
                del self._tunnels[name]
                self._memos.pop(name, None)
        for tunnel in desired.tunnels:
            pending |= self._tunnel(tunnel.name, lambda tunnel=tunnel: self._keep_tunnel(tunnel, desired, observed))
        self._start_lookups(desired, observed)
        return pending

    def _keep_tunnel(self, tunnel: Tunnel, desired: Desired, observed: Observed) -> bool:
        """One tunnel; True when it has to be looked at again soon."""
        secrets = self._system.secrets(tunnel)
        memo = self._memos.get(tunnel.name, endpoints.Memo())
        wanted = None
        if tunnel.peer.endpoint is not None and tunnel.name in observed.wireguard:
            state = observed.wireguard[tunnel.name].peers.get(tunnel.peer.public_key)
            wanted, memo = endpoints.choose(tunnel.peer.endpoint, state, memo, desired.prefer_family, time.time())
        actions = plan_tunnel(tunnel, observed, secrets, wanted)
        pending = self._perform_all(tunnel.name, actions, desired.userspace)
        self._memos[tunnel.name] = memo
        link = observed.links.get(tunnel.name)
        if link is not None:
            self._state(tunnel.name)["mode"] = "kernel" if link.kind == "wireguard" else "userspace"
        problem = sysctl_problem(tunnel.name)
        if problem:
            raise PlanError(problem)
        if memo.error is not None and wanted is None and memo.declared != str(tunnel.peer.endpoint):
            raise PlanError(memo.error)
        return pending

    def _perform_all(self, name: str, actions: list[Action], userspace: bool) -> bool:
        """Carry out the actions of one tunnel; True when the result has to be looked at soon."""
        for action in actions:
            self._perform(name, action, userspace)
        return any(action.verb in STRUCTURAL for action in actions)

    def _perform(self, name: str, action: Action, userspace: bool) -> None:
        """Carry out one action, with its line in the log."""
        self._system.perform(name, action, userspace)
        if action.verb is not Verb.WAIT:
            log(f"{name}: {action.text}")

    def _tunnel(self, name: str, step: Any) -> bool:
        """Do a tunnel's step and record how it went; its failure is nobody else's."""
        try:
            pending = bool(step())
        except (CommandError, PlanError, KeyFileError) as error:
            self._record(name, str(error))
            return False
        self._record(name, "starting" if pending else None)
        return pending

    def _record(self, name: str, error: str | None) -> None:
        """Note a tunnel's state; only changes are logged."""
        state = self._state(name)
        if (state["ok"], state["error"]) == (error is None, error):
            return
        if error != "starting":
            mode = f" ({state['mode']} WireGuard)" if state["mode"] else ""
            log(f"{name}: {error or 'ok'}{mode}")
        state.update(ok=error is None, error=error, since=int(time.time()))

    def _state(self, name: str) -> dict[str, Any]:
        """The status entry of a tunnel."""
        fresh = {"ok": False, "error": None, "mode": None, "since": int(time.time())}
        return self._tunnels.setdefault(name, fresh)

    def _guard(self, what: str, step: Any) -> None:
        """Do a step that concerns no tunnel and record how it went."""
        try:
            step()
            self._problem(what, None)
        except (CommandError, PlanError) as error:
            self._problem(what, str(error))

    def _problem(self, what: str, error: str | None) -> None:
        """Note a problem that concerns no tunnel; only changes are logged."""
        if self._problems.get(what) != error:
            log(f"{what}: {error or 'ok again'}")
        self._problems[what] = error

    def _start_lookups(self, desired: Desired, observed: Observed) -> None:
        """Begin to look up the names that are due."""
        names = set()
        for tunnel in desired.tunnels:
            endpoint = tunnel.peer.endpoint
            device = observed.wireguard.get(tunnel.name)
            if endpoint is None or device is None:
                continue
            memo = self._memos.get(tunnel.name, endpoints.Memo())
            if endpoints.needs_lookup(endpoint, device.peers.get(tunnel.peer.public_key), memo, time.time()):
                names.add(endpoint.host)
        self._lookups.start(names)

    def _take_lookups(self, desired: Desired) -> None:
        """Take over the results of finished look-ups."""
        results = self._lookups.results()
        for tunnel in desired.tunnels:
            endpoint = tunnel.peer.endpoint
            if endpoint is None or endpoint.host not in results:
                continue
            addresses, error = results[endpoint.host]
            memo = self._memos.get(tunnel.name, endpoints.Memo())
            error = error and f"{endpoint.host}: {error}"
            if error is not None and error != memo.error and memo.declared == str(endpoint):
                log(f"{tunnel.name}: {error}; its last address stays")
            self._memos[tunnel.name] = endpoints.looked_up(memo, addresses, error, time.time())

    def _write_status(self) -> None:
        """Say how things are, for the health check and for whoever asks."""
        for name, state in self._tunnels.items():
            state["endpoint"] = self._memos.get(name, endpoints.Memo()).declared
        write_json(
            STATUS,
            {
                "anycast": self._anycast.status(),
                "began": self._began,
                "written": int(time.time()),
                "configuration": self._config_hash,
                "nftables": self._nftables_hash,
                "roa": self._roa.status(),
                "latency": self._latency.status(),
                "problems": {what: error for what, error in self._problems.items() if error},
                "tunnels": self._tunnels,
            },
        )

    def _restore(self) -> None:
        """Remember which endpoints and ROAs an earlier keeper had put into effect."""
        try:
            status = json.loads(STATUS.read_bytes())
            tunnels = status["tunnels"]
            self._roa.loader.loaded = status["roa"]["loaded"]
            self._latency.loader.loaded = status["latency"]["loaded"]
            self._tunnels = {name: {**self._state(name), **state} for name, state in tunnels.items()}
            self._memos = {name: endpoints.Memo(declared=state.get("endpoint")) for name, state in tunnels.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            self._tunnels, self._memos = {}, {}


def main() -> int:
    """Run until SIGTERM; SIGHUP says that there is a new release."""
    wake = threading.Event()
    keeper = Keeper(System(), wake.set)

    def hurry(_number: int, _frame: FrameType | None) -> None:
        keeper.tell()
        wake.set()

    def leave(_number: int, _frame: FrameType | None) -> None:
        # at any point: the next keeper mends what is left half done
        raise SystemExit(0)

    signal.signal(signal.SIGHUP, hurry)
    signal.signal(signal.SIGTERM, leave)
    while True:
        wake.clear()
        wake.wait(keeper.run_pass())


if __name__ == "__main__":
    sys.exit(main())
