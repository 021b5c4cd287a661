"""Waking workers. The database knows what is owed: a lost message costs seconds,
never the work."""

from __future__ import annotations

import logging
import time
import uuid
from typing import Final

from celery import current_app
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

_ASK_AGAIN_AFTER_SECONDS: Final = 5.0

logger = logging.getLogger(__name__)


def wake(task: str, owed: uuid.UUID, queue: str) -> bool:
    """Send the id of what is owed to a queue; False where the broker is away, or was a
    moment ago."""
    broker = str(current_app.conf.broker_write_url)
    if time.monotonic() < _ask_again_at.get(broker, 0.0):
        return False
    try:
        current_app.send_task(task, args=[str(owed)], queue=queue, retry=False)
    except (OperationalError, OSError) as error:
        logger.warning("broker away, the sweep will wake a worker: %s", error)
        _ask_again_at[broker] = time.monotonic() + _ASK_AGAIN_AFTER_SECONDS
        return False
    return True


def count_waiting_messages(queue: str) -> int | None:
    """How many messages lie in a queue; None where the broker is away."""
    try:
        with current_app.connection_for_read() as connection:
            channel = connection.default_channel
            # Declares it where the broker was emptied: the count is 0 then.
            declared = channel.queue_declare(queue, durable=True)
            return int(declared.message_count)
    except (OperationalError, OSError, RedisError) as error:
        # The last of them as it is, where it goes once the connection stands.
        logger.warning("broker away: %s", error)
        return None


_ask_again_at: dict[str, float] = {}
"""When a broker that was away is asked again: each try may cost its time-outs, and
fifty photos would wait for each of them."""
