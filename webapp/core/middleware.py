"""What holds for every request: which code a page may run, how large a body is."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from django.conf import settings
from django.db import OperationalError
from django.http import HttpRequest, HttpResponse

from ml.images import MAX_BYTES
from webapp.core.responses import error_response

logger = logging.getLogger(__name__)

GetResponse = Callable[[HttpRequest], HttpResponse]

CONTENT_SECURITY_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "media-src 'self' blob:",
        "font-src 'self'",
        "connect-src 'self'",
        "manifest-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
"""Nothing from elsewhere, nothing inline: no script and no style of a stranger."""

PERMISSIONS_POLICY: Final = "camera=(self), microphone=(), geolocation=(), usb=()"


class ContentSecurityPolicyMiddleware:
    """Sets the policy, unless a view has set a narrower need of its own."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        response.headers.setdefault("Content-Security-Policy", CONTENT_SECURITY_POLICY)
        response.headers.setdefault("Permissions-Policy", PERMISSIONS_POLICY)
        return response


class RequestSizeMiddleware:
    """Refuses a body that is too large before reading it."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        try:
            length = int(request.META.get("CONTENT_LENGTH") or 0)
        except ValueError:
            length = 0
        if length <= settings.REQUEST_MAX_BYTES:
            return self.get_response(request)
        return error_response(
            request,
            413,
            "too_large",
            f"The upload is larger than {MAX_BYTES // 1024**2} MB. "
            "Please choose a smaller photo.",
        )


class UnavailableMiddleware:
    """A database that is locked or away is no fault of the request: 503, later."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_exception(
        self, request: HttpRequest, exception: Exception
    ) -> HttpResponse | None:
        if not isinstance(exception, OperationalError):
            return None
        logger.error("database not available for %s: %s", request.path, exception)
        response = error_response(
            request,
            503,
            "unavailable",
            "The site is very busy. Nothing was lost; please try again in a moment.",
        )
        response["Retry-After"] = "5"
        return response
