"""Which processor networks run on: CUDA where it is there, unless told otherwise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from PIL import Image

from ml import runtime
from ml.detection import FaceDetector
from ml.inference import EmotionClassifier
from ml.manifest import ModelFileError, load_manifest, read_model
from ml.runtime import (
    CPU,
    CUDA,
    ProviderUnavailable,
    best_provider,
    open_session,
    providers_for,
)
from tests.models import write_tiny_model


def without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CPU])


def with_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """A build that has CUDA; whether a GPU answers is another question."""
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(ort, "preload_dlls", lambda: None, raising=False)


def test_gpu_is_taken_where_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with_cuda(monkeypatch)

    (name, options), fallback = providers_for("auto")

    assert (name, fallback) == (CUDA, CPU)
    assert options["cudnn_conv_algo_search"] == "HEURISTIC"


def test_cpu_is_taken_where_there_is_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    without_cuda(monkeypatch)

    assert providers_for("auto") == [CPU]


def test_of_other_offers_of_the_build_none_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        ort, "get_available_providers", lambda: ["AzureExecutionProvider", CPU]
    )

    assert best_provider("auto") == CPU


def test_cpu_is_taken_where_it_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with_cuda(monkeypatch)

    assert providers_for("cpu") == [CPU]


def test_host_for_a_gpu_does_not_quietly_do_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    without_cuda(monkeypatch)

    with pytest.raises(ProviderUnavailable, match="install onnxruntime-gpu"):
        providers_for("cuda")


def test_gpu_that_does_not_answer_is_refused_or_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = read_model(write_tiny_model(tmp_path, "tiny"))

    class Fallen:
        """What ONNX Runtime gives where the driver is missing."""

        def __init__(self, *args: object, providers: list[object]) -> None:
            self.asked = providers

        def get_providers(self) -> list[str]:
            return [CPU]

    with_cuda(monkeypatch)
    monkeypatch.setattr(ort, "InferenceSession", Fallen)

    with pytest.raises(ProviderUnavailable, match="no GPU answers"):
        open_session(data, provider="cuda")
    assert open_session(data, provider="auto").get_providers() == [CPU]


def test_both_networks_run_on_the_cpu_and_say_so(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path, "tiny")
    classifier = EmotionClassifier(
        load_manifest(path), read_model(path), provider="cpu"
    )

    assert classifier.provider == CPU
    assert len(classifier.read_crops(np.zeros((2, 48, 48, 1), np.uint8)).scores) == 2
    assert FaceDetector(provider="cpu").detect(Image.new("RGB", (640, 480))).found == 0


def test_file_that_is_no_network_is_refused() -> None:
    with pytest.raises(ModelFileError, match="refuses the model"):
        open_session(b"no network", provider="cpu")


@pytest.mark.parametrize(
    ("flags", "slower"),
    [
        ("flags : avx2 avx512f avx512_vnni", False),
        ("flags : avx2 avx_vnni", False),
        ("flags : avx2 avx512f", True),
        (None, True),
    ],
)
def test_large_sums_are_cut_off_by_no_processor(
    flags: str | None,
    slower: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What keeps them whole where a processor would not takes others much longer."""
    told = tmp_path / "cpuinfo"
    if flags:
        told.write_text(f"processor : 0\n{flags}\n")
    monkeypatch.setattr(runtime, "_PROCESSOR", told)
    opened: list[ort.SessionOptions] = []
    session = ort.InferenceSession

    def open_and_keep(
        data: bytes, options: ort.SessionOptions, providers: list[str]
    ) -> ort.InferenceSession:
        opened.append(options)
        return session(data, options, providers=providers)

    monkeypatch.setattr(ort, "InferenceSession", open_and_keep)
    EmotionClassifier.load()

    (options,) = opened
    try:
        entry = options.get_session_config_entry("session.x64quantprecision")
    except RuntimeError:  # It was not set.
        entry = ""
    assert entry == ("1" if slower else "")
