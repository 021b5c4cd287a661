"""What others read of the registry."""

from __future__ import annotations

import json

from django.core.files.storage import default_storage

from ml.manifest import ModelFileError, ModelManifest, parse_manifest
from webapp.core.storage import StorageAway
from webapp.registry.models import ModelVersion


def get_champion() -> ModelVersion | None:
    """The version that serves; None before the first one was registered."""
    return ModelVersion.objects.filter(is_champion=True).first()


def is_champion(model_version: ModelVersion) -> bool:
    """Whether it still serves; cheaper than to read the champion again."""
    return ModelVersion.objects.filter(pk=model_version.pk, is_champion=True).exists()


def features_name(sha256: str) -> str:
    """Where the features of a network lie in the storage, by its file's SHA-256."""
    return f"models/{sha256}.npz"


def read_model_file(model_version: ModelVersion) -> tuple[ModelManifest, bytes]:
    """Manifest and ONNX bytes, unverified: the loader checks one against the other.

    The manifest comes from the database, so that a file changed on disk together
    with its neighbour is still found out. Raises ``ManifestError`` or
    ``ModelFileError``, and ``StorageAway`` where it cannot be had at the moment.
    """
    manifest = parse_manifest(json.dumps(model_version.manifest))
    try:
        with default_storage.open(model_version.file_name, "rb") as handle:
            return manifest, handle.read()
    except StorageAway:
        raise
    except OSError as error:
        raise ModelFileError(
            f"the file of version {model_version.version} cannot be read: {error}"
        ) from error
