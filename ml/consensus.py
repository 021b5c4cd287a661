"""Votes of several people -> a label, soft labels, agreement. Pure."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from ml.labels import EMOTIONS

IntArray = npt.NDArray[np.int64]
Float32Array = npt.NDArray[np.float32]

NO_LABEL: Final = -1
"""Stands where no emotion has a majority."""

EMOTION_VOTES: Final = ("happiness", "sadness", "surprise", "neutral")
"""The annotators' words for ``EMOTIONS``, in that order."""

OTHER_VOTES: Final = ("anger", "disgust", "fear", "contempt", "unknown", "not_a_face")
"""What people may see beside the four; known in training, never predicted."""

VOTE_COLUMNS: Final = EMOTION_VOTES + OTHER_VOTES


def strict_majority(votes: IntArray) -> IntArray:
    """Index into ``EMOTIONS`` where over half of all votes agree, else ``NO_LABEL``.

    ``votes`` is (N, K), its first four columns in ``EMOTIONS`` order; the votes of
    all K columns count as cast.
    """
    emotions = votes[:, : len(EMOTIONS)]
    won = emotions.max(axis=1) * 2 > votes.sum(axis=1)
    return np.where(won, emotions.argmax(axis=1), NO_LABEL).astype(np.int64)


def soft_labels(votes: IntArray) -> Float32Array:
    """(N, K) votes -> shares, rows sum to 1; a row without votes is uniform."""
    total = votes.sum(axis=1, keepdims=True)
    uniform = np.full(votes.shape, 1 / votes.shape[1])
    shares = np.where(total > 0, votes / np.maximum(total, 1), uniform)
    return shares.astype(np.float32)


def agreement(votes: IntArray) -> Float32Array:
    """Share of all votes that the most voted of the four emotions has, in [0, 1]."""
    most = votes[:, : len(EMOTIONS)].max(axis=1)
    cast = np.maximum(votes.sum(axis=1), 1)
    return np.asarray(most / cast, np.float32)
