"""Where networks start: exported models, and a twin from two networks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ml.checkpoint import TrainingResult
from ml.export import export_result
from ml.labels import EMOTIONS
from ml.models import FaceNetwork, ModelConfig, build_network
from ml.starting import StartError, start_from
from ml.tests.faces import draw_set
from ml.train import train
from ml.train_config import TrainConfig, TrainingError

FACES = draw_set(8, votes=True)
SMALL = ModelConfig("final", outputs=10, widths=(8, 8, 16, 16))


def _network(config: ModelConfig, seed: int) -> FaceNetwork:
    torch.manual_seed(seed)
    return build_network(config).eval()


def _exported(network: FaceNetwork, config: ModelConfig, path: Path) -> Path:
    result = TrainingResult(network, TrainConfig(model=config), [])
    export_result(result, path, draw_set(3, 1, votes=True), version="start")
    return path


def _pixels() -> torch.Tensor:
    return torch.randn(4, 1, 48, 48, generator=torch.Generator().manual_seed(0))


def test_exported_model_goes_on_with_its_four_rows(tmp_path: Path) -> None:
    first = _network(SMALL, 1)
    path = _exported(first, SMALL, tmp_path / "first.onnx")
    second = _network(SMALL, 2)

    start_from(second, SMALL, [path], FACES)

    emotions = len(EMOTIONS)
    with torch.inference_mode():
        wanted, given = first(_pixels()), second.eval()(_pixels())
    # The file keeps the body in half precision.
    assert torch.allclose(given[:, :emotions], wanted[:, :emotions], atol=0.02)
    assert (given[:, emotions:] == 0).all()


@pytest.mark.parametrize(
    ("architecture", "other"),
    [
        ("twin", "recognition"),
        ("twin-mobile", "mobile-large"),
        ("twin-mobile-192", "mobile-192"),
    ],
)
def test_twin_starts_as_the_mean_of_its_two_networks(
    architecture: str, other: str, tmp_path: Path
) -> None:
    config = replace(SMALL, architecture=architecture)
    first = _network(replace(SMALL, architecture=other), 1)
    second = _network(SMALL, 2)
    torch.save({"average": first.state_dict()}, tmp_path / "checkpoint.pt")
    torch.save({"average": second.state_dict()}, tmp_path / "other.pt")
    twin = _network(config, 3)

    start_from(twin, config, [tmp_path / "checkpoint.pt", tmp_path / "other.pt"], FACES)

    with torch.inference_mode():
        wanted = (first(_pixels()) + second(_pixels())) / 2
        assert torch.allclose(twin.eval()(_pixels()), wanted, atol=1e-4)


def test_twin_that_was_exported_starts_another(tmp_path: Path) -> None:
    config = replace(SMALL, architecture="twin")
    first = _network(config, 1)
    path = _exported(first, config, tmp_path / "twin.onnx")
    second = _network(config, 2)

    start_from(second, config, [path], FACES)

    with torch.inference_mode():
        wanted = first.feature_map(_pixels())
        given = second.eval().feature_map(_pixels())
    assert (given - wanted).abs().max() < 0.01 * wanted.max()


def test_more_files_than_bodies_are_refused(tmp_path: Path) -> None:
    config = TrainConfig(replace(SMALL), epochs=1, batch_size=4, device="cpu")
    paths = [tmp_path / "one.pt", tmp_path / "two.pt"]

    with pytest.raises(TrainingError, match=r"2 files .* 'final' takes one"):
        train(config, FACES, draw_set(2, 1, votes=True), tmp_path, pretrained=paths)


def test_model_whose_file_was_changed_is_refused(tmp_path: Path) -> None:
    path = _exported(_network(SMALL, 1), SMALL, tmp_path / "first.onnx")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    before = _network(SMALL, 2)
    kept = [value.clone() for value in before.state_dict().values()]

    with pytest.raises(StartError, match=r"first\.onnx cannot be used"):
        start_from(before, SMALL, [path], FACES)

    for value, old in zip(before.state_dict().values(), kept, strict=True):
        assert np.array_equal(value, old)


@pytest.mark.parametrize("suffix", [".pt", ".onnx"])
def test_smaller_network_leaves_nothing_of_a_larger_one_random(
    suffix: str, tmp_path: Path
) -> None:
    config = replace(SMALL, architecture="recognition")
    small = _network(config, 1)
    path = tmp_path / f"small{suffix}"
    if suffix == ".onnx":
        _exported(small, config, path)
    else:
        torch.save({"average": small.state_dict()}, path)
    large = replace(config, architecture="recognition-large")

    with pytest.raises(StartError, match=r"it has no body\.16"):
        start_from(_network(large, 2), large, [path], FACES)
