"""Votes of several people -> a label, soft labels, agreement. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from ml.labels import EMOTIONS

IntArray = npt.NDArray[np.int64]
Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]

NO_LABEL: Final = -1
"""Stands where no emotion has a majority."""

EMOTION_VOTES: Final = ("happiness", "sadness", "surprise", "neutral")
"""The annotators' words for ``EMOTIONS``, in that order."""

OTHER_VOTES: Final = ("anger", "disgust", "fear", "contempt", "unknown", "not_a_face")
"""What people may see beside the four; known in training, never predicted."""

VOTE_COLUMNS: Final = EMOTION_VOTES + OTHER_VOTES

MIN_EMOTION_SHARE: Final = 0.3
"""Where a smaller share of the votes fell on the four emotions, cleaning leaves the
face out, and so does the sample that heads are refitted on. Training on votes takes it:
what else people saw is among what it aims at."""

VERDICTS: Final = (*(emotion.value for emotion in EMOTIONS), "unclear", "not_a_face")
"""What a person can say of a face, in the one order of every tally."""

FIRST_ASKED: Final = 2
THEN_ASKED: Final = 3
"""Two people are asked; where they disagree, a third; then it takes a judge."""

MIN_WEIGHED_PEOPLE: Final = 5
"""With fewer people their reliability cannot be told from chance: plain majority."""

MIN_FACES_TO_TRANSLATE: Final = 50
TRANSLATION_FOLDS: Final = 5
_EM_ROUNDS: Final = 30
_TRUST_AT_FIRST: Final = 2.0


@dataclass(frozen=True, slots=True)
class Decision:
    """What a tally of votes comes to.

    ``verdict`` is set where ``state`` is ``decided``; ``people_needed`` is how many
    should vote in all.
    """

    state: Literal["open", "decided", "disputed"]
    verdict: str | None
    people_needed: int


def decide(tally: Sequence[int]) -> Decision:
    """Two that agree decide, as long as they are the majority.

    ``tally`` counts the votes in ``VERDICTS`` order. One vote waits for a second,
    two that differ for a third; three or more without a majority are disputed.
    """
    if len(tally) != len(VERDICTS) or min(tally) < 0:
        raise ValueError(f"expected {len(VERDICTS)} counts from 0, got {list(tally)}")
    votes, most = sum(tally), max(tally)
    if most >= 2 and 2 * most > votes:
        return Decision("decided", VERDICTS[tally.index(most)], votes)
    if votes < FIRST_ASKED:
        return Decision("open", None, FIRST_ASKED)
    if votes < THEN_ASKED:
        return Decision("open", None, THEN_ASKED)
    return Decision("disputed", None, votes)


@dataclass(frozen=True, slots=True)
class WeightedConsensus:
    """Of N faces and A people: ``verdicts`` int64 (N,), indices into ``VERDICTS``;
    ``quality`` float64 (N,), how likely each is right; ``reliability`` float64 (A,),
    how far each person can be relied on; both in [0, 1]."""

    verdicts: IntArray
    quality: Float64Array
    reliability: Float64Array


def weigh_votes(
    votes: IntArray, probabilities: Float64Array | None
) -> WeightedConsensus:
    """Votes weighed by how reliable each person is, the model as one more voice.

    ``votes`` is (N, A), indices into ``VERDICTS`` or ``NO_LABEL``; every row and
    every column holds a vote. ``probabilities`` (N, 4) are the model's of the four
    emotions, translated into what people say (see ``_model_voice``).

    Expectation and maximisation take turns: how likely each verdict is for a face,
    and what each person says where it is the right one. Source: Dawid and Skene,
    "Maximum Likelihood Estimation of Observer Error-Rates Using the EM Algorithm",
    1979.
    """
    cast = votes != NO_LABEL
    if not (cast.any(axis=0).all() and cast.any(axis=1).all()):
        raise ValueError("every face and every person needs a vote")
    classes = range(len(VERDICTS))
    said = np.stack([votes == index for index in classes], axis=2).astype(np.float64)
    voice = np.log(_model_voice(votes, probabilities))
    tallies = said.sum(axis=1)
    belief = tallies / tallies.sum(axis=1, keepdims=True)
    for _ in range(_EM_ROUNDS):
        # Somebody of whom little is known is taken to be mostly right.
        habits = np.einsum("nk,nav->akv", belief, said)
        habits += _TRUST_AT_FIRST * np.eye(len(VERDICTS)) + 1 / len(VERDICTS)
        habits /= habits.sum(axis=2, keepdims=True)
        scores = voice + np.einsum("nav,akv->nk", said, np.log(habits))
        scores -= scores.max(axis=1, keepdims=True)
        belief = np.exp(scores)
        belief /= belief.sum(axis=1, keepdims=True)
    right = habits[:, classes, classes]
    return WeightedConsensus(
        belief.argmax(axis=1).astype(np.int64),
        belief.max(axis=1),
        right @ belief.mean(axis=0),
    )


def _model_voice(votes: IntArray, probabilities: Float64Array | None) -> Float64Array:
    """(N, 6): what people would say where the model says what it says.

    The model knows four words and people six, and it may be surer than it should be.
    So its answers are translated: a regression on its logits learns the most frequent
    verdict of the other faces, four fifths of them at a time. Without a model, or
    with too few faces to learn from, each verdict has its share among the votes.
    """
    # Heavy, and needed by a background task alone.
    from sklearn.linear_model import LogisticRegression

    counts = np.bincount(votes[votes != NO_LABEL], minlength=len(VERDICTS)) + 1.0
    out = np.tile(counts / counts.sum(), (len(votes), 1))
    if probabilities is None or len(votes) < MIN_FACES_TO_TRANSLATE:
        return out
    logits = np.log(np.clip(probabilities, 1e-4, 1))
    tallies = np.stack([(votes == i).sum(axis=1) for i in range(len(VERDICTS))], axis=1)
    said = tallies.argmax(axis=1)
    folds = np.random.default_rng(0).integers(0, TRANSLATION_FOLDS, len(votes))
    for fold in range(TRANSLATION_FOLDS):
        others, here = folds != fold, folds == fold
        if len(np.unique(said[others])) < 2:
            continue
        translator = LogisticRegression(max_iter=1000).fit(logits[others], said[others])
        learnt = np.zeros((int(here.sum()), len(VERDICTS)))
        learnt[:, translator.classes_] = translator.predict_proba(logits[here])
        # A verdict that was not seen in the other folds is rare, not impossible.
        out[here] = 0.99 * learnt + 0.01 * out[here]
    return out


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
