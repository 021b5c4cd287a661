"""One frame of the live view: read here and now, in memory, and forgotten."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from typing import Final

from ml import images
from ml.manifest import ModelFileError
from ml.runtime import ProviderUnavailable
from ml.types import DetectedFace, EmotionScores
from webapp.core.errors import DomainError
from webapp.photos.services.intake import PhotoRefused
from webapp.photos.services.serving import NoModelServes, model_server

FRAME_MAX_SIDE_PX: Final = 640
MAX_FRAME_BYTES: Final = 512 * 1024
_WAIT_SECONDS: Final = 0.5

logger = logging.getLogger(__name__)

_reading = threading.BoundedSemaphore(2)
"""Frames read at a time by one web process; the next one waits, or is dropped."""


class LiveBusy(DomainError):
    """Too many live views at once, or no model that can read; the browser slows
    down."""

    code = "busy"
    http_status = 503
    retry_after_seconds = 1


@dataclass(frozen=True, slots=True)
class LiveReading:
    """Faces in pixels of the frame, one scores each, and the version that read."""

    width_px: int
    height_px: int
    faces: tuple[DetectedFace, ...]
    scores: tuple[EmotionScores, ...]
    model_version: str


def read_frame(*, data: bytes) -> LiveReading:
    """Read a frame. Nothing of it is stored, counted or logged.

    Raises ``PhotoRefused`` or ``LiveBusy``.
    """
    if len(data) > MAX_FRAME_BYTES:
        raise PhotoRefused(
            images.ImageTooLarge(
                f"A live frame may have {MAX_FRAME_BYTES // 1024} KB at most."
            )
        )
    if not _reading.acquire(timeout=_WAIT_SECONDS):
        raise LiveBusy("The site is reading as many live views as it can.")
    try:
        image = images.decode_image(data, FRAME_MAX_SIDE_PX)
        serving = model_server.champion()
        # A frame without a face shows no face: nothing is assumed of a video.
        found = [
            face
            for face in model_server.detector.detect(image.pixels).faces
            if not face.assumed
        ]
        scores = serving.classifier.read(image.pixels, found).scores
    except images.ImageRefused as refusal:
        raise PhotoRefused(refusal) from refusal
    except (NoModelServes, ModelFileError, ProviderUnavailable) as error:
        logger.warning("no live view: %s", error)
        raise LiveBusy("No model is ready yet. Please try again soon.") from error
    finally:
        _reading.release()
    factor = (
        image.width_px / image.pixels.width,
        image.height_px / image.pixels.height,
    )
    return LiveReading(
        width_px=image.width_px,
        height_px=image.height_px,
        faces=tuple(face.scaled(*factor) for face in found),
        scores=scores,
        model_version=serving.version.version,
    )
