# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fetches ROAs, checks them and keeps the last good set in files that BIRD includes."""
