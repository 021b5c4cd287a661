"""What many views answer: that something went wrong, to people as a page and to
programs as JSON; and where to look next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from django.http import (
    HttpRequest,
    HttpResponse,
    HttpResponseRedirect,
    JsonResponse,
)
from django.shortcuts import render
from django.urls import reverse


def error_response(
    request: HttpRequest,
    status: int,
    code: str,
    detail: str,
    retry_after_seconds: int | None = None,
) -> HttpResponse:
    """``error.html`` with its sentence, or ``code`` and ``detail`` below ``/api/``."""
    response: HttpResponse
    if request.path.startswith("/api/"):
        response = JsonResponse({"code": code, "detail": detail}, status=status)
    else:
        context = {"status": status, "message": detail}
        response = render(request, "error.html", context, status=status)
    if retry_after_seconds is not None:
        response.headers["Retry-After"] = str(retry_after_seconds)
    return response


def storage_away(request: HttpRequest) -> HttpResponse:
    """What a ``StorageAway`` is to whoever asks."""
    return error_response(
        request,
        503,
        "storage_unavailable",
        "The site cannot get at its photos at the moment. Nothing was lost; please "
        "try again soon.",
        retry_after_seconds=5,
    )


CUT_OFF_CODE: Final = "cut_off"
CUT_OFF_WORDS: Final = (
    "The connection broke before all of it had arrived, so nothing was taken. Please "
    "send it again."
)


def cut_off(request: HttpRequest) -> HttpResponse:
    """What an ``UnreadablePostError`` is to whoever may still listen."""
    return error_response(request, 400, CUT_OFF_CODE, CUT_OFF_WORDS)


def is_htmx(request: HttpRequest) -> bool:
    """Whether htmx asks, for a part of a page (django-htmx's middleware knows)."""
    return bool(getattr(request, "htmx", False))


def see_other(
    to: str, *args: Any, query: Mapping[str, Any] | None = None, **kwargs: Any
) -> HttpResponse:
    """303: what was posted is done, go and look there."""
    address = reverse(to, args=args, kwargs=kwargs, query=query)
    response = HttpResponseRedirect(address)
    response.status_code = 303
    return response
