from __future__ import annotations

import numpy as np
import pytest

from ml.gate import (
    Answers,
    Decision,
    Finding,
    GateRules,
    Outcome,
    PairedChange,
    judge,
    paired_change,
)
from ml.inference import softmax


def answers_with(
    labels: np.ndarray, right: np.ndarray, confidence: float = 0.9
) -> np.ndarray:
    """Probabilities that are right where ``right`` says so, as sure as told."""
    said = np.where(right, labels, (labels + 1) % 4)
    rest = (1 - confidence) / 3
    probabilities = np.full((len(labels), 4), rest)
    probabilities[np.arange(len(labels)), said] = confidence
    return probabilities


def faces(n: int, accuracy: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and who reads them right with that accuracy."""
    generator = np.random.default_rng(seed)
    return np.arange(n) % 4, generator.random(n) < accuracy


def compare(
    labels: np.ndarray, champion: np.ndarray, candidate: np.ndarray, speed: float = 1.0
) -> Decision:
    return judge(
        [Answers("the test", labels, champion, candidate)], latency_ratio=speed
    )


def test_clearly_better_candidate_is_promoted() -> None:
    labels, right = faces(2000, 0.85)
    better = right | (np.arange(2000) % 20 == 0)

    decision = compare(
        labels, answers_with(labels, right), answers_with(labels, better)
    )

    assert decision.outcome == Outcome.PROMOTE
    assert decision.more_labels is None


def test_same_answers_on_many_faces_are_promoted() -> None:
    labels, right = faces(2000, 0.9)
    same = answers_with(labels, right)

    assert compare(labels, same, same).outcome == Outcome.PROMOTE


def test_clearly_worse_candidate_is_rejected_with_its_reason_first() -> None:
    labels, right = faces(2000, 0.9)
    worse = right & (np.arange(2000) % 10 != 0)

    decision = compare(labels, answers_with(labels, right), answers_with(labels, worse))

    assert decision.outcome == Outcome.REJECT
    assert decision.reasons[0].startswith("Worse: ")


def test_thin_evidence_is_held_and_says_how_many_labels_would_settle_it() -> None:
    labels, right = faces(400, 0.88)
    candidate = right.copy()
    candidate[np.flatnonzero(right)[:6]] = False
    candidate[np.flatnonzero(~right)[:4]] = True

    decision = compare(
        labels,
        answers_with(labels, right, 0.85),
        answers_with(labels, candidate, 0.85),
    )

    assert decision.outcome == Outcome.HOLD
    assert decision.more_labels is not None
    assert 100 < decision.more_labels < 10_000
    assert f"Label about {decision.more_labels} more" in decision.reasons[0]


def test_few_faces_are_never_enough_however_good_the_answers() -> None:
    labels, right = faces(40, 1.0)

    decision = compare(
        labels, answers_with(labels, ~right), answers_with(labels, right, 0.99)
    )

    assert decision.outcome == Outcome.HOLD
    assert decision.more_labels == 160


def test_no_number_of_labels_settles_what_is_rejected_or_too_close() -> None:
    held = Finding(Outcome.HOLD, "Undecided: few faces.", 40)
    too_close = Finding(Outcome.HOLD, "Undecided, and too close to settle.")
    rejected = Finding(Outcome.REJECT, "Worse: slow.")

    assert Decision((held,)).more_labels == 40
    assert Decision((held, too_close)).more_labels is None
    assert Decision((held, rejected)).more_labels is None


def test_labels_that_will_train_are_counted_in() -> None:
    """Where one label in four comes to judge, it takes four for each face."""
    labels, right = faces(400, 0.88)
    candidate = right.copy()
    candidate[np.flatnonzero(right)[:6]] = False
    candidate[np.flatnonzero(~right)[:4]] = True
    labels = np.where(labels == 2, 0, labels)
    labels[:5] = 2
    said = answers_with(labels, right, 0.85), answers_with(labels, candidate, 0.85)

    def findings(share: float) -> list[Finding]:
        answers = Answers("the test", labels, *said)
        rules = GateRules(judging_share=share)
        found = judge([answers], latency_ratio=1.0, rules=rules).findings
        return [one for one in found if one.more_labels]

    every, fourth = findings(1.0), findings(0.25)

    assert [one.more_labels for one in fourth] == [
        4 * (one.more_labels or 0) for one in every
    ]
    assert len(every) >= 2
    for one in fourth:
        assert f"Label about {one.more_labels} more" in one.reason
    few = judge(
        [Answers("the test", labels[:40], said[0][:40], said[1][:40])],
        latency_ratio=1.0,
        rules=GateRules(judging_share=0.25),
    )
    assert few.more_labels == 640


def test_class_that_loses_recall_stops_a_better_candidate() -> None:
    labels, right = faces(4000, 0.85)
    sad = labels == 1
    candidate = right | (~sad & (np.arange(4000) % 3 == 0))
    candidate &= ~(sad & (np.arange(4000) % 5 == 0))

    decision = compare(
        labels, answers_with(labels, right), answers_with(labels, candidate)
    )

    assert decision.outcome == Outcome.REJECT
    assert "recall of sad" in decision.reasons[0]


def test_class_with_hardly_a_face_is_held() -> None:
    labels, right = faces(1000, 0.9)
    labels = np.where(labels == 2, 0, labels)
    labels[:5] = 2
    same = answers_with(labels, right)

    decision = compare(labels, same, same)

    assert decision.outcome == Outcome.HOLD
    assert "only 5 faces of surprise" in decision.reasons[0]


def test_slow_candidate_is_rejected() -> None:
    labels, right = faces(2000, 0.9)
    same = answers_with(labels, right)

    assert compare(labels, same, same, speed=1.3).outcome == Outcome.REJECT
    assert compare(labels, same, same, speed=float("nan")).outcome == Outcome.REJECT


def test_overconfident_candidate_is_rejected() -> None:
    labels, right = faces(2000, 0.85)

    decision = compare(
        labels, answers_with(labels, right, 0.85), answers_with(labels, right, 0.999)
    )

    assert decision.outcome == Outcome.REJECT
    assert "calibration" in decision.reasons[0]


def hard_faces(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels (n,) and logits (n, 4) of a version that is about as often right as it
    says, 69 % of the time."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 2, (n, 4))
    drawn = softmax(logits).cumsum(axis=1) < generator.random((n, 1))
    return np.minimum(drawn.sum(axis=1), 3), logits


def calibration_finding(decision: Decision) -> Finding:
    (finding,) = (one for one in decision.findings if "calibration" in one.reason)
    return finding


@pytest.mark.parametrize("n", [200, 450])
def test_candidate_like_the_champion_is_not_rejected_for_noise_in_calibration(
    n: int,
) -> None:
    """Of few hard faces noise alone makes an error far above 0.05."""
    for seed in range(6):
        labels, logits = hard_faces(n, seed)
        jitter = np.random.default_rng(seed).normal(0, 0.005, logits.shape)

        decision = compare(labels, softmax(logits), softmax(logits + jitter))

        assert calibration_finding(decision).outcome == Outcome.PROMOTE


def test_candidate_that_became_far_too_sure_is_rejected_on_few_hard_faces() -> None:
    for seed in range(6):
        labels, logits = hard_faces(200, seed)

        decision = compare(labels, softmax(logits), softmax(3 * logits))

        assert calibration_finding(decision).outcome == Outcome.REJECT


def test_calibration_that_may_be_worse_by_noise_alone_is_held_and_settled() -> None:
    """A little too sure: few faces do not tell, many do."""
    labels, logits = hard_faces(200, 13)
    few = calibration_finding(compare(labels, softmax(logits), softmax(1.3 * logits)))
    labels, logits = hard_faces(4000, 3)
    many = calibration_finding(compare(labels, softmax(logits), softmax(1.3 * logits)))

    assert few.outcome == Outcome.HOLD
    assert few.more_labels is not None
    assert f"Label about {few.more_labels} more" in few.reason
    assert many.outcome == Outcome.REJECT


def test_one_answer_is_no_reason_to_reject_for_a_class_never_said() -> None:
    """The only face of a class flips: there are too few of it to tell."""
    labels, right = faces(1000, 0.9)
    labels = np.where(labels == 2, 0, labels)
    labels[7] = 2
    right[7] = True
    champion = answers_with(labels, right)
    # Who is wrong says the next emotion: nobody but the one face says surprise.
    champion[(labels == 1) & ~right] = answers_with(np.array([0]), np.array([True]))
    candidate = champion.copy()
    candidate[7] = answers_with(np.array([0]), np.array([True]))

    decision = compare(labels, champion, candidate)

    assert decision.outcome == Outcome.HOLD
    assert "only 1 faces of surprise" in decision.reasons[0]


def _degenerate() -> dict[str, np.ndarray]:
    labels, right = faces(1000, 0.9)
    good = answers_with(labels, right)
    generator = np.random.default_rng(1)
    nan = good.copy()
    nan[3] = np.nan
    dropped = good.copy()
    dropped[:, 3] = 0
    dropped /= dropped.sum(axis=1, keepdims=True)
    return {
        "nan": nan,
        "constant": np.tile([0.4, 0.3, 0.2, 0.1], (1000, 1)),
        "constant but for noise": softmax(
            np.tile([2.0, 1, 0, 0], (1000, 1)) + generator.normal(0, 0.01, (1000, 4))
        ),
        "shuffled labels": good[generator.permutation(1000)],
        "a dropped class": dropped,
        "no probabilities": good * 2,
        "logits": np.log(good),
    }


@pytest.mark.parametrize("name", _degenerate())
def test_degenerate_candidate_never_passes(name: str) -> None:
    labels, right = faces(1000, 0.9)

    decision = compare(labels, answers_with(labels, right), _degenerate()[name])

    assert decision.outcome == Outcome.REJECT


@pytest.mark.filterwarnings("error")
def test_champion_that_answers_with_no_number_is_beaten_by_one_that_does_not() -> None:
    labels, right = faces(1000, 0.9)
    nothing = np.full((1000, 4), np.nan)

    decision = compare(labels, nothing, answers_with(labels, right))

    assert decision.outcome == Outcome.PROMOTE
    assert any("the champion's 1.000" in reason for reason in decision.reasons)


def test_worst_of_two_sets_decides() -> None:
    labels, right = faces(2000, 0.9)
    same = answers_with(labels, right)
    worse = answers_with(labels, right & (np.arange(2000) % 8 != 0))

    decision = judge(
        [
            Answers("the frozen set", labels, same, same),
            Answers("the hold-out", labels, same, worse),
        ],
        latency_ratio=1.0,
    )

    assert decision.outcome == Outcome.REJECT
    assert "the hold-out" in decision.reasons[0]


def test_without_anything_to_compare_on_it_holds() -> None:
    assert judge([], latency_ratio=1.0).outcome == Outcome.HOLD


def test_answers_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="candidate answered"):
        Answers("x", np.zeros(3, int), np.zeros((3, 4)), np.zeros((2, 4)))


def test_interval_covers_the_truth_as_often_as_it_promises() -> None:
    generator = np.random.default_rng(7)
    covered = 0
    for _ in range(1000):
        drawn = generator.multinomial(300, [0.06, 0.04, 0.90])
        low, high = PairedChange(300, int(drawn[0]), int(drawn[1])).interval
        covered += low <= 0.02 <= high
    assert covered >= 935


def test_interval_is_not_empty_where_nothing_changed() -> None:
    low, high = PairedChange(50, 0, 0).interval

    assert low < -0.01 < 0.01 < high


def test_estimate_of_labels_settles_it_when_they_come() -> None:
    change = PairedChange(400, 14, 16)
    needed = change.faces_to_settle(0.01)
    assert needed is not None
    grown = PairedChange(needed, round(14 * needed / 400), round(16 * needed / 400))

    assert change.interval[0] < -0.01
    assert grown.interval[0] == pytest.approx(-0.01, abs=0.002)


def test_paired_change_counts_only_where_they_differ() -> None:
    before = np.array([True, True, False, False])
    after = np.array([True, False, True, False])

    change = paired_change(before, after)

    assert (change.fixed, change.broken, change.n) == (1, 1, 4)
