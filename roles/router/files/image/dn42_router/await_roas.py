# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Wait until the keeper has taken over the ROAs that a new bird.conf judges by; run by root in the container before BIRD is told.

On a node that begins to judge by ROAs, BIRD would refuse every route until they are there.
"""

from __future__ import annotations

import sys
import time

from . import roa

# The keeper looks at the volume every 2 s and asks `bird -p` about what it finds.
SECONDS = 10.0


def awaited() -> list[str]:
    """Families whose ROAs are published and not yet where BIRD includes them; none where bird.conf does not ask for them."""
    if not roa.judged_by_files():
        return []
    return [family for family, name in roa.FILES.items() if (roa.PUBLISHED / name).exists() and not (roa.INCLUDED / name).exists()]


def main() -> int:
    """Always 0: a file that the keeper refuses is in its status, and BIRD is told all the same."""
    deadline = time.monotonic() + SECONDS
    while awaited() and time.monotonic() < deadline:
        time.sleep(0.2)
    for family in awaited():
        print(f"no ROAs for {roa.NAMES[family]} within {SECONDS:g} s", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
