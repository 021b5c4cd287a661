"""``/metrics``: what was counted, and what database and broker say at this moment.

Whoever asks shows a token. Without one in the settings nobody may ask.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from django.conf import settings
from django.db.models import Count, Min
from django.utils import timezone
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from webapp.core import metrics
from webapp.operations.hours import measure_answer_change
from webapp.operations.models import ABSENT_AFTER, Presence
from webapp.photos.models import Photo, PhotoStatus
from webapp.photos.services.queue import count_waiting_messages
from webapp.registry.selectors import get_champion

Environ = dict[str, Any]


def may_read(authorization: str) -> bool:
    """Whether the header is ``Bearer`` and the token; compares in constant time."""
    token: str = settings.METRICS_TOKEN
    wanted = f"Bearer {token}".encode()
    return bool(token) and hmac.compare_digest(authorization.encode(), wanted)


def web_exposition() -> bytes:
    """What the processes of this host counted, and the state that all hosts share."""
    shared = CollectorRegistry()
    shared.register(SharedState())
    return generate_latest(metrics.counted()) + generate_latest(shared)


def worker_exposition(
    environ: Environ, start_response: Callable[..., Any]
) -> Iterable[bytes]:
    """A WSGI application of its own, for a worker host has no web process."""
    if not may_read(environ.get("HTTP_AUTHORIZATION", "")):
        start_response("404 Not Found", [("Content-Type", "text/plain")])
        return [b"nothing here\n"]
    start_response("200 OK", [("Content-Type", CONTENT_TYPE_LATEST)])
    return [generate_latest(metrics.counted())]


class SharedState(Collector):
    """Read at each scrape, so that no process has to keep it up to date."""

    def collect(self) -> Iterator[Metric]:
        yield from self._queue()
        champion = get_champion()
        family = GaugeMetricFamily(
            "mien_champion", "The version that serves.", labels=["version"]
        )
        if champion is not None:
            family.add_metric([champion.version], 1)
        yield family
        change = measure_answer_change()
        if change is not None:
            for name, help_text, value in (
                (
                    "mien_drift_psi",
                    "How the champion's answers changed: its last day against before.",
                    change.psi,
                ),
                (
                    "mien_not_sure_share",
                    "Of the champion's faces of the last day.",
                    change.not_sure,
                ),
            ):
                family = GaugeMetricFamily(name, help_text, labels=["version"])
                family.add_metric([change.version], value)
                yield family

    def _queue(self) -> Iterator[Metric]:
        owed = (PhotoStatus.QUEUED, PhotoStatus.PROCESSING)
        rows = {
            status: (count, oldest)
            for status, count, oldest in Photo.objects.filter(status__in=owed)
            .order_by()
            .values_list("status")
            .annotate(count=Count("pk"), oldest=Min("created_at"))
        }
        depth = GaugeMetricFamily(
            "mien_queue_photos", "Photos that are owed a result.", labels=["status"]
        )
        for status in owed:
            depth.add_metric([status.value], rows.get(status, (0, None))[0])
        yield depth
        oldest = min((at for _, at in rows.values()), default=None)
        yield GaugeMetricFamily(
            "mien_queue_oldest_seconds",
            "How long the oldest of them has waited since its upload.",
            (timezone.now() - oldest).total_seconds() if oldest else 0,
        )
        messages = count_waiting_messages()
        yield GaugeMetricFamily(
            "mien_broker_up",
            "1 where the broker answers.",
            0 if messages is None else 1,
        )
        if messages is not None:
            yield GaugeMetricFamily(
                "mien_queue_messages", "Messages that lie in the broker.", messages
            )
        seen = Presence.objects.filter(seen_at__gte=timezone.now() - ABSENT_AFTER)
        workers = GaugeMetricFamily(
            "mien_workers", "Workers seen lately, by their queues.", labels=["queues"]
        )
        for queues, count in (
            seen.exclude(queues="")
            .order_by()
            .values_list("queues")
            .annotate(Count("pk"))
        ):
            workers.add_metric([queues], count)
        yield workers
