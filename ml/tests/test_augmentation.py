from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ml.augmentation import (
    MILD,
    STRONG,
    AugmentationConfig,
    augment,
    jpeg_round_trip,
)
from ml.tests.faces import draw_set

STILL = AugmentationConfig(
    rotate_degrees=0,
    scale_log=0,
    shift=0,
    shear=0,
    flip_share=0,
    light_share=0,
    blur_share=0,
    noise_share=0,
    resolution_share=0,
    jpeg_share=0,
    erase_share=0,
    text_share=0,
)


def _augment(config: AugmentationConfig, seed: int = 0) -> np.ndarray:
    return augment(draw_set(4).crops, config, torch.Generator().manual_seed(seed))


def test_nothing_asked_for_changes_nothing() -> None:
    assert np.array_equal(_augment(STILL), draw_set(4).crops)


def test_same_seed_gives_the_same_faces_and_another_gives_others() -> None:
    config = AugmentationConfig()
    assert np.array_equal(_augment(config), _augment(config))
    assert not np.array_equal(_augment(config), _augment(config, seed=1))


def test_the_given_crops_stay_as_they_are() -> None:
    crops = draw_set(4).crops
    before = crops.copy()
    augment(crops, AugmentationConfig(), torch.Generator().manual_seed(0))
    assert np.array_equal(crops, before)


@pytest.mark.parametrize(
    "change",
    [
        {"rotate_degrees": 15.0},
        {"scale_log": 0.2},
        {"shift": 0.1},
        {"shear": 0.2},
        {"light_share": 1.0},
        {"blur_share": 1.0},
        {"noise_share": 1.0},
        {"resolution_share": 1.0},
        {"jpeg_share": 1.0},
        {"erase_share": 1.0},
        {"text_share": 1.0},
    ],
)
def test_each_change_alters_nearly_every_face_a_little(
    change: dict[str, float],
) -> None:
    crops = draw_set(4).crops.astype(float)
    changed = _augment(replace(STILL, **change)).astype(float)  # type: ignore[arg-type]
    difference = np.abs(changed - crops).mean(axis=(1, 2, 3))
    assert (difference > 0.2).mean() > 0.9
    assert changed.shape == crops.shape
    assert difference.mean() < 90


def test_mirror_is_exact() -> None:
    mirrored = _augment(replace(STILL, flip_share=1.0))
    assert np.array_equal(mirrored, draw_set(4).crops[:, :, ::-1])


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_faces_that_are_not_moved_stay_as_sharp_as_they_are(share: float) -> None:
    crops = draw_set(50).crops
    config = replace(STILL, moved_share=share, rotate_degrees=15.0)
    moved = augment(crops, config, torch.Generator().manual_seed(0))
    altered = (moved != crops).any(axis=(1, 2, 3)).mean()
    assert altered == pytest.approx(share, abs=0.15)


def test_mild_varies_less_than_strong() -> None:
    crops = draw_set(50).crops.astype(float)
    mild, strong = (
        np.abs(augment(crops.astype(np.uint8), one, torch.Generator()) - crops).mean()
        for one in (MILD, STRONG)
    )
    assert 0 < mild < strong


def test_colour_faces_keep_their_shape() -> None:
    crops = draw_set(2, channels=3).crops
    out = augment(crops, AugmentationConfig(jpeg_share=1), torch.Generator())
    assert out.shape == crops.shape
    assert jpeg_round_trip(crops[0], 15).shape == crops[0].shape


def test_shares_beyond_one_are_refused() -> None:
    with pytest.raises(ValueError, match="blur_share"):
        AugmentationConfig(blur_share=1.5)
