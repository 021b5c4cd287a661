"""Faces are read again, at low priority: by a new champion those that people spoke
about, and by a candidate, on request, those that come in."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Final

import numpy as np
from celery.exceptions import SoftTimeLimitExceeded
from django.db import IntegrityError, transaction
from django.db.models import Exists, F, OuterRef, Q, QuerySet
from django.utils import timezone

from ml.inference import EmotionClassifier
from ml.labels import EMOTIONS
from ml.manifest import ManifestError, ModelFileError
from webapp.accounts.models import Role, User
from webapp.accounts.roles import has_role
from webapp.core.errors import Conflict, NotAllowed
from webapp.core.storage import StorageAway
from webapp.curation.models import ConsensusState, Correction, Reason, Source
from webapp.curation.services.queue import IMPORTED, enqueue_faces
from webapp.photos.models import Face, PhotoStatus, Prediction
from webapp.photos.selectors import training_allowed
from webapp.photos.services.serving import NoModelServes, model_server
from webapp.registry.models import ModelVersion
from webapp.registry.selectors import get_champion, read_model_file
from webapp.training.models import Shadow
from webapp.training.services.base import check_answers
from webapp.training.services.snapshots import read_crops

STEP: Final = 64
"""Faces a turn: a visitor's photo never waits longer than that takes."""

MAX_HOURS: Final = 24 * 30

logger = logging.getLogger(__name__)


def start_shadow(
    *, candidate: ModelVersion, requested_by: User | None, hours: int = 24
) -> Shadow:
    """Let a candidate read live faces beside the champion for a while.

    Raises ``NotAllowed``, or ``Conflict`` where it is the champion, its file does not
    load, or it does so already.
    """
    if requested_by is not None and not has_role(requested_by, Role.ADMIN):
        raise NotAllowed("Only an admin may let a candidate read beside the champion.")
    if not 1 <= hours <= MAX_HOURS:
        raise Conflict(f"A shadow lasts from 1 to {MAX_HOURS} hours.")
    champion = get_champion()
    if champion is None or champion.pk == candidate.pk:
        raise Conflict("The champion reads every face already. Choose a candidate.")
    try:
        check_answers(_load(candidate.sha256, candidate.pk))
    except (ManifestError, ModelFileError) as error:
        raise Conflict(
            f"Version {candidate.version} cannot read along: {error}."
        ) from error
    now = timezone.now()
    try:
        with transaction.atomic():
            Shadow.objects.filter(
                candidate=candidate, ended_at__isnull=True, ends_at__lte=now
            ).update(ended_at=now)
            return Shadow.objects.create(
                candidate=candidate,
                champion=champion,
                requested_by=requested_by,
                ends_at=now + timedelta(hours=hours),
            )
    except IntegrityError as error:
        raise Conflict(
            f"Version {candidate.version} reads beside the champion already."
        ) from error


def end_shadow(*, shadow: Shadow, ended_by: User | None) -> bool:
    """False where it had ended. Raises ``NotAllowed``."""
    if ended_by is not None and not has_role(ended_by, Role.ADMIN):
        raise NotAllowed("Only an admin may end a shadow.")
    return bool(
        Shadow.objects.filter(pk=shadow.pk, ended_at__isnull=True).update(
            ended_at=timezone.now()
        )
    )


def read_shadows(*, step: int = STEP) -> int:
    """One turn of every shadow; how many faces were read.

    Faces on which candidate and champion differ go to curation.
    """
    now = timezone.now()
    Shadow.objects.filter(ended_at__isnull=True, ends_at__lte=now).update(ended_at=now)
    running = Shadow.objects.filter(ended_at__isnull=True).select_related("candidate")
    read = 0
    for shadow in running.order_by("created_at"):
        try:
            read += _read_shadow(shadow, step)
        except SoftTimeLimitExceeded:
            raise
        except Exception:
            # One that cannot be read with must not keep the others from reading.
            logger.exception("shadow %s: no turn", shadow.pk)
    return read


def read_again(*, step: int = STEP) -> int:
    """The champion reads faces that people spoke about and that it has not read yet;
    how many. So receipts can say what the model says now, the newest flags first."""
    try:
        serving = model_server.champion()
    except NoModelServes as error:
        logger.warning("nothing is read again: %s", error)
        return 0
    spoken = Correction.objects.filter(
        face=OuterRef("pk"), source=Source.VISITOR, retracted_at__isnull=True
    )
    faces = _unread(serving.version).filter(
        Exists(spoken) | Q(consensus__state=ConsensusState.DECIDED)
    )
    ids = list(faces.order_by("-created_at").values_list("pk", flat=True)[:step])
    return len(_read(serving.classifier, serving.version, ids))


def _read_shadow(shadow: Shadow, step: int) -> int:
    candidate = shadow.candidate
    mine = Shadow.objects.filter(pk=shadow.pk, ended_at__isnull=True)
    try:
        # Before the lock: a store that hangs must not keep others from writing.
        classifier = _load(candidate.sha256, candidate.pk)
        with transaction.atomic():
            # Two turns at once would count a face twice.
            if mine.select_for_update().first() is None:
                return 0
            return _turn(shadow, classifier, step)
    except StorageAway as error:
        logger.warning("%s reads along later: %s", candidate.version, error)
    except (ManifestError, ModelFileError) as error:
        logger.error("shadow of %s ends: %s", candidate.version, error)
        mine.update(ended_at=timezone.now())
    return 0


def _turn(shadow: Shadow, classifier: EmotionClassifier, step: int) -> int:
    # What an admin brought in says nothing of how a candidate does on visitors' faces.
    faces = (
        _unread(shadow.candidate)
        .filter(created_at__gte=shadow.created_at)
        .exclude(photo__consent_version=IMPORTED)
    )
    ids = list(faces.order_by("created_at").values_list("pk", flat=True)[:step])
    said = _read(classifier, shadow.candidate, ids)
    differing = _differing(said)
    if said:
        Shadow.objects.filter(pk=shadow.pk).update(
            faces=F("faces") + len(said), differed=F("differed") + len(differing)
        )
    enqueue_faces(face_ids=differing, reason=Reason.DIFFER)
    return len(said)


@dataclass(frozen=True, slots=True)
class _Said:
    face_id: uuid.UUID
    label: str


def _differing(said: Sequence[_Said]) -> list[uuid.UUID]:
    """Faces of which the version that read their photo said something else."""
    served = Prediction.objects.filter(
        face__in=[one.face_id for one in said],
        model_version=F("face__photo__model_version"),
    ).values_list("face_id", *(emotion.value for emotion in EMOTIONS))
    labels = {face: EMOTIONS[int(np.argmax(values))].value for face, *values in served}
    return [
        one.face_id
        for one in said
        if one.face_id in labels and labels[one.face_id] != one.label
    ]


def _unread(version: ModelVersion) -> QuerySet[Face]:
    """Faces that may be used and that the version has not read."""
    mine = Prediction.objects.filter(face=OuterRef("pk"), model_version=version)
    return Face.objects.filter(
        ~Exists(mine), training_allowed("photo"), photo__status=PhotoStatus.DONE
    )


def _read(
    classifier: EmotionClassifier, version: ModelVersion, ids: Sequence[uuid.UUID]
) -> list[_Said]:
    crops = read_crops(ids, classifier.manifest.input)
    there = [
        (pk, crop) for pk, crop in zip(ids, crops, strict=True) if crop is not None
    ]
    if not there:
        return []
    reading = classifier.read_crops(np.stack([crop for _, crop in there]))
    activations = classifier.class_activation(reading.feature_map)
    with transaction.atomic():
        # Erased meanwhile: their rows would have no face.
        alive = set(
            Face.objects.filter(pk__in=[pk for pk, _ in there]).values_list(
                "pk", flat=True
            )
        )
        rows = [
            Prediction(
                face_id=pk,
                model_version=version,
                not_sure=scores.not_sure,
                activation=activation.astype("<f2").tobytes(),
                **scores.by_emotion(),
            )
            for (pk, _), scores, activation in zip(
                there, reading.scores, activations, strict=True
            )
            if pk in alive
        ]
        Prediction.objects.bulk_create(rows, ignore_conflicts=True)
    return [
        _Said(pk, scores.label.value)
        for (pk, _), scores in zip(there, reading.scores, strict=True)
        if pk in alive
    ]


@lru_cache(maxsize=2)
def _load(sha256: str, version_id: uuid.UUID) -> EmotionClassifier:
    """Verified when loaded; by hash, so that it is loaded once."""
    version = ModelVersion.objects.get(pk=version_id, sha256=sha256)
    return EmotionClassifier(*read_model_file(version))
