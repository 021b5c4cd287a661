"""The visitor's flag, over pages and API, and its receipt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from django.conf import LazySettings
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from tests.models import write_tiny_model
from tests.pictures import astronaut, encode
from webapp.accounts.models import User
from webapp.core.errors import NotFound
from webapp.curation.models import Correction, QueueItem
from webapp.curation.services.consensus import lock_consensus, refresh_consensus
from webapp.curation.services.flags import submit_flag
from webapp.curation.tests.factories import FaceFactory, ReadPhotoFactory
from webapp.photos import tasks
from webapp.photos.models import Face
from webapp.photos.services.serving import ModelServer
from webapp.registry.services import promote_model_version, register_model_version

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def champion(
    settings: LazySettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.MEDIA_ROOT = tmp_path / "media"
    server = ModelServer()
    monkeypatch.setattr("webapp.photos.services.processing.model_server", server)
    version = register_model_version(path=write_tiny_model(tmp_path, "tiny-1"))
    promote_model_version(model_version=version, promoted_by=None, reason="test")


def read_photo(client: Client, **fields: str) -> str:
    """The id of a photo with one face that has been read."""
    image = SimpleUploadedFile("me.jpg", encode(astronaut()), "image/jpeg")
    photo_id: str = client.post("/api/v1/photos", {"image": image, **fields}).json()[
        "id"
    ]
    tasks.process_photo(photo_id)
    return photo_id


def send_flag(
    client: Client, photo_id: str, verdict: str = "sad", face: int = 1
) -> Any:
    return client.post(
        f"/photos/{photo_id}/faces/{face}/flag/", {"verdict": verdict}, follow=True
    )


def vote(verdict: str) -> None:
    """Two people agree on the one face there is."""
    face = Face.objects.get()
    for name in ("a", "b"):
        person, _ = User.objects.get_or_create(username=name)
        Correction.objects.create(
            face=face, author=person, verdict=verdict, source="annotator"
        )
    refresh_consensus(consensus=lock_consensus(face_id=face.pk))


def test_flag_leads_to_a_receipt_that_says_it_was_received(client: Client) -> None:
    page = send_flag(client, read_photo(client))

    assert page.status_code == 200
    assert page.redirect_chain[0][1] == 303
    assert b"You said sad" in page.content
    assert b'data-step="received" data-done="yes"' in page.content
    assert b'data-step="reviewed" data-done="no"' in page.content


def test_flag_without_consent_is_kept_but_nobody_is_asked(client: Client) -> None:
    page = send_flag(client, read_photo(client))

    assert Correction.objects.count() == 1
    assert not QueueItem.objects.exists()
    assert b"not allowed its use" in page.content


def test_flag_with_consent_puts_the_face_on_the_queue(client: Client) -> None:
    send_flag(client, read_photo(client, train="true"))

    assert QueueItem.objects.get().reason == "flag"


def test_receipt_follows_the_review(client: Client) -> None:
    page = send_flag(client, read_photo(client, train="true"))
    vote("sad")

    page = client.get(page.redirect_chain[0][0])

    assert b'data-step="reviewed" data-done="yes"' in page.content
    assert b"They said sad, as you did." in page.content


def test_receipt_opens_by_its_secret_alone(client: Client) -> None:
    url = send_flag(client, read_photo(client)).redirect_chain[0][0]

    page = Client().get(url)
    assert page.status_code == 200
    # Whoever is sent the link may put it where a search engine reads.
    assert page["X-Robots-Tag"] == "noindex"
    assert "X-Robots-Tag" not in client.get("/")
    assert client.get(url.replace(url[-5:-1], "0000")).status_code == 404


def test_receipt_leads_back_to_the_photo_only_who_may_see_it(client: Client) -> None:
    photo_id = read_photo(client)
    page = send_flag(client, photo_id)
    back = f"/photos/{photo_id}/".encode()

    assert back in page.content
    assert back not in Client().get(page.redirect_chain[0][0]).content


def test_receipt_says_until_when_it_can_be_followed(client: Client) -> None:
    photo_id = read_photo(client)
    page = send_flag(client, photo_id)
    assert b"It ends when the photo is erased: on " in page.content
    assert f'href="/photos/{photo_id}/">keep the photo</a>'.encode() in page.content

    client.post(f"/photos/{photo_id}/consent/", {"keep": "1"})
    page = client.get(page.redirect_chain[-1][0])
    assert b"It ends when the photo is deleted." in page.content
    assert b"keep the photo</a>" not in page.content


def test_flag_can_be_taken_back_from_the_receipt(client: Client) -> None:
    url = send_flag(client, read_photo(client)).redirect_chain[0][0]

    assert client.post(f"{url}take-back/").status_code == 303

    assert client.get(url).status_code == 404
    assert Correction.objects.get().retracted_at is not None


def test_deleted_photo_takes_its_flags_along(client: Client) -> None:
    photo_id = read_photo(client)
    url = send_flag(client, photo_id).redirect_chain[0][0]

    client.delete(f"/api/v1/photos/{photo_id}")

    assert not Correction.objects.exists()
    assert client.get(url).status_code == 404


def test_the_same_flag_again_changes_nothing_but_a_new_comment_is_kept() -> None:
    face = FaceFactory(photo=ReadPhotoFactory())

    def say(comment: str) -> Correction:
        return submit_flag(
            face=face, visitor_key="v" * 64, verdict="sad", comment=comment
        )

    first = say("teary")
    assert say("teary") == say("") == first

    second = say("the brows")

    assert second.comment == "the brows"
    first.refresh_from_db()
    assert first.retracted_at is not None


def test_flag_of_a_photo_that_another_tab_deletes_is_404(client: Client) -> None:
    face = FaceFactory(photo=ReadPhotoFactory())
    shown = Face.objects.get(pk=face.pk)
    face.photo.delete()

    with pytest.raises(NotFound, match="deleted a moment ago"):
        submit_flag(face=shown, visitor_key="v" * 64, verdict="sad")


def test_stranger_cannot_flag(client: Client) -> None:
    photo_id = read_photo(client)

    assert send_flag(Client(), photo_id).status_code == 404
    assert send_flag(client, photo_id, face=2).status_code == 404
    assert not Correction.objects.exists()


def test_verdict_that_is_none_is_400(client: Client) -> None:
    response = send_flag(client, read_photo(client), verdict="<script>")

    assert response.status_code == 400
    assert b"<script>" not in response.content.replace(b"<script ", b"")


def test_api_flags_and_takes_back(client: Client) -> None:
    url = f"/api/v1/photos/{read_photo(client)}/faces/1/flag"

    made = client.post(url, json.dumps({"verdict": "neutral"}), "application/json")
    wrong = client.post(url, json.dumps({"verdict": "angry"}), "application/json")
    long = client.post(
        url, json.dumps({"verdict": "sad", "comment": "a" * 501}), "application/json"
    )

    assert made.status_code == 201
    path = made.json()["receipt"].removeprefix("http://testserver")
    assert client.get(path).status_code == 200
    assert wrong.status_code == 400
    assert wrong.json()["code"] == "bad_verdict"
    assert long.json()["code"] == "invalid"
    assert client.delete(url).status_code == 204
    assert client.get(path).status_code == 404
