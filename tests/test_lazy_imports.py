"""What serves never loads torch: it would cost each process half a gigabyte; and what
reads no model file does not load onnx, which would cost it a second."""

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
def test_what_is_heavy_is_not_imported(code: str) -> None:
    report = "import sys; print(sorted({n.split('.')[0] for n in sys.modules}))"
    result = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"],
        cwd=ROOT,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "webapp.config.settings"},
        capture_output=True,
        text=True,
    )

    assert result.returncode == 0, result.stderr
    assert "'django'" in result.stdout
    for heavy in ("torch", "torchvision", "matplotlib", "sklearn", "onnx"):
        assert f"'{heavy}'" not in result.stdout
