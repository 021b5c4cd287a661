"""The first page: giving a photo, several, or trying with an example."""

from __future__ import annotations

import hashlib
from typing import Any, Final

from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from ml.images import FORMAT_WORDS, MAX_BYTES, MAX_PIXELS
from webapp.accounts.visitors import new_visitor, remember_visitor, visitor_of
from webapp.core.errors import DomainError
from webapp.photos import consent
from webapp.photos.examples import available_examples, get_example
from webapp.photos.forms import PhotoForm
from webapp.photos.models import Photo
from webapp.photos.services.batches import (
    MAX_BATCH_BYTES,
    MAX_PHOTOS,
    hash_files,
    is_zip,
    submit_batch,
)
from webapp.photos.services.intake import submit_photo
from webapp.photos.views.common import (
    await_visitor,
    count_request,
    count_uploads,
    new_page,
    see_other,
)

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
        if len(files) == 1 and not is_zip(files[0]):
            data = files[0].read()
            photo = submit_photo(
                data=data,
                **allowed,
                idempotency_scopes=[visitor.key],
                idempotency_key=_sending_key(form, data),
            )
            response = see_other("photos:result", photo_id=photo.pk)
        else:
            batch = submit_batch(
                files=((file.name, file.read()) for file in files),
                **allowed,
                idempotency_key=form.cleaned_data["page"],
                upload_sha256=hash_files(files, **choices),
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


def _sending_key(form: PhotoForm, data: bytes) -> str:
    """The same for the same photo and choices from the same page: a browser whose
    connection breaks sends a form again by itself, and so do people."""
    page: str = form.cleaned_data["page"]
    if not page:
        return ""
    allowed = [form.cleaned_data[name] for name in ("keep", "train")]
    return f"{page}:{allowed}:{hashlib.sha256(data).hexdigest()}"


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
