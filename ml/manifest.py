"""What travels with a model file, and the check that the file is the one meant.

``NAME.onnx`` lies beside ``NAME.json``. Labels, input size, normalisation,
calibration and hash stand in the manifest alone: code reads them from there and
knows none of them by heart.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from ml.labels import EMOTIONS

FORMAT_VERSION: Final = 1
MAX_MODEL_BYTES: Final = 512 * 1024**2
_MOST: Final = 1e6
_VERSION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,59}")


class ManifestError(Exception):
    """The manifest is missing, unreadable or contradicts itself or the code."""


class ModelFileError(Exception):
    """The model file is missing or is not the one that its manifest describes."""


@dataclass(frozen=True, slots=True)
class Normalisation:
    """How 8-bit pixels become the network's numbers.

    ``per_face``: minus the crop's own mean, over its own standard deviation, so
    that brightness and contrast of the photo drop out. ``fixed``: pixels over 255,
    minus ``mean``, over ``std`` (one value a channel).
    """

    kind: Literal["per_face", "fixed"] = "per_face"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in ("per_face", "fixed"):
            raise ManifestError(f"unknown normalisation {self.kind!r}")
        if self.kind == "fixed" and not (len(self.mean) == len(self.std) > 0):
            raise ManifestError("fixed normalisation needs a mean and a std a channel")
        # Beyond that, single precision has no number for some pixel.
        if not (
            all(abs(x) <= _MOST for x in self.mean)
            and all(1 / _MOST <= x <= _MOST for x in self.std)
        ):
            raise ManifestError(
                f"mean must be numbers from -{_MOST:g} to {_MOST:g}, and std numbers "
                f"from {1 / _MOST:g} to {_MOST:g}"
            )


@dataclass(frozen=True, slots=True)
class InputSpec:
    """What the network takes: float32 (N, channels, size_px, size_px)."""

    size_px: int = 48
    channels: Literal[1, 3] = 1
    normalisation: Normalisation = field(default_factory=Normalisation)

    def __post_init__(self) -> None:
        if type(self.channels) is not int or self.channels not in (1, 3):
            raise ManifestError(f"channels must be 1 or 3, not {self.channels}")
        if not 16 <= self.size_px <= 512:
            raise ManifestError(f"size_px must be 16 to 512, not {self.size_px}")
        fixed = self.normalisation.kind == "fixed"
        if fixed and len(self.normalisation.mean) not in (1, self.channels):
            raise ManifestError(
                f"{self.channels} channels need as many means, or one, not "
                f"{len(self.normalisation.mean)}"
            )


@dataclass(frozen=True, slots=True)
class Calibration:
    """Logits over ``temperature`` give honest probabilities; under
    ``not_sure_below`` the highest of them is not worth saying. Both are chosen on
    validation."""

    temperature: float = 1.0
    not_sure_below: float = 0.5

    def __post_init__(self) -> None:
        if not 0.01 <= self.temperature <= 100:
            raise ManifestError(f"temperature {self.temperature} is out of range")
        if not 0 <= self.not_sure_below <= 1:
            raise ManifestError(f"not_sure_below {self.not_sure_below} is out of range")


def check_version(version: str) -> None:
    """Raise ``ManifestError`` where a model cannot have that name."""
    if not _VERSION.fullmatch(version):
        raise ManifestError(
            f"the version {version[:80]!r} will not do: use 1 to 60 letters, "
            "digits and . _ + -"
        )


@dataclass(frozen=True, slots=True)
class ModelManifest:
    """Everything that must be known of a model file.

    ``metrics`` holds measured numbers by split and label source, ``training``
    what made the model (data, config, seed, epochs), both free-form JSON.
    """

    version: str
    architecture: str
    sha256: str
    size_bytes: int
    created_at: str
    input: InputSpec = field(default_factory=InputSpec)
    calibration: Calibration = field(default_factory=Calibration)
    labels: tuple[str, ...] = tuple(emotion.value for emotion in EMOTIONS)
    parent: str | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        check_version(self.version)
        if self.format_version != FORMAT_VERSION:
            raise ManifestError(
                f"manifest format {self.format_version} is unknown; this code reads "
                f"format {FORMAT_VERSION}"
            )
        expected = tuple(emotion.value for emotion in EMOTIONS)
        if self.labels != expected:
            raise ManifestError(f"labels must be {expected}, not {self.labels}")

    @property
    def body_sha256(self) -> str:
        """``body_sha256`` of the model."""
        return body_sha256(self.training, self.sha256)

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"


def body_sha256(training: Mapping[str, Any], sha256: str) -> str:
    """Names the network before the head: versions that share it share features.

    A refitted head's ``training`` names it; any other file is its own.
    """
    return str(training.get("body_sha256") or sha256)


def manifest_path(model_path: Path) -> Path:
    """``weights/name.onnx`` -> ``weights/name.json``."""
    return model_path.with_suffix(".json")


def parse_manifest(text: str) -> ModelManifest:
    """Read a manifest; raises ``ManifestError`` with what is wrong."""
    try:
        raw = json.loads(text)
        normalisation = Normalisation(
            kind=raw["input"]["normalisation"]["kind"],
            mean=tuple(map(float, raw["input"]["normalisation"].get("mean", ()))),
            std=tuple(map(float, raw["input"]["normalisation"].get("std", ()))),
        )
        return ModelManifest(
            version=str(raw["version"]),
            architecture=str(raw["architecture"]),
            sha256=str(raw["sha256"]),
            size_bytes=int(raw["size_bytes"]),
            created_at=str(raw["created_at"]),
            input=InputSpec(
                size_px=int(raw["input"]["size_px"]),
                channels=raw["input"]["channels"],
                normalisation=normalisation,
            ),
            calibration=Calibration(
                temperature=float(raw["calibration"]["temperature"]),
                not_sure_below=float(raw["calibration"]["not_sure_below"]),
            ),
            labels=tuple(raw["labels"]),
            parent=raw.get("parent"),
            metrics=dict(raw.get("metrics", {})),
            training=dict(raw.get("training", {})),
            format_version=int(raw["format_version"]),
        )
    except ManifestError:
        raise
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as error:
        raise ManifestError(f"the manifest cannot be read: {error!r}") from error


def load_manifest(model_path: Path) -> ModelManifest:
    """The manifest beside ``model_path``; raises ``ManifestError``."""
    path = manifest_path(model_path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path.name} cannot be read: {error}") from error
    return parse_manifest(text)


def read_model(model_path: Path) -> bytes:
    """The model file's bytes; raises ``ModelFileError``.

    Whoever loads it verifies and loads these bytes and not the path, so that
    nothing can change between check and use.
    """
    try:
        if model_path.stat().st_size > MAX_MODEL_BYTES:
            raise ModelFileError(
                f"{model_path.name} is larger than {MAX_MODEL_BYTES // 1024**2} MB"
            )
        return model_path.read_bytes()
    except OSError as error:
        raise ModelFileError(f"{model_path.name} cannot be read: {error}") from error


def verify_model(data: bytes, manifest: ModelManifest) -> None:
    """Raise ``ModelFileError`` unless ``data`` is what the manifest describes."""
    if len(data) != manifest.size_bytes or sha256_of(data) != manifest.sha256:
        raise ModelFileError(
            f"the model file is not the one that the manifest of version "
            f"{manifest.version} describes: size or SHA-256 differ"
        )


def sha256_of(data: bytes) -> str:
    """Hex digest, 64 characters."""
    return hashlib.sha256(data).hexdigest()


def write_atomically(path: Path, data: bytes) -> None:
    """Write beside, fsync, rename: a reader sees the old file or the new, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with beside.open("wb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(beside, path)
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        # What is written to a full disk raises without a name.
        error.filename = error.filename or str(path)
        raise
    finally:
        beside.unlink(missing_ok=True)
