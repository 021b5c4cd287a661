"""A network that learned to tell people apart before it learned emotions.

The first stages of the residual network of dlib's face recognition (King, 2017;
weights in the public domain), which saw about three million faces. Two things differ
from the original: every convolution pads, so that a small face keeps its places, and
what dlib froze into scale and shift is batch normalisation again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import nn

from ml.models.base import start_at_random

_DLIB_CHANNELS: Final = 3
_DLIB_SCALE: Final = 256.0
"""dlib divides grey levels by this; ours have been divided by their deviation."""
TYPICAL_DEVIATION: Final = 60.0
"""Grey levels, standard deviation within a face; what is left of the difference
the calibration takes away."""

Float32Array = npt.NDArray[np.float32]


class RecognitionBlock(nn.Module):
    """Two 3 x 3 convolutions; what skips them is averaged and padded, not learned."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.padding = channels - channels_in
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        if self.stride == 2:
            x = F.avg_pool2d(x, 2)
        if self.padding:
            x = F.pad(x, (0, 0, 0, 0, 0, self.padding))
        return F.relu(out + x)


def recognition_body(
    channels: int,
    widths: Sequence[int],
    depths: Sequence[int],
    strides: Sequence[int],
    scale: float,
) -> nn.Sequential:
    """``scale`` enlarges the face first: the weights know faces of 100 pixels.

    (N, channels, S, S) -> (N, widths[-1], h, h) with h = S * scale / 4 over the
    product of the strides.
    """
    layers: list[nn.Module] = [
        nn.Upsample(scale_factor=scale, mode="bilinear", align_corners=False),
        nn.Conv2d(channels, widths[0], 7, 2, 3, bias=False),
        nn.BatchNorm2d(widths[0]),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
    ]
    width_in = widths[0]
    for width, depth, stride in zip(widths, depths, strides, strict=True):
        for block in range(depth):
            layers.append(
                RecognitionBlock(width_in, width, stride if block == 0 else 1)
            )
            width_in = width
    body = nn.Sequential(*layers)
    start_at_random(body)
    return body


def load_dlib(body: nn.Module, path: Path, faces: torch.Tensor) -> None:
    """Fill ``body`` from ``dlib_face_recognition_resnet_model_v1.dat``.

    ``faces`` (N, channels, S, S), normalised, is a sample, a few hundred, of what
    will be trained on: from it come the statistics of the batch normalisation, so
    that the network starts as the function that dlib trained. Raises ``ValueError``
    where the file is another.
    """
    data = path.read_bytes()
    pairs = list(layers_of(body))
    position = 0
    for conv, norm in pairs:
        first = conv.kernel_size[0] == 7
        channels_in = _DLIB_CHANNELS if first else conv.in_channels
        shape = (conv.out_channels, channels_in, *conv.kernel_size)
        values, position = _read_tensor(
            data, math.prod(shape) + conv.out_channels, position
        )
        affine, position = _read_tensor(data, 2 * conv.out_channels, position)
        weight = torch.from_numpy(values[: -conv.out_channels].reshape(shape))
        if first:
            weight = weight * (TYPICAL_DEVIATION / _DLIB_SCALE)
            if conv.in_channels == 1:
                weight = weight.sum(dim=1, keepdim=True)
        bias = torch.from_numpy(values[-conv.out_channels :])
        gamma, beta = torch.from_numpy(affine).chunk(2)
        with torch.no_grad():
            conv.weight.copy_(weight)
            norm.weight.copy_(gamma)
            norm.bias.copy_(beta + gamma * bias)
    calibrate(body, [norm for _, norm in pairs], faces)


def layers_of(body: nn.Module) -> Iterator[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Convolutions with the normalisation behind each, from the input on."""
    convolutions = [m for m in body.modules() if isinstance(m, nn.Conv2d)]
    norms = [m for m in body.modules() if isinstance(m, nn.BatchNorm2d)]
    # Each body registers a convolution, then its normalisation: both are in order.
    yield from zip(convolutions, norms, strict=True)


def _read_tensor(data: bytes, size: int, start: int) -> tuple[Float32Array, int]:
    """dlib's form of a vector: version 2, four packed sizes, floats."""
    length = (size.bit_length() + 7) // 8
    packed = bytes([length]) + size.to_bytes(length, "little")
    header = b"\x01\x02" + packed + b"\x01\x01" * 3
    found = data.find(header, start)
    begin = found + len(header)
    if found < 0 or begin + 4 * size > len(data):
        raise ValueError("it is not dlib's face recognition network, or cut off")
    values = np.frombuffer(data, "<f4", size, begin).copy()
    return values, begin + 4 * size


@torch.no_grad()
def calibrate(
    body: nn.Module, norms: Sequence[nn.BatchNorm2d], faces: torch.Tensor
) -> None:
    """Give scale and shift their statistics, without changing what comes out."""

    def measure(norm: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if not isinstance(norm, nn.BatchNorm2d):
            raise TypeError("only batch normalisation is calibrated")
        if norm.running_mean is None or norm.running_var is None:
            raise TypeError("batch normalisation keeps statistics")
        mean = inputs[0].mean(dim=(0, 2, 3))
        variance = inputs[0].var(dim=(0, 2, 3))
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
        norm.bias.add_(norm.weight * mean)
        norm.weight.mul_((variance + norm.eps).sqrt())

    handles = [norm.register_forward_pre_hook(measure) for norm in norms]
    body.eval()
    body(faces)
    for handle in handles:
        handle.remove()
