"""What the detector crops must look like what the network was trained on.

Faces of a data set are pasted, enlarged, into larger canvases and found again; the
crop around what was found is read like any other. Which margin and shift lose the
least is measured on validation; ``ml.preprocessing`` holds what was chosen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from ml.consensus import NO_LABEL
from ml.data import FaceSet, LabelSource
from ml.detection import FaceDetector
from ml.evaluate import read_set
from ml.inference import EmotionClassifier
from ml.manifest import InputSpec
from ml.preprocessing import (
    CROP_SHIFT_DOWN,
    CROP_SIDE_PER_FACE,
    crop_face,
    face_region,
)
from ml.types import CropRegion, DetectedFace

UInt8Array = npt.NDArray[np.uint8]

CANVAS_PX: Final = 400
FACE_PX: Final = (64, 220)
_AT_ONCE: Final = 1024
"""Canvases in memory: one of a grey face takes 160 KB."""


@dataclass(frozen=True, slots=True)
class Framed:
    """A canvas, the face found on it, and which face of the part it is."""

    canvas: Image.Image
    face: DetectedFace
    index: int


@dataclass(frozen=True, slots=True)
class FramingRow:
    """One framing: accuracy in [0, 1] on the faces that were found again."""

    side_per_face: float
    shift_down: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class FramingReport:
    """``untouched`` is the accuracy on the same faces as they lie in the data;
    ``served`` that of the framing which ``ml.preprocessing`` has now.

    ``side`` is what the data ask for: side of the picture over the geometric mean
    of the found box's sides, quartiles; ``centre`` the median place of the box in
    the picture, in sides.
    """

    faces: int
    found: int
    untouched: float
    served: float
    side: tuple[float, float, float]
    centre: tuple[float, float]
    rows: tuple[FramingRow, ...]


def measure_framing(
    classifier: EmotionClassifier,
    faces: FaceSet,
    source: LabelSource,
    *,
    sides: Sequence[float],
    shifts: Sequence[float],
    seed: int = 0,
    advance: Callable[[], None] | None = None,
) -> FramingReport:
    """Paste, find, crop with every side and shift, read. Needs labelled faces."""
    labelled = faces.take(faces.labels(source) != NO_LABEL)
    labels = labelled.labels(source)
    detector = FaceDetector()
    generator = np.random.default_rng(seed)
    spec = classifier.manifest.input
    framings = [(side, shift) for side in sides for shift in shifts]
    wanted: list[tuple[float, float, float]] = []
    untouched = served = 0
    hits = [0] * len(framings)
    for start in range(0, len(labelled), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        framed: list[Framed] = []
        for index, crop in enumerate(labelled.crops[part]):
            canvas, corner, side = paste(crop, generator)
            found = [
                face
                for face in detector.detect(canvas).faces
                if _inside(face, corner, side)
            ]
            if found:
                face = max(found, key=lambda face: face.box.area)
                framed.append(Framed(canvas, face, index))
                x, y = face.box.centre
                wanted.append(
                    (
                        side / math.sqrt(face.box.area),
                        (x - corner[0]) / side,
                        (y - corner[1]) / side,
                    )
                )
            if advance:
                advance()
        if not framed:
            continue
        chosen = [item.index for item in framed]
        truth = labels[part][chosen]
        untouched += _hits(classifier, labelled.crops[part][chosen], truth)
        as_served = _cropped(framed, CROP_SIDE_PER_FACE, CROP_SHIFT_DOWN, spec)
        served += _hits(classifier, as_served, truth)
        for place, (side_per_face, shift_down) in enumerate(framings):
            crops = _cropped(framed, side_per_face, shift_down, spec)
            hits[place] += _hits(classifier, crops, truth)
    if not wanted:
        raise ValueError("the detector found none of the faces again")
    quartiles = np.percentile([row[0] for row in wanted], [25, 50, 75])
    return FramingReport(
        faces=len(labelled),
        found=len(wanted),
        untouched=untouched / len(wanted),
        served=served / len(wanted),
        side=(float(quartiles[0]), float(quartiles[1]), float(quartiles[2])),
        centre=(
            float(np.median([row[1] for row in wanted])),
            float(np.median([row[2] for row in wanted])),
        ),
        rows=tuple(
            FramingRow(side_per_face, shift_down, right / len(wanted))
            for (side_per_face, shift_down), right in zip(framings, hits, strict=True)
        ),
    )


def _cropped(
    framed: Sequence[Framed], side_per_face: float, shift_down: float, spec: InputSpec
) -> UInt8Array:
    """uint8 (N, S, S, C): what a framing makes of the faces that were found."""
    return np.stack(
        [
            crop_face(
                item.canvas,
                _with(face_region(item.face), side_per_face, shift_down),
                spec.size_px,
                spec.channels,
            )
            for item in framed
        ]
    )


def _hits(
    classifier: EmotionClassifier, crops: UInt8Array, labels: npt.NDArray[np.int64]
) -> int:
    """How many of the crops are read as their label."""
    return int((read_set(classifier, crops).argmax(axis=1) == labels).sum())


def paste(
    crop: UInt8Array, generator: np.random.Generator
) -> tuple[Image.Image, tuple[int, int], int]:
    """A face somewhere on a larger canvas, its surroundings its own edge repeated.

    Returns canvas, top left corner and side of the face's square, in pixels.
    """
    side = int(generator.integers(*FACE_PX))
    face = Image.fromarray(crop[:, :, 0] if crop.shape[2] == 1 else crop)
    large = np.asarray(face.resize((side, side), Image.Resampling.BICUBIC))
    left, top = (int(v) for v in generator.integers(0, CANVAS_PX - side, 2))
    widths = [(top, CANVAS_PX - side - top), (left, CANVAS_PX - side - left)]
    widths += [(0, 0)] * (large.ndim - 2)
    return Image.fromarray(np.pad(large, widths, mode="edge")), (left, top), side


def _inside(face: DetectedFace, corner: tuple[int, int], side: int) -> bool:
    x, y = face.box.centre
    return (
        not face.assumed
        and corner[0] < x < corner[0] + side
        and corner[1] < y < corner[1] + side
    )


def _with(region: CropRegion, side_per_face: float, shift_down: float) -> CropRegion:
    """The served region with another side and shift."""
    side = region.side_px / CROP_SIDE_PER_FACE * side_per_face
    radians = math.radians(region.roll_degrees)
    shift = shift_down * side - CROP_SHIFT_DOWN * region.side_px
    x, y = region.centre
    centre = (x - shift * math.sin(radians), y + shift * math.cos(radians))
    return CropRegion(centre, side, region.roll_degrees)
