"""What the tests need beside Python's packages: servers, and a browser.

``python -m tests.installing`` sees to a Chromium for Playwright.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from playwright.sync_api import sync_playwright


class Unavailable(Exception):
    """A program is missing and cannot be installed; says what to do."""


def install_packages(packages: Sequence[str]) -> None:
    """Install Debian's packages, as root there. Raises ``Unavailable``."""
    words = " and ".join(packages)
    if not can_install():
        raise Unavailable(
            f"Install {words} first, with the package manager of this machine."
        )
    print(f"installing {words}", flush=True)
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (
        ["apt-get", "-qq", "update"],
        ["apt-get", "-qq", "install", "--yes", "--no-install-recommends", *packages],
    ):
        result = subprocess.run(command, env=quiet, stdout=subprocess.DEVNULL)
        if result.returncode:
            raise Unavailable(f"{' '.join(command)} failed; the lines above say why.")


def can_install() -> bool:
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def system_chromium() -> str | None:
    """The one on the PATH."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next(filter(None, map(shutil.which, names)), None)


def install_browser() -> None:
    """Only where there is neither Playwright's nor the system's own."""
    with sync_playwright() as playwright:
        bundled = Path(playwright.chromium.executable_path)
    if bundled.exists() or system_chromium():
        return
    if can_install():
        install_packages(["chromium"])
        return
    command = [sys.executable, "-m", "playwright", "install", "chromium"]
    if subprocess.run(command).returncode:
        raise Unavailable("No Chromium could be installed; the lines above say why.")


def main() -> int:
    try:
        install_browser()
    except Unavailable as error:
        print(f"tests: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
