"""Networks in eight bits: they answer as before, and training goes on from them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from ml import export
from ml.checkpoint import TrainingResult
from ml.data import FaceSet
from ml.export import EIGHT_BITS, ExportError, export_quantised, export_result, to_onnx
from ml.inference import (
    FEATURES_NAME,
    INPUT_NAME,
    WEIGHTS_DIR,
    EmotionClassifier,
    Float32Array,
)
from ml.manifest import Normalisation, load_manifest
from ml.models import FaceNetwork, ModelConfig, build_network
from ml.preprocessing import normalise
from ml.quantisation import quantise, read_weights
from ml.runtime import open_session
from ml.starting import start_from
from ml.tests.faces import draw_set
from ml.tests.small import SMALL, small_network
from ml.train_config import TrainConfig

VALIDATION = draw_set(6, 1, votes=True)


def _used_network(config: ModelConfig, faces: FaceSet) -> FaceNetwork:
    """As after training: its normalisation has seen faces, and does something."""
    network = small_network(config)
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
            with torch.no_grad():
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.uniform_(-0.3, 0.3, generator=generator)
    network.train()
    with torch.no_grad():
        network(torch.from_numpy(normalise(faces.crops, Normalisation())))
    return network.eval()


def _features(data: bytes, faces: FaceSet) -> Float32Array:
    (answer,) = open_session(data, provider="cpu").run(
        [FEATURES_NAME], {INPUT_NAME: normalise(faces.crops, Normalisation())}
    )
    return np.asarray(answer, np.float32)


def _lost(given: Float32Array, wanted: Float32Array) -> float:
    """Mean difference, as a part of how much faces differ."""
    return float(np.abs(given - wanted).mean() / wanted.std(axis=0).mean())


@pytest.fixture(scope="module")
def network() -> FaceNetwork:
    return _used_network(SMALL, draw_set(8))


@pytest.fixture(scope="module")
def single(network: FaceNetwork) -> bytes:
    return to_onnx(network, SMALL.input_spec)


@pytest.fixture(scope="module")
def eight(single: bytes) -> bytes:
    return quantise(single, draw_set(8).crops, Normalisation())


@pytest.mark.parametrize(
    ("config", "flip"),
    [
        pytest.param(SMALL, False, id="final"),
        pytest.param(SMALL, True, id="mirrored"),
        pytest.param(replace(SMALL, channels=3), False, id="rgb"),
    ],
)
def test_it_answers_nearly_as_before(config: ModelConfig, flip: bool) -> None:
    faces = draw_set(8, channels=config.channels)
    before = to_onnx(_used_network(config, faces), config.input_spec, flip)

    after = quantise(before, faces.crops, Normalisation())

    others = draw_set(6, 1, channels=config.channels)
    assert _lost(_features(after, others), _features(before, others)) < 0.1


def test_convolutions_alone_are_in_eight_bits_but_for_the_first(eight: bytes) -> None:
    graph = onnx.load_from_string(eight).graph
    onnx.checker.check_model(eight)
    kinds = {tensor.name: tensor.data_type for tensor in graph.initializer}
    assert kinds["body.0.weight"] == onnx.TensorProto.FLOAT
    assert kinds["body.1.conv1.weight_quantized"] == onnx.TensorProto.INT8
    assert kinds["head.weight"] == onnx.TensorProto.FLOAT
    assert {one.domain for one in onnx.load_from_string(eight).opset_import} == {""}


@pytest.mark.parametrize("architecture", ["final", "vgg16"])
def test_weights_come_back_to_the_half_of_a_step(architecture: str) -> None:
    """Where convolutions have a bias before normalisation, too."""
    config = replace(SMALL, architecture=architecture)
    faces = draw_set(2)
    network = _used_network(config, faces)
    single = to_onnx(network, config.input_spec)
    eight = quantise(single, faces.crops, Normalisation())
    weights = read_weights(onnx.load_from_string(eight))
    wanted = {
        name: values.numpy()
        for name, values in network.state_dict().items()
        if name.startswith("body.") and not name.endswith("num_batches_tracked")
    }

    assert {name for name in weights if name.startswith("body.")} == set(wanted)
    for name, values in wanted.items():
        rows = values.reshape(len(values), -1)
        largest = np.abs(rows).max(axis=1)
        # The file they were quantised from kept eleven bits of each.
        allowed = largest * (1 / 254 + 1 / 2048) if values.ndim > 1 else 1e-3
        lost = np.abs(weights[name].reshape(len(values), -1) - rows).max(axis=1)
        assert (lost <= allowed + 1e-6).all(), name


def test_single_precision_is_read_as_it_is(network: FaceNetwork, single: bytes) -> None:
    weights = read_weights(onnx.load_from_string(single))
    for name in ("body.1.norm1.running_var", "body.1.norm2.bias", "head.weight"):
        values = network.state_dict()[name].numpy()
        assert np.allclose(weights[name], values[: len(weights[name])], atol=1e-6)


def _export(network: FaceNetwork, path: Path, eight_bits: bool | None) -> None:
    export_result(
        TrainingResult(network, TrainConfig(SMALL), []),
        path,
        VALIDATION,
        version=path.stem,
        eight_bits=eight_bits,
    )


def test_training_goes_on_from_it(network: FaceNetwork, tmp_path: Path) -> None:
    _export(network, tmp_path / "eight.onnx", True)
    second = build_network(SMALL)

    start_from(second, SMALL, [tmp_path / "eight.onnx"], draw_set(8, votes=True))

    pixels = torch.from_numpy(normalise(VALIDATION.crops, Normalisation()))
    with torch.inference_mode():
        given = second.eval().feature_map(pixels).mean(dim=(2, 3)).numpy()
        wanted = network.feature_map(pixels).mean(dim=(2, 3)).numpy()
    assert _lost(given, wanted) < 0.1


@pytest.mark.parametrize(("allowed", "taken"), [(100.0, True), (0.0, False)])
def test_validation_decides_where_nobody_does(
    allowed: float,
    taken: bool,
    network: FaceNetwork,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(export, "_LOSS_ALLOWED", allowed)
    _export(network, tmp_path / "m.onnx", None)
    manifest = load_manifest(tmp_path / "m.onnx")
    assert bool(manifest.training.get(EIGHT_BITS)) is taken
    EmotionClassifier.load(tmp_path / "m.onnx")


def test_exported_model_gets_a_twin_in_eight_bits_once(
    network: FaceNetwork, tmp_path: Path
) -> None:
    _export(network, tmp_path / "first.onnx", False)

    manifest = export_quantised(
        tmp_path / "first.onnx", tmp_path / "twin.onnx", VALIDATION, version="twin"
    )

    assert manifest == load_manifest(tmp_path / "twin.onnx")
    assert (manifest.version, manifest.parent) == ("twin", "first")
    assert manifest.metrics["validation"]["consensus"]["n"] == len(VALIDATION)
    twin = EmotionClassifier.load(tmp_path / "twin.onnx")
    first = EmotionClassifier.load(tmp_path / "first.onnx")
    crops = VALIDATION.crops
    assert _lost(twin.features(crops), first.features(crops)) < 0.1
    with pytest.raises(ExportError, match="eight bits already"):
        export_quantised(
            tmp_path / "twin.onnx", tmp_path / "more.onnx", VALIDATION, version="more"
        )
    assert not (tmp_path / "more.onnx").exists()


def test_refitted_head_does_not_make_it_share_features(
    network: FaceNetwork, tmp_path: Path
) -> None:
    """Features that are kept for the body are those of single precision."""
    path = tmp_path / "first.onnx"
    _export(network, path, False)
    manifest = load_manifest(path)
    training = manifest.training | {"body_sha256": "0" * 64}
    manifest_json = replace(manifest, training=training).to_json()
    path.with_suffix(".json").write_text(manifest_json)

    twin = export_quantised(path, tmp_path / "twin.onnx", VALIDATION, version="twin")

    assert twin.body_sha256 == twin.sha256


def test_shipped_one_computes_in_eight_bits() -> None:
    manifest = load_manifest(WEIGHTS_DIR / "champion.onnx")
    assert manifest.training[EIGHT_BITS] is True
