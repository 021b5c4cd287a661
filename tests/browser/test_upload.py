"""The main job as a visitor does it: a photo in, its faces out, and all that can go
wrong on the way."""

from __future__ import annotations

import base64
import io
import os
import re
import socketserver
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page, Route, expect

from ml.images import MAX_BYTES, ImageRefused, decode_image
from tests.browser.conftest import OpenPage
from tests.pictures import astronaut, encode, hopper
from tests.stack import Stack
from webapp.photos.models import FailureReason
from webapp.photos.selectors import FAILURE_WORDS

RESULT = re.compile(r"/photos/[0-9a-f-]{36}/$")
PHOTO = {"name": "eileen.png", "mimeType": "image/png", "buffer": b""}
PHOTO["buffer"] = encode(astronaut(), "PNG")
WRONG = re.compile("^That.s wrong$")

LOOKS = [
    pytest.param(
        {"viewport": {"width": 1280, "height": 800}, "color_scheme": "light"},
        id="desktop-light",
    ),
    pytest.param(
        {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark"},
        id="phone-dark",
    ),
]

HAND_OVER = """([kind, name, type, data]) => {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const carrier = new DataTransfer();
  carrier.items.add(new File([bytes], name, { type }));
  const options = { bubbles: true, cancelable: true };
  if (kind === "paste") {
    const event = new ClipboardEvent("paste", { ...options, clipboardData: carrier });
    document.body.dispatchEvent(event);
    return;
  }
  for (const step of ["dragenter", "dragover", "drop"]) {
    const event = new DragEvent(step, { ...options, dataTransfer: carrier });
    document.querySelector("footer").dispatchEvent(event);
  }
}"""
"""Drops a file far from the drop zone, or pastes it, as the browser itself would."""

PASTE_WORDS = """() => {
  const carrier = new DataTransfer();
  carrier.setData("text/plain", "hello");
  const options = { bubbles: true, clipboardData: carrier };
  document.body.dispatchEvent(new ClipboardEvent("paste", options));
}"""


def choose(page: Page, photo: dict[str, object]) -> None:
    page.set_input_files("#image", photo)


def drop(page: Page, photo: dict[str, object]) -> None:
    hand_over(page, "drop", photo)


def paste(page: Page, photo: dict[str, object]) -> None:
    hand_over(page, "paste", photo)


def hand_over(page: Page, kind: str, photo: dict[str, object]) -> None:
    data = base64.b64encode(photo["buffer"]).decode()
    page.evaluate(HAND_OVER, [kind, photo["name"], photo["mimeType"], data])


def until_read(page: Page) -> None:
    page.wait_for_url(RESULT)
    expect(page.locator("#result")).to_have_attribute("data-status", "done")


def refusal_of(data: bytes) -> str:
    """The sentence with which the intake refuses these bytes."""
    with pytest.raises(ImageRefused) as refused:
        decode_image(data)
    return str(refused.value)


def two_faces() -> dict[str, object]:
    both = Image.new("RGB", (1024, 600))
    both.paste(astronaut(), (0, 0))
    both.paste(hopper(), (512, 0))
    return {"name": "two.jpg", "mimeType": "image/jpeg", "buffer": encode(both)}


class TestWaysIn:
    @pytest.mark.parametrize("look", LOOKS)
    @pytest.mark.parametrize("way", [choose, drop, paste])
    def test_a_photo_comes_back_with_its_face(
        self, open_page: OpenPage, way: Callable[..., None], look: dict[str, object]
    ) -> None:
        page = open_page("/", **look)

        way(page, PHOTO)
        until_read(page)

        expect(page.get_by_role("heading", level=1)).to_contain_text("One face, ")
        expect(page.locator(".face")).to_have_count(1)
        expect(page.locator(".box")).to_have_count(1)
        words = page.locator(".bars .percent").all_text_contents()
        assert len(words) == 4
        assert 98 <= sum(int(re.sub(r"\D", "", percent)) for percent in words) <= 104
        expect(page.get_by_text(re.compile("^Model mien-"))).to_be_visible()
        expect(page.get_by_text("Erased in 23 hours")).to_be_visible()

    def test_what_is_allowed_goes_with_the_photo(self, open_page: OpenPage) -> None:
        page = open_page("/")
        for box in page.get_by_role("checkbox").all():
            expect(box).not_to_be_checked()

        page.get_by_label("Keep my photo").check()
        choose(page, PHOTO)
        until_read(page)

        expect(page.get_by_text("Kept until you delete it", exact=True)).to_be_visible()
        (photo,) = page.request.get("/api/v1/photos").json()
        assert (photo["keep"], photo["train"]) == (True, False)
        page.get_by_text("What you allow").click()
        page.get_by_role("button", name="Erase it after 24 hours instead").click()
        expect(page.get_by_text("Erased in 23 hours")).to_be_visible()

    def test_several_photos_become_a_batch(self, open_page: OpenPage) -> None:
        page = open_page("/")
        page.set_input_files("#image", [PHOTO, two_faces()])

        page.wait_for_url("**/batches/*/")
        expect(page.get_by_role("heading", level=1)).to_contain_text("2 photos")

    def test_who_has_no_photo_tries_an_example(self, open_page: OpenPage) -> None:
        page = open_page("/")
        page.get_by_role("button", name="Try Grace Hopper").click()

        until_read(page)
        expect(page.locator(".face")).to_have_count(1)

    def test_the_keyboard_is_enough(self, open_page: OpenPage) -> None:
        page = open_page("/")
        # Listened to early: the browser needs a moment until it hands its dialog over.
        page.on("filechooser", lambda chooser: chooser.set_files(PHOTO))
        focused = page.locator(":focus")
        for _ in range(20):
            page.keyboard.press("Tab")
            if focused.get_attribute("id") == "image":
                break
        expect(page.locator("#image")).to_be_focused()
        page.keyboard.press("Enter")
        until_read(page)

        page.locator(".face-link").focus()
        expect(page.locator("#box-1")).to_have_class(re.compile("is-active"))
        page.locator(".confirm summary").focus()
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        expect(focused).to_have_text("Yes, delete it")
        page.keyboard.press("Enter")

        expect(page.get_by_text("everything read from it are gone")).to_be_visible()

    def test_without_scripts_the_form_does_it_all(self, open_page: OpenPage) -> None:
        page = open_page("/", java_script_enabled=False)
        expect(page.get_by_text("Drop or paste")).to_be_hidden()

        page.set_input_files("#image", PHOTO)
        page.get_by_role("button", name="Read the faces").click()
        until_read(page)

        expect(page.locator(".face")).to_have_count(1)
        assert not page.locator(".heat").get_attribute("href")
        page.get_by_text("Show where it looked").click()
        assert page.locator(".heat").get_attribute("href")
        page.locator(".confirm summary").click()
        page.get_by_role("button", name="Yes, delete it").click()
        expect(page.get_by_text("everything read from it are gone")).to_be_visible()


class TestScriptsThatDoNotArrive:
    def test_the_form_does_it_all(self, open_page: OpenPage) -> None:
        page = open_page("/")
        page.route("**/js/upload/*.js", lambda route: route.abort())
        page.reload()

        choose(page, PHOTO)
        page.get_by_role("button", name="Read the faces").click()

        until_read(page)

    def test_a_photo_that_waits_is_asked_for_as_a_page(
        self, open_page: OpenPage
    ) -> None:
        page = open_page("/")
        page.route("**/*htmx*", lambda route: route.abort())
        choose(page, PHOTO)

        until_read(page)


class TestRefusals:
    @pytest.mark.parametrize(
        ("name", "kind", "data"),
        [
            ("empty.jpg", "image/jpeg", b""),
            ("words.jpg", "image/jpeg", b"these are no pixels"),
            ("paper.pdf", "application/pdf", b"%PDF-1.7 and so on"),
            ("half.png", "image/png", PHOTO["buffer"][:20_000]),
        ],
    )
    @pytest.mark.parametrize("way", [choose, paste])
    def test_it_says_why_in_the_servers_words(
        self,
        open_page: OpenPage,
        way: Callable[..., None],
        name: str,
        kind: str,
        data: bytes,
    ) -> None:
        page = open_page("/")

        way(page, {"name": name, "mimeType": kind, "buffer": data})

        expect(page.get_by_role("alert")).to_have_text(refusal_of(data))
        expect(page.locator("[data-dropzone]")).to_have_attribute(
            "data-state", "refused"
        )
        assert page.url.endswith("/")

    def test_a_file_that_is_too_large_is_not_even_sent(
        self, open_page: OpenPage, tmp_path: Path
    ) -> None:
        page = open_page("/")
        page.route("**/photos/", lambda route: pytest.fail("it was sent"))
        path = tmp_path / "large.jpg"
        path.write_bytes(bytes(MAX_BYTES + 1))

        page.set_input_files("#image", path)

        expect(page.get_by_role("alert")).to_have_text(refusal_of(path.read_bytes()))

    def test_files_that_are_too_large_together_are_not_even_sent(
        self, open_page: OpenPage, tmp_path: Path
    ) -> None:
        page = open_page("/")
        page.route("**/photos/", lambda route: pytest.fail("they were sent"))
        paths = [tmp_path / f"{number}.jpg" for number in range(11)]
        for path in paths:
            path.touch()
            os.truncate(path, MAX_BYTES)

        page.set_input_files("#image", paths)

        words = "The upload is larger than 100 MB. Please send less."
        expect(page.get_by_role("alert")).to_have_text(words)

    def test_without_scripts_the_page_comes_back_with_the_sentence(
        self, open_page: OpenPage
    ) -> None:
        page = open_page("/", java_script_enabled=False)
        photo = {"name": "x.jpg", "mimeType": "image/jpeg", "buffer": b"no pixels"}
        page.set_input_files("#image", photo)
        with page.expect_navigation() as answer:
            page.get_by_role("button", name="Read the faces").click()

        assert answer.value.status == 415
        expect(page.get_by_role("alert")).to_have_text(refusal_of(b"no pixels"))

    def test_pasting_words_says_that_there_is_no_picture(
        self, open_page: OpenPage
    ) -> None:
        page = open_page("/")
        page.evaluate(PASTE_WORDS)

        expect(page.get_by_role("alert")).to_contain_text("no picture")


@pytest.fixture
def mute_site() -> Iterator[str]:
    """The address of one that takes all of a request, and then breaks off."""

    class Mute(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            length = 0
            while (line := self.rfile.readline()).strip():
                name, _, value = line.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
            self.rfile.read(length)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Mute) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/photos/"
        server.shutdown()


def answer_once(page: Page, status: int) -> None:
    """The next upload gets an empty answer, and does not reach the site."""
    page.route(
        "**/photos/",
        lambda route: route.fulfill(status=status, content_type="text/html"),
        times=1,
    )


class TestOnTheWay:
    def test_an_upload_can_be_cancelled(self, open_page: OpenPage) -> None:
        page = open_page("/", viewport={"width": 390, "height": 844})
        held: list[Route] = []
        page.route("**/photos/", lambda route: held.append(route))
        name = f"{'eileen' * 30}.png"

        choose(page, {**PHOTO, "name": name})
        expect(page.locator("[data-preview-image]")).to_be_visible()
        expect(page.locator("[data-preview-name]")).to_have_text(name)
        assert page.evaluate("() => document.documentElement.scrollWidth") == 390
        page.evaluate(PASTE_WORDS)
        expect(page.get_by_role("alert")).to_be_hidden()
        page.get_by_role("button", name="Cancel").click()

        expect(page.locator("[data-preview]")).to_be_hidden()
        expect(page.locator("[data-dropzone]")).to_have_attribute("data-state", "idle")
        assert page.evaluate("() => document.querySelector('#image').files.length") == 0
        expect(page.locator("#image")).to_be_focused()

    @pytest.mark.parametrize("other", [False, True], ids=["cancelled", "replaced"])
    def test_what_is_cancelled_after_all_was_sent_may_have_arrived(
        self, open_page: OpenPage, stack: Stack, other: bool
    ) -> None:
        page = open_page("/")
        web = stack.service("web")
        processes = [web, *web.children(recursive=True)]
        for process in processes:
            process.suspend()
        try:
            choose(page, PHOTO)
            page.wait_for_function(
                "() => document.querySelector('progress').value === 100"
            )
            if other:
                drop(page, {**PHOTO, "name": "other.png"})
            else:
                page.get_by_role("button", name="Cancel").click()
            words = page.locator("#arrived")
            expect(words).to_be_visible()
            expect(words).to_contain_text("its answer did not come")
            expect(page.locator("#upload [role=status]")).to_contain_text("My photos")
        finally:
            for process in processes:
                process.resume()

        if other:
            page.wait_for_url(RESULT)
        else:
            words.get_by_role("link", name="My photos").click()
            page.wait_for_url("**/mine/")

    def test_what_got_no_answer_after_all_was_sent_may_have_arrived(
        self, open_page: OpenPage, mute_site: str
    ) -> None:
        page = open_page("/")
        state = page.locator("[data-preview-state]")
        again = page.get_by_role("button", name="Try again")
        page.route("**/photos/", lambda route: route.continue_(url=mute_site), times=1)
        choose(page, PHOTO)
        expect(page.get_by_role("alert")).to_contain_text("could not be reached")
        expect(state).to_have_text("No answer.")

        # What comes of a later try says nothing of what became of the first.
        answer_once(page, 503)
        again.click()
        expect(page.get_by_role("alert")).to_contain_text("error 503")
        expect(state).to_have_text("No answer.")
        page.route("**/photos/", lambda route: None)
        again.click()
        expect(state).to_contain_text("sending")
        page.get_by_role("button", name="Cancel").click()

        expect(page.locator("#arrived")).to_be_visible()
        expect(page.locator("#upload [role=status]")).to_contain_text("My photos")

        choose(page, PHOTO)
        expect(page.locator("#arrived")).to_be_hidden()
        page.get_by_role("button", name="Cancel").click()
        expect(page.locator("#upload [role=status]")).to_have_text("Cancelled.")

    def test_a_no_to_a_later_try_tells_of_an_earlier_one_only_if_it_is_of_the_photo(
        self, open_page: OpenPage, mute_site: str
    ) -> None:
        page = open_page("/")
        alert = page.get_by_role("alert")
        again = page.get_by_role("button", name="Try again")
        arrived = page.locator("#arrived")
        page.route("**/photos/", lambda route: route.continue_(url=mute_site), times=1)
        choose(page, PHOTO)
        expect(alert).to_contain_text("could not be reached")
        answer_once(page, 403)
        again.click()
        expect(alert).to_contain_text("error 403")
        expect(arrived).to_be_visible()
        expect(page.locator("#upload [role=status]")).to_contain_text("My photos")

        page.route("**/photos/", lambda route: route.continue_(url=mute_site), times=1)
        choose(page, {**PHOTO, "buffer": b"no pixels"})
        expect(alert).to_contain_text("could not be reached")
        expect(arrived).to_be_hidden()
        again.click()
        expect(alert).to_have_text(refusal_of(b"no pixels"))
        expect(arrived).to_be_hidden()

    def test_the_camera_page_says_that_a_photo_may_have_arrived(
        self, open_page: OpenPage, mute_site: str
    ) -> None:
        page = open_page("/camera/")
        page.route("**/photos/", lambda route: route.continue_(url=mute_site), times=1)
        page.set_input_files("[name=image]", PHOTO)
        use = page.get_by_role("button", name="Use this photo")
        unknown = "It is not known whether the photo arrived."
        use.click()
        expect(page.get_by_role("alert")).to_contain_text(unknown)

        for status in (503, 403):
            answer_once(page, status)
            use.click()
            expect(page.get_by_role("alert")).to_contain_text(f"error {status}")
            expect(page.get_by_role("alert")).to_contain_text(unknown)
        page.get_by_role("button", name="Another photo").click()
        page.set_input_files("[name=image]", {**PHOTO, "buffer": b"no pixels"})
        answer_once(page, 503)
        not_taken = "The photo was not taken in."
        use.click()
        expect(page.get_by_role("alert")).to_contain_text(not_taken)

        page.route("**/photos/", lambda route: route.continue_(url=mute_site), times=1)
        use.click()
        expect(page.get_by_role("alert")).to_contain_text(unknown)
        use.click()
        expect(page.get_by_role("alert")).to_contain_text(refusal_of(b"no pixels"))
        expect(page.get_by_role("alert")).to_contain_text(not_taken)

    def test_a_format_that_the_browser_cannot_show_is_no_broken_picture(
        self, open_page: OpenPage
    ) -> None:
        page = open_page("/")
        page.route("**/photos/", lambda route: None)
        data = Path("tests/data/red_left_blue_right.heic").read_bytes()

        choose(page, {"name": "phone.HEIC", "mimeType": "", "buffer": data})

        expect(page.locator("[data-preview-icon]")).to_be_visible()
        expect(page.locator("[data-preview-image]")).to_be_hidden()
        expect(page.locator("[data-preview-name]")).to_have_text("phone.HEIC")

    def test_a_file_that_was_changed_since_is_to_be_chosen_again(
        self, open_page: OpenPage, tmp_path: Path
    ) -> None:
        page = open_page("/")
        page.route("**/photos/", lambda route: route.abort())
        path = tmp_path / "eileen.jpg"
        path.write_bytes(encode(astronaut()))
        page.set_input_files("#image", path)
        expect(page.get_by_role("alert")).to_contain_text("could not be reached")
        page.unroute("**/photos/")

        path.write_bytes(encode(astronaut(), quality=50))
        os.utime(path, (0, 0))
        page.get_by_role("button", name="Try again").click()

        expect(page.get_by_role("alert")).to_contain_text("choose it again")
        page.set_input_files("#image", path)
        until_read(page)

    @pytest.mark.parametrize(
        ("path", "again"), [("/", "Try again"), ("/camera/", "Use this photo")]
    )
    def test_a_site_that_does_not_answer_is_told_of_and_asked_again(
        self, open_page: OpenPage, stack: Stack, path: str, again: str
    ) -> None:
        page = open_page(path)
        page.clock.install()
        page.reload()
        photo = {**PHOTO, "name": "eileen.jpg", "buffer": encode(astronaut())}
        web = stack.service("web")
        processes = [web, *web.children(recursive=True)]
        for process in processes:
            process.suspend()
        try:
            page.set_input_files("[name=image]", photo)
            if path == "/camera/":
                page.get_by_role("button", name=again).click()
            page.wait_for_function(
                "() => document.querySelector('progress').value === 100"
            )
            page.clock.fast_forward(20_000)
            expect(page.get_by_role("alert")).to_be_hidden()
            page.clock.fast_forward(20_000)
            expect(page.get_by_role("alert")).to_contain_text("has not answered yet")
            page.get_by_role("button", name=again).click()
            expect(page.get_by_role("alert")).to_be_hidden()
        finally:
            for process in processes:
                process.resume()
        page.wait_for_url(RESULT)

        assert len(page.request.get("/api/v1/photos").json()) == 1

    def test_a_site_that_is_away_keeps_the_photo_for_another_try(
        self, open_page: OpenPage
    ) -> None:
        page = open_page("/")
        again = page.get_by_role("button", name="Try again")
        page.route("**/photos/", lambda route: route.abort())
        choose(page, PHOTO)
        expect(page.get_by_role("alert")).to_contain_text("could not be reached")

        page.unroute("**/photos/")
        page.route(
            "**/photos/",
            lambda route: route.fulfill(status=503, content_type="text/html"),
        )
        again.click()
        expect(page.get_by_role("alert")).to_contain_text("error 503")
        expect(page.locator("[data-preview-state]")).to_have_text("Not sent.")

        page.unroute("**/photos/")
        page.route("**/photos/", lambda route: None)
        with page.expect_request("**/photos/"):
            again.press("Enter")
        expect(page.get_by_role("button", name="Cancel")).to_be_focused()
        page.evaluate("() => window.stop()")
        expect(page.get_by_role("alert")).to_contain_text("was stopped")

        page.unroute("**/photos/")
        again.click()
        until_read(page)

    def test_coming_back_finds_a_fresh_zone(
        self, open_page: OpenPage, tmp_path: Path
    ) -> None:
        page = open_page("/")
        # One with a place on the disk: only such a one do browsers put back.
        photo = tmp_path / "me.jpg"
        photo.write_bytes(PHOTO["buffer"])
        page.set_input_files("#image", photo)
        until_read(page)

        page.go_back()

        expect(page.locator("[data-dropzone]")).to_have_attribute("data-state", "idle")
        expect(page.locator("[data-preview]")).to_be_hidden()
        # A browser that put the file back would see no change in choosing it again.
        assert page.evaluate("() => document.querySelector('#image').files.length") == 0


class TestWaiting:
    def test_the_page_waits_tells_and_does_not_move(
        self, open_page: OpenPage, sleeping_worker: Callable[[], None]
    ) -> None:
        pages = []
        for width_px in (1280, 390):
            page = open_page("/", viewport={"width": width_px, "height": 800})
            page.context.add_init_script(
                """
                  window.shifts = 0;
                  new PerformanceObserver((list) => {
                    for (const entry of list.getEntries()) {
                      window.shifts += entry.hadRecentInput ? 0 : entry.value;
                    }
                  }).observe({ type: "layout-shift", buffered: true });
                """
            )
            choose(page, PHOTO)
            page.wait_for_url(RESULT)
            expect(page.get_by_role("heading", level=1)).to_have_text(
                "Looking for faces …"
            )
            pages.append(page)
        sleeping_worker()

        for page in pages:
            until_read(page)
            expect(page.locator("#announcer")).to_contain_text("One face, ")
            assert "One face" in page.title()
            page.wait_for_timeout(500)
            assert page.evaluate("() => window.shifts") < 0.005

    def test_it_keeps_asking_a_site_that_is_away(
        self, open_page: OpenPage, sleeping_worker: Callable[[], None]
    ) -> None:
        page = open_page("/")
        choose(page, PHOTO)
        page.wait_for_url(RESULT)
        page.route("**/photos/*/?n=*", lambda route: route.abort())

        for place in ("#announcer", "[data-waiting-words]"):
            expect(page.locator(place)).to_contain_text(
                "Still trying to reach the site"
            )
        page.unroute("**/photos/*/?n=*")
        page.route("**/photos/*/?n=*", lambda route: None)
        with page.expect_request("**/photos/*/?n=*"):
            pass
        page.evaluate("() => window.stop()")
        sleeping_worker()
        page.unroute("**/photos/*/?n=*")

        until_read(page)

    @pytest.mark.parametrize("moves", [True, False], ids=["moves", "moves not"])
    @pytest.mark.parametrize("name", ["another", "delete-summary"])
    def test_the_focus_stays_where_it_is_while_it_asks(
        self,
        open_page: OpenPage,
        sleeping_worker: Callable[[], None],
        name: str,
        moves: bool,
    ) -> None:
        page = open_page("/")
        if not moves:
            page.context.add_init_script(
                """
                  delete Element.prototype.moveBefore;
                  delete DocumentFragment.prototype.moveBefore;
                """
            )
        choose(page, PHOTO)
        page.wait_for_url(RESULT)
        page.locator(f"#{name}").focus()

        for _ in range(2):
            with page.expect_response("**/photos/*/?n=*"):
                pass
        page.wait_for_timeout(300)

        expect(page.locator(f"#{name}")).to_be_focused()

    def test_the_page_of_a_network_does_not_take_the_place_of_the_result(
        self, open_page: OpenPage, sleeping_worker: Callable[[], None]
    ) -> None:
        page = open_page("/")
        choose(page, PHOTO)
        page.wait_for_url(RESULT)
        portal = "<!doctype html><title>Wi-Fi</title><p>Log in to the Wi-Fi first.</p>"
        page.route(
            "**/photos/*/?n=*",
            lambda route: route.fulfill(content_type="text/html", body=portal),
            times=2,
        )
        for _ in range(2):
            with page.expect_response("**/photos/*/?n=*"):
                pass
        expect(page.locator("[data-waiting-words]")).to_contain_text("Still trying")
        expect(page.get_by_text("Wi-Fi")).to_have_count(0)
        sleeping_worker()

        until_read(page)

    def test_a_photo_that_cannot_be_read_any_more_says_why(
        self, open_page: OpenPage, sleeping_worker: Callable[[], None], stack: Stack
    ) -> None:
        page = open_page("/")
        choose(page, PHOTO)
        page.wait_for_url(RESULT)
        files = [path for path in stack.home.glob("media/**/*") if path.is_file()]
        max(files, key=lambda path: path.stat().st_mtime_ns).unlink()
        sleeping_worker()

        reason = FAILURE_WORDS[FailureReason.UNREADABLE]
        expect(page.locator("#result .notice-error")).to_have_text(reason)
        assert "That did not work" in page.title()

    def test_a_photo_that_does_not_arrive_says_what_to_do(
        self, open_page: OpenPage
    ) -> None:
        page = open_page("/")
        page.route("**/photos/*/image", lambda route: route.abort())
        choose(page, PHOTO)
        until_read(page)

        photo = page.locator("#photo-image")
        expect(photo).to_have_attribute("alt", re.compile("reload the page"))

    def test_a_photo_that_goes_meanwhile_is_said_to_be_gone(
        self, open_page: OpenPage, sleeping_worker: Callable[[], None]
    ) -> None:
        page = open_page("/")
        choose(page, PHOTO)
        page.wait_for_url(RESULT)
        photo_id = page.url.rstrip("/").rpartition("/")[2]
        token = next(
            cookie["value"]
            for cookie in page.context.cookies()
            if cookie["name"] == "csrftoken"
        )
        answer = page.request.delete(
            f"/api/v1/photos/{photo_id}", headers={"X-CSRFToken": token}
        )
        assert answer.status == 204

        expect(page.get_by_text("There is no such photo here")).to_be_visible()


class TestResult:
    def test_cards_and_boxes_point_at_each_other(self, open_page: OpenPage) -> None:
        page = open_page("/", viewport={"width": 1280, "height": 800})
        choose(page, two_faces())
        until_read(page)
        active = re.compile("is-active")

        page.locator("#face-2").hover()
        expect(page.locator("#box-2")).to_have_class(active)
        expect(page.locator("#box-1")).not_to_have_class(active)
        page.locator("#box-1 .box-edge").hover()
        expect(page.locator("#face-1")).to_have_class(active)
        page.locator("#box-1 .box-edge").click()
        expect(page.locator("#face-1 .face-link")).to_be_focused()
        page.keyboard.press("ArrowDown")
        expect(page.locator("#face-2 .face-link")).to_be_focused()
        expect(page.locator("#box-2")).to_have_class(active)

    def test_enter_on_a_face_shows_its_box_and_keeps_the_focus(
        self, open_page: OpenPage
    ) -> None:
        page = open_page("/", viewport={"width": 390, "height": 500})
        choose(page, two_faces())
        until_read(page)
        link = page.locator("#face-2 .face-link")
        link.focus()
        expect(page.locator(".stage")).not_to_be_in_viewport()

        page.keyboard.press("Enter")

        expect(page.locator(".stage")).to_be_in_viewport(ratio=1)
        expect(link).to_be_focused()
        expect(page.locator("#box-2")).to_have_class(re.compile("is-active"))
        assert RESULT.search(page.url)

    def test_h_shows_where_the_model_looked_and_hides_it(
        self, open_page: OpenPage
    ) -> None:
        page = open_page("/")
        choose(page, PHOTO)
        until_read(page)
        assert not page.locator(".heat").get_attribute("href")

        page.locator(".face-link").focus()
        page.route("**/heat/1", lambda route: route.abort())
        page.keyboard.press("h")
        expect(page.get_by_text("It could not be fetched")).to_be_visible()
        expect(page.locator("#announcer")).to_contain_text("could not be fetched")
        page.unroute("**/heat/1")
        with page.expect_response("**/heat/1") as heat:
            page.keyboard.press("h")

        assert heat.value.headers["content-type"] == "image/png"
        picture = Image.open(io.BytesIO(heat.value.body()))
        assert picture.getchannel("A").getextrema()[1] > 100
        expect(page.get_by_text("Hide where it looked")).to_be_visible()
        page.keyboard.press("h")
        assert not page.locator(".heat").get_attribute("href")

    def test_numbers_heat_map_and_keys_are_explained(self, open_page: OpenPage) -> None:
        page = open_page("/", viewport={"width": 1280, "height": 800})
        narrow = Image.new("RGB", (300, 6000))
        narrow.paste(astronaut().resize((300, 300)))
        choose(page, {**PHOTO, "buffer": encode(narrow, "PNG")})
        until_read(page)
        # Words keep their room below a photo that leaves them none.
        button = page.get_by_text("Show where it looked").bounding_box()
        assert button is not None
        assert button["width"] > button["height"]

        page.get_by_text("How to read this").press("Enter")

        for words in ("rather than guess", "not whether it was right", "closes what"):
            expect(page.get_by_text(words)).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.get_by_text("rather than guess")).to_be_hidden()

    def test_that_is_wrong_takes_two_actions_and_gives_a_receipt(
        self, open_page: OpenPage
    ) -> None:
        page = open_page("/")
        choose(page, PHOTO)
        until_read(page)

        page.get_by_text(WRONG).click()
        page.get_by_role("button", name="Unclear").click()

        page.wait_for_url("**/receipts/**")
        expect(page.get_by_role("heading", level=1)).to_contain_text("You said")
        page.get_by_role("link", name="Back to the photo").click()
        page.wait_for_url(RESULT)

    def test_a_second_press_that_says_something_else_is_sent(
        self, open_page: OpenPage
    ) -> None:
        page = open_page("/")
        choose(page, PHOTO)
        until_read(page)
        page.get_by_text(WRONG).click()
        sent: list[str] = []

        def note(route: Route) -> None:
            sent.append(route.request.post_data or "")
            route.fulfill(status=204)

        page.route("**/flag/**", note)
        for name in ("Unclear", "Unclear", "Not a face"):
            page.get_by_role("button", name=name).click()
            page.wait_for_timeout(100)

        assert [data.rpartition("=")[2] for data in sent] == ["unclear", "not_a_face"]

    def test_a_link_shows_the_photo_to_somebody_else_until_it_ends(
        self, open_page: OpenPage
    ) -> None:
        page = open_page("/")
        choose(page, PHOTO)
        until_read(page)
        stranger = open_page(page.url)
        expect(stranger.get_by_text("There is no such photo here")).to_be_visible()

        page.get_by_text("Share", exact=True).click()
        page.get_by_role("button", name="Make a link").click()
        # No longer than there is a photo.
        expect(page.get_by_text("can see the photo for 23")).to_be_visible()
        link = page.locator("#share-link").inner_text()
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page.get_by_role("button", name="Copy").click()
        expect(page.get_by_role("button", name="Copied")).to_be_visible()
        assert page.evaluate("() => navigator.clipboard.readText()") == link
        stranger.goto(link)
        expect(stranger.locator(".face")).to_have_count(1)
        expect(stranger.get_by_text("Delete", exact=True)).to_have_count(0)
        expect(stranger.get_by_text(WRONG)).to_have_count(0)
        page.get_by_text("Share", exact=False).first.click()
        page.get_by_role("button", name="End all links").click()
        expect(page.get_by_text("All links to this photo have ended")).to_be_visible()

        stranger.reload()
        expect(stranger.get_by_text("This link has ended")).to_be_visible()

    @pytest.mark.parametrize("kind", ["png", "json", "csv"])
    def test_the_result_can_be_taken_along(
        self, open_page: OpenPage, kind: str
    ) -> None:
        page = open_page("/")
        choose(page, PHOTO)
        until_read(page)
        page.get_by_text("Download", exact=True).click()

        with page.expect_download() as download:
            page.get_by_role("link", name=re.compile(f"({kind.upper()})")).click()

        assert download.value.suggested_filename == f"mien.{kind}"
        assert Path(download.value.path()).stat().st_size > 100

    def test_deleting_asks_first_and_leaves_nothing(self, open_page: OpenPage) -> None:
        page = open_page("/", viewport={"width": 390, "height": 844})
        choose(page, PHOTO)
        until_read(page)
        address = page.url
        image = page.locator("#photo-image").get_attribute("src")

        page.locator(".confirm summary").click()
        question = page.locator(".confirm-box").bounding_box()
        assert question is not None
        assert 0 <= question["x"] <= question["x"] + question["width"] <= 390
        held: list[Route] = []
        page.route("**/delete/", lambda route: held.append(route))
        page.get_by_role("button", name="Yes, delete it").evaluate(
            """(button) => {
              button.click();
              setTimeout(() => button.click(), 100);
            }"""
        )
        page.wait_for_timeout(300)
        assert len(held) == 1
        held[0].continue_()

        expect(page.get_by_role("status").first).to_contain_text("are gone")
        assert page.request.get(address).status == 404
        assert page.request.get(image).status == 404
