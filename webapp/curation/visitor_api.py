"""Flags over the API."""

from __future__ import annotations

import uuid
from typing import Any

from django.urls import reverse
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import serializers, status
from rest_framework.parsers import FormParser
from rest_framework.request import Request
from rest_framework.response import Response

from webapp.accounts.visitors import new_visitor, remember_visitor, visitor_of
from webapp.core.api import ErrorSerializer, JSONParser
from webapp.curation.models import MAX_COMMENT_LENGTH, Verdict
from webapp.curation.receipts import receipt_secret
from webapp.curation.services.flags import retract_flag, submit_flag
from webapp.curation.visitor_views import face_of
from webapp.photos.api import (
    CROSS_SITE,
    SECRET_PARAMETERS,
    VisitorView,
    private,
    validated,
    visible_photo,
)
from webapp.photos.limits import count_request

_ERROR = OpenApiResponse(ErrorSerializer)


class FlagSerializer(serializers.Serializer[Any]):
    verdict = serializers.ChoiceField(choices=Verdict.choices)
    comment = serializers.CharField(
        required=False, allow_blank=True, max_length=MAX_COMMENT_LENGTH
    )


class ReceiptSerializer(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    receipt = serializers.URLField(help_text="A secret page that follows the flag.")


class FlagView(VisitorView):
    """That the model is wrong about a face. A flag asks people; it never trains."""

    parser_classes = [JSONParser, FormParser]

    @extend_schema(
        operation_id="flag_face",
        summary="Say what a face should be",
        request=FlagSerializer,
        parameters=SECRET_PARAMETERS,
        responses={
            201: ReceiptSerializer,
            400: _ERROR,
            **CROSS_SITE,
            404: _ERROR,
            429: _ERROR,
        },
    )
    def post(self, request: Request, photo_id: uuid.UUID, index: int) -> Response:
        face = face_of(visible_photo(request, photo_id), index)
        known = visitor_of(request)
        visitor = known or new_visitor()
        # What is wrong in it counts, too: to find that out costs as much.
        count_request(request, "flag", known)
        fields = validated(FlagSerializer(data=request.data), "bad_verdict", "verdict")
        flag = submit_flag(face=face, visitor_key=visitor.key, **fields)
        page = reverse("flags:receipt", args=[flag.pk, receipt_secret(flag.pk)])
        response = private(
            {"id": flag.pk, "receipt": request.build_absolute_uri(page)},
            status=status.HTTP_201_CREATED,
        )
        remember_visitor(response, visitor)
        return response

    @extend_schema(
        operation_id="unflag_face",
        summary="Take a flag back",
        parameters=SECRET_PARAMETERS,
        responses={204: None, **CROSS_SITE, 404: _ERROR},
    )
    def delete(self, request: Request, photo_id: uuid.UUID, index: int) -> Response:
        face = face_of(visible_photo(request, photo_id), index)
        visitor = visitor_of(request)
        if visitor is not None:
            retract_flag(face=face, visitor_key=visitor.key)
        return Response(status=status.HTTP_204_NO_CONTENT)
