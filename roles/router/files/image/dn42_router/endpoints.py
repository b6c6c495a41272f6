# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""When to set or look up a peer's endpoint, and which address to take. Pure decisions.

WireGuard follows a peer that moves by itself, so a working endpoint is never touched. It is set
when there is none, when the declaration changed, and when the last handshake is too old.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, replace

from .model import Endpoint, join_endpoint
from .observe import PeerState

# WireGuard renews its keys every 120 s; with some room, an older handshake means a dead path.
STALE_SECONDS = 135
# How long an address that was just set may take to bring a handshake before the next is tried.
TRIAL_SECONDS = 30
# Pause after a failed look-up; after a good one, TRIAL_SECONDS is the pause.
RETRY_SECONDS = 10


@dataclass(frozen=True)
class Memo:
    """What the keeper remembers of one endpoint. Times are seconds since 1970, None for never.

    `declared` is the declaration that was last put into effect, `found` the addresses of the
    last look-up that nobody has used yet.
    """

    declared: str | None = None
    set_at: float | None = None
    looked_up_at: float | None = None
    found: tuple[str, ...] = ()
    error: str | None = None


def needs_setting(endpoint: Endpoint, peer: PeerState | None, memo: Memo, now: float) -> bool:
    """Tell whether the peer's present endpoint is missing, outdated or dead."""
    if peer is None or peer.endpoint is None:
        return True
    if memo.declared is not None and memo.declared != str(endpoint):
        return True
    on_trial = memo.set_at is not None and now - memo.set_at < TRIAL_SECONDS
    return now - peer.handshake > STALE_SECONDS and not on_trial


def needs_lookup(endpoint: Endpoint, peer: PeerState | None, memo: Memo, now: float) -> bool:
    """Tell whether a name has to be looked up now."""
    if endpoint.address is not None or memo.found:
        return False
    if not needs_setting(endpoint, peer, memo, now):
        return False
    return memo.looked_up_at is None or now - memo.looked_up_at >= RETRY_SECONDS


def looked_up(memo: Memo, addresses: tuple[str, ...], error: str | None, now: float) -> Memo:
    """Remember the result of a look-up."""
    return replace(memo, looked_up_at=now, found=addresses, error=error)


def choose(endpoint: Endpoint, peer: PeerState | None, memo: Memo, prefer: str, now: float) -> tuple[str | None, Memo]:
    """The endpoint to set ('address:port', None for no change) and what to remember."""
    if not needs_setting(endpoint, peer, memo, now):
        return None, replace(memo, declared=str(endpoint), found=())
    address = endpoint.address
    candidates = (address,) if address is not None else ordered(memo.found, prefer)
    if not candidates:
        return None, memo
    current = None if peer is None else peer.endpoint
    wanted = _next([join_endpoint(item, endpoint.port) for item in candidates], current)
    memo = replace(memo, declared=str(endpoint), set_at=now, found=())
    return (wanted if wanted != current else None), memo


def ordered(addresses: tuple[str, ...], prefer: str) -> tuple[str, ...]:
    """Sort addresses: the preferred family first, the given order within a family."""

    def rank(address: str) -> int:
        return int(prefer != "any" and f"ipv{ipaddress.ip_address(address).version}" != prefer)

    return tuple(sorted(dict.fromkeys(addresses), key=rank))


def _next(candidates: list[str], current: str | None) -> str:
    """The candidate after the present one, so that a dead address is not kept for ever."""
    if current not in candidates:
        return candidates[0]
    return candidates[(candidates.index(current) + 1) % len(candidates)]
