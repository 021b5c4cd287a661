"""One way to say that something went wrong: a page to people, JSON to programs."""

from __future__ import annotations

from typing import Final

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render


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
