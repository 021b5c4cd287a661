"""The queue of photos."""

from __future__ import annotations

import uuid
from typing import Final

from webapp.core import queues

INFERENCE_QUEUE: Final = "inference"
PROCESS_TASK: Final = "webapp.photos.tasks.process_photo"


def wake_worker(photo_id: uuid.UUID) -> bool:
    """Send a photo's id to the queue; False where the broker is away."""
    return queues.wake(PROCESS_TASK, photo_id, INFERENCE_QUEUE)


def count_waiting_messages() -> int | None:
    """How many photos' messages wait; None where the broker is away."""
    return queues.count_waiting_messages(INFERENCE_QUEUE)
