"""The first page: giving a photo, several, or trying with an example."""

from __future__ import annotations

from typing import Any, Final

from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from ml.images import FORMAT_WORDS, MAX_BYTES, MAX_PIXELS
from webapp.accounts.visitors import new_visitor, remember_visitor, visitor_of
from webapp.core.errors import DomainError
from webapp.core.responses import see_other
from webapp.photos import consent
from webapp.photos.examples import available_examples, get_example
from webapp.photos.forms import PhotoForm
from webapp.photos.limits import count_request, count_uploads
from webapp.photos.models import Photo
from webapp.photos.services.batches import (
    MAX_BATCH_BYTES,
    MAX_PHOTOS,
    hash_files,
    is_zip,
    submit_batch,
)
from webapp.photos.services.intake import submit_photo
from webapp.photos.views.common import await_visitor, new_page

_LIMITS: Final = {
    "bytes": MAX_BYTES,
    "megabytes": MAX_BYTES // 1024**2,
    "megapixels": MAX_PIXELS // 1_000_000,
    "formats": FORMAT_WORDS,
    "photos": MAX_PHOTOS,
    "batch_bytes": MAX_BATCH_BYTES,
    "batch_megabytes": MAX_BATCH_BYTES // 1024**2,
}


@never_cache
@require_safe
def home(request: HttpRequest) -> HttpResponse:
    return _render_home(request)


@require_POST
def upload(request: HttpRequest) -> HttpResponseBase:
    """One photo, or several, or a zip: the form does not ask which."""
    form = PhotoForm(request.POST, request.FILES)
    if not form.is_valid():
        return _render_home(request, form.error_sentence, 400)
    files = form.cleaned_data["image"]
    visitor = visitor_of(request) or new_visitor()
    choices = {name: form.cleaned_data[name] for name in ("keep", "train")}
    allowed = {"visitor_key": visitor.key, **choices}
    try:
        count_uploads(request, visitor_of(request), files)
        # A browser whose connection breaks sends a form again by itself, and so do
        # people: the same from the same page is taken once.
        page = form.cleaned_data["page"]
        sent = hash_files(files, **choices) if page else ""
        if len(files) == 1 and not is_zip(files[0]):
            photo = submit_photo(
                data=files[0].read(),
                **allowed,
                idempotency_scopes=[visitor.key],
                # A page may send another photo, too: of its own it is no key.
                idempotency_key=f"{page}:{sent}" if page else "",
            )
            response = see_other("photos:result", photo_id=photo.pk)
        else:
            batch = submit_batch(
                files=((file.name, file.read()) for file in files),
                **allowed,
                idempotency_key=page,
                upload_sha256=sent,
            )
            response = see_other("photos:batch", batch_id=batch.pk)
    except DomainError as error:
        return _render_home(
            request, str(error), error.http_status, error.retry_after_seconds
        )
    remember_visitor(response, visitor)
    return response


@require_POST
def try_example(request: HttpRequest, name: str) -> HttpResponse:
    known = get_example(name)
    if known is None:
        raise Http404(name)
    visitor = visitor_of(request) or new_visitor()
    count_request(request, "upload", visitor_of(request))
    photo: Photo = submit_photo(data=known.read(), visitor_key=visitor.key)
    response = see_other("photos:result", photo_id=photo.pk)
    remember_visitor(response, visitor)
    return response


def _render_home(
    request: HttpRequest,
    error: str = "",
    status: int = 200,
    retry_after_seconds: int | None = None,
) -> HttpResponse:
    context: dict[str, Any] = {
        "error": error,
        "limits": _LIMITS,
        "examples": available_examples(),
        "consent": consent,
        "page": new_page(),
    }
    response = render(request, "photos/home.html", context, status=status)
    await_visitor(request, response)
    if retry_after_seconds is not None:
        response["Retry-After"] = str(retry_after_seconds)
    return response
