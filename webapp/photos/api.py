"""The visitor's API: the same services as the pages."""

from __future__ import annotations

import uuid
from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.urls import reverse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import serializers, status
from rest_framework.parsers import MultiPartParser
from rest_framework.permissions import SAFE_METHODS, AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from webapp.accounts.models import ApiKey
from webapp.accounts.visitors import new_visitor, remember_visitor, visitor_of
from webapp.core.api import ErrorSerializer, JSONParser, sentence_of
from webapp.core.errors import DomainError, NotAllowed
from webapp.core.rates import client_address
from webapp.photos.access import photo_secret
from webapp.photos.consent import TRAINING, retention_words
from webapp.photos.limits import count_request, count_uploads
from webapp.photos.models import Batch, Photo
from webapp.photos.selectors import (
    get_batch,
    get_photo,
    get_photo_result,
    get_photo_results,
    photos_in,
    photos_of,
)
from webapp.photos.serializers import (
    AcceptedSerializer,
    LiveSerializer,
    PhotoBatchSerializer,
    PhotoSerializer,
    ShareLinkSerializer,
    shown,
)
from webapp.photos.services.batches import hash_files, submit_batch
from webapp.photos.services.consent import set_consent
from webapp.photos.services.erasure import (
    delete_batch,
    delete_photo,
    delete_photos_of,
)
from webapp.photos.services.intake import (
    MAX_IDEMPOTENCY_KEY_LENGTH,
    submit_photo,
)
from webapp.photos.services.live import MAX_FRAME_BYTES, read_frame
from webapp.photos.services.sharing import create_share_link, revoke_share_links

SECRET_HEADER = "X-Photo-Secret"  # noqa: S105
_LISTED = 100


class ConsentSerializer(serializers.Serializer[Any]):
    keep = serializers.BooleanField(
        required=False,
        help_text=f"Keep the photo until it is deleted, not {retention_words()}.",
    )
    train = serializers.BooleanField(
        required=False,
        help_text=f"Allow training: {TRAINING}. Taken back, it holds for nothing new.",
    )


class UploadSerializer(ConsentSerializer):
    image = serializers.FileField(
        allow_empty_file=True,
        error_messages={
            "required": "Send the photo as the multipart field 'image'.",
            "invalid": "The field 'image' must be a file.",
        },
    )


class BatchUploadSerializer(ConsentSerializer):
    image = serializers.ListField(
        child=serializers.FileField(allow_empty_file=True),
        error_messages={"required": "Send the photos as multipart fields 'image'."},
    )


class ListingSerializer(serializers.Serializer[Any]):
    before = serializers.DateTimeField(
        required=False,
        help_text=(
            "Only photos that are older: for the next of them, the `created_at` of "
            "the last photo of this answer."
        ),
    )


class FrameSerializer(serializers.Serializer[Any]):
    frame = serializers.FileField(
        error_messages={
            "required": "Send the frame as the multipart field 'frame'.",
            "invalid": "The field 'frame' must be a file.",
        }
    )


def _idempotency_key(meaning: str) -> OpenApiParameter:
    return OpenApiParameter(
        "Idempotency-Key",
        {"type": "string", "maxLength": MAX_IDEMPOTENCY_KEY_LENGTH},
        OpenApiParameter.HEADER,
        description=f"Send it with each try of the same upload: {meaning}",
    )


class VisitorView(APIView):
    """A view that knows its visitor by an API key or else by a cookie, and asks for no
    token: nothing is changed at the word of another site.

    Such a request comes without the visitor's cookie, which is ``SameSite=Lax``, and
    the new one in its answer would take the place of the visitor's own.
    """

    # Said for the description, where nothing said is taken for a key that is needed.
    permission_classes = [AllowAny]

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        if (
            request.method not in SAFE_METHODS
            and not isinstance(request.auth, ApiKey)
            and _is_of_another_site(request)
        ):
            raise NotAllowed(
                "This came from a page of another site. Please use a page of this "
                "one, or an API key.",
                code="cross_site",
            )


def _is_of_another_site(request: Request) -> bool:
    """As far as the client says: browsers do, programs need not."""
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site not in ("same-origin", "none")
    # Browsers leave that header out where there is no TLS, and old ones always.
    origin = request.headers.get("Origin")
    return (
        origin is not None
        and origin.partition("://")[2] != request.get_host()
        and origin not in settings.CSRF_TRUSTED_ORIGINS
    )


_ERROR = OpenApiResponse(ErrorSerializer)
CROSS_SITE = {403: _ERROR}
_REFUSALS = dict.fromkeys((400, 403, 413, 415, 429, 503), _ERROR)
SECRET_PARAMETERS = [
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


class PhotosView(VisitorView):
    """Photos of this browser."""

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
            _idempotency_key(
                "the same key with the same photo and the same `keep` and `train` "
                "returns the first photo and its secret, and with others it is an "
                "error (422). It should be a key that nobody can guess, such as a "
                "random UUID: without a cookie, whoever has it, the photo and the same "
                "address is taken for who sent it first."
            )
        ],
        responses={202: AcceptedSerializer, 422: _ERROR, **_REFUSALS},
    )
    def post(self, request: Request) -> Response:
        if len(request.FILES.getlist("image")) > 1:
            raise DomainError(
                "Send one photo in the field 'image', or several to "
                f"{reverse('api-batches')}.",
                code="too_many",
            )
        fields = validated(UploadSerializer(data=request.data), "no_image", "image")
        known = visitor_of(request)
        visitor = known or new_visitor()
        count_request(request, "upload", known)
        photo = submit_photo(
            data=fields["image"].read(),
            visitor_key=visitor.key,
            keep=fields.get("keep", False),
            train=fields.get("train", False),
            # Without a cookie the address stands in: a key guessed elsewhere, even
            # with the same photo, opens nothing. Who got a cookie by the first try
            # sends it with the next one, so what the address gave then counts, too.
            idempotency_scopes=[
                *([known.key] if known else []),
                client_address(request),
            ],
            idempotency_key=request.headers.get("Idempotency-Key", ""),
        )
        location = reverse("api-photo", args=[photo.pk])
        response = private(
            shown(AcceptedSerializer, get_photo_result(photo=photo)),
            status=status.HTTP_202_ACCEPTED,
            headers={"Location": f"{location}?secret={photo_secret(photo.pk)}"},
        )
        if photo.visitor_key == visitor.key:
            remember_visitor(response, visitor)
        return response

    @extend_schema(
        operation_id="list_photos",
        summary=f"This browser's photos, newest first, {_LISTED} at most",
        parameters=[ListingSerializer],
        responses={200: PhotoSerializer(many=True), 400: _ERROR},
    )
    def get(self, request: Request) -> Response:
        wanted = validated(ListingSerializer(data=request.query_params), "invalid")
        photos = photos_of(visitor_key=_visitor_key(request))
        if before := wanted.get("before"):
            photos = photos.filter(created_at__lt=before)
        results = get_photo_results(photos=photos[:_LISTED])
        return private([shown(PhotoSerializer, result) for result in results])

    @extend_schema(
        operation_id="delete_photos",
        summary="Delete all photos of this browser",
        responses={204: None, **CROSS_SITE},
    )
    def delete(self, request: Request) -> Response:
        visitor = visitor_of(request)
        if visitor is not None:
            delete_photos_of(visitor_key=visitor.key)
        return Response(status=status.HTTP_204_NO_CONTENT)


class PhotoView(VisitorView):
    """One photo, for who gave it or holds its secret; 404 to all others."""

    parser_classes = [JSONParser]

    @extend_schema(
        operation_id="get_photo",
        summary="Read a photo's result",
        parameters=SECRET_PARAMETERS,
        responses={200: PhotoSerializer, 404: _ERROR},
    )
    def get(self, request: Request, photo_id: uuid.UUID) -> Response:
        photo = visible_photo(request, photo_id)
        return private(shown(PhotoSerializer, get_photo_result(photo=photo)))

    @extend_schema(
        operation_id="change_photo",
        summary="Give or take back what is allowed with a photo",
        request=ConsentSerializer,
        parameters=SECRET_PARAMETERS,
        responses={200: PhotoSerializer, 400: _ERROR, **CROSS_SITE, 404: _ERROR},
    )
    def patch(self, request: Request, photo_id: uuid.UUID) -> Response:
        photo = visible_photo(request, photo_id)
        choices = validated(ConsentSerializer(data=request.data), "invalid")
        set_consent(photos=Photo.objects.filter(pk=photo.pk), **choices)
        # Read anew: another tab may have deleted it meanwhile.
        photo = visible_photo(request, photo_id)
        return private(shown(PhotoSerializer, get_photo_result(photo=photo)))

    @extend_schema(
        operation_id="delete_photo",
        summary="Delete a photo and everything made from it",
        parameters=SECRET_PARAMETERS,
        responses={204: None, **CROSS_SITE, 404: _ERROR},
    )
    def delete(self, request: Request, photo_id: uuid.UUID) -> Response:
        delete_photo(photo=visible_photo(request, photo_id))
        return Response(status=status.HTTP_204_NO_CONTENT)


class PhotoLinksView(VisitorView):
    """Links that show a photo to somebody else."""

    @extend_schema(
        operation_id="share_photo",
        summary="Make a secret link to a photo",
        request=None,
        parameters=SECRET_PARAMETERS,
        responses={
            201: ShareLinkSerializer,
            **CROSS_SITE,
            404: _ERROR,
            409: _ERROR,
        },
    )
    def post(self, request: Request, photo_id: uuid.UUID) -> Response:
        link, token = create_share_link(photo=visible_photo(request, photo_id))
        url = request.build_absolute_uri(reverse("photos:shared", args=[token]))
        return private(
            ShareLinkSerializer({"url": url, "expires_at": link.ends_at}).data,
            status=status.HTTP_201_CREATED,
        )

    @extend_schema(
        operation_id="unshare_photo",
        summary="End all links to a photo",
        parameters=SECRET_PARAMETERS,
        responses={204: None, **CROSS_SITE, 404: _ERROR},
    )
    def delete(self, request: Request, photo_id: uuid.UUID) -> Response:
        revoke_share_links(photo=visible_photo(request, photo_id))
        return Response(status=status.HTTP_204_NO_CONTENT)


class BatchesView(VisitorView):
    """Several photos at once, or a zip of them."""

    parser_classes = [MultiPartParser]

    @extend_schema(
        operation_id="submit_batch",
        summary="Submit up to 50 photos, or a zip of them",
        request={"multipart/form-data": BatchUploadSerializer},
        parameters=[
            _idempotency_key(
                "the same key with the same files in the same order and the same "
                "`keep` and `train`, from the same API key or cookie, returns the "
                "first batch."
            )
        ],
        responses={202: PhotoBatchSerializer, 409: _ERROR, **_REFUSALS},
    )
    def post(self, request: Request) -> Response:
        fields = validated(
            BatchUploadSerializer(data=request.data), "no_image", "image"
        )
        known = visitor_of(request)
        visitor = known or new_visitor()
        count_uploads(request, known, fields["image"])
        choices = {name: fields.get(name, False) for name in ("keep", "train")}
        key = request.headers.get("Idempotency-Key", "")
        batch = submit_batch(
            files=((file.name, file.read()) for file in fields["image"]),
            visitor_key=visitor.key,
            **choices,
            idempotency_key=key,
            upload_sha256=hash_files(fields["image"], **choices) if key else "",
        )
        response = private(
            _batch_data(batch),
            status=status.HTTP_202_ACCEPTED,
            headers={"Location": reverse("api-batch", args=[batch.pk])},
        )
        remember_visitor(response, visitor)
        return response


class BatchView(VisitorView):
    """A batch, for the browser that gave it."""

    @extend_schema(
        operation_id="get_batch",
        summary="Read a batch's results",
        responses={200: PhotoBatchSerializer, 404: _ERROR},
    )
    def get(self, request: Request, batch_id: uuid.UUID) -> Response:
        return private(_batch_data(_own_batch(request, batch_id)))

    @extend_schema(
        operation_id="delete_batch",
        summary="Delete a batch with all its photos",
        responses={204: None, **CROSS_SITE, 404: _ERROR},
    )
    def delete(self, request: Request, batch_id: uuid.UUID) -> Response:
        delete_batch(batch=_own_batch(request, batch_id))
        return Response(status=status.HTTP_204_NO_CONTENT)


class LiveView(VisitorView):
    """The live view: a frame in, its faces out, nothing stored."""

    parser_classes = [MultiPartParser]

    @extend_schema(
        operation_id="read_frame",
        summary="Read one frame of the live view; nothing of it is stored",
        description=(
            f"As a photo, but {MAX_FRAME_BYTES // 1024} KB at most. It is read at "
            "once; where the site is busy or no model is ready the answer is 503 with "
            "`Retry-After`."
        ),
        request={"multipart/form-data": FrameSerializer},
        responses={200: LiveSerializer, **_REFUSALS},
    )
    def post(self, request: Request) -> Response:
        fields = validated(FrameSerializer(data=request.data), "no_image", "frame")
        count_request(request, "live", visitor_of(request))
        reading = read_frame(data=fields["frame"].read())
        faces = [
            {
                "box": face.box.clipped(reading.width_px, reading.height_px),
                "probabilities": scores.by_emotion(),
                "label": scores.label.value,
                "confidence": scores.confidence,
                "not_sure": scores.not_sure,
            }
            for face, scores in zip(reading.faces, reading.scores, strict=True)
        ]
        answer = {
            "width": reading.width_px,
            "height": reading.height_px,
            "model_version": reading.model_version,
            "faces": faces,
        }
        return private(shown(LiveSerializer, answer))


def validated(
    serializer: serializers.Serializer[Any], code: str, field: str = ""
) -> dict[str, Any]:
    """The fields, or a ``DomainError`` that says what to send.

    Where ``code`` is the word for one ``field`` alone, it is ``invalid`` while that one
    is right.
    """
    if serializer.is_valid():
        return dict(serializer.validated_data)
    if field and field not in serializer.errors:
        code = DomainError.code
    raise DomainError(sentence_of(serializer.errors), code)


def private(
    data: Any, status: int | None = None, headers: dict[str, str] | None = None
) -> Response:
    """For one visitor alone, and for no cache: it shows a face, or holds a secret."""
    return Response(
        data, status, headers={"Cache-Control": "private, no-store", **(headers or {})}
    )


def _visitor_key(request: HttpRequest | Request) -> str:
    visitor = visitor_of(request)
    return visitor.key if visitor else ""


def visible_photo(request: Request, photo_id: uuid.UUID) -> Photo:
    secret = request.headers.get(SECRET_HEADER) or request.query_params.get("secret")
    return get_photo(
        photo_id=photo_id,
        visitor_key=_visitor_key(request) or None,
        secret=secret or "",
    )


def _own_batch(request: Request, batch_id: uuid.UUID) -> Batch:
    return get_batch(batch_id=batch_id, visitor_key=_visitor_key(request) or None)


def _batch_data(batch: Batch) -> dict[str, Any]:
    results = get_photo_results(photos=photos_in(batch=batch))
    return shown(
        PhotoBatchSerializer,
        {
            "id": batch.pk,
            "total": len(results),
            "finished": sum(result.finished for result in results),
            "refused": batch.refused,
            "photos": results,
        },
    )
