"""Waking a worker. The database knows what is owed: a lost message costs seconds,
never a photo."""

from __future__ import annotations

import logging
import uuid
from typing import Final

from celery import current_app
from kombu.exceptions import OperationalError

INFERENCE_QUEUE: Final = "inference"
PROCESS_TASK: Final = "webapp.photos.tasks.process_photo"

logger = logging.getLogger(__name__)


def wake_worker(photo_id: uuid.UUID) -> bool:
    """Send a photo's id to the queue; False where the broker is away."""
    try:
        current_app.send_task(
            PROCESS_TASK, args=[str(photo_id)], queue=INFERENCE_QUEUE, retry=False
        )
    except (OperationalError, OSError) as error:
        logger.warning("broker away, the sweep will wake a worker: %s", error)
        return False
    return True


def count_waiting_messages() -> int | None:
    """How many messages lie in the queue; None where the broker is away."""
    try:
        with current_app.connection_for_read() as connection:
            channel = connection.default_channel
            # Declares it where the broker was emptied: the count is 0 then.
            declared = channel.queue_declare(INFERENCE_QUEUE, durable=True)
            return int(declared.message_count)
    except (OperationalError, OSError) as error:
        logger.warning("broker away: %s", error)
        return None
