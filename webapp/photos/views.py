"""The visitor's pages: form, service, render."""

from __future__ import annotations

import uuid
from typing import Final

from django.contrib import messages
from django.core.files.storage import default_storage
from django.http import FileResponse, Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.utils.cache import patch_vary_headers
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST, require_safe

from ml.images import FORMAT_WORDS, MAX_BYTES, MAX_PIXELS
from webapp.accounts.visitors import new_visitor, remember_visitor, visitor_of
from webapp.core.errors import DomainError, NotFound
from webapp.photos.forms import PhotoForm
from webapp.photos.models import Photo
from webapp.photos.selectors import get_photo, get_photo_result
from webapp.photos.services.erasure import delete_photo
from webapp.photos.services.intake import submit_photo

_POLL_AFTER_MS: Final = (100, 100, 150, 200, 300, 500, 800, 1200, 2000, 3000)
"""Fast while a result is due any moment, then ever more patient."""

_LIMITS: Final = {
    "bytes": MAX_BYTES,
    "megabytes": MAX_BYTES // 1024**2,
    "megapixels": MAX_PIXELS // 1_000_000,
    "formats": FORMAT_WORDS,
}


@never_cache
@require_safe
def home(request: HttpRequest) -> HttpResponse:
    return _render_home(request)


@require_POST
def upload(request: HttpRequest) -> HttpResponse:
    form = PhotoForm(request.POST, request.FILES)
    if not form.is_valid():
        return _render_home(request, error=form.errors["image"][0], status=400)
    visitor = visitor_of(request) or new_visitor()
    try:
        photo = submit_photo(
            data=form.cleaned_data["image"].read(),
            visitor_key=visitor.key,
            idempotency_key="",
        )
    except DomainError as error:
        return _render_home(request, error=str(error), status=error.http_status)
    response = redirect("photos:result", photo_id=photo.pk)
    response.status_code = 303
    remember_visitor(response, visitor)
    return response


@never_cache
@require_safe
def result(request: HttpRequest, photo_id: uuid.UUID) -> HttpResponse:
    """The page; to htmx, which asks while the photo is under way, its part."""
    photo = _visible_photo(request, photo_id)
    outcome = get_photo_result(photo=photo)
    polls = _polls_so_far(request)
    template = "photos/_result.html" if request.htmx else "photos/result.html"
    response = render(
        request,
        template,
        {
            "photo": photo,
            "result": outcome,
            "poll_after_ms": None
            if outcome.finished
            else _POLL_AFTER_MS[min(polls, len(_POLL_AFTER_MS) - 1)],
            "next_poll": polls + 1,
            "secret": request.GET.get("secret", ""),
        },
    )
    patch_vary_headers(response, ["HX-Request"])
    return response


@require_GET
def image(request: HttpRequest, photo_id: uuid.UUID) -> HttpResponseBase:
    photo = _visible_photo(request, photo_id)
    try:
        handle = default_storage.open(photo.file_name, "rb")
    except FileNotFoundError as error:
        raise Http404 from error
    response = FileResponse(handle, content_type="image/jpeg")
    response["Cache-Control"] = "private, max-age=300"
    response["Content-Disposition"] = 'inline; filename="photo.jpg"'
    # A picture can run nothing; should a browser ever take it for a page, neither.
    response["Content-Security-Policy"] = "default-src 'none'; sandbox"
    return response


@require_POST
def delete(request: HttpRequest, photo_id: uuid.UUID) -> HttpResponse:
    delete_photo(photo=_visible_photo(request, photo_id))
    messages.success(request, "The photo and everything read from it are gone.")
    response = redirect("photos:home")
    response.status_code = 303
    return response


def _visible_photo(request: HttpRequest, photo_id: uuid.UUID) -> Photo:
    visitor = visitor_of(request)
    secret = request.GET.get("secret") or request.POST.get("secret") or ""
    try:
        return get_photo(
            photo_id=photo_id,
            visitor_key=visitor.key if visitor else None,
            secret=secret,
        )
    except NotFound as error:
        raise Http404(str(error)) from error


def _polls_so_far(request: HttpRequest) -> int:
    try:
        return max(0, min(int(request.GET.get("n", "0")), 10_000))
    except ValueError:
        return 0


def _render_home(
    request: HttpRequest, error: str = "", status: int = 200
) -> HttpResponse:
    context = {"error": error, "limits": _LIMITS}
    return render(request, "photos/home.html", context, status=status)
