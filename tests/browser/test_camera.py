"""The camera page with Chromium's fake cameras: its test pattern, a video made from a
public-domain photograph, one that is refused, and none at all."""

from __future__ import annotations

import re
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, Request, Response, Route, expect

from tests.browser.accessibility import serious_violations
from tests.browser.conftest import OTHER_HOST, OpenPage
from tests.browser.videos import write_moving_face, write_still_face
from tests.pictures import encode, hopper

ALLOW = "--use-fake-ui-for-media-stream"
REFUSE = "--use-fake-ui-for-media-stream=deny"
PATTERN = ("--use-fake-device-for-media-stream", ALLOW)
TWO_CAMERAS = ("--use-fake-device-for-media-stream=device-count=2", ALLOW)
NO_CAMERA = ("--use-fake-device-for-media-stream=device-count=0", ALLOW)

LIVE_PATH = "/api/v1/live"
RESULTS_PER_SECOND = 5.0
WINDOW_MS = 5000
WINDOWS = 4

RESULT_ADDRESS = re.compile(r"/photos/[0-9a-f-]{36}/$")

CAMERA_RUNS = """() => {
  const stream = document.querySelector("video").srcObject;
  return stream !== null && stream.getTracks().some((t) => t.readyState === "live");
}"""

HIDE = """() => {
  Object.defineProperty(document, "hidden", { configurable: true, get: () => true });
  document.dispatchEvent(new Event("visibilitychange"));
}"""
"""What a browser does to a tab that is covered: a headless one covers none."""

SHOW = """() => {
  delete document.hidden;
  document.dispatchEvent(new Event("visibilitychange"));
}"""


PULL_OUT = """() => document.querySelector("video").srcObject.getVideoTracks()[0]
  .dispatchEvent(new Event("ended"))"""

HOLD_THE_LIST = """() => {
  const devices = navigator.mediaDevices;
  const list = devices.enumerateDevices.bind(devices);
  devices.enumerateDevices = () =>
    new Promise((resolve) => {
      window.goOn = () => resolve(list());
    });
}"""
"""No camera has started before ``window.goOn()``."""

NOTE_WORDS = """(place) => {
  window.words = [];
  const note = () => window.words.push(place.textContent);
  new MutationObserver(note).observe(place, { childList: true });
}"""
"""What a place says from now on is in ``window.words``, however soon it says more."""

HOLD_THE_SECONDS = """() => {
  const [set, clear] = [window.setTimeout, window.clearTimeout];
  const held = new Map();
  let number = 0;
  window.setTimeout = (act, ms) => {
    if (ms !== 1000) {
      return set(act, ms);
    }
    number -= 1;
    held.set(number, act);
    return number;
  };
  window.clearTimeout = (timer) => held.delete(timer) || clear(timer);
  window.letSecondsPass = () => {
    for (const act of held.values()) {
      act();
    }
  };
}"""
"""What is to come in a second comes with ``window.letSecondsPass()``, as does what is
to come in a second from then, and so on."""


@pytest.fixture(scope="session")
def still(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    return camera_that_shows(write_still_face(tmp_path_factory.mktemp("video")))


@pytest.fixture(scope="session")
def moving(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    return camera_that_shows(write_moving_face(tmp_path_factory.mktemp("video")))


def camera_that_shows(video: Path) -> tuple[str, ...]:
    return (*PATTERN, f"--use-file-for-fake-video-capture={video}")


def start(page: Page, *, live: bool = False) -> None:
    if live:
        page.get_by_text("Live view", exact=True).click()
    page.get_by_role("button", name="Start camera").click()
    expect(page.locator("#camera")).to_have_attribute("data-phase", "on")


def take(page: Page) -> None:
    """A photo at once, without the countdown."""
    page.get_by_label("Count down from three").uncheck()
    page.get_by_role("button", name="Take the photo").click()
    expect(page.locator("#camera")).to_have_attribute("data-phase", "shot")


def live_requests(page: Page) -> list[Request]:
    """Every frame that this page sends from now on."""
    sent: list[Request] = []
    page.on(
        "request",
        lambda request: (
            sent.append(request) if urlsplit(request.url).path == LIVE_PATH else None
        ),
    )
    return sent


def frame_sizes(page: Page) -> list[tuple[int, int]]:
    """Width and height, as the site saw them, of every frame from now on."""
    sizes: list[tuple[int, int]] = []

    def note(response: Response) -> None:
        if urlsplit(response.url).path == LIVE_PATH and response.status == 200:
            reading = response.json()
            sizes.append((reading["width"], reading["height"]))

    page.on("response", note)
    return sizes


def photos_of(page: Page) -> list[dict[str, object]]:
    return page.request.get("/api/v1/photos").json()


class TestBefore:
    def test_nothing_starts_before_it_was_told_and_asked(
        self, open_page: OpenPage
    ) -> None:
        page = open_page("/camera/", switches=PATTERN)

        assert not page.evaluate(CAMERA_RUNS)
        before = page.get_by_role("region", name="Before the camera starts")
        expect(before).to_contain_text("hidden data are dropped")
        expect(before).to_contain_text("erased with everything read from it")
        expect(before).to_contain_text("not what a person feels")
        expect(before).to_contain_text("article 5")
        expect(before).to_contain_text("article 50")
        expect(page.get_by_role("button", name="Start camera")).to_be_visible()
        # Which of the two is chosen is seen in the colours that somebody set, too.
        page.emulate_media(forced_colors="active")
        chosen, ground = page.evaluate(
            """() => [".modes label:has(:checked)", "body"].map(
              (part) => getComputedStyle(document.querySelector(part)).backgroundColor,
            )"""
        )
        assert chosen != ground

    def test_a_photo_can_be_chosen_instead(self, open_page: OpenPage) -> None:
        page = open_page("/camera/", switches=NO_CAMERA)
        # With it, phones would offer their camera alone.
        assert page.get_attribute("#camera-file", "capture") is None

        page.set_input_files(
            "#camera-file",
            {"name": "me.jpg", "mimeType": "image/jpeg", "buffer": encode(hopper())},
        )
        expect(page.get_by_role("button", name="Use this photo")).to_be_focused()
        page.get_by_role("button", name="Use this photo").click()

        page.wait_for_url(RESULT_ADDRESS)

    def test_a_file_that_is_no_photo_is_refused_in_words(
        self, open_page: OpenPage
    ) -> None:
        page = open_page("/camera/", switches=NO_CAMERA)
        page.set_input_files(
            "#camera-file",
            {"name": "x.jpg", "mimeType": "image/jpeg", "buffer": b"no picture"},
        )
        page.get_by_role("button", name="Use this photo").click()

        expect(page.get_by_role("alert")).to_contain_text("This is not a picture")
        expect(page.get_by_role("button", name="Another photo")).to_be_enabled()

    def test_without_scripts_the_form_takes_a_photo(self, open_page: OpenPage) -> None:
        page = open_page("/camera/", java_script_enabled=False)

        expect(page.get_by_role("button", name="Start camera")).to_be_hidden()
        page.set_input_files(
            "#camera-file",
            {"name": "me.jpg", "mimeType": "image/jpeg", "buffer": encode(hopper())},
        )
        page.get_by_label("Keep my photo").check()
        page.get_by_role("button", name="Use this photo").click()

        page.wait_for_url(RESULT_ADDRESS)
        (photo,) = photos_of(page)
        assert (photo["keep"], photo["train"]) == (True, False)


class TestProblems:
    @pytest.mark.parametrize(
        ("switches", "words", "remedy"),
        [
            (NO_CAMERA, "No camera was found.", "Plug one in"),
            (
                ("--use-fake-device-for-media-stream", REFUSE),
                "Your browser blocks the camera",
                "allow the camera",
            ),
        ],
        ids=["missing", "refused"],
    )
    def test_it_says_what_is_wrong_and_what_to_do(
        self, open_page: OpenPage, switches: tuple[str, ...], words: str, remedy: str
    ) -> None:
        page = open_page("/camera/", switches=switches)

        page.get_by_role("button", name="Start camera").click()

        expect(page.get_by_role("alert")).to_contain_text(words)
        expect(page.get_by_role("alert")).to_contain_text(remedy)
        expect(page.get_by_role("button", name="Try again")).to_be_focused()
        expect(page.get_by_text("Take or choose a photo instead")).to_be_visible()

    def test_a_page_without_encryption_gets_no_camera(
        self, open_page: OpenPage, site: str
    ) -> None:
        port = urlsplit(site).port
        page = open_page(f"http://{OTHER_HOST}:{port}/camera/", switches=PATTERN)

        page.get_by_role("button", name="Start camera").click()

        expect(page.get_by_role("alert")).to_contain_text("without encryption")
        expect(page.get_by_role("alert")).to_contain_text("https://")

    def test_a_camera_that_another_program_has_is_busy(
        self, open_page: OpenPage
    ) -> None:
        page = open_page("/camera/", switches=PATTERN)
        # No switch makes a fake camera busy: the browser's own error stands in.
        page.evaluate(
            """() => {
              navigator.mediaDevices.getUserMedia = () =>
                Promise.reject(new DOMException("in use", "NotReadableError"));
            }"""
        )

        page.get_by_role("button", name="Start camera").click()

        expect(page.get_by_role("alert")).to_contain_text("The camera is busy.")

    def test_a_camera_that_is_pulled_out_is_noticed(self, open_page: OpenPage) -> None:
        page = open_page("/camera/", switches=PATTERN)
        start(page, live=True)
        sent = live_requests(page)

        page.evaluate(PULL_OUT)

        expect(page.get_by_role("alert")).to_contain_text("The camera has stopped.")
        assert_silence(page, sent)

    def test_a_camera_that_is_pulled_out_while_it_starts_is_noticed(
        self, open_page: OpenPage
    ) -> None:
        page = open_page("/camera/", switches=PATTERN)
        page.evaluate(HOLD_THE_LIST)
        page.get_by_role("button", name="Start camera").click()
        page.wait_for_function("() => window.goOn")

        page.evaluate(PULL_OUT)
        page.evaluate("() => window.goOn()")

        expect(page.get_by_role("alert")).to_contain_text("The camera has stopped.")
        page.wait_for_timeout(300)
        expect(page.locator("#camera")).to_have_attribute("data-phase", "off")


class TestSnapshot:
    def test_counts_down_stops_the_camera_and_becomes_a_result(
        self, open_page: OpenPage, still: tuple[str, ...]
    ) -> None:
        page = open_page("/camera/", switches=still)
        start(page)
        expect(page.get_by_role("button", name="Take the photo")).to_be_focused()

        page.locator("[data-count]").evaluate(NOTE_WORDS)
        page.get_by_role("button", name="Take the photo").click()
        expect(page.get_by_alt_text("about to be sent")).to_be_visible()
        assert page.evaluate("() => window.words") == ["3", "2", "1"]
        assert not page.evaluate(CAMERA_RUNS)
        assert photos_of(page) == []
        for question in ("Keep my photo", "Use the faces"):
            expect(page.get_by_label(question)).not_to_be_checked()
        page.get_by_role("button", name="Use this photo").click()

        page.wait_for_url(RESULT_ADDRESS)
        expect(page.locator("#result")).to_have_attribute("data-status", "done")
        (photo,) = photos_of(page)
        assert len(photo["faces"]) == 1
        assert (photo["width"], photo["height"]) == (1280, 720)
        assert (photo["keep"], photo["train"]) == (False, False)

    def test_what_is_stored_is_not_mirrored(
        self, open_page: OpenPage, still: tuple[str, ...]
    ) -> None:
        page = open_page("/camera/", switches=still)
        start(page)
        expect(page.locator("video")).to_have_css(
            "transform", "matrix(-1, 0, 0, 1, 0, 0)"
        )
        take(page)
        page.get_by_role("button", name="Use this photo").click()
        page.wait_for_url(RESULT_ADDRESS)
        expect(page.locator("#result")).to_have_attribute("data-status", "done")

        box = photos_of(page)[0]["faces"][0]["box"]
        # In the video the face is left of the middle.
        assert box["x"] + box["width"] / 2 < 640

    def test_what_is_allowed_goes_with_the_photo(
        self, open_page: OpenPage, still: tuple[str, ...]
    ) -> None:
        page = open_page("/camera/", switches=still)
        start(page)
        take(page)
        page.get_by_label("Use the faces").check()
        page.get_by_role("button", name="Use this photo").click()
        page.wait_for_url(RESULT_ADDRESS)

        (photo,) = photos_of(page)
        assert (photo["keep"], photo["train"]) == (False, True)

    def test_retake_starts_the_camera_again(self, open_page: OpenPage) -> None:
        page = open_page("/camera/", switches=PATTERN)
        start(page)
        take(page)

        page.get_by_role("button", name="Retake").click()

        expect(page.locator("#camera")).to_have_attribute("data-phase", "on")
        assert page.evaluate(CAMERA_RUNS)
        assert photos_of(page) == []

    def test_a_photo_that_fails_leaves_the_camera_off(
        self, open_page: OpenPage
    ) -> None:
        page = open_page("/camera/", switches=PATTERN)
        start(page)
        page.get_by_label("Count down from three").uncheck()
        page.evaluate(
            "() => { HTMLCanvasElement.prototype.toBlob = (done) => done(null); }"
        )

        page.get_by_role("button", name="Take the photo").click()

        expect(page.get_by_role("alert")).to_contain_text("could not be started")
        expect(page.locator("#camera")).to_have_attribute("data-phase", "off")
        assert not page.evaluate(CAMERA_RUNS)

    def test_a_photo_that_fails_after_stop_is_no_trouble(
        self, open_page: OpenPage
    ) -> None:
        page = open_page("/camera/", switches=PATTERN)
        start(page)
        page.get_by_label("Count down from three").uncheck()
        page.evaluate(
            """() => {
              HTMLCanvasElement.prototype.toBlob = (done) => {
                window.fail = () => done(null);
              };
            }"""
        )
        page.get_by_role("button", name="Take the photo").click()
        page.get_by_role("button", name="Stop camera").click()

        page.evaluate("() => window.fail()")

        page.wait_for_timeout(100)
        expect(page.get_by_role("alert")).to_be_hidden()
        expect(page.get_by_role("button", name="Start camera")).to_be_visible()

    def test_a_countdown_can_be_cancelled(self, open_page: OpenPage) -> None:
        page = open_page("/camera/", switches=PATTERN)
        page.evaluate(HOLD_THE_SECONDS)
        # A double click is one press: the button below the second click is another.
        page.get_by_role("button", name="Start camera").dblclick()
        page.get_by_role("button", name="Take the photo").dblclick()
        expect(page.locator("#camera")).to_have_attribute("data-phase", "counting")

        page.get_by_role("button", name="Cancel the countdown").click()
        page.evaluate("() => window.letSecondsPass()")
        page.wait_for_timeout(300)

        expect(page.locator("#camera")).to_have_attribute("data-phase", "on")

    def test_another_camera_can_be_chosen(self, open_page: OpenPage) -> None:
        page = open_page("/camera/", switches=TWO_CAMERAS)
        start(page)
        choice = page.get_by_label("Camera", exact=True)
        first = choice.input_value()

        page.get_by_role("button", name="Other camera").click()
        expect(choice).not_to_have_value(first)
        expect(page.locator("#camera")).to_have_attribute("data-phase", "on")
        choice.select_option(first)
        expect(page.locator("#camera")).to_have_attribute("data-phase", "on")

        expect(choice).to_have_value(first)

    def test_it_works_with_the_keyboard_alone(
        self, open_page: OpenPage, still: tuple[str, ...]
    ) -> None:
        page = open_page("/camera/", switches=still)
        reach(page, "Start camera")
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name="Take the photo")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name="Use this photo")).to_be_focused()
        page.keyboard.press("Shift+Tab")
        page.keyboard.press("Shift+Tab")
        expect(page.get_by_label("Keep my photo")).to_be_focused()
        page.keyboard.press("Space")
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.wait_for_url(RESULT_ADDRESS)

        assert photos_of(page)[0]["keep"] is True


class TestLiveView:
    @pytest.mark.timed
    def test_five_results_a_second_and_nothing_stored(
        self,
        open_page: OpenPage,
        moving: tuple[str, ...],
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        page = open_page("/camera/", switches=moving)
        answers: list[int] = []
        page.on(
            "response",
            lambda response: (
                answers.append(response.status)
                if urlsplit(response.url).path == LIVE_PATH
                else None
            ),
        )
        start(page, live=True)
        expect(page.locator(".live-face")).to_have_count(1)

        rates = []
        while not rates or (len(rates) < WINDOWS and rates[-1] < RESULTS_PER_SECOND):
            before = len(answers)
            page.wait_for_timeout(WINDOW_MS)
            rates.append(1000 * (len(answers) - before) / WINDOW_MS)
        shown = page.locator("[data-rate]").text_content()
        side_px = page.locator("#camera").get_attribute("data-frame-side")
        with capsys.disabled():
            measured = ", ".join(f"{rate:.1f}" for rate in rates)
            print(f"\nlive view: {measured} results a second")
            print(f"it says: {shown}, in frames of {side_px} px")

        assert max(rates) >= RESULTS_PER_SECOND
        assert set(answers) == {200}
        assert photos_of(page) == []

    def test_a_box_lies_on_its_face_in_the_mirrored_picture(
        self, open_page: OpenPage, still: tuple[str, ...]
    ) -> None:
        page = open_page("/camera/", switches=still)
        start(page, live=True)
        expect(page.locator(".live-face")).to_have_count(1)
        page.wait_for_timeout(800)

        edge = page.locator(".live-edge")
        x, width = (float(edge.get_attribute(name) or 0) for name in ("x", "width"))
        video = page.locator("[data-overlay]").get_attribute("viewBox")

        assert video == "0 0 1280 720"
        # The video has it at 382 of 1280; the mirror at 1280 - 382.
        assert x + width / 2 == pytest.approx(1280 - 382, abs=25)

    def test_each_face_is_told_in_words_and_bars(
        self, open_page: OpenPage, still: tuple[str, ...]
    ) -> None:
        page = open_page("/camera/", switches=still)
        start(page, live=True)
        card = page.get_by_role("region", name="Faces in view").get_by_role("listitem")

        expect(card).to_have_count(1)
        expect(card).to_contain_text("Face 1")
        expect(card).to_contain_text(
            re.compile(r"(Happy|Sad|Surprised|Neutral) (> )?\d+ %")
        )
        percents = card.locator(".percent").all_text_contents()
        assert len(percents) == 4
        assert all(re.fullmatch(r"[<>]? ?\d\d? %", text) for text in percents)
        expect(page.get_by_role("status")).to_contain_text("Face 1:")

    def test_a_face_that_moves_keeps_its_number(self, open_page: OpenPage) -> None:
        page = open_page("/camera/")

        numbers = page.evaluate(
            """async () => {
              const { Tracks } = await import("/static/js/camera/tracks.js");
              const tracks = new Tracks();
              const scores = { happy: 0.7, sad: 0.1, surprise: 0.1, neutral: 0.1 };
              const face = (x) => ({
                box: { x, y: 100, width: 80, height: 100 },
                probabilities: scores,
                not_sure: false,
              });
              const seen = [];
              const at = (now, ...faces) => {
                tracks.update(faces, now);
                seen.push(tracks.all.map((t) => `${t.number}@${t.goal.x}`).join(" "));
              };
              at(0, face(0), face(300));
              at(200, face(270), face(90));
              at(400, face(240), face(500));
              at(1100, face(210), face(180));
              return seen;
            }"""
        )

        assert numbers == [
            "1@0 2@300",
            # Neither overlaps with where it was by much: the nearest goes on.
            "1@90 2@270",
            # One is out of view, but not yet forgotten; a stranger gets a new number.
            "1@90 2@240 3@500",
            # The first and the third were gone for too long.
            "1@180 2@210",
        ]

    def test_without_a_face_it_says_so(self, open_page: OpenPage) -> None:
        page = open_page("/camera/", switches=PATTERN)
        start(page, live=True)

        expect(page.locator("[data-hint]")).to_have_text("No face in view")
        expect(page.get_by_text("No face in view yet.")).to_be_visible()
        expect(page.get_by_role("status")).to_contain_text("No face in view.")

    def test_one_button_stores_the_moment_in_full_size(
        self, open_page: OpenPage, still: tuple[str, ...]
    ) -> None:
        page = open_page("/camera/", switches=still)
        sent = live_requests(page)
        sizes = frame_sizes(page)
        start(page, live=True)
        expect(page.locator(".live-face")).to_have_count(1)

        page.get_by_role("button", name="Store this moment").click()
        page.wait_for_url(RESULT_ADDRESS)

        (photo,) = photos_of(page)
        assert (photo["width"], photo["height"]) == (1280, 720)
        assert max(max(size) for size in sizes) == 640
        assert_silence(page, sent)

    def test_a_hidden_tab_stops_camera_and_requests(self, open_page: OpenPage) -> None:
        page = open_page("/camera/", switches=PATTERN)
        sent = live_requests(page)
        start(page, live=True)
        expect(page.locator("[data-rate]")).not_to_be_empty()

        page.evaluate(HIDE)

        assert not page.evaluate(CAMERA_RUNS)
        assert_silence(page, sent)
        page.evaluate(SHOW)
        expect(page.locator("[data-empty-title]")).to_have_text(
            "Stopped while the page was hidden"
        )
        assert_silence(page, sent)
        start(page)

    def test_leaving_stops_it_and_coming_back_does_not_start_it(
        self, open_page: OpenPage
    ) -> None:
        page = open_page("/camera/", switches=PATTERN)
        sent = live_requests(page)
        start(page, live=True)
        expect(page.locator("[data-rate]")).not_to_be_empty()

        page.goto("/photos/mine/")
        assert_silence(page, sent)
        page.go_back()

        expect(page.locator("#camera")).to_have_attribute("data-phase", "off")
        assert_silence(page, sent)

    def test_a_mode_changed_while_the_camera_starts_leaves_nothing_running(
        self, open_page: OpenPage
    ) -> None:
        page = open_page("/camera/", switches=PATTERN)
        page.evaluate(HOLD_THE_LIST)
        page.evaluate(
            """() => {
              const request = window.requestAnimationFrame.bind(window);
              window.drawn = 0;
              window.requestAnimationFrame = (draw) => {
                window.drawn += 1;
                return request(draw);
              };
            }"""
        )
        page.get_by_role("button", name="Start camera").click()
        page.wait_for_function("() => window.goOn")
        page.get_by_text("Live view", exact=True).click()
        page.wait_for_function("() => window.drawn > 0")
        page.evaluate("() => window.goOn()")
        expect(page.get_by_role("button", name="Stop camera")).to_be_visible()
        page.wait_for_timeout(300)
        page.get_by_role("button", name="Stop camera").click()
        page.wait_for_timeout(100)

        drawn = page.evaluate("() => window.drawn")
        page.wait_for_timeout(500)
        assert page.evaluate("() => window.drawn") == drawn

    def test_a_frame_leaves_nothing_behind(self, open_page: OpenPage) -> None:
        page = open_page("/camera/", switches=PATTERN)
        page.evaluate(
            """() => {
              window.waiting = 0;
              for (const [name, step] of [["add", 1], ["remove", -1]]) {
                const known = EventTarget.prototype[`${name}EventListener`];
                AbortSignal.prototype[`${name}EventListener`] = function (...rest) {
                  window.waiting += step;
                  return known.apply(this, rest);
                };
              }
            }"""
        )
        sent = live_requests(page)
        start(page, live=True)
        while len(sent) < 5:
            page.wait_for_timeout(100)

        assert page.evaluate("() => window.waiting") <= 1

    def test_stop_stops(self, open_page: OpenPage) -> None:
        page = open_page("/camera/", switches=PATTERN)
        sent = live_requests(page)
        start(page, live=True)

        page.get_by_role("button", name="Stop camera").click()

        assert not page.evaluate(CAMERA_RUNS)
        expect(page.get_by_role("button", name="Start camera")).to_be_focused()
        assert_silence(page, sent)

    @pytest.mark.parametrize("status", [429, 503])
    def test_it_waits_as_long_as_the_site_asks(
        self, open_page: OpenPage, status: int
    ) -> None:
        page = open_page("/camera/", switches=PATTERN)
        asked_at: list[float] = []
        page.locator("[data-hint]").evaluate(NOTE_WORDS)

        def answer(route: Route) -> None:
            asked_at.append(time.monotonic())
            if len(asked_at) > 1:
                route.continue_()
            else:
                route.fulfill(status=status, headers={"Retry-After": "3"})

        page.route(f"**{LIVE_PATH}", answer)

        start(page, live=True)
        expect(page.locator("[data-rate]")).not_to_be_empty()

        words = page.evaluate("() => window.words")
        assert any("Going on in 3 seconds" in line for line in words), words
        # From before the answer until after the next question: never less than it was.
        assert asked_at[1] - asked_at[0] >= 3

    @pytest.mark.parametrize("gone", ["no answer", "another's page"])
    def test_it_goes_on_when_the_site_is_back(
        self, open_page: OpenPage, still: tuple[str, ...], gone: str
    ) -> None:
        page = open_page("/camera/", switches=still)
        start(page, live=True)
        boxes = page.locator("[data-overlay] .live-face")
        expect(boxes).to_have_count(1)

        if gone == "no answer":
            page.route(f"**{LIVE_PATH}", lambda route: route.abort(), times=2)
        else:
            page.route(
                f"**{LIVE_PATH}", lambda route: route.fulfill(body="<html>"), times=2
            )

        expect(page.locator("[data-hint]")).to_contain_text("cannot be reached")
        expect(page.locator("[data-status]")).to_contain_text("cannot be reached")
        expect(boxes).to_have_count(0)
        expect(boxes).to_have_count(1)

    def test_somebody_who_is_logged_in_has_it_too(
        self, open_page: OpenPage, still: tuple[str, ...]
    ) -> None:
        page = open_page("/accounts/login/?next=/camera/", switches=still)
        page.get_by_label("User name").fill("ada")
        page.get_by_label("Password").fill("look-twice-ada")
        page.get_by_role("main").get_by_role("button", name="Log in").click()
        page.wait_for_url("**/camera/")

        start(page, live=True)

        expect(page.locator(".live-face")).to_have_count(1)


def test_large_letters_do_not_scroll_sideways(open_page: OpenPage) -> None:
    page = open_page("/camera/", viewport={"width": 390, "height": 844})

    page.evaluate("() => { document.documentElement.style.fontSize = '24px'; }")

    assert_fits(page)


@pytest.mark.parametrize("width_px", [320, 390, 1280])
def test_nothing_scrolls_sideways(
    open_page: OpenPage, still: tuple[str, ...], width_px: int
) -> None:
    page = open_page(
        "/camera/", switches=still, viewport={"width": width_px, "height": 844}
    )
    assert_fits(page)
    start(page, live=True)
    expect(page.locator(".live-face")).to_have_count(1)
    assert_fits(page)
    page.get_by_text("Snapshot", exact=True).click()
    take(page)
    assert_fits(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_in_any_state(
    open_page: OpenPage, still: tuple[str, ...], scheme: str
) -> None:
    page = open_page("/camera/", switches=still, color_scheme=scheme)
    found = serious_violations(page)
    start(page, live=True)
    expect(page.locator(".live-face")).to_have_count(1)
    found += serious_violations(page)
    page.get_by_text("Snapshot", exact=True).click()
    found += serious_violations(page)
    page.get_by_role("button", name="Take the photo").click()
    found += serious_violations(page)
    expect(page.get_by_role("button", name="Use this photo")).to_be_visible()
    found += serious_violations(page)
    page = open_page("/camera/", switches=NO_CAMERA, color_scheme=scheme)
    page.get_by_role("button", name="Start camera").click()
    expect(page.get_by_role("alert")).to_be_visible()
    found += serious_violations(page)
    assert found == []


def reach(page: Page, name: str) -> None:
    """Press Tab until a button of that name has the focus."""
    button = page.get_by_role("button", name=name)
    for _ in range(30):
        page.keyboard.press("Tab")
        if button.evaluate("(node) => node === document.activeElement"):
            return
    raise AssertionError(f"{name} cannot be reached with the keyboard")


def assert_silence(page: Page, sent: list[Request]) -> None:
    """No frame goes out any more."""
    before = len(sent)
    page.wait_for_timeout(1200)
    assert len(sent) == before


def assert_fits(page: Page) -> None:
    page_px, window_px = page.evaluate(
        "() => [document.documentElement.scrollWidth, window.innerWidth]"
    )
    assert page_px <= window_px
