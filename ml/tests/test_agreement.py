from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from ml.agreement import cohens_kappa, fleiss_kappa


@pytest.mark.parametrize("seed", range(5))
def test_cohens_kappa_is_that_of_scikit_learn(seed: int) -> None:
    generator = np.random.default_rng(seed)
    left = generator.integers(0, 6, 200)
    right = np.where(generator.random(200) < 0.6, left, generator.integers(0, 6, 200))

    assert cohens_kappa(left, right) == pytest.approx(
        cohen_kappa_score(left, right), abs=1e-6
    )


@pytest.mark.parametrize("seed", range(5))
def test_fleiss_of_two_raters_is_scikit_learns_kappa_of_both_orders(seed: int) -> None:
    """With two raters it is Scott's pi: Cohen's kappa where both share one margin."""
    generator = np.random.default_rng(seed)
    left = generator.integers(0, 6, 200)
    right = np.where(generator.random(200) < 0.6, left, generator.integers(0, 6, 200))
    table = np.eye(6, dtype=np.int64)[left] + np.eye(6, dtype=np.int64)[right]
    both = np.concatenate([left, right]), np.concatenate([right, left])

    assert fleiss_kappa(table) == pytest.approx(cohen_kappa_score(*both), abs=1e-6)


def test_fleiss_kappa_of_a_worked_example() -> None:
    """Ten subjects, fourteen raters, five categories: 0.210 by hand."""
    table = np.array(
        [
            [0, 0, 0, 0, 14],
            [0, 2, 6, 4, 2],
            [0, 0, 3, 5, 6],
            [0, 3, 9, 2, 0],
            [2, 2, 8, 1, 1],
            [7, 7, 0, 0, 0],
            [3, 2, 6, 3, 0],
            [2, 5, 3, 2, 2],
            [6, 5, 2, 1, 0],
            [0, 2, 2, 3, 7],
        ]
    )

    assert fleiss_kappa(table) == pytest.approx(0.210, abs=5e-4)


def test_faces_with_one_vote_say_nothing_of_agreement() -> None:
    table = np.array([[2, 0], [0, 2], [1, 1], [1, 0], [0, 0]])

    assert fleiss_kappa(table) == fleiss_kappa(table[:3])


def test_kappa_is_unknown_where_chance_always_agrees() -> None:
    same = np.zeros(5, np.int64)

    assert cohens_kappa(same, same) is None
    assert cohens_kappa(same[:0], same[:0]) is None
    assert fleiss_kappa(np.array([[2, 0], [3, 0]])) is None
    assert fleiss_kappa(np.array([[1, 0]])) is None
