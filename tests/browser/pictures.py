"""Takes the pictures of ``docs/pictures`` anew: ``make pictures``.

From the running site, with the model that serves now, public-domain photographs and
drawn faces. Those of every page are taken on the way of the tests that look at them.
"""

from __future__ import annotations

import io
import os
import tempfile
from pathlib import Path
from typing import Final, Literal

from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.browser.accessibility import settle
from tests.installing import system_chromium
from tests.pictures import astronaut, encode, hopper
from tests.stack import ROOT, Stack, prepare

FOLDER: Final = ROOT / "docs" / "pictures"
PAGES_FOLDER: Final = FOLDER / "pages"
ASKED: Final = "PICTURES"
"""The variable of the environment that asks tests for pictures of their pages."""

_PAGE_LOOKS: Final[tuple[tuple[int, Literal["light", "dark"]], ...]] = (
    (1280, "light"),
    (390, "dark"),
)
_PAGE_WIDTH_PX: Final = 800
_PAGE_HEIGHT_PX: Final = 1600
_QUALITY: Final = 86
_PAGE_QUALITY: Final = 80
_SETTLE_MS: Final = 500


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="mien-pictures-") as folder,
        Stack(prepare(Path(folder) / "home")) as stack,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=system_chromium())
        base_url = f"http://127.0.0.1:{stack.port}"
        _keep(_open(browser, base_url, "light"), "home-light")
        _keep(_open(browser, base_url, "dark"), "home-dark")
        page = _open(browser, base_url, "light")
        _read(page, astronaut())
        _keep(page, "result")
        page = _open(browser, base_url, "dark")
        _read(page, _side_by_side(astronaut(), hopper()))
        with page.expect_response("**/heat/1"), page.expect_response("**/heat/2"):
            page.get_by_text("Show where it looked").click()
        page.wait_for_load_state("networkidle")
        page.wait_for_timeout(_SETTLE_MS)
        _keep(page, "where-it-looked")
        browser.close()


def _open(browser: Browser, base_url: str, scheme: Literal["light", "dark"]) -> Page:
    page = browser.new_context(
        base_url=base_url,
        viewport={"width": 1280, "height": 800},
        color_scheme=scheme,
        reduced_motion="reduce",
    ).new_page()
    page.goto("/", wait_until="networkidle")
    return page


def _read(page: Page, photo: Image.Image) -> None:
    file = {"name": "photo.jpg", "mimeType": "image/jpeg", "buffer": encode(photo)}
    page.set_input_files("#image", file)
    page.wait_for_url("**/photos/*/")
    status = page.locator("#result")
    expect(status).to_have_attribute("data-status", "done")
    page.wait_for_load_state("networkidle")


def _side_by_side(left: Image.Image, right: Image.Image) -> Image.Image:
    height = min(left.height, right.height)
    both = Image.new("RGB", (left.width + right.width, height))
    both.paste(left, (0, 0))
    both.paste(right, (left.width, 0))
    return both


def keep_page(page: Page, name: str) -> None:
    """Pictures of the whole page, wide and narrow, if any were asked for."""
    if not os.environ.get(ASKED):
        return
    before = page.viewport_size
    PAGES_FOLDER.mkdir(parents=True, exist_ok=True)
    for width, scheme in _PAGE_LOOKS:
        page.set_viewport_size({"width": width, "height": 844})
        page.emulate_media(color_scheme=scheme)
        settle(page)
        with Image.open(io.BytesIO(page.screenshot(full_page=True))) as picture:
            shown = picture.convert("RGB")
        if shown.width > _PAGE_WIDTH_PX:
            height = round(shown.height * _PAGE_WIDTH_PX / shown.width)
            shown = shown.resize((_PAGE_WIDTH_PX, height), Image.Resampling.LANCZOS)
        shown = shown.crop((0, 0, shown.width, min(shown.height, _PAGE_HEIGHT_PX)))
        shown.save(
            PAGES_FOLDER / f"{name}-{width}.webp", quality=_PAGE_QUALITY, method=6
        )
    page.emulate_media(color_scheme="light")
    if before:
        page.set_viewport_size(before)


def _keep(page: Page, name: str) -> None:
    with Image.open(io.BytesIO(page.screenshot())) as picture:
        picture.convert("RGB").save(FOLDER / f"{name}.webp", quality=_QUALITY, method=6)


if __name__ == "__main__":
    main()
