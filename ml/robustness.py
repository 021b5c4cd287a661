"""How much a model loses when the light, the lens or the messenger is bad."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from ml.data import FaceSet, LabelSource
from ml.evaluate import evaluate_model
from ml.inference import EmotionClassifier

UInt8Array = npt.NDArray[np.uint8]
Corruption = Callable[[Image.Image, np.random.Generator], Image.Image]

BLUR_SIGMA_PX: Final = 1.5
NOISE_LEVELS: Final = 12.0
TILT_DEGREES: Final = 20.0
JPEG_QUALITY: Final = 15


def _blur(face: Image.Image, generator: np.random.Generator) -> Image.Image:
    return face.filter(ImageFilter.GaussianBlur(BLUR_SIGMA_PX))


def _noise(face: Image.Image, generator: np.random.Generator) -> Image.Image:
    pixels = np.asarray(face, np.float64)
    grain = generator.normal(0, NOISE_LEVELS, pixels.shape)
    return Image.fromarray((pixels + grain).clip(0, 255).astype(np.uint8))


def _darken(face: Image.Image, generator: np.random.Generator) -> Image.Image:
    return face.point(lambda value: value // 2)


def _tilt(face: Image.Image, generator: np.random.Generator) -> Image.Image:
    """To either side; the corners repeat the edge, as the shared crop does."""
    degrees = TILT_DEGREES if generator.random() < 0.5 else -TILT_DEGREES
    margin = max(face.size) // 4
    pixels = np.asarray(face)
    widths = [(margin, margin)] * 2 + [(0, 0)] * (pixels.ndim - 2)
    wide = Image.fromarray(np.pad(pixels, widths, mode="edge"))
    turned = wide.rotate(degrees, Image.Resampling.BICUBIC)
    return turned.crop((margin, margin, margin + face.width, margin + face.height))


def _halve(face: Image.Image, generator: np.random.Generator) -> Image.Image:
    small = face.resize((face.width // 2, face.height // 2), Image.Resampling.BILINEAR)
    return small.resize(face.size, Image.Resampling.BILINEAR)


def _compress(face: Image.Image, generator: np.random.Generator) -> Image.Image:
    buffer = io.BytesIO()
    face.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return Image.open(buffer)


CORRUPTIONS: Final[dict[str, Corruption]] = {
    f"blur, sigma {BLUR_SIGMA_PX}": _blur,
    f"noise, sigma {NOISE_LEVELS:g} of 255": _noise,
    "half brightness": _darken,
    f"{TILT_DEGREES:g} degrees of tilt": _tilt,
    "half resolution": _halve,
    f"JPEG quality {JPEG_QUALITY}": _compress,
}


@dataclass(frozen=True, slots=True)
class Loss:
    """Accuracy on the corrupted faces, and how much less that is, in [-1, 1]."""

    accuracy: float
    lost: float


def corrupt(crops: UInt8Array, corruption: Corruption, seed: int = 0) -> UInt8Array:
    """uint8 (N, S, S, C), each face corrupted by itself."""
    generator = np.random.default_rng(seed)
    out = np.empty_like(crops)
    for i, crop in enumerate(crops):
        face = Image.fromarray(crop[:, :, 0] if crop.shape[2] == 1 else crop)
        out[i] = np.asarray(corruption(face, generator)).reshape(crop.shape)
    return out


def measure_robustness(
    classifier: EmotionClassifier, faces: FaceSet, source: LabelSource
) -> dict[str, Loss]:
    """Accuracy under each corruption; the first row, ``as it is``, lost nothing."""
    whole = evaluate_model(classifier, faces, source).accuracy
    losses = {"as it is": Loss(whole, 0.0)}
    for name, corruption in CORRUPTIONS.items():
        harmed = faces.with_crops(corrupt(faces.crops, corruption))
        accuracy = evaluate_model(classifier, harmed, source).accuracy
        losses[name] = Loss(accuracy, whole - accuracy)
    return losses
