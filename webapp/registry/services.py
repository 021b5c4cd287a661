"""State changes of the registry."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.db import transaction
from django.db.models import Max

from ml.inference import SHIPPED_MODEL, EmotionClassifier
from ml.manifest import ModelFileError, load_manifest, read_model
from ml.retraining import SHIPPED_RETRAINING, shipped_features_fit
from webapp.accounts.models import User
from webapp.core.errors import Conflict
from webapp.registry.models import ModelVersion, Promotion
from webapp.registry.selectors import features_name


def register_model_version(
    *, path: Path, parent: ModelVersion | None = None, shipped: bool = False
) -> ModelVersion:
    """Enter a copy of a model file, once: the same again changes nothing.

    Raises ``ManifestError`` or ``ModelFileError`` where the file is not what its
    manifest says, and ``ModelFileError`` where its version is taken by another.
    """
    manifest = load_manifest(path)
    data = read_model(path)
    # What cannot be loaded, or keeps not what its manifest promises, does not come in.
    EmotionClassifier(manifest, data)
    file_name = f"models/{manifest.sha256}.onnx"
    if not default_storage.exists(file_name):
        default_storage.save(file_name, ContentFile(data))
    model_version, _ = ModelVersion.objects.get_or_create(
        version=manifest.version,
        defaults={
            "sha256": manifest.sha256,
            "file_name": file_name,
            "manifest": json.loads(manifest.to_json()),
            "parent": parent,
            "shipped": shipped,
        },
    )
    if model_version.sha256 != manifest.sha256:
        raise ModelFileError(
            f"version {manifest.version} is registered with another file: give the "
            "new one a version of its own"
        )
    return model_version


@transaction.atomic
def promote_model_version(
    *,
    model_version: ModelVersion,
    promoted_by: User | None,
    reason: str,
    expected: ModelVersion | None = None,
) -> Promotion | None:
    """Make a version the champion; None where it already is.

    Of two at once one waits for the other: the rows are locked, and the database
    itself allows only one champion. Raises ``Conflict`` where ``expected`` is given
    and another version serves.
    """
    # Everybody locks the same rows in the same order.
    versions = list(ModelVersion.objects.select_for_update().order_by("pk"))
    previous = next((version for version in versions if version.is_champion), None)
    if previous is not None and previous.pk == model_version.pk:
        return None
    if expected is not None and (previous is None or previous.pk != expected.pk):
        serving = previous.version if previous else "none"
        raise Conflict(
            f"Version {serving} has become champion meanwhile, not {expected.version} "
            "any more. Look at it, and decide anew."
        )
    if previous is not None:
        ModelVersion.objects.filter(pk=previous.pk).update(is_champion=False)
    ModelVersion.objects.filter(pk=model_version.pk).update(is_champion=True)
    latest = Promotion.objects.aggregate(at=Max("created_at"))["at"]
    promotion = Promotion.objects.create(
        model_version=model_version,
        previous=previous,
        promoted_by=promoted_by,
        reason=reason,
    )
    # A clock that was set back must not put it before others: a rollback goes by
    # their order.
    if latest is not None and promotion.created_at <= latest:
        promotion.created_at = latest + timedelta(microseconds=1)
        promotion.save(update_fields=["created_at"])
    return promotion


def _keep_shipped_features() -> None:
    """Beside the model's file: the next release ships those of another network, and
    versions that go on from this one still need them."""
    manifest = load_manifest(SHIPPED_MODEL)
    name = features_name(manifest.sha256)
    if shipped_features_fit(manifest.sha256) and not default_storage.exists(name):
        default_storage.save(name, ContentFile(SHIPPED_RETRAINING.read_bytes()))


@transaction.atomic
def register_shipped_model() -> ModelVersion:
    """Enter the model that ships with the code.

    When it is new it becomes champion, unless a person has promoted a version of
    their own; a rollback among shipped versions stays, too.
    """
    known = set(ModelVersion.objects.values_list("pk", flat=True))
    model_version = register_model_version(path=SHIPPED_MODEL, shipped=True)
    _keep_shipped_features()
    champion = ModelVersion.objects.filter(is_champion=True).first()
    is_new = model_version.pk not in known
    if champion is None or (champion.shipped and is_new):
        promote_model_version(
            model_version=model_version,
            promoted_by=None,
            reason="Shipped with this release.",
        )
    return model_version
