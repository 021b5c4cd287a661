"""What every data set starts from, beside the curated faces.

For a head run these are features: of the body's own training data, kept beside its
model file, or shipped with the code, or read anew from the data folder. For a full run
it is the data folder itself.
"""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from django.conf import settings
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage

from ml.data import (
    DataError,
    FaceSet,
    Layout,
    files_of_split,
    find_layout,
    load_for_training,
    name_of,
)
from ml.inference import EmotionClassifier
from ml.manifest import ManifestError, ModelFileError, ModelManifest
from ml.retraining import (
    SHIPPED_RETRAINING,
    RetrainingData,
    RetrainingError,
    collect,
    load_retraining,
    save_retraining,
    shipped_features_fit,
)
from webapp.registry.models import ModelVersion
from webapp.registry.selectors import features_name, read_model_file
from webapp.training.errors import RunFailed, RunRefused

_NO_FOLDER: Final = (
    "A full run trains the whole network and needs the pictures that it was trained "
    "on. Set FER_DATASET_DIR to the folder of the data set where the training worker "
    "runs, for web and for that worker, or choose a head run, which needs none."
)


def load_version(model_version: ModelVersion) -> tuple[EmotionClassifier, bytes]:
    """A registered version, verified and loaded, and its file. Raises ``RunFailed``,
    or ``StorageAway`` where trying again would help."""
    try:
        manifest, data = read_model_file(model_version)
        return EmotionClassifier(manifest, data), data
    except (ManifestError, ModelFileError) as error:
        raise RunFailed(
            f"Version {model_version.version} cannot be loaded: {error}. Restore its "
            "file, or promote another version."
        ) from error


def check_answers(classifier: EmotionClassifier) -> None:
    """Raises ``ModelFileError`` where a version answers with something that is no
    number: it would fail every photo."""
    spec = classifier.manifest.input
    shape = (1, spec.size_px, spec.size_px, spec.channels)
    classifier.read_crops(np.random.default_rng(0).integers(0, 256, shape, np.uint8))


def kept_features(classifier: EmotionClassifier) -> tuple[RetrainingData, str]:
    """Features that fit a version's body, and the SHA-256 of the file they are from.

    Those that ship with the code go before those kept, which an earlier release may
    have shipped. Raises ``RunRefused`` where there are none, ``RunFailed`` where they
    are damaged.
    """
    manifest = classifier.manifest
    body = manifest.body_sha256
    name = features_name(body)
    if not shipped_features_fit(body) and default_storage.exists(name):
        with default_storage.open(name, "rb") as handle:
            return _parse(manifest, handle.read())
    try:
        return (
            load_retraining(manifest),
            _shipped_sha256(),
        )
    except RetrainingError as error:
        raise RunRefused(
            f"There are no features of version {manifest.version} to learn from and to "
            f"judge by ({error}). Set FER_DATASET_DIR to the folder of the data set "
            "where the training worker runs, and start a head run: it reads them from "
            "there, and keeps them."
        ) from error


def features_mark(body: str) -> str:
    """Which features ``kept_features`` gives for a body: other features, another mark.
    Empty where there are none. Reads none of those kept; may raise ``StorageAway``."""
    if shipped_features_fit(body):
        return _shipped_sha256()
    name = features_name(body)
    if not default_storage.exists(name):
        return ""
    kept_at = default_storage.get_modified_time(name)
    return f"{name} {default_storage.size(name)} {kept_at.isoformat()}"


def load_base_features(classifier: EmotionClassifier) -> tuple[RetrainingData, str]:
    """The same; where none are kept, they are read from the data folder, which takes
    minutes: for a training worker alone."""
    try:
        return kept_features(classifier)
    except RunRefused:
        layout = data_folder()
        if layout is None:
            raise
    train, validation = load_faces(layout, classifier.manifest)
    return _parse(classifier.manifest, keep_features(classifier, train, validation))


def keep_features(
    classifier: EmotionClassifier, train: FaceSet, validation: FaceSet
) -> bytes:
    """Collect features of a body and keep them beside its file; what was written."""
    # A refitted head gives what its body gives, and its siblings ask for the body's.
    body = classifier.manifest.body_sha256
    collected = replace(collect(classifier, train, validation), model_sha256=body)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "features.npz"
        save_retraining(path, collected)
        data = path.read_bytes()
    if not default_storage.exists(features_name(body)):
        default_storage.save(features_name(body), ContentFile(data))
    return data


def data_folder() -> Layout | None:
    """The data folder that is configured; None where none is. Raises ``RunRefused``
    where it is not what it should be."""
    folder = settings.DATASET_DIR
    if not folder:
        return None
    try:
        return find_layout(Path(folder))
    except DataError as error:
        raise RunRefused(f"FER_DATASET_DIR cannot be used: {error}") from error


def need_data_folder() -> Layout:
    """The same; ``RunRefused`` where there is none."""
    layout = data_folder()
    if layout is None:
        raise RunRefused(_NO_FOLDER)
    return layout


def load_faces(layout: Layout, manifest: ModelManifest) -> tuple[FaceSet, FaceSet]:
    """(train, validation) of the folder, as the version takes faces."""
    try:
        return load_for_training(layout, manifest.input)
    except DataError as error:
        raise RunFailed(f"The data folder cannot be used: {error}") from error


def describe_features(data: RetrainingData, sha256: str) -> dict[str, Any]:
    """``DatasetSnapshot.base`` of a head run."""
    return {
        "kind": "features",
        "body_sha256": data.model_sha256,
        "sha256": sha256,
        "train": len(data.features),
        "evaluation": len(data.evaluation_labels),
    }


def describe_folder(layout: Layout, train: FaceSet, valid: FaceSet) -> dict[str, Any]:
    """``DatasetSnapshot.base`` of a full run; the hash is over names and sizes, and
    over the votes."""
    digest = hashlib.sha256()
    if layout.annotations is not None:
        digest.update(layout.annotations.read_bytes())
    for split in ("train", "validation"):
        for path, _ in files_of_split(layout, split, with_others=True):
            name = name_of(path, layout)
            # Names may be older than UTF-8, and a link may lead nowhere.
            size = path.stat().st_size if path.exists() else 0
            digest.update(f"{name} {size}\n".encode(errors="surrogateescape"))
    return {
        "kind": "folder",
        "body_sha256": "",
        "sha256": digest.hexdigest(),
        "train": len(train),
        "evaluation": len(valid),
    }


def near_evaluation(
    features: np.ndarray, evaluation: np.ndarray, reach: float = 0.03
) -> np.ndarray:
    """Which of (N, C) features nearly are one of (M, C): a face of the frozen
    evaluation set came in again, say by an import. bool (N,).

    Near means at a distance of less than ``reach`` of the feature's own length. Half
    precision moves a face by 0.0003 of it and a JPEG of quality 90 by 0.024 (median
    of drawn faces); of the shipped training faces none is nearer to one of the
    evaluation set than 0.031.
    """
    found = np.zeros(len(features), bool)
    for start in range(0, len(features), 512):
        part = features[start : start + 512].astype(np.float64)
        squares = (
            (part**2).sum(axis=1)[:, None]
            + (evaluation.astype(np.float64) ** 2).sum(axis=1)[None]
            - 2 * part @ evaluation.astype(np.float64).T
        )
        limit = (reach**2) * (part**2).sum(axis=1)
        found[start : start + 512] = squares.min(axis=1, initial=np.inf) < limit
    return found


@lru_cache(maxsize=1)
def _shipped_sha256() -> str:
    return hashlib.sha256(SHIPPED_RETRAINING.read_bytes()).hexdigest()


def _parse(manifest: ModelManifest, data: bytes) -> tuple[RetrainingData, str]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "features.npz"
        path.write_bytes(data)
        try:
            return load_retraining(manifest, path), hashlib.sha256(data).hexdigest()
        except RetrainingError as error:
            raise RunFailed(
                f"The features kept for version {manifest.version} cannot be used: "
                f"{error}. Remove {features_name(manifest.body_sha256)}, and they are "
                "made anew."
            ) from error
