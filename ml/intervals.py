"""How sure one can be of a share. Pure."""

from __future__ import annotations

import math
from typing import Final

_Z95: Final = 1.959963984540054


def wilson_interval(successes: int, n: int) -> tuple[float, float]:
    """95 % interval of a share, Wilson 1927; (0, 1) without any trial."""
    if n == 0:
        return (0.0, 1.0)
    share = successes / n
    z2 = _Z95 * _Z95
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    spread = math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    half = _Z95 * spread / (1 + z2 / n)
    return (max(0.0, middle - half), min(1.0, middle + half))
