"""What an annotator sees of a face: the face large, and its photo around it."""

from __future__ import annotations

import io
import logging
from typing import Final

from django.core.files.storage import default_storage
from PIL import Image, ImageDraw

from ml.images import encode_jpeg
from webapp.core.errors import NotFound
from webapp.photos.models import Face

FACE_SIDE_PX: Final = 448
PHOTO_SIDE_PX: Final = 1280
_MARGIN: Final = 0.35
"""How much is shown around the box, in box sides: hair and chin help people."""

_BOX_COLOUR: Final = "#63d4b7"

logger = logging.getLogger(__name__)


def face_picture(face: Face) -> bytes:
    """The face with a little around it, square, as JPEG; where the stored photo is
    gone or damaged, the crop that the model saw. Raises ``NotFound`` where that is
    damaged, too."""
    photo = _open_photo(face, FACE_SIDE_PX * 4)
    if photo is None:
        return encode_jpeg(_open_crop(face))
    factor_x, factor_y = _factors(face, photo)
    x, y = (face.x + face.width / 2) * factor_x, (face.y + face.height / 2) * factor_y
    reach = max(face.width * factor_x, face.height * factor_y) * (0.5 + _MARGIN)
    if face.assumed:
        return encode_jpeg(photo)
    box = (
        max(0, round(x - reach)),
        max(0, round(y - reach)),
        min(photo.width, round(x + reach)),
        min(photo.height, round(y + reach)),
    )
    patch = photo.crop(box)
    patch.thumbnail((FACE_SIDE_PX, FACE_SIDE_PX), Image.Resampling.LANCZOS)
    return encode_jpeg(patch)


def photo_picture(face: Face) -> bytes:
    """The whole photo with the face framed, as JPEG; without the photo, the crop.
    Raises ``NotFound``."""
    photo = _open_photo(face, PHOTO_SIDE_PX)
    if photo is None:
        return face_picture(face)
    photo.thumbnail((PHOTO_SIDE_PX, PHOTO_SIDE_PX), Image.Resampling.LANCZOS)
    factor_x, factor_y = _factors(face, photo)
    if not face.assumed:
        width = max(2, round(photo.width / 200))
        ImageDraw.Draw(photo).rectangle(
            (
                face.x * factor_x,
                face.y * factor_y,
                (face.x + face.width) * factor_x,
                (face.y + face.height) * factor_y,
            ),
            outline=_BOX_COLOUR,
            width=width,
        )
    return encode_jpeg(photo)


def _open_photo(face: Face, side_px: int) -> Image.Image | None:
    try:
        with default_storage.open(face.photo.file_name, "rb") as handle:
            data = handle.read()
        image = Image.open(io.BytesIO(data), formats=["JPEG"])
        if max(face.width, face.height) * 4 > max(face.photo.width_px, 1):
            # A large face needs no more pixels than the desk can show.
            image.draft("RGB", (side_px, side_px))
        return image.convert("RGB")
    except FileNotFoundError:
        return None
    except OSError as error:
        logger.warning("photo %s cannot be read: %s", face.photo_id, error)
        return None


def _open_crop(face: Face) -> Image.Image:
    try:
        crop = Image.open(io.BytesIO(bytes(face.crop)), formats=["PNG"])
        return crop.convert("RGB")
    except OSError as error:
        logger.warning("crop of face %s cannot be read: %s", face.pk, error)
        raise NotFound(
            "The picture of this face is damaged. Please skip it."
        ) from error


def _factors(face: Face, photo: Image.Image) -> tuple[float, float]:
    """From pixels of the upright original to those of this copy."""
    return photo.width / face.photo.width_px, photo.height / face.photo.height_px
