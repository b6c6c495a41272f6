# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Controller side of dn42.compose.firewalld_settings."""

from __future__ import annotations

from ansible_collections.dn42.compose.plugins.module_utils._action import OnePart


class ActionModule(OnePart):
    """Runs on the node."""

    PART = "firewalld_settings"
