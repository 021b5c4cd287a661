"""What the simulations of curation share: the data, the votes, the order."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from benchmarks.report import DOCS
from ml.consensus import NO_LABEL, VERDICTS, VOTE_COLUMNS
from ml.data import FaceSet, Split, find_layout, load_split
from ml.inference import EmotionClassifier
from webapp.curation.order import ORDERS, Signals

IntArray = npt.NDArray[np.int64]
Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]

REPORT: Final = DOCS / "curation.md"
_BATCH: Final = 256


FLAGGED_WRONG, FLAGGED_RIGHT = 0.25, 0.01
"""Shares of the faces on which a visitor says something, by whether the model errs."""


def arguments(description: str) -> argparse.Namespace:
    """``--data`` (or ``FER_DATASET_DIR``) and ``--write``."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--data",
        type=Path,
        default=os.environ.get("FER_DATASET_DIR"),
        help="the folder of the data set, with annotations.csv",
    )
    parser.add_argument(
        "--write", action="store_true", help="put figures and numbers into docs/"
    )
    given = parser.parse_args()
    if given.data is None:
        parser.error("give --data DIR, or set FER_DATASET_DIR")
    return given


def load(data: Path, split: Split, classifier: EmotionClassifier) -> FaceSet:
    """A split with the votes of its faces, those of other expressions included."""
    faces = load_split(
        find_layout(data), split, classifier.manifest.input, with_others=True
    )
    if faces.votes is None:
        raise SystemExit("The simulations need the votes of annotations.csv.")
    return faces


def verdict_votes(votes: IntArray) -> IntArray:
    """(N, 10) votes in ``VOTE_COLUMNS`` order -> (N, 6) in ``VERDICTS`` order.

    Whoever saw another expression, or could not say, would have pressed `unclear`.
    """
    unclear = [
        index
        for index, word in enumerate(VOTE_COLUMNS)
        if index >= 4 and word != "not_a_face"
    ]
    out = np.zeros((len(votes), len(VERDICTS)), np.int64)
    out[:, :4] = votes[:, :4]
    out[:, 4] = votes[:, unclear].sum(axis=1)
    out[:, 5] = votes[:, VOTE_COLUMNS.index("not_a_face")]
    return out


def majority(tallies: IntArray) -> IntArray:
    """Index into ``VERDICTS`` where over half of the votes agree, else ``NO_LABEL``."""
    most = tallies.max(axis=1)
    won = 2 * most > tallies.sum(axis=1)
    return np.where(won, tallies.argmax(axis=1), NO_LABEL)


def features_of(classifier: EmotionClassifier, faces: FaceSet) -> Float64Array:
    """(N, C): what the head of the model looks at."""
    parts = [
        classifier.read_crops(faces.crops[start : start + _BATCH]).feature_map.mean(
            axis=(2, 3)
        )
        for start in range(0, len(faces), _BATCH)
    ]
    return np.concatenate(parts).astype(np.float64)


def probabilities_of(classifier: EmotionClassifier, faces: FaceSet) -> Float64Array:
    """(N, 4): what the model says."""
    rows = [
        scores.probabilities
        for start in range(0, len(faces), _BATCH)
        for scores in classifier.read_crops(faces.crops[start : start + _BATCH]).scores
    ]
    return np.array(rows)


def in_order(
    name: str,
    probabilities: Float64Array | Float32Array,
    wrong: npt.NDArray[np.bool_],
    drawn: Float64Array,
    chance: Float64Array,
) -> list[float]:
    """What an order of the queue makes of (N, 4) answers, ``wrong`` (N,) or not.

    ``drawn`` (N,), in [0, 1), decides who is flagged; ``chance`` (N,) is the order's.
    """
    flagged = drawn < np.where(wrong, FLAGGED_WRONG, FLAGGED_RIGHT)
    return [
        ORDERS[name](
            Signals(
                reason="flag" if flag else "suspect",
                probabilities=tuple(row),
                votes=0,
                flags=int(flag),
                chance=float(luck),
            )
        )
        for row, flag, luck in zip(probabilities, flagged, chance, strict=True)
    ]
