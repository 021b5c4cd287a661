"""What holds for every request: which code a page may run, how large a body is."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from django.conf import settings
from django.db import DataError, IntegrityError, OperationalError
from django.http import (
    HttpRequest,
    HttpResponse,
    HttpResponseNotAllowed,
    StreamingHttpResponse,
    UnreadablePostError,
)

from webapp.core.errors import DomainError
from webapp.core.logs import route_of
from webapp.core.responses import cut_off, error_response, storage_away
from webapp.core.storage import StorageAway

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


class UnlistedMiddleware:
    """Keeps search engines from what has an address of its own: a photo, a receipt,
    an invitation. A link that somebody was sent may end up where they read."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        if request.resolver_match and request.resolver_match.kwargs:
            response.headers["X-Robots-Tag"] = "noindex"
        return response


class HeadMiddleware:
    """To HEAD goes no body: Gunicorn drops it, and warns of each in the log."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        if request.method == "HEAD":
            if isinstance(response, StreamingHttpResponse):
                response.streaming_content = []
            else:
                response.headers.setdefault(
                    "Content-Length", str(len(response.content))
                )
                response.content = b""
        return response


class ProbeMiddleware:
    """Probes ask by address, which is no name of the site. Their answers depend on no
    name, so they are taken as asked by the first of its names."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        names: list[str] = settings.ALLOWED_HOSTS
        if request.path in settings.PROBES and names and names[0] != "*":
            request.META["HTTP_HOST"] = names[0].lstrip(".")
        return self.get_response(request)


class RequestSizeMiddleware:
    """Refuses a body that is too large before reading it, and one that comes in
    chunks: nobody can tell how large that is, and Django takes it for empty."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if request.META.get("HTTP_TRANSFER_ENCODING"):
            return error_response(
                request,
                411,
                "length_required",
                "The upload came in chunks. Please send it with its Content-Length.",
            )
        try:
            length = int(request.META.get("CONTENT_LENGTH") or 0)
        except ValueError:
            length = 0
        limit = settings.REQUEST_MAX_BYTES_AT.get(
            request.path, settings.REQUEST_MAX_BYTES
        )
        if length <= limit:
            return self.get_response(request)
        return error_response(
            request,
            413,
            "too_large",
            f"The upload is larger than {limit // 1024**2} MB. Please send less.",
        )


class ErrorPagesMiddleware:
    """Errors of the product, and a database that is locked or away, in words."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        if isinstance(response, HttpResponseNotAllowed) and not response.content:
            # A blank page, to whoever reloads the address that a form was sent to.
            page = error_response(
                request,
                405,
                "method_not_allowed",
                "There is no page at this address: a form or a button leads here. "
                "Please begin at the start.",
            )
            page.headers["Allow"] = response.headers["Allow"]
            return page
        return response

    def process_exception(
        self, request: HttpRequest, exception: Exception
    ) -> HttpResponse | None:
        route = route_of(request)
        if isinstance(exception, DomainError):
            return error_response(
                request,
                exception.http_status,
                exception.code,
                str(exception),
                exception.retry_after_seconds,
            )
        if isinstance(exception, DataError):
            # PostgreSQL keeps no NUL, and no more than fits.
            return error_response(
                request,
                400,
                "invalid_text",
                "There is a character or a number in it that cannot be kept. Please "
                "remove it and try again.",
            )
        if isinstance(exception, IntegrityError):
            # Most likely what it was about went at this very moment; if not, the log
            # says where.
            logger.error("not written, %s: %s", route, exception, exc_info=True)
            return error_response(
                request,
                409,
                "conflict",
                "It was changed or deleted at this very moment. Please look at it "
                "again.",
            )
        if isinstance(exception, OperationalError):
            logger.error("database not available, %s: %s", route, exception)
            return error_response(
                request,
                503,
                "unavailable",
                "The site is very busy. Nothing was lost; please try again soon.",
                retry_after_seconds=5,
            )
        if isinstance(exception, UnreadablePostError):
            return cut_off(request)
        if isinstance(exception, StorageAway):
            logger.error("files not available, %s: %s", route, exception)
            return storage_away(request)
        return None
