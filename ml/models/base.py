"""What all networks have in common: a body, average pooling, a linear head.

This form is what lets the head be refitted alone and gives the class activation
map for nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import nn


class FaceNetwork(nn.Module):
    """``body`` maps (N, C_in, S, S) to (N, C, h, w); the head's first four rows
    are the emotions. Further rows, where training aims at more than the four, are
    left behind on export."""

    def __init__(
        self, body: nn.Module, features: int, outputs: int, dropout: float
    ) -> None:
        super().__init__()
        self.body = body
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(features, outputs)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    def feature_map(self, faces: torch.Tensor) -> torch.Tensor:
        """(N, C, h, w), not negative: what the class activation map weighs."""
        return torch.as_tensor(self.body(faces))

    def forward(self, faces: torch.Tensor) -> torch.Tensor:
        """Logits (N, outputs)."""
        pooled = self.feature_map(faces).mean(dim=(2, 3))
        return torch.as_tensor(self.head(self.dropout(pooled)))


def start_at_random(body: nn.Module) -> None:
    """Give the convolutions weights that keep the scale of what passes a ReLU."""
    for module in body.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")


class TwinBody(nn.Module):
    """Bodies side by side: the head sees the maps of all, in the size of the
    smallest."""

    def __init__(self, bodies: Iterable[nn.Module]) -> None:
        super().__init__()
        self.bodies = nn.ModuleList(bodies)

    def forward(self, faces: torch.Tensor) -> torch.Tensor:
        maps = [body(faces) for body in self.bodies]
        side = min(one.shape[-1] for one in maps)
        return torch.cat([_shrink(one, side) for one in maps], dim=1)


def _shrink(feature_map: torch.Tensor, side: int) -> torch.Tensor:
    """Averages of equal areas, so that the mean of all stays what it was."""
    own = feature_map.shape[-1]
    if own == side:
        return feature_map
    common = math.lcm(own, side)
    fine = F.interpolate(feature_map, scale_factor=common // own, mode="nearest")
    return F.avg_pool2d(fine, common // side)
