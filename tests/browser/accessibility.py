"""What axe-core finds on a page: the rules of WCAG 2.2, level AA, and good practice."""

from __future__ import annotations

from axe_playwright_python.base import AXE_FILE_PATH
from playwright.sync_api import Page

_SCRIPT = AXE_FILE_PATH.read_text(encoding="utf-8")


def settle(page: Page) -> None:
    """Wait until what fades or moves on the page has arrived."""
    page.evaluate(
        "() => Promise.all(document.getAnimations()"
        ".filter((animation) => animation.effect.getComputedTiming().endTime < 5000)"
        ".map((animation) => animation.finished.catch(() => null)))"
    )


def serious_violations(page: Page) -> list[str]:
    """Each serious or critical one in a line: rule, help, and the first elements.

    Colours are judged as they stand.
    """
    settle(page)
    # Evaluated by the browser's debugger, which the page's policy does not bind.
    if not page.evaluate("() => 'axe' in window"):
        page.evaluate(_SCRIPT)
    results = page.evaluate("() => axe.run(document, { resultTypes: ['violations'] })")
    return [
        f"{page.url} {violation['id']}: {violation['help']}: "
        + ", ".join(node["html"][:120] for node in violation["nodes"][:3])
        for violation in results["violations"]
        if violation["impact"] in ("serious", "critical")
    ]
