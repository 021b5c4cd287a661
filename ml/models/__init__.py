"""The zoo: every network that can be trained, one typed config each."""

from ml.models.base import FaceNetwork
from ml.models.zoo import (
    ARCHITECTURES,
    ModelConfig,
    build_network,
    join,
    load_pretrained,
    parts_of,
)

__all__ = [
    "ARCHITECTURES",
    "FaceNetwork",
    "ModelConfig",
    "build_network",
    "join",
    "load_pretrained",
    "parts_of",
]
