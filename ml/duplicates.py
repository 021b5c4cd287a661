"""Pictures that are nearly the same, found without comparing every pair."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

UInt8Array = npt.NDArray[np.uint8]
Float32Array = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

THUMB_PX: Final = 12
MAX_DIFFERENCE: Final = 1.0
"""Mean absolute difference in grey levels at ``THUMB_PX``, exclusive."""
_MAX_SUM: Final = MAX_DIFFERENCE * THUMB_PX**2 + 0.1
"""A hair more than the limit: sums carry rounding of their own."""
_AT_ONCE: Final = 64
"""The tree is asked for so many at once; a crowd's neighbours fill memory."""


def thumbnails(crops: UInt8Array) -> Float32Array:
    """uint8 (N, S, S, C) -> float32 (N, 144): means over a 12 x 12 grid.

    S is at least ``THUMB_PX``. Where it is no multiple of it, some cells have a row or
    a column of pixels more than others.
    """
    count, side = crops.shape[:2]
    starts = np.arange(THUMB_PX) * side // THUMB_PX
    widths = np.diff(starts, append=side).astype(np.float32)
    pixels = np.outer(widths, widths)
    out = np.empty((count, THUMB_PX * THUMB_PX), np.float32)
    for start in range(0, count, 4096):
        part = crops[start : start + 4096].astype(np.float32).mean(axis=3)
        sums = np.add.reduceat(np.add.reduceat(part, starts, axis=1), starts, axis=2)
        out[start : start + 4096] = (sums / pixels).reshape(-1, THUMB_PX * THUMB_PX)
    return out


def near_duplicates(
    left: Float32Array,
    right: Float32Array | None = None,
    advance: Callable[[], None] | None = None,
) -> Iterator[tuple[int, IntArray, Float32Array]]:
    """(i, others, differences) for each picture i of ``left`` that has any.

    ``left`` and ``right`` are thumbnails. ``others`` int64 (P,), rising, are those of
    ``right`` that are nearly equal to i, or, without it, those of ``left`` but i
    itself: a pair is met from both sides. Two pictures can only be that near if the
    sums over nine blocks are, so a tree of those leaves few to be compared.
    One picture after another, for thousands of copies have millions of pairs.
    ``advance`` is called once a picture.
    """
    from scipy.spatial import KDTree  # type: ignore[import-untyped]

    inside = right is None
    known, members = _distinct(left if right is None else right)
    looking, lookers = _distinct(left)
    tree = KDTree(_block_sums(known))
    for start in range(0, len(looking), _AT_ONCE):
        part = looking[start : start + _AT_ONCE]
        close = tree.query_ball_point(
            _block_sums(part), _MAX_SUM, p=1, return_sorted=False
        )
        equals = lookers[start : start + _AT_ONCE]
        for picture, equal, candidates in zip(part, equals, close, strict=True):
            places = np.array(candidates, np.int64)
            difference = np.abs(known[places] - picture).mean(axis=1)
            near = np.flatnonzero(difference < MAX_DIFFERENCE)
            found = [members[k] for k in places[near]]
            others = np.concatenate([*found, np.zeros(0, np.int64)])
            differences = np.repeat(difference[near], [len(same) for same in found])
            rising = np.argsort(others)
            others, differences = others[rising], differences[rising]
            for i in equal.tolist():
                if advance:
                    advance()
                but_itself = others != i if inside else slice(None)
                if len(others) > inside:
                    yield i, others[but_itself], differences[but_itself]


def resembles(crops: UInt8Array, others: UInt8Array) -> npt.NDArray[np.bool_]:
    """Which of ``crops`` nearly are one of ``others``: bool (N,)."""
    out = np.zeros(len(crops), bool)
    for i, _, _ in near_duplicates(thumbnails(crops), thumbnails(others)):
        out[i] = True
    return out


class Groups:
    """Which of N things belong together, be it by a chain of others."""

    def __init__(self, count: int) -> None:
        self._before = np.arange(count)
        """Of each one something of its group with a smaller number, or itself."""

    def join(self, i: int, others: IntArray) -> None:
        """Make one group of i, all ``others`` and whatever they belong to."""
        those = np.append(others, i)
        firsts = [self._first(k) for k in np.unique(self._before[those]).tolist()]
        self._before[firsts] = min(firsts)
        self._before[those] = min(firsts)

    def firsts(self) -> list[int]:
        """The smallest number in the group of each."""
        return [self._first(i) for i in range(len(self._before))]

    def _first(self, i: int) -> int:
        while self._before[i] != i:
            self._before[i] = self._before[self._before[i]]
            i = int(self._before[i])
        return i


def _block_sums(thumbs: Float32Array) -> Float32Array:
    """(N, 144) -> (N, 9): sums over 3 x 3 blocks. They differ by no more than their
    cells do, all together."""
    cells = thumbs.reshape(-1, 3, THUMB_PX // 3, 3, THUMB_PX // 3)
    return np.asarray(cells.sum(axis=(2, 4)).reshape(-1, 9))


def _distinct(thumbs: Float32Array) -> tuple[Float32Array, list[IntArray]]:
    """Thumbnails without repetition, and the places of each: copies cost nothing."""
    places: dict[bytes, list[int]] = {}
    for place, thumb in enumerate(thumbs):
        places.setdefault(thumb.tobytes(), []).append(place)
    members = [np.array(equal, np.int64) for equal in places.values()]
    return thumbs[[equal[0] for equal in members]], members
