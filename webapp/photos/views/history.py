"""What this browser has given: its photos, its batches, and forgetting them all."""

from __future__ import annotations

import uuid

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from webapp.accounts.visitors import visitor_of
from webapp.core.responses import is_htmx, see_other
from webapp.photos import rendering
from webapp.photos.models import Batch
from webapp.photos.selectors import (
    get_batch,
    get_photo_results,
    photos_in,
    photos_of,
)
from webapp.photos.services.erasure import delete_batch, delete_photos_of
from webapp.photos.views.common import renew_visitor

_PER_PAGE = 24


@never_cache
@require_safe
def mine(request: HttpRequest) -> HttpResponse:
    """This browser's photos, newest first."""
    visitor = visitor_of(request)
    photos = photos_of(visitor_key=visitor.key if visitor else "")
    page = Paginator(photos, _PER_PAGE).get_page(request.GET.get("page"))
    results = get_photo_results(photos=page.object_list)
    context = {"page": page, "results": results}
    response = render(request, "photos/mine.html", context)
    renew_visitor(request, response)
    return response


@require_POST
def delete_all(request: HttpRequest) -> HttpResponse:
    visitor = visitor_of(request)
    count = delete_photos_of(visitor_key=visitor.key) if visitor else 0
    # None where somebody pressed twice: the page that follows says that there is none.
    if count:
        words = "One photo is" if count == 1 else f"{count} photos are"
        messages.success(request, f"{words} gone, with everything read from them.")
    return see_other("photos:mine")


@never_cache
@require_safe
def batch(request: HttpRequest, batch_id: uuid.UUID) -> HttpResponse:
    """Several photos' results; to htmx, which asks while they are under way, the
    part that changes."""
    shown = _own_batch(request, batch_id)
    results = get_photo_results(photos=photos_in(batch=shown))
    finished = sum(result.finished for result in results)
    context = {
        "batch": shown,
        "results": results,
        "finished": finished,
        "total": len(results),
        "poll_after_ms": None if finished == len(results) else 500,
    }
    template = "photos/_batch.html" if is_htmx(request) else "photos/batch.html"
    response = render(request, template, context)
    renew_visitor(request, response)
    return response


@require_safe
def batch_csv(request: HttpRequest, batch_id: uuid.UUID) -> HttpResponse:
    shown = _own_batch(request, batch_id)
    results = get_photo_results(photos=photos_in(batch=shown))
    response = HttpResponse(
        rendering.faces_as_csv(results), content_type="text/csv; charset=utf-8"
    )
    response["Content-Disposition"] = 'attachment; filename="mien.csv"'
    response["Cache-Control"] = "private, no-store"
    return response


@require_POST
def batch_delete(request: HttpRequest, batch_id: uuid.UUID) -> HttpResponse:
    delete_batch(batch=_own_batch(request, batch_id))
    messages.success(request, "These photos and everything read from them are gone.")
    return see_other("photos:home")


def _own_batch(request: HttpRequest, batch_id: uuid.UUID) -> Batch:
    visitor = visitor_of(request)
    return get_batch(batch_id=batch_id, visitor_key=visitor.key if visitor else None)
