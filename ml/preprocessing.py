"""The one crop and the one normalisation: training, serving and evaluation call this.

A face found in a photograph is cut so that it stands in its square as faces stand
in the pictures that the network was trained on; a picture that is a face already
passes unchanged but for its size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from ml.manifest import InputSpec, Normalisation
from ml.types import CropRegion, DetectedFace, FaceBox

UInt8Array = npt.NDArray[np.uint8]
Float32Array = npt.NDArray[np.float32]

CROP_SIDE_PER_FACE: Final = 1.05
"""Side of the crop over the geometric mean of the detected box's sides.

Chosen on validation with ``python -m ml framing``, as is the shift: from 1.00 to 1.05
faces found in a larger picture are read best; ``docs/models.md`` has the table."""

CROP_SHIFT_DOWN: Final = 0.0
"""How far below the box's centre the crop's centre lies, in crop sides."""

MAX_LEVELLED_ROLL_DEGREES: Final = 50.0
"""A face turned further is left as it is: its eye line is not to be trusted."""

MIN_LEVELLED_ROLL_DEGREES: Final = 8.0
"""A face turned less is left as it is: the network was trained on such tilts, and
the eye line of a small face is no more exact than that."""

_FLAT_STD: Final = 1.0


def face_region(face: DetectedFace) -> CropRegion:
    """The square to cut for a face, in pixels of the photo that it was found on."""
    if face.assumed:
        side = math.sqrt(face.box.area)
        return CropRegion(face.box.centre, side)
    side = CROP_SIDE_PER_FACE * math.sqrt(face.box.area)
    roll = face_roll_degrees(face)
    if roll is None or not (
        MIN_LEVELLED_ROLL_DEGREES <= abs(roll) <= MAX_LEVELLED_ROLL_DEGREES
    ):
        roll = 0.0
    x, y = face.box.centre
    radians = math.radians(roll)
    shift = CROP_SHIFT_DOWN * side
    return CropRegion(
        (x - shift * math.sin(radians), y + shift * math.cos(radians)), side, roll
    )


def face_roll_degrees(face: DetectedFace) -> float | None:
    """How far the eye line is turned clockwise, in (-180, 180]; None without eyes."""
    if face.landmarks is None:
        return None
    left, right = face.landmarks.left_eye, face.landmarks.right_eye
    if left == right:
        return None
    return math.degrees(math.atan2(right[1] - left[1], right[0] - left[0]))


def crop_face(
    photo: Image.Image, region: CropRegion, size_px: int, channels: int = 1
) -> UInt8Array:
    """Cut the region, upright, as uint8 (size_px, size_px, channels).

    What lies outside the photo repeats its edge. Reduction is antialiased, so a
    face of 1000 pixels looks like one of 48 and not like its sieve.
    """
    mode = "L" if channels == 1 else "RGB"
    reach = region.side_px / 2 * (math.sqrt(2) if region.roll_degrees else 1.0)
    x, y = region.centre
    left, top = math.floor(x - reach), math.floor(y - reach)
    right, bottom = math.ceil(x + reach), math.ceil(y + reach)
    patch = _cut_with_edges(photo, left, top, right, bottom, mode)
    centre = (x - left, y - top)
    if region.roll_degrees:
        factor = int(region.side_px / size_px / 2)
        if factor > 1:
            # Turning a large patch pixel by pixel is slow, and gains nothing.
            patch = patch.reduce(factor)
            centre = (centre[0] / factor, centre[1] / factor)
        else:
            factor = 1
        patch = patch.rotate(
            region.roll_degrees, Image.Resampling.BICUBIC, center=centre
        )
    else:
        factor = 1
    half = region.side_px / factor / 2
    box = (
        max(centre[0] - half, 0.0),
        max(centre[1] - half, 0.0),
        min(centre[0] + half, float(patch.width)),
        min(centre[1] + half, float(patch.height)),
    )
    crop = patch.resize((size_px, size_px), Image.Resampling.BILINEAR, box=box)
    return np.asarray(crop, dtype=np.uint8).reshape(size_px, size_px, channels)


def crop_faces(
    photo: Image.Image, faces: Sequence[DetectedFace], spec: InputSpec
) -> UInt8Array:
    """Crops of all faces, uint8 (N, size_px, size_px, channels)."""
    crops = [
        crop_face(photo, face_region(face), spec.size_px, spec.channels)
        for face in faces
    ]
    shape = (0, spec.size_px, spec.size_px, spec.channels)
    return np.stack(crops) if crops else np.zeros(shape, np.uint8)


def whole_picture(photo: Image.Image) -> DetectedFace:
    """The picture taken as one face, as the data set's pictures are."""
    return DetectedFace(
        FaceBox(0.0, 0.0, float(photo.width), float(photo.height)), 0.0, assumed=True
    )


def normalise(crops: UInt8Array, normalisation: Normalisation) -> Float32Array:
    """uint8 (N, S, S, C) -> float32 (N, C, S, S), as the network takes it."""
    values = crops.astype(np.float32)
    if normalisation.kind == "per_face":
        mean = values.mean(axis=(1, 2, 3), keepdims=True)
        std = values.std(axis=(1, 2, 3), keepdims=True)
        # A flat crop has no contrast to bring out; do not blow up its noise.
        values = (values - mean) / np.maximum(std, _FLAT_STD)
    else:
        mean = np.asarray(normalisation.mean, np.float32)
        std = np.asarray(normalisation.std, np.float32)
        values = (values / 255.0 - mean) / std
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2), dtype=np.float32)


def _cut_with_edges(
    photo: Image.Image, left: int, top: int, right: int, bottom: int, mode: str
) -> Image.Image:
    """A rectangle of the photo in ``mode``; outside, the nearest edge repeats."""
    inner = (
        min(max(left, 0), photo.width - 1),
        min(max(top, 0), photo.height - 1),
        max(min(right, photo.width), 1),
        max(min(bottom, photo.height), 1),
    )
    inner = (
        inner[0],
        inner[1],
        max(inner[2], inner[0] + 1),
        max(inner[3], inner[1] + 1),
    )
    patch = photo.crop(inner)
    if patch.mode != mode:
        patch = patch.convert(mode)
    padding = (inner[0] - left, inner[1] - top, right - inner[2], bottom - inner[3])
    if not any(padding):
        return patch
    # A box that lies wholly outside would need negative padding on the far side.
    before_x, before_y, after_x, after_y = (max(value, 0) for value in padding)
    widths = [(before_y, after_y), (before_x, after_x)]
    pixels = np.asarray(patch)
    if pixels.ndim == 3:
        widths.append((0, 0))
    return Image.fromarray(np.pad(pixels, widths, mode="edge"))
