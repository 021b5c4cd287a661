"""What no app owns: error pages, the API's documentation, a sign of life."""

from __future__ import annotations

import sys
from typing import Any, Final

from django.conf import settings
from django.core.exceptions import (
    RequestDataTooBig,
    TooManyFieldsSent,
    TooManyFilesSent,
)
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, resolve_url
from django.views.decorators.http import require_safe
from drf_spectacular.views import SpectacularSwaggerSplitView
from rest_framework.request import Request
from rest_framework.response import Response

from webapp.core.middleware import CONTENT_SECURITY_POLICY
from webapp.core.responses import cut_off, error_response, storage_away
from webapp.core.storage import StorageAway

_TOO_MUCH: Final[dict[type[Exception], str]] = {
    TooManyFilesSent: "Those are too many files at once. Please send fewer.",
    TooManyFieldsSent: "Those are too many fields at once. Please send fewer.",
    RequestDataTooBig: "That is more text than we take. Please send less.",
}
"""What Django refuses before a form could: somebody who chose a whole folder of
photos did nothing odd, and is told what to do."""

_WORDS: Final = {
    400: ("bad_request", "The request could not be understood."),
    403: ("permission_denied", "You may not do that here."),
    404: ("not_found", "There is nothing at this address."),
    500: ("server_error", "Something broke on our side. Please try again."),
}


class ApiDocsView(SpectacularSwaggerSplitView):
    """Swagger UI from the package's own files.

    Its script is served apart, so that nothing inline must run; but it styles
    itself inline, which this page alone allows.
    """

    url_name = "api-schema"
    schema = None
    # Its renderer has a page to draw, and no words for what OPTIONS asks.
    http_method_names = ["get", "head"]

    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        response: Response = super().get(request, *args, **kwargs)
        response["Content-Security-Policy"] = CONTENT_SECURITY_POLICY.replace(
            "style-src 'self'", "style-src 'self' 'unsafe-inline'"
        )
        return response


@require_safe
def livez(request: HttpRequest) -> HttpResponse:
    """This process answers; says nothing of database, broker or model."""
    return HttpResponse("ok\n", content_type="text/plain")


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    if words := _TOO_MUCH.get(type(exception)):
        return error_response(request, 400, "too_many", words)
    return _error(request, 400)


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    return _error(request, 403)


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    return _error(request, 404)


def server_error(request: HttpRequest) -> HttpResponse:
    # A form is read before its view is asked, to look for its token: what goes wrong
    # by then comes here, with no other word of what it was.
    if isinstance(sys.exc_info()[1], StorageAway):
        return storage_away(request)
    return _error(request, 500)


def _error(request: HttpRequest, status: int) -> HttpResponse:
    return error_response(request, status, *_WORDS[status])


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """A form that was open for long, or cookies that are off; or a second log-in page,
    which logging in on the first has made stale: that one leads on. A form that was
    cut off has lost its token on the way."""
    if getattr(request, "cut_off", False):
        return cut_off(request)
    if request.user.is_authenticated and request.path == resolve_url(
        settings.LOGIN_URL
    ):
        return redirect(request.get_full_path())
    return error_response(
        request,
        403,
        "csrf_failed",
        "The form was open for too long, or your browser keeps no cookies. Please "
        "open the page anew and try again.",
    )
