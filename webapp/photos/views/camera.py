"""The camera's page: a snapshot, or the live view. What is done there, a browser
does; the frames go to the API."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import ensure_csrf_cookie
from django.views.decorators.http import require_safe

from webapp.photos import consent
from webapp.photos.selectors import EMOTION_WORDS
from webapp.photos.views.common import await_visitor, new_page


@never_cache
@ensure_csrf_cookie
@require_safe
def camera(request: HttpRequest) -> HttpResponse:
    context = {
        "consent": consent,
        "emotions": EMOTION_WORDS.items(),
        "page": new_page(),
    }
    response = render(request, "photos/camera.html", context)
    await_visitor(request, response)
    return response
