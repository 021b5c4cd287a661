"""Candidate against champion -> promote, hold or reject, with reasons. Pure.

Both answered the same faces, so they are compared pair by pair: only the faces on
which they differ say anything. Where these are too few to tell, the answer is
*hold*, and how many more labelled faces would settle it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from ml.evaluate import BOOTSTRAP_ROUNDS, expected_calibration_error
from ml.intervals import Z95
from ml.labels import EMOTIONS

Float64Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_MOST_MORE_LABELS: Final = 100_000


class Outcome(StrEnum):
    """From best to worst; several findings together are as good as the worst."""

    PROMOTE = "promote"
    HOLD = "hold"
    REJECT = "reject"


@dataclass(frozen=True, slots=True)
class GateRules:
    """What a candidate must keep to. Shares in [0, 1]; ``latency_ratio`` is
    candidate over champion.

    ``accuracy_margin``: the lower 95 % bound of the change in accuracy must lie
    above minus this. ``recall_margin``: no class may lose more recall.
    ``most_calibration_error``: where it is larger, it must lie within
    ``calibration_margin`` of the champion's.
    ``least_support``: a class with fewer faces cannot be judged. ``least_faces``:
    neither can a whole comparison. ``judging_share``: of the faces that are labelled
    from now on, and that may judge, so many do; the others train.
    """

    accuracy_margin: float = 0.01
    recall_margin: float = 0.03
    most_calibration_error: float = 0.05
    calibration_margin: float = 0.01
    most_latency_ratio: float = 1.2
    least_support: int = 20
    least_faces: int = 200
    judging_share: float = 1.0

    def labels_for(self, faces: int) -> int:
        """About how many labels bring so many faces that judge."""
        return math.ceil(faces / self.judging_share)


@dataclass(frozen=True, slots=True)
class Answers:
    """What both versions said of the same N labelled faces.

    ``labels`` (N,) in 0 to 3; ``champion`` and ``candidate`` (N, 4) calibrated
    probabilities. ``name`` is a word for the reasons ("the frozen evaluation set").
    """

    name: str
    labels: IntArray
    champion: npt.NDArray[np.floating]
    candidate: npt.NDArray[np.floating]

    def __post_init__(self) -> None:
        n = len(self.labels)
        for who, answers in (
            ("champion", self.champion),
            ("candidate", self.candidate),
        ):
            if answers.shape != (n, len(EMOTIONS)):
                raise ValueError(
                    f"{self.name}: {who} answered {answers.shape}, expected "
                    f"{(n, len(EMOTIONS))}"
                )
        if n and not (self.labels.min() >= 0 and self.labels.max() < len(EMOTIONS)):
            raise ValueError(f"{self.name}: labels must lie in 0 to 3")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. ``more_labels`` says, where the outcome is hold,
    about how many more labels would settle it, those that go into training included;
    None where that is not the matter."""

    outcome: Outcome
    reason: str
    more_labels: int | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """The gate's answer: the worst of its findings."""

    findings: tuple[Finding, ...] = field(default=())

    @property
    def outcome(self) -> Outcome:
        order = list(Outcome)
        worst = max((order.index(f.outcome) for f in self.findings), default=1)
        return order[worst]

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why, in words: what stands in the way first."""
        order = list(Outcome)
        ranked = sorted(self.findings, key=lambda f: -order.index(f.outcome))
        return tuple(finding.reason for finding in ranked)

    @property
    def more_labels(self) -> int | None:
        """About how many more labels would settle a hold, at the least: where they are
        all needed of one class, its finding says so. None where it is no hold, or no
        number would."""
        if self.outcome != Outcome.HOLD:
            return None
        held = [f.more_labels for f in self.findings if f.outcome == Outcome.HOLD]
        needed = [more for more in held if more is not None]
        return max(needed, default=None) if len(needed) == len(held) else None


@dataclass(frozen=True, slots=True)
class PairedChange:
    """Change of a share between two answers to the same N questions.

    ``fixed`` and ``broken`` count where only the candidate, and only the champion,
    was right. The interval holds with 95 %: Bonett and Price, "Adjusted Wald
    confidence interval for a difference of binomial proportions based on paired
    data", 2012. It keeps its promise with few pairs, and is never empty.
    """

    n: int
    fixed: int
    broken: int

    @property
    def change(self) -> float:
        return (self.fixed - self.broken) / self.n if self.n else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        if not self.n:
            return (-1.0, 1.0)
        gain, loss = self._adjusted()
        half = Z95 * math.sqrt((gain + loss - (gain - loss) ** 2) / (self.n + 2))
        middle = gain - loss
        return (max(-1.0, middle - half), min(1.0, middle + half))

    def faces_to_settle(self, margin: float) -> int | None:
        """How many faces in all would put ``-margin`` outside the interval, were
        the shares to stay as they are; None where no number would."""
        gain, loss = self._adjusted()
        distance = abs(gain - loss + margin)
        if distance == 0:
            return None
        needed = (Z95 / distance) ** 2 * (gain + loss - (gain - loss) ** 2)
        return math.ceil(needed) if needed <= _MOST_MORE_LABELS else None

    def _adjusted(self) -> tuple[float, float]:
        return (self.fixed + 1) / (self.n + 2), (self.broken + 1) / (self.n + 2)


def judge(
    comparisons: Sequence[Answers],
    *,
    latency_ratio: float,
    rules: GateRules | None = None,
) -> Decision:
    """Hold a candidate against the champion on one or more sets of faces.

    Never raises for what a candidate answers: NaN, a constant, rows that are no
    probabilities are reasons to reject it.
    """
    rules = rules or GateRules()
    findings = [_speed(latency_ratio, rules)]
    if not comparisons:
        findings.append(Finding(Outcome.HOLD, "There was nothing to compare on."))
    for answers in comparisons:
        broken = _degenerate(answers, rules)
        findings += [broken] if broken else _compare(answers, rules)
    return Decision(tuple(findings))


def paired_change(
    right_before: npt.NDArray[np.bool_], right_after: npt.NDArray[np.bool_]
) -> PairedChange:
    """Count what was fixed and what was broken; both (N,)."""
    return PairedChange(
        n=len(right_before),
        fixed=int((right_after & ~right_before).sum()),
        broken=int((right_before & ~right_after).sum()),
    )


def _degenerate(answers: Answers, rules: GateRules) -> Finding | None:
    """What no model that learned anything says."""
    candidate = answers.candidate
    where = f"On {answers.name} the candidate"
    if not len(candidate):
        return None
    if not np.isfinite(candidate).all():
        return Finding(Outcome.REJECT, f"{where} answers with what is no number.")
    sums = candidate.sum(axis=1)
    if (candidate < 0).any() or np.abs(sums - 1).max() > 1e-3:
        return Finding(Outcome.REJECT, f"{where} answers with no probabilities.")
    if len(candidate) > 1 and float(np.ptp(candidate, axis=0).max()) < 1e-6:
        return Finding(Outcome.REJECT, f"{where} gives every face the same answer.")
    said = set(np.unique(candidate.argmax(axis=1)).tolist())
    # Only classes that the champion does find, for it is a comparison; and not those
    # with so few faces that one answer may be all there was to find.
    before = is_right(answers.champion, answers.labels)
    found = set(answers.labels[before].tolist())
    missing = [
        EMOTIONS[label].value
        for label in sorted(found - said)
        if (answers.labels == label).sum() >= rules.least_support
    ]
    if missing:
        return Finding(Outcome.REJECT, f"{where} never says {' or '.join(missing)}.")
    return None


def is_right(said: npt.NDArray[np.floating], labels: IntArray) -> npt.NDArray[np.bool_]:
    """Whether each of (N, 4) answers is the label (N,). What is no number is never
    right: its largest would be the first emotion."""
    right: npt.NDArray[np.bool_] = np.isfinite(said).all(axis=1)
    right &= said.argmax(axis=1) == labels
    return right


def _compare(answers: Answers, rules: GateRules) -> list[Finding]:
    n = len(answers.labels)
    if n < rules.least_faces:
        more = rules.labels_for(rules.least_faces - n)
        return [
            Finding(
                Outcome.HOLD,
                f"Undecided: {answers.name} has only {n} faces. Label about {more} "
                "more.",
                more,
            )
        ]
    before = is_right(answers.champion, answers.labels)
    after = is_right(answers.candidate, answers.labels)
    findings = [_accuracy(answers.name, paired_change(before, after), rules)]
    for emotion in EMOTIONS:
        rows = answers.labels == emotion.position
        findings.append(
            _recall(
                f"{emotion.value} on {answers.name}",
                paired_change(before[rows], after[rows]),
                rules,
            )
        )
    findings.append(_calibration(answers, rules))
    return findings


def _accuracy(name: str, change: PairedChange, rules: GateRules) -> Finding:
    low, high = change.interval
    words = (
        f"accuracy on {name} changes by {_points(change.change)} "
        f"(95 %: {_points(low)} to {_points(high)}; {change.fixed} fixed, "
        f"{change.broken} broken of {change.n})"
    )
    if low > -rules.accuracy_margin:
        return Finding(Outcome.PROMOTE, f"Good: {words}.")
    if high < -rules.accuracy_margin:
        return Finding(Outcome.REJECT, f"Worse: {words}.")
    needed = change.faces_to_settle(rules.accuracy_margin)
    return _undecided(words, needed, change.n, rules)


def _recall(name: str, change: PairedChange, rules: GateRules) -> Finding:
    if change.n < rules.least_support:
        more = rules.labels_for(rules.least_support - change.n)
        return Finding(
            Outcome.HOLD,
            f"Undecided: there are only {change.n} faces of {name}. Label about "
            f"{more} more of them.",
            more,
        )
    words = f"recall of {name} changes by {_points(change.change)} of {change.n} faces"
    if change.change >= -rules.recall_margin:
        return Finding(Outcome.PROMOTE, f"Good: {words}.")
    if change.interval[1] < -rules.recall_margin:
        return Finding(Outcome.REJECT, f"Worse: {words}.")
    needed = change.faces_to_settle(rules.recall_margin)
    return _undecided(words, needed, change.n, rules, " of them")


def _undecided(
    words: str, needed: int | None, n: int, rules: GateRules, whose: str = ""
) -> Finding:
    """``n`` faces do not tell; ``needed`` of them would, None where no number does."""
    if needed is None:
        return Finding(Outcome.HOLD, f"Undecided, and too close to settle: {words}.")
    # At least one more: by its own numbers it may stand on the very edge.
    more = rules.labels_for(max(1, needed - n))
    return Finding(
        Outcome.HOLD, f"Undecided: {words}. Label about {more} more{whose}.", more
    )


def _calibration(answers: Answers, rules: GateRules) -> Finding:
    before, after = (
        expected_calibration_error(*_sureness(said, answers.labels))
        if np.isfinite(said).all()
        else 1.0
        for said in (answers.champion, answers.candidate)
    )
    words = (
        f"calibration error on {answers.name} is {after:.3f}, the champion's "
        f"{before:.3f}"
    )
    allowed = max(rules.most_calibration_error, before + rules.calibration_margin)
    if after <= allowed:
        return Finding(Outcome.PROMOTE, f"Good: {words}.")
    low, high = _calibration_interval(answers)
    words += f" (95 % of the change: {low:+.3f} to {high:+.3f})"
    if low > 0:
        return Finding(Outcome.REJECT, f"Worse: {words}.")
    change, n = after - before, len(answers.labels)
    # An interval narrows with the root of the faces: until it leaves 0 out.
    needed = math.ceil(n * ((change - low) / change) ** 2)
    return _undecided(words, needed if needed <= _MOST_MORE_LABELS else None, n, rules)


def _calibration_interval(answers: Answers, seed: int = 0) -> tuple[float, float]:
    """95 % interval of the change in calibration error, by a paired bootstrap.

    Noise alone makes the error of few faces large, and drawing them again adds as much
    once more. So the draws are reflected at what was measured (the basic bootstrap):
    what the noise of one version adds more than the other's is taken off, not doubled.
    """
    champion, candidate = (
        _sureness(said, answers.labels)
        for said in (answers.champion, answers.candidate)
    )

    def change(rows: IntArray) -> float:
        before, after = (
            expected_calibration_error(confidence[rows], right[rows])
            for confidence, right in (champion, candidate)
        )
        return after - before

    n = len(answers.labels)
    generator = np.random.default_rng(seed)
    drawn = [change(generator.integers(n, size=n)) for _ in range(BOOTSTRAP_ROUNDS)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    measured = change(np.arange(n))
    return (float(2 * measured - high), float(2 * measured - low))


def _sureness(
    said: npt.NDArray[np.floating], labels: IntArray
) -> tuple[Float64Array, npt.NDArray[np.bool_]]:
    """(how sure it is of each of N faces, whether it is right)."""
    return np.asarray(said.max(axis=1), np.float64), is_right(said, labels)


def _speed(latency_ratio: float, rules: GateRules) -> Finding:
    words = f"a face takes {latency_ratio:.2f} times as long as the champion's"
    good = math.isfinite(latency_ratio) and latency_ratio <= rules.most_latency_ratio
    return Finding(
        Outcome.PROMOTE if good else Outcome.REJECT,
        f"{'Good' if good else 'Worse'}: {words}.",
    )


def _points(share: float) -> str:
    """A change of a share as percentage points: ``+1.2 points``."""
    return f"{100 * share:+.1f} points"
