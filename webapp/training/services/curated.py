"""The curated faces of a data set, with their pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ml.labels import EMOTIONS
from ml.manifest import InputSpec
from webapp.training.models import SnapshotFace
from webapp.training.services.snapshots import read_crops

UInt8Array = npt.NDArray[np.uint8]
Float32Array = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class CuratedFaces:
    """N faces that people decided: their rows, and ``crops`` uint8 (N, S, S, C)."""

    rows: list[SnapshotFace]
    crops: UInt8Array

    @property
    def shares(self) -> Float32Array:
        """The people's votes, float32 (N, 4)."""
        shares = [row.shares for row in self.rows]
        return np.asarray(shares, np.float32).reshape(len(shares), len(EMOTIONS))

    @property
    def weights(self) -> Float32Array:
        """How much each counts, float32 (N,)."""
        return np.asarray([row.weight for row in self.rows], np.float32)

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """Indices into ``EMOTIONS``, int64 (N,)."""
        words = [emotion.value for emotion in EMOTIONS]
        return np.asarray([words.index(row.label) for row in self.rows], np.int64)


def read_curated(rows: Sequence[SnapshotFace], spec: InputSpec) -> CuratedFaces:
    """Those of the rows whose pixels are still there."""
    crops = read_crops([row.face_key for row in rows], spec)
    there = [
        (row, crop) for row, crop in zip(rows, crops, strict=True) if crop is not None
    ]
    shape = (0, spec.size_px, spec.size_px, spec.channels)
    return CuratedFaces(
        [row for row, _ in there],
        np.stack([crop for _, crop in there]) if there else np.zeros(shape, np.uint8),
    )
