"""Pictures that are nearly the same, found without comparing every pair."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

UInt8Array = npt.NDArray[np.uint8]
Float32Array = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

THUMB_PX: Final = 12
MAX_DIFFERENCE: Final = 1.0
"""Mean absolute difference in grey levels at ``THUMB_PX``, exclusive."""


def thumbnails(crops: UInt8Array) -> Float32Array:
    """uint8 (N, S, S, C) -> float32 (N, 144): means over a 12 x 12 grid.

    S must be a multiple of ``THUMB_PX``.
    """
    count, side = crops.shape[:2]
    if side % THUMB_PX:
        raise ValueError(f"crops of {side} pixels do not divide into {THUMB_PX}")
    cell = side // THUMB_PX
    out = np.empty((count, THUMB_PX * THUMB_PX), np.float32)
    for start in range(0, count, 4096):
        part = crops[start : start + 4096].astype(np.float32).mean(axis=3)
        cells = part.reshape(-1, THUMB_PX, cell, THUMB_PX, cell).mean(axis=(2, 4))
        out[start : start + 4096] = cells.reshape(-1, THUMB_PX * THUMB_PX)
    return out


def near_duplicates(
    left: Float32Array, right: Float32Array | None = None
) -> tuple[IntArray, Float32Array]:
    """Pairs (i, j) of ``left`` x ``right`` thumbnails that are nearly equal.

    Returns int64 (P, 2) and the differences (P,). Without ``right``, pairs inside
    ``left`` with i < j. Two pictures can only be that near if their mean grey
    levels are, so each is compared with its neighbours in brightness alone.
    """
    inside = right is None
    other = left if right is None else right
    order = np.argsort(other.mean(axis=1), kind="stable")
    ordered = other[order]
    means = ordered.mean(axis=1)
    left_means = left.mean(axis=1)
    # A hair more than the limit: the means carry rounding of their own.
    reach = MAX_DIFFERENCE + 1e-3
    first = np.searchsorted(means, left_means - reach)
    last = np.searchsorted(means, left_means + reach)
    pairs: list[tuple[int, int]] = []
    differences: list[float] = []
    for i in range(len(left)):
        near = ordered[first[i] : last[i]]
        difference = np.abs(near - left[i]).mean(axis=1)
        for k in np.flatnonzero(difference < MAX_DIFFERENCE):
            j = int(order[first[i] + k])
            if not inside or i < j:
                pairs.append((i, j))
                differences.append(float(difference[k]))
    return (
        np.array(pairs, np.int64).reshape(-1, 2),
        np.array(differences, np.float32),
    )
