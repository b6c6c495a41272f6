# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""When a release has made a node worse, as the options of every module that brings one to a node."""

from __future__ import annotations


class ModuleDocFragment:
    """The options of `_release_unit.TOLERANCE_SPEC`."""

    DOCUMENTATION = r"""
options:
  confirm_seconds:
    description: Seconds that sessions, routes, tunnels and the resolver may take to be as they were before.
    type: int
    default: 180
  lost_sessions:
    description: >-
      How many sessions that were established may be down after the release, and as many tunnels without a handshake. Those that it removes
      or shuts down do not count.
    type: int
    default: 0
  lost_routes:
    description: Percent of a session's routes of one family that may be gone after the release.
    type: int
    default: 50
"""
