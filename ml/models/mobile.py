"""A light network that learned faces before it learned emotions.

The first eleven of the thirteen separable blocks of MobileNet (Howard et al.,
"MobileNets", 2017), with the weights of Savchenko, "Efficient facial representations
for age, gender and identity recognition", PeerJ Computer Science 5:e197, 2019: they
told the people of VGGFace2 apart, then age and gender. What was folded into
convolutions there is batch normalisation again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ml.models.base import start_at_random
from ml.models.recognition import TYPICAL_DEVIATION, calibrate, layers_of

MOBILE_WIDTHS: Final = (32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512)
"""Channels behind the stem and behind each block."""
_STRIDES: Final = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1)
_LAYERS: Final = 3
"""A convolution, its normalisation, its ReLU."""
_MIDDLE_GREY: Final = 127.5
"""Of the grey levels that the weights take; ours lie around zero."""
_TYPES: Final = {"float16": "<f2", "float32": "<f4", "int32": "<i4"}

Float32Array = npt.NDArray[np.float32]


class MobileBody(nn.Sequential):
    """Layers in a row, of which the first ``fixed`` stay as they are in training."""

    def __init__(self, layers: Sequence[nn.Module], fixed: int) -> None:
        super().__init__(*layers)
        self.fixed = fixed
        for layer in layers[:fixed]:
            layer.requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for layer in list(self)[: self.fixed]:
            layer.eval()  # Normalisation would follow each batch.
        return self


def mobile_body(channels: int, scale: float, fixed_blocks: int = 0) -> MobileBody:
    """``scale`` enlarges the face first: the weights know faces of 224 pixels.

    (N, channels, S, S) -> (N, 512, h, h) with h = S * scale / 16. With
    ``fixed_blocks`` stem and first blocks do not learn, which halves the time: what
    they know are edges.
    """
    layers: list[nn.Module] = [
        nn.Upsample(scale_factor=scale, mode="bilinear", align_corners=False)
    ]
    layers += _convolution(channels, MOBILE_WIDTHS[0], 3, stride=2)
    for stride, width_in, width in zip(
        _STRIDES, MOBILE_WIDTHS[:-1], MOBILE_WIDTHS[1:], strict=True
    ):
        layers += _convolution(width_in, width_in, 3, stride, groups=width_in)
        layers += _convolution(width_in, width, 1)
    fixed = 1 + _LAYERS * (1 + 2 * fixed_blocks) if fixed_blocks else 0
    body = MobileBody(layers, fixed)
    start_at_random(body)
    return body


def _convolution(
    channels_in: int, channels: int, side: int, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    return [
        nn.Conv2d(
            channels_in, channels, side, stride, side // 2, groups=groups, bias=False
        ),
        nn.BatchNorm2d(channels),
        nn.ReLU6(inplace=True),
    ]


def load_faceres(body: nn.Module, path: Path, faces: torch.Tensor) -> None:
    """Fill ``body`` from ``faceres.json`` and the ``faceres.bin`` beside it.

    ``faces`` (N, channels, S, S), normalised, is a sample, a few hundred, of what
    will be trained on: from it come the statistics of the batch normalisation, so
    that the network starts as the function that was trained. Raises ``ValueError``
    where the file is another, and ``OSError``.
    """
    tensors = _read_tensors(path)
    layers = list(layers_of(body))
    taken = [_stem(tensors, layers[0][0].in_channels)]
    for block in range(1, len(layers) // 2 + 1):
        deep, point = f"conv_dw_{block}", f"conv_pw_{block}"
        taken.append(
            (
                _tensor(tensors, f"{deep}/depthwise_kernel").permute(2, 3, 0, 1),
                _tensor(tensors, f"{deep}_bn/batchnorm_1/mul"),
                _tensor(tensors, f"{deep}_bn/batchnorm_1/sub"),
            )
        )
        kernel = _tensor(tensors, f"{point}/convolution/merged_input")
        taken.append(
            (
                kernel.permute(3, 2, 0, 1),
                torch.ones(kernel.shape[-1]),
                _tensor(tensors, f"{point}_bn/batchnorm_1/sub"),
            )
        )
    with torch.no_grad():
        for (convolution, norm), (kernel, factor, summand) in zip(
            layers, taken, strict=True
        ):
            if kernel.shape != convolution.weight.shape:
                raise ValueError("its network has other layers")
            convolution.weight.copy_(kernel)
            norm.weight.copy_(factor)
            norm.bias.copy_(summand)
    calibrate(body, [norm for _, norm in layers], faces)


def _stem(
    tensors: Mapping[str, Float32Array], channels: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The first convolution, for grey levels of mean 0 and deviation 1."""
    kernel = _tensor(tensors, "conv1/convolution/merged_input").permute(3, 2, 0, 1)
    bias = _tensor(tensors, "conv1_bn/batchnorm_1/sub")
    bias = bias + _MIDDLE_GREY * kernel.sum(dim=(1, 2, 3))
    if channels == 1:
        kernel = kernel.sum(dim=1, keepdim=True)
    return kernel * TYPICAL_DEVIATION, torch.ones(len(kernel)), bias


def _tensor(tensors: Mapping[str, Float32Array], name: str) -> torch.Tensor:
    if name not in tensors:
        raise ValueError(f"it has no {name}")
    return torch.from_numpy(tensors[name])


def _read_tensors(path: Path) -> dict[str, Float32Array]:
    """TensorFlow.js: a JSON file that lists the tensors of the files beside it."""
    groups = json.loads(path.read_bytes()).get("weightsManifest")
    if not groups:
        raise ValueError("it lists no tensors of TensorFlow.js")
    tensors: dict[str, Float32Array] = {}
    for group in groups:
        # Only the name: a file that says ../.. is not followed there.
        data = b"".join(
            (path.parent / Path(name).name).read_bytes() for name in group["paths"]
        )
        position = 0
        for entry in group["weights"]:
            kind = np.dtype(_TYPES[_stored_type(entry)])
            size = math.prod(entry["shape"])
            values = np.frombuffer(data, kind, size, position)
            position += size * kind.itemsize
            tensors[entry["name"]] = values.astype(np.float32).reshape(entry["shape"])
    return tensors


def _stored_type(entry: Mapping[str, Any]) -> str:
    return str(entry.get("quantization", entry)["dtype"])
