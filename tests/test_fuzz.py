"""What nobody thought of: requests drawn from the API's own description, and photos
with bytes changed. A few hundred here; ``make fuzz`` runs thousands.

``FUZZ_API_CASES`` and ``FUZZ_INTAKE_CASES`` say how many in all.
"""

from __future__ import annotations

import collections
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
import requests
import schemathesis
from django.conf import LazySettings
from django.test import Client
from django.urls import reverse
from drf_spectacular.generators import SchemaGenerator
from hypothesis import HealthCheck, Phase, given, settings
from PIL import Image

from tests.models import write_tiny_model
from tests.pictures import encode
from tests.test_authorisation import World
from tests.test_bad_input import zipped
from webapp.accounts.visitors import COOKIE_NAME
from webapp.photos.models import Photo
from webapp.photos.services.batches import BatchRefused, submit_batch
from webapp.photos.services.erasure import delete_batch, delete_photo
from webapp.photos.services.intake import PhotoRefused, submit_photo
from webapp.registry.services import promote_model_version, register_model_version

API_CASES = int(os.environ.get("FUZZ_API_CASES", "300"))
INTAKE_CASES = int(os.environ.get("FUZZ_INTAKE_CASES", "300"))

pytestmark = pytest.mark.django_db


def examples(count: int) -> Callable[[Any], Any]:
    """Hypothesis draws that many; the same ones every time, so that a failure stays."""
    return settings(
        max_examples=max(count, 1),
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture(autouse=True)
def media(settings: LazySettings, tmp_path: Path) -> Path:
    settings.MEDIA_ROOT = tmp_path / "media"
    # Nobody fuzzes a limit on how often one may ask.
    settings.RATES = dict.fromkeys(settings.RATES, "")
    return settings.MEDIA_ROOT


@pytest.fixture
def world(db: None, tmp_path: Path) -> World:
    version = register_model_version(path=write_tiny_model(tmp_path, "tiny-1"))
    promote_model_version(model_version=version, promoted_by=None, reason="test")
    return World()


def send(client: Client, case: Any) -> Any:
    """The drawn request through Django's client, as whoever that is logged in as: a
    drawn API key would only be refused."""
    words = case.as_transport_kwargs(base_url="http://testserver/")
    prepared = requests.Request(
        **{key: words[key] for key in words if key not in ("timeout", "cookies")}
    ).prepare()
    headers = {
        f"HTTP_{name.upper().replace('-', '_')}": value
        for name, value in prepared.headers.items()
        if name.lower()
        not in ("content-type", "content-length", "cookie", "authorization")
    }
    return client.generic(
        str(prepared.method),
        str(prepared.path_url),
        prepared.body or b"",
        content_type=prepared.headers.get("Content-Type", ""),
        **headers,
    )


def test_no_request_of_the_description_breaks_the_api(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    document = SchemaGenerator().get_schema(public=True)  # type: ignore[no-untyped-call]
    schema = schemathesis.openapi.from_dict(document)
    operations = [found.ok() for found in schema.get_all_operations()]
    each = -(-API_CASES // len(operations))
    statuses: collections.Counter[int] = collections.Counter()
    # One who may do everything, and owns photos, gets deepest.
    clients = [world.client(actor) for actor in ("owner", "holder", "admin")]
    for client in clients:
        client.cookies[COOKIE_NAME] = world.owner.token
        client.raise_request_exception = False
    ids = {
        name: str(value)
        for name, value in world.parameters("").items()
        if not isinstance(value, int)
    }

    for operation in operations:

        @examples(each)
        @given(
            case=operation.as_strategy(),
            client=st.sampled_from(clients),
            known=st.sets(st.sampled_from(sorted(ids))),
        )
        def ask(case: Any, client: Client, known: set[str]) -> None:
            for name in known & set(case.path_parameters or ()):
                case.path_parameters[name] = ids[name]
            response = send(client, case)
            statuses[response.status_code] += 1
            assert response.status_code < 500, (case.method, case.path)

        ask()

    with capsys.disabled():
        print(
            f"\n{sum(statuses.values())} requests to {len(operations)} operations: "
            f"{dict(sorted(statuses.items()))}"
        )
    assert sum(statuses.values()) >= API_CASES * 0.5
    assert world.client("admin").get(reverse("api-queue")).status_code == 200


# --- Photos -------------------------------------------------------------------------


def seeds() -> list[bytes]:
    picture = Image.radial_gradient("L").resize((96, 72)).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    heic = Path(__file__).parent / "data" / "red_left_blue_right_turned.heic"
    return [
        encode(picture, "JPEG", exif=exif),
        encode(picture, "JPEG", progressive=True, quality=50),
        encode(picture.convert("CMYK"), "JPEG"),
        encode(picture, "PNG"),
        encode(picture.convert("P"), "PNG"),
        encode(picture.convert("RGBA"), "PNG"),
        encode(picture, "WEBP", lossless=True),
        encode(picture, "WEBP", quality=30),
        encode(picture, "AVIF"),
        heic.read_bytes(),
    ]


SEEDS = seeds()
EXTREMES = [
    struct.pack(order + kind, value)
    for order in "<>"
    for kind, value in (
        ("H", 0),
        ("H", 0xFFFF),
        ("I", 0),
        ("I", 0xFFFFFFFF),
        ("I", 0x7FFFFFFF),
        ("I", 65_536),
    )
]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A file with some of its bytes changed, cut, doubled or taken from another."""
    data = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 3))):
        # Headers are short and decide much: many changes hit them.
        reach = draw(st.sampled_from([min(64, len(data)), len(data), len(data)]))
        at = draw(st.integers(0, max(reach - 1, 0)))
        kind = draw(st.sampled_from(["byte", "extreme", "cut", "double", "graft"]))
        if kind == "byte":
            data[at : at + 1] = bytes([draw(st.integers(0, 255))])
        elif kind == "extreme":
            word = draw(st.sampled_from(EXTREMES))
            data[at : at + len(word)] = word
        elif kind == "cut":
            del data[at : at + draw(st.integers(1, 2000))]
        elif kind == "double":
            data[at:at] = data[at : at + draw(st.integers(1, 500))]
        else:
            other = draw(st.sampled_from(SEEDS))
            start = draw(st.integers(0, len(other) - 1))
            data[at:at] = other[start : start + draw(st.integers(1, 200))]
    return bytes(data)


def test_no_changed_photo_breaks_the_intake(
    db: None, media: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcomes: collections.Counter[str] = collections.Counter()

    @examples(INTAKE_CASES)
    @given(data=mutated())
    def take(data: bytes) -> None:
        try:
            photo = submit_photo(data=data, visitor_key="v" * 64)
        except PhotoRefused as refusal:
            outcomes[refusal.code] += 1
        else:
            outcomes["taken"] += 1
            path = media / photo.file_name
            with Image.open(path) as stored:
                assert stored.format == "JPEG"
                assert max(stored.size) <= 1920
            delete_photo(photo=photo)
            path.unlink()

    take()

    with capsys.disabled():
        print(f"\n{sum(outcomes.values())} photos: {dict(outcomes.most_common())}")
    assert not Photo.objects.exists()
    assert not [path for path in media.rglob("*") if path.is_file()]
    assert len(outcomes) >= 2


def test_no_changed_zip_breaks_the_intake(
    db: None, media: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcomes: collections.Counter[str] = collections.Counter()
    archive = zipped({f"{number}.x": data for number, data in enumerate(SEEDS[:5])})

    @examples(max(INTAKE_CASES // 20, 30))
    @given(
        changes=st.lists(
            st.tuples(st.integers(0, len(archive) - 1), st.integers(0, 255)),
            min_size=1,
            max_size=30,
        ),
        end=st.integers(len(archive) // 2, len(archive)),
        from_the_end=st.booleans(),
    )
    def take(changes: list[tuple[int, int]], end: int, from_the_end: bool) -> None:
        data = bytearray(archive)
        for at, value in changes:
            # The directory of a zip stands at its end.
            data[len(data) - 1 - at % 400 if from_the_end else at] = value
        try:
            batch = submit_batch(
                files=[("p.zip", bytes(data[:end] if changes[0][1] < 64 else data))],
                visitor_key="v" * 64,
            )
        except (BatchRefused, PhotoRefused) as refusal:
            outcomes[refusal.code] += 1
        else:
            outcomes["taken"] += 1
            delete_batch(batch=batch)

    take()

    with capsys.disabled():
        print(f"\n{sum(outcomes.values())} zips: {dict(outcomes.most_common())}")
    assert not Photo.objects.exists()
