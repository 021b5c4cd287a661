from __future__ import annotations

import tracemalloc
from collections.abc import Sequence

import numpy as np
import pytest

from ml.duplicates import (
    MAX_DIFFERENCE,
    Groups,
    near_duplicates,
    resembles,
    thumbnails,
)
from ml.tests.faces import draw_set


def test_pairs_are_those_that_comparing_all_would_find() -> None:
    generator = np.random.default_rng(0)
    crops = draw_set(10).crops
    shaken = crops.astype(np.int64) + generator.integers(-2, 3, crops.shape)
    thumbs = thumbnails(np.concatenate([crops, shaken.clip(0, 255).astype(np.uint8)]))
    found = {
        (i, j): difference
        for i, others, differences in near_duplicates(thumbs)
        for j, difference in zip(others.tolist(), differences.tolist(), strict=True)
    }
    whole = np.abs(thumbs[:, None] - thumbs[None]).mean(axis=2)
    wanted = {
        (i, j)
        for i in range(len(thumbs))
        for j in range(len(thumbs))
        if i != j and whole[i, j] < MAX_DIFFERENCE
    }
    assert set(found) == wanted
    assert {(i, i + 40) for i in range(40)} <= wanted
    assert all(value == pytest.approx(whole[pair]) for pair, value in found.items())


def test_two_sets_are_compared_with_one_another_alone() -> None:
    thumbs = thumbnails(draw_set(2).crops)
    twice = np.concatenate([thumbs[:1], thumbs[:1]])
    found = [(i, others.tolist()) for i, others, _ in near_duplicates(twice, thumbs)]
    assert found == [(0, [0]), (1, [0])]


def test_copies_are_met_without_their_pairs_being_kept() -> None:
    copies = np.repeat(thumbnails(draw_set(1).crops), 5_000, axis=0)
    seen = 0
    tracemalloc.start()
    for i, others, differences in near_duplicates(copies):
        seen += len(others)
        assert not (others == i).any()
        assert not differences.any()
    assert seen == 4 * 5_000 * 4_999
    assert tracemalloc.get_traced_memory()[1] < 100e6
    tracemalloc.stop()


def test_what_resembles_others_is_said() -> None:
    crops = draw_set(2).crops
    assert resembles(crops, crops[3:5]).tolist() == [
        i in (3, 4) for i in range(len(crops))
    ]
    assert not resembles(crops, crops[:0]).any()


def test_a_chain_is_one_group() -> None:
    groups = Groups(7)
    groups.join(0, np.array([4]))
    groups.join(5, np.array([1]))
    groups.join(5, np.array([4, 5]))
    groups.join(6, np.array([3]))
    assert groups.firsts() == [0, 0, 2, 3, 0, 0, 3]


@pytest.mark.parametrize(
    ("side", "edges"),
    [
        (48, range(4, 48, 4)),
        (64, [5, 10, 16, 21, 26, 32, 37, 42, 48, 53, 58]),
        (16, [1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14]),
    ],
)
def test_thumbnails_are_means_of_cells_whatever_the_size(
    side: int, edges: Sequence[int]
) -> None:
    ramp = np.broadcast_to(np.arange(side, dtype=np.uint8)[:, None], (side, side))
    (thumb,) = thumbnails(ramp[None, :, :, None]).reshape(-1, 12, 12)
    rows = [cell.mean() for cell in np.split(np.arange(side), edges)]
    assert thumb == pytest.approx(np.repeat(rows, 12).reshape(12, 12))
