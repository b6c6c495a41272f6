# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What modules do on a node, each in a file of its name, so that one exchange can hold several of them (together.py).

This module util is PRIVATE to the collection. It can have breaking changes at any time.
"""
