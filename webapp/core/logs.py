"""Logs that can be followed: every line knows its request and its job.

For people a line each, for programs (``MIEN_LOG_FORMAT=json``) an object each. What
stands in an address may be a secret, so routes are logged by name.
"""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from gunicorn import glogging
from pythonjsonlogger.json import JsonFormatter

from webapp.core import metrics

REQUEST_ID_HEADER: Final = "X-Request-ID"
JSON_FIELDS: Final = "asctime,levelname,name,message,request_id,job_id"
_ACCEPTED: Final = re.compile(r"[A-Za-z0-9-]{8,64}")
_BEHIND_HOST: Final = re.compile(r"(://[^/?#\s]*)\S*")
_QUOTED: Final = re.compile(r"""b?['"].*""", re.DOTALL)
_METHODS: Final = frozenset(
    ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT")
)

request_id: ContextVar[str] = ContextVar("request_id", default="")
job_id: ContextVar[str] = ContextVar("job_id", default="")

logger = logging.getLogger("webapp.requests")


class ContextFilter(logging.Filter):
    """Adds ``request_id`` and ``job_id`` to a record; ``context`` for a line."""

    def filter(self, record: logging.LogRecord) -> bool:
        ids = {"request_id": request_id.get(), "job_id": job_id.get()}
        words = " ".join(word for word in ids.values() if word)
        record.__dict__ |= {**ids, "context": f" [{words}]" if words else ""}
        return True


class RouteFilter(logging.Filter):
    """Puts the route's name for the address in what Django says of a request.

    Django names the path of whatever it refuses, and the page that a form came from:
    a link to a photo or an invitation, perhaps.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        # Taken away: as an object's field it would be written with its address.
        request = record.__dict__.pop("request", None)
        if isinstance(request, HttpRequest):
            record.msg = _without_address(record.msg, request)
            if isinstance(record.args, tuple):
                record.args = tuple(
                    _without_address(word, request) for word in record.args
                )
        return True


class QuotationFilter(logging.Filter):
    """Leaves out what Gunicorn quotes of a request that it could not read or answer:
    its first line, a header, its address."""

    def filter(self, record: logging.LogRecord) -> bool:
        words = str(record.msg)
        if words.startswith("Error handling request"):
            record.msg, record.args = "Error handling request", ()
        elif words.startswith("Invalid request"):
            record.msg = _QUOTED.sub("...", words)
        return True


class OneLineJson(JsonFormatter):
    """One object a line, times in UTC, empty ids left out."""

    converter = staticmethod(time.gmtime)
    default_msec_format = "%s.%03dZ"
    default_time_format = "%Y-%m-%dT%H:%M:%S"

    def __init__(self) -> None:
        super().__init__(
            JSON_FIELDS,
            style=",",
            rename_fields={"asctime": "at", "levelname": "level"},
        )

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        log_data.pop("context", None)
        return {
            name: value
            for name, value in log_data.items()
            if value or name not in ("request_id", "job_id")
        }


class GunicornLogger(glogging.Logger):
    """Gunicorn's own few lines in the same shape."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        for handler in self.error_log.handlers:
            handler.addFilter(QuotationFilter())
            if settings.LOG_FORMAT == "json":
                handler.setFormatter(OneLineJson())


class RequestLogMiddleware:
    """Gives each request an id, counts it, and writes one line about it.

    The id is the proxy's where there is one of ours, else drawn here; the answer
    carries it, so that whoever reports an error can name it.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        given = request.headers.get(REQUEST_ID_HEADER, "")
        trusted = settings.NUM_PROXIES and _ACCEPTED.fullmatch(given)
        token = request_id.set(given if trusted else uuid.uuid4().hex)
        started_at = time.perf_counter()
        try:
            response = self.get_response(request)
            seconds = time.perf_counter() - started_at
            route = route_of(request)
            # Whoever asks may make methods up; each would be counted for ever.
            method = request.method if request.method in _METHODS else "other"
            metrics.REQUESTS.labels(method, str(response.status_code)).inc()
            metrics.REQUEST_SECONDS.labels(route).observe(seconds)
            logger.info(
                "%s %s %s",
                method,
                route or "-",
                response.status_code,
                extra={
                    "method": method,
                    "route": route,
                    "status": response.status_code,
                    "duration_ms": round(1000 * seconds, 1),
                },
            )
            response.headers[REQUEST_ID_HEADER] = request_id.get()
            return response
        finally:
            request_id.reset(token)


def route_of(request: HttpRequest) -> str:
    """The name of the route that a request took; empty where there is none."""
    match = request.resolver_match
    return match.view_name if match else ""


def _without_address(word: Any, request: HttpRequest) -> Any:
    """The route for the path, as Django escapes it, and no more of another address
    than its host."""
    if not isinstance(word, str):
        return word
    if word == request.path.encode("unicode_escape").decode("ascii"):
        return route_of(request) or "-"
    return _BEHIND_HOST.sub(r"\1", word)
