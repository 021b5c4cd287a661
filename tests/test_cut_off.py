"""An upload that breaks off on its way leaves nothing, and is no error of the site."""

from __future__ import annotations

import re
import socket
import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.pictures import astronaut, encode
from tests.stack import Stack, prepare

BOUNDARY = "cut"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    home = tmp_path_factory.mktemp("cut-off") / "home"
    # Objects, so that what is an error can be told by its level.
    with Stack(prepare(home), {"MIEN_LOG_FORMAT": "json"}) as running:
        yield running


def body_of(*fields: tuple[str, bytes]) -> bytes:
    """A form of three photos that ends in the midst of the third."""
    image = encode(astronaut().resize((192, 192)))
    said = b"".join(
        f"--{BOUNDARY}\r\nContent-Disposition: form-data; "
        f'name="{name}"\r\n\r\n'.encode()
        + value
        + b"\r\n"
        for name, value in fields
    )
    photos = b"".join(
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; '
        f'filename="{number}.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'.encode()
        + image
        + b"\r\n"
        for number in range(3)
    )
    return (said + photos)[: -len(image) // 2]


def begin(site: Stack, path: str, body: bytes, *headers: str) -> socket.socket:
    """Send all of the body there is, of one that was to be twice as long."""
    connection = socket.create_connection(("127.0.0.1", site.port), timeout=120)
    lines = (
        f"POST {path} HTTP/1.1",
        f"Host: 127.0.0.1:{site.port}",
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}",
        f"Content-Length: {2 * len(body)}",
        *headers,
    )
    connection.sendall("\r\n".join((*lines, "", "")).encode() + body)
    return connection


def token_of_form(site: Stack) -> tuple[str, str]:
    """The cookies and the token of a page that asks for a photo."""
    with socket.create_connection(("127.0.0.1", site.port), timeout=120) as connection:
        connection.sendall(
            f"GET / HTTP/1.0\r\nHost: 127.0.0.1:{site.port}\r\n\r\n".encode()
        )
        said = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
    cookies = re.findall(r"(?i)^set-cookie: ([^;]+)", said, re.MULTILINE)
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', said)
    assert token
    return "; ".join(cookies), token[1]


def kept(site: Stack) -> tuple[int, ...]:
    with closing(sqlite3.connect(site.home / "mien.sqlite3")) as rows:
        return tuple(
            rows.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0]
            for table in ("photos_photo", "photos_batch")
        )


@pytest.mark.parametrize("as_header", [True, False], ids=["header", "field"])
def test_form_that_is_cut_off_leaves_nothing(site: Stack, as_header: bool) -> None:
    cookies, token = token_of_form(site)
    headers = [f"Cookie: {cookies}"]
    headers += [f"X-CSRFToken: {token}"] if as_header else []
    body = body_of(("csrfmiddlewaretoken", token.encode()))

    with begin(site, "/photos/", body, *headers) as connection:
        connection.shutdown(socket.SHUT_WR)
        said = connection.recv(65536)

    assert said.startswith(b"HTTP/1.1 400 ")
    assert kept(site) == (0, 0)


@pytest.mark.parametrize("path", ["/api/v1/batches", "/api/v1/photos"])
def test_upload_over_the_api_that_is_cut_off_leaves_nothing(
    site: Stack, path: str
) -> None:
    with begin(site, path, body_of()) as connection:
        connection.shutdown(socket.SHUT_WR)
        said = b"".join(iter(lambda: connection.recv(65536), b""))

    assert said.startswith(b"HTTP/1.1 400 ")
    assert b'"code":"cut_off"' in said
    assert kept(site) == (0, 0)


def test_connection_that_is_reset_leaves_nothing_and_is_no_error(site: Stack) -> None:
    cookies, token = token_of_form(site)
    secret = (f"Cookie: {cookies}", f"X-CSRFToken: {token}")
    for path, headers in (("/api/v1/batches", ()), ("/photos/", secret)):
        before = site.output.count('"status": 400')
        connection = begin(site, path, body_of(), *headers)
        # At once and without a word: what a browser does that is closed.
        connection.setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
        connection.close()
        site.wait_for(rf'(?s)("status": 400.*){{{before + 1}}}')

    assert kept(site) == (0, 0)
    assert "Traceback" not in site.output
    assert '"ERROR"' not in site.output
