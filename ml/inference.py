"""Faces -> probabilities, in ONNX Runtime. Never imports torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import numpy as np
import numpy.typing as npt
from PIL import Image

from ml.labels import EMOTIONS
from ml.manifest import (
    ModelFileError,
    ModelManifest,
    load_manifest,
    read_model,
    verify_model,
)
from ml.preprocessing import crop_faces, normalise
from ml.runtime import Provider, open_session
from ml.types import DetectedFace, EmotionScores

# Imported where a file is opened: onnx takes a second of each process that starts, and
# most read no file.
if TYPE_CHECKING:
    import onnx

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
UInt8Array = npt.NDArray[np.uint8]

WEIGHTS_DIR: Final = Path(__file__).parent / "weights"
SHIPPED_MODEL: Final = WEIGHTS_DIR / "champion.onnx"

INPUT_NAME: Final = "faces"
LOGITS_NAME: Final = "logits"
FEATURE_MAP_NAME: Final = "feature_map"
FEATURES_NAME: Final = "features"
HEAD_WEIGHT_NAME: Final = "head.weight"
HEAD_BIAS_NAME: Final = "head.bias"

MAX_BATCH: Final = 64
"""More faces than that go through in several runs, so that memory stays flat."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What the model said of N faces.

    ``logits`` float32 (N, 4), uncalibrated; ``feature_map`` float32 (N, C, h, w),
    the last one before the pooling and the linear head; ``scores`` one a face.
    """

    logits: Float32Array
    feature_map: Float32Array
    scores: tuple[EmotionScores, ...]


class EmotionClassifier:
    """One verified model file; safe to call from several threads."""

    def __init__(
        self,
        manifest: ModelManifest,
        data: bytes,
        threads: int = 1,
        provider: Provider = "auto",
    ) -> None:
        """``data`` is the ONNX file. Raises ``ModelFileError`` where it is not the
        one that the manifest describes, and ``ProviderUnavailable``."""
        verify_model(data, manifest)
        self.manifest = manifest
        self.head_weight, self.head_bias = read_head(data)
        self._session = open_session(data, threads, provider)
        self._check_contract()

    @classmethod
    def load(cls, model_path: Path = SHIPPED_MODEL, threads: int = 1) -> Self:
        """From ``NAME.onnx`` with ``NAME.json`` beside it.

        Raises ``ManifestError`` or ``ModelFileError``.
        """
        manifest = load_manifest(model_path)
        return cls(manifest, read_model(model_path), threads)

    @property
    def provider(self) -> str:
        """The ONNX Runtime provider in use, ``CPUExecutionProvider`` say."""
        return str(self._session.get_providers()[0])

    def read(self, photo: Image.Image, faces: Sequence[DetectedFace]) -> Reading:
        """Crop, normalise and classify the faces of one photo in one batch."""
        return self.read_crops(crop_faces(photo, faces, self.manifest.input))

    def read_crops(self, crops: UInt8Array) -> Reading:
        """uint8 (N, S, S, C) crops, as ``crop_face`` makes them; N may be 0."""
        normalisation = self.manifest.input.normalisation
        parts = [
            self._session.run(
                [LOGITS_NAME, FEATURE_MAP_NAME],
                {
                    INPUT_NAME: normalise(
                        crops[start : start + MAX_BATCH], normalisation
                    )
                },
            )
            for start in range(0, len(crops), MAX_BATCH)
        ]
        if not parts:
            return Reading(
                np.zeros((0, len(EMOTIONS)), np.float32),
                np.zeros((0, self.head_weight.shape[1], 1, 1), np.float32),
                (),
            )
        logits = np.concatenate([part[0] for part in parts])
        if not np.isfinite(logits).all():
            raise ModelFileError(
                f"model {self.manifest.version} answered with something that is no "
                "number"
            )
        return Reading(
            logits,
            np.concatenate([part[1] for part in parts]),
            self.scores(logits),
        )

    def features(self, crops: UInt8Array) -> Float32Array:
        """What the head sees of uint8 (N, S, S, C) crops: float32 (N, C).

        The logits are ``features @ head_weight.T + head_bias``: from these numbers a
        head can be refitted without the faces. Raises ``ModelFileError`` where the
        file does not give them.
        """
        if FEATURES_NAME not in {node.name for node in self._session.get_outputs()}:
            raise ModelFileError(
                f"model {self.manifest.version} does not give its features: export "
                "it again"
            )
        normalisation = self.manifest.input.normalisation
        out = np.empty((len(crops), self.head_weight.shape[1]), np.float32)
        for start in range(0, len(crops), MAX_BATCH):
            part = slice(start, start + MAX_BATCH)
            (out[part],) = self._session.run(
                [FEATURES_NAME], {INPUT_NAME: normalise(crops[part], normalisation)}
            )
        if not np.isfinite(out).all():
            raise ModelFileError(
                f"model {self.manifest.version} gives features that are no numbers"
            )
        return out

    def scores(self, logits: Float32Array) -> tuple[EmotionScores, ...]:
        """Calibrated probabilities of logits (N, 4)."""
        calibration = self.manifest.calibration
        probabilities = softmax(logits, calibration.temperature)
        return tuple(
            EmotionScores(
                tuple(float(value) for value in row),
                not_sure=bool(row.max() < calibration.not_sure_below),
            )
            for row in probabilities
        )

    def class_activation(self, feature_map: Float32Array) -> Float32Array:
        """Where each emotion was seen: float32 (N, 4, h, w).

        Zhou et al., "Learning Deep Features for Discriminative Localization", 2016:
        the map's channels weighted by the head's weights; its mean plus the head's
        bias is the logit.
        """
        maps = np.einsum("kc,nchw->nkhw", self.head_weight, feature_map)
        return np.asarray(maps, np.float32)

    def _check_contract(self) -> None:
        """Refuse a file whose tensors are not those that its manifest promises."""
        spec = self.manifest.input
        inputs = {node.name: node.shape for node in self._session.get_inputs()}
        outputs = {node.name for node in self._session.get_outputs()}
        wanted = [spec.channels, spec.size_px, spec.size_px]
        if list(inputs) != [INPUT_NAME] or inputs[INPUT_NAME][1:] != wanted:
            raise ModelFileError(f"model input is {inputs}, expected (N, {wanted})")
        if not {LOGITS_NAME, FEATURE_MAP_NAME} <= outputs:
            raise ModelFileError(f"model outputs are {sorted(outputs)}")
        rows = len(EMOTIONS)
        if self.head_weight.ndim != 2 or self.head_weight.shape[0] != rows:
            raise ModelFileError(f"model has a head of {self.head_weight.shape}")
        self._check_answer(2)

    def _check_answer(self, faces: int) -> None:
        """What a file declares is not what it does: refuse it here, by looking at a
        few empty faces, and not in the middle of somebody's photo."""
        spec = self.manifest.input
        crops = np.zeros((faces, spec.channels, spec.size_px, spec.size_px), np.float32)
        try:
            # A sequence of tensors comes as a list, without type or shape.
            logits, feature_map = map(
                np.asarray,
                self._session.run([LOGITS_NAME, FEATURE_MAP_NAME], {INPUT_NAME: crops}),
            )
        except Exception as error:  # ONNX Runtime raises classes of its own C++ side.
            raise ModelFileError(f"the model cannot read {faces} faces: {error}") from (
                error
            )
        wanted = (faces, len(EMOTIONS))
        if logits.dtype != np.float32 or logits.shape != wanted:
            raise ModelFileError(
                f"the logits of {faces} faces are {logits.dtype} {logits.shape}, "
                f"expected float32 {wanted}"
            )
        seen, channels = feature_map.shape[:2], self.head_weight.shape[1]
        if feature_map.ndim != 4 or seen != (faces, channels):
            raise ModelFileError(
                f"the feature map of {faces} faces is {feature_map.shape}, expected "
                f"({faces}, {channels}, height, width)"
            )


def softmax(logits: npt.NDArray[np.floating], temperature: float = 1.0) -> Float64Array:
    """(N, K) -> (N, K) float64, rows sum to 1."""
    scaled = logits.astype(np.float64) / temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    exponentials = np.exp(scaled)
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


def read_head(data: bytes) -> tuple[Float32Array, Float32Array]:
    """The linear head of a model file: weight (4, C) and bias (4,).

    Raises ``ModelFileError`` where the file is no such model, or keeps tensors
    outside itself (those would escape the hash).
    """
    import onnx
    from onnx.external_data_helper import uses_external_data

    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # protobuf has no common base for what it raises.
        raise ModelFileError(f"the file is no ONNX model: {error}") from error
    if any(map(uses_external_data, _tensors(model.graph))):
        raise ModelFileError("the model keeps weights outside its file")
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    try:
        weight = onnx.numpy_helper.to_array(tensors[HEAD_WEIGHT_NAME])
        bias = onnx.numpy_helper.to_array(tensors[HEAD_BIAS_NAME])
        return np.asarray(weight, np.float32), np.asarray(bias, np.float32)
    except KeyError as error:
        raise ModelFileError(f"the model has no tensor {error}") from error
    except Exception as error:  # ONNX and NumPy raise what they like of odd tensors.
        raise ModelFileError(f"the model has a head of no numbers: {error}") from error


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Every tensor of a graph, those in the attributes of its nodes, too."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for inner in (attribute.g, *attribute.graphs):
                if inner.node or inner.initializer:
                    yield from _tensors(inner)
