from __future__ import annotations

import numpy as np
import pytest

from ml.duplicates import MAX_DIFFERENCE, near_duplicates, thumbnails
from ml.tests.faces import draw_set


def test_pairs_are_those_that_comparing_all_would_find() -> None:
    generator = np.random.default_rng(0)
    crops = draw_set(10).crops
    shaken = crops.astype(np.int64) + generator.integers(-2, 3, crops.shape)
    thumbs = thumbnails(np.concatenate([crops, shaken.clip(0, 255).astype(np.uint8)]))
    pairs, differences = near_duplicates(thumbs)
    whole = np.abs(thumbs[:, None] - thumbs[None]).mean(axis=2)
    wanted = {
        (i, j)
        for i in range(len(thumbs))
        for j in range(i + 1, len(thumbs))
        if whole[i, j] < MAX_DIFFERENCE
    }
    assert {tuple(pair) for pair in pairs.tolist()} == wanted
    assert {(i, i + 40) for i in range(40)} <= wanted
    assert (differences < MAX_DIFFERENCE).all()


def test_two_sets_are_compared_with_one_another_alone() -> None:
    thumbs = thumbnails(draw_set(2).crops)
    twice = np.concatenate([thumbs[:1], thumbs[:1]])
    pairs, _ = near_duplicates(twice, thumbs[:1])
    assert pairs.tolist() == [[0, 0], [1, 0]]


def test_odd_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="do not divide"):
        thumbnails(np.zeros((1, 50, 50, 1), np.uint8))
