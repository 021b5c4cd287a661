"""The averaged weights, and the statistics that go with them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from ml.averaging import measure_statistics
from ml.manifest import Normalisation
from ml.models.mobile import MobileBody
from ml.preprocessing import normalise
from ml.tests.faces import draw_set
from ml.tests.test_train import TINY
from ml.train import train


def _norms(network: nn.Module) -> list[nn.BatchNorm2d]:
    return [one for one in network.modules() if isinstance(one, nn.BatchNorm2d)]


def test_trained_network_has_the_statistics_of_its_averaged_weights(
    tmp_path: Path,
) -> None:
    faces = draw_set(8, votes=True)
    config = replace(TINY, augmentation=None, batch_size=len(faces))

    network = train(config, faces, draw_set(2, 1, votes=True), tmp_path).network

    seen: list[torch.Tensor] = []
    first = _norms(network)[0]
    first.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.inference_mode():
        network(torch.from_numpy(normalise(faces.crops, Normalisation())))
    assert first.running_mean is not None
    wanted = seen[0].mean(dim=(0, 2, 3))
    assert torch.allclose(first.running_mean, wanted, atol=1e-5)


def test_statistics_are_the_mean_over_all_batches() -> None:
    network = nn.Sequential(nn.BatchNorm2d(1, momentum=0.3), nn.Dropout(0.5))

    measure_statistics(network, [torch.full((2, 1, 4, 4), float(n)) for n in range(5)])

    (norm,) = _norms(network)
    assert norm.running_mean is not None
    assert norm.running_mean.item() == 2.0
    assert norm.momentum == 0.3
    assert not any(module.training for module in network.modules())


def test_layers_that_are_held_fixed_keep_their_statistics() -> None:
    fixed, learning = nn.BatchNorm2d(1), nn.BatchNorm2d(1)
    assert fixed.running_mean is not None
    assert learning.running_mean is not None
    fixed.running_mean.fill_(7.0)

    measure_statistics(MobileBody([fixed, learning], 1), [torch.ones(2, 1, 4, 4)])

    assert fixed.running_mean.item() == 7.0
    assert learning.running_mean.item() != 0.0
