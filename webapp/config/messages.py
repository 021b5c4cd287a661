"""What kombu forgets about messages in hand when the network fails."""

from __future__ import annotations

from kombu.transport import redis, virtual


class QoS(redis.QoS):
    """Kombu keeps a message in hand where the broker did not hear that it is done,
    and Celery logs that and goes on. With a prefetch of one the worker then waits
    for that message for ever, and takes no other.

    Here it lets go of it. The broker gives it out again after the visibility timeout:
    jobs look at the database first, so that doing one twice changes nothing.
    """

    def ack(self, delivery_tag: str) -> None:
        try:
            super().ack(delivery_tag)  # type: ignore[no-untyped-call]
        except BaseException:
            virtual.QoS.ack(self, delivery_tag)  # type: ignore[no-untyped-call]
            raise

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        try:
            super().reject(delivery_tag, requeue)  # type: ignore[no-untyped-call]
        except BaseException:
            virtual.QoS.ack(self, delivery_tag)  # type: ignore[no-untyped-call]
            raise


def install() -> None:
    """Celery has no setting for it: the URL's scheme decides on the transport."""
    redis.Channel.QoS = QoS
