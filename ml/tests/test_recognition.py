"""The start from dlib's network: its file format, and that the function is kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ml.export import to_onnx
from ml.manifest import InputSpec
from ml.models import ModelConfig, build_network
from ml.models.recognition import load_dlib, recognition_body

_WIDTHS = (8, 16)


def _body(channels: int = 1) -> nn.Sequential:
    return recognition_body(channels, _WIDTHS, (1, 1), (1, 2), scale=2)


def _packed(values: np.ndarray) -> bytes:
    length = (values.size.bit_length() + 7) // 8
    size = bytes([length]) + values.size.to_bytes(length, "little")
    return b"\x01\x02" + size + b"\x01\x01" * 3 + values.astype("<f4").tobytes()


def _write_dlib(path: Path, body: nn.Module) -> list[tuple[torch.Tensor, ...]]:
    """A file of the same form with random weights; (weight, bias, scale, shift)."""
    rng = np.random.default_rng(3)
    layers = []
    data = b"\x01\x01\x01\rloss_metric_2\x00some names"
    for conv in (m for m in body.modules() if isinstance(m, nn.Conv2d)):
        channels_in = 3 if conv.kernel_size[0] == 7 else conv.in_channels
        shape = (conv.out_channels, channels_in, *conv.kernel_size)
        weight = rng.normal(0, 0.2, shape).astype(np.float32)
        bias, shift = rng.normal(0, 0.3, (2, conv.out_channels)).astype(np.float32)
        scale = rng.uniform(0.5, 2, conv.out_channels).astype(np.float32)
        data += b"con_4" + _packed(np.concatenate([weight.ravel(), bias]))
        data += b"affine_" + _packed(np.concatenate([scale, shift]))
        layers.append(tuple(map(torch.from_numpy, (weight, bias, scale, shift))))
    path.write_bytes(data + b"the end")
    return layers


def _as_dlib_computes(
    layers: list[tuple[torch.Tensor, ...]], faces: torch.Tensor
) -> torch.Tensor:
    """Convolution with bias, then a frozen scale and shift, by hand."""

    def layer(x: torch.Tensor, number: int, stride: int) -> torch.Tensor:
        weight, bias, scale, shift = layers[number]
        out = F.conv2d(x, weight, bias, stride, weight.shape[-1] // 2)
        return out * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)

    x = F.interpolate(faces, scale_factor=2, mode="bilinear", align_corners=False)
    x = x.expand(-1, 3, -1, -1) * 60 / 256
    x = F.max_pool2d(F.relu(layer(x, 0, 2)), 3, 2, 1)
    for number, stride in ((1, 1), (3, 2)):
        out = layer(F.relu(layer(x, number, stride)), number + 1, 1)
        skipped = F.avg_pool2d(x, 2) if stride == 2 else x
        padding = out.shape[1] - skipped.shape[1]
        x = F.relu(out + F.pad(skipped, (0, 0, 0, 0, 0, padding)))
    return x


def test_network_starts_as_the_function_that_dlib_trained(tmp_path: Path) -> None:
    body = _body()
    layers = _write_dlib(tmp_path / "dlib.dat", body)
    generator = torch.Generator().manual_seed(0)
    faces = torch.randn(16, 1, 24, 24, generator=generator)
    load_dlib(body, tmp_path / "dlib.dat", faces)
    with torch.inference_mode():
        given = body.eval()(faces)
        wanted = _as_dlib_computes(layers, faces)
    assert given.shape == (16, 16, 6, 6)
    assert torch.allclose(given, wanted, rtol=1e-3, atol=1e-3)


def test_statistics_are_those_of_the_faces(tmp_path: Path) -> None:
    body = _body()
    _write_dlib(tmp_path / "dlib.dat", body)
    generator = torch.Generator().manual_seed(0)
    faces = torch.randn(64, 1, 24, 24, generator=generator)
    load_dlib(body, tmp_path / "dlib.dat", faces)
    with torch.no_grad():
        settled = body.eval()(faces)
        in_training = body.train()(faces)
    assert torch.allclose(settled, in_training, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("content", [b"", b"another file", b"\x01\x02\x02\x20\x12"])
def test_another_file_is_refused_in_words(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "dlib.dat"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="not dlib's"):
        load_dlib(_body(), path, torch.zeros(2, 1, 24, 24))


def test_file_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    body = _body()
    path = tmp_path / "dlib.dat"
    _write_dlib(path, body)
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(ValueError, match="cut off"):
        load_dlib(body, path, torch.zeros(2, 1, 24, 24))


def test_exported_body_is_stored_in_half_precision() -> None:
    torch.manual_seed(0)
    network = build_network(ModelConfig("recognition")).eval()
    first = next(iter(network.body.parameters()))
    before = first.clone()
    data = to_onnx(network, InputSpec())
    weights = sum(value.numel() for value in network.body.parameters())
    assert len(data) < 2 * weights + 200_000
    assert torch.equal(first, before)
    tensors = {t.name: t for t in onnx.load_from_string(data).graph.initializer}
    assert tensors["body.1.weight"].data_type == onnx.TensorProto.FLOAT16
    assert tensors["head.weight"].data_type == onnx.TensorProto.FLOAT


def test_onnx_runtime_folds_normalisation_into_convolutions(tmp_path: Path) -> None:
    torch.manual_seed(0)
    data = to_onnx(build_network(ModelConfig("recognition")).eval(), InputSpec())
    stored = {node.op_type for node in onnx.load_from_string(data).graph.node}
    assert "BatchNormalization" in stored  # Retraining goes on from it.
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "runs.onnx")
    ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    run = {node.op_type for node in onnx.load(tmp_path / "runs.onnx").graph.node}
    assert run.isdisjoint({"BatchNormalization", "Expand", "Cast"})
