"""Where networks start: exported models, and a twin from two networks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ml.labels import EMOTIONS
from ml.starting import StartError, start_from
from ml.tests.faces import draw_set
from ml.tests.small import SMALL, small_network, write_exported
from ml.train import train
from ml.train_config import TrainConfig, TrainingError

FACES = draw_set(8, votes=True)


def _pixels() -> torch.Tensor:
    return torch.randn(4, 1, 48, 48, generator=torch.Generator().manual_seed(0))


def test_exported_model_goes_on_with_its_four_rows(tmp_path: Path) -> None:
    first = small_network(SMALL, 1)
    path = write_exported(first, TrainConfig(SMALL), tmp_path / "first.onnx")
    second = small_network(SMALL, 2)

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
    first = small_network(replace(SMALL, architecture=other), 1)
    second = small_network(SMALL, 2)
    torch.save({"average": first.state_dict()}, tmp_path / "checkpoint.pt")
    torch.save({"average": second.state_dict()}, tmp_path / "other.pt")
    twin = small_network(config, 3)

    start_from(twin, config, [tmp_path / "checkpoint.pt", tmp_path / "other.pt"], FACES)

    with torch.inference_mode():
        wanted = (first(_pixels()) + second(_pixels())) / 2
        assert torch.allclose(twin.eval()(_pixels()), wanted, atol=1e-4)


def test_twin_that_was_exported_starts_another(tmp_path: Path) -> None:
    config = replace(SMALL, architecture="twin")
    first = small_network(config, 1)
    path = write_exported(first, TrainConfig(config), tmp_path / "twin.onnx")
    second = small_network(config, 2)

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
    path = write_exported(
        small_network(SMALL, 1), TrainConfig(SMALL), tmp_path / "first.onnx"
    )
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    before = small_network(SMALL, 2)
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
    small = small_network(config, 1)
    path = tmp_path / f"small{suffix}"
    if suffix == ".onnx":
        write_exported(small, TrainConfig(config), path)
    else:
        torch.save({"average": small.state_dict()}, path)
    large = replace(config, architecture="recognition-large")

    with pytest.raises(StartError, match=r"it has no body\.16"):
        start_from(small_network(large, 2), large, [path], FACES)
