"""The queue of runs."""

from __future__ import annotations

import uuid
from typing import Final

from webapp.core import queues

TRAINING_QUEUE: Final = "training"
RUN_TASK: Final = "webapp.training.tasks.run_training"


def wake_trainer(run_id: uuid.UUID) -> bool:
    """Send a run's id to the queue; False where the broker is away."""
    return queues.wake(RUN_TASK, run_id, TRAINING_QUEUE)


def count_waiting_messages() -> int | None:
    """How many runs' messages wait; None where the broker is away."""
    return queues.count_waiting_messages(TRAINING_QUEUE)
