"""What other models say of a face, beside what people said.

Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015. Ten
people are few: their shares are grainy, and a teacher that has seen all faces smooths
them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ml.data import DataError, FaceSet
from ml.inference import MAX_BATCH, EmotionClassifier
from ml.labels import EMOTIONS
from ml.manifest import InputSpec

Float32Array = npt.NDArray[np.float32]
UInt8Array = npt.NDArray[np.uint8]


def check_teachers(teachers: Sequence[EmotionClassifier], spec: InputSpec) -> None:
    """Raise ``DataError`` where one reads other crops than the network that learns."""
    for teacher in teachers:
        own = teacher.manifest.input
        if (own.size_px, own.channels) != (spec.size_px, spec.channels):
            raise DataError(
                f"The teacher {teacher.manifest.version} reads faces of {own.size_px} "
                f"pixels in {own.channels} channels, this network others: a teacher "
                "must read the same."
            )


def distil(
    faces: FaceSet,
    teachers: Sequence[EmotionClassifier],
    share: float,
    advance: Callable[[], None] = lambda: None,
) -> FaceSet:
    """``faces`` with targets of which ``share``, in [0, 1], is the teachers' word.

    Only what fell on the four emotions is divided anew among them, so that a face
    people could not read stays one. Teachers read such crops (``check_teachers``).
    ``advance`` is called after each face.
    """
    emotions = len(EMOTIONS)
    said = np.empty((len(faces), emotions), np.float32)
    for start in range(0, len(faces), MAX_BATCH):
        crops = faces.crops[start : start + MAX_BATCH]
        said[start : start + len(crops)] = np.mean(
            [_probabilities(teacher, crops) for teacher in teachers], axis=0
        )
        for _ in crops:
            advance()
    targets = faces.targets.copy()
    mass = targets[:, :emotions].sum(axis=1, keepdims=True)
    targets[:, :emotions] = (1 - share) * targets[:, :emotions] + share * mass * said
    return replace(faces, targets=targets)


def _probabilities(teacher: EmotionClassifier, crops: UInt8Array) -> Float32Array:
    """Of the faces and of what a mirror shows of them, float32 (N, 4)."""
    both = [
        [scores.probabilities for scores in teacher.read_crops(view).scores]
        for view in (crops, crops[:, :, ::-1])
    ]
    return np.asarray(np.mean(both, axis=0), np.float32)
