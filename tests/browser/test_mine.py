"""A visitor's own photos: found again in this browser, and forgotten in one go."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from tests.browser.accessibility import serious_violations
from tests.browser.conftest import OpenPage
from tests.pictures import astronaut, encode, landscape

PER_PAGE = 24


def give(page: Page, data: bytes, **fields: str) -> str:
    """A photo of this browser, once it has been read; its id."""
    image = {"name": "me.jpg", "mimeType": "image/jpeg", "buffer": data}
    accepted = page.request.post(
        "/api/v1/photos", multipart={"image": image, **fields}
    ).json()
    for _ in range(900):
        photo = page.request.get(f"/api/v1/photos/{accepted['id']}").json()
        if photo["status"] == "done":
            return str(accepted["id"])
        page.wait_for_timeout(100)
    raise AssertionError("the photo was not read in time")


def test_an_empty_page_invites(open_page: OpenPage) -> None:
    page = open_page("/photos/mine/")

    expect(page.get_by_role("heading", name="No photos here yet")).to_be_visible()
    page.get_by_role("link", name="Use the camera").click()
    page.wait_for_url("**/camera/")


def test_each_photo_says_what_it_shows_and_how_long_it_stays(
    open_page: OpenPage,
) -> None:
    page = open_page("/photos/mine/")
    give(page, encode(landscape()))
    kept = give(page, encode(astronaut()), keep="true", train="true")

    page.reload()

    cards = page.locator(".sheet-card")
    expect(cards).to_have_count(2)
    expect(cards.nth(0)).to_contain_text(" %")
    expect(cards.nth(0)).to_contain_text("Kept until you delete it")
    expect(cards.nth(0)).to_contain_text("May train the model")
    expect(cards.nth(1)).to_contain_text("No face found")
    expect(cards.nth(1)).to_contain_text("Erased in 23 hours")
    cards.nth(0).get_by_role("link").click()
    page.wait_for_url(f"**/photos/{kept}/")


def test_another_browser_sees_nothing_of_it(open_page: OpenPage) -> None:
    page = open_page("/photos/mine/")
    give(page, encode(astronaut()))

    stranger = open_page("/photos/mine/")

    expect(stranger.get_by_text("No photos here yet")).to_be_visible()


def test_many_photos_come_in_pages(open_page: OpenPage) -> None:
    page = open_page("/photos/mine/")
    small = encode(landscape().resize((64, 48)))
    image = {"name": "l.jpg", "mimeType": "image/jpeg", "buffer": small}
    for _ in range(PER_PAGE + 1):
        page.request.post("/api/v1/photos", multipart={"image": image})
    page.reload()

    expect(page.locator(".sheet-card")).to_have_count(PER_PAGE)
    expect(page.get_by_text("Page 1 of 2")).to_be_visible()
    page.get_by_role("link", name="Older").click()
    expect(page.locator(".sheet-card")).to_have_count(1)


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no-scripts"])
def test_delete_all_asks_first_and_forgets_everything(
    open_page: OpenPage, scripts: bool
) -> None:
    page = open_page("/photos/mine/", java_script_enabled=scripts)
    photo_id = give(page, encode(astronaut()), keep="true")
    page.reload()

    page.get_by_text("Delete all", exact=True).click()
    page.get_by_role("button", name="Yes, delete it").click()

    expect(page.get_by_text("One photo is gone")).to_be_visible()
    expect(page.get_by_text("No photos here yet")).to_be_visible()
    assert page.request.get("/api/v1/photos").json() == []
    assert page.request.get(f"/photos/{photo_id}/image").status == 404


def test_delete_all_works_with_the_keyboard_alone(open_page: OpenPage) -> None:
    page = open_page("/photos/mine/")
    give(page, encode(landscape()))
    page.reload()

    question = page.locator("summary", has_text="Delete all")
    while not question.evaluate("(node) => node === document.activeElement"):
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")

    expect(page.get_by_text("One photo is gone")).to_be_visible()


@pytest.mark.parametrize("width_px", [320, 390, 1280])
def test_nothing_scrolls_sideways(open_page: OpenPage, width_px: int) -> None:
    page = open_page("/photos/mine/", viewport={"width": width_px, "height": 844})
    page_width = "() => document.documentElement.scrollWidth"
    assert page.evaluate(page_width) <= width_px
    give(page, encode(astronaut()))
    page.reload()
    page.get_by_text("Delete all", exact=True).click()

    assert page.evaluate(page_width) <= width_px
    question = page.locator(".confirm-box").bounding_box()
    assert question is not None
    assert 0 <= question["x"] <= question["x"] + question["width"] <= width_px


def test_axe_finds_nothing_serious(open_page: OpenPage) -> None:
    page = open_page("/photos/mine/", color_scheme="dark")
    give(page, encode(astronaut()))
    give(page, encode(landscape()), keep="true", train="true")
    page.reload()
    page.get_by_text("Delete all", exact=True).click()
    found = serious_violations(page)
    log_in(page, "/accounts/api-keys/")
    page.get_by_label("Name of a new key").fill("axe")
    page.get_by_role("button", name="Make a key").click()
    expect(page.locator("#new-key")).to_be_visible()
    found += serious_violations(page)
    page.get_by_label("Name of a new key").fill("axe")
    page.get_by_role("button", name="Make a key").click()
    expect(page.get_by_role("alert")).to_contain_text("choose another name")
    found += serious_violations(page)

    assert found == []


def log_in(page: Page, to: str) -> None:
    page.goto(f"/accounts/login/?next={to}")
    page.get_by_label("User name").fill("ada")
    page.get_by_label("Password").fill("look-twice-ada")
    page.get_by_role("main").get_by_role("button", name="Log in").click()
    page.wait_for_url(f"**{to}")


def test_a_key_is_made_copied_and_revoked(open_page: OpenPage) -> None:
    page = open_page("/")
    log_in(page, "/accounts/api-keys/")

    page.get_by_label("Name of a new key").fill("booth")
    page.get_by_role("button", name="Make a key").click()

    key = page.locator("#new-key").text_content()
    bearer = {"Authorization": f"Bearer {key}"}
    assert page.request.get("/api/v1/photos", headers=bearer).status == 200
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("() => navigator.clipboard.readText()") == key
    status = page.locator(".copy").get_by_role("status")
    expect(status).to_have_text("Copied")
    page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(); }")
    page.locator("[data-copy]").click()
    expect(status).to_contain_text("Selected: press Ctrl+C")
    assert page.evaluate("() => getSelection().toString()") == key
    page.locator("summary", has_text="Revoke booth").click()
    page.get_by_role("button", name="Yes, revoke it").click()
    expect(page.get_by_text("The key is revoked.")).to_be_visible()
    assert page.request.get("/api/v1/photos", headers=bearer).status == 401
