"""Frozen values that the rooms hand to each other.

Coordinates are pixels of the upright photo, origin at the top left, x to the
right and y down; they are floats and may lie a little outside the photo.
"""

from __future__ import annotations

from dataclasses import dataclass

from ml.labels import EMOTIONS, Emotion

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class FaceBox:
    """An axis-aligned rectangle in pixels; ``width`` and ``height`` are positive."""

    x: float
    y: float
    width: float
    height: float

    @property
    def centre(self) -> Point:
        return (self.x + self.width / 2, self.y + self.height / 2)

    @property
    def area(self) -> float:
        return self.width * self.height

    def scaled(self, factor_x: float, factor_y: float) -> FaceBox:
        """The same box on a photo resized by the two factors."""
        return FaceBox(
            self.x * factor_x,
            self.y * factor_y,
            self.width * factor_x,
            self.height * factor_y,
        )

    def clipped(self, width_px: float, height_px: float) -> FaceBox:
        """The part of the box that lies on a photo of that size."""
        left = min(max(self.x, 0.0), width_px)
        top = min(max(self.y, 0.0), height_px)
        right = min(max(self.x + self.width, 0.0), width_px)
        bottom = min(max(self.y + self.height, 0.0), height_px)
        return FaceBox(left, top, right - left, bottom - top)


@dataclass(frozen=True, slots=True)
class Landmarks:
    """Five points; left and right are the viewer's, as they stand in the photo."""

    left_eye: Point
    right_eye: Point
    nose: Point
    mouth_left: Point
    mouth_right: Point

    def scaled(self, factor_x: float, factor_y: float) -> Landmarks:
        """The same points on a photo resized by the two factors."""

        def scale(point: Point) -> Point:
            return (point[0] * factor_x, point[1] * factor_y)

        return Landmarks(
            scale(self.left_eye),
            scale(self.right_eye),
            scale(self.nose),
            scale(self.mouth_left),
            scale(self.mouth_right),
        )


@dataclass(frozen=True, slots=True)
class DetectedFace:
    """One face of a photo.

    ``score`` is the detector's, in [0, 1]. ``assumed`` says that the detector
    found nothing and the whole picture was taken as one face: then ``score`` is
    0 and there are no landmarks.
    """

    box: FaceBox
    score: float
    landmarks: Landmarks | None = None
    assumed: bool = False

    def scaled(self, factor_x: float, factor_y: float) -> DetectedFace:
        """The same face on a photo resized by the two factors."""
        return DetectedFace(
            self.box.scaled(factor_x, factor_y),
            self.score,
            self.landmarks.scaled(factor_x, factor_y) if self.landmarks else None,
            self.assumed,
        )


@dataclass(frozen=True, slots=True)
class CropRegion:
    """A square of the photo, possibly turned: what the classifier looks at.

    ``roll_degrees`` is how far the face is turned clockwise in the photo; the crop
    turns it back upright.
    """

    centre: Point
    side_px: float
    roll_degrees: float = 0.0


@dataclass(frozen=True, slots=True)
class EmotionScores:
    """Calibrated probabilities in ``EMOTIONS`` order; they sum to 1.

    ``not_sure`` is set where the highest probability lies under the threshold
    that the model's manifest carries (chosen on validation).
    """

    probabilities: tuple[float, ...]
    not_sure: bool

    def __post_init__(self) -> None:
        if len(self.probabilities) != len(EMOTIONS):
            raise ValueError(
                f"expected {len(EMOTIONS)} probabilities, got {len(self.probabilities)}"
            )

    @property
    def label(self) -> Emotion:
        """The most probable emotion, whether or not the model is sure of it."""
        return EMOTIONS[self.probabilities.index(self.confidence)]

    @property
    def confidence(self) -> float:
        """The highest of the four probabilities, in [0.25, 1]."""
        return max(self.probabilities)

    def by_emotion(self) -> dict[str, float]:
        """``{"happy": 0.9, ...}`` in the one order."""
        return {
            emotion.value: probability
            for emotion, probability in zip(EMOTIONS, self.probabilities, strict=True)
        }


@dataclass(frozen=True, slots=True)
class FaceQuality:
    """What makes a face hard to read.

    ``size_px`` is the shorter side of the box; ``sharpness`` the variance of the
    Laplacian on the classifier's crop; ``brightness`` the mean grey level in
    [0, 255]; ``contrast`` its standard deviation; ``yaw`` how far the nose lies
    from the middle between the eyes, in eye distances (0 frontal, over 0.35
    turned away), None without landmarks. ``hints`` are codes from
    ``ml.quality.HINTS``.
    """

    size_px: float
    sharpness: float
    brightness: float
    contrast: float
    yaw: float | None
    roll_degrees: float | None
    hints: tuple[str, ...] = ()
