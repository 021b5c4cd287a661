from __future__ import annotations

import io
import struct
import zlib
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.core.files.storage import FileSystemStorage, default_storage
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.utils import timezone
from PIL import Image
from PIL.Image import Exif

from ml.images import MAX_BYTES
from tests.pictures import JPEG_SCAN, astronaut, encode, with_repeated
from webapp.core.errors import DomainError
from webapp.core.storage import StorageAway
from webapp.photos.models import Photo
from webapp.photos.services import intake
from webapp.photos.services.intake import (
    STORED_MAX_SIDE_PX,
    IdempotencyMismatch,
    PhotoRefused,
    StorageUnavailable,
    submit_photo,
)

pytestmark = pytest.mark.django_db

HEIC_FOLDER = Path(__file__).parents[3] / "tests" / "data"
GPS_IFD = 0x8825
ORIENTATION = 0x0112


KEY = "a-key-of-a-test-alone"


def submit(
    data: bytes,
    key: str = "",
    *scopes: str,
    visitor_key: str = "v" * 64,
    **choices: Any,
) -> Photo:
    return submit_photo(
        data=data,
        visitor_key=visitor_key,
        idempotency_scopes=scopes or ("s",),
        idempotency_key=key,
        **choices,
    )


def stored(photo: Photo) -> bytes:
    return Path(default_storage.path(photo.file_name)).read_bytes()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims to be that large and holds hardly a byte."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + checksum

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 100))
        + chunk(b"IEND", b"")
    )


def animation(image_format: str, frames: int) -> bytes:
    pictures = [Image.new("RGB", (32, 32), (i % 256, 0, 0)) for i in range(frames)]
    return encode(pictures[0], image_format, save_all=True, append_images=pictures[1:])


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_every_promised_format_is_taken_and_stored_as_jpeg(image_format: str) -> None:
    photo = submit(encode(astronaut(), image_format))

    image = Image.open(io.BytesIO(stored(photo)))
    assert image.format == "JPEG"
    assert (photo.width_px, photo.height_px) == image.size == (512, 512)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("red_left_blue_right.heic", (120, 80)),
        ("red_left_blue_right_turned.heic", (80, 120)),
    ],
)
def test_heic_is_taken_and_turned_upright_once(
    name: str, size: tuple[int, int]
) -> None:
    photo = submit((HEIC_FOLDER / name).read_bytes())

    image = Image.open(io.BytesIO(stored(photo)))
    assert (photo.width_px, photo.height_px) == image.size == size
    first = image.getpixel((10, 10))
    assert first[0] > 150 > first[2]  # red stays left, or comes to lie on top
    assert b"a camera" not in stored(photo)


def test_metadata_and_trailing_bytes_are_gone_from_what_is_stored() -> None:
    exif = Exif()
    exif[0x010F] = "a camera"
    exif.get_ifd(GPS_IFD)[2] = (52.0, 31.0, 12.0)
    data = encode(astronaut(), exif=exif, icc_profile=b"icc" * 100, comment=b"secret")

    kept = stored(submit(data + b"PK\x03\x04 trailing secret"))

    image = Image.open(io.BytesIO(kept))
    assert not image.getexif()
    assert "icc_profile" not in image.info
    assert "comment" not in image.info
    for trace in (b"a camera", b"secret", b"Exif", b"ICC"):
        assert trace not in kept


def test_orientation_is_applied() -> None:
    wide = Image.new("RGB", (200, 100), "blue")
    wide.paste("red", (0, 0, 100, 100))
    exif = Exif()
    exif[ORIENTATION] = 6  # the camera was turned: rotate 90 degrees clockwise

    photo = submit(encode(wide, exif=exif))

    image = Image.open(io.BytesIO(stored(photo)))
    assert (photo.width_px, photo.height_px) == image.size == (100, 200)
    assert image.getpixel((50, 20))[0] > 200  # red on top
    assert image.getpixel((50, 180))[2] > 200  # blue below


def test_large_photo_is_reduced_and_its_size_remembered() -> None:
    photo = submit(encode(astronaut().resize((4000, 3000))))

    image = Image.open(io.BytesIO(stored(photo)))
    assert (photo.width_px, photo.height_px) == (4000, 3000)
    assert max(image.size) == STORED_MAX_SIDE_PX


@pytest.mark.parametrize(
    "image",
    [
        astronaut().convert("CMYK"),
        astronaut().convert("L"),
        astronaut().convert("1"),
    ],
    ids=["cmyk", "grey", "bilevel"],
)
def test_unusual_modes_are_taken(image: Image.Image) -> None:
    image_format = "PNG" if image.mode == "1" else "JPEG"
    assert submit(encode(image, image_format)).width_px == 512


def test_sixteen_bit_picture_keeps_its_brightness() -> None:
    grey = np.asarray(astronaut().convert("L"))
    deep = Image.fromarray(grey.astype(np.uint16) * 257)

    image = Image.open(io.BytesIO(stored(submit(encode(deep, "PNG")))))

    assert abs(np.asarray(image.convert("L")).mean() - grey.mean()) < 2


def test_transparent_ground_becomes_white() -> None:
    clear = Image.new("RGBA", (64, 64), (0, 0, 0, 0))

    image = Image.open(io.BytesIO(stored(submit(encode(clear, "PNG")))))

    assert min(image.getpixel((5, 5))) > 250


REFUSED = {
    "empty": (b"", 400, "empty"),
    "text called .jpg": (b"this is no picture\n" * 50, 415, "unsupported_format"),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "unsupported_format"),
    "pdf": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", 415, "unsupported_format"),
    "gif": (encode(astronaut(), "GIF"), 415, "unsupported_format"),
    "bmp": (encode(astronaut(), "BMP"), 415, "unsupported_format"),
    "tiff": (encode(astronaut(), "TIFF"), 415, "unsupported_format"),
    "truncated jpeg": (encode(astronaut())[:9000], 400, "damaged"),
    "truncated png": (encode(astronaut(), "PNG")[:90_000], 400, "damaged"),
    "truncated webp": (encode(astronaut(), "WEBP")[:9000], 400, "damaged"),
    "65535 x 65535 header": (png_header(65_535, 65_535), 413, "too_large"),
    "25 megapixels": (png_header(5000, 5000), 413, "too_large"),
    "a line": (encode(Image.new("RGB", (4000, 2)), "PNG"), 400, "too_small"),
    "1500 scans": (
        with_repeated(Image.new("L", (64, 64)), JPEG_SCAN, 1500),
        *(400, "too_complex"),
    ),
    "1000 frames of png": (animation("PNG", 1000), 415, "animated"),
    "1000 frames of webp": (animation("WEBP", 1000), 415, "animated"),
    "too many bytes": (b"\xff\xd8\xff" + b"0" * MAX_BYTES, 413, "too_large"),
}


@pytest.mark.parametrize(
    ("data", "status", "code"), REFUSED.values(), ids=REFUSED.keys()
)
def test_refused_upload_leaves_neither_row_nor_file(
    data: bytes, status: int, code: str, media: Path
) -> None:
    with pytest.raises(PhotoRefused) as refusal:
        submit(data)

    assert (refusal.value.http_status, refusal.value.code) == (status, code)
    assert str(refusal.value).endswith((".", "file again."))
    assert not Photo.objects.exists()
    assert not [path for path in media.rglob("*") if path.is_file()]


def test_same_key_and_bytes_return_the_same_photo(media: Path) -> None:
    data = encode(astronaut())

    assert submit(data, KEY).pk == submit(data, KEY).pk
    assert len(list(media.rglob("*.jpg"))) == 1


@pytest.mark.parametrize(
    ("quality", "choices"),
    [(50, {}), (90, {"keep": True}), (90, {"train": True})],
    ids=["bytes", "keep", "train"],
)
def test_same_key_with_something_else_is_refused(
    quality: int, choices: dict[str, bool]
) -> None:
    submit(encode(astronaut(), quality=90), KEY)

    with pytest.raises(IdempotencyMismatch):
        submit(encode(astronaut(), quality=quality), KEY, **choices)

    assert Photo.objects.count() == 1


def test_second_of_two_at_once_gets_the_firsts_photo_though_the_store_goes_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    photo = encode(astronaut())
    re_encoded = intake._re_encoded
    first: list[Photo] = []

    def overtaken(data: bytes) -> Any:
        monkeypatch.setattr(intake, "_re_encoded", re_encoded)
        first.append(submit(photo, KEY))
        return re_encoded(data)

    def away(*_: object) -> None:
        raise StorageAway("the store does not answer")

    monkeypatch.setattr(intake, "_re_encoded", overtaken)
    monkeypatch.setattr(FileSystemStorage, "delete", away)

    assert [submit(photo, KEY)] == first


def test_same_key_of_somebody_else_is_another_photo() -> None:
    data = encode(astronaut())

    assert submit(data, KEY, "a").pk != submit(data, KEY, "b").pk


def test_end_of_an_address_and_beginning_of_a_key_are_not_taken_for_each_other() -> (
    None
):
    data = encode(astronaut())

    first = submit(data, "2:" + KEY, "2001:db8::1")

    assert submit(data, KEY, "2001:db8::1:2").pk != first.pk


def test_key_without_a_scope_is_nobodys() -> None:
    with pytest.raises(ValueError, match="scope"):
        submit_photo(
            data=encode(astronaut()), visitor_key="v" * 64, idempotency_key=KEY
        )


def test_later_scope_returns_the_photo_of_the_same_visitor_alone() -> None:
    data = encode(astronaut())
    first = submit(data, KEY, "address")

    again = submit(data, KEY, "cookie", "address")
    stranger = submit(data, KEY, "other", "address", visitor_key="w" * 64)

    assert again.pk == first.pk != stranger.pk


def test_key_of_an_expired_photo_is_free_before_the_sweep() -> None:
    data = encode(astronaut())
    first = submit(data, KEY)
    Photo.objects.update(expires_at=timezone.now() - timedelta(seconds=1))

    assert submit(data, KEY).pk != first.pk
    assert Photo.objects.count() == 1


def test_key_that_is_too_long_is_refused() -> None:
    with pytest.raises(DomainError, match="use a UUID") as refusal:
        submit(encode(astronaut()), "k" * 201)

    assert refusal.value.code == "idempotency_key_too_long"


def test_photo_that_nobody_can_decode_in_time_is_sent_away(
    monkeypatch: pytest.MonkeyPatch, client: Client
) -> None:
    monkeypatch.setattr(intake, "_DECODING_WAIT_SECONDS", 0.01)
    data = encode(astronaut())

    with intake._decoding, intake._decoding:
        answer = client.post(
            "/api/v1/photos", {"image": SimpleUploadedFile("me.jpg", data)}
        )
        page = client.post("/photos/", {"image": SimpleUploadedFile("me.jpg", data)})

    for response in (answer, page):
        assert response.status_code == 503
        assert response["Retry-After"] == "5"
    assert answer.json()["code"] == "busy"
    assert b"Please try again in a few seconds." in page.content
    assert not Photo.objects.exists()
    assert submit(data).pk


def test_full_disk_is_said_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, media: Path
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)

    with pytest.raises(StorageUnavailable):
        submit(encode(astronaut()))

    assert not Photo.objects.exists()
    assert not [path for path in media.rglob("*") if path.is_file()]
