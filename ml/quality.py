"""What makes a face hard to read: small, blurred, dark, flat, turned away."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from ml.preprocessing import UInt8Array, crop_face, face_region, face_roll_degrees
from ml.types import DetectedFace, FaceQuality

Float64Array = npt.NDArray[np.float64]

HINTS: Final[dict[str, str]] = {
    "small": "The face is very small in the photo.",
    "blurred": "The face is blurred.",
    "dark": "The face is dark.",
    "bright": "The face is overexposed.",
    "flat": "The face has hardly any contrast.",
    "turned": "The face is turned away.",
    "tilted": "The face is tilted.",
    "cut": "The face is cut off at the edge.",
}
"""Code -> sentence for a visitor. Codes are stored, sentences are not."""

_CROP_PX: Final = 48
_SMALL_BELOW_PX: Final = 32.0
_BLURRED_BELOW: Final = 60.0
_DARK_BELOW: Final = 50.0
_BRIGHT_ABOVE: Final = 215.0
_FLAT_BELOW: Final = 18.0
_TURNED_ABOVE: Final = 0.35
_TILTED_ABOVE_DEGREES: Final = 30.0
_CUT_BEYOND: Final = 0.12

_PART: Final = 4096
"""Faces measured at once: NumPy works on deviations in float64, eight times the
crops."""


def contrasts(crops: UInt8Array) -> Float64Array:
    """uint8 (N, S, S, C) -> (N,): standard deviation of each face's grey levels.

    In parts: the deviations of 200,000 faces at once would take 4 GB.
    """
    out = np.empty(len(crops), np.float64)
    for start in range(0, len(crops), _PART):
        part = slice(start, start + _PART)
        out[part] = crops[part].std(axis=(1, 2, 3))
    return out


def face_quality(
    photo: Image.Image, face: DetectedFace, crop: UInt8Array | None = None
) -> FaceQuality:
    """Measure one face of an upright photo (in the photo's own pixels).

    ``crop`` is the face as ``crop_face`` has cut it already; one of another size or
    in colour is cut anew.
    """
    if crop is None or crop.shape != (_CROP_PX, _CROP_PX, 1):
        crop = crop_face(photo, face_region(face), _CROP_PX)
    grey = crop[:, :, 0].astype(np.float32)
    size_px = min(face.box.width, face.box.height)
    sharpness = _laplacian_variance(grey)
    brightness, contrast = float(grey.mean()), float(grey.std())
    yaw, roll = _yaw(face), face_roll_degrees(face)
    inside = face.box.clipped(photo.width, photo.height).area / face.box.area
    found = {
        "small": size_px < _SMALL_BELOW_PX,
        "blurred": sharpness < _BLURRED_BELOW and contrast >= _FLAT_BELOW,
        "dark": brightness < _DARK_BELOW,
        "bright": brightness > _BRIGHT_ABOVE,
        "flat": contrast < _FLAT_BELOW,
        "turned": yaw is not None and yaw > _TURNED_ABOVE,
        "tilted": roll is not None and abs(roll) > _TILTED_ABOVE_DEGREES,
        "cut": inside < 1 - _CUT_BEYOND,
    }
    return FaceQuality(
        size_px=size_px,
        sharpness=sharpness,
        brightness=brightness,
        contrast=contrast,
        yaw=yaw,
        roll_degrees=roll,
        hints=tuple(code for code in HINTS if found[code]),
    )


def _laplacian_variance(grey: npt.NDArray[np.float32]) -> float:
    """Variance of the 4-neighbour Laplacian over the inner pixels."""
    laplacian = (
        grey[:-2, 1:-1]
        + grey[2:, 1:-1]
        + grey[1:-1, :-2]
        + grey[1:-1, 2:]
        - 4 * grey[1:-1, 1:-1]
    )
    return float(laplacian.var())


def _yaw(face: DetectedFace) -> float | None:
    """Distance of the nose from the line between eyes' and mouth's middle, in eye
    distances; near 0 for a frontal face whatever its roll."""
    marks = face.landmarks
    if marks is None:
        return None
    left, right = np.array(marks.left_eye), np.array(marks.right_eye)
    eyes = right - left
    distance = float(np.hypot(*eyes))
    if distance < 1.0:
        return 1.0
    middle = (left + right) / 2
    along = float(np.dot(np.array(marks.nose) - middle, eyes)) / distance
    mouth = (np.array(marks.mouth_left) + np.array(marks.mouth_right)) / 2
    mouth_along = float(np.dot(mouth - middle, eyes)) / distance
    return abs(along - mouth_along / 2) / distance
