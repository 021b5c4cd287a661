"""How far people agree beyond chance. Pure."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]


def cohens_kappa(left: IntArray, right: IntArray) -> float | None:
    """Agreement of two people on the same faces beyond chance, in [-1, 1].

    Both are (N,) class indices from 0. None where chance alone would agree always
    (both gave one and the same answer throughout), or without a face.
    Source: Cohen, "A Coefficient of Agreement for Nominal Scales", 1960.
    """
    if left.shape != right.shape or left.ndim != 1:
        raise ValueError(f"expected two equal rows, got {left.shape}, {right.shape}")
    if not len(left):
        return None
    classes = int(max(left.max(), right.max())) + 1
    left_share = np.bincount(left, minlength=classes) / len(left)
    right_share = np.bincount(right, minlength=classes) / len(right)
    expected = float(left_share @ right_share)
    return _beyond_chance(float((left == right).mean()), expected)


def fleiss_kappa(table: IntArray) -> float | None:
    """Agreement of several people beyond chance, in [-1, 1].

    ``table`` is (N, K): how many said what of each face. Faces may have different
    numbers of votes; those with fewer than two say nothing and are left out. None
    where nothing is left or chance alone would agree always.
    Source: Fleiss, "Measuring Nominal Scale Agreement Among Many Raters", 1971.
    """
    votes = table.sum(axis=1)
    table, votes = table[votes >= 2], votes[votes >= 2]
    if not len(table):
        return None
    pairs = (table * (table - 1)).sum(axis=1) / (votes * (votes - 1))
    shares = table.sum(axis=0) / table.sum()
    return _beyond_chance(float(pairs.mean()), float((shares**2).sum()))


def _beyond_chance(observed: float, expected: float) -> float | None:
    if np.isclose(expected, 1.0):
        return None
    return (observed - expected) / (1 - expected)
