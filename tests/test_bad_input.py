"""What strangers send: each with its answer, and nothing left behind.

The first part talks to the whole site over a socket, as a stranger does: files,
requests that no client library would make, and what the web process's memory does
meanwhile. The second looks at what pages and exports do with words that people wrote,
the third at model files.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import pickle
import socket
import struct
import time
import uuid
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import psutil
import pytest
from django.conf import LazySettings
from django.test import Client
from django.urls import reverse
from PIL import Image

from ml.images import MAX_BYTES
from ml.inference import HEAD_BIAS_NAME
from ml.manifest import (
    ManifestError,
    ModelFileError,
    manifest_path,
    sha256_of,
)
from tests.models import write_tiny_model
from tests.pictures import astronaut, encode
from tests.stack import Stack, own_services, prepare
from webapp.accounts.models import Role
from webapp.accounts.services import invite_person
from webapp.accounts.visitors import COOKIE_NAME, new_visitor
from webapp.curation.services.claims import claim_faces
from webapp.curation.services.flags import submit_flag
from webapp.curation.services.votes import submit_correction
from webapp.curation.tests.factories import (
    FaceFactory,
    PersonFactory,
    QueuedFaceFactory,
    ReadPhotoFactory,
)
from webapp.photos.models import Photo
from webapp.registry.models import ModelVersion
from webapp.registry.services import register_model_version

MEMORY_LIMIT_BYTES = 200 * 1024**2
BOUNDARY = "a-boundary-that-no-picture-has"
UNREADABLE = "This is not a picture that we can read. Please use JPEG, PNG"
DAMAGED = "The picture is damaged or was cut off on its way"
TOO_MANY_PIXELS = "more than 24 megapixels"
TOO_LONG = "at most 16000 pixels on each side"
TOO_MANY_BYTES = "larger than 10 MB"
ANIMATED = "This is an animation"
SEND_IMAGE = "Send the photo as the multipart field 'image'"
NOT_MULTIPART = "Multipart form parse error"
NOTHING_THERE = "There is nothing at this address"
NO_SUCH_PHOTO = "There is no such photo here"
ZIP_DAMAGED = "The zip is damaged"


# --- Files -------------------------------------------------------------------------


def small() -> Image.Image:
    """A drawn picture without a face."""
    pixels = np.add.outer(np.arange(64) * 2, np.arange(80)).astype(np.uint8)
    return Image.fromarray(np.stack([pixels, 255 - pixels, pixels // 2], axis=2))


JPEG = encode(small())
PNG = encode(small(), "PNG")
WEBP = encode(small(), "WEBP", lossless=True)
AVIF = encode(small(), "AVIF")


def chunk(kind: bytes, body: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + body))
    return struct.pack(">I", len(body)) + kind + body + checksum


def png(width: int, height: int, pixels: bytes = b"\0" * 100, colour: int = 2) -> bytes:
    """A PNG whose header says what it likes."""
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(pixels, 9))
        + chunk(b"IEND", b"")
    )


def png_with_text_bomb() -> bytes:
    """A compressed comment of 100 MB in a few KB."""
    bomb = b"comment\0\0" + zlib.compress(b"\0" * 100_000_000, 9)
    return PNG[:33] + chunk(b"zTXt", bomb) + PNG[33:]


def png_with_profile_bomb() -> bytes:
    bomb = b"icc\0\0" + zlib.compress(b"\0" * 100_000_000, 9)
    return PNG[:33] + chunk(b"iCCP", bomb) + PNG[33:]


def animation(image_format: str) -> bytes:
    pictures = [Image.new("RGB", (32, 32), (i, 0, 0)) for i in range(40)]
    return encode(pictures[0], image_format, save_all=True, append_images=pictures[1:])


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method, compresslevel=9) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def zip_that_lies() -> bytes:
    """A member that says it has ten bytes and unpacks to 300 MB."""
    data = bytearray(zipped({"a.jpg": b"\0" * 100_000_000}))
    start = data.rindex(b"PK\x01\x02")
    data[start + 24 : start + 28] = struct.pack("<I", 10)
    data[22:26] = struct.pack("<I", 10)
    return bytes(data)


def encrypted_zip() -> bytes:
    data = bytearray(zipped({"a.jpg": JPEG}))
    data[6] |= 1
    start = data.rindex(b"PK\x01\x02")
    data[start + 8] |= 1
    return bytes(data)


def deflate64_zip() -> bytes:
    """As Windows packs what is large."""
    data = bytearray(zipped({"a.jpg": JPEG}))
    start = data.rindex(b"PK\x01\x02")
    data[8:10] = data[start + 10 : start + 12] = struct.pack("<H", 9)
    return bytes(data)


def with_exif(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "secret-camera"
    exif.get_ifd(0x8825).update(
        {1: "N", 2: (52.0, 31.0, 12.0), 3: "E", 4: (13.0, 24.0, 1)}
    )
    return encode(small(), "JPEG", exif=exif)


def jpeg_with_comment(text: bytes) -> bytes:
    comment = b"\xff\xfe" + struct.pack(">H", len(text) + 2) + text
    return JPEG[:2] + comment + JPEG[2:]


def tagged(mode: str, image_format: str, **options: Any) -> bytes:
    return encode(small().convert(mode), image_format, **options)


# --- Requests ----------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A request and the answer to it: a status, and what the answer must say."""

    status: int
    says: str = ""
    method: str = "POST"
    path: str = "/api/v1/photos"
    body: bytes | Callable[[], bytes] = b""
    kind: str = f"multipart/form-data; boundary={BOUNDARY}"
    headers: dict[str, str] = field(default_factory=dict)


def part(
    data: bytes, name: str = "image", file_name: str | None = "p.jpg", kind: str = ""
) -> bytes:
    words = f'Content-Disposition: form-data; name="{name}"'
    if file_name is not None:
        words += f'; filename="{file_name}"'
    words += f"\r\nContent-Type: {kind or 'image/jpeg'}"
    return f"--{BOUNDARY}\r\n{words}\r\n\r\n".encode() + data + b"\r\n"


END = f"--{BOUNDARY}--\r\n".encode()


def upload(
    status: int, says: str, data: bytes | Callable[[], bytes], **words: Any
) -> Case:
    def body() -> bytes:
        return part(data() if callable(data) else data, **words) + END

    return Case(status, says, body=body)


def batch(status: int, says: str, data: bytes | Callable[[], bytes]) -> Case:
    def body() -> bytes:
        return part(data() if callable(data) else data, file_name="p.zip") + END

    return Case(status, says, path="/api/v1/batches", body=body)


def document(status: int, says: str, text: bytes, path: str, **words: Any) -> Case:
    return Case(status, says, path=path, body=text, kind="application/json", **words)


def get(status: int, says: str, path: str, **headers: str) -> Case:
    return Case(status, says, "GET", path, b"", "", headers)


NOBODY = uuid.UUID(int=0)
FILES: dict[str, Case] = {
    "png of 65535 x 65535": upload(413, TOO_MANY_PIXELS, png(65_535, 65_535)),
    "png of 2147483647 x 1": upload(413, TOO_MANY_PIXELS, png(2**31 - 1, 1)),
    "png bomb of 30000 x 30000": upload(
        413, TOO_MANY_PIXELS, lambda: png(30_000, 30_000, b"\0" * 9_000_000)
    ),
    "png of 0 x 0": upload(415, UNREADABLE, png(0, 0)),
    "png with a comment bomb": upload(400, DAMAGED, png_with_text_bomb),
    "png with a profile bomb": upload(400, DAMAGED, png_with_profile_bomb),
    "png of 20000 x 1": upload(413, TOO_LONG, png(20_000, 1)),
    "png of 4000 x 5 pixels": upload(400, "only 4000 x 5", png(4000, 5)),
    "png with more data than pixels": upload(
        202, "", lambda: png(64, 64, b"\0" * 50_000_000)
    ),
    "png with less data than pixels": upload(400, DAMAGED, png(640, 640)),
    "png with a broken checksum": upload(
        415, UNREADABLE, PNG[:29] + b"\0\0\0\0" + PNG[33:]
    ),
    "png cut off": upload(400, DAMAGED, PNG[: len(PNG) // 2]),
    "jpeg cut off": upload(400, DAMAGED, encode(astronaut())[:9000]),
    "jpeg of its first bytes": upload(415, UNREADABLE, JPEG[:4]),
    "jpeg with a header of 65500 x 65500": upload(
        413,
        TOO_MANY_PIXELS,
        lambda: JPEG.replace(
            struct.pack(">HH", 64, 80), struct.pack(">HH", 65_500, 65_500), 1
        ),
    ),
    "webp cut off": upload(400, DAMAGED, encode(astronaut(), "WEBP")[:9000]),
    "avif cut off": upload(400, DAMAGED, AVIF[: len(AVIF) - 40]),
    "heic header alone": upload(415, UNREADABLE, b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"),
    "nothing": upload(400, "The file is empty", b""),
    "one zero byte": upload(415, UNREADABLE, b"\0"),
    "a megabyte of zeros": upload(415, UNREADABLE, b"\0" * 1_000_000),
    "text called jpg": upload(415, UNREADABLE, b"no picture\n" * 90),
    "svg with a script": upload(
        415, UNREADABLE, b"<svg xmlns='http://www.w3.org/2000/svg'><script/></svg>"
    ),
    "html called jpg": upload(
        415, UNREADABLE, b"<!doctype html><script>alert(1)</script>"
    ),
    "pdf": upload(415, UNREADABLE, b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n"),
    "postscript": upload(415, UNREADABLE, b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox"),
    "imagemagick script": upload(
        415, UNREADABLE, b"push graphic-context\nfill 'url(https://x|ls)'\n"
    ),
    "executable": upload(415, UNREADABLE, b"\x7fELF\x02\x01\x01" + b"\0" * 100),
    "python pickle": upload(415, UNREADABLE, pickle.dumps({"a": 1})),
    "gif": upload(415, UNREADABLE, encode(small(), "GIF")),
    "gif called jpg, animated": upload(415, UNREADABLE, animation("GIF")),
    "bmp": upload(415, UNREADABLE, encode(small(), "BMP")),
    "tiff": upload(415, UNREADABLE, encode(small(), "TIFF")),
    "ico": upload(415, UNREADABLE, encode(small(), "ICO")),
    "ppm of 60000 x 60000": upload(415, UNREADABLE, b"P6 60000 60000 255\n"),
    "animated png": upload(415, ANIMATED, animation("PNG")),
    "animated webp": upload(415, ANIMATED, animation("WEBP")),
    "ten megabytes and one": upload(
        413, TOO_MANY_BYTES, lambda: JPEG + b"\0" * (MAX_BYTES + 1 - len(JPEG))
    ),
    "body of 200 MB announced": Case(
        413, TOO_MANY_BYTES, body=b"", headers={"Content-Length": "200000000"}
    ),
    "zip as one photo": upload(415, UNREADABLE, zipped({"a.jpg": JPEG})),
    "zip bomb": batch(400, TOO_MANY_BYTES, lambda: zipped({"a": b"\0" * 100_000_000})),
    "zip that lies about its size": batch(400, "It is damaged inside", zip_that_lies),
    "zip of zips": batch(
        400,
        UNREADABLE,
        lambda: zipped({"a.zip": zipped({"b.zip": zipped({"c": JPEG})})}),
    ),
    "zip of 51 photos": batch(
        400,
        "more than 50 photos",
        lambda: zipped({f"{i}.jpg": JPEG for i in range(51)}),
    ),
    "zip of 20000 names": batch(
        400, "more than 50 photos", lambda: zipped({f"{i}": b"" for i in range(20_000)})
    ),
    "zip cut off": batch(400, ZIP_DAMAGED, zipped({"a.jpg": JPEG})[:-30]),
    "zip header alone": batch(400, ZIP_DAMAGED, b"PK\x03\x04"),
    "zip with a password": batch(400, "It is encrypted", encrypted_zip),
    "zip of nothing": batch(400, "There was no file in it", zipped({})),
    "zip packed by a method of its own": batch(
        400, "Please pack it as a plain zip", deflate64_zip
    ),
    "zip of folders and hidden files": batch(
        400,
        "There was no file in it",
        zipped({"a/": b"", "__MACOSX/x": b"", ".x": b""}),
    ),
    "zip with a broken member": batch(
        400,
        "It is damaged inside",
        zipped({"a.jpg": JPEG}, zipfile.ZIP_STORED).replace(JPEG[100:120], b"\0" * 20),
    ),
}

TAKEN: dict[str, Case] = {
    **{f"jpeg turned {n}": upload(202, "", with_exif(n)) for n in range(1, 10)},
    "jpeg in cmyk": upload(202, "", tagged("CMYK", "JPEG")),
    "jpeg in grey": upload(202, "", tagged("L", "JPEG")),
    "jpeg, progressive": upload(202, "", encode(small(), "JPEG", progressive=True)),
    "jpeg with a broken profile": upload(
        202, "", encode(small(), "JPEG", icc_profile=b"no profile" * 30)
    ),
    "jpeg with broken exif": upload(
        202,
        "",
        encode(small(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + b"x" * 50),
    ),
    "jpeg with a script as comment": upload(
        202, "", jpeg_with_comment(b"<script>alert(1)</script>")
    ),
    "jpeg that is a zip, too": upload(202, "", JPEG + zipped({"x.php": b"<?php ?>"})),
    "jpeg that is a page, too": upload(202, "", JPEG + b"<html><script>1</script>"),
    "jpeg called exe": upload(202, "", JPEG, file_name="a.exe", kind="application/x"),
    "jpeg called svg": upload(202, "", JPEG, file_name="a.svg", kind="image/svg+xml"),
    "png called jpg": upload(202, "", PNG, file_name="a.jpg"),
    "png with palette": upload(202, "", tagged("P", "PNG")),
    "png with one bit": upload(202, "", tagged("1", "PNG")),
    "png with alpha": upload(202, "", tagged("RGBA", "PNG")),
    "png with 16 bits": upload(202, "", tagged("I;16", "PNG")),
    "webp with alpha": upload(202, "", tagged("RGBA", "WEBP")),
    "avif": upload(202, "", AVIF),
    **{
        f"name {name[:20]!r}": upload(202, "", JPEG, file_name=name)
        for name in (
            "../../../../etc/passwd",
            "..\\..\\windows\\win.ini",
            "/etc/cron.d/x",
            "C:\\x.jpg",
            "a\0.jpg",
            "\u202egpj.exe",
            "\u0301" * 300,
            "<script>alert(1)</script>.jpg",
            "=cmd|' /C calc'!A0.jpg",
            "con.jpg",
            "x" * 500 + ".jpg",
        )
    },
    "fields that nobody asked for": Case(
        202,
        "",
        body=lambda: (
            part(b"1", "status", None)
            + part(b"x", "visitor_key", None)
            + part(JPEG)
            + END
        ),
    ),
}

REQUESTS: dict[str, Case] = {
    "no field": Case(400, SEND_IMAGE, body=END),
    "a name of dots": upload(400, SEND_IMAGE, JPEG, file_name="."),
    "a name of 5000 letters": upload(
        400, "header size exceeded", JPEG, file_name="x" * 5000
    ),
    "two photos in one field": Case(
        400, "several to /api/v1/batches", body=lambda: part(JPEG) + part(PNG) + END
    ),
    "another field": Case(400, SEND_IMAGE, body=lambda: part(JPEG, "photo") + END),
    "text as the photo": Case(
        400, "must be a file", body=lambda: part(b"x", file_name=None) + END
    ),
    "multipart without its end": Case(400, "", body=lambda: part(JPEG)[:-60]),
    "multipart without a boundary": Case(
        400, NOT_MULTIPART, body=JPEG, kind="multipart/form-data"
    ),
    "multipart with a wrong boundary": Case(
        400, SEND_IMAGE, body=JPEG, kind="multipart/form-data; boundary=other"
    ),
    "multipart with a long boundary": Case(
        415,
        "Unsupported media type",
        body=JPEG,
        kind="multipart/form-data; boundary=" + "x" * 300,
    ),
    "multipart of 5000 fields": Case(
        400,
        "",
        body=lambda: b"".join(part(b"1", f"f{i}", None) for i in range(5000)) + END,
    ),
    "multipart of 500 files": Case(
        400, "", body=lambda: b"".join(part(b"1", f"f{i}") for i in range(500)) + END
    ),
    "a field of 2 MB": Case(
        400, "", body=lambda: part(b"x" * 2_000_000, "keep", None) + part(JPEG) + END
    ),
    "a choice that is none": Case(
        400,
        "keep: Must be a valid boolean.",
        body=lambda: part(b"maybe", "keep", None) + part(JPEG) + END,
    ),
    "a photo as JSON": document(415, "Unsupported media type", b"{}", "/api/v1/photos"),
    "an encoding that is none": Case(
        415, "Unsupported media type", body=b"x", kind="text/plain; charset=nonsense"
    ),
    "a form of another site": Case(
        403,
        "from a page of another site",
        body=lambda: part(JPEG) + END,
        headers={"Sec-Fetch-Site": "cross-site"},
    ),
    "a key that is too long": Case(
        400,
        "Idempotency-Key is longer than 200",
        body=lambda: part(JPEG) + END,
        headers={"Idempotency-Key": "k" * 201},
    ),
    "method that is none": Case(405, "not allowed", "BREW", kind=""),
    "method override": Case(
        400,
        SEND_IMAGE,
        body=lambda: part(b"DELETE", "_method", None) + END,
        headers={"X-HTTP-Method-Override": "DELETE"},
    ),
    "TRACE": Case(405, "not allowed", "TRACE", kind=""),
    "another host": get(400, "could not be understood", "/", Host="evil.example"),
    "host with a script": get(400, "", "/", Host='"><script>alert(1)</script>'),
    "forwarded host": get(200, "", "/", **{"X-Forwarded-Host": "evil.example"}),
    "id that is none": get(404, NOTHING_THERE, "/api/v1/photos/1"),
    "negative id": get(404, NOTHING_THERE, "/api/v1/photos/-1"),
    "id of a million digits": get(404, NOTHING_THERE, "/api/v1/photos/" + "9" * 3900),
    "unknown id": get(404, NO_SUCH_PHOTO, f"/api/v1/photos/{NOBODY}"),
    "huge index": get(404, "", f"/photos/{NOBODY}/heat/{10**30}"),
    "traversal in the path": get(404, "", "/static/../../../etc/passwd"),
    "traversal, encoded": get(404, "", "/static/%2e%2e/%2e%2e/etc/passwd"),
    "example by traversal": get(404, "", "/examples/..%2f..%2fetc%2fpasswd"),
    "nul in the path": get(404, "", "/s/%00/"),
    "nul in the query": get(404, NO_SUCH_PHOTO, f"/api/v1/photos/{NOBODY}?secret=%00"),
    "no utf-8 in the path": get(404, "", "/s/%ff%fe/"),
    "unicode tricks in the path": get(404, "", "/s/%E2%80%AE%F0%9F%92%A9/"),
    "huge query": get(404, "", f"/api/v1/photos/{NOBODY}?secret=" + "x" * 3000),
    "request line that is too long": get(414, "", "/?" + "x" * 9000),
    "header that is too long": get(431, "", "/livez", **{"X-Long": "x" * 9000}),
    "five hundred headers": get(
        431, "", "/livez", **{f"X-{i}": "1" for i in range(500)}
    ),
    "cookie that is none": get(
        200, "", "/api/v1/photos", Cookie="mien_visitor=' OR 1=1"
    ),
    "two lengths": Case(400, "", headers={"Content-Length": "1, 2"}),
    "negative length": Case(400, "", headers={"Content-Length": "-1"}),
    "length that is no number": Case(400, "", headers={"Content-Length": "ten"}),
    "upload in chunks": Case(
        411,
        "Please send it with its Content-Length",
        body=lambda: b"%x\r\n%b\r\n0\r\n\r\n" % (len(JPEG), JPEG),
        headers={"Transfer-Encoding": "chunked", "Content-Length": ""},
    ),
    "description of another version": get(200, "openapi", "/api/schema/?version=%00"),
    "smuggled length": Case(
        400,
        "",
        body=b"0\r\n\r\nGET /livez HTTP/1.1\r\nHost: x\r\n\r\n",
        headers={"Transfer-Encoding": "chunked", "Content-Length": "4"},
    ),
    "log-in that leads elsewhere": get(
        200, "", "/accounts/login/?next=https://evil.example/"
    ),
    "page number that is none": get(200, "", "/photos/mine/?page=%00"),
    "key that is none": get(
        401, "This API key is not known", "/api/v1/photos", Authorization="Bearer \xff"
    ),
    "key that is long": get(
        401,
        "This API key is not known",
        "/api/v1/photos",
        Authorization="Bearer " + "k" * 5000,
    ),
}

CASES = {**FILES, **TAKEN, **REQUESTS}


_bodies: dict[int, bytes] = {}


def body_of(case: Case) -> bytes:
    """Made once: a bomb takes its time to pack."""
    if not callable(case.body):
        return case.body
    if id(case) not in _bodies:
        _bodies[id(case)] = case.body()
    return _bodies[id(case)]


class Site:
    """The whole site, and a browser that speaks to it over a bare socket."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.cookie = f"{COOKIE_NAME}={new_visitor().token}"

    def ask(self, case: Case) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the answer to a case."""
        body = body_of(case)
        headers = {
            "Host": f"127.0.0.1:{self.stack.port}",
            "Cookie": self.cookie,
            "Connection": "close",
            **({"Content-Type": case.kind} if case.kind else {}),
            **({"Content-Length": str(len(body))} if body else {}),
            **case.headers,
        }
        headers = {name: value for name, value in headers.items() if value}
        lines = [f"{case.method} {case.path} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return self.send("\r\n".join([*lines, "", ""]).encode("latin-1"), body)

    def send(self, head: bytes, body: bytes = b"") -> tuple[int, dict[str, str], bytes]:
        with socket.create_connection(("127.0.0.1", self.stack.port), 60) as line:
            # Whoever refuses early may have hung up before the body was sent.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                line.sendall(head + body)
            answer = b""
            with contextlib.suppress(ConnectionResetError):
                while data := line.recv(65_536):
                    answer += data
        start, _, rest = answer.partition(b"\r\n\r\n")
        first, *fields = start.decode("latin-1").split("\r\n")
        assert first.startswith("HTTP/1.1 "), answer[:200]
        return int(first.split()[1]), dict(f.split(": ", 1) for f in fields), rest

    def files(self) -> set[Path]:
        photos = self.stack.home / "media" / "photos"
        return {path for path in photos.rglob("*") if path.is_file()}

    def photos(self) -> list[dict[str, Any]]:
        _, _, body = self.ask(get(200, "", "/api/v1/photos"))
        return list(json.loads(body))

    def web_bytes(self) -> int:
        """Memory that the web processes alone have, together."""
        web = self.stack.service("web")
        return sum(child.memory_full_info().uss for child in web.children())


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    home = tmp_path_factory.mktemp("bad") / "home"
    with own_services() as services, Stack(prepare(home), services) as stack:
        warm = Site(stack)
        # What is loaded once is no growth: formats, networks, pages.
        for name in ("avif", "png with alpha", "zip cut off", "another host"):
            warm.ask(CASES[name])
        warm.ask(Case(204, "", "DELETE", body=b"", kind=""))
        yield warm


def test_there_are_enough_cases() -> None:
    assert len(CASES) >= 70


@pytest.mark.parametrize("name", CASES)
def test_bad_input_gets_its_answer_and_leaves_nothing(site: Site, name: str) -> None:
    case = CASES[name]
    files, memory = site.files(), site.web_bytes()

    status, headers, body = site.ask(case)

    said = body.decode(errors="replace")
    assert status == case.status, said[:400]
    assert case.says in said, said[:400]
    assert "Traceback" not in said
    assert "evil.example" not in headers.get("Location", "")
    assert site.web_bytes() - memory < MEMORY_LIMIT_BYTES
    if status == 202:
        check_stored(site, json.loads(said), site.files() - files)
    else:
        assert site.files() == files
        assert site.photos() == []


def check_stored(site: Site, photo: dict[str, Any], files: set[Path]) -> None:
    """What was taken is a bare JPEG under a name of our own; then it goes again."""
    (path,) = files
    assert set(path.stem) <= set("0123456789abcdef")
    data = path.read_bytes()
    image = Image.open(io.BytesIO(data))
    image.load()
    assert image.format == "JPEG"
    assert not image.getexif()
    assert "icc_profile" not in image.info
    for word in (b"secret-camera", b"script", b"<?php", b"PK\x03\x04"):
        assert word not in data
    address = f"/api/v1/photos/{photo['id']}"
    # The one who reads it may have the file open; the row is gone at once.
    status, _, _ = site.ask(Case(204, "", "DELETE", address, b"", ""))
    assert status == 204
    assert not path.exists()
    assert site.photos() == []


def test_all_cases_together_leave_no_row_and_hardly_any_memory(site: Site) -> None:
    before = site.web_bytes()
    for case in FILES.values():
        if case.status != 202:
            site.ask(case)

    grown = site.web_bytes() - before
    rows = site.stack.manage(
        "shell",
        "--no-imports",
        "-c",
        "from webapp.photos.models import *; "
        "print(Photo.objects.count(), Batch.objects.count())",
    )

    assert grown < MEMORY_LIMIT_BYTES, f"{grown / 1024**2:.0f} MB"
    assert rows.split() == ["0", "0"]
    assert site.files() == set()


@pytest.mark.timed
def test_slow_senders_keep_nobody_waiting(site: Site) -> None:
    """A few that send no end of their headers leave threads to others. Many are the
    proxy's to keep away, which passes on whole requests alone."""
    head = (
        f"POST /api/v1/photos HTTP/1.1\r\nHost: 127.0.0.1:{site.stack.port}\r\n"
    ).encode()
    slow = [socket.create_connection(("127.0.0.1", site.stack.port)) for _ in range(6)]
    try:
        for line in slow:
            line.sendall(head)
        waits = []
        for _ in range(3):
            started_at = time.monotonic()
            status, _, _ = site.ask(get(200, "", "/livez"))
            waits.append(time.monotonic() - started_at)
            assert status == 200
    finally:
        for line in slow:
            line.close()

    # But for one: a machine may stand still for a moment.
    assert sorted(waits)[1] < 5


def test_answers_of_people_never_become_pages_elsewhere(site: Site) -> None:
    """Fixed type, no sniffing, nothing that runs."""
    status, headers, body = site.ask(TAKEN["jpeg that is a page, too"])
    photo = json.loads(body)
    _, image, _ = site.ask(get(200, "", f"/photos/{photo['id']}/image"))
    site.ask(Case(204, "", "DELETE", f"/api/v1/photos/{photo['id']}", b"", ""))

    assert status == 202
    assert image["Content-Type"] == "image/jpeg"
    assert image["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in image["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"


# --- Words that people write --------------------------------------------------------

SCRIPTS = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'-alert(1)-'",
    "{{ 7|add:7 }}{% debug %}",
    "</textarea><script>alert(1)</script>",
    "javascript:alert(1)",
    "\u202e\u0000<b>",
)
FORMULAS = ("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "=cmd|' /C calc'!A0")


@pytest.fixture
def media(settings: LazySettings, tmp_path: Path) -> Path:
    settings.MEDIA_ROOT = tmp_path / "media"
    return settings.MEDIA_ROOT


def logged_in(role: Role) -> Client:
    client = Client()
    is_admin = role == Role.ADMIN
    person = PersonFactory(role=role, is_staff=is_admin, is_superuser=is_admin)
    client.force_login(person, "django.contrib.auth.backends.ModelBackend")
    return client


def page_of(response: Any) -> str:
    """The page, where nothing that was written into it can run."""
    assert response.status_code < 500
    text = response.content.decode()
    for word in ("<script>alert", "<img src=x", "</textarea><script"):
        assert word not in text
    assert ' href="javascript:' not in text
    return text


@pytest.mark.django_db
@pytest.mark.parametrize("script", SCRIPTS)
def test_script_in_every_text_field_is_shown_as_text(script: str) -> None:
    admin = logged_in(Role.ADMIN)
    face = QueuedFaceFactory()
    voter = PersonFactory(username="voter")
    clean = script.replace("\0", "")
    (claim,) = claim_faces(person=voter)
    submit_correction(person=voter, claim_id=claim.pk, verdict="sad", comment=clean)
    submit_flag(face=face, visitor_key="a" * 64, verdict="sad", comment=clean)
    inviter = PersonFactory(username="inviter", role=Role.ADMIN)
    invite_person(role=Role.ANNOTATOR, note=clean, invited_by=inviter)
    version = ModelVersion.objects.get()
    ModelVersion.objects.filter(pk=version.pk).update(version=clean[:40])

    for address in (
        reverse("curation:history", args=[face.pk]),
        reverse("curation:disputes"),
        reverse("curation:people"),
        reverse("curation:person", args=[voter.username]),
        reverse("admin:index"),
        reverse("admin:registry_modelversion_changelist"),
    ):
        page_of(admin.get(address))
    for address in ("/", "/photos/mine/", "/accounts/login/", "/curation/people/"):
        page_of(admin.get(address, {"next": clean, "page": clean, "q": clean}))
    posts = {
        "/accounts/login/": {"username": script, "password": script},
        "/accounts/api-keys/": {"name": script},
        "/curation/invitations/": {"role": script, "note": script},
        "/curation/alike/": {"face": script, "verdict": script},
        "/curation/gold/": {"face": script},
        reverse("curation:judge", args=[face.pk]): {
            "verdict": script,
            "comment": script,
            "next": script,
        },
        reverse("curation:change-person", args=["voter"]): {"action": script},
    }
    for address, data in posts.items():
        page_of(admin.post(address, data, follow=True))
    page_of(admin.post(reverse("curation:invite"), {"role": "admin", "note": script}))


@pytest.mark.django_db
@pytest.mark.parametrize(
    "text", ["\0", "a\0b", "\ud800".encode("utf-8", "surrogatepass")]
)
def test_characters_that_no_database_keeps_are_refused_or_dropped(text: Any) -> None:
    admin = logged_in(Role.ADMIN)
    face = QueuedFaceFactory()
    browser = Client()
    visitor = new_visitor()
    browser.cookies[COOKIE_NAME] = visitor.token
    Photo.objects.update(visitor_key=visitor.key)
    flag = reverse("flags:flag", args=[face.photo_id, face.index])
    api_flag = reverse("api-flag", args=[face.photo_id, face.index])
    word = text if isinstance(text, str) else "\ufffd"

    answers = [
        browser.post(flag, {"verdict": "sad", "comment": text}),
        browser.post(api_flag, {"verdict": "sad", "comment": text}),
        browser.post(
            api_flag,
            json.dumps({"verdict": "sad", "comment": word}),
            content_type="application/json",
        ),
        admin.post("/accounts/login/", {"username": text, "password": text}),
        admin.post("/accounts/api-keys/", {"name": text}),
        admin.post(reverse("curation:invite"), {"role": "annotator", "note": text}),
        admin.post(
            reverse("curation:judge", args=[face.pk]),
            {"verdict": "sad", "comment": text},
        ),
        admin.get("/curation/people/a%00b/"),
        admin.get("/curation/people/", {"q": text}),
        admin.get("/admin/accounts/user/", {"q": text}),
    ]

    assert max(answer.status_code for answer in answers) < 500


@pytest.mark.django_db
@pytest.mark.parametrize("formula", FORMULAS)
def test_no_cell_of_an_export_is_a_formula(formula: str) -> None:
    face = FaceFactory(photo=ReadPhotoFactory())
    submit_flag(face=face, visitor_key="a" * 64, verdict="sad", comment=formula)

    response = logged_in(Role.ADJUDICATOR).get("/curation/export/labels.csv")

    text = b"".join(response.streaming_content).decode()
    cells = [cell for row in csv.reader(io.StringIO(text, newline="")) for cell in row]
    assert f"'{formula}" in cells
    assert not [cell for cell in cells if cell[:1] in ("=", "+", "-", "@", "\t", "\r")]


@pytest.mark.django_db
@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example/",
        "//evil.example/",
        "/\\evil.example/",
        "\\\\evil.example",
        "javascript:alert(1)",
        "https:evil.example",
        "http:///evil.example",
        "/%0d%0aLocation:%20https://evil.example",
        " https://evil.example",
        "\thttps://evil.example",
    ],
)
def test_next_never_leads_to_another_site(target: str) -> None:
    person = PersonFactory(username="returner")
    person.set_password("a-long-enough-word")
    person.save()
    words = {"username": "returner", "password": "a-long-enough-word"}
    client = Client()
    face = QueuedFaceFactory()

    to = client.post("/accounts/login/", {**words, "next": target})["Location"]
    out = client.post("/accounts/logout/", {"next": target})["Location"]
    judged = logged_in(Role.ADJUDICATOR).post(
        reverse("curation:judge", args=[face.pk]), {"verdict": "sad", "next": target}
    )["Location"]

    for location in (to, out, judged):
        assert location.startswith("/")
        assert "evil.example" not in location.split("?")[0].replace("%0A", "\n").split(
            "\n"
        )[0] or location.startswith("/%")
        assert not location.startswith(("//", "/\\"))


@pytest.mark.django_db
@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "null",
        '"happy"',
        "1",
        "NaN",
        '{"verdict": NaN}',
        '{"verdict": Infinity}',
        '{"verdict": 1e999}',
        '{"verdict": []}',
        '{"verdict": {"$ne": 1}}',
        '{"verdict": "angry"}',
        r'{"verdict": "\ud800"}',
        r'{"\udfff": 1}',
        '{"verdict": "happy", "comment": 5, "duration_ms": -1}',
        '{"verdict": "happy", "duration_ms": 1e400}',
        '{"verdict": "happy", "duration_ms": 99999999999999999999999}',
        '{"verdict": "happy", "comment": "' + "x" * 100_000 + '"}',
        '{"faces": "x", "verdict": "happy"}',
        '{"faces": [1, null], "verdict": "happy"}',
        '{"count": 1e999}',
        '{"count": -1}',
        '{"count": true, "count": "x"}',
        '{"keep": "perhaps"}',
        '{"role": ["admin"]}',
        '{"a": ' * 5000,
        "[" * 100_000,
        '{"verdict": "happy"',
        "\ufeff{}",
        "",
    ],
)
def test_json_that_is_none_or_not_ours_is_refused(text: str) -> None:
    client = logged_in(Role.ADMIN)
    photo = ReadPhotoFactory()
    visitor = new_visitor()
    client.cookies[COOKIE_NAME] = visitor.token
    Photo.objects.update(visitor_key=visitor.key)
    face = FaceFactory(photo=photo)
    before = Photo.objects.values().get(pk=photo.pk)
    calls = [
        ("patch", reverse("api-photo", args=[photo.pk])),
        ("post", reverse("api-flag", args=[photo.pk, face.index])),
        ("post", reverse("api-claims")),
        ("post", reverse("api-bulk")),
        ("post", reverse("api-judge", args=[face.pk])),
        ("post", reverse("api-invitations")),
    ]

    for method, address in calls:
        response = getattr(client, method)(
            address, text, content_type="application/json"
        )
        assert response.status_code < 500, (method, address)
        if response.status_code >= 400:
            assert set(response.json()) == {"code", "detail"}
            assert len(response.json()["detail"]) > 5

    assert Photo.objects.values().get(pk=photo.pk) == before


# --- Model files --------------------------------------------------------------------


def outside_constant(data: bytes) -> bytes:
    """A weight that hides in a constant's attribute, outside of the file."""
    model = onnx.load_model_from_string(data)
    tensor = onnx.TensorProto()
    tensor.CopyFrom(model.graph.initializer[0])
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    node = onnx.helper.make_node("Constant", [], ["hidden"], value=tensor)
    model.graph.node.insert(0, node)
    return bytes(model.SerializeToString())


def outside_weight(data: bytes) -> bytes:
    model = onnx.load_model_from_string(data)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../etc/passwd")
    return bytes(model.SerializeToString())


def other_head(data: bytes) -> bytes:
    model = onnx.load_model_from_string(data)
    for tensor in model.graph.initializer:
        if tensor.name == HEAD_BIAS_NAME:
            tensor.name = "other"
    return bytes(model.SerializeToString())


TRICKS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "pickle": (lambda _: pickle.dumps({"weights": [1, 2]}), "no ONNX model|no tensor"),
    "torch zip": (lambda _: zipped({"data.pkl": b"\x80\x02}."}), "no ONNX model"),
    "empty": (lambda _: b"", "no tensor|no ONNX model"),
    "cut off": (lambda data: data[: len(data) // 2], "no ONNX model|no tensor"),
    "weights outside": (outside_weight, "outside its file"),
    "constant outside": (outside_constant, "outside its file"),
    "another head": (other_head, "no tensor"),
}


@pytest.mark.django_db
@pytest.mark.parametrize("name", TRICKS)
def test_model_file_with_a_trick_is_refused_and_leaves_nothing(
    name: str, tmp_path: Path, media: Path
) -> None:
    change, sentence = TRICKS[name]
    path = write_tiny_model(tmp_path, "tricky")
    data = change(path.read_bytes())
    path.write_bytes(data)
    raw = json.loads(manifest_path(path).read_text())
    raw.update(sha256=sha256_of(data), size_bytes=len(data))
    manifest_path(path).write_text(json.dumps(raw))

    with pytest.raises(ModelFileError, match=sentence):
        register_model_version(path=path)

    assert not ModelVersion.objects.exists()
    assert not [found for found in media.rglob("*") if found.is_file()]


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sha256", "0" * 64),
        ("size_bytes", 1),
        ("input", {"size_px": 10**9, "channels": 1, "normalisation": {"kind": "x"}}),
        (
            "input",
            {"size_px": 96, "channels": 1, "normalisation": {"kind": "per_face"}},
        ),
        ("calibration", {"temperature": "NaN", "not_sure_below": 0.5}),
        ("calibration", {"temperature": 1e999, "not_sure_below": 0.5}),
        ("labels", ["happy"]),
        ("version", "../../../etc/x"),
        ("version", ""),
        ("version", "x" * 10_000),
        ("version", "<script>alert(1)</script>"),
        ("format_version", 10**30),
    ],
)
def test_manifest_that_does_not_fit_is_refused_and_leaves_nothing(
    field: str, value: Any, tmp_path: Path, media: Path
) -> None:
    path = write_tiny_model(tmp_path, "tricky")
    raw = json.loads(manifest_path(path).read_text())
    raw[field] = value
    manifest_path(path).write_text(json.dumps(raw))

    with pytest.raises((ModelFileError, ManifestError)) as refusal:
        register_model_version(path=path)

    assert len(str(refusal.value)) > 20
    assert not ModelVersion.objects.exists()
    assert not [found for found in media.rglob("*") if found.is_file()]


def test_oversized_model_file_is_refused_unread(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path, "huge")
    with path.open("r+b") as handle:
        handle.truncate(8 * 1024**3)
    before = psutil.Process().memory_info().rss

    with pytest.raises(ModelFileError, match="larger than"):
        register_model_version(path=path)

    assert psutil.Process().memory_info().rss - before < MEMORY_LIMIT_BYTES
