"""Takes the pictures of ``docs/pictures`` anew: ``python -m tests.browser.pictures``.

From the running site, with the model that serves now and a public-domain photograph.
"""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any, Final

from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.installing import system_chromium
from tests.pictures import astronaut, encode, hopper
from tests.stack import ROOT, Stack

FOLDER: Final = ROOT / "docs" / "pictures"
_QUALITY: Final = 86
_SETTLE_MS: Final = 500
_DESKTOP: Final = {"width": 1280, "height": 800}
_PHONE: Final = {"width": 390, "height": 844}


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="mien-pictures-") as folder,
        Stack(Path(folder) / "home") as stack,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=system_chromium())
        base_url = f"http://127.0.0.1:{stack.port}"
        for scheme in ("light", "dark"):
            page = _open(browser, base_url, _DESKTOP, scheme)
            _keep(page, f"home-{scheme}")
        page = _open(browser, base_url, _DESKTOP, "light")
        _read(page, astronaut())
        _keep(page, "result")
        page = _open(browser, base_url, _DESKTOP, "dark")
        _read(page, _side_by_side(astronaut(), hopper()))
        with page.expect_response("**/heat/1"), page.expect_response("**/heat/2"):
            page.get_by_text("Show where it looked").click()
        page.wait_for_load_state("networkidle")
        page.wait_for_timeout(_SETTLE_MS)
        _keep(page, "where-it-looked")
        page = _open(browser, base_url, _PHONE, "dark")
        _read(page, hopper())
        _keep(page, "result-phone")
        browser.close()


def _open(browser: Browser, base_url: str, size: Any, scheme: Any) -> Page:
    scale = 2 if size == _PHONE else 1
    page = browser.new_context(
        base_url=base_url,
        viewport=size,
        color_scheme=scheme,
        device_scale_factor=scale,
        reduced_motion="reduce",
    ).new_page()
    page.goto("/", wait_until="networkidle")
    return page


def _read(page: Page, photo: Image.Image) -> None:
    file = {"name": "photo.jpg", "mimeType": "image/jpeg", "buffer": encode(photo)}
    page.set_input_files("#image", file)
    page.wait_for_url("**/photos/*/")
    status = page.locator("#result")
    expect(status).to_have_attribute("data-status", "done", timeout=60_000)
    page.wait_for_load_state("networkidle")


def _side_by_side(left: Image.Image, right: Image.Image) -> Image.Image:
    height = min(left.height, right.height)
    both = Image.new("RGB", (left.width + right.width, height))
    both.paste(left, (0, 0))
    both.paste(right, (left.width, 0))
    return both


def _keep(page: Page, name: str) -> None:
    with Image.open(io.BytesIO(page.screenshot())) as picture:
        picture.convert("RGB").save(FOLDER / f"{name}.webp", quality=_QUALITY, method=6)


if __name__ == "__main__":
    main()
