"""Logits -> honest probabilities, and the bound below which the model is not sure.

Both numbers are chosen on validation and travel in the manifest. NumPy alone.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

from ml.inference import softmax
from ml.manifest import Calibration

Float64Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

MIN_COVERAGE: Final = 0.85
"""The model may stay silent on at most the rest."""

TARGET_ACCURACY: Final = 0.985
"""What its answers should reach where it is sure."""

_LOG_RANGE: Final = (math.log(0.05), math.log(20.0))


def log_loss(probabilities: Float64Array, labels: IntArray) -> float:
    """Mean negative logarithm of what (N, 4) probabilities gave the labels (N,)."""
    chosen = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(chosen, 1e-12)).mean())


def fit_temperature(logits: npt.NDArray[np.floating], labels: IntArray) -> float:
    """The temperature with the least log loss on (N, 4) logits; in [0.05, 20].

    Guo et al., "On Calibration of Modern Neural Networks", 2017. The loss has one
    minimum along the temperature: a golden-section search finds it.
    """

    def loss(log_temperature: float) -> float:
        return log_loss(softmax(logits, math.exp(log_temperature)), labels)

    golden = (math.sqrt(5) - 1) / 2
    low, high = _LOG_RANGE
    for _ in range(60):
        left, right = high - golden * (high - low), low + golden * (high - low)
        if loss(left) < loss(right):
            high = right
        else:
            low = left
    return math.exp((low + high) / 2)


def choose_not_sure_below(
    probabilities: Float64Array,
    labels: IntArray,
    target_accuracy: float = TARGET_ACCURACY,
    min_coverage: float = MIN_COVERAGE,
) -> float:
    """The lowest bound at which sure answers reach the target accuracy.

    Where that would silence more than ``1 - min_coverage`` of the faces, the bound
    that keeps ``min_coverage``.
    """
    confidence = probabilities.max(axis=1)
    order = np.argsort(-confidence, kind="stable")
    correct = (probabilities.argmax(axis=1) == labels)[order]
    accuracy = np.cumsum(correct) / np.arange(1, len(correct) + 1)
    least = max(1, math.ceil(min_coverage * len(labels)))
    reaching = np.flatnonzero(accuracy >= target_accuracy)
    kept = max(least, int(reaching[-1]) + 1 if len(reaching) else 0)
    if kept >= len(labels):
        return 0.0
    return float(confidence[order[kept - 1]])


def calibrate(logits: npt.NDArray[np.floating], labels: IntArray) -> Calibration:
    """Temperature and bound from validation faces that have a label."""
    temperature = fit_temperature(logits, labels)
    bound = choose_not_sure_below(softmax(logits, temperature), labels)
    return Calibration(round(temperature, 6), round(bound, 6))
