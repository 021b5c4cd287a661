"""What may happen to a face on its way to the network, at random, in training.

Works on uint8 crops and gives uint8 crops back, so that what follows is the one
``ml.preprocessing.normalise`` that serving calls, too. What is imitated: the frame
that a detector sets a little differently, tilt, distance, light, cheap cameras and
messengers, a hand or hair before the face, words written across it.
"""

from __future__ import annotations

import io
import math
import string
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont

UInt8Array = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class AugmentationConfig:
    """How strong. ``*_share`` are shares of the faces, in [0, 1].

    A face that is moved is interpolated, and so a little softer than what serving
    shows the network: ``moved_share`` leaves the others as sharp as they are.
    """

    moved_share: float = 1.0
    rotate_degrees: float = 12.0
    """Standard deviation; cut at two and a half."""
    scale_log: float = 0.12
    """Standard deviation of the logarithm of the scale."""
    shift: float = 0.05
    """Standard deviation, in crop sides."""
    shear: float = 0.05
    flip_share: float = 0.5
    gamma_log: float = 0.25
    light_share: float = 0.4
    blur_share: float = 0.2
    blur_sigma_px: tuple[float, float] = (0.4, 1.8)
    noise_share: float = 0.2
    noise_levels: tuple[float, float] = (3.0, 16.0)
    resolution_share: float = 0.15
    resolution: tuple[float, float] = (0.35, 0.8)
    jpeg_share: float = 0.1
    jpeg_quality: tuple[int, int] = (8, 50)
    erase_share: float = 0.3
    erase_area: tuple[float, float] = (0.02, 0.2)
    text_share: float = 0.08
    text_height: tuple[float, float] = (0.12, 0.3)
    """In crop sides."""

    def __post_init__(self) -> None:
        for name in (
            "moved_share",
            "flip_share",
            "light_share",
            "blur_share",
            "noise_share",
            "resolution_share",
            "jpeg_share",
            "erase_share",
            "text_share",
        ):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1]")


STRONG: Final = AugmentationConfig()
MILD: Final = AugmentationConfig(
    moved_share=0.6,
    rotate_degrees=10.0,
    scale_log=0.08,
    shift=0.035,
    shear=0.03,
    light_share=0.25,
    blur_share=0.2,
    noise_share=0.12,
    resolution_share=0.15,
    jpeg_share=0.12,
    erase_share=0.12,
)
"""For a network that has learned from strongly varied faces already."""


def augment(
    crops: UInt8Array, config: AugmentationConfig, generator: torch.Generator
) -> UInt8Array:
    """uint8 (N, S, S, C) -> uint8 (N, S, S, C); the generator decides everything."""
    faces = torch.from_numpy(np.ascontiguousarray(crops.transpose(0, 3, 1, 2))).float()
    faces = _move(faces, config, generator)
    faces = _light(faces, config, generator)
    faces = _blur(faces, config, generator)
    faces = _coarsen(faces, config, generator)
    faces = _noise(faces, config, generator)
    faces = _erase(faces, config, generator)
    faces = _write(faces, config, generator)
    out = faces.round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
    return _compress(out.contiguous().numpy(), config, generator)


def _uniform(
    count: int, low: float, high: float, generator: torch.Generator
) -> torch.Tensor:
    return torch.rand(count, generator=generator) * (high - low) + low


def _chosen(count: int, share: float, generator: torch.Generator) -> torch.Tensor:
    return torch.nonzero(torch.rand(count, generator=generator) < share).flatten()


def _move(
    faces: torch.Tensor, config: AugmentationConfig, generator: torch.Generator
) -> torch.Tensor:
    """Mirror, exactly; then rotate, scale, shear and shift in one resampling."""
    mirrored = _chosen(len(faces), config.flip_share, generator)
    faces[mirrored] = faces[mirrored].flip(3)
    rows = _chosen(len(faces), config.moved_share, generator)
    if not len(rows):
        return faces
    count = len(rows)

    def normal(deviation: float) -> torch.Tensor:
        values = torch.randn(count, generator=generator).clamp_(-2.5, 2.5)
        return values * deviation

    angle = normal(math.radians(config.rotate_degrees))
    scale = torch.exp(normal(config.scale_log))
    shear = normal(config.shear)
    theta = torch.zeros(count, 2, 3)
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    theta[:, 0, 0] = cos
    theta[:, 0, 1] = -sin + shear * cos
    theta[:, 1, 0] = sin
    theta[:, 1, 1] = cos + shear * sin
    # The grid spans [-1, 1]: a shift of one side is 2.
    theta[:, 0, 2] = normal(config.shift) * 2
    theta[:, 1, 2] = normal(config.shift) * 2
    size = [count, *faces.shape[1:]]
    grid = F.affine_grid(theta, size, align_corners=False)
    faces[rows] = F.grid_sample(
        faces[rows], grid, padding_mode="border", align_corners=False
    )
    return faces


def _light(
    faces: torch.Tensor, config: AugmentationConfig, generator: torch.Generator
) -> torch.Tensor:
    """Gamma, gain and offset, clipped as a camera clips."""
    rows = _chosen(len(faces), config.light_share, generator)
    if not len(rows):
        return faces
    shape = (-1, 1, 1, 1)
    gamma = torch.exp(torch.randn(len(rows), generator=generator) * config.gamma_log)
    gain = _uniform(len(rows), 0.45, 1.35, generator)
    offset = _uniform(len(rows), -25, 25, generator)
    part = (faces[rows] / 255).clamp_(0, 1).pow_(gamma.view(shape))
    faces[rows] = (part * (255 * gain.view(shape)) + offset.view(shape)).clamp_(0, 255)
    return faces


def _blur(
    faces: torch.Tensor, config: AugmentationConfig, generator: torch.Generator
) -> torch.Tensor:
    """A Gaussian of its own width for each chosen face."""
    rows = _chosen(len(faces), config.blur_share, generator)
    if not len(rows):
        return faces
    channels = faces.shape[1]
    sigma = _uniform(len(rows), *config.blur_sigma_px, generator)
    reach = 4
    steps = torch.arange(-reach, reach + 1).float()
    kernel = torch.exp(-0.5 * (steps / sigma[:, None]) ** 2)
    kernel = (kernel / kernel.sum(dim=1, keepdim=True)).repeat_interleave(channels, 0)
    planes = faces[rows].flatten(0, 1)[None]
    planes = F.pad(planes, (reach,) * 4, mode="replicate")
    groups = planes.shape[1]
    planes = F.conv2d(planes, kernel[:, None, None, :], groups=groups)
    planes = F.conv2d(planes, kernel[:, None, :, None], groups=groups)
    faces[rows] = planes[0].reshape(len(rows), channels, *faces.shape[2:])
    return faces


def _coarsen(
    faces: torch.Tensor, config: AugmentationConfig, generator: torch.Generator
) -> torch.Tensor:
    """Reduce and enlarge: a face from far away. One factor a batch."""
    rows = _chosen(len(faces), config.resolution_share, generator)
    factor = float(_uniform(1, *config.resolution, generator))
    if not len(rows):
        return faces
    side = faces.shape[-1]
    small = F.interpolate(
        faces[rows],
        size=max(8, round(side * factor)),
        mode="bilinear",
        antialias=True,
        align_corners=False,
    )
    faces[rows] = F.interpolate(small, size=side, mode="bilinear", align_corners=False)
    return faces


def _noise(
    faces: torch.Tensor, config: AugmentationConfig, generator: torch.Generator
) -> torch.Tensor:
    rows = _chosen(len(faces), config.noise_share, generator)
    if not len(rows):
        return faces
    levels = _uniform(len(rows), *config.noise_levels, generator).view(-1, 1, 1, 1)
    grain = torch.randn((len(rows), *faces.shape[1:]), generator=generator)
    faces[rows] += grain * levels
    return faces


def _erase(
    faces: torch.Tensor, config: AugmentationConfig, generator: torch.Generator
) -> torch.Tensor:
    """Cover a rectangle with one grey, as a hand or a hat does."""
    side = faces.shape[-1]
    rows = _chosen(len(faces), config.erase_share, generator)
    count = len(rows)
    area = _uniform(count, *config.erase_area, generator) * side * side
    aspect = torch.exp(_uniform(count, -0.9, 0.9, generator))
    heights = (area * aspect).sqrt().round().clamp_(1, side - 1).long()
    widths = (area / aspect).sqrt().round().clamp_(1, side - 1).long()
    tops = (torch.rand(count, generator=generator) * (side - heights)).long()
    lefts = (torch.rand(count, generator=generator) * (side - widths)).long()
    greys = _uniform(count, 0, 255, generator)
    for row, top, left, height, width, grey in zip(
        rows.tolist(),
        tops.tolist(),
        lefts.tolist(),
        heights.tolist(),
        widths.tolist(),
        greys.tolist(),
        strict=True,
    ):
        faces[row, :, top : top + height, left : left + width] = grey
    return faces


def _write(
    faces: torch.Tensor, config: AugmentationConfig, generator: torch.Generator
) -> torch.Tensor:
    """Words across the face, seen through, as agencies mark their pictures."""
    side = faces.shape[-1]
    rows = _chosen(len(faces), config.text_share, generator)
    count = len(rows)
    heights = _uniform(count, *config.text_height, generator) * side
    opacities = _uniform(count, 0.25, 0.9, generator)
    greys = (torch.rand(count, generator=generator) < 0.7).float() * 255
    places = torch.rand(count, 2, generator=generator)
    letters = torch.randint(len(string.ascii_letters), (count, 8), generator=generator)
    for row, height, opacity, grey, (left, top), word in zip(
        rows.tolist(),
        heights.tolist(),
        opacities.tolist(),
        greys.tolist(),
        places.tolist(),
        letters.tolist(),
        strict=True,
    ):
        # The word begins up to half a side before the face, and may be cut by it.
        mask = Image.new("L", (side, side))
        ImageDraw.Draw(mask).text(
            ((left - 0.5) * side, top * (side - height)),
            "".join(string.ascii_letters[letter] for letter in word),
            fill=255,
            font=ImageFont.load_default(round(height)),
        )
        cover = torch.from_numpy(np.array(mask, np.float32) / 255) * opacity
        faces[row] = faces[row] * (1 - cover) + grey * cover
    return faces


def _compress(
    crops: UInt8Array, config: AugmentationConfig, generator: torch.Generator
) -> UInt8Array:
    """Through a real JPEG encoder and back."""
    rows = _chosen(len(crops), config.jpeg_share, generator)
    low, high = config.jpeg_quality
    qualities = torch.randint(low, high + 1, (len(rows),), generator=generator)
    for row, quality in zip(rows.tolist(), qualities.tolist(), strict=True):
        crops[row] = jpeg_round_trip(crops[row], quality)
    return crops


def jpeg_round_trip(crop: UInt8Array, quality: int) -> UInt8Array:
    """uint8 (S, S, C) as it comes back from a JPEG of that quality."""
    picture = Image.fromarray(crop[:, :, 0] if crop.shape[2] == 1 else crop)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer), np.uint8).reshape(crop.shape)
