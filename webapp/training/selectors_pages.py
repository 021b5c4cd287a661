"""What the pages of training, and the API beside them, show beside ``selectors``:
figures in rows, pages of lists, sentences why not."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from django.core.paginator import EmptyPage, Page, PageNotAnInteger, Paginator
from django.db.models import Count, Q, QuerySet
from django.utils import timezone

from ml.labels import EMOTIONS
from ml.manifest import ManifestError, ModelFileError, verify_model
from webapp.core.errors import DomainError, NotFound
from webapp.core.storage import StorageAway
from webapp.registry.models import ModelVersion
from webapp.registry.selectors import read_model_file
from webapp.training.models import (
    DatasetSnapshot,
    FaceComparison,
    Mode,
    Shadow,
    SnapshotFace,
    Split,
    TrainingRun,
)
from webapp.training.selectors import (
    Figures,
    VersionRow,
    all_runs,
    face_comparisons,
    get_version,
    shadows,
    training_figures,
)
from webapp.training.services.runs import check_request
from webapp.training.services.snapshots import gone_faces
from webapp.training.services.triggers import (
    Schedule,
    get_schedule,
)

PAGE_SIZE: Final = 20
DRIFT_DAYS: Final = 90
_LINES_SHOWN: Final = 200


def page_of(rows: QuerySet[Any] | Sequence[Any], number: str) -> Page[Any]:
    """One page, from 1. Raises ``NotFound``."""
    try:
        return Paginator(rows, PAGE_SIZE).page(number or 1)
    except (PageNotAnInteger, EmptyPage) as error:
        raise NotFound("There is no such page.") from error


# --- Runs -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether a training is worth while, and which kinds could begin now.

    ``refusals`` says for each mode why no run can begin; empty where it can.
    """

    figures: Figures
    refusals: dict[str, str]

    @property
    def missing(self) -> int:
        """So many labels are still to come."""
        return max(self.figures.labels_needed - self.figures.new_labels, 0)

    @property
    def percent(self) -> float:
        share = self.figures.new_labels / self.figures.labels_needed
        return round(100 * min(share, 1), 1)


def readiness() -> Readiness:
    """What stands now: all labels are read for it, once for each mode."""
    return Readiness(
        training_figures(), {mode.value: refusal_of(mode=mode) for mode in Mode}
    )


def refusal_of(*, mode: Mode) -> str:
    """Why a run of that kind cannot begin now; empty where it can."""
    try:
        check_request(mode=mode)
    except DomainError as error:
        return str(error)
    return ""


def run_log(*, run: TrainingRun) -> list[tuple[datetime, str]]:
    """The latest lines, oldest of them first."""
    lines = run.lines.order_by("-pk").values_list("created_at", "text")
    return list(lines[:_LINES_SHOWN])[::-1]


def seconds_taken(run: TrainingRun) -> float | None:
    """From the first worker to the end, or to now."""
    if run.started_at is None:
        return None
    return ((run.ended_at or timezone.now()) - run.started_at).total_seconds()


# --- The gate's faces ---------------------------------------------------------------


def changed_faces(*, run: TrainingRun, change: str) -> QuerySet[FaceComparison]:
    """Faces that the candidate ``fixed`` or left ``broken``, those that judge before
    those that it learned from."""
    changed = Q(fixed=True) if change == "fixed" else Q(broken=True)
    rows = face_comparisons(run=run).filter(changed)
    return rows.order_by("snapshot_face__split", "pk")


@dataclass(frozen=True, slots=True)
class FigureRow:
    """One figure of both versions, in [0, 1]; ``change`` is candidate less
    champion."""

    name: str
    champion: float | None
    candidate: float | None
    champion_interval: list[float] | None = None
    candidate_interval: list[float] | None = None
    support: int | None = None

    @property
    def change(self) -> float | None:
        if self.champion is None or self.candidate is None:
            return None
        return self.candidate - self.champion


@dataclass(frozen=True, slots=True)
class SetComparison:
    """What both versions reached on one set of faces."""

    measured: dict[str, Any]
    figures: list[FigureRow]
    classes: list[FigureRow]


_FIGURES: Final = (
    ("Accuracy", "accuracy"),
    ("Macro F1", "macro_f1"),
    ("Calibration error", "ece"),
    ("Is sure of", "coverage"),
    ("Right on those", "covered_accuracy"),
)


def set_comparisons(report: dict[str, Any]) -> list[SetComparison]:
    """The sets of a run's report, or of a comparison made on request."""
    return [
        SetComparison(
            measured=row,
            figures=figure_rows(row["champion"], row["candidate"]),
            classes=class_rows(row["champion"], row["candidate"]),
        )
        for row in report.get("sets", [])
    ]


def figure_rows(
    left: dict[str, Any] | None, right: dict[str, Any] | None
) -> list[FigureRow]:
    """Each may be None: its answers were no numbers."""
    left, right = left or {}, right or {}
    return [
        FigureRow(
            name,
            left.get(key),
            right.get(key),
            left.get("intervals", {}).get(key),
            right.get("intervals", {}).get(key),
        )
        for name, key in _FIGURES
    ]


def class_rows(
    left: dict[str, Any] | None, right: dict[str, Any] | None
) -> list[FigureRow]:
    """Recall of each emotion, which the gate looks at."""
    before = (left or {}).get("per_class", {})
    after = (right or {}).get("per_class", {})
    rows = []
    for emotion in EMOTIONS:
        one, other = before.get(emotion.value, {}), after.get(emotion.value, {})
        support = one.get("support", other.get("support"))
        if not support:
            # Of no faces none are found, and none are missed.
            rows.append(FigureRow(emotion.value, None, None, support=support))
            continue
        rows.append(
            FigureRow(
                emotion.value, one.get("recall"), other.get("recall"), support=support
            )
        )
    return rows


# --- Versions -----------------------------------------------------------------------


def file_trouble(*, model_version: ModelVersion) -> str:
    """Why a version's file would not load; empty where it is the one meant. Raises
    ``StorageAway``."""
    try:
        manifest, data = read_model_file(model_version)
        verify_model(data, manifest)
    except (ManifestError, ModelFileError) as error:
        return str(error)
    return ""


@dataclass(frozen=True, slots=True)
class CheckedVersion(VersionRow):
    """A version with why its file would not load. ``is_away`` says that the file
    itself may be whole: the store of the files is out of reach."""

    trouble: str = ""
    is_away: bool = False


def check_versions(rows: Sequence[VersionRow]) -> list[CheckedVersion]:
    """Reads every file."""
    return [_checked(row) for row in rows]


def _checked(row: VersionRow) -> CheckedVersion:
    try:
        trouble, is_away = file_trouble(model_version=row.version), False
    except StorageAway as error:
        trouble, is_away = f"it is out of reach for now: {error}", True
    return CheckedVersion(row.version, row.run, row.gone_faces, trouble, is_away)


# --- Schedule -----------------------------------------------------------------------


def next_run_at(schedule: Schedule, *, now: datetime | None = None) -> datetime | None:
    """When the schedule starts a run; None where it is off. UTC."""
    if not schedule.enabled:
        return None
    now = now or timezone.now()
    midnight = now.replace(hour=0, minute=schedule.minute, second=0, microsecond=0)
    for days in range(8):
        day = midnight + timedelta(days=days)
        # Python counts from Monday, cron from Sunday.
        if schedule.day_of_week not in ("*", str((day.weekday() + 1) % 7)):
            continue
        for hour in schedule.hours:
            if (at := day.replace(hour=hour)) > now:
                return at
    return None


def current_schedule() -> tuple[Schedule, datetime | None]:
    schedule = get_schedule()
    return schedule, next_run_at(schedule)


# --- Data sets ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SnapshotFigures:
    """A data set with what became of it. ``erased`` and ``withdrawn`` count its faces
    that may not be used any more, ``seen_by`` are versions that were made from it."""

    snapshot: DatasetSnapshot
    faces: int
    train: int
    evaluation: int
    erased: int
    withdrawn: int
    seen_by: list[ModelVersion]

    def versions(self) -> list[CheckedVersion]:
        return check_versions([get_version(version=v.version) for v in self.seen_by])


def snapshot_figures(of: Sequence[DatasetSnapshot]) -> list[SnapshotFigures]:
    ids = [snapshot.pk for snapshot in of]
    faces = dict(
        SnapshotFace.objects.filter(snapshot__in=ids)
        .order_by()
        .values_list("snapshot")
        .annotate(Count("pk"))
    )
    gone = {
        snapshot: (erased, withdrawn)
        for snapshot, erased, withdrawn in gone_faces()
        .filter(snapshot__in=ids)
        .order_by()
        .values("snapshot")
        .annotate(
            erased=Count("pk", filter=Q(face__isnull=True)),
            withdrawn=Count("pk", filter=Q(face__isnull=False)),
        )
        .values_list("snapshot", "erased", "withdrawn")
    }
    seen: dict[uuid.UUID, list[ModelVersion]] = {}
    for run in all_runs().filter(snapshot__in=ids, candidate__isnull=False):
        assert run.snapshot_id is not None
        assert run.candidate is not None
        seen.setdefault(run.snapshot_id, []).append(run.candidate)
    return [
        SnapshotFigures(
            snapshot,
            faces.get(snapshot.pk, 0),
            sum(snapshot.counts.get(Split.TRAIN.value, {}).values()),
            sum(snapshot.counts.get(Split.EVALUATION.value, {}).values()),
            *gone.get(snapshot.pk, (0, 0)),
            seen.get(snapshot.pk, []),
        )
        for snapshot in of
    ]


# --- Shadow and drift -----------------------------------------------------------------


def get_shadow(*, shadow_id: uuid.UUID) -> Shadow:
    shadow = shadows().filter(pk=shadow_id).first()
    if shadow is None:
        raise NotFound("There is no such shadow.")
    return shadow


def shadow_candidates() -> QuerySet[ModelVersion]:
    """Versions that could read beside the champion."""
    reading = Shadow.objects.filter(ended_at__isnull=True).values("candidate")
    return (
        ModelVersion.objects.filter(is_champion=False)
        .exclude(pk__in=reading)
        .order_by("-created_at")
    )
