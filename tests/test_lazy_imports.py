"""What serves never loads torch: it would cost each process half a gigabyte. What
reads never loads the pages: a killed worker would be back later."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.stack import ROOT

WEB = "import webapp.config.wsgi"
WORKER = (
    "from webapp.config.celery import app\n"
    "app.loader.import_default_modules()\n"
    "assert 'webapp.photos.tasks.process_photo' in app.tasks"
)


@pytest.mark.parametrize("code", [WEB, WORKER], ids=["web", "inference worker"])
def test_torch_is_not_imported(code: str) -> None:
    packages = {name.split(".")[0] for name in imported(code)}

    assert "django" in packages
    assert packages.isdisjoint({"torch", "torchvision", "matplotlib", "sklearn"})


def test_workers_do_not_import_the_pages() -> None:
    modules = imported(WORKER)

    assert "webapp.photos.services.processing" in modules
    assert modules.isdisjoint({"webapp.config.urls", "webapp.photos.views"})


def imported(code: str) -> set[str]:
    """The modules that a process of its own has after it ran ``code``."""
    result = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"],
        cwd=ROOT,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "webapp.config.settings"},
        capture_output=True,
        text=True,
    )

    assert result.returncode == 0, result.stderr
    return set(result.stdout.split())
