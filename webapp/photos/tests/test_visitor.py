"""What a visitor may do beside one photo: several, links, consent, downloads."""

from __future__ import annotations

import csv
import io
import json
import re
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.conf import LazySettings
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.utils import timezone
from PIL import Image

from tests.models import write_tiny_model
from tests.pictures import (
    JPEG_SCAN,
    astronaut,
    encode,
    hopper,
    landscape,
    with_repeated,
)
from webapp.accounts.visitors import COOKIE_NAME
from webapp.core.errors import NotFound
from webapp.photos import rendering, tasks
from webapp.photos.consent import CONSENT_VERSION
from webapp.photos.models import (
    Batch,
    Face,
    FailureReason,
    Photo,
    PhotoStatus,
    Prediction,
    ShareLink,
)
from webapp.photos.services import live
from webapp.photos.services.batches import (
    MAX_BATCH_BYTES,
    MAX_PHOTOS,
    BatchGone,
    submit_batch,
)
from webapp.photos.services.erasure import (
    delete_photo,
    delete_photos_of,
    erase_expired_photos,
)
from webapp.photos.services.serving import ModelServer
from webapp.photos.services.sharing import create_share_link
from webapp.registry.models import ModelVersion
from webapp.registry.services import promote_model_version, register_model_version

pytestmark = pytest.mark.django_db


def give(client: Client, **fields: Any) -> dict[str, Any]:
    image = SimpleUploadedFile("me.jpg", encode(astronaut()), "image/jpeg")
    return client.post("/api/v1/photos", {"image": image, **fields}).json()


def done(client: Client, **fields: Any) -> str:
    """The page address of a photo that has been read."""
    accepted = give(client, **fields)
    tasks.process_photo(accepted["id"])
    return f"/photos/{accepted['id']}/"


def zip_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


CUT_ZIP = zip_of({"a.jpg": encode(astronaut())})[:-30]


def send_batch(client: Client, *files: tuple[str, bytes]) -> Any:
    images = [SimpleUploadedFile(name, data) for name, data in files]
    return client.post("/api/v1/batches", {"image": images})


class TestConsent:
    def test_without_a_box_ticked_a_photo_ends_after_a_day(
        self, client: Client
    ) -> None:
        photo = Photo.objects.get(pk=give(client)["id"])

        assert photo.expires_at is not None
        left = photo.expires_at - timezone.now()
        assert timedelta(hours=23) < left <= timedelta(hours=24)
        assert not photo.may_train
        assert photo.consent_version == ""

    @pytest.mark.parametrize(
        ("word", "allowed"), [("1", True), ("on", True), ("0", False), ("no", False)]
    )
    def test_form_takes_no_other_word_for_a_yes(
        self, client: Client, word: str, allowed: bool
    ) -> None:
        image = SimpleUploadedFile("me.jpg", encode(astronaut()), "image/jpeg")

        client.post("/photos/", {"image": image, "keep": word, "train": word})

        photo = Photo.objects.get()
        assert (photo.is_kept, photo.may_train) == (allowed, allowed)

    def test_pages_that_ask_name_who_looks_and_for_how_long(
        self, client: Client, champion: ModelVersion, settings: LazySettings
    ) -> None:
        settings.PHOTO_RETENTION_SECONDS = 7 * 24 * 3600

        for url in ("/", "/camera/", done(client, keep="true")):
            page = client.get(url).content.decode()
            assert "the people who label here see the photo" in page
            assert "after 7 days" in page
            assert "24 hours" not in page

    def test_what_was_agreed_to_is_kept_with_the_photo(self, client: Client) -> None:
        photo = Photo.objects.get(pk=give(client, keep="true", train="true")["id"])

        assert photo.is_kept
        assert photo.may_train
        assert photo.consent_version == CONSENT_VERSION

    def test_taking_back_is_as_easy_as_giving(self, client: Client) -> None:
        photo_id = give(client, keep="true", train="true")["id"]

        body = client.patch(
            f"/api/v1/photos/{photo_id}",
            json.dumps({"keep": False, "train": False}),
            "application/json",
        ).json()

        assert (body["keep"], body["train"]) == (False, False)
        assert body["expires_at"] is not None

    def test_not_to_keep_what_was_not_kept_does_not_start_its_day_anew(
        self, client: Client
    ) -> None:
        photo_id = give(client)["id"]
        soon = timezone.now() + timedelta(minutes=1)
        Photo.objects.update(expires_at=soon)

        client.patch(
            f"/api/v1/photos/{photo_id}",
            json.dumps({"keep": False, "train": True}),
            "application/json",
        )

        assert Photo.objects.get().expires_at == soon

    def test_training_allowed_by_an_older_text_is_asked_for_anew(
        self, client: Client, champion: ModelVersion
    ) -> None:
        address = done(client, train="true")
        Photo.objects.update(consent_version="2026-11")

        client.post(f"{address}consent/", {"keep": "1"})

        assert Photo.objects.get().consent_version == "2026-11"
        page = client.get(address).content.decode()
        assert "You allow training" not in page
        assert "Please allow it anew, or take it back" in page
        client.post(f"{address}consent/", {"train": "1"})
        assert Photo.objects.get().consent_version == CONSENT_VERSION
        assert "You allow training" in client.get(address).content.decode()

    @pytest.mark.parametrize("choices", [{"keep": "1"}, {"keep": "1", "train": "0"}])
    def test_to_keep_a_photo_agrees_to_the_text_of_today_where_it_trains_nothing(
        self, client: Client, choices: dict[str, str]
    ) -> None:
        given = give(client, train="true")["id"]
        Photo.objects.update(consent_version="2026-11")
        if "train" not in choices:
            client.post(f"/photos/{given}/consent/", {"train": "0"})

        client.post(f"/photos/{given}/consent/", choices)

        assert Photo.objects.get().consent_version == CONSENT_VERSION

    def test_a_kept_photo_outlives_the_sweep(self, client: Client) -> None:
        give(client, keep="true")

        assert erase_expired_photos() == 0


class TestLostAnswer:
    """The site has taken a photo, and the browser never hears of it."""

    def send(self, client: Client, page: str, **fields: str) -> Any:
        image = SimpleUploadedFile("me.jpg", encode(astronaut()), "image/jpeg")
        return client.post("/photos/", {"image": image, "page": page, **fields})

    @pytest.mark.parametrize("path", ["/", "/camera/"])
    def test_photo_belongs_to_the_browser_all_the_same(
        self, client: Client, path: str
    ) -> None:
        page = client.get(path).context["page"]
        lost = Client()
        lost.cookies = client.cookies.copy()
        self.send(lost, page, keep="1")

        client.post("/photos/mine/delete/")

        assert not Photo.objects.exists()

    def test_photo_that_is_sent_again_from_the_same_page_is_the_same(
        self, client: Client
    ) -> None:
        page = client.get("/").context["page"]

        first, again, other = (
            self.send(client, page, **fields)["Location"]
            for fields in ({}, {}, {"keep": "1"})
        )
        anew = self.send(client, client.get("/").context["page"])["Location"]

        assert first == again
        assert len({first, other, anew}) == 3

    def test_batch_that_is_sent_again_from_the_same_page_is_the_same(
        self, client: Client
    ) -> None:
        page = client.get("/").context["page"]

        def send(*pictures: Image.Image, **fields: str) -> str:
            images = [SimpleUploadedFile("a.jpg", encode(one)) for one in pictures]
            fields = {"page": page, **fields}
            return client.post("/photos/", {"image": images, **fields})["Location"]

        both = (astronaut(), hopper())
        first, again = send(*both), send(*both)
        other, turned = send(*both, keep="1"), send(*reversed(both))

        assert first == again
        assert len({first, other, turned}) == 3
        assert Photo.objects.count() == 6
        client.post(f"{first}delete/")
        assert send(*both) != first

    def test_batch_that_is_sent_twice_at_once_is_the_one_that_was_done_first(
        self,
    ) -> None:
        sent = {"visitor_key": "v" * 64, "idempotency_key": "k", "upload_sha256": "s"}
        pictures = [("1.jpg", encode(astronaut())), ("2.jpg", encode(hopper()))]
        done: list[Batch] = []

        def slowly() -> Iterator[tuple[str, bytes]]:
            yield pictures[0]
            done.append(submit_batch(files=pictures, **sent))
            yield pictures[1]

        assert submit_batch(files=slowly(), **sent) == done[0]

        assert Batch.objects.get().photos.count() == Photo.objects.count() == 2

    def test_batch_of_which_nothing_is_left_is_taken_in_anew(self) -> None:
        sent = {"visitor_key": "v" * 64, "idempotency_key": "k"}
        first = submit_batch(files=[("1.jpg", encode(astronaut()))], **sent)
        delete_photo(photo=Photo.objects.get())

        assert submit_batch(files=[("1.jpg", encode(astronaut()))], **sent) != first

        assert Batch.objects.get().photos.count() == 1


class TestBatch:
    def test_files_and_a_zip_become_one_batch_in_order(self, client: Client) -> None:
        zipped = zip_of({"a/one.jpg": encode(astronaut()), "two.jpg": encode(hopper())})

        response = send_batch(
            client, ("first.jpg", encode(landscape())), ("more.zip", zipped)
        )

        assert response.status_code == 202
        assert response.json()["total"] == 3
        positions = Photo.objects.order_by("position").values_list(
            "position", flat=True
        )
        assert list(positions) == [1, 2, 3]

    def test_what_is_no_photo_is_listed_and_stops_nothing(self, client: Client) -> None:
        body = send_batch(
            client, ("a.jpg", encode(astronaut())), ("b.txt", b"no picture at all")
        ).json()

        assert body["total"] == 1
        (refused,) = body["refused"]
        assert (refused["position"], refused["name"]) == (2, "b.txt")
        assert refused["reason"].endswith(".")

    def test_name_that_turns_the_writing_round_turns_no_more_than_itself(
        self, client: Client
    ) -> None:
        files = {"a.jpg": encode(astronaut()), "\u202egpj.exe": b""}
        batch_id = send_batch(client, ("a.zip", zip_of(files))).json()["id"]

        page = client.get(f"/batches/{batch_id}/").content.decode()

        assert "<bdi>\u202egpj.exe</bdi>" in page

    @pytest.mark.parametrize("damaged", [b"PK\x03\x04 and then nothing", CUT_ZIP])
    def test_damaged_zip_is_listed_and_stops_nothing(
        self, client: Client, damaged: bytes
    ) -> None:
        body = send_batch(
            client, ("a.jpg", encode(astronaut())), ("b.zip", damaged)
        ).json()

        assert body["total"] == 1
        assert body["refused"] == [
            {
                "position": 2,
                "name": "b.zip",
                "reason": "The zip is damaged. Please pack it again.",
            }
        ]

    def test_without_one_photo_nothing_is_kept(self, client: Client) -> None:
        response = send_batch(client, ("b.txt", b"x"), ("c.txt", b"y"))

        assert response.status_code == 400
        assert not Batch.objects.exists()

    @pytest.mark.parametrize(
        ("name", "count"), [("{}.jpg", MAX_PHOTOS + 1), ("__MACOSX/{}", 1001)]
    )
    def test_too_many_are_refused_whole(
        self, client: Client, name: str, count: int
    ) -> None:
        picture = encode(Image.new("RGB", (32, 32), "grey"))
        zipped = zip_of({name.format(i): picture for i in range(count)})

        response = send_batch(client, ("many.zip", zipped))

        assert response.json()["code"] == "too_many"
        assert not Photo.objects.exists()
        assert not Batch.objects.exists()

    @pytest.mark.parametrize(
        "data",
        [
            b"PK\x03\x04 and then nothing",
            zip_of({}),
            zip_of({"a/": b"", "__MACOSX/._a.jpg": b"x", ".hidden": b"x"}),
            zip_of({"../../etc/passwd": b"root"}),
            zip_of({"bomb.jpg": b"\0" * 50_000_000}),
            zip_of({"nested.zip": zip_of({"a.jpg": encode(astronaut())})}),
        ],
        ids=["damaged", "empty", "hidden", "traversal", "bomb", "nested"],
    )
    def test_tricky_zip_is_refused_with_a_sentence(
        self, client: Client, data: bytes
    ) -> None:
        response = send_batch(client, ("tricky.zip", data))

        assert response.status_code == 400
        assert response.json()["detail"].endswith(".")
        assert not Photo.objects.exists()

    @pytest.mark.parametrize("packing", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    def test_zip_that_unpacks_to_its_end_whatever_is_asked_is_not_unpacked(
        self, client: Client, packing: int
    ) -> None:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", packing) as archive:
            archive.writestr("bomb.jpg", bytes(64_000_000))
        tracemalloc.start()

        response = send_batch(client, ("bomb.zip", buffer.getvalue()))

        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert response.status_code == 400
        assert "Please pack it as a plain zip." in response.json()["detail"]
        assert peak < 10_000_000

    def test_empty_zip_is_one_to_the_form_as_well(self, client: Client) -> None:
        empty = SimpleUploadedFile("empty.zip", zip_of({}))

        response = client.post("/photos/", {"image": empty})

        assert b"There was no file in it." in response.content

    def test_batch_is_seen_and_deleted_by_its_own_browser_alone(
        self, client: Client
    ) -> None:
        body = send_batch(client, ("a.jpg", encode(astronaut()))).json()
        url = f"/api/v1/batches/{body['id']}"

        assert Client().get(url).status_code == 404
        assert client.get(url).json()["total"] == 1
        assert Client().delete(url).status_code == 404
        assert client.delete(url).status_code == 204
        assert not Photo.objects.exists()

    def test_one_csv_for_all(self, client: Client, champion: ModelVersion) -> None:
        body = send_batch(
            client, ("a.jpg", encode(astronaut())), ("b.jpg", encode(landscape()))
        ).json()
        for photo in Photo.objects.all():
            tasks.process_photo(str(photo.pk))

        response = client.get(f"/batches/{body['id']}/mien.csv")

        rows = list(csv.DictReader(io.StringIO(response.content.decode())))
        assert [row["face"] for row in rows] == ["1", ""]
        assert rows[0]["label"] in ("happy", "sad", "surprise", "neutral")


class TestShareLink:
    def test_link_opens_the_photo_to_a_stranger_until_it_is_revoked(
        self, client: Client, champion: ModelVersion
    ) -> None:
        page = done(client)
        api = f"/api/v1{page.rstrip('/')}/links"

        url = client.post(api).json()["url"]

        path = url.removeprefix("http://testserver")
        stranger = Client()
        assert stranger.get(path).status_code == 200
        assert stranger.get(f"{path}image").status_code == 200
        assert stranger.get(f"{path}heat/1").status_code == 200
        assert stranger.get(page).status_code == 404
        assert stranger.post(f"{page}delete/").status_code == 404
        assert client.delete(api).status_code == 204
        assert stranger.get(path).status_code == 404
        assert stranger.get(f"{path}image").status_code == 404

    @pytest.mark.parametrize("state", ["one face", "no face", "failed"])
    def test_page_speaks_to_a_stranger_as_to_one(
        self, client: Client, champion: ModelVersion, state: str
    ) -> None:
        page = done(client, keep="true")
        if state == "no face":
            Face.objects.all().delete()
        elif state == "failed":
            Photo.objects.update(
                status=PhotoStatus.FAILED, failure_reason=FailureReason.UNREADABLE
            )
        url = client.post(f"/api/v1{page.rstrip('/')}/links").json()["url"]

        own = client.get(page).content.decode()
        theirs = Client().get(url.removeprefix("http://testserver")).content.decode()

        assert "<title>Your photo · Mien" in own
        assert "Kept until you delete it" in own
        assert "<title>A shared photo · Mien" in theirs
        advice = ("upload it again", "It helps when", "come a little")
        for words in ("Your photo", "until you", *advice):
            assert words not in theirs

    def test_link_ends_by_itself(self, client: Client, champion: ModelVersion) -> None:
        page = done(client)
        url = client.post(f"/api/v1{page.rstrip('/')}/links").json()["url"]
        ShareLink.objects.update(expires_at=timezone.now() - timedelta(seconds=1))

        path = url.removeprefix("http://testserver")
        assert Client().get(path).status_code == 404

    def test_ended_links_are_not_counted(
        self, client: Client, champion: ModelVersion
    ) -> None:
        page = done(client)
        for _ in range(2):
            client.post(f"/api/v1{page.rstrip('/')}/links")
        ShareLink.objects.filter(pk=ShareLink.objects.first().pk).update(
            expires_at=timezone.now() - timedelta(seconds=1)
        )

        assert client.get(page).context["links"] == 1

    def test_link_is_whole_on_another_page_if_the_photos_did_not_arrive(
        self, client: Client
    ) -> None:
        photo_id = give(client)["id"]
        client.post(f"/photos/{photo_id}/share/")

        words = client.get("/photos/mine/").content.decode()

        assert "can see the photo. Copy it now" in words
        assert "js/copy" in words

    def test_token_is_not_stored(self, client: Client) -> None:
        photo_id = give(client)["id"]

        url = client.post(f"/api/v1/photos/{photo_id}/links").json()["url"]

        token = url.rstrip("/").rsplit("/", 1)[1]
        assert token not in str(list(ShareLink.objects.values()))


class TestDownloads:
    def test_picture_that_cannot_be_drawn_in_time_is_asked_for_again(
        self, client: Client, champion: ModelVersion, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(rendering, "_WAIT_SECONDS", 0.01)
        page = done(client)

        with rendering.turn_to_draw(), rendering.turn_to_draw():
            busy = client.get(f"{page}mien.png")
            small = [client.get(f"{page}{name}") for name in ("thumbnail", "heat/1")]

        assert busy.status_code == 503
        assert busy["Retry-After"] == "5"
        assert [response.status_code for response in small] == [200, 200]
        assert client.get(f"{page}mien.png").status_code == 200

    def test_annotated_photo_is_a_png_with_the_boxes_drawn(
        self, client: Client, champion: ModelVersion
    ) -> None:
        response = client.get(f"{done(client)}mien.png")

        drawn = Image.open(io.BytesIO(response.content))
        assert drawn.format == "PNG"
        assert drawn.width == 512
        difference = np.asarray(drawn.convert("RGB"), int)[:512] - np.asarray(
            astronaut(), int
        )
        changed = np.abs(difference).max(axis=2) > 100
        assert changed[63:70, 190:260].any()  # the upper edge of the box
        assert not changed[300:500, 300:500].any()

    def test_json_and_csv_say_the_same(
        self, client: Client, champion: ModelVersion
    ) -> None:
        page = done(client)

        (face,) = client.get(f"{page}mien.json").json()["faces"]
        text = client.get(f"{page}mien.csv").content.decode()

        (row,) = csv.DictReader(io.StringIO(text))
        assert row["label"] == face["label"]
        assert float(row["happy"]) == pytest.approx(
            face["probabilities"]["happy"], abs=1e-5
        )

    def test_heat_map_is_a_clear_png(
        self, client: Client, champion: ModelVersion
    ) -> None:
        page = done(client)

        for emotion in ("", "?emotion=sad", "?emotion=nonsense"):
            response = client.get(f"{page}heat/1{emotion}")
            picture = Image.open(io.BytesIO(response.content))
            assert picture.mode == "RGBA"
        assert client.get(f"{page}heat/2").status_code == 404


class TestHandedOut:
    """Faces and what was read of them, as files and pages."""

    FILES = ("image", "thumbnail", "heat/1", "mien.png", "mien.json", "mien.csv")

    @pytest.fixture
    def addresses(self, client: Client, champion: ModelVersion) -> list[str]:
        page = done(client)
        link = client.post(f"/api/v1{page.rstrip('/')}/links").json()["url"]
        shared = link.removeprefix("http://testserver")
        return [
            *(page + name for name in self.FILES),
            *(f"{shared}image", f"{shared}heat/1"),
        ]

    def test_no_browser_keeps_them_and_no_search_engine_lists_them(
        self, client: Client, addresses: list[str]
    ) -> None:
        for address in addresses:
            response = client.get(address)
            assert response.status_code == 200
            assert response["Cache-Control"] == "private, no-store", address
            assert response["X-Robots-Tag"] == "noindex", address
        shared = addresses[-2].removesuffix("image")
        page = client.get(shared)
        assert "no-store" in page["Cache-Control"]
        assert page["X-Robots-Tag"] == "noindex"

    def test_head_says_what_get_would(
        self, client: Client, addresses: list[str]
    ) -> None:
        for address in addresses:
            response = client.head(address)
            assert response.status_code == 200, address
            assert not response.getvalue(), address

    @pytest.mark.parametrize(
        "damage",
        [
            lambda path: path.write_bytes(b""),
            lambda path: path.write_bytes(b"no picture" * 100),
            lambda path: path.unlink(),
            lambda path: (path.unlink(), path.mkdir()),
        ],
        ids=["empty", "garbage", "gone", "folder"],
    )
    @pytest.mark.parametrize("name", ["thumbnail", "mien.png", "image"])
    def test_damaged_file_is_404_in_words(
        self,
        client: Client,
        champion: ModelVersion,
        media: Path,
        damage: Callable[[Path], Any],
        name: str,
    ) -> None:
        page = done(client)
        damage(media / Photo.objects.get().file_name)

        response = client.get(page + name)

        assert response.status_code == 404
        assert "Please upload it again." in response.content.decode()

    def test_of_a_file_that_was_cut_off_no_picture_is_made(
        self, client: Client, champion: ModelVersion, media: Path
    ) -> None:
        page = done(client)
        path = media / Photo.objects.get().file_name
        path.write_bytes(path.read_bytes()[:5000])

        # The photo itself is handed out as it is: its upper part can be seen.
        assert client.get(f"{page}image").status_code == 200
        assert client.get(f"{page}thumbnail").status_code == 404
        assert client.get(f"{page}mien.png").status_code == 404

    @pytest.mark.parametrize("activation", [b"", b"odd", bytes(50)])
    def test_damaged_heat_is_404_in_words(
        self, client: Client, champion: ModelVersion, activation: bytes
    ) -> None:
        page = done(client)
        Prediction.objects.update(activation=activation)

        response = client.get(f"{page}heat/1")

        assert response.status_code == 404
        assert "can no longer be shown" in response.content.decode()


class TestExpired:
    def test_nothing_is_shown_before_the_sweep_comes_by(
        self, client: Client, champion: ModelVersion
    ) -> None:
        accepted = give(client)
        batch = send_batch(client, ("a.jpg", encode(astronaut()))).json()
        kept = give(client, keep="true")["id"]
        api = f"/api/v1/photos/{accepted['id']}"
        link = client.post(f"{api}/links").json()["url"]
        yesterday = timezone.now() - timedelta(days=1)
        Photo.objects.exclude(expires_at=None).update(expires_at=yesterday)

        page = f"/photos/{accepted['id']}/"
        secret = f"?secret={accepted['secret']}"
        shared = link.removeprefix("http://testserver")
        addresses = (api, api + secret, page, f"{page}image", shared, f"{shared}image")
        for address in addresses:
            assert client.get(address).status_code == 404, address
        keep = client.patch(api, {"keep": True}, content_type="application/json")
        assert keep.status_code == 404
        assert [photo["id"] for photo in client.get("/api/v1/photos").json()] == [kept]
        assert client.get("/photos/mine/").context["page"].paginator.count == 1
        assert client.get(f"/api/v1/batches/{batch['id']}").json()["photos"] == []
        assert client.get(f"/batches/{batch['id']}/").context["total"] == 0


class TestMine:
    def test_whoever_only_looks_keeps_the_key_to_what_is_kept(
        self, client: Client, champion: ModelVersion
    ) -> None:
        page = done(client, keep="true")
        batch = send_batch(client, ("a.jpg", encode(astronaut()))).json()["id"]
        token = client.cookies[COOKIE_NAME].value

        for url in ("/photos/mine/", page, f"/batches/{batch}/"):
            renewed = client.get(url).cookies[COOKIE_NAME]
            assert renewed.value == token
            assert renewed["max-age"] == 365 * 24 * 3600
            part = client.get(url, headers={"HX-Request": "true"})
            assert COOKIE_NAME not in part.cookies

    def test_whoever_has_no_key_gets_none_by_looking(
        self, client: Client, champion: ModelVersion
    ) -> None:
        accepted = give(client)
        page = f"/photos/{accepted['id']}/?secret={accepted['secret']}"

        for url in ("/photos/mine/", page):
            response = Client().get(url)
            assert response.status_code == 200
            assert COOKIE_NAME not in response.cookies

    def test_delete_all_removes_this_browsers_photos_alone(
        self, client: Client
    ) -> None:
        give(client)
        give(client)
        other = Client()
        kept = give(other)["id"]

        assert len(client.get("/api/v1/photos").json()) == 2
        assert client.delete("/api/v1/photos").status_code == 204

        assert client.get("/api/v1/photos").json() == []
        assert [photo["id"] for photo in other.get("/api/v1/photos").json()] == [kept]

    def test_delete_all_pressed_twice_tells_of_it_once(self, client: Client) -> None:
        give(client)

        for _ in range(2):
            client.post("/photos/mine/delete/")

        page = client.get("/photos/mine/").content.decode()
        assert page.count(" gone, with everything") == 1


def test_page_says_of_too_much_at_once_what_the_site_says(client: Client) -> None:
    answer = client.post("/photos/", CONTENT_LENGTH=str(MAX_BATCH_BYTES * 2))
    words = re.search(r"<h1 data-refusal>(.*)</h1>", answer.content.decode())

    assert answer.status_code == 413
    assert words is not None
    page = client.get("/").content.decode()
    assert f'data-refuse-much="{words[1]}"' in page
    assert f'data-max-total="{MAX_BATCH_BYTES}"' in page


class TestTwoTabs:
    """What one does to a photo while the other deletes it."""

    def test_batch_whose_browser_forgets_everything_leaves_nothing(
        self, media: Path
    ) -> None:
        key = "v" * 64

        def files() -> Iterator[tuple[str, bytes]]:
            yield "1.jpg", encode(astronaut())
            delete_photos_of(visitor_key=key)
            yield "2.jpg", encode(hopper())

        with pytest.raises(BatchGone, match="Please send them again"):
            submit_batch(files=files(), visitor_key=key)

        assert not Photo.objects.exists()
        assert not Batch.objects.exists()

    def test_batch_that_goes_at_the_very_end_takes_its_photos_along(self) -> None:
        def files() -> Iterator[tuple[str, bytes]]:
            yield "1.jpg", encode(astronaut())
            Batch.objects.all().delete()

        with pytest.raises(BatchGone):
            submit_batch(files=files(), visitor_key="v" * 64)

        assert not Photo.objects.exists()

    @pytest.mark.parametrize(
        ("choices", "lasts", "words"),
        [
            ({}, timedelta(hours=24), "23\xa0hours"),
            ({"keep": "true"}, timedelta(days=7), "6\xa0days"),
        ],
        ids=["erased", "kept"],
    )
    def test_link_lasts_no_longer_than_its_photo_and_the_page_says_how_long(
        self, client: Client, choices: dict[str, str], lasts: timedelta, words: str
    ) -> None:
        given = give(client, **choices)["id"]

        page = client.post(f"/photos/{given}/share/", follow=True).content.decode()
        link = client.post(f"/api/v1/photos/{given}/links").json()

        assert re.search(rf"can see the photo for <time [^>]*>{words}", page)
        ends_at = datetime.fromisoformat(link["expires_at"])
        assert timedelta() <= timezone.now() + lasts - ends_at < timedelta(minutes=1)
        erased_at = Photo.objects.get().expires_at
        assert erased_at is None or ends_at <= erased_at

    def test_link_to_a_photo_that_is_then_kept_lasts_as_long_as_any(
        self, client: Client
    ) -> None:
        given = give(client)["id"]
        client.post(f"/api/v1/photos/{given}/links")

        client.post(f"/photos/{given}/consent/", {"keep": "1"})

        link = ShareLink.objects.get()
        assert link.expires_at - timezone.now() > timedelta(days=6)
        page = client.get(f"/photos/{given}/")
        assert page.context["share_ends_at"] == link.expires_at

    def test_deleted_photo_is_not_shared(self, client: Client) -> None:
        photo = Photo.objects.get(pk=give(client)["id"])
        delete_photo(photo=Photo.objects.get())

        with pytest.raises(NotFound, match="deleted a moment ago"):
            create_share_link(photo=photo)

    def test_photo_that_goes_while_consent_changes_is_404(
        self, client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        given = give(client)["id"]
        monkeypatch.setattr(
            "webapp.photos.api.set_consent", lambda **_: Photo.objects.all().delete()
        )

        response = client.patch(
            f"/api/v1/photos/{given}", {"keep": True}, content_type="application/json"
        )

        assert response.status_code == 404


class TestLive:
    def frame(self, client: Client, picture: Image.Image) -> Any:
        upload = SimpleUploadedFile("f.jpg", encode(picture), "image/jpeg")
        return client.post("/api/v1/live", {"frame": upload})

    def test_frame_is_read_and_nothing_of_it_is_stored(
        self, client: Client, champion: ModelVersion, media: Any
    ) -> None:
        files_before = set(media.rglob("*"))

        body = self.frame(client, astronaut()).json()

        (face,) = body["faces"]
        assert sum(face["probabilities"].values()) == pytest.approx(1, abs=1e-3)
        assert body["model_version"] == champion.version
        assert not Photo.objects.exists()
        assert set(media.rglob("*")) == files_before

    def test_frame_without_a_face_assumes_none(
        self, client: Client, champion: ModelVersion
    ) -> None:
        small = landscape().resize((160, 120))

        assert self.frame(client, small).json()["faces"] == []

    def test_bad_frame_is_refused(self, client: Client, champion: ModelVersion) -> None:
        broken = SimpleUploadedFile("f.jpg", b"no frame")

        assert client.post("/api/v1/live", {"frame": broken}).status_code == 415
        assert client.post("/api/v1/live", {}).json()["code"] == "no_image"

    @pytest.mark.parametrize("fault", ["numbers", "gpu"])
    def test_frame_that_no_model_can_read_is_put_off(
        self,
        client: Client,
        request: pytest.FixtureRequest,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        fault: str,
    ) -> None:
        monkeypatch.setattr(live, "model_server", ModelServer())
        if fault == "gpu":
            request.getfixturevalue("missing_gpu")
        bias = (float("nan"), 0, 0, 0) if fault == "numbers" else ()
        version = register_model_version(path=write_tiny_model(tmp_path, "t-1", bias))
        promote_model_version(model_version=version, promoted_by=None, reason="test")

        response = self.frame(client, astronaut())

        assert response.status_code == 503
        assert response["Retry-After"] == "1"

    def test_frame_that_takes_long_to_decode_is_refused(self, client: Client) -> None:
        data = with_repeated(Image.new("L", (4900, 4900)), JPEG_SCAN, 1500)

        response = client.post(
            "/api/v1/live", {"frame": SimpleUploadedFile("f.jpg", data)}
        )

        assert response.status_code == 400
        assert response.json()["code"] == "too_complex"


class TestRates:
    @pytest.fixture(autouse=True)
    def limits(self, settings: LazySettings) -> None:
        settings.RATES = {"upload": "2/hour", "live": "", "flag": ""}
        settings.NUM_PROXIES = 0

    def send(self, client: Client, address: str, **headers: str) -> Any:
        image = SimpleUploadedFile("me.jpg", encode(astronaut()), "image/jpeg")
        return client.post(
            "/api/v1/photos", {"image": image}, headers=headers, REMOTE_ADDR=address
        )

    def test_too_much_is_429_with_a_time_to_come_back(self, client: Client) -> None:
        for _ in range(2):
            assert self.send(client, "192.0.2.1").status_code == 202

        response = self.send(client, "192.0.2.1")

        assert response.status_code == 429
        assert 0 < int(response.headers["Retry-After"]) <= 3600
        assert response.json()["code"] == "rate_limited"

    def test_flag_that_says_nothing_of_use_counts(
        self, client: Client, champion: ModelVersion, settings: LazySettings
    ) -> None:
        settings.RATES = {**settings.RATES, "upload": "", "flag": "2/hour"}
        address = f"/api/v1{done(client)}faces/1/flag"

        answers = [
            client.post(address, {"verdict": "odd"}, "application/json").status_code
            for _ in range(3)
        ]

        assert answers == [400, 400, 429]

    @pytest.mark.parametrize(
        ("path", "address"),
        [("/api/v1/batches", "192.0.2.3"), ("/photos/", "192.0.2.4")],
    )
    def test_each_photo_of_a_zip_counts(
        self, client: Client, path: str, address: str
    ) -> None:
        def send(count: int) -> Any:
            zipped = zip_of({f"{i}.jpg": encode(astronaut()) for i in range(count)})
            image = SimpleUploadedFile("p.zip", zipped)
            return client.post(path, {"image": image}, REMOTE_ADDR=address)

        assert send(1).status_code in (202, 303)
        assert send(2).status_code == 429
        assert Photo.objects.count() == 1

    def test_zip_of_more_than_are_ever_let_in_is_not_told_to_wait(
        self, client: Client
    ) -> None:
        zipped = zip_of({f"{i}.jpg": encode(astronaut()) for i in range(3)})

        response = send_batch(client, ("p.zip", zipped))

        assert (response.status_code, response.json()["code"]) == (400, "too_many")
        assert "more than the 2 that may be sent at once" in response.json()["detail"]
        assert "Retry-After" not in response

    def test_forged_forwarding_header_and_new_cookie_do_not_help(self) -> None:
        answers = [
            self.send(
                Client(), "192.0.2.2", **{"X-Forwarded-For": f"10.0.0.{i}"}
            ).status_code
            for i in range(3)
        ]

        assert answers == [202, 202, 429]

    def test_behind_a_proxy_the_address_that_it_saw_counts(
        self, settings: LazySettings
    ) -> None:
        settings.NUM_PROXIES = 1
        answers = [
            self.send(
                Client(),
                "127.0.0.1",
                **{"X-Forwarded-For": f"10.0.0.{i}, 192.0.2.{10 + i}"},
            ).status_code
            for i in range(3)
        ]

        assert answers == [202, 202, 202]


class TestThumbnail:
    def test_it_is_small_and_keeps_the_shape(self, client: Client) -> None:
        image = SimpleUploadedFile("l.jpg", encode(landscape().resize((1600, 1200))))
        photo_id = client.post("/api/v1/photos", {"image": image}).json()["id"]

        response = client.get(f"/photos/{photo_id}/thumbnail")

        with Image.open(io.BytesIO(response.content)) as thumbnail:
            assert thumbnail.size == (480, 360)

    def test_thin_photo_has_one(self, client: Client) -> None:
        image = SimpleUploadedFile("l.jpg", encode(landscape().resize((20, 16_000))))
        photo_id = client.post("/api/v1/photos", {"image": image}).json()["id"]

        response = client.get(f"/photos/{photo_id}/thumbnail")

        with Image.open(io.BytesIO(response.content)) as thumbnail:
            assert thumbnail.size == (1, 480)

    def test_a_stranger_gets_none(self, client: Client) -> None:
        photo_id = give(client)["id"]

        assert Client().get(f"/photos/{photo_id}/thumbnail").status_code == 404
