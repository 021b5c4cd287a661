from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import f1_score, precision_recall_fscore_support

from ml.calibrate import calibrate, choose_not_sure_below, fit_temperature, log_loss
from ml.evaluate import (
    confusion_matrix,
    evaluate_probabilities,
    expected_calibration_error,
    macro_f1,
    one_person_accuracy,
)
from ml.inference import softmax
from ml.intervals import wilson_interval
from ml.labels import EMOTIONS


def _faces(n: int = 3000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn from the probabilities that they mean."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 2, (n, 4))
    labels = np.array([generator.choice(4, p=row) for row in softmax(logits)])
    return logits, labels.astype(np.int64)


def test_figures_are_those_of_scikit_learn() -> None:
    logits, labels = _faces()
    report = evaluate_probabilities(softmax(logits), labels)
    predicted = logits.argmax(axis=1)
    precision, recall, f1, support = precision_recall_fscore_support(labels, predicted)
    assert report.macro_f1 == pytest.approx(
        f1_score(labels, predicted, average="macro")
    )
    for i, emotion in enumerate(EMOTIONS):
        row = report.per_class[emotion.value]
        assert row.precision == pytest.approx(precision[i])
        assert row.recall == pytest.approx(recall[i])
        assert row.f1 == pytest.approx(f1[i])
        assert row.support == support[i]
    assert report.accuracy == pytest.approx((predicted == labels).mean())
    assert sum(map(sum, report.confusion)) == report.n == 3000


def test_intervals_hold_the_estimate_and_shrink_with_more_faces() -> None:
    logits, labels = _faces()
    few = evaluate_probabilities(softmax(logits[:200]), labels[:200])
    many = evaluate_probabilities(softmax(logits), labels)
    for report in (few, many):
        assert (
            report.accuracy_interval[0] < report.accuracy < report.accuracy_interval[1]
        )
        assert (
            report.macro_f1_interval[0] < report.macro_f1 < report.macro_f1_interval[1]
        )
    assert np.ptp(many.macro_f1_interval) < np.ptp(few.macro_f1_interval)


def test_wilsons_interval_is_the_published_one() -> None:
    assert wilson_interval(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson_interval(0, 0) == (0.0, 1.0)
    assert wilson_interval(10, 10)[1] == pytest.approx(1.0)


def test_calibration_error_is_nought_for_honest_and_large_for_boasting() -> None:
    logits, labels = _faces(20_000)
    honest = evaluate_probabilities(softmax(logits), labels)
    boasting = evaluate_probabilities(softmax(logits, 0.2), labels)
    assert honest.ece < 0.015
    assert boasting.ece > 0.1
    assert expected_calibration_error(np.ones(4), np.zeros(4, bool)) == 1.0


def test_coverage_counts_what_is_sure() -> None:
    probabilities = np.array([[0.9, 0.1, 0, 0], [0.4, 0.3, 0.2, 0.1]])
    report = evaluate_probabilities(probabilities, np.array([0, 1]), 0.5)
    assert (report.coverage, report.covered_accuracy) == (0.5, 1.0)
    silent = evaluate_probabilities(probabilities, np.array([0, 1]), 1.0)
    assert (silent.coverage, silent.covered_accuracy) == (0.0, None)
    assert silent.to_dict()["covered_accuracy"] is None


def test_emotions_that_do_not_occur_do_not_lower_the_macro_f1() -> None:
    labels = np.array([0, 0, 1, 1], np.int64)
    assert macro_f1(confusion_matrix(labels, labels)) == 1.0


def test_one_person_is_judged_by_the_other_nine() -> None:
    votes = np.zeros((2, 10), np.int64)
    votes[0, 0] = 10
    votes[1, 3], votes[1, 1] = 8, 2
    assert one_person_accuracy(votes) == pytest.approx(18 / 20)
    assert math.isnan(one_person_accuracy(np.eye(4, 10, dtype=np.int64)))


def test_no_face_is_refused() -> None:
    with pytest.raises(ValueError, match="no face"):
        evaluate_probabilities(np.zeros((0, 4)), np.zeros(0, np.int64))


@pytest.mark.parametrize("stretch", [0.3, 1.0, 4.0])
def test_temperature_undoes_stretched_logits(stretch: float) -> None:
    logits, labels = _faces(20_000)
    assert fit_temperature(logits * stretch, labels) == pytest.approx(stretch, rel=0.05)


def test_temperature_lowers_the_loss_and_keeps_the_order() -> None:
    logits, labels = _faces()
    before = log_loss(softmax(logits * 3), labels)
    calibration = calibrate(logits * 3, labels)
    after = softmax(logits * 3, calibration.temperature)
    assert log_loss(after, labels) < before
    assert np.array_equal(after.argmax(axis=1), logits.argmax(axis=1))


def test_bound_reaches_the_target_with_the_least_silence() -> None:
    confidence = np.array([0.95, 0.9, 0.8, 0.7, 0.6])
    probabilities = np.stack(
        [confidence, 1 - confidence, 0 * confidence, 0 * confidence], axis=1
    )
    labels = np.array([0, 0, 0, 1, 1])
    assert choose_not_sure_below(probabilities, labels, 0.9, 0.2) == 0.8
    assert choose_not_sure_below(probabilities, labels, 0.9, 0.8) == 0.7
    assert choose_not_sure_below(probabilities, labels, 0.1, 0.2) == 0.0


def test_nothing_right_still_gives_a_bound() -> None:
    probabilities = np.tile([0.7, 0.1, 0.1, 0.1], (10, 1))
    bound = choose_not_sure_below(probabilities, np.ones(10, np.int64))
    assert math.isfinite(bound)
