"""What "Delete" leaves behind: nothing, in no place, within two minutes."""

from __future__ import annotations

import time
from pathlib import Path

import redis
from playwright.sync_api import expect

from tests.browser.conftest import OpenPage
from tests.browser.test_upload import choose, until_read
from tests.pictures import astronaut, encode
from tests.stack import Stack

LIMIT_SECONDS = 130
"""The log of SQLite is emptied once a minute; once, somebody may read just then."""
_PIECE = 64
_LOOK = """
from django.conf import settings
from webapp.photos.models import Photo
photo = Photo.objects.get(pk={photo_id!r})
crop = bytes(photo.faces.get().crop)
activation = bytes(photo.faces.get().predictions.get().activation)
middle = len(crop) // 2
print(crop[middle:middle + 64].hex(), activation[100:164].hex())
print(settings.CELERY_BROKER_URL, settings.CACHES["default"]["LOCATION"])
"""
_ROWS = """
from django.apps import apps
from django.forms.models import model_to_dict
for model in apps.get_models():
    for row in model.objects.all().values():
        if {hex_id!r} in str(row).replace("-", ""):
            print(model.__name__, row)
"""


def shell(stack: Stack, code: str) -> str:
    return stack.manage("shell", "--no-imports", "-c", code).strip()


def files_with(home: Path, pieces: list[bytes]) -> list[str]:
    found = []
    for path in home.rglob("*"):
        try:
            data = path.read_bytes() if path.is_file() else b""
        except FileNotFoundError:
            continue
        found += [str(path.relative_to(home)) for piece in pieces if piece in data]
    return found


def stored(stack: Stack) -> set[Path]:
    return set((stack.home / "media" / "photos").rglob("*.jpg"))


def keys_with(urls: list[str], photo_id: str) -> list[str]:
    found = []
    for url in urls:
        address = url.replace("redis+socket://", "unix://").replace(
            "virtual_host", "db"
        )
        with redis.Redis.from_url(address) as client:
            for key in client.scan_iter(count=1000):
                value = key + (client.dump(key) or b"")
                if photo_id.encode() in value:
                    found.append(key.decode(errors="replace"))
    return found


def test_after_delete_nothing_is_left_anywhere(
    open_page: OpenPage, stack: Stack
) -> None:
    before = stored(stack)
    page = open_page("/")
    # Other tests leave the same portrait: no byte of theirs may look like this one's.
    image = astronaut().point(lambda value: value * 9 // 10)
    file = {"name": "x.jpg", "mimeType": "image/jpeg", "buffer": encode(image)}
    page.locator("[name=keep]").check()
    choose(page, file)
    until_read(page)
    photo_id = page.url.rstrip("/").rpartition("/")[2]
    rows = _ROWS.format(hex_id=photo_id.replace("-", ""))
    # In one process: each costs a start of Django.
    said = shell(stack, _LOOK.format(photo_id=photo_id) + rows)
    bytes_of_it, addresses, *known = said.splitlines()
    pieces = [bytes.fromhex(word) for word in bytes_of_it.split()]
    kept = [path.read_bytes() for path in stored(stack) - before]
    pieces += [data[len(data) // 2 :][:_PIECE] for data in kept]
    assert "Photo" in {line.partition(" ")[0] for line in known}
    assert len(pieces) >= 3
    assert files_with(stack.home, pieces)
    urls = addresses.split()

    page.locator("#delete summary").click()
    page.get_by_role("button", name="Yes, delete it").click()
    expect(page.locator("#delete")).to_have_count(0)
    deadline = time.monotonic() + LIMIT_SECONDS
    while left := files_with(stack.home, pieces) + keys_with(urls, photo_id):
        assert time.monotonic() < deadline, left
        time.sleep(1)

    assert shell(stack, rows) == ""
