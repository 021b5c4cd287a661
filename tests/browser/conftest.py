"""The whole site in Chromium: one site for all, a fresh visitor for each page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.installing import system_chromium
from tests.stack import Stack, own_site

OTHER_HOST = "mien.test"
"""Leads to the site, too, but is no address that browsers trust without TLS."""

WAIT_LIMIT_MS = 90_000
"""For what must come: it costs nothing where it comes soon, and on a busy machine any
step may take a while."""
expect.set_options(timeout=WAIT_LIMIT_MS)

Launch = Callable[..., Browser]
OpenPage = Callable[..., Page]


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """The whole site as ``make run`` starts it."""
    with own_site(MIEN_ALLOWED_HOSTS=f"127.0.0.1,localhost,{OTHER_HOST}") as running:
        yield running


@pytest.fixture(scope="session")
def site(stack: Stack) -> str:
    """Its address, without a slash at the end."""
    return f"http://127.0.0.1:{stack.port}"


@pytest.fixture
def sleeping_worker(stack: Stack) -> Iterator[Callable[[], None]]:
    """Nothing is read until this is called."""
    worker = stack.service("inference")
    processes = [worker, *worker.children(recursive=True)]
    # Asleep in the midst of a write it would keep everybody from writing.
    with stack.sole_writer():
        for process in processes:
            process.suspend()

    def wake() -> None:
        for process in processes:
            process.resume()

    yield wake
    wake()


@pytest.fixture(scope="session")
def launch() -> Iterator[Launch]:
    """Chromium with the given switches; the same ones share a browser."""
    browsers: dict[tuple[str, ...], Browser] = {}
    with sync_playwright() as playwright:

        def start(*switches: str) -> Browser:
            if switches not in browsers:
                browsers[switches] = playwright.chromium.launch(
                    executable_path=_chromium(playwright.chromium.executable_path),
                    timeout=WAIT_LIMIT_MS,
                    args=[
                        *switches,
                        # Else it imitates one, where there is none.
                        "--disable-gpu",
                        f"--host-resolver-rules=MAP {OTHER_HOST} 127.0.0.1",
                    ],
                )
            return browsers[switches]

        yield start
        for browser in browsers.values():
            browser.close()


@pytest.fixture
def open_page(launch: Launch, site: str) -> Iterator[OpenPage]:
    """Opens a path for a new visitor: ``open_page("/", switches=(...), **context)``.

    Afterwards no page may have asked another host for anything, broken a rule of the
    Content-Security-Policy or left an error.
    """
    contexts: list[BrowserContext] = []
    problems: list[str] = []

    def watch(page: Page) -> None:
        page.on("pageerror", lambda error: problems.append(f"error: {error}"))
        page.on(
            "console",
            lambda line: (
                problems.append(f"console: {line.text}")
                if "Content Security Policy" in line.text
                else None
            ),
        )
        page.on(
            "request",
            lambda request: (
                problems.append(f"request: {request.url}")
                if urlsplit(request.url).scheme in ("http", "https")
                and urlsplit(request.url).hostname not in ("127.0.0.1", OTHER_HOST)
                else None
            ),
        )

    def open_(path: str, *, switches: tuple[str, ...] = (), **options: object) -> Page:
        context = launch(*switches).new_context(**{"base_url": site, **options})
        context.set_default_timeout(WAIT_LIMIT_MS)
        contexts.append(context)
        context.on("page", watch)
        page = context.new_page()
        page.goto(path)
        return page

    yield open_
    for context in contexts:
        context.close()
    # A page that is left in the midst of its own fading is no error of ours.
    assert [line for line in problems if "ransition was" not in line] == []


def _chromium(bundled: str) -> str | None:
    """Playwright's own where it is installed, else the system's."""
    return None if Path(bundled).exists() else system_chromium()
