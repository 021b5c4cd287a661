"""Which labels are probably wrong, and how well that is known.

By people's votes where there are any, else by what a model expects (Northcutt et al.,
"Confident Learning", 2021; the package cleanlab), best of faces that it was not fitted
on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from ml.consensus import (
    MIN_EMOTION_SHARE,
    NO_LABEL,
    OTHER_VOTES,
    VOTE_COLUMNS,
    strict_majority,
)
from ml.data import SPLITS, Layout, Progress, Split, read_annotations
from ml.evaluate import probabilities_of
from ml.findings import CleaningResult, Finding, Judge, Kind
from ml.inference import EmotionClassifier
from ml.labels import EMOTIONS

UInt8Array = npt.NDArray[np.uint8]
IntArray = npt.NDArray[np.int64]
Float64Array = npt.NDArray[np.float64]

FOLDS: Final = 5
_MIN_FACES_FOR_FOLDS: Final = 40

_SEEN: Final = {"unknown": "something unknown", "not_a_face": "no face"}
_SEEN_WORDS: Final = (*EMOTIONS, *(_SEEN.get(word, word) for word in OTHER_VOTES))
"""What a vote says its person sees, in ``VOTE_COLUMNS`` order."""


def votes_of(layout: Layout, files: Sequence[str]) -> IntArray | None:
    """(N, 10), zeros where nobody voted; None without annotations of any file."""
    if layout.annotations is None:
        return None
    by_file = read_annotations(layout.annotations)
    if not any(file in by_file for file in files):
        return None
    nobody = (0,) * len(VOTE_COLUMNS)
    return np.array([by_file.get(file, nobody) for file in files], np.int64)


def enough_for_folds(labels: IntArray, groups: IntArray) -> bool:
    apart = [len(np.unique(groups[labels == i])) for i in range(len(EMOTIONS))]
    return len(labels) >= _MIN_FACES_FOR_FOLDS and min(apart) >= FOLDS


def expected_answers(
    classifier: EmotionClassifier,
    crops: UInt8Array,
    labels: IntArray,
    groups: IntArray,
    judge: Judge,
    progress: Progress | None,
) -> Float64Array:
    """(N, 4) probabilities by ``judge``: heads that were not fitted on the face itself,
    or the model, which may have learned it."""
    if judge == "model":
        advance = progress("Reading faces", len(crops)) if progress else None
        return probabilities_of(classifier, crops, advance)
    return _out_of_fold(classifier.features(crops), labels, groups, progress)


def _out_of_fold(
    features: npt.NDArray[np.floating],
    labels: IntArray,
    groups: IntArray,
    progress: Progress | None,
) -> Float64Array:
    """Heads on features, near-duplicates kept in one fold."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    advance = progress("Fitting heads", FOLDS) if progress else None
    probabilities = np.full((len(labels), len(EMOTIONS)), 1 / len(EMOTIONS))
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
    for fitted, judged in folds.split(features, labels, groups):
        head = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))
        head.fit(features[fitted], labels[fitted])
        columns = head.classes_.astype(int)
        probabilities[judged] = 0
        probabilities[np.ix_(judged, columns)] = head.predict_proba(features[judged])
        if advance:
            advance()
    return probabilities


def enough_to_judge(labels: IntArray) -> bool:
    """What is usual for an emotion is learned from the labels themselves."""
    return len(np.unique(labels)) == len(EMOTIONS)


def judge_labels(
    files: Sequence[str],
    labels: IntArray,
    unvoted: IntArray,
    probabilities: Float64Array,
    shares: Float64Array,
    reasons: dict[int, list[str]],
) -> list[Finding]:
    """Without votes: confident learning decides which labels are suspect.

    ``unvoted`` (M,) are the places of those that it judges, enough of them, and
    ``probabilities`` (M, 4) what is expected there. Enters shares and reasons in place.
    """
    from cleanlab.filter import find_label_issues

    findings: list[Finding] = []
    suspects = find_label_issues(
        labels[unvoted], probabilities, filter_by="prune_by_noise_rate", n_jobs=1
    )
    for i, odds in zip(
        unvoted[suspects].tolist(), probabilities[suspects], strict=True
    ):
        own, expected = int(labels[i]), int(odds.argmax())
        if expected == own:
            continue
        shares[i] = odds
        reasons[i].append(Kind.SUSPECT_LABEL.value)
        detail = (
            f"filed under {EMOTIONS[own]} ({odds[own]:.2f}), "
            f"expected {EMOTIONS[expected]} ({odds[expected]:.2f})"
        )
        findings.append(Finding(files[i], Kind.SUSPECT_LABEL, detail))
    return findings


def judge_by_votes(
    files: Sequence[str],
    labels: IntArray,
    votes: IntArray,
    shares: Float64Array,
    weights: Float64Array,
    reasons: dict[int, list[str]],
) -> list[Finding]:
    """What people who voted on a face see counts. Enters shares, weights and reasons in
    place."""
    findings: list[Finding] = []
    majority = strict_majority(votes)
    emotions = votes[:, : len(EMOTIONS)]
    elsewhere = votes[:, len(EMOTIONS) :].max(axis=1)
    total = votes.sum(axis=1)
    for i in np.flatnonzero(total > 0).tolist():
        own, most = int(labels[i]), int(emotions[i].argmax())
        share = emotions[i].sum() / total[i]
        kind: Kind | None = None
        if share < MIN_EMOTION_SHARE or 2 * elsewhere[i] > total[i]:
            kind = Kind.VOTES_ELSEWHERE
        elif majority[i] not in (NO_LABEL, own):
            kind = Kind.VOTES_DISAGREE
        if kind is not None:
            reasons[i].append(kind.value)
            detail = f"filed under {EMOTIONS[own]}, {_seen(votes[i])}"
            findings.append(Finding(files[i], kind, detail))
        if share < MIN_EMOTION_SHARE:
            weights[i] = 0.0
            continue
        shares[i] = emotions[i] / emotions[i].sum()
        weights[i] = share
        if majority[i] == NO_LABEL and emotions[i, most] > emotions[i, own]:
            # Not what most people see, and yet the face now counts as another emotion.
            reasons[i].append(f"more see {EMOTIONS[most]} than {EMOTIONS[own]}")
    return findings


def _seen(votes: IntArray) -> str:
    """One face's votes (10,) in words, the most frequent first."""
    first, *others = [k for k in np.argsort(-votes, kind="stable") if votes[k]]
    most = f"{votes[first]} of {votes.sum()} see {_SEEN_WORDS[first]}"
    return ", ".join([most, *(f"{votes[k]} {_SEEN_WORDS[k]}" for k in others)])


@dataclass(frozen=True, slots=True)
class SuspicionMeasure:
    """How well suspicion finds what the votes call wrong, on the faces of one split
    that have a majority. Shares in [0, 1]; NaN where there is nothing to divide by.
    """

    faces: int
    wrong: int
    auroc: float
    precision_of_first_500: float
    suspects: int
    precision: float
    recall: float


def measure_suspicion(
    result: CleaningResult, layout: Layout
) -> dict[Split, SuspicionMeasure]:
    """Judge a cleaning that did not look at the votes by them; empty where there are
    none, or nobody judged. Raises ``DataError``."""
    from sklearn.metrics import roc_auc_score

    votes = votes_of(layout, result.faces.files)
    if votes is None or result.judge is None:
        return {}
    majority = strict_majority(votes)
    named = {f.file for f in result.findings if f.finding is Kind.SUSPECT_LABEL}
    suspect = np.array([file in named for file in result.faces.files])
    splits = np.array(result.splits)
    measures: dict[Split, SuspicionMeasure] = {}
    for split in SPLITS:
        here = (splits == split) & (majority != NO_LABEL)
        wrong = majority[here] != result.faces.folder_labels[here]
        suspicion, called = result.suspicion[here], suspect[here]
        first = np.argsort(-suspicion, kind="stable")[:500]
        both = wrong.any() and not wrong.all()
        measures[split] = SuspicionMeasure(
            faces=int(here.sum()),
            wrong=int(wrong.sum()),
            auroc=float(roc_auc_score(wrong, suspicion)) if both else math.nan,
            precision_of_first_500=float(wrong[first].mean())
            if len(first)
            else math.nan,
            suspects=int(called.sum()),
            precision=_mean(wrong[called]),
            recall=_mean(called[wrong]),
        )
    return measures


def _mean(values: npt.NDArray[np.bool_]) -> float:
    return float(values.mean()) if len(values) else math.nan
