"""A program with an API key is a visitor of its own."""

from __future__ import annotations

from typing import Any

import pytest
from django.conf import LazySettings
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from tests.pictures import astronaut, encode
from webapp.accounts.api_keys import create_api_key, revoke_api_key
from webapp.accounts.models import ApiKey, Role, User
from webapp.accounts.visitors import COOKIE_NAME
from webapp.photos.models import Photo
from webapp.photos.services.erasure import erase_expired_photos

pytestmark = pytest.mark.django_db


@pytest.fixture
def person() -> User:
    return User.objects.create_user("ada", password="x", role=Role.ADMIN)


@pytest.fixture
def row_and_key(person: User) -> tuple[ApiKey, str]:
    return create_api_key(person=person, name="booth")


@pytest.fixture
def program(row_and_key: tuple[ApiKey, str]) -> Client:
    return client_with(row_and_key[1])


def client_with(key: str) -> Client:
    return Client(headers={"Authorization": f"Bearer {key}"})


def give(client: Client, **fields: Any) -> Any:
    image = SimpleUploadedFile("me.jpg", encode(astronaut()), "image/jpeg")
    return client.post("/api/v1/photos", {"image": image, **fields})


def test_a_photo_belongs_to_the_key_that_gave_it(
    program: Client, person: User, client: Client
) -> None:
    photo_id = give(program).json()["id"]
    _, other = create_api_key(person=person, name="other")

    listed = program.get("/api/v1/photos").json()
    assert [photo["id"] for photo in listed] == [photo_id]
    assert program.get(f"/api/v1/photos/{photo_id}").status_code == 200
    for stranger in (client_with(other), client):
        assert stranger.get("/api/v1/photos").json() == []
        assert stranger.get(f"/api/v1/photos/{photo_id}").status_code == 404


def test_a_program_gets_no_cookie_and_needs_none(program: Client) -> None:
    response = give(program)

    assert response.status_code == 202
    assert COOKIE_NAME not in response.cookies


def test_a_page_of_another_site_may_act_by_a_key(program: Client) -> None:
    image = SimpleUploadedFile("me.jpg", encode(astronaut()), "image/jpeg")

    response = program.post(
        "/api/v1/photos", {"image": image}, headers={"Sec-Fetch-Site": "cross-site"}
    )

    assert response.status_code == 202


def test_the_key_counts_before_a_cookie(program: Client, client: Client) -> None:
    give(client)
    program.cookies = client.cookies

    assert program.get("/api/v1/photos").json() == []


def test_a_program_deletes_what_it_gave(program: Client, client: Client) -> None:
    give(program)
    kept = give(client).json()["id"]

    assert program.delete("/api/v1/photos").status_code == 204
    assert [str(photo.pk) for photo in Photo.objects.all()] == [kept]


def test_a_wrong_key_is_refused_in_words() -> None:
    response = give(client_with("mien_" + 43 * "x"))

    assert response.status_code == 401
    assert response["WWW-Authenticate"] == "Bearer"
    assert response.json()["code"] == "invalid_api_key"
    assert not Photo.objects.exists()


@pytest.mark.parametrize("value", ["Bearer", "Bearer ", "bearer a b", "Bearer \xff"])
def test_a_broken_header_is_refused(value: str) -> None:
    response = Client(headers={"Authorization": value}).get("/api/v1/photos")

    assert response.status_code == 401


def test_another_scheme_is_no_matter_of_ours(client: Client) -> None:
    response = client.get("/api/v1/photos", headers={"Authorization": "Basic eDp5"})

    assert response.status_code == 200


def test_a_key_does_not_carry_the_persons_role(program: Client) -> None:
    page = program.get("/accounts/api-keys/")

    assert page.status_code == 302
    assert page["Location"].startswith("/accounts/login/")


def test_requests_count_against_the_key_and_not_the_address(
    program: Client, person: User, client: Client, settings: LazySettings
) -> None:
    settings.RATES = {**settings.RATES, "upload": "1/hour"}
    _, other = create_api_key(person=person, name="other")

    assert give(program).status_code == 202
    refused = give(program)
    assert refused.status_code == 429
    assert int(refused["Retry-After"]) > 0
    assert give(client_with(other)).status_code == 202
    assert give(client).status_code == 202


def test_photos_of_a_revoked_key_are_erased_even_if_kept(
    program: Client, person: User, row_and_key: tuple[ApiKey, str], client: Client
) -> None:
    give(program, keep="true")
    kept = give(client, keep="true").json()["id"]
    assert erase_expired_photos() == 0

    revoke_api_key(person=person, key_id=row_and_key[0].pk)

    assert erase_expired_photos() == 1
    assert [str(photo.pk) for photo in Photo.objects.all()] == [kept]
    assert program.get("/api/v1/photos").status_code == 401


def test_the_description_names_the_key(client: Client) -> None:
    schema = client.get("/api/schema/", headers={"Accept": "application/json"}).json()

    assert schema["components"]["securitySchemes"]["apiKey"]["scheme"] == "bearer"
    assert {"apiKey": []} in schema["paths"]["/api/v1/photos"]["post"]["security"]
