"""What the processes of a host count, in Prometheus's words.

Where ``PROMETHEUS_MULTIPROC_DIR`` names a folder all processes of a host count into
it, and any one of them can tell the sum. Names carry their unit; labels never carry
what a visitor wrote.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram
from prometheus_client.multiprocess import MultiProcessCollector

_BUCKETS: Final = (
    *(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5),
    *(1.0, 2.0, 5.0, 10.0, 30.0, 120.0),
)

STAGE_SECONDS: Final = Histogram(
    "mien_stage_seconds",
    "How long each stage of a photo's way takes.",
    ["stage"],
    buckets=_BUCKETS,
)
"""Stages: ``decode`` and ``store`` in the web process; ``wait`` until the claim, from
the upload or from when another try was due, ``load``, ``detect``, ``classify`` and
``finish`` in the worker; ``total`` from the upload to the result."""

REFUSALS: Final = Counter(
    "mien_uploads_refused", "Uploads that were refused, by the code of why.", ["code"]
)
PHOTOS_ENDED: Final = Counter(
    "mien_photos_ended",
    "Photos that are done or failed, and why.",
    ["status", "reason"],
)
PREDICTIONS: Final = Counter(
    "mien_predictions",
    "Faces that were read, by version and what it said.",
    ["version", "emotion", "sure"],
)
REQUESTS: Final = Counter(
    "mien_requests", "Requests that were answered.", ["method", "status"]
)
REQUEST_SECONDS: Final = Histogram(
    "mien_request_seconds",
    "How long a request takes, by the name of its route.",
    ["route"],
    buckets=_BUCKETS,
)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Measure the block as a stage, also where it fails."""
    started_at = time.perf_counter()
    try:
        yield
    finally:
        STAGE_SECONDS.labels(name).observe(time.perf_counter() - started_at)


def counted() -> CollectorRegistry:
    """What was counted: by all processes of this host, or by this one."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return REGISTRY
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    return registry
