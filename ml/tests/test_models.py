from __future__ import annotations

import numpy as np
import pytest
import torch

from ml.export import to_onnx
from ml.inference import read_head
from ml.manifest import InputSpec
from ml.models import ARCHITECTURES, ModelConfig, build_network, load_pretrained
from ml.vision import models


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("architecture", list(ARCHITECTURES))
def test_every_network_gives_logits_and_the_map_behind_them(
    architecture: str, channels: int
) -> None:
    torch.manual_seed(0)
    config = ModelConfig(architecture, channels=channels, outputs=10)
    network = build_network(config).eval()
    faces = torch.randn(2, channels, 48, 48)
    with torch.inference_mode():
        logits, feature_map = network(faces), network.feature_map(faces)
    assert logits.shape == (2, 10)
    assert feature_map.shape[1] == network.head.in_features
    by_hand = network.head(feature_map.mean(dim=(2, 3)))
    assert torch.allclose(logits, by_hand, atol=1e-5)


def test_final_network_fits_its_limits() -> None:
    network = build_network(ModelConfig()).eval()
    assert sum(value.numel() for value in network.parameters()) * 4 < 8_000_000
    with torch.inference_mode():
        assert network.feature_map(torch.zeros(1, 1, 48, 48)).shape[2:] == (6, 6)


@pytest.mark.parametrize("architecture", ["base", "resnet"])
def test_networks_of_the_zoo_export_too(architecture: str) -> None:
    network = build_network(ModelConfig(architecture)).eval()
    weight, bias = read_head(to_onnx(network, InputSpec()))
    assert np.allclose(weight, network.head.weight.detach().numpy())
    assert bias.shape == (4,)


@pytest.mark.parametrize("channels", [1, 3])
def test_weights_of_torchvisions_resnet_are_taken(channels: int) -> None:
    torch.manual_seed(1)
    weights = models.resnet18(weights=None).state_dict()
    network = build_network(ModelConfig("resnet", channels=channels))
    load_pretrained(network, weights)
    first = network.body.state_dict()["0.weight"]
    wanted = weights["conv1.weight"]
    if channels == 1:
        wanted = wanted.sum(dim=1, keepdim=True)
    assert torch.equal(first, wanted)
    last = network.body.state_dict()["7.1.conv2.weight"]
    assert torch.equal(last, weights["layer4.1.conv2.weight"])


def test_weights_of_another_network_are_refused() -> None:
    weights = models.resnet18(weights=None).state_dict()
    with pytest.raises(ValueError, match="another network"):
        load_pretrained(build_network(ModelConfig("final")), weights)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "alexnet"}, "unknown network 'alexnet': choose one of base"),
        ({"outputs": 3}, "at least the four"),
        ({"depths": (1,)}, "one length"),
        ({"dropout": 1.0}, "dropout"),
        ({"channels": 2}, "1 \\(grey\\) or 3"),
    ],
)
def test_contradicting_configs_are_refused(
    change: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ModelConfig(**change)  # type: ignore[arg-type]
