"""A worker that was told to use a GPU ends where there is none, and says why."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import onnxruntime as ort
import pytest

from tests.stack import ROOT, Stack, own_services, prepare


@pytest.mark.skipif(
    "CUDAExecutionProvider" in ort.get_available_providers(), reason="here is a GPU"
)
def test_worker_without_the_gpu_it_was_told_to_use_ends(tmp_path: Path) -> None:
    given = {"MIEN_INFERENCE_WORKERS": "0"}
    with (
        own_services() as services,
        Stack(prepare(tmp_path / "home"), given | services) as site,
    ):
        broker = site.environment.get("MIEN_BROKER_URL")
        environment = {
            **site.environment,
            "MIEN_BROKER_URL": broker or f"redis+socket://{site.home / 'valkey.sock'}",
            "MIEN_DEMO": "1",
            "MIEN_INFERENCE_PROVIDER": "cuda",
            "MIEN_WORKER_PROCESSES": "1",
        }
        worker = subprocess.run(
            [sys.executable, "-m", "webapp.config.serve", "inference"],
            cwd=ROOT,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=240,
        )

    assert "install onnxruntime-gpu in place of onnxruntime" in worker.stderr
    assert worker.returncode == 0
