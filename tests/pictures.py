"""Pictures for tests: public-domain photographs that packages ship, and drawn files."""

from __future__ import annotations

import importlib.util
import io
import uuid
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

JPEG_SCAN, JPEG_COMMENT = b"\xff\xda", b"\xff\xfe"


def astronaut() -> Image.Image:
    """Eileen Collins, 512 x 512, one face (NASA, public domain; scikit-image)."""
    return Image.open(_package_file("skimage", "data/astronaut.png")).convert("RGB")


def hopper() -> Image.Image:
    """Grace Hopper, 512 x 600, one face (US Navy, public domain; matplotlib)."""
    path = _package_file("matplotlib", "mpl-data/sample_data/grace_hopper.jpg")
    return Image.open(path).convert("RGB")


def landscape() -> Image.Image:
    """640 x 480 without a face: a drawn sky over a drawn field."""
    rows = np.linspace(0, 1, 480)[:, None]
    columns = np.linspace(0, 1, 640)[None, :]
    sky = 180 - 120 * rows + 20 * np.sin(9 * columns)
    picture = np.stack([sky * 0.6, sky * 0.9, 255 - 100 * rows + 0 * columns], axis=2)
    return Image.fromarray(picture.clip(0, 255).astype(np.uint8))


def encode(image: Image.Image, image_format: str = "JPEG", **options: Any) -> bytes:
    """The picture as a file of that format."""
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def with_repeated(image: Image.Image, marker: bytes, times: int) -> bytes:
    """A progressive JPEG in which the last segment of that marker comes so many times
    more."""
    data = encode(image, progressive=True, comment=b"-")
    start = data.rindex(marker)
    end = data.index(b"\xff", start + len(marker))
    return data[:start] + data[start:end] * times + data[start:]


def as_form(image: bytes, **fields: str) -> tuple[bytes, str]:
    """The body and content type of a form that gives the photo."""
    boundary = uuid.uuid4().hex
    said = "".join(
        f"--{boundary}\r\n"
        f'Content-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    )
    head = (
        f"{said}--{boundary}\r\n"
        'Content-Disposition: form-data; name="image"; filename="photo.jpg"\r\n'
        "Content-Type: image/jpeg\r\n\r\n"
    )
    body = head.encode() + image + f"\r\n--{boundary}--\r\n".encode()
    return body, f"multipart/form-data; boundary={boundary}"


def _package_file(package: str, name: str) -> Path:
    """A file that a package ships, without importing the package."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise LookupError(f"the package {package} is missing: run make install")
    return Path(spec.submodule_search_locations[0]) / name
