"""How far the faces that come in lie from those that the champion knows.

Answers are compared with those on the frozen evaluation set, for of what it learned
from a network is surer; features and qualities with what it learned from.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt
from django.utils import timezone

from ml.labels import EMOTIONS
from webapp.core.errors import DomainError
from webapp.core.storage import StorageAway
from webapp.curation.services.queue import IMPORTED
from webapp.photos.models import Face, PhotoStatus
from webapp.photos.selectors import training_allowed
from webapp.photos.services.serving import NoModelServes, model_server
from webapp.registry.models import ModelVersion
from webapp.training.models import DriftReading, Split, TrainingRun
from webapp.training.services.base import kept_features
from webapp.training.services.comparing import probabilities
from webapp.training.services.snapshots import read_crops

Float64Array = npt.NDArray[np.float64]

WARN_ABOVE: Final = 0.2
"""A population stability index above that is called a shift, by custom; with few faces
chance alone reaches it, so the threshold is never below what chance exceeds once in a
thousand times."""

LEAST_FACES: Final = 50
MOST_FACES: Final = 500
_BINS: Final = 5
_COMPONENTS: Final = 4
_SAMPLE: Final = 2000
_Z999: Final = 3.090232306167813

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Measure:
    """One thing that may shift: see ``DriftReading.measures``."""

    name: str
    words: str
    value: float
    warn_above: float
    warns: bool
    labels: tuple[str, ...]
    reference: tuple[float, ...]
    live: tuple[float, ...]


def measure_drift(*, day: date | None = None) -> DriftReading | None:
    """Measure one day (today by default) against what the champion knows.

    Only visitors' faces that may be used for training are looked at, ``MOST_FACES`` of
    them by chance. None where there are too few, or nothing to compare with.
    """
    day = day or timezone.now().date()
    try:
        serving = model_server.champion()
        data, _ = kept_features(serving.classifier)
    except (NoModelServes, DomainError, StorageAway) as error:
        logger.info("no drift is measured: %s", error)
        return None
    starts_at = datetime.combine(day, time.min, UTC)
    rows = list(
        Face.objects.filter(
            training_allowed("photo"),
            created_at__gte=starts_at,
            created_at__lt=starts_at + timedelta(days=1),
            photo__status=PhotoStatus.DONE,
        )
        .exclude(photo__consent_version=IMPORTED)
        # Ids are random: the first ones are a sample.
        .order_by("pk")
        .values_list("pk", "quality")[:MOST_FACES]
    )
    spec = serving.classifier.manifest.input
    crops = [
        crop for crop in read_crops([pk for pk, _ in rows], spec) if crop is not None
    ]
    if len(crops) < LEAST_FACES:
        return None
    features = serving.classifier.features(np.stack(crops))
    measures = _compare_answers(
        probabilities(serving.classifier, data.evaluation_features),
        probabilities(serving.classifier, features),
    )
    measures.append(
        _compare_features(data.features.astype(np.float64), features.astype(np.float64))
    )
    measures += _compare_quality(serving.version, [quality for _, quality in rows])
    reading, _ = DriftReading.objects.update_or_create(
        model_version=serving.version,
        day=day,
        defaults={
            "faces": len(crops),
            "measures": [asdict(measure) for measure in measures],
            "warns": any(measure.warns for measure in measures),
        },
    )
    return reading


def stability_index(reference: Float64Array, live: Float64Array) -> float:
    """Population stability index of two rows of counts: 0 where the shares are the
    same. Half a face in each bin keeps an empty one from being infinitely far."""
    expected = (reference + 0.5) / (reference + 0.5).sum()
    actual = (live + 0.5) / (live + 0.5).sum()
    return float(((actual - expected) * np.log(actual / expected)).sum())


def threshold(bins: int, reference: int, live: int) -> float:
    """Where a warning begins: ``WARN_ABOVE``, or what chance alone exceeds once in a
    thousand times, whichever is more.

    Without a shift the index over (1/n + 1/m) is chi-squared with one degree less
    than there are bins (Yurdakul, "Statistical Properties of Population Stability
    Index", 2018); its quantile by Wilson and Hilferty's approximation.
    """
    k = bins - 1
    quantile = k * (1 - 2 / (9 * k) + _Z999 * math.sqrt(2 / (9 * k))) ** 3
    return max(WARN_ABOVE, quantile * (1 / max(reference, 1) + 1 / max(live, 1)))


def _measure(
    name: str,
    words: str,
    labels: Sequence[str],
    reference: Float64Array,
    live: Float64Array,
) -> Measure:
    value = stability_index(reference, live)
    limit = threshold(len(labels), int(reference.sum()), int(live.sum()))
    return Measure(
        name=name,
        words=words,
        value=round(value, 4),
        warn_above=round(limit, 4),
        warns=value > limit,
        labels=tuple(labels),
        reference=_shares(reference),
        live=_shares(live),
    )


def _compare_answers(reference: Float64Array, live: Float64Array) -> list[Measure]:
    words = [emotion.value for emotion in EMOTIONS]
    edges = np.array([0.5, 0.7, 0.9, 0.97])
    return [
        _measure(
            "predictions",
            "What the model says",
            words,
            *(
                np.bincount(said.argmax(axis=1), minlength=len(words)).astype(float)
                for said in (reference, live)
            ),
        ),
        _measure(
            "confidence",
            "How sure it is",
            _names(edges, "{:.0%}"),
            *(_counts(said.max(axis=1), edges) for said in (reference, live)),
        ),
    ]


def _compare_features(reference: Float64Array, live: Float64Array) -> Measure:
    """Along the directions in which training faces differ most, the one that has
    shifted furthest."""
    middle = reference.mean(axis=0)
    # Every nth: they lie in the order of their emotions.
    sample = reference[:: -(-len(reference) // _SAMPLE)]
    _, _, directions = np.linalg.svd(sample - middle, full_matrices=False)
    measures = []
    for number, direction in enumerate(directions[:_COMPONENTS], start=1):
        before, after = (reference - middle) @ direction, (live - middle) @ direction
        edges = np.quantile(before, np.linspace(0, 1, _BINS + 1)[1:-1])
        measures.append(
            _measure(
                "features",
                f"What the network sees (direction {number})",
                [f"fifth {i + 1}" for i in range(_BINS)],
                _counts(before, edges),
                _counts(after, edges),
            )
        )
    return max(measures, key=lambda measure: measure.value / measure.warn_above)


def _compare_quality(
    version: ModelVersion, live: Sequence[dict[str, float]]
) -> list[Measure]:
    """Against the curated faces that the champion learned from, where these are
    enough: the base's pictures do not travel with the model."""
    run = TrainingRun.objects.filter(candidate=version).first()
    if run is None or run.snapshot is None:
        return []
    learned = list(
        Face.objects.filter(
            snapshot_faces__snapshot=run.snapshot,
            snapshot_faces__split=Split.TRAIN,
        ).values_list("quality", flat=True)
    )
    out = []
    for name, words in (
        ("brightness", "How bright faces are"),
        ("sharpness", "How sharp faces are"),
        ("size_px", "How large faces are"),
    ):
        before = np.array([row[name] for row in learned if name in row], np.float64)
        after = np.array([row[name] for row in live if name in row], np.float64)
        if min(len(before), len(after)) < LEAST_FACES:
            continue
        edges = np.unique(np.quantile(before, np.linspace(0, 1, _BINS + 1)[1:-1]))
        out.append(
            _measure(
                name,
                words,
                _names(edges, "{:.0f}"),
                _counts(before, edges),
                _counts(after, edges),
            )
        )
    return out


def _counts(values: Float64Array, edges: Float64Array) -> Float64Array:
    bins = np.searchsorted(edges, values, side="right")
    return np.bincount(bins, minlength=len(edges) + 1).astype(np.float64)


def _names(edges: Float64Array, form: str) -> list[str]:
    words = [form.format(edge) for edge in edges]
    between = [f"{low} to {high}" for low, high in pairwise(words)]
    return [f"under {words[0]}", *between, f"{words[-1]} and more"]


def _shares(counts: Float64Array) -> tuple[float, ...]:
    return tuple(round(float(value), 4) for value in counts / max(counts.sum(), 1))
