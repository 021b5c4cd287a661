"""Refit the linear head where nobody has the data folder: in seconds, on any machine.

What the head saw of a sample of the training faces, with their soft labels, travels
beside the model, and the same of a frozen set that judges: validation faces, never
test. No picture can be read from these numbers.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from ml.consensus import MIN_EMOTION_SHARE, NO_LABEL
from ml.data import FaceSet
from ml.inference import (
    HEAD_BIAS_NAME,
    HEAD_WEIGHT_NAME,
    WEIGHTS_DIR,
    EmotionClassifier,
    softmax,
)
from ml.labels import EMOTIONS
from ml.manifest import ModelManifest, write_atomically

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

SHIPPED_RETRAINING: Final = WEIGHTS_DIR / "retraining.npz"
SAMPLE: Final = 6000
"""Training faces that are kept: with a byte a feature, a few MB."""

_STEPS: Final = 255
_ARRAYS: Final = (
    "model_sha256",
    "train_features",
    "train_targets",
    "train_weights",
    "evaluation_features",
    "evaluation_labels",
)


class RetrainingError(Exception):
    """The shipped features are missing, damaged or of another model."""


@dataclass(frozen=True, slots=True)
class RetrainingData:
    """Features of one model, named by its sha256.

    Train: ``features`` float32 (N, C), ``targets`` float32 (N, 4) with rows that
    sum to 1, ``weights`` float32 (N,). The frozen evaluation set:
    ``evaluation_features`` (M, C), ``evaluation_labels`` int64 (M,).
    """

    model_sha256: str
    features: Float32Array
    targets: Float32Array
    weights: Float32Array
    evaluation_features: Float32Array
    evaluation_labels: IntArray


def collect(
    classifier: EmotionClassifier,
    train: FaceSet,
    validation: FaceSet,
    sample: int = SAMPLE,
    seed: int = 0,
) -> RetrainingData:
    """Features of a random sample of train and of all labelled validation faces."""
    emotions = len(EMOTIONS)
    mass = train.targets[:, :emotions].sum(axis=1)
    usable = np.flatnonzero(mass >= MIN_EMOTION_SHARE)
    drawn = np.random.default_rng(seed).permutation(usable)[:sample]
    chosen = train.take(np.sort(drawn))
    share = chosen.targets[:, :emotions].sum(axis=1, keepdims=True)
    judged = validation.take(validation.consensus != NO_LABEL)
    return RetrainingData(
        classifier.manifest.sha256,
        classifier.features(chosen.crops),
        chosen.targets[:, :emotions] / share,
        chosen.weights * share[:, 0],
        classifier.features(judged.crops),
        judged.consensus,
    )


def save_retraining(path: Path, data: RetrainingData) -> None:
    """Compressed: targets in half precision, and each feature in 256 steps."""
    both = np.concatenate([data.features, data.evaluation_features])
    low = both.min(axis=0)
    step = np.maximum((both.max(axis=0) - low) / _STEPS, np.finfo(np.float32).tiny)
    steps = np.rint((both - low) / step).astype(np.uint8)
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        allow_pickle=False,
        model_sha256=np.array(data.model_sha256),
        train_features=steps[: len(data.features)],
        train_targets=data.targets.astype(np.float16),
        train_weights=data.weights.astype(np.float16),
        evaluation_features=steps[len(data.features) :],
        evaluation_labels=data.evaluation_labels.astype(np.int8),
        feature_low=low,
        feature_step=step,
    )
    write_atomically(path, buffer.getvalue())


def load_retraining(
    manifest: ModelManifest, path: Path = SHIPPED_RETRAINING
) -> RetrainingData:
    """The features that belong to a model; raises ``RetrainingError``."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            values = {name: np.asarray(arrays[name]) for name in _ARRAYS}
            # Until mien-4 the features themselves were kept, in half precision.
            low, step = (
                np.asarray(arrays[name]) if name in arrays else np.float32(default)
                for name, default in (("feature_low", 0), ("feature_step", 1))
            )
    except Exception as error:  # Zip, NumPy and the disk raise what they like.
        raise RetrainingError(f"{path.name} cannot be read: {error}") from error
    sha256 = str(values["model_sha256"])
    # Refitted heads share the body: the features are those of their first parent.
    if sha256 not in (manifest.sha256, manifest.body_sha256):
        raise RetrainingError(
            f"{path.name} holds features of another model than {manifest.version}"
        )
    features = values["train_features"].astype(np.float32) * step + low
    evaluation = values["evaluation_features"].astype(np.float32) * step + low
    targets = values["train_targets"].astype(np.float32)
    if features.shape[1] != evaluation.shape[1] or len(features) != len(targets):
        raise RetrainingError(f"{path.name} contradicts itself")
    return RetrainingData(
        sha256,
        features,
        targets / targets.sum(axis=1, keepdims=True),
        values["train_weights"].astype(np.float32),
        evaluation,
        values["evaluation_labels"].astype(np.int64),
    )


def shipped_features_fit(body_sha256: str) -> bool:
    """Whether the shipped features are those of this network; cheap."""
    try:
        with np.load(SHIPPED_RETRAINING, allow_pickle=False) as arrays:
            return str(arrays["model_sha256"]) == body_sha256
    except (OSError, ValueError, KeyError, BadZipFile):
        return False


def refit_head(
    features: Float32Array,
    targets: Float32Array,
    weights: Float32Array,
    start: tuple[Float32Array, Float32Array],
    stay: float = 1e-3,
) -> tuple[Float32Array, Float32Array]:
    """The head (weight (4, C), bias (4,)) with the least weighted cross-entropy.

    ``stay`` punishes squared distance from the head ``start``, so that a few faces
    correct it and do not overturn it. The loss is convex: the answer depends on
    nothing but what is given.
    """
    from scipy.optimize import minimize  # type: ignore[import-untyped]

    rows = features.astype(np.float64)
    aims = targets.astype(np.float64)
    shares = (weights / weights.sum()).astype(np.float64)[:, None]
    first = np.concatenate([start[0], start[1][:, None]], axis=1).astype(np.float64)

    def loss(flat: Float64Array) -> tuple[float, Float64Array]:
        head = flat.reshape(first.shape)
        logits = rows @ head[:, :-1].T + head[:, -1]
        probabilities = softmax(logits)
        entropy = -(aims * np.log(np.maximum(probabilities, 1e-12))).sum(axis=1)
        moved = head - first
        error = (probabilities - aims) * shares
        slope = np.concatenate([error.T @ rows, error.sum(axis=0)[:, None]], axis=1)
        total = float((entropy * shares[:, 0]).sum() + stay * (moved**2).sum())
        return total, (slope + 2 * stay * moved).ravel()

    found = minimize(loss, first.ravel(), jac=True, method="L-BFGS-B")
    head = found.x.reshape(first.shape).astype(np.float32)
    return np.ascontiguousarray(head[:, :-1]), np.ascontiguousarray(head[:, -1])


def with_head(data: bytes, weight: Float32Array, bias: Float32Array) -> bytes:
    """The same model file with another head; raises ``RetrainingError``."""
    import onnx  # Not above, for the reason that ml/inference.py gives.

    model = onnx.load_model_from_string(data)
    replaced = 0
    for tensor in model.graph.initializer:
        for name, value in ((HEAD_WEIGHT_NAME, weight), (HEAD_BIAS_NAME, bias)):
            if tensor.name == name:
                if tuple(tensor.dims) != value.shape:
                    raise RetrainingError(
                        f"{name} is {tuple(tensor.dims)}, not {value.shape}"
                    )
                tensor.CopyFrom(
                    onnx.numpy_helper.from_array(value.astype(np.float32), name)
                )
                replaced += 1
    if replaced != 2:
        raise RetrainingError("the model has no head that could be replaced")
    return bytes(model.SerializeToString())
