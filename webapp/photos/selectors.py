"""What pages and the API read of photos, in one shape for both."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from django.db.models import F, Q, QuerySet
from django.utils import timezone

from ml.labels import EMOTIONS
from ml.preprocessing import face_region
from ml.quality import HINTS
from ml.types import CropRegion, DetectedFace, EmotionScores, FaceBox, Landmarks
from webapp.core.errors import NotFound
from webapp.photos.access import hash_token, holds_secret
from webapp.photos.models import (
    Batch,
    Face,
    FailureReason,
    Photo,
    PhotoStatus,
    Prediction,
    ShareLink,
)

EMOTION_WORDS: Final = {
    "happy": "Happy",
    "sad": "Sad",
    "surprise": "Surprised",
    "neutral": "Neutral",
}

FAILURE_WORDS: Final = {
    FailureReason.WORKER_LOST: (
        "The analysis stopped three times before it could finish, so we gave up on "
        "this photo. Please try another one."
    ),
    FailureReason.TIMEOUT: (
        "The analysis took too long, three times, so we gave up on this photo. "
        "Please try a smaller one, or try again later."
    ),
    FailureReason.UNREADABLE: (
        "The stored photo could not be read any more. Please upload it again."
    ),
    FailureReason.MODEL: (
        "The model could not read this photo. We have been told; please try again "
        "later."
    ),
}

NO_FACE_WORDS: Final = (
    "We found no face in this photo. It helps when a face is upright, looks towards "
    "the camera, is well lit and not too small."
)


def percent_words(probability: float) -> str:
    """A probability for people: never "100 %" or "0 %", for nothing is certain."""
    percent = round(100 * probability)
    if percent >= 100:
        return "> 99 %"
    return f"{percent} %" if percent else "< 1 %"


@dataclass(frozen=True, slots=True)
class Bar:
    """One of a face's four probabilities, ready to be shown."""

    emotion: str
    word: str
    probability: float

    @property
    def percent(self) -> int:
        return round(100 * self.probability)

    @property
    def words(self) -> str:
        return percent_words(self.probability)


@dataclass(frozen=True, slots=True)
class FaceResult:
    """One face as a visitor sees it; the box lies within the upright photo.

    ``region`` is the square that the model saw, for a heat map to lie on.
    """

    index: int
    box: FaceBox
    assumed: bool
    hint_codes: tuple[str, ...]
    scores: EmotionScores
    region: CropRegion

    @property
    def region_x(self) -> float:
        """Left edge of the square that the model saw, before it is turned."""
        return self.region.centre[0] - self.region.side_px / 2

    @property
    def region_y(self) -> float:
        return self.region.centre[1] - self.region.side_px / 2

    @property
    def x(self) -> float:
        return self.box.x

    @property
    def y(self) -> float:
        return self.box.y

    @property
    def width(self) -> float:
        return self.box.width

    @property
    def height(self) -> float:
        return self.box.height

    @property
    def label(self) -> str:
        return self.scores.label.value

    @property
    def word(self) -> str:
        return EMOTION_WORDS[self.label]

    @property
    def confidence(self) -> float:
        return self.scores.confidence

    @property
    def percent_words(self) -> str:
        return percent_words(self.scores.confidence)

    @property
    def not_sure(self) -> bool:
        return self.scores.not_sure

    @property
    def hints(self) -> list[str]:
        return [HINTS[code] for code in self.hint_codes if code in HINTS]

    @property
    def bars(self) -> list[Bar]:
        return [
            Bar(emotion, EMOTION_WORDS[emotion], probability)
            for emotion, probability in self.scores.by_emotion().items()
        ]


@dataclass(frozen=True, slots=True)
class PhotoResult:
    """A photo's state and, once it is done, its faces in reading order."""

    photo: Photo
    faces: list[FaceResult] = field(default_factory=list)

    @property
    def status(self) -> str:
        return self.photo.status

    @property
    def finished(self) -> bool:
        return self.photo.status in (PhotoStatus.DONE, PhotoStatus.FAILED)

    @property
    def model_version(self) -> str | None:
        version = self.photo.model_version
        return version.version if version else None

    @property
    def faces_found(self) -> int:
        return self.photo.faces_found or 0

    @property
    def capped(self) -> bool:
        return self.faces_found > len(self.faces)

    @property
    def message(self) -> str:
        """What is not as one would expect, in words; may be empty."""
        if self.status == PhotoStatus.FAILED:
            return FAILURE_WORDS[FailureReason(self.photo.failure_reason)]
        if not self.finished:
            return ""
        if not self.faces:
            return NO_FACE_WORDS
        if self.capped:
            return (
                f"This photo shows {self.faces_found} faces. We read the "
                f"{len(self.faces)} largest."
            )
        if self.faces[0].assumed:
            return (
                "We found no face by its outline and took the whole picture as one. "
                "If it is not a face, ignore the result."
            )
        return ""


def get_photo(
    *, photo_id: uuid.UUID, visitor_key: str | None = None, secret: str = ""
) -> Photo:
    """The photo, for who gave it or holds its secret; else, and when its time is up,
    ``NotFound``, as if it did not exist."""
    photo = Photo.objects.select_related("model_version").filter(pk=photo_id).first()
    if photo is not None and not photo.has_expired:
        is_owner = visitor_key is not None and photo.visitor_key == visitor_key
        if is_owner or (secret and holds_secret(photo.pk, secret)):
            return photo
    raise NotFound(
        "There is no such photo here. It may have been deleted, or belong to another "
        "browser."
    )


def get_shared_photo(*, token: str) -> Photo:
    """The photo that a share link opens; ``NotFound`` where the link or the photo has
    ended."""
    link = (
        ShareLink.objects.select_related("photo__model_version")
        .filter(token_sha256=hash_token(token), expires_at__gt=timezone.now())
        .first()
    )
    if link is None or link.photo.has_expired:
        raise NotFound("This link has ended: it was revoked, or its time was up.")
    return link.photo


def photos_of(*, visitor_key: str) -> QuerySet[Photo]:
    """A visitor's own photos, newest first."""
    photos = Photo.objects.filter(_unexpired(), visitor_key=visitor_key)
    return photos.select_related("model_version")


def photos_in(*, batch: Batch) -> QuerySet[Photo]:
    """A batch's photos, in the order in which they were given."""
    photos = batch.photos.filter(_unexpired()).select_related("model_version")
    return photos.order_by("position")


def open_links_to(*, photo: Photo) -> QuerySet[ShareLink]:
    """The links that still open a photo."""
    return photo.links.filter(expires_at__gt=timezone.now())


def get_batch(*, batch_id: uuid.UUID, visitor_key: str | None) -> Batch:
    """A visitor's own batch; else ``NotFound``."""
    batch = Batch.objects.filter(pk=batch_id, visitor_key=visitor_key or "").first()
    if batch is None:
        raise NotFound("There are no such photos here, or they were deleted.")
    return batch


def get_photo_results(*, photos: Iterable[Photo]) -> list[PhotoResult]:
    """What is to be said of several photos, in their order, in one query."""
    listed = list(photos)
    done = [photo for photo in listed if photo.status == PhotoStatus.DONE]
    predictions: dict[uuid.UUID, list[Prediction]] = {}
    # Whoever waits for a photo asks often: what has no faces yet costs no query, nor
    # the millisecond that Django needs to find that out.
    if done:
        for prediction in (
            Prediction.objects.filter(
                face__photo__in=done, model_version=F("face__photo__model_version")
            )
            .select_related("face")
            .defer("face__crop", "activation")
            .order_by("face__index")
        ):
            predictions.setdefault(prediction.face.photo_id, []).append(prediction)
    return [
        PhotoResult(
            photo,
            [_face_result(each, photo) for each in predictions.get(photo.pk, [])],
        )
        for photo in listed
    ]


def get_photo_result(*, photo: Photo) -> PhotoResult:
    """What is to be said of a photo now."""
    return get_photo_results(photos=[photo])[0]


def get_face_prediction(*, photo: Photo, index: int) -> Prediction:
    """What the photo's version said of its face number ``index``, or ``NotFound``."""
    prediction = (
        Prediction.objects.filter(
            face__photo=photo, face__index=index, model_version=photo.model_version_id
        )
        .select_related("face")
        .first()
    )
    if prediction is None:
        raise NotFound("This photo has no such face.")
    return prediction


def training_allowed(photo: str) -> Q:
    """The condition that people who label may see a photo and that its faces may
    train: consent that holds, and time that is not up. ``photo`` is the path to the
    photo's row ("face__photo"); the time is that of the call."""
    return _unexpired(f"{photo}__") & Q(
        (f"{photo}__training_consent_at__isnull", False)
    )


def _unexpired(path: str = "") -> Q:
    """All but what the sweep has yet to erase."""
    return Q((f"{path}expires_at__isnull", True)) | Q(
        (f"{path}expires_at__gte", timezone.now())
    )


def _face_result(prediction: Prediction, photo: Photo) -> FaceResult:
    face: Face = prediction.face
    return FaceResult(
        index=face.index,
        box=FaceBox(face.x, face.y, face.width, face.height).clipped(
            photo.width_px, photo.height_px
        ),
        assumed=face.assumed,
        hint_codes=tuple(face.quality.get("hints", ())),
        scores=EmotionScores(
            tuple(getattr(prediction, emotion.value) for emotion in EMOTIONS),
            prediction.not_sure,
        ),
        region=face_region(detected_face(face)),
    )


def detected_face(face: Face) -> DetectedFace:
    """The row as the detector's value, in pixels of the upright original."""
    return DetectedFace(
        FaceBox(face.x, face.y, face.width, face.height),
        face.detector_score,
        Landmarks(*((x, y) for x, y in face.landmarks)) if face.landmarks else None,
        face.assumed,
    )
