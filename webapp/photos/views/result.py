"""One photo's result, what can be downloaded of it, and what can be done with it."""

from __future__ import annotations

import uuid
from typing import Final, TypeVar

from django.contrib import messages
from django.core.files import File
from django.core.files.storage import default_storage
from django.http import FileResponse, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.urls import reverse
from django.utils.cache import patch_vary_headers
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe
from rest_framework.renderers import JSONRenderer

from ml.labels import EMOTIONS, Emotion
from webapp.core.errors import NotFound
from webapp.core.responses import is_htmx, see_other
from webapp.photos import consent as consent_text
from webapp.photos import rendering
from webapp.photos.models import Photo
from webapp.photos.selectors import (
    get_face_prediction,
    get_photo_result,
    get_shared_photo,
    open_links_to,
)
from webapp.photos.serializers import PhotoSerializer
from webapp.photos.services.consent import set_consent
from webapp.photos.services.erasure import delete_photo
from webapp.photos.services.sharing import create_share_link, revoke_share_links
from webapp.photos.views.common import own_photo, renew_visitor, visible_photo

_POLL_AFTER_MS: Final = (100, 100, 150, 200, 300, 500, 800, 1200, 2000, 3000)
"""Fast while a result is due any moment, then ever more patient."""

_JPEG_START: Final = b"\xff\xd8"

_Response = TypeVar("_Response", bound=HttpResponseBase)


@never_cache
@require_safe
def result(request: HttpRequest, photo_id: uuid.UUID) -> HttpResponse:
    """The page; to htmx, which asks while the photo is under way, its part."""
    photo = visible_photo(request, photo_id)
    response = _render_result(request, photo, secret=request.GET.get("secret", ""))
    renew_visitor(request, response)
    return response


@never_cache
@require_safe
def shared(request: HttpRequest, token: str) -> HttpResponse:
    """The same, for whoever was sent a link: to look at, not to change."""
    return _render_result(request, get_shared_photo(token=token), share_token=token)


@require_safe
def image(request: HttpRequest, photo_id: uuid.UUID) -> HttpResponseBase:
    return _image_response(visible_photo(request, photo_id))


@require_safe
def thumbnail(request: HttpRequest, photo_id: uuid.UUID) -> HttpResponse:
    with _open_file(visible_photo(request, photo_id)) as handle:
        data = rendering.thumbnail(handle.read())
    return _unkept(HttpResponse(data, content_type="image/jpeg"))


@require_safe
def shared_image(request: HttpRequest, token: str) -> HttpResponseBase:
    return _image_response(get_shared_photo(token=token))


@require_safe
def heat(request: HttpRequest, photo_id: uuid.UUID, index: int) -> HttpResponse:
    return _heat_response(request, visible_photo(request, photo_id), index)


@require_safe
def shared_heat(request: HttpRequest, token: str, index: int) -> HttpResponse:
    return _heat_response(request, get_shared_photo(token=token), index)


@require_safe
def annotated(request: HttpRequest, photo_id: uuid.UUID) -> HttpResponse:
    photo = visible_photo(request, photo_id)
    outcome = get_photo_result(photo=photo)
    with _open_file(photo) as handle:
        stored = handle.read()
    with rendering.turn_to_draw():
        data = rendering.annotated_photo(rendering.stored_picture(stored), outcome)
    return _download(data, "image/png", "mien.png")


@require_safe
def export_json(request: HttpRequest, photo_id: uuid.UUID) -> HttpResponse:
    photo = visible_photo(request, photo_id)
    data = PhotoSerializer(get_photo_result(photo=photo)).data
    text = JSONRenderer().render(data, "application/json; indent=2")
    return _download(text, "application/json", "mien.json")


@require_safe
def export_csv(request: HttpRequest, photo_id: uuid.UUID) -> HttpResponse:
    photo = visible_photo(request, photo_id)
    text = rendering.faces_as_csv([get_photo_result(photo=photo)])
    return _download(text.encode(), "text/csv; charset=utf-8", "mien.csv")


@require_POST
def delete(request: HttpRequest, photo_id: uuid.UUID) -> HttpResponse:
    delete_photo(photo=visible_photo(request, photo_id))
    messages.success(request, "The photo and everything read from it are gone.")
    return see_other("photos:home")


@require_POST
def consent(request: HttpRequest, photo_id: uuid.UUID) -> HttpResponse:
    """Give or take back what is allowed: ``keep`` and ``train``, each 1 or 0."""
    photo = own_photo(request, photo_id)
    choices: dict[str, bool | None] = {
        name: {"1": True, "0": False}.get(request.POST.get(name, ""))
        for name in ("keep", "train")
    }
    set_consent(photos=Photo.objects.filter(pk=photo.pk), **choices)
    messages.success(request, "Your choice is in force.")
    return see_other("photos:result", photo_id=photo.pk)


@require_POST
def share(request: HttpRequest, photo_id: uuid.UUID) -> HttpResponse:
    """A new link. It is shown on the next page and never again."""
    photo = own_photo(request, photo_id)
    _, token = create_share_link(photo=photo)
    link = request.build_absolute_uri(reverse("photos:shared", args=[token]))
    messages.success(request, link, extra_tags="share-link")
    return see_other("photos:result", photo_id=photo.pk)


@require_POST
def unshare(request: HttpRequest, photo_id: uuid.UUID) -> HttpResponse:
    photo = own_photo(request, photo_id)
    revoke_share_links(photo=photo)
    messages.success(request, "All links to this photo have ended.")
    return see_other("photos:result", photo_id=photo.pk)


def _render_result(
    request: HttpRequest, photo: Photo, *, secret: str = "", share_token: str = ""
) -> HttpResponse:
    outcome = get_photo_result(photo=photo)
    polls = _polls_so_far(request)
    links = [] if share_token else list(open_links_to(photo=photo))
    context = {
        "photo": photo,
        "result": outcome,
        "poll_after_ms": None
        if outcome.finished
        else _POLL_AFTER_MS[min(polls, len(_POLL_AFTER_MS) - 1)],
        "next_poll": polls + 1,
        "secret": secret,
        "share_token": share_token,
        "links": len(links),
        # Of the newest: the one that is shown, where one is.
        "share_ends_at": links[0].ends_at if links else None,
        "consent": consent_text,
    }
    template = "photos/_result.html" if is_htmx(request) else "photos/result.html"
    response = render(request, template, context)
    patch_vary_headers(response, ["HX-Request"])
    return response


def _polls_so_far(request: HttpRequest) -> int:
    try:
        return max(0, min(int(request.GET.get("n", "0")), 10_000))
    except ValueError:
        return 0


def _open_file(photo: Photo) -> File[bytes]:
    """The stored JPEG. Raises ``NotFound`` where there is none under its name."""
    try:
        file = default_storage.open(photo.file_name, "rb")
    except (FileNotFoundError, IsADirectoryError) as error:
        raise NotFound(rendering.UNREADABLE_WORDS) from error
    start = file.read(len(_JPEG_START))
    file.seek(0)
    if start != _JPEG_START:
        file.close()
        raise NotFound(rendering.UNREADABLE_WORDS)
    return file


def _unkept(response: _Response) -> _Response:
    """No browser keeps it: a deleted photo, or one whose link has ended, is not to be
    shown from a cache, and not to lie in one. Within a page it is loaded once all the
    same."""
    response["Cache-Control"] = "private, no-store"
    return response


def _image_response(photo: Photo) -> HttpResponseBase:
    response = _unkept(FileResponse(_open_file(photo), content_type="image/jpeg"))
    response["Content-Disposition"] = 'inline; filename="photo.jpg"'
    # A picture can run nothing; should a browser ever take it for a page, neither.
    response["Content-Security-Policy"] = "default-src 'none'; sandbox"
    return response


def _heat_response(request: HttpRequest, photo: Photo, index: int) -> HttpResponse:
    prediction = get_face_prediction(photo=photo, index=index)
    wanted = request.GET.get("emotion", "")
    emotion = (
        Emotion(wanted)
        if wanted in [known.value for known in EMOTIONS]
        else max(EMOTIONS, key=lambda known: getattr(prediction, known.value))
    )
    data = rendering.heat_map(prediction, emotion)
    return _unkept(HttpResponse(data, content_type="image/png"))


def _download(data: bytes, content_type: str, name: str) -> HttpResponse:
    response = HttpResponse(data, content_type=content_type)
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    return _unkept(response)
