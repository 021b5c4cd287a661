"""How good is a model: metrics with intervals. NumPy alone; never imports torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ml.consensus import NO_LABEL, strict_majority
from ml.data import FaceSet, LabelSource
from ml.inference import MAX_BATCH, EmotionClassifier, softmax
from ml.intervals import wilson_interval
from ml.labels import EMOTIONS

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

CALIBRATION_BINS: Final = 15
BOOTSTRAP_ROUNDS: Final = 1000


@dataclass(frozen=True, slots=True)
class ClassReport:
    """One emotion's figures, in [0, 1]; ``support`` counts its faces."""

    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True, slots=True)
class EvalReport:
    """What was measured on N faces.

    ``confusion[i][j]`` counts faces of emotion i read as j. ``coverage`` is the
    share that is not "not sure", ``covered_accuracy`` the accuracy on it (None where
    it is sure of nothing), ``ece`` the expected calibration error. Intervals hold with
    95 %: Wilson's for accuracies, a seeded bootstrap for the macro F1.
    """

    n: int
    accuracy: float
    macro_f1: float
    per_class: dict[str, ClassReport]
    confusion: tuple[tuple[int, ...], ...]
    ece: float
    coverage: float
    covered_accuracy: float | None
    surest_85_accuracy: float
    accuracy_interval: tuple[float, float]
    macro_f1_interval: tuple[float, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, floats to six places."""
        return {
            "n": self.n,
            "accuracy": _rounded(self.accuracy),
            "macro_f1": _rounded(self.macro_f1),
            "per_class": {
                name: {
                    "precision": _rounded(report.precision),
                    "recall": _rounded(report.recall),
                    "f1": _rounded(report.f1),
                    "support": report.support,
                }
                for name, report in self.per_class.items()
            },
            "confusion": [list(row) for row in self.confusion],
            "ece": _rounded(self.ece),
            "coverage": _rounded(self.coverage),
            "covered_accuracy": None
            if self.covered_accuracy is None
            else _rounded(self.covered_accuracy),
            "surest_85_accuracy": _rounded(self.surest_85_accuracy),
            "intervals": {
                "level": 0.95,
                "accuracy": [_rounded(value) for value in self.accuracy_interval],
                "macro_f1": [_rounded(value) for value in self.macro_f1_interval],
            },
        }


def evaluate_probabilities(
    probabilities: Float64Array, labels: IntArray, not_sure_below: float = 0.0
) -> EvalReport:
    """``probabilities`` (N, 4), ``labels`` (N,) indices into ``EMOTIONS``; N > 0."""
    if len(labels) == 0:
        raise ValueError("there is no face with a label to evaluate on")
    predicted = probabilities.argmax(axis=1)
    confidence = probabilities.max(axis=1)
    correct = predicted == labels
    confusion = confusion_matrix(labels, predicted)
    sure = confidence >= not_sure_below
    surest = np.argsort(-confidence, kind="stable")[: math.ceil(0.85 * len(labels))]
    return EvalReport(
        n=len(labels),
        accuracy=float(correct.mean()),
        macro_f1=macro_f1(confusion),
        per_class=_per_class(confusion),
        confusion=tuple(tuple(int(value) for value in row) for row in confusion),
        ece=expected_calibration_error(confidence, correct),
        coverage=float(sure.mean()),
        covered_accuracy=float(correct[sure].mean()) if sure.any() else None,
        surest_85_accuracy=float(correct[surest].mean()),
        accuracy_interval=wilson_interval(int(correct.sum()), len(labels)),
        macro_f1_interval=_bootstrap_macro_f1(labels, predicted),
    )


def evaluate_model(
    classifier: EmotionClassifier, faces: FaceSet, source: LabelSource
) -> EvalReport:
    """Judge a model on the faces that have a label of that source."""
    labelled = faces.take(faces.labels(source) != NO_LABEL)
    if len(labelled) == 0:
        raise ValueError(f"no face has a {source} label")
    return evaluate_probabilities(
        probabilities_of(classifier, labelled.crops),
        labelled.labels(source),
        classifier.manifest.calibration.not_sure_below,
    )


def probabilities_of(
    classifier: EmotionClassifier,
    crops: npt.NDArray[np.uint8],
    advance: Callable[[], None] | None = None,
) -> Float64Array:
    """Calibrated (N, 4) of many faces; ``advance`` as of ``read_set``."""
    logits = read_set(classifier, crops, advance)
    return softmax(logits, classifier.manifest.calibration.temperature)


def one_person_accuracy(votes: IntArray) -> float:
    """How often one person's vote is the strict majority of the others', in [0, 1].

    ``votes`` (N, K) of faces that have a consensus; every vote is once the one that
    is judged. NaN where nobody agrees with anybody.
    """
    hits, judged = 0, 0
    for column in range(votes.shape[1]):
        others = votes.copy()
        others[:, column] = np.maximum(others[:, column] - 1, 0)
        majority = strict_majority(others)
        cast = np.where(majority != NO_LABEL, votes[:, column], 0)
        judged += int(cast.sum())
        hits += int(cast[majority == column].sum())
    return hits / judged if judged else math.nan


def read_set(
    classifier: EmotionClassifier,
    crops: npt.NDArray[np.uint8],
    advance: Callable[[], None] | None = None,
) -> Float32Array:
    """Logits (N, 4) of many faces; ``advance`` is called once a face.

    In parts: the feature maps of 200,000 faces would fill the memory.
    """
    logits = np.empty((len(crops), len(EMOTIONS)), np.float32)
    for start in range(0, len(crops), MAX_BATCH):
        part = slice(start, min(start + MAX_BATCH, len(crops)))
        logits[part] = classifier.read_crops(crops[part]).logits
        if advance:
            for _ in range(part.start, part.stop):
                advance()
    return logits


def confusion_matrix(labels: IntArray, predicted: npt.NDArray[Any]) -> IntArray:
    """(4, 4); rows are the truth, columns what was read."""
    size = len(EMOTIONS)
    counts = np.bincount(labels * size + predicted, minlength=size * size)
    return counts.reshape(size, size).astype(np.int64)


def macro_f1(confusion: IntArray) -> float:
    """Mean F1 of the emotions that occur in truth or reading."""
    occurring = (confusion.sum(axis=0) + confusion.sum(axis=1)) > 0
    return float(_f1(confusion)[occurring].mean())


def calibration_bins(confidence: npt.NDArray[np.floating]) -> IntArray:
    """Of each confidence in [0, 1] its bin, of ``CALIBRATION_BINS`` equal ones."""
    return np.minimum(
        (confidence * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1
    )


def expected_calibration_error(
    confidence: Float64Array, correct: npt.NDArray[np.bool_]
) -> float:
    """Mean distance of confidence from accuracy over 15 equal bins, in [0, 1].

    Guo et al., "On Calibration of Modern Neural Networks", 2017.
    """
    bins = calibration_bins(confidence)
    gaps = np.bincount(bins, confidence - correct, CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / len(confidence))


def _bootstrap_macro_f1(
    labels: IntArray, predicted: npt.NDArray[Any], seed: int = 0
) -> tuple[float, float]:
    """95 % percentile interval. Draws confusion matrices instead of faces, which
    is the same thing and a thousand times faster."""
    confusion = confusion_matrix(labels, predicted)
    n = int(confusion.sum())
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(n, (confusion / n).ravel(), BOOTSTRAP_ROUNDS)
    size = len(EMOTIONS)
    values = [macro_f1(row.reshape(size, size)) for row in drawn]
    low, high = np.percentile(values, [2.5, 97.5])
    return (float(low), float(high))


def _f1(confusion: IntArray) -> Float64Array:
    hits = np.diag(confusion).astype(np.float64)
    total = confusion.sum(axis=0) + confusion.sum(axis=1)
    return np.asarray(2 * hits / np.maximum(total, 1))


def _per_class(confusion: IntArray) -> dict[str, ClassReport]:
    hits = np.diag(confusion)
    read, true = confusion.sum(axis=0), confusion.sum(axis=1)
    f1 = _f1(confusion)
    return {
        emotion.value: ClassReport(
            precision=float(hits[i] / max(read[i], 1)),
            recall=float(hits[i] / max(true[i], 1)),
            f1=float(f1[i]),
            support=int(true[i]),
        )
        for i, emotion in enumerate(EMOTIONS)
    }


def _rounded(value: float) -> float:
    return round(value, 6)
