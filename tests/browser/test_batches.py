"""Several photos, or a zip of them: one page that fills, one table, one delete."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.accessibility import serious_violations
from tests.browser.conftest import OpenPage
from tests.pictures import astronaut, encode, hopper, landscape

FILES = {
    "astronaut.jpg": encode(astronaut()),
    "notes.txt": b"these are no pixels",
    "hopper.jpg": encode(hopper()),
    "field.png": encode(landscape(), "PNG"),
}


def give(page: Page, files: dict[str, bytes]) -> None:
    """Post them as the form of the first page does; ends on the batch's page."""
    page.evaluate(
        """() => {
          const form = document.querySelector("form[enctype]");
          form.querySelector("input[type=file]").multiple = true;
          form.querySelector("input[type=file]").removeAttribute("accept");
        }"""
    )
    page.set_input_files(
        "form[enctype] input[type=file]",
        [
            {"name": name, "mimeType": "application/octet-stream", "buffer": data}
            for name, data in files.items()
        ],
    )


def batch_page(open_page: OpenPage, files: dict[str, bytes], **options: object) -> Page:
    """The page of a batch that was given without scripts, then opened with them."""
    page = open_page("/camera/", **options)
    give(page, files)
    with page.expect_navigation():
        page.evaluate("() => document.querySelector('[data-form]').submit()")
    assert "/batches/" in page.url
    return page


def zip_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def until_read(page: Page) -> None:
    expect(page.locator("#batch [data-done]")).to_be_attached()


def test_a_batch_fills_its_page_without_a_reload(
    open_page: OpenPage, sleeping_worker: Callable[[], None]
) -> None:
    page = batch_page(open_page, FILES)
    loads: list[str] = []
    page.on("load", lambda loaded: loads.append(loaded.url))

    sleeping_worker()
    until_read(page)

    assert loads == []
    cards = page.locator(".sheet-card")
    expect(cards).to_have_count(3)
    expect(cards.nth(0)).to_contain_text("Photo 1")
    expect(cards.nth(0).locator(".sheet-edge")).to_have_count(1)
    expect(cards.nth(1)).to_contain_text("Photo 3")
    expect(cards.nth(2)).to_contain_text("No face found")
    progress = page.get_by_role("progressbar", name="Photos read")
    assert (progress.get_attribute("value"), progress.get_attribute("max")) == (
        "3",
        "3",
    )
    expect(page.get_by_role("status")).to_contain_text("All read, 1 file refused.")


def test_what_was_refused_is_listed_with_its_reason(open_page: OpenPage) -> None:
    page = batch_page(open_page, FILES)

    refused = page.get_by_role("region", name="1 file could not be taken")
    expect(refused).to_contain_text("notes.txt")
    expect(refused).to_contain_text("This is not a picture that we can read.")


def test_a_zip_is_a_batch(open_page: OpenPage) -> None:
    page = batch_page(open_page, {"all.zip": zip_of(FILES)})
    until_read(page)

    expect(page.locator(".sheet-card")).to_have_count(3)


def test_pictures_do_not_load_again_while_the_rest_is_exchanged(
    open_page: OpenPage,
) -> None:
    page = open_page("/camera/")
    thumbnails: list[str] = []
    page.on(
        "request",
        lambda request: (
            thumbnails.append(request.url)
            if request.url.endswith("/thumbnail")
            else None
        ),
    )
    give(page, FILES)
    with page.expect_navigation():
        page.evaluate("() => document.querySelector('[data-form]').submit()")
    until_read(page)

    assert len(thumbnails) == len(set(thumbnails)) == 3


def test_the_table_has_a_row_for_each_face(open_page: OpenPage, tmp_path: Path) -> None:
    page = batch_page(open_page, FILES)
    until_read(page)
    with page.expect_download() as download:
        page.get_by_role("link", name="Numbers as CSV").click()

    assert download.value.suggested_filename == "mien.csv"
    download.value.save_as(tmp_path / "mien.csv")
    text = (tmp_path / "mien.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["face"] for row in rows] == ["1", "1", ""]


def test_deleting_asks_first_and_takes_all(open_page: OpenPage) -> None:
    page = batch_page(open_page, FILES)
    address = page.url
    until_read(page)

    page.locator("#batch-delete summary").click()
    page.get_by_role("button", name="Yes, delete them").click()

    expect(page.get_by_text("are gone.")).to_be_visible()
    assert page.request.get("/api/v1/photos").json() == []
    assert page.goto(address).status == 404


def test_a_stranger_sees_none_of_it(open_page: OpenPage) -> None:
    address = batch_page(open_page, FILES).url

    stranger = open_page("/")

    assert stranger.goto(address).status == 404


def test_without_scripts_the_page_asks_again_by_itself(open_page: OpenPage) -> None:
    page = open_page("/camera/", java_script_enabled=False)
    page.set_input_files(
        "#camera-file",
        {"name": "a.zip", "mimeType": "application/zip", "buffer": zip_of(FILES)},
    )
    page.get_by_role("button", name="Use this photo").click()
    page.wait_for_url("**/batches/**")

    until_read(page)

    expect(page.locator(".sheet-card")).to_have_count(3)
    page.locator("#batch-delete summary").click()
    page.get_by_role("button", name="Yes, delete them").click()
    expect(page.get_by_text("are gone.")).to_be_visible()


@pytest.mark.parametrize("width_px", [320, 390, 1280])
def test_nothing_scrolls_sideways(open_page: OpenPage, width_px: int) -> None:
    viewport = {"width": width_px, "height": 844}
    long_name = {"a" * 79: b"x", **FILES}
    page = batch_page(open_page, long_name, viewport=viewport)
    until_read(page)
    page.locator("#batch-delete summary").click()

    page_px = page.evaluate("() => document.documentElement.scrollWidth")
    assert page_px <= width_px
    question = page.locator(".confirm-box").bounding_box()
    assert question is not None
    assert 0 <= question["x"] <= question["x"] + question["width"] <= width_px


def test_axe_finds_nothing_serious(
    open_page: OpenPage, sleeping_worker: Callable[[], None]
) -> None:
    page = batch_page(open_page, FILES, color_scheme="dark")
    found = serious_violations(page)
    sleeping_worker()
    until_read(page)
    page.locator("#batch-delete summary").click()

    assert found + serious_violations(page) == []
