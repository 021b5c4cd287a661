"""Names -> networks. Every one is a body with average pooling and a linear head, so
that all export alike; what the textbooks put behind their bodies is replaced by it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from torch import nn

from ml.manifest import InputSpec
from ml.models.base import FaceNetwork, TwinBody
from ml.models.mobile import MOBILE_WIDTHS, mobile_body
from ml.models.recognition import recognition_body
from ml.models.residual import residual_body

_FIRST_CONVOLUTION: Final = 3
"""Channels that pretrained networks take."""


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
        if self.channels not in (1, 3):
            raise ValueError("channels must be 1 (grey) or 3 (RGB)")
        InputSpec(self.size_px)

    @property
    def input_spec(self) -> InputSpec:
        """The crops that it takes."""
        return InputSpec(self.size_px, 3 if self.channels == 3 else 1)


def build_network(config: ModelConfig) -> FaceNetwork:
    body, features = ARCHITECTURES[config.architecture](config)
    return FaceNetwork(body, features, config.outputs, config.dropout)


def load_pretrained(network: FaceNetwork, weights: Mapping[str, Any]) -> None:
    """Take torchvision's weights of the same network; its classifier stays behind.

    Where the network takes grey, the first convolution sums over the colours.
    Raises ``ValueError`` where the weights are of another network.
    """
    own = network.body.state_dict()
    prefix = "features." if any(key.startswith("features.") for key in weights) else ""
    renamed = _RESNET_NAMES if "conv1.weight" in weights else {}
    taken: dict[str, torch.Tensor] = {}
    for key, value in weights.items():
        stem, _, rest = key.removeprefix(prefix).partition(".")
        name = f"{renamed.get(stem, stem)}.{rest}"
        if name not in own:
            continue
        if (
            value.ndim == 4
            and value.shape[1] == _FIRST_CONVOLUTION != own[name].shape[1]
        ):
            value = value.sum(dim=1, keepdim=True)
        if value.shape == own[name].shape:
            taken[name] = value
    missing = set(own) - set(taken)
    if missing:
        raise ValueError(
            f"the weights are of another network: {len(missing)} of {len(own)} tensors "
            "are not among them"
        )
    network.body.load_state_dict(taken)


def parts_of(config: ModelConfig) -> tuple[ModelConfig, ...]:
    """The networks that one of several bodies is made of; of others, itself."""
    names = _TWINS.get(config.architecture, (config.architecture,))
    return tuple(replace(config, architecture=name) for name in names)


def join(network: FaceNetwork, parts: Sequence[FaceNetwork]) -> None:
    """Make ``network``, a twin, answer with the mean of what ``parts`` answer."""
    if not isinstance(network.body, TwinBody):
        raise TypeError("only a twin is joined from two networks")
    for body, part in zip(network.body.bodies, parts, strict=True):
        body.load_state_dict(part.body.state_dict())
    with torch.no_grad():
        weights = [part.head.weight / len(parts) for part in parts]
        network.head.weight.copy_(torch.cat(weights, dim=1))
        network.head.bias.copy_(torch.stack([p.head.bias for p in parts]).mean(dim=0))


Body = tuple[nn.Module, int]


def _convolution(channels_in: int, channels: int) -> list[nn.Module]:
    return [
        nn.Conv2d(channels_in, channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
    ]


def _plain(
    channels: int, widths: Sequence[int], convolutions: int, dropout: float = 0.0
) -> Body:
    """Blocks of convolutions, each halved by a maximum, but for the last."""
    layers: list[nn.Module] = []
    for block, width in enumerate(widths):
        for _ in range(convolutions):
            layers += _convolution(channels, width)
            channels = width
        if block < len(widths) - 1:
            layers.append(nn.MaxPool2d(2))
            if dropout:
                layers.append(nn.Dropout2d(dropout))
    return nn.Sequential(*layers), widths[-1]


def _base(config: ModelConfig) -> Body:
    return _plain(config.channels, (32, 64, 128), convolutions=1)


def _larger(config: ModelConfig) -> Body:
    return _plain(config.channels, (64, 128, 256, 512), convolutions=1)


def _complex(config: ModelConfig) -> Body:
    widths = (64, 128, 256, 512, 512)
    return _plain(config.channels, widths, convolutions=2, dropout=0.1)


def _final(config: ModelConfig) -> Body:
    body = residual_body(config.channels, config.widths, config.depths)
    return body, config.widths[-1]


def _recognition(config: ModelConfig, last_stage: int = 1) -> Body:
    widths, depths = (32, 64, 128, 256), (3, 4, 3, last_stage)
    body = recognition_body(config.channels, widths, depths, (1, 2, 2, 1), scale=2)
    return body, widths[-1]


def _recognition_large(config: ModelConfig) -> Body:
    """More of dlib's layers: too large to serve, good to learn from."""
    return _recognition(config, last_stage=3)


def _mobile(config: ModelConfig) -> Body:
    return mobile_body(config.channels, scale=2), MOBILE_WIDTHS[-1]


def _mobile_large(config: ModelConfig, scale: float = 3) -> Body:
    """The same on more pixels: slower, and more accurate."""
    return mobile_body(config.channels, scale, fixed_blocks=3), MOBILE_WIDTHS[-1]


def _mobile_192(config: ModelConfig) -> Body:
    return _mobile_large(config, scale=4)


_TWINS: Final = {
    "twin": ("recognition", "final"),
    "twin-mobile": ("mobile-large", "final"),
    "twin-mobile-192": ("mobile-192", "final"),
}
"""Bodies that learned apart err on different faces, and their mean on fewer."""


def _twin(config: ModelConfig) -> Body:
    parts = [ARCHITECTURES[part.architecture](part) for part in parts_of(config)]
    bodies, features = zip(*parts, strict=True)
    return TwinBody(bodies), sum(features)


def _vgg16(config: ModelConfig) -> Body:
    from ml.vision import models

    features = models.vgg16_bn(weights=None).features
    # The last halving would leave one place of a 48-pixel face.
    body = nn.Sequential(*list(features)[:-1])
    _take_channels(body, "0", config.channels)
    return body, 512


_RESNET_LAYERS: Final = (
    "conv1",
    "bn1",
    "relu",
    "maxpool",
    "layer1",
    "layer2",
    "layer3",
    "layer4",
)
_RESNET_NAMES: Final = {name: str(i) for i, name in enumerate(_RESNET_LAYERS)}


def _resnet(config: ModelConfig) -> Body:
    from ml.vision import models

    whole = models.resnet18(weights=None)
    body = nn.Sequential(*(getattr(whole, name) for name in _RESNET_LAYERS))
    _take_channels(body, "0", config.channels)
    return body, 512


def _efficientnet(config: ModelConfig) -> Body:
    from ml.vision import models

    body = models.efficientnet_b0(weights=None).features
    _take_channels(body, "0.0", config.channels)
    return body, 1280


def _take_channels(body: nn.Module, name: str, channels: int) -> None:
    """Give the first convolution the input's channels."""
    old = body.get_submodule(name)
    if not isinstance(old, nn.Conv2d):
        raise TypeError(f"{name} is no convolution")
    if old.in_channels == channels:
        return
    new = nn.Conv2d(
        channels,
        old.out_channels,
        old.kernel_size[0],
        old.stride[0],
        int(old.padding[0]),
        bias=old.bias is not None,
    )
    parent, _, last = name.rpartition(".")
    setattr(body.get_submodule(parent), last, new)


ARCHITECTURES: Final[dict[str, Callable[[ModelConfig], Body]]] = {
    "base": _base,
    "larger": _larger,
    "vgg16": _vgg16,
    "resnet": _resnet,
    "efficientnet": _efficientnet,
    "complex": _complex,
    "final": _final,
    "recognition": _recognition,
    "recognition-large": _recognition_large,
    "mobile": _mobile,
    "mobile-large": _mobile_large,
    "mobile-192": _mobile_192,
    **dict.fromkeys(_TWINS, _twin),
}
