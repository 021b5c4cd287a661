"""Curated faces, drawn by code: four cartoon expressions that a head can learn."""

from __future__ import annotations

import errno
import io
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from django.core.files.storage import FileSystemStorage
from django.utils import timezone
from PIL import Image

from ml.consensus import VERDICTS
from ml.labels import EMOTIONS, Emotion
from ml.tests.faces import draw_face
from webapp.curation.models import Consensus, Correction, QueueItem, Reason, Source
from webapp.curation.tests.factories import FaceFactory, ReadPhotoFactory
from webapp.photos.models import Face, Photo
from webapp.registry.models import ModelVersion
from webapp.training.models import TrainingRun
from webapp.training.services import runs


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@dataclass
class Labeller:
    """Draws faces and has two people agree on each, as curation would leave it."""

    version: ModelVersion
    seed: int = 0

    def __post_init__(self) -> None:
        self._generator = np.random.default_rng(self.seed)

    def photo(self) -> Photo:
        """A photo whose id, and so its side of a data set, is always the same."""
        key = uuid.UUID(bytes=self._generator.bytes(16), version=4)
        return ReadPhotoFactory(pk=key, model_version=self.version)

    def face(
        self,
        emotion: Emotion,
        *,
        photo: Photo | None = None,
        crop: bytes | None = None,
        flagged: bool = True,
        index: int = 1,
        probabilities: Sequence[float] = (0.1, 0.1, 0.1, 0.7),
    ) -> Face:
        face = FaceFactory(
            photo=photo or self.photo(),
            crop=crop or png(draw_face(emotion, self._generator)),
            index=index,
            probabilities=tuple(probabilities),
            quality={
                "hints": [],
                "brightness": float(self._generator.normal(120, 10)),
                "sharpness": 200.0,
                "size_px": 60.0,
            },
        )
        if flagged:
            Correction.objects.create(
                face=face,
                visitor_key=uuid.uuid4().hex,
                verdict=emotion.value,
                source=Source.VISITOR,
            )
        tally = [0] * len(VERDICTS)
        tally[emotion.position] = 2
        QueueItem.objects.create(face=face, reason=Reason.FLAG, status="settled")
        Consensus.objects.create(
            face=face,
            state="decided",
            verdict=emotion.value,
            method="majority",
            tally=tally,
            votes=2,
            agreement=1.0,
            decided_at=timezone.now(),
        )
        return face

    def faces(self, per_emotion: int) -> list[Face]:
        return [self.face(emotion) for emotion in EMOTIONS for _ in range(per_emotion)]


def head_run(**given: Any) -> TrainingRun:
    """A head run, from the wish to its end."""
    run = runs.request_run(mode="head", requested_by=None, **given)
    claimed = runs.claim_run(run_id=run.pk)
    assert claimed is not None
    runs.run_claimed(run=claimed)
    run.refresh_from_db()
    return run


def take_files_away(patch: pytest.MonkeyPatch) -> None:
    """The disk has no free handle, as Python would hear it."""

    def refused(*given: Any) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    patch.setattr(FileSystemStorage, "_open", refused)


def put_off(run: TrainingRun, patch: pytest.MonkeyPatch) -> TrainingRun:
    """Claimed while the store is away."""
    claimed = runs.claim_run(run_id=run.pk)
    assert claimed is not None
    with patch.context() as patched:
        take_files_away(patched)
        runs.run_claimed(run=claimed)
    run.refresh_from_db()
    return run
