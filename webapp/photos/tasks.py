"""What workers are woken for. Every task may run twice and be killed anywhere."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any, Final

from celery import current_app, shared_task
from celery.signals import worker_process_init, worker_ready
from django.db import connection

from ml.runtime import ProviderUnavailable
from webapp.photos.services import erasure, processing
from webapp.photos.services.queue import INFERENCE_QUEUE
from webapp.photos.services.serving import NoModelServes, model_server

logger = logging.getLogger(__name__)


@shared_task
def process_photo(photo_id: str) -> None:
    photo = processing.claim_photo(photo_id=uuid.UUID(photo_id))
    if photo is not None:
        processing.process_claimed_photo(photo=photo)


@shared_task
def sweep_photos() -> None:
    processing.sweep_photos()


@shared_task
def erase_expired_photos() -> None:
    erasure.erase_expired_photos()
    erasure.empty_write_ahead_log()


@shared_task
def remove_orphan_files() -> None:
    erasure.remove_orphan_files()


_KEPT_UP: Final = ((sweep_photos, 2.0), (erase_expired_photos, 60.0))
"""What a worker that reads does without the beat, too, and every how many seconds."""


@worker_ready.connect
def keep_sweeping(**_: Any) -> None:
    """A worker that reads sweeps and erases, too, so that nothing waits for the beat
    to be back.

    In threads of its main process: what takes long to erase holds up no sweep.
    """
    if INFERENCE_QUEUE not in current_app.amqp.queues.consume_from:
        return
    for act, every_seconds in _KEPT_UP:
        threading.Thread(
            target=_go_on, args=(act, every_seconds), name=act.__name__, daemon=True
        ).start()


def _go_on(act: Callable[[], object], every_seconds: float) -> None:
    """Do it again and again, whatever happens to one try."""
    while True:
        time.sleep(every_seconds)
        try:
            act()
        except Exception as error:  # noqa: BLE001  The thread is started once.
            logger.warning("%s failed: %s", threading.current_thread().name, error)
            connection.close()


@worker_process_init.connect
def load_networks(**_: Any) -> None:
    """Before the first photo: a claim must be short, lest it dies with its worker."""
    if INFERENCE_QUEUE not in current_app.amqp.queues.consume_from:
        return
    try:
        model_server.warm_up()
    except NoModelServes as error:
        logger.warning("no model yet: %s", error)
    except ProviderUnavailable as error:
        # Else every photo would fail here, three times, while other hosts could read
        # it: the whole worker ends, and whoever runs it sees why.
        logger.critical("%s", error)
        os.kill(os.getppid(), signal.SIGTERM)
