"""The visitor's API: the same services as the pages."""

from __future__ import annotations

import uuid
from typing import Any

from django.urls import reverse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import serializers, status
from rest_framework.parsers import MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from ml.labels import EMOTIONS
from webapp.accounts.visitors import new_visitor, remember_visitor, visitor_of
from webapp.core.api import ErrorSerializer
from webapp.core.errors import DomainError
from webapp.photos.access import photo_secret
from webapp.photos.models import Photo, PhotoStatus
from webapp.photos.selectors import (
    FaceResult,
    PhotoResult,
    get_photo,
    get_photo_result,
)
from webapp.photos.services.erasure import delete_photo
from webapp.photos.services.intake import MAX_IDEMPOTENCY_KEY_LENGTH, submit_photo

SECRET_HEADER = "X-Photo-Secret"  # noqa: S105


class BoxSerializer(serializers.Serializer[Any]):
    """Pixels of the upright photo, origin at the top left."""

    x = serializers.FloatField()
    y = serializers.FloatField()
    width = serializers.FloatField()
    height = serializers.FloatField()


class ProbabilitiesSerializer(serializers.Serializer[Any]):
    """Calibrated; they sum to 1."""

    happy = serializers.FloatField()
    sad = serializers.FloatField()
    surprise = serializers.FloatField()
    neutral = serializers.FloatField()


class FaceSerializer(serializers.Serializer[FaceResult]):
    index = serializers.IntegerField(help_text="From 1, in reading order.")
    box = BoxSerializer()
    probabilities = ProbabilitiesSerializer(source="scores.by_emotion")
    label = serializers.ChoiceField(choices=[emotion.value for emotion in EMOTIONS])
    confidence = serializers.FloatField(help_text="The highest probability.")
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
    expires_at = serializers.DateTimeField(source="photo.expires_at")


class AcceptedSerializer(PhotoSerializer):
    secret = serializers.SerializerMethodField(
        help_text="Opens this photo to whoever holds it: keep it to yourself."
    )

    def get_secret(self, result: PhotoResult) -> str:
        return photo_secret(result.photo.pk)


class UploadSerializer(serializers.Serializer[Any]):
    image = serializers.FileField(
        allow_empty_file=True,
        error_messages={
            "required": "Send the photo as the multipart field 'image'.",
            "invalid": "The field 'image' must be a file.",
        },
    )


_ERROR = OpenApiResponse(ErrorSerializer)
_SECRET_PARAMETERS = [
    OpenApiParameter(
        "secret", OpenApiTypes.STR, OpenApiParameter.QUERY, description="The secret."
    ),
    OpenApiParameter(
        SECRET_HEADER,
        OpenApiTypes.STR,
        OpenApiParameter.HEADER,
        description="The same, where it must not stand in a URL.",
    ),
]


class PhotosView(APIView):
    """Photos of this visitor."""

    parser_classes = [MultiPartParser]

    @extend_schema(
        operation_id="submit_photo",
        summary="Submit a photo",
        description=(
            "JPEG, PNG, WebP, AVIF or HEIC up to 10 MB and 24 megapixels. The photo "
            "is stored when the answer comes; read its result at `Location`."
        ),
        request={"multipart/form-data": UploadSerializer},
        parameters=[
            OpenApiParameter(
                "Idempotency-Key",
                OpenApiTypes.STR,
                OpenApiParameter.HEADER,
                description=(
                    "The same key with the same photo again returns the first one "
                    f"(at most {MAX_IDEMPOTENCY_KEY_LENGTH} characters)."
                ),
            )
        ],
        responses={
            202: AcceptedSerializer,
            400: _ERROR,
            413: _ERROR,
            415: _ERROR,
            422: _ERROR,
            503: _ERROR,
        },
    )
    def post(self, request: Request) -> Response:
        upload = UploadSerializer(data=request.data)
        if not upload.is_valid():
            raise DomainError(" ".join(map(str, upload.errors["image"])), "no_image")
        known = visitor_of(request)
        visitor = known or new_visitor()
        photo = submit_photo(
            data=upload.validated_data["image"].read(),
            visitor_key=visitor.key,
            # Without a cookie the address stands in: a key guessed elsewhere, even
            # with the same photo, opens nothing.
            idempotency_scope=known.key if known else request.META["REMOTE_ADDR"],
            idempotency_key=request.headers.get("Idempotency-Key", ""),
        )
        location = reverse("api-photo", args=[photo.pk])
        response = Response(
            AcceptedSerializer(get_photo_result(photo=photo)).data,
            status=status.HTTP_202_ACCEPTED,
            headers={"Location": f"{location}?secret={photo_secret(photo.pk)}"},
        )
        if photo.visitor_key == visitor.key:
            remember_visitor(response, visitor)
        return response


class PhotoView(APIView):
    """One photo, for who gave it or holds its secret; 404 to all others."""

    @extend_schema(
        operation_id="get_photo",
        summary="Read a photo's result",
        parameters=_SECRET_PARAMETERS,
        responses={200: PhotoSerializer, 404: _ERROR},
    )
    def get(self, request: Request, photo_id: uuid.UUID) -> Response:
        photo = _visible_photo(request, photo_id)
        return Response(
            PhotoSerializer(get_photo_result(photo=photo)).data,
            headers={"Cache-Control": "no-store"},
        )

    @extend_schema(
        operation_id="delete_photo",
        summary="Delete a photo and everything made from it",
        parameters=_SECRET_PARAMETERS,
        responses={204: None, 404: _ERROR},
    )
    def delete(self, request: Request, photo_id: uuid.UUID) -> Response:
        delete_photo(photo=_visible_photo(request, photo_id))
        return Response(status=status.HTTP_204_NO_CONTENT)


def _visible_photo(request: Request, photo_id: uuid.UUID) -> Photo:
    visitor = visitor_of(request)
    secret = request.headers.get(SECRET_HEADER) or request.query_params.get("secret")
    return get_photo(
        photo_id=photo_id,
        visitor_key=visitor.key if visitor else None,
        secret=secret or "",
    )
