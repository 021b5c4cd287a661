from __future__ import annotations

import io
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from ml.images import (
    ImageAnimated,
    ImageDamaged,
    ImageEmpty,
    ImageRefused,
    ImageTooComplex,
    ImageTooLarge,
    ImageTooSmall,
    ImageUnsupported,
    decode_image,
    encode_jpeg,
    read_file,
    read_header,
)
from tests.pictures import (
    JPEG_COMMENT,
    JPEG_SCAN,
    astronaut,
    encode,
    with_repeated,
)

HEIC = Path(__file__).parents[2] / "tests" / "data" / "red_left_blue_right_turned.heic"


def _png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        checked = kind + body
        return (
            struct.pack(">I", len(body))
            + checked
            + struct.pack(">I", zlib.crc32(checked))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IEND", b"")


def _animation(image_format: str, frames: int) -> bytes:
    pictures = [Image.new("RGB", (32, 32), (i % 256, 0, 0)) for i in range(frames)]
    return encode(pictures[0], image_format, save_all=True, append_images=pictures[1:])


REFUSED: dict[str, tuple[Callable[[], bytes], type[ImageRefused]]] = {
    "empty": (lambda: b"", ImageEmpty),
    "text": (lambda: b"this is no picture\n" * 50, ImageUnsupported),
    "svg": (lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>", ImageUnsupported),
    "pdf": (lambda: b"%PDF-1.7\n", ImageUnsupported),
    "gif": (lambda: encode(astronaut(), "GIF"), ImageUnsupported),
    "cut JPEG": (lambda: encode(astronaut())[:9000], ImageDamaged),
    "cut PNG": (lambda: encode(astronaut(), "PNG")[:9000], ImageDamaged),
    "many pixels": (lambda: _png_header(65_535, 65_535), ImageTooLarge),
    "many bytes": (lambda: b"\xff\xd8\xff" + bytes(11 * 1024**2), ImageTooLarge),
    "narrow": (lambda: encode(Image.new("L", (400, 3)), "PNG"), ImageTooSmall),
    "animated PNG": (lambda: _animation("PNG", 1000), ImageAnimated),
    "animated WebP": (lambda: _animation("WEBP", 1000), ImageAnimated),
    "many scans": (
        lambda: with_repeated(Image.new("L", (4900, 4900)), JPEG_SCAN, 1500),
        ImageTooComplex,
    ),
    "many segments": (
        lambda: with_repeated(astronaut(), JPEG_COMMENT, 1_000_000),
        ImageTooComplex,
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_usable_picture_is_refused(case: str) -> None:
    data, refusal = REFUSED[case]
    with pytest.raises(refusal) as refused:
        decode_image(data())
    assert type(refused.value) is refusal
    assert str(refused.value).endswith(".")


@pytest.mark.timed
@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_usable_picture_is_refused_quickly(case: str) -> None:
    data = REFUSED[case][0]()
    # Of a processor: what else the machine does meanwhile does not count.
    started = time.process_time()
    with pytest.raises(ImageRefused):
        decode_image(data)
    assert time.process_time() - started < 1


def test_jpeg_of_fifty_scans_is_taken_whatever_stands_behind_it() -> None:
    # A motion photo: video follows the picture, and no byte of it is the picture's.
    data = with_repeated(astronaut(), JPEG_SCAN, 50) + JPEG_SCAN * 1500

    assert decode_image(data).pixels.size == (512, 512)


def test_bytes_of_scans_in_metadata_are_none() -> None:
    data = encode(astronaut(), comment=JPEG_SCAN * 1500)

    assert decode_image(data).pixels.size == (512, 512)


def test_what_phones_call_24_megapixels_is_taken() -> None:
    data = encode(Image.new("L", (5712, 4284), "grey"))

    assert decode_image(data, max_side_px=320).width_px == 5712


def test_too_long_a_side_is_not_called_too_many_pixels() -> None:
    with pytest.raises(ImageTooLarge, match=r"20000 x 20 .* 16000 pixels on each side"):
        decode_image(encode(Image.new("L", (20_000, 20)), "PNG"))


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_promised_formats_are_decoded(image_format: str) -> None:
    decoded = decode_image(encode(astronaut(), image_format))
    assert decoded.pixels.mode == "RGB"
    assert (decoded.width_px, decoded.height_px) == (512, 512)
    wanted = np.asarray(astronaut(), float)
    assert np.abs(np.asarray(decoded.pixels, float) - wanted).mean() < 6


def test_heic_is_decoded_upright() -> None:
    decoded = decode_image(HEIC.read_bytes())
    assert decoded.format == "HEIF"
    assert decoded.pixels.size == (80, 120)


@pytest.mark.parametrize("length", [None, 2**32 - 16])
def test_heic_whose_metadata_are_of_no_kind_ends_no_process(
    tmp_path: Path, length: int | None
) -> None:
    data = bytearray(HEIC.read_bytes())
    data[data.index(b"Exif")] = 0xFF
    if length is not None:
        # The box that ties them to the picture says that it is longer than the file.
        at = data.index(b"cdsc") - 4
        data[at : at + 4] = length.to_bytes(4)
    path = tmp_path / "photo.heic"
    path.write_bytes(data)
    code = (
        "import pathlib, sys\n"
        "from ml.images import decode_image, read_header\n"
        "data = pathlib.Path(sys.argv[1]).read_bytes()\n"
        "assert read_header(data)\n"
        "print(decode_image(data).pixels.size)\n"
    )
    # In a process of its own: it must not end this one, either.
    done = subprocess.run(
        [sys.executable, "-c", code, path],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "(80, 120)\n"), done.stderr


def test_pixels_of_a_heic_are_left_as_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = HEIC.read_bytes()
    pixels = data[data.index(b"mdat") - 4 :]
    pixels = pixels[:100] + b"cdsc" + pixels[104:]
    opened: list[bytes] = []

    def keep(source: io.BytesIO, formats: object) -> Image.Image:
        opened.append(source.read())
        raise OSError

    monkeypatch.setattr("ml.images.Image.open", keep)
    read_header(data[: -len(pixels)] + pixels)
    assert opened[0].endswith(pixels)
    assert opened[0].count(b"cdsc") == 1


@pytest.mark.parametrize("mode", ["CMYK", "L", "1"])
def test_other_modes_become_rgb(mode: str) -> None:
    image_format = "JPEG" if mode == "CMYK" else "PNG"
    decoded = decode_image(encode(astronaut().convert(mode), image_format))
    assert decoded.pixels.mode == "RGB"
    grey = np.asarray(decoded.pixels.convert("L"), float).mean()
    assert grey == pytest.approx(np.asarray(astronaut().convert("L")).mean(), abs=8)


def test_sixteen_bits_keep_their_brightness() -> None:
    wide = np.asarray(astronaut().convert("L")).astype(np.uint16) * 257
    decoded = decode_image(encode(Image.fromarray(wide), "PNG"))
    wanted = np.asarray(astronaut().convert("L"))
    assert np.abs(np.asarray(decoded.pixels)[:, :, 0].astype(int) - wanted).max() <= 1


def test_orientation_is_applied_and_gone() -> None:
    wide = Image.new("RGB", (200, 100), "blue")
    wide.paste("red", (0, 0, 100, 100))
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "a camera"
    decoded = decode_image(encode(wide, exif=exif))
    assert (decoded.width_px, decoded.height_px) == (100, 200)
    assert decoded.pixels.getpixel((50, 20))[0] > 200  # type: ignore[index]
    assert not decoded.pixels.info
    kept = Image.open(io.BytesIO(encode_jpeg(decoded.pixels)))
    assert not kept.getexif()
    assert b"a camera" not in encode_jpeg(decoded.pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
def test_every_orientation_is_turned_upright(
    image_format: str, orientation: int
) -> None:
    upright = Image.new("RGB", (120, 80), "black")
    upright.paste("red", (0, 0, 60, 40))
    upright.paste("blue", (60, 0, 120, 40))
    # How a camera that was held so would have stored it.
    stored = {
        2: lambda: upright.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: lambda: upright.rotate(180),
        4: lambda: upright.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: lambda: upright.transpose(Image.Transpose.TRANSPOSE),
        6: lambda: upright.rotate(90, expand=True),
        7: lambda: upright.transpose(Image.Transpose.TRANSVERSE),
        8: lambda: upright.rotate(-90, expand=True),
    }.get(orientation, lambda: upright)()
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = decode_image(encode(stored, image_format, exif=exif))
    assert (decoded.width_px, decoded.height_px) == upright.size
    seen, wanted = (np.asarray(one, int) for one in (decoded.pixels, upright))
    assert np.abs(seen - wanted).mean() < 6


@pytest.mark.parametrize("exif", [b"no TIFF header", bytes(40)], ids=["odd", "zeros"])
@pytest.mark.parametrize(
    ("image_format", "options"),
    [("JPEG", {"dpi": (72, 72)}), ("PNG", {}), ("WEBP", {})],
)
def test_exif_that_cannot_be_read_damages_no_picture(
    image_format: str, options: dict[str, Any], exif: bytes
) -> None:
    # A JPEG whose EXIF does not begin so has none.
    data = encode(astronaut(), image_format, exif=b"Exif\0\0" + exif, **options)

    assert decode_image(data).pixels.size == (512, 512)


def test_exif_of_a_raw_profile_that_is_none_damages_no_picture() -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("Raw profile type exif", "\nexif\n      4\nno hexadecimal digits")
    data = encode(astronaut(), "PNG", pnginfo=text)

    assert decode_image(data).pixels.size == (512, 512)


def test_reduction_keeps_the_aspect_and_remembers_the_size() -> None:
    decoded = decode_image(encode(astronaut().resize((1000, 500))), max_side_px=200)
    assert decoded.pixels.size == (200, 100)
    assert (decoded.width_px, decoded.height_px) == (1000, 500)


def test_thin_picture_is_reduced_to_a_line() -> None:
    data = encode(Image.new("RGB", (16, 16_000), "red"))

    assert decode_image(data, max_side_px=800).pixels.size == (1, 800)


@pytest.mark.filterwarnings("error")
def test_header_is_read_without_pixels() -> None:
    # So many that Pillow warns.
    header = read_header(_png_header(12_000, 9000))
    assert header is not None
    assert (header.format, header.mode, header.width_px) == ("PNG", "RGB", 12_000)
    assert read_header(b"no picture") is None
    assert read_header(encode(astronaut(), "GIF")) is None


def test_of_a_file_that_is_too_large_only_the_beginning_is_read(
    tmp_path: Path,
) -> None:
    path = tmp_path / "huge.jpg"
    with path.open("wb") as handle:
        handle.truncate(8 * 1024**3)

    with pytest.raises(ImageTooLarge):
        decode_image(read_file(path))
