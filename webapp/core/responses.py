"""One way to say that something went wrong: a page to people, JSON to programs."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render


def error_response(
    request: HttpRequest, status: int, code: str, detail: str
) -> HttpResponse:
    """``error.html`` with its sentence, or ``code`` and ``detail`` below ``/api/``."""
    if request.path.startswith("/api/"):
        return JsonResponse({"code": code, "detail": detail}, status=status)
    context = {"status": status, "message": detail}
    return render(request, "error.html", context, status=status)
