"""Names -> networks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ml.manifest import InputSpec
from ml.models.base import FaceNetwork
from ml.models.residual import residual_body


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Which network.

    ``widths`` and ``depths`` count for ``final`` alone; ``outputs`` is the number
    of the head's rows in training, at least four.
    """

    architecture: str = "final"
    channels: int = 1
    size_px: int = 48
    outputs: int = 4
    dropout: float = 0.2
    widths: tuple[int, ...] = (32, 64, 128, 192)
    depths: tuple[int, ...] = (1, 1, 2, 1)

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES:
            raise ValueError(
                f"unknown network {self.architecture!r}: choose one of "
                f"{', '.join(ARCHITECTURES)}"
            )
        if self.outputs < 4:
            raise ValueError("outputs must be at least the four emotions")
        if len(self.widths) != len(self.depths):
            raise ValueError("widths and depths must be of one length")
        if not 0 <= self.dropout < 1:
            raise ValueError("dropout must lie in [0, 1)")
        InputSpec(self.size_px, 3 if self.channels == 3 else 1)


def _final(config: ModelConfig) -> FaceNetwork:
    body = residual_body(config.channels, config.widths, config.depths)
    return FaceNetwork(body, config.widths[-1], config.outputs, config.dropout)


ARCHITECTURES: Final[dict[str, Callable[[ModelConfig], FaceNetwork]]] = {
    "final": _final,
}


def build_network(config: ModelConfig) -> FaceNetwork:
    return ARCHITECTURES[config.architecture](config)
