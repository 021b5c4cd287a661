"""Bytes of strangers in, an upright RGB picture out, or a clear refusal.

The only place where a file that somebody sent is opened. Formats are an explicit
list, sizes are checked on the header before a pixel is decoded, and nothing but
pixels leaves: EXIF, GPS, ICC and trailing bytes stay behind.
"""

from __future__ import annotations

import errno
import io
import re
import stat
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pi_heif
from PIL import (
    AvifImagePlugin,
    ExifTags,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

MAX_BYTES: Final = 10 * 1024 * 1024
MAX_PIXELS: Final = 24_500_000
"""24 megapixels as phones and cameras count them: 5712 x 4284 is a little more."""

MIN_SIDE_PX: Final = 16
MAX_SIDE_PX: Final = 16_000
MAX_FRAMES: Final = 1
MAX_JPEG_SCANS: Final = 100
"""A progressive JPEG of a camera or a browser has about ten. Each one goes through all
pixels again and may be a few bytes long: 1500 of them take 157 KB and 12 seconds."""

MAX_JPEG_SEGMENTS: Final = 2_000
"""A scan has a few beside it, and 10 MB of metadata in full segments are 160: more are
there only to be walked through."""

FORMATS: Final[tuple[str, ...]] = (
    JpegImagePlugin.JpegImageFile.format,  # and the MPO that many phones make of it
    PngImagePlugin.PngImageFile.format,
    WebPImagePlugin.WebPImageFile.format,
    AvifImagePlugin.AvifImageFile.format,
    "HEIF",
)
"""Pillow's names; their plugins are imported here, for Pillow loads them lazily."""

FORMAT_WORDS: Final = "JPEG, PNG, WebP, AVIF or HEIC"

_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each of EXIF's orientations; 1 is upright."""

_JPEG_START: Final = b"\xff\xd8"
_JPEG_SEGMENT: Final = re.compile(rb"\xff([\xc0-\xcf\xd9-\xfe])")
_JPEG_END: Final = b"\xd9"
_JPEG_SCAN: Final = b"\xda"

_HEIF_START: Final = b"ftyp"
_HEIF_PIXELS: Final = b"mdat"
_HEIF_DESCRIBES: Final = b"cdsc"
_MAX_HEIF_BOXES: Final = 1_000

# No part but the picture itself: each is read by code that files of strangers reach.
pi_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False)


class ImageRefused(Exception):
    """The bytes are no picture that can be used; ``str()`` says why, to a person.

    ``code`` is stable, for programs.
    """

    code = "invalid_image"


class ImageEmpty(ImageRefused):
    code = "empty"


class ImageUnsupported(ImageRefused):
    code = "unsupported_format"


class ImageTooLarge(ImageRefused):
    code = "too_large"


class ImageTooSmall(ImageRefused):
    code = "too_small"


class ImageDamaged(ImageRefused):
    code = "damaged"


class ImageAnimated(ImageRefused):
    code = "animated"


class ImageTooComplex(ImageRefused):
    code = "too_complex"


def read_file(path: Path) -> bytes:
    """What ``decode_image`` wants of a file: of one that is too large no more than
    says so. Raises ``OSError``, also where it is no regular file: a pipe might never
    end."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "no regular file", str(path))
    with path.open("rb") as handle:
        return handle.read(MAX_BYTES + 1)


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """An upright RGB picture and the size that it had before it was reduced.

    ``pixels`` may be smaller than ``width_px`` x ``height_px`` where a
    ``max_side_px`` was asked for; the aspect is the same to a pixel.
    """

    pixels: Image.Image
    width_px: int
    height_px: int
    format: str


def decode_image(data: bytes, max_side_px: int | None = None) -> DecodedImage:
    """Decode, turn upright, flatten onto white, convert to RGB and reduce.

    ``max_side_px`` bounds the longer side of the result. Raises a subclass of
    ``ImageRefused``; nothing else.
    """
    if not data:
        raise ImageEmpty("The file is empty. Please choose a photo.")
    if len(data) > MAX_BYTES:
        raise ImageTooLarge(
            f"The file is larger than {MAX_BYTES // 1024**2} MB. "
            "Please choose a smaller photo."
        )
    if data.startswith(_JPEG_START):
        _check_jpeg_work(data)
    try:
        with warnings.catch_warnings():
            # Pillow only warns up to twice its limit: make that an error, too.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            warnings.simplefilter("ignore", UserWarning)
            return _decode(data, max_side_px)
    except ImageRefused:
        raise
    except UnidentifiedImageError as error:
        raise ImageUnsupported(
            f"This is not a picture that we can read. Please use {FORMAT_WORDS}."
        ) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_many_pixels() from error
    except MemoryError as error:
        raise _too_many_pixels() from error
    except Exception as error:  # Decoders of six formats raise whatever they like.
        raise ImageDamaged(
            "The picture is damaged or was cut off on its way. Please try the "
            "original file again."
        ) from error


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What a file says of itself before a pixel is decoded."""

    format: str
    mode: str
    width_px: int
    height_px: int


def read_header(data: bytes) -> ImageHeader | None:
    """The header of a picture of ``FORMATS``; None where there is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with _open(data) as image:
                return ImageHeader(image.format or "?", image.mode, *image.size)
    except Exception:  # noqa: BLE001  # Headers of strangers raise anything.
        return None


def encode_jpeg(image: Image.Image, quality: int = 90) -> bytes:
    """An RGB or grey picture as a bare JPEG: no EXIF, no ICC, no thumbnail."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, exif=b"", icc_profile=None)
    return buffer.getvalue()


def _too_many_pixels() -> ImageTooLarge:
    return ImageTooLarge(
        f"The picture has more than {MAX_PIXELS // 1_000_000} megapixels. "
        "Please choose a smaller one."
    )


def _open(data: bytes) -> Image.Image:
    if data[4:8] == _HEIF_START:
        data = _without_descriptions(data)
    return Image.open(io.BytesIO(data), formats=FORMATS)


def _without_descriptions(data: bytes) -> bytes:
    """A HEIF whose EXIF, XMP and the like are tied to no picture any more.

    pi-heif 1.4.0 ends the whole process where the kind of such metadata is no UTF-8;
    pillow_heif#478 mends it, of which there is no release yet. Nobody wants them here.
    What ties them has a name of four letters, which compressed pixels may hold by
    chance: those are left as they are.
    """
    parts = []
    position = 0
    for _ in range(_MAX_HEIF_BOXES):
        # 0 is "all that follows" and 1 "see the next eight bytes": taken as the rest.
        length = int.from_bytes(data[position : position + 4])
        if length < 8:
            break
        part = data[position : position + length]
        if part[4:8] != _HEIF_PIXELS:
            part = part.replace(_HEIF_DESCRIBES, b"free")
        parts.append(part)
        position += length
    parts.append(data[position:].replace(_HEIF_DESCRIBES, b"free"))
    return b"".join(parts)


def _check_jpeg_work(data: bytes) -> None:
    """Refuse a JPEG whose pieces, not its pixels, would keep a decoder busy.

    Walks from marker to marker as libjpeg does, for the bytes of one may stand in
    metadata and in the video that phones append.
    """
    position = scans = segments = 0
    while found := _JPEG_SEGMENT.search(data, position):
        if found[1] == _JPEG_END:
            return
        scans += found[1] == _JPEG_SCAN
        segments += 1
        if scans > MAX_JPEG_SCANS or segments > MAX_JPEG_SEGMENTS:
            raise ImageTooComplex(
                "This JPEG comes in far more pieces than a photo does. Please save "
                "it anew, as a plain JPEG."
            )
        # A length counts its own two bytes.
        length = int.from_bytes(data[found.end() : found.end() + 2])
        position = found.end() + max(length, 2)


def _decode(data: bytes, max_side_px: int | None) -> DecodedImage:
    with _open(data) as image:
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise _too_many_pixels()
        if max(width, height) > MAX_SIDE_PX:
            raise ImageTooLarge(
                f"The picture is {width} x {height} pixels. Please choose one of at "
                f"most {MAX_SIDE_PX} pixels on each side."
            )
        if min(width, height) < MIN_SIDE_PX:
            raise ImageTooSmall(
                f"The picture is only {width} x {height} pixels. Please choose one "
                f"of at least {MIN_SIDE_PX} pixels on each side."
            )
        image_format = image.format or "?"
        # An MPO or HEIC may hold further views of one moment; its first is the photo.
        if (
            image_format in ("PNG", "WEBP", "AVIF")
            and getattr(image, "n_frames", 1) > MAX_FRAMES
        ):
            raise ImageAnimated(
                "This is an animation. Please choose a still picture, or a "
                "screenshot of the moment that you mean."
            )
        if max_side_px and image_format in ("JPEG", "MPO"):
            # Decodes at 1/2, 1/4 or 1/8 where that is still large enough: faster.
            # Both sides are asked for in proportion, or the shorter one would rule.
            reduction = max_side_px / max(width, height)
            least = max(1, int(width * reduction)), max(1, int(height * reduction))
            image.draft(None, least)
        image.load()
        # After load: libraries of some formats learn of the orientation only there.
        turn = _turn_of(image)
        pixels = _to_rgb_or_rgba(image)
    del image  # Of 24 megapixels a third copy would be 100 MB.
    if turn is not None:
        pixels = pixels.transpose(turn)
    if (pixels.width - pixels.height) * (width - height) < 0:
        width, height = height, width
    if max_side_px and max(pixels.size) > max_side_px:
        pixels.thumbnail((max_side_px, max_side_px), Image.Resampling.LANCZOS)
    return DecodedImage(_onto_white(pixels), width, height, image_format)


def _turn_of(image: Image.Image) -> Image.Transpose | None:
    """What turns a picture upright, after its EXIF; None where nothing need be done,
    or the EXIF cannot be read: the picture beside it is none the worse."""
    try:
        return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001  # Metadata of strangers raise anything.
        return None


def _to_rgb_or_rgba(image: Image.Image) -> Image.Image:
    """Eight bits a channel, with an alpha channel only where it is needed."""
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        # 16 bits a pixel: keep the high byte. Pillow's own conversion clips at 255.
        return (
            image.convert("I")
            .point(lambda value: value / 256)
            .convert("L")
            .convert("RGB")
        )
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def _onto_white(image: Image.Image) -> Image.Image:
    """RGB, and nothing of what ``info`` carried: EXIF, ICC, comments."""
    if image.mode == "RGBA":
        # After the reduction: three copies of 24 megapixels are 300 MB.
        ground = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(ground, image).convert("RGB")
    image.info = {}
    return image
