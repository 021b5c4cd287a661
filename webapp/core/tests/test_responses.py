"""What holds for every answer: headers, and errors in words."""

from __future__ import annotations

import errno
import io
import os
from typing import Any

import pytest
from django.conf import LazySettings
from django.core.files.base import ContentFile
from django.db import IntegrityError, OperationalError
from django.http import HttpResponse, StreamingHttpResponse
from django.test import Client, RequestFactory
from limits.strategies import SlidingWindowCounterRateLimiter

from webapp.config.wsgi import application
from webapp.core.middleware import HeadMiddleware
from webapp.core.rates import (
    MoreThanRate,
    RateLimited,
    address_group,
    check_rate,
    client_address,
)


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["/", "/livez", "/api/schema/", "/nothing-here"])
def test_every_answer_forbids_inline_and_foreign_code(
    client: Client, path: str
) -> None:
    policy = client.get(path).headers["Content-Security-Policy"]

    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy


@pytest.mark.django_db
def test_only_the_api_documentation_may_style_itself(client: Client) -> None:
    policy = client.get("/api/docs/").headers["Content-Security-Policy"]

    assert "script-src 'self';" in policy
    assert "style-src 'self' 'unsafe-inline'" in policy


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("path", "kind"), [("/nothing", "text/html"), ("/api/nothing", "application/json")]
)
def test_unknown_address_is_404_in_the_askers_language(
    client: Client, path: str, kind: str
) -> None:
    response = client.get(path)

    assert response.status_code == 404
    assert response.headers["Content-Type"].startswith(kind)


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["/photos/", "/accounts/logout/"])
def test_address_of_a_form_is_no_blank_page(client: Client, path: str) -> None:
    response = client.get(path)

    assert response.status_code == 405
    assert "POST" in response.headers["Allow"]
    assert b"a form or a button leads here" in response.content


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["/photos/", "/api/v1/batches"])
def test_whoever_sends_a_folder_of_photos_is_told_to_send_fewer(
    client: Client, settings: LazySettings, path: str
) -> None:
    files = [ContentFile(b"x", f"{number}.jpg") for number in range(4)]
    settings.DATA_UPLOAD_MAX_NUMBER_FILES = 3

    response = client.post(path, {"image": files})

    assert response.status_code == 400
    assert b"too many files at once. Please send fewer." in response.content


def test_upload_that_memory_does_not_hold_lies_in_no_folder(
    settings: LazySettings,
) -> None:
    """Whatever kills the process meanwhile: nobody would ever remove it."""
    settings.FILE_UPLOAD_MAX_MEMORY_SIZE = 1000
    sent = [ContentFile(b"x" * 2000, "x.zip"), ContentFile(b"y" * 3000, "y.zip")]
    request = RequestFactory().post("/photos/", {"image": sent})

    files = request.FILES.getlist("image")

    assert [file.name for file in files] == ["x.zip", "y.zip"]
    assert [file.size for file in files] == [2000, 3000]
    assert [file.read()[:1] for file in files] == [b"x", b"y"]
    assert [os.fstat(file.fileno()).st_nlink for file in files] == [0, 0]
    request.close()
    assert all(file.closed for file in files)


class FullDisk(io.RawIOBase):
    """As Linux's ``/dev/full``: a file that finds no room."""

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return 0

    def write(self, data: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["/photos/", "/api/v1/batches"])
@pytest.mark.parametrize("size", [2000, 200_000])
def test_disk_that_uploads_have_filled_is_503_with_a_time_to_come_back(
    settings: LazySettings, monkeypatch: pytest.MonkeyPatch, path: str, size: int
) -> None:
    settings.FILE_UPLOAD_MAX_MEMORY_SIZE = 1000
    monkeypatch.setattr(
        "webapp.core.uploads.tempfile.TemporaryFile",
        lambda: io.BufferedRandom(FullDisk()),
    )
    client = Client(enforce_csrf_checks=True, raise_request_exception=False)
    client.get("/")

    response = client.post(path, {"image": ContentFile(b"x" * size, "x.zip")})

    assert response.status_code == 503
    assert response.headers["Retry-After"] == "5"
    assert b"Nothing was lost" in response.content


@pytest.mark.django_db
def test_documentation_has_no_options(client: Client) -> None:
    assert client.options("/api/docs/").status_code == 405


@pytest.mark.django_db
def test_locked_database_is_503_with_a_time_to_come_back(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def locked(**_: Any) -> None:
        raise OperationalError("database is locked")

    monkeypatch.setattr("webapp.photos.api.get_photo", locked)

    response = client.get("/api/v1/photos/00000000-0000-4000-8000-000000000000")

    assert response.status_code == 503
    assert response.headers["Retry-After"] == "5"
    assert response.json()["code"] == "unavailable"


@pytest.mark.django_db
def test_what_goes_while_it_is_written_about_is_409(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(**_: Any) -> None:
        raise IntegrityError("FOREIGN KEY constraint failed")

    monkeypatch.setattr("webapp.photos.api.get_photo", gone)

    response = client.get("/api/v1/photos/00000000-0000-4000-8000-000000000000")

    assert response.status_code == 409
    assert "Please look at it again" in response.json()["detail"]


@pytest.mark.django_db
def test_form_without_its_token_is_explained() -> None:
    response = Client(enforce_csrf_checks=True).post("/photos/")

    assert response.status_code == 403
    assert b"open the page anew" in response.content


@pytest.mark.django_db
def test_page_is_not_cached_where_it_is_somebodys(client: Client) -> None:
    assert "no-cache" in client.get("/").headers["Cache-Control"]


def request_from(address: str, forwarded: str = "") -> Any:
    headers = {"X-Forwarded-For": forwarded} if forwarded else {}
    return RequestFactory().get("/", REMOTE_ADDR=address, headers=headers)


@pytest.mark.parametrize(
    ("proxies", "forwarded", "expected"),
    [
        (0, "", "192.0.2.1"),
        (0, "10.0.0.1", "192.0.2.1"),
        (1, "", "192.0.2.1"),
        (1, "10.0.0.1, 10.0.0.2", "10.0.0.2"),
        (2, "10.0.0.1, 10.0.0.2, 10.0.0.3", "10.0.0.2"),
        (1, "10.0.0.1,, 10.0.0.2 ,", "10.0.0.2"),
        # It did not come through all of ours: nothing it says is believed.
        (5, "10.0.0.1", "192.0.2.1"),
        (1, "not-an-address", "192.0.2.1"),
    ],
)
def test_only_entries_of_our_own_proxies_are_believed(
    settings: LazySettings, proxies: int, forwarded: str, expected: str
) -> None:
    settings.NUM_PROXIES = proxies

    assert client_address(request_from("192.0.2.1", forwarded)) == expected


def test_whoever_has_a_whole_ipv6_network_counts_as_one() -> None:
    assert address_group("2001:db8:1:2:aaaa::1") == address_group("2001:db8:1:2::9")
    assert address_group("2001:db8:1:2::1") != address_group("2001:db8:1:3::1")
    assert address_group("192.0.2.1") == "192.0.2.1"
    assert address_group("::ffff:192.0.2.1") == "192.0.2.1"
    assert address_group("") == ""


@pytest.mark.django_db
def test_log_in_is_locked_for_an_address_behind_the_proxy_not_for_the_proxy(
    settings: LazySettings, client: Client
) -> None:
    settings.NUM_PROXIES = 1

    def try_from(address: str, forged: str) -> int:
        return client.post(
            "/accounts/login/",
            {"username": "max", "password": "wrong"},
            headers={"X-Forwarded-For": f"{forged}, {address}"},
        ).status_code

    for number in range(5):
        try_from("198.51.100.1", f"10.0.0.{number}")

    assert try_from("198.51.100.1", "10.9.9.9") == 429
    assert try_from("198.51.100.2", "198.51.100.1") == 200


def test_rate_is_counted_for_each_identity(settings: LazySettings) -> None:
    settings.RATES = {"scope": "2/hour"}
    for _ in range(2):
        check_rate(scope="scope", identities=["a", "b"])

    with pytest.raises(RateLimited) as limited:
        check_rate(scope="scope", identities=["b"])

    assert limited.value.retry_after_seconds is not None
    assert 0 < limited.value.retry_after_seconds <= 3600
    check_rate(scope="scope", identities=["c"])


def test_what_is_refused_is_charged_to_nobody(settings: LazySettings) -> None:
    settings.RATES = {"scope": "2/minute;3/hour"}
    for _ in range(2):
        check_rate(scope="scope", identities=["full"])

    for _ in range(3):
        with pytest.raises(RateLimited):
            check_rate(scope="scope", identities=["innocent", "full"])

    for _ in range(2):
        check_rate(scope="scope", identities=["innocent"])


def test_who_is_let_in_before_others_came_is_counted_after_them(
    settings: LazySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.RATES = {"scope": "1/hour"}
    check_rate(scope="scope", identities=["at-once"])
    # As it was when both had been asked and neither counted.
    monkeypatch.setattr(SlidingWindowCounterRateLimiter, "test", lambda *_, **__: True)

    with pytest.raises(RateLimited):
        check_rate(scope="scope", identities=["at-once"])


@pytest.mark.parametrize(
    "body", [HttpResponse(b"words"), StreamingHttpResponse([b"w"])]
)
def test_head_leaves_no_body_for_the_server_to_drop(body: HttpResponse) -> None:
    middleware = HeadMiddleware(lambda request: body)

    answer = middleware(RequestFactory().head("/"))

    assert b"".join(answer) == b""
    assert answer.headers.get("Content-Length") in (None, "5")


@pytest.mark.django_db
def test_charset_that_nobody_knows_is_no_crash() -> None:
    environ = RequestFactory().get("/livez").environ
    environ["CONTENT_TYPE"] = "multipart/form-data; boundary*=none''%41"
    started: list[str] = []

    application(environ, lambda status, headers: started.append(status))

    assert started == ["200 OK"]


def test_many_at_once_are_told_when_there_is_room_for_all_of_them(
    settings: LazySettings,
) -> None:
    settings.RATES = {"scope": "20/minute"}
    check_rate(scope="scope", identities=["many"], cost=15)

    with pytest.raises(RateLimited) as limited:
        check_rate(scope="scope", identities=["many"], cost=15)

    # Ten of the fifteen must be forgotten, which begins after a minute.
    assert 90 < (limited.value.retry_after_seconds or 0) <= 96


def test_more_than_is_ever_let_in_is_told_how_many_may_come(
    settings: LazySettings,
) -> None:
    settings.RATES = {"scope": "20/minute;15/hour"}

    with pytest.raises(MoreThanRate, match=r"more than the 15 .* Please send fewer"):
        check_rate(scope="scope", identities=["more"], cost=16)

    check_rate(scope="scope", identities=["more"], cost=15)


def test_wait_that_is_told_in_minutes_is_never_too_short() -> None:
    assert "please wait 3 minutes" in str(RateLimited(130))


def test_while_the_store_is_away_nobody_is_refused(settings: LazySettings) -> None:
    settings.RATES = {"scope": "1/hour"}
    settings.RATES_STORAGE_URL = "redis://127.0.0.1:1/0"

    for _ in range(3):
        check_rate(scope="scope", identities=["a"])
