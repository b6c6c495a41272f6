# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Looking glass of a DN42 node: BGP sessions and route lookups of all nodes, read-only."""
