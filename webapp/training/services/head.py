"""A head run: the linear head is refitted on features, in seconds, on any machine."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ml.calibrate import fit_temperature
from ml.inference import EmotionClassifier, softmax
from ml.manifest import Calibration, sha256_of
from ml.retraining import RetrainingData, refit_head, with_head
from webapp.training.configs import HeadConfig
from webapp.training.services.base import near_evaluation

if TYPE_CHECKING:
    from webapp.training.services.job import Job

Float32Array = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]


def refit(
    job: Job,
    config: HeadConfig,
    start: EmotionClassifier,
    start_data: bytes,
    base: RetrainingData,
    features: Float32Array,
    shares: Float32Array,
    weights: Float32Array,
) -> tuple[bytes, Calibration, BoolArray]:
    """The model file with its new head, its calibration, and which of the curated faces
    were left out, bool (N,).

    ``features`` (N, C), ``shares`` (N, 4) and ``weights`` (N,) are those of the
    curated faces that train. Faces of the frozen evaluation set among them are left
    out: whoever imported them would let the model learn its own exam.
    """
    known = near_evaluation(features, base.evaluation_features)
    if known.any():
        job.say(
            f"{int(known.sum())} curated faces are left out: they are faces of the "
            "frozen evaluation set."
        )
    learned = ~known
    # Heavy, and needed by a training worker alone.
    from threadpoolctl import threadpool_limits

    own = softmax(base.features @ start.head_weight.T + start.head_bias)
    targets = own.astype(np.float32) if config.keep_answers else base.targets
    # One thread: the same sums in the same order, and quicker on shared cores.
    with threadpool_limits(1):
        head = refit_head(
            np.concatenate([base.features, features[learned]]),
            np.concatenate([targets, shares[learned]]),
            np.concatenate([base.weights, config.curated_weight * weights[learned]]),
            (start.head_weight, start.head_bias),
            config.stay,
        )
    return with_head(start_data, *head), _calibration(start, head, base), known


def child_of(
    start: EmotionClassifier, data: bytes, calibration: Calibration, version: str
) -> EmotionClassifier:
    """The new file as a version of its own, loaded."""
    manifest = replace(
        start.manifest,
        version=version,
        sha256=sha256_of(data),
        size_bytes=len(data),
        calibration=calibration,
        parent=start.manifest.version,
        metrics={},
        training={
            **start.manifest.training,
            "body_sha256": start.manifest.body_sha256,
        },
    )
    return EmotionClassifier(manifest, data)


def _calibration(
    start: EmotionClassifier,
    head: tuple[Float32Array, Float32Array],
    base: RetrainingData,
) -> Calibration:
    """The temperature moves with the size of the logits on the training features.

    What a network says of faces that it was trained on is surer than what it says of
    others, so the temperature cannot be fitted on them; how it changes can. No face
    that judges is asked.
    """
    labels = base.targets.argmax(axis=1).astype(np.int64)
    before = fit_temperature(
        base.features @ start.head_weight.T + start.head_bias, labels
    )
    after = fit_temperature(base.features @ head[0].T + head[1], labels)
    old = start.manifest.calibration
    temperature = float(np.clip(old.temperature * after / before, 0.01, 100))
    return Calibration(round(temperature, 6), old.not_sure_below)
