from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ml.inference import SHIPPED_MODEL, EmotionClassifier
from ml.manifest import (
    ManifestError,
    ModelFileError,
    load_manifest,
    manifest_path,
    parse_manifest,
    read_model,
    write_atomically,
)


def _shipped() -> dict[str, Any]:
    return dict(json.loads(manifest_path(SHIPPED_MODEL).read_text()))


def test_manifest_survives_writing_and_reading() -> None:
    manifest = load_manifest(SHIPPED_MODEL)
    assert parse_manifest(manifest.to_json()) == manifest


def test_shipped_model_keeps_its_limits_and_carries_its_numbers() -> None:
    manifest = load_manifest(SHIPPED_MODEL)
    assert manifest.size_bytes <= 8_000_000
    for split in ("validation", "test"):
        for source in ("consensus", "folder"):
            values = manifest.metrics[split][source]
            low, high = values["intervals"]["accuracy"]
            assert low < values["accuracy"] < high


def _set(*path: str) -> Callable[[dict[str, Any], Any], None]:
    def change(raw: dict[str, Any], value: Any) -> None:
        for key in path[:-1]:
            raw = raw[key]
        raw[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "value", "message"),
    [
        (_set("labels"), ["sad", "happy", "surprise", "neutral"], "labels must be"),
        (_set("format_version"), 99, "format 99 is unknown"),
        (_set("input", "channels"), 2, "channels must be 1 or 3"),
        (_set("input", "channels"), 1.0, "channels must be 1 or 3"),
        (_set("input", "channels"), True, "channels must be 1 or 3"),
        (_set("input", "size_px"), 5000, "size_px must be"),
        (
            _set("input", "normalisation"),
            {"kind": "fixed", "mean": [0.5, 0.5], "std": [1, 1]},
            "1 channels need as many means",
        ),
        (
            _set("input", "normalisation"),
            {"kind": "fixed", "mean": [0.5], "std": [0]},
            "std numbers from 1e-06",
        ),
        (
            _set("input", "normalisation"),
            {"kind": "fixed", "mean": [0.5], "std": [1e-300]},
            "std numbers from 1e-06",
        ),
        (
            _set("input", "normalisation"),
            {"kind": "fixed", "mean": [1e300], "std": [1]},
            "mean must be numbers from",
        ),
        (
            _set("input", "normalisation"),
            {"kind": "fixed", "mean": ["grey"], "std": [1]},
            "cannot be read",
        ),
        (_set("input", "normalisation", "kind"), "odd", "unknown normalisation"),
        (_set("calibration", "temperature"), 0, "temperature"),
        (_set("calibration", "not_sure_below"), 2, "not_sure_below"),
        (_set("calibration"), None, "cannot be read"),
        (_set("size_bytes"), "many", "cannot be read"),
        (_set("size_bytes"), float("inf"), "cannot be read"),
    ],
)
def test_contradicting_manifest_is_refused(
    change: Callable[[dict[str, Any], Any], None], value: Any, message: str
) -> None:
    raw = _shipped()
    change(raw, value)
    with pytest.raises(ManifestError, match=message):
        parse_manifest(json.dumps(raw))


@pytest.mark.parametrize("text", ["", "[]", "{}", "no json", "[" * 100_000])
def test_what_is_no_manifest_is_refused(text: str) -> None:
    with pytest.raises(ManifestError, match="cannot be read"):
        parse_manifest(text)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"m\.json cannot be read"):
        load_manifest(tmp_path / "m.onnx")
    with pytest.raises(ModelFileError, match=r"m\.onnx cannot be read"):
        read_model(tmp_path / "m.onnx")


@pytest.mark.parametrize("change", [lambda d: d[:-1], lambda d: d[:-1] + b"\0"])
def test_file_that_is_not_the_described_one_is_refused(
    change: Callable[[bytes], bytes],
) -> None:
    data = change(SHIPPED_MODEL.read_bytes())
    with pytest.raises(ModelFileError, match="size or SHA-256 differ"):
        EmotionClassifier(load_manifest(SHIPPED_MODEL), data)


def test_failed_write_leaves_the_old_file_and_nothing_beside(
    tmp_path: Path,
) -> None:
    path = tmp_path / "deep" / "file.json"
    write_atomically(path, b"old")
    with pytest.raises(TypeError):
        write_atomically(path, "text, not bytes")  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]
