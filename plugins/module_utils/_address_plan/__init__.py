# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The engine of the address plan: pure functions of the plan so far and of what is asked for.

This module util is PRIVATE to the collection. It can have breaking changes at any time.
"""
