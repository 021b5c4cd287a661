"""A candidate is held against the champion, on faces that neither learned from."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ml.evaluate import EvalReport, evaluate_probabilities
from ml.gate import (
    Answers,
    Decision,
    Finding,
    GateRules,
    Outcome,
    PairedChange,
    is_right,
    judge,
    paired_change,
)
from ml.inference import EmotionClassifier, softmax
from webapp.training.errors import CannotCompare
from webapp.training.services.snapshots import EVALUATION_SHARE

Float64Array = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]
UInt8Array = npt.NDArray[np.uint8]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

FROZEN: Final = "the frozen evaluation set"
HOLD_OUT: Final = "the curated hold-out"
_TIMED_FACES: Final = 8
_TIMED_ROUNDS: Final = 9


@dataclass(frozen=True, slots=True)
class JudgedFaces:
    """N faces with labels (N,) that judge. Their pixels, uint8 (N, S, S, C), or what
    bodies make of them, float32 (N, C) by the body's SHA-256, or both; ``slices`` are
    masks (N,)."""

    labels: IntArray
    crops: UInt8Array | None = None
    features: Mapping[str, Float32Array] = field(default_factory=dict)
    slices: Mapping[str, BoolArray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The gate's decision with what was measured, ready for ``TrainingRun``.

    ``champion`` and ``candidate`` are the answers on the curated hold-out, (N, 4).
    """

    decision: Decision
    notes: tuple[str, ...]
    report: dict[str, Any]
    champion: Float64Array
    candidate: Float64Array

    def to_dict(self) -> dict[str, Any]:
        """``TrainingRun.decision``: what stands in the way first."""
        order = list(Outcome)
        findings = sorted(self.decision.findings, key=lambda f: -order.index(f.outcome))
        return {
            "outcome": self.decision.outcome.value,
            "findings": [
                {
                    "outcome": finding.outcome.value,
                    "reason": finding.reason,
                    "more_labels": finding.more_labels,
                }
                for finding in findings
            ],
            "notes": list(self.notes),
            "more_labels": self.decision.more_labels,
        }


def compare(
    *,
    champion: EmotionClassifier,
    candidate: EmotionClassifier,
    base: JudgedFaces,
    curated: JudgedFaces,
    rules: GateRules | None = None,
) -> Verdict:
    """Judge a candidate on the base's evaluation faces and on the curated hold-out.

    Both together are the frozen evaluation set. The hold-out is judged by itself,
    too, once it is large enough; until then, and for each slice of it, only what is
    clearly worse counts against the candidate. Raises ``CannotCompare``.
    """
    rules = rules or GateRules(judging_share=EVALUATION_SHARE)
    said = [_answers_of_both(champion, candidate, faces) for faces in (base, curated)]
    labels = np.concatenate([base.labels, curated.labels])
    before, after = (np.concatenate(parts) for parts in zip(*said, strict=True))
    frozen = Answers(FROZEN, labels, before, after)
    hold_out = Answers(HOLD_OUT, curated.labels, *said[1])
    latency = measure_latency(champion, candidate)
    sets = [frozen]
    notes: list[str] = []
    if len(curated) >= rules.least_faces:
        sets.append(hold_out)
    else:
        missing = rules.least_faces - len(curated)
        notes.append(
            f"{HOLD_OUT[0].upper()}{HOLD_OUT[1:]} has {len(curated)} faces, too few to "
            f"be judged by themselves: they count within {FROZEN}. One label of "
            f"visitors' photos in {round(1 / rules.judging_share)} is held out, so "
            f"about {rules.labels_for(missing)} more of them would do."
        )
    decision = judge(sets, latency_ratio=latency["ratio"], rules=rules)
    slices = [_slice(name, mask, hold_out) for name, mask in curated.slices.items()]
    slices += [_slice(name, mask, frozen, base) for name, mask in base.slices.items()]
    harmed = [] if len(sets) > 1 else [_harm(HOLD_OUT, hold_out, rules)]
    harmed += [_harm_of_slice(row, rules) for row in slices]
    findings = (*decision.findings, *(found for found in harmed if found))
    return Verdict(
        decision=Decision(findings),
        notes=tuple(notes),
        report={
            "sets": [
                _measured(answers, champion, candidate)
                for answers in (frozen, hold_out)
                if len(answers.labels)
            ],
            "slices": slices,
            "latency": latency,
        },
        champion=said[1][0],
        candidate=said[1][1],
    )


def _answers_of_both(
    champion: EmotionClassifier, candidate: EmotionClassifier, faces: JudgedFaces
) -> tuple[Float64Array, Float64Array]:
    """``answers_of`` each; a body that they share looks at the faces once."""
    seen = features_of(champion, faces)
    if _share_body(champion, candidate):
        return probabilities(champion, seen), probabilities(candidate, seen)
    return probabilities(champion, seen), answers_of(candidate, faces)


def _share_body(left: EmotionClassifier, right: EmotionClassifier) -> bool:
    return left.manifest.body_sha256 == right.manifest.body_sha256


def answers_of(classifier: EmotionClassifier, faces: JudgedFaces) -> Float64Array:
    """Calibrated probabilities (N, 4); what is no number stays none, for the gate to
    see. Raises ``CannotCompare``."""
    return probabilities(classifier, features_of(classifier, faces))


def features_of(classifier: EmotionClassifier, faces: JudgedFaces) -> Float32Array:
    """What the version's head sees of the faces, (N, C). Raises ``CannotCompare``
    where neither their pixels nor the features of that body are there."""
    body = classifier.manifest.body_sha256
    if body in faces.features:
        return faces.features[body]
    if faces.crops is not None:
        return classifier.features(faces.crops)
    raise CannotCompare(
        f"Version {classifier.manifest.version} has another network than the features "
        "that judge come from, and their pictures are not here. Set FER_DATASET_DIR to "
        "the folder of the data set, so that both can be asked about its faces."
    )


def probabilities(
    classifier: EmotionClassifier, features: Float32Array
) -> Float64Array:
    """Head and calibration over features (N, C)."""
    with np.errstate(all="ignore"):
        logits = (
            features.astype(np.float64) @ classifier.head_weight.T.astype(np.float64)
            + classifier.head_bias
        )
        if not len(logits):
            return np.zeros((0, len(classifier.head_bias)), np.float64)
        return softmax(logits, classifier.manifest.calibration.temperature)


def measure_latency(
    champion: EmotionClassifier, candidate: EmotionClassifier
) -> dict[str, float]:
    """Milliseconds a face, each version's quickest of several turns, one after the
    other. Versions that share their body do the same sums: no stopwatch is asked."""
    if _share_body(champion, candidate):
        first = _milliseconds([champion])[0]
        return {"champion_ms": first, "candidate_ms": first, "ratio": 1.0}
    before, after = _milliseconds([champion, candidate])
    return {
        "champion_ms": before,
        "candidate_ms": after,
        "ratio": round(after / before, 3),
    }


def _milliseconds(classifiers: Sequence[EmotionClassifier]) -> list[float]:
    generator = np.random.default_rng(0)
    best = [float("inf")] * len(classifiers)
    for _ in range(_TIMED_ROUNDS):
        for i, classifier in enumerate(classifiers):
            spec = classifier.manifest.input
            shape = (_TIMED_FACES, spec.size_px, spec.size_px, spec.channels)
            crops = generator.integers(0, 256, shape, np.uint8)
            started_at = time.perf_counter()
            classifier.features(crops)
            best[i] = min(best[i], time.perf_counter() - started_at)
    return [round(1000 * seconds / _TIMED_FACES, 4) for seconds in best]


def _measured(
    answers: Answers, champion: EmotionClassifier, candidate: EmotionClassifier
) -> dict[str, Any]:
    change = paired_change(
        is_right(answers.champion, answers.labels),
        is_right(answers.candidate, answers.labels),
    )
    low, high = change.interval
    return {
        "name": answers.name,
        "faces": change.n,
        "champion": _report(answers.champion, answers.labels, champion),
        "candidate": _report(answers.candidate, answers.labels, candidate),
        "change": round(change.change, 6),
        "interval": [round(low, 6), round(high, 6)],
        "fixed": change.fixed,
        "broken": change.broken,
    }


def _report(
    said: npt.NDArray[np.floating], labels: IntArray, classifier: EmotionClassifier
) -> dict[str, Any] | None:
    """None where the answers are no numbers: there is nothing to measure then."""
    values = np.asarray(said, np.float64)
    if not np.isfinite(values).all():
        return None
    report: EvalReport = evaluate_probabilities(
        values, labels, classifier.manifest.calibration.not_sure_below
    )
    return report.to_dict()


def _slice(
    name: str, mask: BoolArray, answers: Answers, leading: JudgedFaces | None = None
) -> dict[str, Any]:
    """``mask`` is over the answers, or over the first of them."""
    rows = np.zeros(len(answers.labels), bool)
    rows[: len(leading) if leading is not None else None] = mask
    labels = answers.labels[rows]
    before = is_right(answers.champion[rows], labels)
    after = is_right(answers.candidate[rows], labels)
    change = paired_change(before, after)
    return {
        "name": name,
        "faces": change.n,
        "champion": round(float(before.mean()), 6) if change.n else None,
        "candidate": round(float(after.mean()), 6) if change.n else None,
        "fixed": change.fixed,
        "broken": change.broken,
    }


def _harm_of_slice(row: dict[str, Any], rules: GateRules) -> Finding | None:
    return _harmed(row["name"], row["faces"], row["fixed"], row["broken"], rules)


def _harm(name: str, answers: Answers, rules: GateRules) -> Finding | None:
    change = paired_change(
        is_right(answers.champion, answers.labels),
        is_right(answers.candidate, answers.labels),
    )
    return _harmed(name, change.n, change.fixed, change.broken, rules)


def _harmed(
    name: str, faces: int, fixed: int, broken: int, rules: GateRules
) -> Finding | None:
    """Few faces cannot show that a candidate is good, but they can show harm."""
    if faces < rules.least_support:
        return None
    if PairedChange(faces, fixed, broken).interval[1] >= -rules.recall_margin:
        return None
    return Finding(
        Outcome.REJECT,
        f"Worse: {name}, {fixed} fixed and {broken} broken of {faces} faces.",
    )
