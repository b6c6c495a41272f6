# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs of the router's image: the tunnel keeper and its small helpers."""
