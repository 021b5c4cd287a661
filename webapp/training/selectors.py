"""What pages, the API and the command line read of training."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime

from django.conf import settings
from django.db.models import Count, QuerySet

from webapp.core.errors import NotFound
from webapp.curation.models import Correction
from webapp.curation.receipts import Step
from webapp.curation.selectors import count_new_labels
from webapp.photos.models import Prediction
from webapp.photos.selectors import EMOTION_WORDS, training_allowed
from webapp.registry.models import ModelVersion, Promotion
from webapp.registry.selectors import get_champion
from webapp.training.models import (
    UNFINISHED,
    DatasetSnapshot,
    DriftReading,
    FaceComparison,
    RunState,
    Shadow,
    SnapshotFace,
    Split,
    TrainingRun,
)
from webapp.training.services.lineage import versions_with_gone_faces
from webapp.training.services.promotion import version_before


@dataclass(frozen=True, slots=True)
class Figures:
    """Where training stands. ``unfinished`` is the run under way, ``before`` the
    version that a rollback would bring back."""

    champion: ModelVersion | None
    before: ModelVersion | None
    unfinished: TrainingRun | None
    last: TrainingRun | None
    new_labels: int
    labels_needed: int
    has_data_folder: bool
    promotes_itself: bool


def training_figures() -> Figures:
    """Everything that the overview shows."""
    return Figures(
        champion=get_champion(),
        before=version_before(),
        unfinished=all_runs().filter(state__in=UNFINISHED).first(),
        last=all_runs().exclude(state__in=UNFINISHED).first(),
        new_labels=count_new_labels(),
        labels_needed=settings.RETRAIN_AFTER_LABELS,
        has_data_folder=bool(settings.DATASET_DIR),
        promotes_itself=settings.AUTO_PROMOTE,
    )


def all_runs() -> QuerySet[TrainingRun]:
    """Newest first."""
    return TrainingRun.objects.select_related(
        "parent", "start", "candidate", "snapshot", "requested_by"
    )


def get_run(*, number: int) -> TrainingRun:
    """By its number; ``NotFound`` where there is none."""
    run = all_runs().filter(number=number).first()
    if run is None:
        raise NotFound(f"There is no run {number}.")
    return run


def seconds_left(*, run: TrainingRun, now: datetime) -> float | None:
    """How long a running run still takes, were it to go on as it does; None where
    that cannot be told yet."""
    if run.state != RunState.RUNNING or run.started_at is None:
        return None
    if not run.progress_total or not run.progress_done:
        return None
    durations = [row["duration_seconds"] for row in run.curves]
    share_left = 1 - run.progress_done / run.progress_total
    if durations:
        epochs = run.config.get("epochs", len(durations))
        return float(share_left * epochs * sum(durations) / len(durations))
    spent = (now - run.started_at).total_seconds()
    return float(spent * share_left / (1 - share_left))


def face_comparisons(
    *, run: TrainingRun, held_out: bool | None = None
) -> QuerySet[FaceComparison]:
    """Curated faces as parent and candidate read them, those that changed first;
    ``held_out`` keeps those that judged (True) or that trained (False). Erased faces
    are not among them; whoever shows one must look for its consent still."""
    rows = (
        FaceComparison.objects.filter(training_allowed("face__photo"), run=run)
        .select_related("snapshot_face", "face__photo")
        .defer("face__crop")
        .order_by("-broken", "-fixed", "pk")
    )
    if held_out is None:
        return rows
    split = Split.EVALUATION if held_out else Split.TRAIN
    return rows.filter(snapshot_face__split=split)


def all_snapshots() -> QuerySet[DatasetSnapshot]:
    """Newest first, with ``gone``: how many of their faces may not be used any more
    (as far as that is marked, which happens every minute)."""
    rows = DatasetSnapshot.objects.annotate(gone=Count("faces__gone_at"))
    return rows.order_by("-number")


def get_snapshot(*, number: int) -> DatasetSnapshot:
    """By its number; ``NotFound`` where there is none."""
    snapshot = all_snapshots().filter(number=number).first()
    if snapshot is None:
        raise NotFound(f"There is no data set {number}.")
    return snapshot


@dataclass(frozen=True, slots=True)
class VersionRow:
    """A version with where it comes from. ``gone_faces`` counts faces that it learned
    from and that may not be used any more: where it is not 0, a head run makes one
    without them."""

    version: ModelVersion
    run: TrainingRun | None
    gone_faces: int

    @property
    def accuracy(self) -> float | None:
        """On the frozen evaluation set or, where it shipped, on validation."""
        metrics = self.version.manifest.get("metrics", {})
        for name in ("frozen_evaluation", "validation"):
            value = metrics.get(name, {}).get("consensus", {}).get("accuracy")
            if value is not None:
                return float(value)
        return None

    @property
    def outcome(self) -> str:
        return self.run.outcome if self.run else ""


def version_rows() -> list[VersionRow]:
    """Every version, newest first."""
    gone = versions_with_gone_faces()
    made_by = {
        run.candidate_id: run for run in all_runs().filter(candidate__isnull=False)
    }
    return [
        VersionRow(version, made_by.get(version.pk), gone.get(version.pk, 0))
        for version in ModelVersion.objects.select_related("parent")
    ]


def get_version(*, version: str) -> VersionRow:
    """By its name; ``NotFound`` where there is none."""
    row = ModelVersion.objects.select_related("parent").filter(version=version).first()
    if row is None:
        raise NotFound(f"There is no version {version[:80]!r}.")
    run = all_runs().filter(candidate=row).first()
    return VersionRow(row, run, versions_with_gone_faces().get(row.pk, 0))


def promotions() -> QuerySet[Promotion]:
    """Who made which version champion, newest first."""
    return Promotion.objects.select_related("model_version", "previous", "promoted_by")


def shadows() -> QuerySet[Shadow]:
    """Newest first."""
    return Shadow.objects.select_related("candidate", "champion", "requested_by")


def drift_readings(*, days: int = 30) -> list[DriftReading]:
    """The champion's latest readings, oldest first."""
    champion = get_champion()
    if champion is None:
        return []
    rows = DriftReading.objects.filter(model_version=champion).order_by("-day")
    return list(reversed(rows[:days]))


def trained_step(*, flag: Correction) -> Step | None:
    """The receipt's last step: which data set has the face, which version learned from
    it, and what the model says now. None while no data set has it."""
    rows = list(
        SnapshotFace.objects.filter(face=flag.face_id)
        .exclude(split=Split.SET_ASIDE)
        .select_related("snapshot")
        .order_by("snapshot__number")
    )
    if not rows:
        return None
    runs = TrainingRun.objects.filter(snapshot__in=[row.snapshot_id for row in rows])
    done = list(
        runs.filter(state=RunState.DONE)
        .select_related("candidate", "snapshot")
        .order_by("number")
    )
    # One that left it out tells least.
    took = (run for run in done if flag.face_id not in run.left_out)
    run = next(took, done[0] if done else None)
    if run is None or run.candidate is None or run.snapshot is None:
        words = f"It is in data set {rows[0].snapshot.number}, " + (
            "from which a version is being made."
            if runs.filter(state__in=UNFINISHED).exists()
            else "from which no version was made. The next run goes on from there."
        )
        return Step("trained", "Learned from", words, done=False)
    split = next(row.split for row in rows if row.snapshot_id == run.snapshot_id)
    where = f"It is in data set {run.snapshot.number}"
    if flag.face_id in run.left_out:
        words = (
            f"{where}, but it nearly is a face that judges, so version "
            f"{run.candidate.version} did not learn from it."
        )
        return _trained(words, flag, run)
    words = (
        f"{where}, and version {run.candidate.version} learned from it."
        if split == Split.TRAIN
        else f"{where}, among the faces that judge: version {run.candidate.version} "
        "was held against it."
    )
    served = promotions().filter(model_version__training_run__in=runs)
    serving = served.filter(model_version__is_champion=True).first()
    if serving is not None:
        words += f" Since {serving.created_at:%-d %B %Y} such a version serves."
    elif (latest := served.first()) is not None:
        words += (
            f" Such a version served from {latest.created_at:%-d %B %Y}; another one "
            "does by now."
        )
    else:
        words += " It does not serve: people, or the gate, have not let it."
    return _trained(words, flag, run)


def _trained(words: str, flag: Correction, run: TrainingRun) -> Step:
    return Step(
        "trained",
        "Learned from",
        f"{words} {_says_now(flag.face_id)}".strip(),
        done=True,
        done_at=run.ended_at,
    )


def _says_now(face_id: uuid.UUID) -> str:
    champion = get_champion()
    said = Prediction.objects.filter(face=face_id, model_version=champion).first()
    if said is None:
        return ""
    if said.not_sure:
        return "The model now says that it is not sure."
    label = max(EMOTION_WORDS, key=lambda emotion: float(getattr(said, emotion)))
    return f"The model now says {EMOTION_WORDS[label].lower()}."
