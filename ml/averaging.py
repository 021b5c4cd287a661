"""The weights that are exported: an average over training, with statistics of its own.

What an average of weights does to a face is not the average of what the weights did:
normalisation needs statistics of its inputs as the averaged network makes them
(Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization",
2018).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@torch.no_grad()
def move_average(
    average: nn.Module, network: nn.Module, decay: float, steps: int
) -> None:
    """Exponential average of weights and statistics; young runs forget faster."""
    decay = min(decay, (1 + steps) / (10 + steps))
    ours = list(average.state_dict().values())
    theirs = list(network.state_dict().values())
    floats = [i for i, value in enumerate(ours) if value.is_floating_point()]
    torch._foreach_lerp_(
        [ours[i] for i in floats], [theirs[i] for i in floats], 1 - decay
    )
    for value, other in zip(ours, theirs, strict=True):
        if not value.is_floating_point():
            value.copy_(other)


@torch.no_grad()
def measure_statistics(network: nn.Module, batches: Iterable[torch.Tensor]) -> None:
    """Set those of all normalisation that learns to the mean over ``batches``.

    Each is normalised pixels, float32 (N, C, S, S). Layers that a network holds fixed
    in training keep theirs: ``torch.optim.swa_utils.update_bn`` would clear them, too.
    """
    network.train()
    norms = [
        module
        for module in network.modules()
        if isinstance(module, _BatchNorm) and module.training
    ]
    network.eval()  # No dropout: what serves has none.
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train()
        norm.reset_running_stats()
        norm.momentum = None  # A plain mean.
    for pixels in batches:
        network(pixels)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.eval()
