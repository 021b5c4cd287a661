"""The batches of an epoch: drawn, varied and mixed, each from a seed of its own."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import torch

from ml.augmentation import augment
from ml.data import FaceSet
from ml.manifest import Normalisation
from ml.preprocessing import normalise
from ml.train_config import TrainConfig

IntArray = npt.NDArray[np.int64]
Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def batches(
    config: TrainConfig,
    faces: FaceSet,
    epoch: int,
    *,
    rank: int,
    world_size: int,
    batch_size: int,
    count: int,
) -> Iterator[Batch]:
    """``count`` batches of one epoch for process ``rank`` of ``world_size``, prepared
    ahead by threads.

    Each is normalised pixels, float32 (batch_size, C, S, S), targets (batch_size, K)
    and weights (batch_size,).
    """
    order = np.random.default_rng((config.seed, epoch)).permutation(len(faces))
    mine = order[rank::world_size]

    def prepare(number: int) -> Batch:
        rows = mine[number * batch_size : (number + 1) * batch_size]
        seed = seed_of(config.seed, epoch, number, rank)
        generator = torch.Generator().manual_seed(seed)
        return _prepare(config, faces, rows, generator)

    if config.loader_threads == 0:
        yield from map(prepare, range(count))
        return
    with ThreadPoolExecutor(config.loader_threads) as pool:
        ahead = 2 * config.loader_threads
        waiting = [pool.submit(prepare, k) for k in range(min(ahead, count))]
        for number in range(count):
            batch = waiting.pop(0).result()
            if number + ahead < count:
                waiting.append(pool.submit(prepare, number + ahead))
            yield batch


def seed_of(*numbers: int) -> int:
    """One seed, below 2**32, that no other numbers are likely to give."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def _prepare(
    config: TrainConfig, faces: FaceSet, rows: IntArray, generator: torch.Generator
) -> Batch:
    crops = faces.crops[rows]
    if config.augmentation is not None:
        crops = augment(crops, config.augmentation, generator)
    pixels = torch.from_numpy(normalise(crops, Normalisation()))
    targets = torch.from_numpy(faces.targets[rows])
    weights = torch.from_numpy(faces.weights[rows])
    dice = float(torch.rand(1, generator=generator))
    if dice < config.mixup_share:
        return _mixup(pixels, targets, weights, config.mixup_alpha, generator)
    if dice < config.mixup_share + config.cutmix_share:
        return _cutmix(pixels, targets, weights, generator)
    return pixels, targets, weights


def _mixup(
    pixels: torch.Tensor,
    targets: torch.Tensor,
    weights: torch.Tensor,
    alpha: float,
    generator: torch.Generator,
) -> Batch:
    """Zhang et al., "mixup: Beyond Empirical Risk Minimization", 2018."""
    other = torch.randperm(len(pixels), generator=generator)
    seed = int(torch.randint(2**31, (1,), generator=generator))
    drawn = np.random.default_rng(seed).beta(alpha, alpha, len(pixels))
    share = torch.from_numpy(drawn.astype(np.float32))
    share = torch.maximum(share, 1 - share)
    wide = share.view(-1, 1, 1, 1)
    pixels = pixels * wide + pixels[other] * (1 - wide)
    # Two faces on one another have less contrast than one: bring it back.
    pixels = pixels / pixels.std(dim=(1, 2, 3), keepdim=True).clamp_min(1e-3)
    tall = share.view(-1, 1)
    targets = targets * tall + targets[other] * (1 - tall)
    return pixels, targets, weights * share + weights[other] * (1 - share)


def _cutmix(
    pixels: torch.Tensor,
    targets: torch.Tensor,
    weights: torch.Tensor,
    generator: torch.Generator,
) -> Batch:
    """Yun et al., "CutMix", 2019: one rectangle a batch, from another face."""
    other = torch.randperm(len(pixels), generator=generator)
    side = pixels.shape[-1]
    height, width = (
        int(value)
        for value in torch.randint(side // 6, side // 2, (2,), generator=generator)
    )
    top = int(torch.randint(side - height + 1, (1,), generator=generator))
    left = int(torch.randint(side - width + 1, (1,), generator=generator))
    pixels = pixels.clone()
    rows, columns = slice(top, top + height), slice(left, left + width)
    pixels[:, :, rows, columns] = pixels[other][:, :, rows, columns]
    share = 1 - height * width / side**2
    targets = targets * share + targets[other] * (1 - share)
    return pixels, targets, weights * share + weights[other] * (1 - share)
