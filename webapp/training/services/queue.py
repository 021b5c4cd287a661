"""Waking the training worker. The database knows what is owed: a lost message costs
seconds, never a run."""

from __future__ import annotations

import logging
import uuid
from typing import Final

from celery import current_app
from kombu.exceptions import OperationalError

TRAINING_QUEUE: Final = "training"
RUN_TASK: Final = "webapp.training.tasks.run_training"

logger = logging.getLogger(__name__)


def wake_trainer(run_id: uuid.UUID) -> bool:
    """Send a run's id to the queue; False where the broker is away."""
    try:
        current_app.send_task(
            RUN_TASK, args=[str(run_id)], queue=TRAINING_QUEUE, retry=False
        )
    except (OperationalError, OSError) as error:
        logger.warning("broker away, the sweep will wake the trainer: %s", error)
        return False
    return True


def count_waiting_messages() -> int | None:
    """How many messages lie in the queue; None where the broker is away."""
    try:
        with current_app.connection_for_read() as connection:
            channel = connection.default_channel
            declared = channel.queue_declare(TRAINING_QUEUE, durable=True)
            return int(declared.message_count)
    except (OperationalError, OSError) as error:
        logger.warning("broker away: %s", error)
        return None
