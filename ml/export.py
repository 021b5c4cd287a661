"""A trained network -> ONNX and manifest: the form in which it serves."""

from __future__ import annotations

import copy
import datetime
import logging
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import torch
from onnxscript.optimizer import fold_constants
from torch import nn

from ml.augmentation import MILD, augment
from ml.calibrate import calibrate, fit_temperature, log_loss
from ml.checkpoint import TrainingResult
from ml.consensus import NO_LABEL
from ml.data import FaceSet, IntArray, LabelSource
from ml.evaluate import evaluate_model, read_set
from ml.inference import (
    FEATURE_MAP_NAME,
    FEATURES_NAME,
    HEAD_BIAS_NAME,
    HEAD_WEIGHT_NAME,
    INPUT_NAME,
    LOGITS_NAME,
    EmotionClassifier,
    Float32Array,
    read_head,
    softmax,
)
from ml.labels import EMOTIONS
from ml.manifest import (
    Calibration,
    InputSpec,
    ModelManifest,
    Normalisation,
    load_manifest,
    manifest_path,
    read_model,
    sha256_of,
    verify_model,
    write_atomically,
)
from ml.models import FaceNetwork
from ml.preprocessing import normalise
from ml.quantisation import quantise
from ml.runtime import open_session

_MAX_DIFFERENCE: Final = 1e-3
_LOSS_ALLOWED: Final = 1.02
"""Log loss in eight bits over that in single precision."""
EIGHT_BITS: Final = "eight_bits"
_AT_ONCE: Final = 256
"""Faces: a folder may have very many."""


class ExportError(Exception):
    """The network cannot be exported, or its file does not do what it did."""


class ServingNetwork(nn.Module):
    """What serves: the four emotions' logits, the feature map, and what the head sees.

    With ``flip`` the logits are those of the mean of the face's and its mirror
    image's pooled features; the feature map is always the face's own. Without it,
    logits are the head over the map's mean.
    """

    def __init__(self, network: FaceNetwork, flip: bool) -> None:
        super().__init__()
        self.body = network.body
        self.flip = flip
        self.head = nn.Linear(network.head.in_features, len(EMOTIONS))
        with torch.no_grad():
            self.head.weight.copy_(network.head.weight[: len(EMOTIONS)])
            self.head.bias.copy_(network.head.bias[: len(EMOTIONS)])

    def forward(
        self, faces: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        if not self.flip:
            feature_map = self.body(faces)
            pooled = feature_map.mean(dim=(2, 3))
            return self.head(pooled), feature_map, pooled
        # In one go: two would share each weight, which ONNX Runtime cannot quantise.
        count = faces.shape[0]
        maps = self.body(torch.cat([faces, torch.flip(faces, dims=(3,))]))
        means = maps.mean(dim=(2, 3))
        pooled = (means[:count] + means[count:]) / 2
        return self.head(pooled), maps[:count], pooled


def to_onnx(network: FaceNetwork, spec: InputSpec, flip: bool = False) -> bytes:
    """ONNX bytes that keep the contract of ``ml.inference``.

    The body's weights are kept in half precision, which halves the file, and are
    single again as soon as it is loaded. Raises ``ExportError`` where ONNX Runtime
    would answer otherwise than torch with the same weights.
    """
    serving = ServingNetwork(network, flip).eval()
    _round_to_half(serving)
    generator = torch.Generator().manual_seed(0)
    shape = (3, spec.channels, spec.size_px, spec.size_px)
    example = torch.randn(shape, generator=generator)
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                serving,
                (example,),
                input_names=[INPUT_NAME],
                output_names=[LOGITS_NAME, FEATURE_MAP_NAME, FEATURES_NAME],
                dynamic_shapes=({0: torch.export.Dim("faces", min=1, max=4096)},),
                dynamo=True,
                external_data=False,
                optimize=False,
                verbose=False,
            )
    finally:
        logger.setLevel(level)
    if program is None:
        raise ExportError("the exporter returned nothing")
    # The exporter gives a convolution without bias one of zeros, worked out anew at
    # each run: ONNX Runtime cannot fold normalisation into such a convolution, and a
    # face takes much longer (docs/models.md).
    fold_constants(program.model)
    model = program.model_proto
    # Names of source files and lines: of no use to who serves, and not his business.
    for node in model.graph.node:
        del node.metadata_props[:]
    del model.metadata_props[:], model.graph.metadata_props[:]
    del model.graph.value_info[:]
    _store_in_half(model)
    data = bytes(model.SerializeToString())
    weight, bias = read_head(data)
    if weight.shape != (len(EMOTIONS), network.head.in_features) or bias.shape != (
        len(EMOTIONS),
    ):
        raise ExportError(
            f"{HEAD_WEIGHT_NAME} or {HEAD_BIAS_NAME} has the wrong shape: "
            f"{weight.shape}, {bias.shape}"
        )
    difference = _difference_from_torch(serving, data)
    if not difference < _MAX_DIFFERENCE:
        raise ExportError(f"ONNX Runtime answers otherwise than torch: {difference}")
    return data


def _round_to_half(serving: ServingNetwork) -> None:
    """Give the body weights that half precision holds."""
    # The mirrored export must not change the network that it was given.
    serving.body = copy.deepcopy(serving.body)
    with torch.no_grad():
        for weight in serving.body.parameters():
            if weight.ndim > 1:
                weight.copy_(weight.half())


def _store_in_half(model: onnx.ModelProto) -> None:
    """Store in half precision what ``_round_to_half`` rounded, behind a cast.

    Tensors keep their names. The head stays as it is: retraining exchanges it.
    """
    casts = []
    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if not (tensor.name.startswith("body.") and values.ndim > 1):
            continue
        single = f"{tensor.name}.single"
        for node in model.graph.node:
            for position, name in enumerate(node.input):
                if name == tensor.name:
                    node.input[position] = single
        tensor.CopyFrom(
            onnx.numpy_helper.from_array(values.astype(np.float16), tensor.name)
        )
        casts.append(
            onnx.helper.make_node(
                "Cast", [tensor.name], [single], to=onnx.TensorProto.FLOAT
            )
        )
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def export_result(
    result: TrainingResult,
    path: Path,
    validation: FaceSet,
    *,
    version: str,
    flip: bool = False,
    eight_bits: bool | None = False,
    source: LabelSource = "consensus",
    measured_on: dict[str, FaceSet] | None = None,
) -> ModelManifest:
    """Export, check against torch, calibrate on validation, measure, write.

    ``eight_bits`` quantises the network; None asks validation whether it may.
    ``measured_on`` names further sets (``{"test": ...}``) whose figures go into the
    manifest, against both label sources where both are known. Raises
    ``ExportError``; nothing is written then.
    """
    model_config = result.config.model
    spec = model_config.input_spec
    data = to_onnx(result.network, spec, flip)
    manifest = ModelManifest(
        version=version,
        architecture=model_config.architecture,
        sha256=sha256_of(data),
        size_bytes=len(data),
        created_at=_now(),
        input=spec,
        training={
            "config": result.config.to_dict(),
            "averaged_with": [one.to_dict() for one in result.averaged_with],
            "epochs_done": len(result.history),
            "flip_folded": flip,
            "labels": source,
        },
    )
    if eight_bits is not False:
        lighter = _in_eight_bits(manifest, data, validation)
        if eight_bits or not _loses(lighter, (manifest, data), validation, source):
            manifest, data = lighter
    return _write_judged(path, manifest, data, validation, source, measured_on)


def export_quantised(
    model_path: Path,
    path: Path,
    validation: FaceSet,
    *,
    version: str,
    source: LabelSource = "consensus",
    measured_on: dict[str, FaceSet] | None = None,
) -> ModelManifest:
    """Write an exported model's twin that computes in eight bits, calibrated and
    measured anew; ``measured_on`` as for ``export_result``.

    Raises ``ExportError`` where it is one already, ``ManifestError`` and
    ``ModelFileError``.
    """
    manifest, data = load_manifest(model_path), read_model(model_path)
    verify_model(data, manifest)
    if manifest.training.get(EIGHT_BITS):
        raise ExportError(f"{manifest.version} computes in eight bits already.")
    lighter, data = _in_eight_bits(manifest, data, validation)
    lighter = replace(
        lighter, version=version, created_at=_now(), parent=manifest.version
    )
    return _write_judged(path, lighter, data, validation, source, measured_on)


def _in_eight_bits(
    manifest: ModelManifest, data: bytes, validation: FaceSet
) -> tuple[ModelManifest, bytes]:
    """The network that ``data`` holds, quantised: validation's faces tell the
    ranges."""
    lighter = quantise(data, validation.crops, manifest.input.normalisation)
    # With a refitted head, too, it shares its features with nobody.
    training = {k: v for k, v in manifest.training.items() if k != "body_sha256"}
    manifest = replace(
        manifest,
        sha256=sha256_of(lighter),
        size_bytes=len(lighter),
        training=training | {EIGHT_BITS: True},
    )
    return manifest, lighter


def _loses(
    lighter: tuple[ModelManifest, bytes],
    single: tuple[ModelManifest, bytes],
    validation: FaceSet,
    source: LabelSource,
) -> bool:
    """Whether the calibrated log loss on validation says that eight bits are too few.

    They take a part of the time: a little is allowed.
    """
    labelled = validation.take(validation.labels(source) != NO_LABEL)
    losses = [
        _calibrated_loss(
            read_set(EmotionClassifier(manifest, data), labelled.crops),
            labelled.labels(source),
        )
        for manifest, data in (lighter, single)
    ]
    return losses[0] > losses[1] * _LOSS_ALLOWED


def _calibrated_loss(logits: Float32Array, labels: IntArray) -> float:
    """Log loss of logits (N, 4) at the temperature that suits them best."""
    return log_loss(softmax(logits, fit_temperature(logits, labels)), labels)


def _write_judged(
    path: Path,
    manifest: ModelManifest,
    data: bytes,
    validation: FaceSet,
    source: LabelSource,
    measured_on: dict[str, FaceSet] | None = None,
) -> ModelManifest:
    """Calibrate, measure, write; see ``export_result``."""
    manifest = replace(
        manifest,
        calibration=calibrate_as_met(
            EmotionClassifier(manifest, data), validation, source
        ),
    )
    classifier = EmotionClassifier(manifest, data)
    sources: tuple[LabelSource, ...] = ("consensus", "folder")
    metrics: dict[str, Any] = {
        name: {
            kind: evaluate_model(classifier, faces, kind).to_dict()
            for kind in (sources if faces.votes is not None else sources[1:])
            if (faces.labels(kind) != NO_LABEL).any()
        }
        for name, faces in {"validation": validation, **(measured_on or {})}.items()
    }
    manifest = replace(manifest, metrics=metrics)
    write_model(path, data, manifest)
    return manifest


def calibrate_as_met(
    classifier: EmotionClassifier, validation: FaceSet, source: LabelSource
) -> Calibration:
    """Temperature and bound from validation faces: each as it is, and once varied.

    What visitors bring is often darker, softer and more compressed than a data set,
    and a model that is right less often there should be less sure. They are varied
    as training varies them mildly, with a fixed seed. Raises ``ValueError`` where no
    face has a label.
    """
    labelled = validation.take(validation.labels(source) != NO_LABEL)
    generator = torch.Generator().manual_seed(0)
    varied = [
        augment(labelled.crops[start : start + _AT_ONCE], MILD, generator)
        for start in range(0, len(labelled), _AT_ONCE)
    ]
    logits = read_set(classifier, np.concatenate([labelled.crops, *varied]))
    return calibrate(logits, np.tile(labelled.labels(source), 2))


def flip_pays(result: TrainingResult, validation: FaceSet, source: LabelSource) -> bool:
    """Whether folding the mirrored face in lowers the calibrated log loss on
    validation: it doubles the time a face."""
    labelled = validation.take(validation.labels(source) != NO_LABEL)
    labels = labelled.labels(source)
    losses = []
    for flip in (False, True):
        serving = ServingNetwork(result.network, flip).eval()
        with torch.inference_mode():
            logits = np.concatenate(
                [
                    serving(
                        torch.from_numpy(
                            normalise(
                                labelled.crops[start : start + _AT_ONCE],
                                Normalisation(),
                            )
                        )
                    )[0].numpy()
                    for start in range(0, len(labelled), _AT_ONCE)
                ]
            )
        losses.append(_calibrated_loss(logits, labels))
    return losses[1] < losses[0]


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def write_model(path: Path, data: bytes, manifest: ModelManifest) -> None:
    """Write a model file, then the manifest that vouches for it.

    Between the two a reader finds a file that its manifest does not describe, and
    refuses it: never a wrong pair.
    """
    write_atomically(path, data)
    write_atomically(manifest_path(path), manifest.to_json().encode())


def _difference_from_torch(serving: ServingNetwork, data: bytes) -> float:
    """Largest difference of logits between torch and ONNX Runtime, on noise."""
    session = open_session(data, provider="cpu")
    shape = [5, *session.get_inputs()[0].shape[1:]]
    faces = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    with torch.inference_mode():
        wanted, _, _ = serving(torch.from_numpy(faces))
    (given,) = session.run([LOGITS_NAME], {INPUT_NAME: faces})
    return float(np.abs(wanted.numpy() - given).max())
