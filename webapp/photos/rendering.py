"""Pictures and tables made from a result: heat map, annotated photo, JSON, CSV."""

from __future__ import annotations

import csv
import io
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ml import images
from ml.labels import EMOTIONS, Emotion
from webapp.core.errors import DomainError, NotFound
from webapp.photos.models import FailureReason, Prediction
from webapp.photos.selectors import FAILURE_WORDS, FaceResult, PhotoResult

THUMBNAIL_SIDE_PX: Final = 480
HEAT_SIDE_PX: Final = 192
_HEAT_COLOUR: Final = (255, 96, 0)
_HEAT_MAX_ALPHA: Final = 190

_BOX_COLOUR: Final = "#ffffff"
_EDGE_COLOUR: Final = "#101418"
_CAPTION: Final = "Mien reads appearance, not feelings."

UNREADABLE_WORDS: Final = FAILURE_WORDS[FailureReason.UNREADABLE]

_drawing = threading.BoundedSemaphore(2)
"""Annotated photos that one web process draws at a time: a large one takes a core for
more than a second, a thumbnail or a heat map for less than a twentieth."""

_WAIT_SECONDS: Final = 5.0

CSV_COLUMNS: Final = (
    "photo",
    "status",
    "face",
    "x",
    "y",
    "width",
    "height",
    "label",
    "confidence",
    "not_sure",
    "assumed",
    *(emotion.value for emotion in EMOTIONS),
    "hints",
    "model_version",
)


class DrawingBusy(DomainError):
    """Too many pictures are asked for at once."""

    code = "busy"
    http_status = 503
    retry_after_seconds = 5


@contextmanager
def turn_to_draw() -> Iterator[None]:
    """Around what draws a large picture. Raises ``DrawingBusy`` where too many wait."""
    if not _drawing.acquire(timeout=_WAIT_SECONDS):
        raise DrawingBusy(
            "The site is drawing as many pictures as it can. Please try again in a few "
            "seconds."
        )
    try:
        yield
    finally:
        _drawing.release()


def heat_map(prediction: Prediction, emotion: Emotion) -> bytes:
    """Where an emotion was seen in the crop, as a PNG that is clear where it was not.

    Only what speaks for the emotion is shown, relative to its strongest place.
    Raises ``NotFound`` where what the version wrote down is damaged.
    """
    heat = _activation(prediction)[emotion.position].clip(0)
    if heat.max() > 0:
        heat = heat / heat.max()
    alpha = Image.fromarray((heat * _HEAT_MAX_ALPHA).astype(np.uint8)).resize(
        (HEAT_SIDE_PX, HEAT_SIDE_PX), Image.Resampling.BICUBIC
    )
    picture = Image.new("RGBA", alpha.size, (*_HEAT_COLOUR, 0))
    picture.putalpha(alpha)
    return _png(picture)


def stored_picture(data: bytes, max_side_px: int | None = None) -> Image.Image:
    """A stored photo, reduced where ``max_side_px`` is given. Raises ``NotFound`` where
    the file is damaged.

    It is ours, and may be thinner than what a stranger may send.
    """
    try:
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
            if max_side_px is not None:
                image.thumbnail((max_side_px, max_side_px))
            return image.convert("RGB")
    except Exception as error:  # As in ``ml.images``: a decoder raises anything.
        raise NotFound(UNREADABLE_WORDS) from error


def thumbnail(data: bytes) -> bytes:
    """A stored photo made small, for a sheet of many: a fraction of its bytes."""
    return images.encode_jpeg(stored_picture(data, THUMBNAIL_SIDE_PX), quality=80)


def annotated_photo(photo: Image.Image, result: PhotoResult) -> bytes:
    """The photo with numbered boxes and labels, and one line of honesty, as PNG."""
    scale = photo.width / result.photo.width_px
    size = max(14, round(min(photo.size) / 36))
    font = ImageFont.load_default(size)
    canvas = Image.new("RGB", (photo.width, photo.height + 2 * size), _EDGE_COLOUR)
    canvas.paste(photo)
    draw = ImageDraw.Draw(canvas)
    line = max(2, size // 8)
    for face in result.faces:
        box = face.box.scaled(scale, scale)
        corners = (box.x, box.y, box.x + box.width, box.y + box.height)
        draw.rectangle(corners, outline=_EDGE_COLOUR, width=line + 2)
        draw.rectangle(corners, outline=_BOX_COLOUR, width=line)
        _draw_tag(draw, (box.x, box.y), _tag(face), font, canvas.width)
    draw.text((size / 2, photo.height + size / 2), _CAPTION, _BOX_COLOUR, font)
    return _png(canvas)


def faces_as_csv(results: Iterable[PhotoResult]) -> str:
    """One row a face; a photo without a face has one row that says so.

    No cell holds a word that a visitor wrote, so none can be a formula.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\r\n")
    writer.writerow(CSV_COLUMNS)
    for result in results:
        lead = [str(result.photo.pk), result.status]
        if not result.faces:
            writer.writerow(lead + [""] * (len(CSV_COLUMNS) - len(lead)))
        for face in result.faces:
            box = face.box
            writer.writerow(
                [
                    *lead,
                    face.index,
                    *(round(value, 1) for value in (box.x, box.y)),
                    *(round(value, 1) for value in (box.width, box.height)),
                    face.label,
                    round(face.confidence, 6),
                    face.not_sure,
                    face.assumed,
                    *(round(value, 6) for value in face.scores.probabilities),
                    " ".join(face.hint_codes),
                    result.model_version,
                ]
            )
    return buffer.getvalue()


def _activation(prediction: Prediction) -> NDArray[np.float32]:
    """(4, side, side)"""
    data = bytes(prediction.activation)
    side = round((len(data) / (2 * len(EMOTIONS))) ** 0.5)
    if not data or len(data) != 2 * len(EMOTIONS) * side**2:
        raise NotFound("Where the model looked can no longer be shown.")
    maps = np.frombuffer(data, "<f2").astype(np.float32)
    return maps.reshape(len(EMOTIONS), side, side)


def _tag(face: FaceResult) -> str:
    word = "Not sure" if face.not_sure else face.word
    return f"{face.index}  {word} {face.percent_words}"


def _draw_tag(
    draw: ImageDraw.ImageDraw,
    at: tuple[float, float],
    text: str,
    font: Any,
    width_px: int,
) -> None:
    """A label above its box, or inside where there is no room above."""
    left, top, right, bottom = draw.textbbox((0, 0), text, font)
    pad = 4
    tag_width, tag_height = right - left + 2 * pad, bottom - top + 2 * pad
    x = min(max(at[0], 0), max(width_px - tag_width, 0))
    y = at[1] - tag_height if at[1] >= tag_height else at[1]
    draw.rectangle((x, y, x + tag_width, y + tag_height), fill=_EDGE_COLOUR)
    draw.text((x + pad - left, y + pad - top), text, _BOX_COLOUR, font)


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=False)
    return buffer.getvalue()
