"""Logs that can be followed: every line knows its request and its job.

For people a line each, for programs (``MIEN_LOG_FORMAT=json``) an object each. What
stands in an address may be a secret, so routes are logged by name.
"""

from __future__ import annotations

import logging
import os
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
    """Gunicorn's own few lines in the same shape; it starts before Django does."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        if os.environ.get("MIEN_LOG_FORMAT") == "json":
            for handler in self.error_log.handlers:
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
            match = request.resolver_match
            route = match.view_name if match else ""
            metrics.REQUESTS.labels(request.method, str(response.status_code)).inc()
            metrics.REQUEST_SECONDS.labels(route).observe(seconds)
            logger.info(
                "%s %s %s",
                request.method,
                route or "-",
                response.status_code,
                extra={
                    "method": request.method,
                    "route": route,
                    "status": response.status_code,
                    "duration_ms": round(1000 * seconds, 1),
                },
            )
            response.headers[REQUEST_ID_HEADER] = request_id.get()
            return response
        finally:
            request_id.reset(token)
