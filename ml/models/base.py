"""What all networks have in common: a body, average pooling, a linear head.

This form is what lets the head be refitted alone and gives the class activation
map for nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
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


class TwinBody(nn.Module):
    """Bodies side by side: the head sees the maps of all, which are of one size."""

    def __init__(self, bodies: Iterable[nn.Module]) -> None:
        super().__init__()
        self.bodies = nn.ModuleList(bodies)

    def forward(self, faces: torch.Tensor) -> torch.Tensor:
        return torch.cat([body(faces) for body in self.bodies], dim=1)
