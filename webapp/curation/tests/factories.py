from __future__ import annotations

import io
import uuid
from collections.abc import Iterable
from datetime import timedelta

import factory
import numpy as np
from django.db.models import F
from django.utils import timezone
from PIL import Image

from webapp.accounts.models import Role, User
from webapp.curation.models import Claim, Consensus, Correction, QueueItem, Reason
from webapp.curation.services.claims import CHANGE_WINDOW
from webapp.curation.services.consensus import lock_consensus, refresh_consensus
from webapp.photos.models import Face, Photo, PhotoStatus, Prediction
from webapp.registry.models import ModelVersion


class PersonFactory(factory.django.DjangoModelFactory):
    """An annotator."""

    class Meta:
        model = User

    username = factory.Sequence(lambda number: f"person{number:05}")
    role = Role.ANNOTATOR


class ModelVersionFactory(factory.django.DjangoModelFactory):
    class Meta:
        model = ModelVersion
        django_get_or_create = ("version",)

    version = "v1"
    sha256 = "0" * 64
    file_name = "models/v1.onnx"
    manifest = factory.LazyFunction(dict)


def drawn_crop(seed: int = 0) -> bytes:
    """48 x 48 of grey noise as PNG."""
    pixels = np.random.default_rng(seed).integers(0, 255, (48, 48), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


class ReadPhotoFactory(factory.django.DjangoModelFactory):
    """A photo that was read and may be used for training; its file is not there."""

    class Meta:
        model = Photo

    visitor_key = factory.Sequence(lambda number: f"{number:064x}")
    file_name = factory.Sequence(lambda number: f"photos/none/{number}.jpg")
    width_px = 100
    height_px = 100
    faces_found = 1
    status = PhotoStatus.DONE
    model_version = factory.SubFactory(ModelVersionFactory)
    queued_at = factory.LazyFunction(timezone.now)
    done_at = factory.LazyFunction(timezone.now)
    expires_at = factory.LazyFunction(lambda: timezone.now() + timedelta(hours=24))
    training_consent_at = factory.LazyFunction(timezone.now)
    upload_sha256 = "0" * 64


class FaceFactory(factory.django.DjangoModelFactory):
    """The only face of a read photo, with what the model said of it."""

    class Meta:
        model = Face
        skip_postgeneration_save = True

    photo = factory.SubFactory(ReadPhotoFactory)
    index = 1
    x = 20.0
    y = 20.0
    width = 48.0
    height = 48.0
    detector_score = 0.9
    assumed = False
    quality = factory.LazyFunction(lambda: {"hints": []})
    crop = factory.LazyFunction(drawn_crop)

    @factory.post_generation
    def probabilities(
        self: Face, create: bool, values: tuple[float, ...] | None, **_: object
    ) -> None:
        happy, sad, surprise, neutral = values or (0.7, 0.1, 0.1, 0.1)
        Prediction.objects.create(
            face=self,
            model_version=self.photo.model_version,
            happy=happy,
            sad=sad,
            surprise=surprise,
            neutral=neutral,
            not_sure=max(happy, sad, surprise, neutral) < 0.5,
            activation=np.zeros((4, 6, 6), "<f2").tobytes(),
        )


class QueuedFaceFactory(FaceFactory):
    """A face that waits on the queue."""

    @factory.post_generation
    def queued(
        self: Face, create: bool, reason: Reason | None, **fields: object
    ) -> None:
        QueueItem.objects.create(face=self, reason=reason or Reason.FLAG, **fields)
        Consensus.objects.create(face=self)


def take_back(face: Face) -> None:
    """As its visitor does by taking consent back."""
    Photo.objects.filter(pk=face.photo_id).update(training_consent_at=None)


def let_expire(face: Face) -> None:
    """Its photo's time is up, and nothing has erased it yet."""
    ended = timezone.now() - timedelta(seconds=1)
    Photo.objects.filter(pk=face.photo_id).update(expires_at=ended)


WAYS_OUT_OF_REACH = (take_back, let_expire)


def refresh_faces(face_ids: Iterable[uuid.UUID]) -> None:
    """Derive consensuses of votes that were entered past the services."""
    for face_id in face_ids:
        refresh_consensus(consensus=lock_consensus(face_id=face_id))


def let_labels_settle() -> None:
    """As if the time in which they can be changed were over."""
    ended = Claim.objects.filter(ended_at__isnull=False)
    ended.update(ended_at=F("ended_at") - CHANGE_WINDOW)
    Correction.objects.update(created_at=F("created_at") - CHANGE_WINDOW)
    Consensus.objects.update(decided_at=F("decided_at") - CHANGE_WINDOW)
