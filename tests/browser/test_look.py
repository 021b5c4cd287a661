"""What holds for every page: light and dark, narrow and wide, quick, and open to
everybody."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.browser.accessibility import serious_violations
from tests.browser.conftest import OpenPage
from tests.browser.test_upload import PHOTO, choose, two_faces, until_read
from tests.pictures import encode, landscape

PLAIN_PAGES = ["/", "/camera/", "/photos/mine/", "/accounts/login/", "/nothing-here/"]
FIRST_VIEW_LIMIT_BYTES = 100_000
LARGEST_PAINT_LIMIT_MS = 1000

PAGE_WIDTH = "() => document.documentElement.scrollWidth"


@pytest.mark.parametrize("scheme", ["light", "dark"])
class TestForEverybody:
    def test_axe_finds_nothing_serious_on_the_way_of_a_photo(
        self,
        open_page: OpenPage,
        sleeping_worker: Callable[[], None],
        scheme: str,
    ) -> None:
        phone = {"width": 390, "height": 844}
        page = open_page("/", color_scheme=scheme, viewport=phone)
        bad = {"name": "x.jpg", "mimeType": "image/jpeg", "buffer": b"no pixels"}
        choose(page, bad)
        expect(page.get_by_role("alert")).to_be_visible()
        found = serious_violations(page)
        choose(page, two_faces())
        page.wait_for_url("**/photos/*/")
        found += serious_violations(page)
        sleeping_worker()
        until_read(page)
        for closed in page.locator("summary").all():
            closed.click()
        page.get_by_text("Show where it looked").click()
        found += serious_violations(page)
        page.goto("/photos/mine/")
        found += serious_violations(page)
        page.goto("/")
        empty = encode(landscape(), "PNG")
        choose(page, {"name": "x.png", "mimeType": "image/png", "buffer": empty})
        until_read(page)
        expect(page.get_by_role("heading", level=1)).to_have_text("No face found")
        found += serious_violations(page)
        assert found == []


@pytest.mark.parametrize("width_px", [320, 390, 1280])
def test_nothing_scrolls_sideways(open_page: OpenPage, width_px: int) -> None:
    page = open_page("/", viewport={"width": width_px, "height": 800})
    choose(page, two_faces())
    until_read(page)
    for closed in page.locator("summary").all():
        closed.click()
    assert page.evaluate(PAGE_WIDTH) <= width_px


@pytest.mark.parametrize(("width_px", "letters_px"), [(320, 20), (390, 32)])
def test_large_letters_do_not_scroll_sideways(
    open_page: OpenPage, width_px: int, letters_px: int
) -> None:
    """Of a browser that shows letters alone larger."""
    page = open_page("/", viewport={"width": width_px, "height": 844})

    def assert_fits() -> None:
        page.evaluate(
            "(size) => { document.documentElement.style.fontSize = size; }",
            f"{letters_px}px",
        )
        assert page.evaluate(PAGE_WIDTH) <= width_px, page.url

    choose(page, two_faces())
    until_read(page)
    for closed in page.locator("summary").all():
        closed.click()
    assert_fits()
    for path in PLAIN_PAGES:
        page.goto(path)
        assert_fits()


@pytest.mark.timed
def test_the_first_view_is_light_and_quick(
    open_page: OpenPage, capsys: pytest.CaptureFixture[str]
) -> None:
    paints = []
    for _ in range(3):
        page = open_page("about:blank", viewport={"width": 1280, "height": 800})
        session = page.context.new_cdp_session(page)
        received: list[float] = []
        session.on(
            "Network.loadingFinished",
            lambda event, sizes=received: sizes.append(event["encodedDataLength"]),
        )
        session.send("Network.enable")
        page.goto("/", wait_until="networkidle")
        paints.append(largest_paint_ms(page))
    with capsys.disabled():
        print(
            f"\nfirst view: {sum(received) / 1000:.1f} kB in {len(received)} "
            f"requests, largest paint after {min(paints):.0f} ms"
        )

    assert 10_000 < sum(received) < FIRST_VIEW_LIMIT_BYTES
    # The best of three: others use this machine, too.
    assert min(paints) < LARGEST_PAINT_LIMIT_MS


def largest_paint_ms(page: Page) -> float:
    paint: float = page.evaluate(
        """() => new Promise((resolve) => {
          new PerformanceObserver((list) => {
            resolve(list.getEntries().at(-1).startTime);
          }).observe({ type: "largest-contentful-paint", buffered: true });
        })"""
    )
    return paint


class TestTheme:
    def test_the_switch_is_remembered_and_set_before_the_first_paint(
        self, open_page: OpenPage
    ) -> None:
        page = open_page("/", color_scheme="light")
        light = background(page)

        page.get_by_role("button", name="Switch between light and dark").click()
        assert background(page) != light
        page.reload(wait_until="commit")
        page.wait_for_selector("body")

        assert page.evaluate("() => document.documentElement.dataset.theme") == "dark"
        assert background(page) != light

    def test_the_systems_theme_holds_until_somebody_chooses(
        self, open_page: OpenPage
    ) -> None:
        dark = background(open_page("/", color_scheme="dark"))
        light = background(open_page("/", color_scheme="light"))
        assert dark != light

    def test_what_is_printed_is_light_whatever_was_chosen(
        self, open_page: OpenPage
    ) -> None:
        page = open_page("/", color_scheme="light")
        light = ink(page)
        page.get_by_role("button", name="Switch between light and dark").click()
        assert ink(page) != light

        page.emulate_media(media="print")

        assert ink(page) == light


def background(page: Page) -> str:
    colour: str = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    return colour


def ink(page: Page) -> str:
    colour: str = page.evaluate("() => getComputedStyle(document.body).color")
    return colour


def test_the_skip_link_leads_past_the_header(open_page: OpenPage) -> None:
    page = open_page("/")
    page.keyboard.press("Tab")
    expect(page.get_by_text("Skip to the content")).to_be_focused()
    expect(page.get_by_text("Skip to the content")).to_be_in_viewport()

    page.keyboard.press("Enter")

    expect(page.locator("#main")).to_be_focused()


def stage_box(page: Page) -> dict[str, float]:
    """Where the stage stands, measured in one step: each poll exchanges it."""
    box: dict[str, float] = page.evaluate(
        "() => document.querySelector('.stage').getBoundingClientRect().toJSON()"
    )
    return box


def test_a_photo_waits_on_the_page_until_it_is_read(
    open_page: OpenPage, sleeping_worker: Callable[[], None]
) -> None:
    page = open_page("/")
    choose(page, PHOTO)
    page.wait_for_url("**/photos/*/")
    expect(page.get_by_role("heading", level=1)).to_contain_text("Looking")
    stage = stage_box(page)
    assert stage["width"] == stage["height"]
    page.locator("#photo-image").evaluate("(image) => image.decode()")

    assert stage_box(page) == stage
    sleeping_worker()
    until_read(page)
    assert stage_box(page) == stage
