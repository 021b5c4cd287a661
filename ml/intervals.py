"""How sure one can be of a share. Pure."""

from __future__ import annotations

import math
from typing import Final

Z95: Final = 1.959963984540054
"""So many standard errors lie on either side within a 95 % interval."""


def wilson_interval(successes: int, n: int) -> tuple[float, float]:
    """95 % interval of a share, Wilson 1927; (0, 1) without any trial."""
    if n == 0:
        return (0.0, 1.0)
    share = successes / n
    z2 = Z95 * Z95
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    spread = math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    half = Z95 * spread / (1 + z2 / n)
    return (max(0.0, middle - half), min(1.0, middle + half))
