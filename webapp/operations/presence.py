"""Workers and beat that say they are well: to the status page by a row, to a health
check by a file, to Prometheus by a port.

A thread of the main process says so; it goes on while the broker is away, for that
alone makes no worker ill.
"""

from __future__ import annotations

import logging
import socket
import threading
from datetime import datetime, timedelta
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from celery.signals import beat_init, worker_ready, worker_shutting_down
from django.conf import settings
from django.db import Error as DatabaseError
from django.db import connection
from django.utils import timezone

from webapp.operations.exposition import worker_exposition
from webapp.operations.models import Presence
from webapp.photos.services.serving import provider_name

EVERY_SECONDS: Final = 5.0
_FORGOTTEN_AFTER: Final = timedelta(days=1)

logger = logging.getLogger(__name__)
_stop = threading.Event()


def say_present(*, name: str, queues: str, provider: str, started_at: datetime) -> None:
    """Write that this process is there, now."""
    Presence.objects.update_or_create(
        name=name,
        defaults={
            "queues": queues,
            "provider": provider,
            "started_at": started_at,
            "seen_at": timezone.now(),
        },
    )


def forget_absent() -> int:
    """Delete who has not been seen for a day; how many."""
    before = timezone.now() - _FORGOTTEN_AFTER
    return Presence.objects.filter(seen_at__lt=before).delete()[0]


def _keep_saying(name: str, queues: str) -> None:
    started_at = timezone.now()
    away = False
    try:
        while True:
            if settings.ALIVE_FILE:
                Path(settings.ALIVE_FILE).touch()
            try:
                say_present(
                    name=name,
                    queues=queues,
                    # Known once the first network is loaded.
                    provider=provider_name() if "inference" in queues else "",
                    started_at=started_at,
                )
                away = False
            except DatabaseError as error:
                connection.close()
                if not away:
                    logger.warning("presence is not written: %s", error)
                away = True
            if _stop.wait(EVERY_SECONDS):
                return
    finally:
        connection.close()


def _start(name: str, queues: str) -> None:
    threading.Thread(
        target=_keep_saying, args=(name, queues), name="presence", daemon=True
    ).start()


class _Quiet(WSGIRequestHandler):
    timeout = 10  # Seconds that a client may say nothing.

    def log_message(self, format: str, *args: Any) -> None:
        """No line a scrape."""


class _Server(ThreadingMixIn, WSGIServer):
    """A client that says nothing keeps nobody else from the figures."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away, or said nothing for too long, is no news."""


def tell_figures(port: int) -> WSGIServer | None:
    """Answer ``/metrics`` at that port, 0 for any, from a thread; None where it is
    taken."""
    try:
        server = make_server(
            "", port, worker_exposition, server_class=_Server, handler_class=_Quiet
        )
    except OSError as error:
        logger.warning("no figures are told at port %s: %s", port, error)
        return None
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return server


@worker_ready.connect
def on_worker_ready(sender: Any, **_: Any) -> None:
    queues = ",".join(sorted(sender.app.amqp.queues.consume_from))
    _start(str(sender.hostname), queues)
    if settings.METRICS_PORT:
        tell_figures(settings.METRICS_PORT)


@beat_init.connect
def on_beat_init(**_: Any) -> None:
    _start(f"beat@{socket.gethostname()}", "")


@worker_shutting_down.connect
def on_worker_shutting_down(**_: Any) -> None:
    _stop.set()
