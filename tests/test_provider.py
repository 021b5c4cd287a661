"""A worker that was told to use a GPU ends where there is none, and says why."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import onnxruntime as ort
import pytest

from tests.stack import ROOT, environment, own_services, prepare
from webapp.config import broker


@pytest.mark.skipif(
    "CUDAExecutionProvider" in ort.get_available_providers(), reason="here is a GPU"
)
def test_worker_without_the_gpu_it_was_told_to_use_ends(tmp_path: Path) -> None:
    # The tests' own broker, where no other is given.
    url, _ = broker.urls(Path(os.environ["MIEN_HOME"]) / "valkey.sock")
    with own_services() as services:
        given = {
            "MIEN_BROKER_URL": url,
            **services,
            "MIEN_DEMO": "1",
            "MIEN_INFERENCE_PROVIDER": "cuda",
            "MIEN_WORKER_PROCESSES": "1",
        }
        variables = environment(prepare(tmp_path / "home"), given)
        if services:
            bootstrap = [sys.executable, "manage.py", "bootstrap"]
            subprocess.run(bootstrap, cwd=ROOT, env=variables, check=True)
        worker = subprocess.run(
            [sys.executable, "-m", "webapp.config.serve", "inference"],
            cwd=ROOT,
            env=variables,
            capture_output=True,
            text=True,
            timeout=240,
        )

    assert "install onnxruntime-gpu in place of onnxruntime" in worker.stderr
    assert worker.returncode == 0
