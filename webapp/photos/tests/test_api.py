from __future__ import annotations

import uuid
from typing import Any

import pytest
from django.conf import LazySettings
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from ml.images import MAX_BYTES
from tests.pictures import astronaut, encode
from webapp.accounts.visitors import COOKIE_NAME
from webapp.photos import tasks
from webapp.photos.models import Photo
from webapp.photos.tests.factories import PhotoFactory
from webapp.registry.models import ModelVersion

pytestmark = pytest.mark.django_db


def photo_file(data: bytes | None = None) -> SimpleUploadedFile:
    return SimpleUploadedFile("me.jpg", data or encode(astronaut()), "image/jpeg")


def post(client: Client, data: bytes | None = None, **headers: str) -> Any:
    image = photo_file(data)
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
    key = {"Idempotency-Key": str(uuid.uuid4())}
    first = post(client, **key).json()

    # A first answer that was lost left no cookie; one that came has left one.
    without_cookie = post(Client(), **key)
    again = post(client, **key)

    for response in (without_cookie, again):
        assert response.status_code == 202
        assert response.json()["id"] == first["id"]
    assert COOKIE_NAME not in without_cookie.cookies
    assert Photo.objects.count() == 1


def test_idempotency_key_of_another_browser_is_no_key_to_its_photo(
    client: Client,
) -> None:
    key = {"Idempotency-Key": str(uuid.uuid4())}
    other = Client()
    post(other)
    first = post(client, **key).json()

    assert post(other, **key).json()["id"] != first["id"]


def test_idempotency_key_returns_the_first_batch_of_the_same_visitor(
    client: Client,
) -> None:
    def send(client: Client, **fields: Any) -> str:
        fields = {"image": [photo_file(), photo_file()], **fields}
        response = client.post("/api/v1/batches", fields, headers=key)
        assert response.status_code == 202
        return str(response.json()["id"])

    key = {"Idempotency-Key": str(uuid.uuid4())}
    client.get("/")
    first = send(client)

    assert send(client) == first
    others = {send(client, keep="true"), send(client, image=[photo_file()])}
    assert len({first, send(Client()), *others}) == 4


def test_list_goes_on_before_its_last_photo(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("webapp.photos.api._LISTED", 2)
    given = [post(client).json()["id"] for _ in range(3)]

    first = client.get("/api/v1/photos").json()
    before = {"before": first[-1]["created_at"]}
    rest = client.get("/api/v1/photos", before).json()

    assert [photo["id"] for photo in first + rest] == given[::-1]
    assert client.get("/api/v1/photos", {"before": "noon"}).status_code == 400


def test_idempotency_key_with_other_choices_is_a_conflict(client: Client) -> None:
    key = {"Idempotency-Key": str(uuid.uuid4())}
    post(client, **key)

    response = client.post(
        "/api/v1/photos", {"image": photo_file(), "train": "true"}, headers=key
    )

    assert response.status_code == 422
    assert response.json()["code"] == "idempotency_mismatch"
    assert not Photo.objects.get().may_train


ELSEWHERE: list[dict[str, str]] = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site", "Origin": "http://testserver"},
    {"Origin": "https://evil.example"},
    {"Origin": "http://testserver.evil.example"},
    {"Origin": "http://["},
    {"Origin": "null"},
]
HERE: list[dict[str, str]] = [
    {"Sec-Fetch-Site": "same-origin"},
    {"Sec-Fetch-Site": "none"},
    {"Origin": "http://testserver"},
    {"Origin": "https://trusted.example"},
]


@pytest.mark.parametrize("headers", ELSEWHERE, ids=str)
def test_no_address_changes_anything_for_another_site(
    client: Client, headers: dict[str, str]
) -> None:
    paths = client.get("/api/schema/?format=json").json()["paths"]
    asked = 0
    for path, operations in paths.items():
        for method in set(operations) & {"post", "put", "patch", "delete"}:
            address = path
            for word in operations[method].get("parameters", []):
                is_uuid = word["schema"].get("format") == "uuid"
                value = str(uuid.uuid4()) if is_uuid else "1"
                address = address.replace(f"{{{word['name']}}}", value)
            response = client.generic(method.upper(), address, headers=headers)
            # The API of people asks for their session or key before that.
            assert response.status_code in (401, 403), (method, path)
            assert not response.cookies, (method, path)
            asked += 1
    assert asked > 20

    # A browser leaves the visitor's cookie out, so this one would get another.
    refused = post(client, **headers)
    assert refused.status_code == 403
    assert refused.json()["code"] == "cross_site"
    assert COOKIE_NAME not in refused.cookies
    assert not Photo.objects.exists()


@pytest.mark.parametrize("headers", HERE, ids=str)
def test_own_pages_are_taken_for_what_they_are(
    client: Client, headers: dict[str, str], settings: LazySettings
) -> None:
    settings.CSRF_TRUSTED_ORIGINS = ["https://trusted.example"]

    assert post(client, **headers).status_code == 202


def test_another_site_may_lead_to_a_result(client: Client) -> None:
    accepted = post(client).json()

    response = client.get(
        f"/api/v1/photos/{accepted['id']}", headers={"Sec-Fetch-Site": "cross-site"}
    )

    assert response.status_code == 200


def test_answers_with_secrets_are_for_no_cache(
    client: Client, champion: ModelVersion
) -> None:
    accepted = post(client)
    address = f"/api/v1/photos/{accepted.json()['id']}"
    tasks.process_photo(accepted.json()["id"])
    link = client.post(f"{address}/links")
    flag = client.post(
        f"{address}/faces/1/flag", {"verdict": "sad"}, content_type="application/json"
    )
    batch = client.post("/api/v1/batches", {"image": [photo_file()]})

    for response in (accepted, link, flag, batch):
        assert response.status_code in (201, 202)
        assert response["Cache-Control"] == "private, no-store"


def test_two_photos_at_once_are_sent_to_the_batches(client: Client) -> None:
    response = client.post("/api/v1/photos", {"image": [photo_file(), photo_file()]})

    assert response.status_code == 400
    assert response.json()["code"] == "too_many"
    assert "/api/v1/batches" in response.json()["detail"]
    assert not Photo.objects.exists()


def test_wrong_choice_is_named(client: Client) -> None:
    response = client.post(
        "/api/v1/photos", {"image": photo_file(), "keep": "maybe", "train": "perhaps"}
    )

    assert response.status_code == 400
    assert response.json() == {
        "code": "invalid",
        "detail": "keep: Must be a valid boolean. train: Must be a valid boolean.",
    }


@pytest.mark.parametrize(
    ("files", "status", "code"),
    [
        ({}, 400, "no_image"),
        ({"image": "just words"}, 400, "no_image"),
        ({"other": SimpleUploadedFile("a.jpg", b"x")}, 400, "no_image"),
        ({"image": "just words", "keep": "maybe"}, 400, "no_image"),
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


def test_schema_says_what_is_answered_to_a_wrong_key_a_wrong_type_and_chunks(
    client: Client,
) -> None:
    photo_id = post(client).json()["id"]
    path = f"/api/v1/photos/{photo_id}"
    wrong_key = client.get(path, headers={"Authorization": "Bearer none"})
    wrong_type = client.patch(path, b"keep", content_type="text/plain")
    chunks = client.patch(path, headers={"Transfer-Encoding": "chunked"})

    operations = client.get("/api/schema/?format=json").json()["paths"][
        "/api/v1/photos/{photo_id}"
    ]

    assert str(wrong_key.status_code) in operations["get"]["responses"]
    assert str(wrong_type.status_code) in operations["patch"]["responses"]
    assert chunks.json()["code"] == "length_required"
    assert str(chunks.status_code) in operations["patch"]["responses"]
    # No key is needed.
    assert {} in operations["get"]["security"]


def test_schema_knows_what_a_batch_and_a_frame_may_be_answered(
    client: Client,
) -> None:
    paths = client.get("/api/schema/?format=json").json()["paths"]

    assert "409" in paths["/api/v1/batches"]["post"]["responses"]
    assert "512 KB" in paths["/api/v1/live"]["post"]["description"]


def test_client_with_the_secret_alone_may_do_what_the_owner_may(
    client: Client,
) -> None:
    """It may be the owner, whose first answer with the cookie was lost."""
    accepted = post(client).json()
    url, owner = f"/api/v1/photos/{accepted['id']}", Client()
    secret = {"X-Photo-Secret": accepted["secret"]}

    changed = owner.patch(
        url, {"keep": True}, content_type="application/json", headers=secret
    )

    assert changed.json()["keep"] is True
    assert owner.post(f"{url}/links", headers=secret).status_code == 201
    assert owner.delete(url, headers=secret).status_code == 204


def test_schema_describes_the_api_and_swagger_is_served(client: Client) -> None:
    schema = client.get("/api/schema/?format=json").json()

    assert set(schema["paths"]) >= {"/api/v1/photos", "/api/v1/photos/{photo_id}"}
    page = client.get("/api/docs/")
    assert page.status_code == 200
    assert b"https://" not in page.content
