"""What the API says of photos; the pages' JSON download says the same."""

from __future__ import annotations

from functools import cache
from typing import Any

from rest_framework import serializers

from ml.labels import EMOTIONS
from webapp.photos.access import photo_secret
from webapp.photos.models import PhotoStatus
from webapp.photos.selectors import FaceResult, PhotoResult


class PixelsField(serializers.FloatField):
    """Pixels, to a tenth: more is no knowledge."""

    def to_representation(self, value: float) -> Any:
        return round(value, 1)


class ProbabilityField(serializers.FloatField):
    """In [0, 1], to five places: four of them still sum to 1 within 0.0001."""

    def to_representation(self, value: float) -> Any:
        return round(value, 5)


class BoxSerializer(serializers.Serializer[Any]):
    """Pixels of the upright photo, origin at the top left."""

    x = PixelsField()
    y = PixelsField()
    width = PixelsField()
    height = PixelsField()


class ProbabilitiesSerializer(serializers.Serializer[Any]):
    """Calibrated; they sum to 1."""

    happy = ProbabilityField()
    sad = ProbabilityField()
    surprise = ProbabilityField()
    neutral = ProbabilityField()


class FaceSerializer(serializers.Serializer[FaceResult]):
    index = serializers.IntegerField(help_text="From 1, in reading order.")
    box = BoxSerializer()
    probabilities = ProbabilitiesSerializer(source="scores.by_emotion")
    # The base class calls a field's caption by the same name.
    label = serializers.ChoiceField(  # type: ignore[assignment]
        choices=[emotion.value for emotion in EMOTIONS]
    )
    confidence = ProbabilityField(help_text="The highest probability.")
    not_sure = serializers.BooleanField(
        help_text="The model is not sure enough for its label to be relied on."
    )
    assumed = serializers.BooleanField(
        help_text="No face was found; the whole picture was taken as one."
    )
    hints = serializers.ListField(
        child=serializers.CharField(),
        source="hint_codes",
        help_text="What makes the face hard to read: small, blurred, dark ...",
    )


class PhotoSerializer(serializers.Serializer[PhotoResult]):
    id = serializers.UUIDField(source="photo.pk")
    status = serializers.ChoiceField(choices=PhotoStatus.choices)
    message = serializers.CharField(
        help_text="For a person: what failed, or is not as one would expect."
    )
    failure_reason = serializers.CharField(
        source="photo.failure_reason", help_text="For a program; empty unless failed."
    )
    width = serializers.IntegerField(source="photo.width_px")
    height = serializers.IntegerField(source="photo.height_px")
    faces = FaceSerializer(many=True)
    faces_found = serializers.IntegerField()
    capped = serializers.BooleanField(help_text="There were more faces than are read.")
    model_version = serializers.CharField(allow_null=True)
    created_at = serializers.DateTimeField(source="photo.created_at")
    expires_at = serializers.DateTimeField(
        source="photo.expires_at", allow_null=True, help_text="Null where it is kept."
    )
    keep = serializers.BooleanField(source="photo.is_kept")
    train = serializers.BooleanField(source="photo.may_train")


class AcceptedSerializer(PhotoSerializer):
    secret = serializers.SerializerMethodField(
        help_text=(
            "Whoever holds it may do with this photo what you may: see, change, share "
            "and delete it. Keep it to yourself."
        )
    )

    def get_secret(self, result: PhotoResult) -> str:
        return photo_secret(result.photo.pk)


class RefusedSerializer(serializers.Serializer[Any]):
    """A file of a batch that is no photo."""

    position = serializers.IntegerField()
    name = serializers.CharField()
    reason = serializers.CharField()


class PhotoBatchSerializer(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    total = serializers.IntegerField()
    finished = serializers.IntegerField()
    refused = RefusedSerializer(many=True)
    photos = PhotoSerializer(many=True)


class LiveFaceSerializer(serializers.Serializer[Any]):
    box = BoxSerializer()
    probabilities = ProbabilitiesSerializer()
    label = serializers.CharField()  # type: ignore[assignment]
    confidence = ProbabilityField()
    not_sure = serializers.BooleanField()


class LiveSerializer(serializers.Serializer[Any]):
    width = serializers.IntegerField()
    height = serializers.IntegerField()
    faces = LiveFaceSerializer(many=True)
    model_version = serializers.CharField()


class ShareLinkSerializer(serializers.Serializer[Any]):
    url = serializers.URLField(help_text="Shown once: only its hash is kept.")
    expires_at = serializers.DateTimeField()


def shown(kind: type[serializers.Serializer[Any]], value: object) -> dict[str, Any]:
    """``kind(value).data``, without copying all its fields for each answer: whoever
    waits for a photo asks often."""
    return dict(_serializer(kind).to_representation(value))


@cache
def _serializer(
    kind: type[serializers.Serializer[Any]],
) -> serializers.Serializer[Any]:
    """One for all threads: it keeps nothing of what it shows."""
    return kind()
