"""An admin trains, judges, promotes and rolls back in Chromium; every page of training
is looked at in both themes and three widths."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from ml.inference import SHIPPED_MODEL
from ml.manifest import load_manifest
from tests.browser.accessibility import serious_violations
from tests.browser.conftest import OpenPage
from tests.browser.pictures import keep_page
from tests.browser.test_desk import log_in
from tests.browser.test_look import PAGE_WIDTH
from tests.stack import Stack, own_site

RUN_LIMIT_MS = 300_000
WIDTHS = (1280, 390, 320)
SHIPPED = load_manifest(SHIPPED_MODEL).version
CANDIDATE = f"{SHIPPED}-head-1"

# Labels as curation leaves them, one face without consent, and two days of drift.
_PREPARE = """
from datetime import timedelta
from django.utils import timezone
from webapp.registry.selectors import get_champion
from webapp.training.models import DriftReading
from webapp.training.tests.factories import Labeller
champion = get_champion()
Labeller(champion).faces(15)
for back in range(9, -1, -1):
    value = [0.03, 0.05, 0.04, 0.08, 0.07, 0.11, 0.15, 0.14, 0.19, 0.27][9 - back]
    DriftReading.objects.create(
        model_version=champion, day=timezone.now().date() - timedelta(days=back),
        faces=120, warns=value > 0.2, measures=[{
            "name": name, "words": words, "value": value * scale, "warn_above": 0.2,
            "warns": value * scale > 0.2,
            "labels": ["happy", "sad", "surprise", "neutral"],
            "reference": [0.42, 0.1, 0.12, 0.36], "live": [0.3, 0.25, 0.15, 0.3],
        } for name, words, scale in (
            ("predictions", "What the model says", 1),
            ("confidence", "How sure it is", 0.5),
        )],
    )
"""


_A_RUN_THAT_WAITS = """
from django.utils import timezone
from webapp.registry.selectors import get_champion
from webapp.training.models import RunLine, TrainingRun
champion = get_champion()
run = TrainingRun.objects.create(
    number=TrainingRun.objects.count() + 1, mode="head", parent=champion,
    start=champion, queued_at=timezone.now(),
)
RunLine.objects.create(run=run, text="The first step")
print(run.number)
"""
_SAY_MORE = """
from webapp.training.models import RunLine, TrainingRun
run = TrainingRun.objects.latest("number")
RunLine.objects.bulk_create(RunLine(run=run, text="A step") for _ in range(60))
"""
_CANCEL = """
from webapp.training.models import TrainingRun
from webapp.training.services.runs import cancel_run
cancel_run(run=TrainingRun.objects.latest("number"), cancelled_by=None)
"""


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """A site of this module's own, where no run starts by itself."""
    with own_site(MIEN_DEMO="1", MIEN_RETRAIN_AFTER_LABELS="1000") as running:
        yield running


@pytest.fixture(scope="module")
def site(stack: Stack) -> str:
    return f"http://127.0.0.1:{stack.port}"


def look(page: Page, path: str, name: str = "") -> list[str]:
    """What is wrong with a page, in light and dark, from 1280 to 320 pixels.

    One with a ``name`` has its picture in the documents.
    """
    trouble = []
    page.goto(path)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        trouble += serious_violations(page)
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        if page.evaluate(PAGE_WIDTH) > width:
            trouble.append(f"{path} is wider than {width}")
    page.set_viewport_size({"width": 1280, "height": 900})
    page.emulate_media(color_scheme="light")
    if name:
        keep_page(page, f"training-{name}")
    return trouble


def test_an_admin_goes_from_an_empty_site_to_a_new_champion_and_back(
    open_page: OpenPage, stack: Stack
) -> None:
    page = open_page("/accounts/login/")
    log_in(page, "max")
    trouble = [
        line
        for path in ("/training/", "/training/data-sets/", "/training/watch/")
        for line in look(page, path)
    ]
    page.goto("/training/")
    expect(page.locator("main")).to_contain_text("No run yet.")
    stack.manage("shell", "-c", _PREPARE)

    # By keyboard alone.
    page.reload()
    page.locator("#reason").focus()
    page.keyboard.type("The first sixty faces")
    page.keyboard.press("Enter")
    page.wait_for_url("**/training/runs/1/")
    expect(page.locator("h1")).to_have_text("Run 1: done", timeout=RUN_LIMIT_MS)
    expect(page.locator("#announcer")).to_have_text("Run 1: done")
    expect(page.locator(".log")).to_contain_text("The first sixty faces")

    page.get_by_role("link", name="See what the gate says").click()
    expect(page.locator(".verdict-card h2")).to_have_text("Promote")
    fixed = page.locator("#fixed-title")
    expect(fixed).to_have_text(re.compile(r"^[1-9]\d* fixed$"))
    faces = page.locator("section[aria-labelledby=fixed-title] .change-faces img")
    shown = faces.all()
    assert shown
    for face in shown:
        # Lazy: a face that is not on the screen is not asked for.
        face.scroll_into_view_if_needed()
        expect(face).not_to_have_js_property("naturalWidth", 0)
    page.get_by_role("link", name=f"Promote {CANDIDATE}").click()
    page.get_by_role("button", name="Yes, promote it").click()
    expect(page.locator(".notices")).to_contain_text(f"{CANDIDATE} serves now")

    page.goto("/training/watch/")
    page.get_by_role("button", name="Let it read along").click()
    expect(page.locator("main")).to_contain_text("reads along until")

    pages = {
        "runs": "/training/",
        "run": "/training/runs/1/",
        "gate": "/training/runs/1/gate/",
        "versions": "/training/versions/",
        "version": f"/training/versions/{CANDIDATE}/",
        "compare": f"/training/compare/?left={SHIPPED}&right={CANDIDATE}",
        "data-sets": "/training/data-sets/",
        "data-set": "/training/data-sets/1/",
        "schedule": "/training/schedule/",
        "watch": "/training/watch/",
        "promote": f"/training/versions/{SHIPPED}/promote/",
        "rollback": "/training/rollback/",
    }
    trouble += [line for name, path in pages.items() for line in look(page, path, name)]

    page.goto("/training/rollback/")
    page.get_by_role("button", name="Yes, roll back").click()
    expect(page.locator(".notices")).to_contain_text(f"{SHIPPED} serves again")
    trouble += look(page, "/training/watch/")
    assert trouble == []


def test_a_run_keeps_focus_and_place_and_asks_who_was_logged_out(
    open_page: OpenPage, stack: Stack
) -> None:
    page = open_page("/accounts/login/")
    log_in(page, "max")
    trainer = stack.service("training")
    workers = [trainer, *trainer.children(recursive=True)]
    with stack.sole_writer():
        for worker in workers:
            worker.suspend()
    try:
        number = stack.manage("shell", "-v", "0", "-c", _A_RUN_THAT_WAITS).strip()
        page.goto(f"/training/runs/{number}/")
        start = page.locator("#run-start")
        start.focus()
        with page.expect_response(f"**/training/runs/{number}/"):
            pass
        page.wait_for_timeout(300)
        expect(start).to_be_focused()

        # Who reads in the midst of the log stays there, who is at its end goes along,
        # also of a log that showed all of itself until then.
        log = page.locator("#run-log")
        lines = log.locator("li")
        left = "(log) => log.scrollHeight - log.clientHeight - log.scrollTop"
        expect(lines).to_have_count(1)
        stack.manage("shell", "-v", "0", "-c", _SAY_MORE)
        expect(lines).to_have_count(61)
        page.wait_for_timeout(300)
        assert log.evaluate("(log) => log.scrollTop") > 200
        assert log.evaluate(left) < 2
        log.evaluate("(log) => { log.scrollTop = 200; }")
        with page.expect_response(f"**/training/runs/{number}/"):
            pass
        page.wait_for_timeout(300)
        assert log.evaluate("(log) => log.scrollTop") == 200
        log.evaluate("(log) => { log.scrollTop = log.scrollHeight; }")
        stack.manage("shell", "-v", "0", "-c", _SAY_MORE)
        expect(lines).to_have_count(121)
        page.wait_for_timeout(300)
        assert log.evaluate(left) < 2

        page.context.clear_cookies(name="sessionid")
        page.wait_for_url("**/accounts/login/**")
        expect(page.locator("header")).to_have_count(1)
    finally:
        stack.manage("shell", "-v", "0", "-c", _CANCEL)
        for worker in workers:
            worker.resume()


def test_all_of_it_works_without_scripts(open_page: OpenPage) -> None:
    page = open_page("/accounts/login/", java_script_enabled=False)
    log_in(page, "max")
    page.get_by_role("link", name="Training", exact=True).click()
    page.get_by_role("link", name="Schedule").click()
    page.check("#enabled")
    page.fill("#time", "04:30")
    page.get_by_role("button", name="Save").click()

    expect(page.locator("main")).to_contain_text("04:30 UTC")
