"""Networks that train and export in seconds, in all else like the one that ships."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import torch

from ml.checkpoint import TrainingResult
from ml.export import export_result
from ml.models import FaceNetwork, ModelConfig, build_network
from ml.tests.faces import draw_set
from ml.train_config import TrainConfig

SMALL: Final = ModelConfig("final", outputs=10, widths=(8, 8, 16, 16))


def small_network(config: ModelConfig = SMALL, seed: int = 0) -> FaceNetwork:
    torch.manual_seed(seed)
    return build_network(config).eval()


def write_exported(network: FaceNetwork, config: TrainConfig, path: Path) -> Path:
    """The network's file and manifest, as they ship; ``config`` says how it was
    trained."""
    result = TrainingResult(network, config, [])
    export_result(result, path, draw_set(3, 1, votes=True), version=path.stem)
    return path
