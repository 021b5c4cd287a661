"""The start from MobileNet: its file format, and that the function is kept."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ml.models.mobile import load_faceres, mobile_body
from ml.models.recognition import recognition_body

Tensors = dict[str, np.ndarray]


def _body(channels: int = 1) -> nn.Sequential:
    return mobile_body(channels, scale=2)


def _faces(count: int, channels: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, channels, 16, 16, generator=generator)


def _write(path: Path, stored: str = "float32") -> Tensors:
    """A file of the same form with random weights, small enough not to overflow."""
    rng = np.random.default_rng(3)
    tensors: Tensors = {}
    stem = nn.Conv2d(3, 32, 3)
    others = [m for m in _body() if isinstance(m, nn.Conv2d)][1:]
    tensors["conv1/convolution/merged_input"] = rng.normal(0, 0.02, (3, 3, 3, 32))
    tensors["conv1_bn/batchnorm_1/sub"] = rng.normal(0, 0.3, stem.out_channels)
    for number, convolution in enumerate(others):
        block, width = number // 2 + 1, convolution.out_channels
        if convolution.groups > 1:
            name = f"conv_dw_{block}"
            kernel = rng.normal(0, 0.3, (3, 3, width, 1))
            tensors[f"{name}/depthwise_kernel"] = kernel
            tensors[f"{name}_bn/batchnorm_1/mul"] = rng.uniform(0.5, 1.5, width)
        else:
            name = f"conv_pw_{block}"
            shape = (1, 1, convolution.in_channels, width)
            deviation = (2 / convolution.in_channels) ** 0.5
            kernel = rng.normal(0, deviation, shape)
            tensors[f"{name}/convolution/merged_input"] = kernel
        tensors[f"{name}_bn/batchnorm_1/sub"] = rng.normal(0, 0.3, width)
    tensors = {name: value.astype(stored) for name, value in tensors.items()}
    listed = []
    for name, value in tensors.items():
        entry: dict[str, object] = {
            "name": name,
            "shape": value.shape,
            "dtype": "float32",
        }
        if stored != "float32":
            entry["quantization"] = {"dtype": stored, "original_dtype": "float32"}
        listed.append(entry)
    data = b"".join(value.tobytes() for value in tensors.values())
    path.with_suffix(".bin").write_bytes(data)
    groups = [{"paths": [path.with_suffix(".bin").name], "weights": listed}]
    path.write_text(json.dumps({"weightsManifest": groups}))
    return {name: value.astype(np.float32) for name, value in tensors.items()}


def _as_it_was_trained(tensors: Tensors, grey_levels: torch.Tensor) -> torch.Tensor:
    """Convolutions, a factor for the deep ones, a summand, 0 to 6: by hand."""

    def layer(
        x: torch.Tensor, kernel: str, norm: str, stride: int, beyond: float = 0.0
    ) -> torch.Tensor:
        weight = torch.from_numpy(tensors[kernel])
        deep = kernel.endswith("depthwise_kernel")
        weight = weight.permute(2, 3, 0, 1) if deep else weight.permute(3, 2, 0, 1)
        groups = len(weight) if deep else 1
        edge = weight.shape[-1] // 2
        x = F.pad(x, (edge, edge, edge, edge), value=beyond)
        out = F.conv2d(x, weight, None, stride, groups=groups)
        if deep:
            out = out * torch.from_numpy(tensors[f"{norm}/mul"]).view(1, -1, 1, 1)
        out = out + torch.from_numpy(tensors[f"{norm}/sub"]).view(1, -1, 1, 1)
        return out.clamp(0, 6)

    x = F.interpolate(grey_levels, scale_factor=2, mode="bilinear", align_corners=False)
    # Zero stands for black there and for middle grey here, beyond the edge as well.
    x = layer(x, "conv1/convolution/merged_input", "conv1_bn/batchnorm_1", 2, 127.5)
    for number, stride in enumerate((1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1), start=1):
        deep, point = f"conv_dw_{number}", f"conv_pw_{number}"
        x = layer(x, f"{deep}/depthwise_kernel", f"{deep}_bn/batchnorm_1", stride)
        x = layer(x, f"{point}/convolution/merged_input", f"{point}_bn/batchnorm_1", 1)
    return x


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("stored", ["float32", "float16"])
def test_network_starts_as_the_function_that_was_trained(
    tmp_path: Path, channels: int, stored: str
) -> None:
    tensors = _write(tmp_path / "faceres.json", stored)
    body = _body(channels)
    faces = _faces(16, channels)
    load_faceres(body, tmp_path / "faceres.json", faces)
    with torch.inference_mode():
        given = body.eval()(faces)
        grey_levels = faces.expand(-1, 3, -1, -1) * 60 + 127.5
        wanted = _as_it_was_trained(tensors, grey_levels)
    assert given.shape == (16, 512, 2, 2)
    assert wanted.std() > 0.1
    assert torch.allclose(given, wanted, rtol=1e-3, atol=1e-3)


def test_statistics_are_those_of_the_faces(tmp_path: Path) -> None:
    _write(tmp_path / "faceres.json")
    body = _body()
    faces = _faces(64)
    load_faceres(body, tmp_path / "faceres.json", faces)
    with torch.no_grad():
        settled = body.eval()(faces)
        in_training = body.train()(faces)
    assert torch.allclose(settled, in_training, rtol=5e-2, atol=5e-2)


def test_other_files_are_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / "faceres.json"
    path.write_text('{"version": "mien-1"}')
    with pytest.raises(ValueError, match="lists no tensors"):
        load_faceres(_body(), path, _faces(2))

    _write(path)
    with pytest.raises(ValueError, match="other layers"):
        load_faceres(
            recognition_body(1, (32, 64), (1, 1), (1, 2), scale=2), path, _faces(2)
        )

    path.write_text(path.read_text().replace("conv_dw_4/", "conv_dw_four/"))
    with pytest.raises(ValueError, match="has no conv_dw_4"):
        load_faceres(_body(), path, _faces(2))


def test_file_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "faceres.json"
    _write(path)
    data = path.with_suffix(".bin").read_bytes()
    path.with_suffix(".bin").write_bytes(data[:-400])
    with pytest.raises(ValueError, match="buffer"):
        load_faceres(_body(), path, _faces(2))
    path.with_suffix(".bin").unlink()
    with pytest.raises(FileNotFoundError):
        load_faceres(_body(), path, _faces(2))


def test_fixed_blocks_do_not_learn() -> None:
    body = mobile_body(1, scale=2, fixed_blocks=1).train()
    before = [value.clone() for value in body.state_dict().values()]
    optimiser = torch.optim.SGD(body.parameters(), lr=0.1, weight_decay=0.1)

    body(_faces(4)).mean().backward()
    optimiser.step()

    moved = {
        int(name.partition(".")[0])
        for (name, value), old in zip(body.state_dict().items(), before, strict=True)
        if not torch.equal(value, old)
    }
    convolutions_and_norms = {
        number
        for number, layer in enumerate(body)
        if isinstance(layer, nn.Conv2d | nn.BatchNorm2d)
    }
    # Enlarging, the stem, and two convolutions of a block, each with what follows it.
    assert moved == {number for number in convolutions_and_norms if number >= 10}
