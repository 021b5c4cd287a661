from __future__ import annotations

import uuid
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from ml.images import MAX_BYTES
from tests.pictures import astronaut, encode
from webapp.photos import tasks
from webapp.photos.models import Photo
from webapp.photos.tests.factories import PhotoFactory
from webapp.registry.models import ModelVersion

pytestmark = pytest.mark.django_db


def post(client: Client, data: bytes | None = None, **headers: str) -> Any:
    image = SimpleUploadedFile("me.jpg", data or encode(astronaut()), "image/jpeg")
    return client.post("/api/v1/photos", {"image": image}, headers=headers or None)


def test_accepted_photo_has_id_secret_and_location(client: Client) -> None:
    response = post(client)

    assert response.status_code == 202
    body = response.json()
    assert body["status"] == "queued"
    assert body["faces"] == []
    location = response.headers["Location"]
    assert location == f"/api/v1/photos/{body['id']}?secret={body['secret']}"


def test_result_has_faces_in_the_documented_shape(
    client: Client, champion: ModelVersion
) -> None:
    accepted = post(client).json()
    tasks.process_photo(accepted["id"])

    body = client.get(f"/api/v1/photos/{accepted['id']}").json()

    assert body["status"] == "done"
    assert body["model_version"] == champion.version
    (face,) = body["faces"]
    assert set(face["box"]) == {"x", "y", "width", "height"}
    assert list(face["probabilities"]) == ["happy", "sad", "surprise", "neutral"]
    assert sum(face["probabilities"].values()) == pytest.approx(1, abs=1e-3)
    assert face["confidence"] == max(face["probabilities"].values())
    assert face["probabilities"][face["label"]] == face["confidence"]
    assert face["assumed"] is False
    assert isinstance(face["not_sure"], bool)


def test_session_or_secret_opens_a_photo_and_nothing_else_does(client: Client) -> None:
    accepted = post(client).json()
    url = f"/api/v1/photos/{accepted['id']}"
    stranger = Client()

    assert client.get(url).status_code == 200
    assert stranger.get(f"{url}?secret={accepted['secret']}").status_code == 200
    header = {"X-Photo-Secret": accepted["secret"]}
    assert stranger.get(url, headers=header).status_code == 200
    for wrong in ("", "?secret=", "?secret=0", f"?secret={accepted['secret'][:-1]}"):
        assert stranger.get(url + wrong).status_code == 404
    other = post(Client()).json()
    assert stranger.get(f"{url}?secret={other['secret']}").status_code == 404


def test_unknown_and_foreign_ids_look_alike(client: Client) -> None:
    post(client)
    foreign = client.get(f"/api/v1/photos/{PhotoFactory().pk}")
    unknown = client.get(f"/api/v1/photos/{uuid.uuid4()}")

    assert foreign.status_code == unknown.status_code == 404
    assert foreign.json() == unknown.json()


def test_delete_by_owner_removes_row_and_file(client: Client, media: Any) -> None:
    accepted = post(client).json()
    url = f"/api/v1/photos/{accepted['id']}"

    assert Client().delete(url).status_code == 404
    assert client.delete(url).status_code == 204
    assert client.get(url).status_code == 404
    assert not Photo.objects.exists()


def test_idempotency_key_returns_the_first_photo(client: Client) -> None:
    first = post(client, **{"Idempotency-Key": "abc"}).json()

    without_cookie = post(Client(), **{"Idempotency-Key": "abc"})
    again = post(client, **{"Idempotency-Key": "abc"})

    assert without_cookie.json()["id"] == first["id"]
    assert again.status_code == 202
    assert Photo.objects.count() in (1, 2)


@pytest.mark.parametrize(
    ("files", "status", "code"),
    [
        ({}, 400, "no_image"),
        ({"image": "just words"}, 400, "no_image"),
        ({"other": SimpleUploadedFile("a.jpg", b"x")}, 400, "no_image"),
        ({"image": SimpleUploadedFile("a.jpg", b"")}, 400, "empty"),
        ({"image": SimpleUploadedFile("a.jpg", b"text")}, 415, "unsupported_format"),
    ],
)
def test_bad_upload_is_explained(
    client: Client, files: dict[str, Any], status: int, code: str
) -> None:
    response = client.post("/api/v1/photos", files)

    assert response.status_code == status
    assert response.json()["code"] == code
    assert len(response.json()["detail"]) > 20


def test_body_over_the_limit_is_refused_unread(client: Client) -> None:
    response = post(client, b"\xff\xd8" + b"0" * (MAX_BYTES + 100_000))

    assert response.status_code == 413
    assert response.json()["code"] == "too_large"


def test_json_instead_of_a_form_is_415(client: Client) -> None:
    response = client.post("/api/v1/photos", {"image": "x"}, "application/json")

    assert response.status_code == 415
    assert set(response.json()) == {"code", "detail"}


def test_broken_multipart_is_400(client: Client) -> None:
    response = client.post(
        "/api/v1/photos", b"--x\r\ngarbage", "multipart/form-data; boundary=x"
    )

    assert response.status_code == 400


def test_unknown_api_path_is_404_in_json(client: Client) -> None:
    response = client.get("/api/v1/nothing")

    assert response.status_code == 404
    assert response.json()["code"] == "not_found"


def test_schema_describes_the_api_and_swagger_is_served(client: Client) -> None:
    schema = client.get("/api/schema/?format=json").json()

    assert set(schema["paths"]) >= {"/api/v1/photos", "/api/v1/photos/{photo_id}"}
    page = client.get("/api/docs/")
    assert page.status_code == 200
    assert b"https://" not in page.content
