"""The final network: a small residual one, pre-activated, with channel attention.

He et al., "Identity Mappings in Deep Residual Networks", 2016; Hu et al.,
"Squeeze-and-Excitation Networks", 2018. Its last map keeps 6 x 6 places, so that
the class activation map can tell a mouth from a brow.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from ml.models.base import start_at_random


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int, reduction: int = 4) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, channels // reduction, 1)
        self.excite = nn.Conv2d(channels // reduction, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate = x.mean(dim=(2, 3), keepdim=True)
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(gate))))
        return x * gate


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions, each after normalisation and ReLU."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.norm1 = nn.BatchNorm2d(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.attention = SqueezeExcite(channels)
        self.shortcut = (
            nn.Conv2d(channels_in, channels, 1, bias=False)
            if stride != 1 or channels_in != channels
            else None
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        active = F.relu(self.norm1(x))
        out = self.conv2(F.relu(self.norm2(self.conv1(active))))
        out = self.attention(out)
        if self.shortcut is not None:
            # Averaging before the 1 x 1 keeps what a stride would skip.
            x = self.shortcut(F.avg_pool2d(active, 2) if self.stride == 2 else active)
        return torch.as_tensor(x + out)


def residual_body(
    channels: int, widths: Sequence[int], depths: Sequence[int]
) -> nn.Sequential:
    """Stem with stride 2, then stages; the second and third halve again."""
    layers: list[nn.Module] = [nn.Conv2d(channels, widths[0], 3, 2, 1, bias=False)]
    width_in = widths[0]
    for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        for block in range(depth):
            stride = 2 if block == 0 and stage in (1, 2) else 1
            layers.append(ResidualBlock(width_in, width, stride))
            width_in = width
    layers += [nn.BatchNorm2d(width_in), nn.ReLU()]
    body = nn.Sequential(*layers)
    start_at_random(body)
    return body
