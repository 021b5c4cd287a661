"""Any two versions side by side, on faces that neither learned from."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from django.core.cache import cache
from redis.exceptions import RedisError

from ml.gate import GateRules
from ml.inference import EmotionClassifier
from ml.manifest import ModelFileError
from webapp.core.errors import DomainError
from webapp.registry.models import ModelVersion
from webapp.training.errors import CannotCompare
from webapp.training.models import DatasetSnapshot, SnapshotFace, Split
from webapp.training.services.base import (
    features_mark,
    kept_features,
    load_version,
)
from webapp.training.services.comparing import JudgedFaces, compare
from webapp.training.services.curated import read_curated
from webapp.training.services.snapshots import EVALUATION_SHARE, usable_faces

_KEPT_SECONDS: Final = 7 * 24 * 3600

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What ``TrainingRun.decision`` and ``report`` would be."""

    decision: dict[str, Any]
    report: dict[str, Any]


def compare_versions(*, left: ModelVersion, right: ModelVersion) -> Comparison:
    """What the gate would say of ``right``, were ``left`` the champion: on the frozen
    evaluation set and the hold-out of the latest data set, as far as both can be
    asked. Raises ``CannotCompare`` or ``RunFailed``.

    Networks look at every held-out face, which takes milliseconds each, so the answer
    is kept. It holds counts and shares, nothing of a single face; a face that was
    erased or added asks for another.
    """
    if left.pk == right.pk:
        raise CannotCompare("Choose two different versions to compare.")
    latest = DatasetSnapshot.objects.order_by("-number").first()
    rows = usable_faces(snapshot=latest, split=Split.EVALUATION) if latest else []
    key = _key(left, right, rows)
    try:
        if kept := cache.get(key):
            return Comparison(**kept)
    except (RedisError, OSError) as error:
        logger.warning("no comparison is remembered: %s", error)
    made = _compared(left, right, rows)
    try:
        cache.set(key, asdict(made), _KEPT_SECONDS)
    except (RedisError, OSError) as error:
        logger.warning("a comparison is not kept: %s", error)
    return made


def _key(left: ModelVersion, right: ModelVersion, rows: Sequence[SnapshotFace]) -> str:
    """Everything that the answer depends on."""
    rules = GateRules(judging_share=EVALUATION_SHARE)
    parts = [repr(rules), str(left.pk), left.sha256, str(right.pk), right.sha256]
    parts += [features_mark(version.body_sha256) for version in (left, right)]
    parts += [f"{row.face_key} {row.label}" for row in rows]
    return "comparison:" + hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _compared(
    left: ModelVersion, right: ModelVersion, rows: Sequence[SnapshotFace]
) -> Comparison:
    champion, _ = load_version(left)
    candidate, _ = load_version(right)
    if champion.manifest.input != candidate.manifest.input:
        raise CannotCompare(
            f"Versions {left.version} and {right.version} take faces of different "
            "size or colour, and the stored faces fit only one of them. Compare what "
            "their manifests say of them."
        )
    hold_out = read_curated(rows, champion.manifest.input)
    try:
        verdict = compare(
            champion=champion,
            candidate=candidate,
            base=_frozen(champion, candidate),
            curated=JudgedFaces(hold_out.labels, crops=hold_out.crops),
        )
    except ModelFileError as error:
        raise CannotCompare(f"One of them cannot be asked: {error}.") from error
    return Comparison(verdict.to_dict(), verdict.report)


def _frozen(left: EmotionClassifier, right: EmotionClassifier) -> JudgedFaces:
    """The base's evaluation faces, as the body of each sees them."""
    try:
        data, _ = kept_features(left)
        other, _ = kept_features(right)
    except DomainError as error:
        raise CannotCompare(str(error)) from error
    if not np.array_equal(data.evaluation_labels, other.evaluation_labels):
        raise CannotCompare(
            f"The features kept for versions {left.manifest.version} and "
            f"{right.manifest.version} are of different faces."
        )
    return JudgedFaces(
        data.evaluation_labels,
        features={
            left.manifest.body_sha256: data.evaluation_features,
            right.manifest.body_sha256: other.evaluation_features,
        },
    )
