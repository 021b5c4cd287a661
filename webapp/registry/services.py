"""State changes of the registry."""

from __future__ import annotations

import json
from pathlib import Path

from django.db import transaction

from ml.inference import SHIPPED_MODEL, WEIGHTS_DIR
from ml.manifest import ModelFileError, load_manifest, read_verified
from webapp.accounts.models import User
from webapp.registry.models import ModelVersion, Promotion


def register_model_version(
    *, path: Path, parent: ModelVersion | None = None
) -> ModelVersion:
    """Enter a model file, once: the same version and hash again change nothing.

    Raises ``ManifestError`` or ``ModelFileError`` where the file is not what its
    manifest says, and ``ModelFileError`` where the version is taken by another.
    """
    manifest = load_manifest(path)
    read_verified(path, manifest)
    absolute = path.resolve()
    shipped = absolute.is_relative_to(WEIGHTS_DIR.resolve())
    stored = absolute.relative_to(WEIGHTS_DIR.resolve()) if shipped else absolute
    model_version, created = ModelVersion.objects.get_or_create(
        version=manifest.version,
        defaults={
            "sha256": manifest.sha256,
            "path": str(stored),
            "manifest": json.loads(manifest.to_json()),
            "parent": parent,
        },
    )
    if not created and model_version.sha256 != manifest.sha256:
        raise ModelFileError(
            f"version {manifest.version} is registered with another file: give the "
            "new one a version of its own"
        )
    return model_version


@transaction.atomic
def promote_model_version(
    *, model_version: ModelVersion, promoted_by: User | None, reason: str
) -> Promotion | None:
    """Make a version the champion; None where it already is.

    Of two at once one waits for the other: the rows are locked, and the database
    itself allows only one champion.
    """
    versions = ModelVersion.objects.select_for_update()
    previous = versions.filter(is_champion=True).first()
    if previous is not None and previous.pk == model_version.pk:
        return None
    if previous is not None:
        versions.filter(pk=previous.pk).update(is_champion=False)
    versions.filter(pk=model_version.pk).update(is_champion=True)
    return Promotion.objects.create(
        model_version=model_version,
        previous=previous,
        promoted_by=promoted_by,
        reason=reason,
    )


@transaction.atomic
def register_shipped_model() -> ModelVersion:
    """Enter the model that ships with the code. It becomes champion where there is
    none, or where the champion is an older shipped one: what people have promoted
    themselves stays."""
    model_version = register_model_version(path=SHIPPED_MODEL)
    champion = ModelVersion.objects.filter(is_champion=True).first()
    shipped_before = champion is not None and not Path(champion.path).is_absolute()
    if champion is None or (shipped_before and champion.pk != model_version.pk):
        promote_model_version(
            model_version=model_version,
            promoted_by=None,
            reason="Shipped with this release.",
        )
    return model_version
