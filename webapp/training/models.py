"""DatasetSnapshot, TrainingRun, and what they were made from and came to.

A TrainingRun's ``state`` goes

    queued -> running -> done       (a candidate was made and judged)
                     |-> queued     (its worker died: the next one goes on; or the
                     |               store of the files is away: it waits a minute)
                     |-> failed     (``message`` says why)
                     |-> cancelled
    queued -> cancelled

and never back from ``done``, ``failed`` or ``cancelled``. Every step is a conditional
UPDATE in ``services``; a worker that has lost its lease can take none of them. The
database allows one run that is queued or running.
"""

from __future__ import annotations

import uuid
from typing import Final

from django.conf import settings
from django.db import models

from ml.labels import EMOTIONS
from webapp.core.models import TimedModel
from webapp.photos.models import Face
from webapp.registry.models import ModelVersion

MAX_ATTEMPTS: Final = 6
"""A run whose worker died so often without getting any further is failed."""

_LABELS: Final = [(emotion.value, emotion.value.title()) for emotion in EMOTIONS]


class Split(models.TextChoices):
    """What a face of a snapshot is for. ``set_aside``: it nearly is a face of both
    sides, and so neither trains nor judges."""

    TRAIN = "train"
    EVALUATION = "evaluation"
    SET_ASIDE = "set_aside"


class GoneWhy(models.TextChoices):
    """Why a face may not be used any more."""

    ERASED = "erased"
    WITHDRAWN = "withdrawn"


class Mode(models.TextChoices):
    """``head`` refits the linear head on features, in seconds; ``full`` goes on
    training the whole network on the whole data."""

    HEAD = "head"
    FULL = "full"


class Trigger(models.TextChoices):
    """What set a run going."""

    HAND = "hand"
    LABELS = "labels"
    SCHEDULE = "schedule"
    ERASURE = "erasure"


class RunState(models.TextChoices):
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class GateOutcome(models.TextChoices):
    """The gate's answer; the words of ``ml.gate.Outcome``."""

    PROMOTE = "promote"
    HOLD = "hold"
    REJECT = "reject"


UNFINISHED: Final = (RunState.QUEUED, RunState.RUNNING)


def _is_one_of(
    field: str, choices: type[models.TextChoices], name: str, empty: bool = False
) -> models.CheckConstraint:
    values = [*choices.values, ""] if empty else list(choices.values)
    return models.CheckConstraint(
        condition=models.Q(**{f"{field}__in": values}), name=name
    )


class DatasetSnapshot(TimedModel):
    """A frozen, hashed list of faces with label, weight and split. Never changed.

    ``number`` counts from 1, for people. ``sha256`` is the hash of the manifest
    (``services.snapshots.manifest_text``); ``labels_sha256`` that of what curation
    gave, by which the next one knows whether anything is new. ``base`` says what the
    faces are joined with: ``{"kind": "features" | "folder", "body_sha256", "sha256",
    "train", "evaluation"}``, the last two being counts of faces. ``counts`` holds
    ``{"train": {emotion: n}, "evaluation": {emotion: n}, "set_aside": n, "photos":
    n, "new": n}``.
    """

    number = models.PositiveIntegerField(unique=True)
    sha256 = models.CharField(max_length=64)
    labels_sha256 = models.CharField(max_length=64)
    base = models.JSONField(default=dict)
    counts = models.JSONField(default=dict)
    previous = models.ForeignKey(
        "self", null=True, on_delete=models.PROTECT, related_name="+"
    )

    class Meta:
        ordering = ["-number"]

    def __str__(self) -> str:
        return f"data set {self.number}"


class SnapshotFace(models.Model):
    """One face of a snapshot.

    ``face`` is null once the face was erased, in the very transaction that erases
    it; ``face_key`` and ``photo_key`` are the random ids that it had, so that the
    list stays what was hashed. ``gone_at`` and ``gone_why`` are written, once, when
    the face may not be used any more. ``shares`` are those of the votes over the
    four emotions, in their order; ``weight`` is in (0, 1]. ``reason`` and
    ``sampled`` are the queue's.
    """

    snapshot = models.ForeignKey(
        DatasetSnapshot, on_delete=models.CASCADE, related_name="faces"
    )
    face = models.ForeignKey(
        Face, null=True, on_delete=models.SET_NULL, related_name="snapshot_faces"
    )
    face_key = models.UUIDField(db_index=True)
    photo_key = models.UUIDField()
    label = models.CharField(max_length=16, choices=_LABELS)
    shares = models.JSONField()
    weight = models.FloatField()
    split = models.CharField(max_length=16, choices=Split)
    reason = models.CharField(max_length=16, blank=True, default="")
    sampled = models.BooleanField(default=False)
    decided_at = models.DateTimeField()
    gone_at = models.DateTimeField(null=True)
    gone_why = models.CharField(max_length=16, choices=GoneWhy, blank=True, default="")

    class Meta:
        ordering = ["snapshot", "face_key"]
        constraints = [
            models.UniqueConstraint(
                fields=["snapshot", "face_key"], name="one_row_per_face_and_snapshot"
            ),
            _is_one_of("split", Split, "snapshot_face_split_is_known"),
            models.CheckConstraint(
                condition=models.Q(label__in=[e.value for e in EMOTIONS]),
                name="snapshot_face_label_is_known",
            ),
            models.CheckConstraint(
                condition=models.Q(weight__gt=0, weight__lte=1),
                name="snapshot_face_weight_is_a_share",
            ),
            models.CheckConstraint(
                condition=models.Q(gone_at__isnull=True, gone_why="")
                | models.Q(gone_at__isnull=False, gone_why__in=list(GoneWhy.values)),
                name="snapshot_face_gone_has_why",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.face_key} in {self.snapshot_id} ({self.split})"


class TrainingRun(TimedModel):
    """One job: a snapshot, a config, a seed, curves, an outcome.

    ``parent`` is the version that served when the run was asked for and that the
    candidate is judged against; ``start`` the one whose weights it starts from: the
    same, unless an erased face is to be forgotten. ``lease_token`` names the one
    worker that may write it, until ``lease_expires_at``. ``attempts`` counts workers
    since the last checkpoint. ``put_off_since`` says from when on it has been put off
    again and again, without a checkpoint in between, because the store of the files is
    away; null where it is not. ``stage`` is what it does now, in words;
    ``progress_done`` of ``progress_total`` steps are made. ``curves`` is a list of
    ``ml.train_config.EpochRecord`` as dicts (head runs have none). ``message`` says
    why a run failed, or why it was put off.

    ``outcome`` and ``decision`` are the gate's: ``{"outcome", "findings":
    [{"outcome", "reason", "more_labels"}], "notes": [words], "more_labels"}``, what
    stands in the way first. ``report`` holds what was measured: ``{"sets":
    [{"name", "faces", "champion": EvalReport, "candidate": EvalReport, "change",
    "interval", "fixed", "broken"}], "slices": [{"name", "faces", "champion",
    "candidate", "fixed", "broken"}], "flags": {"faces", "champion", "candidate",
    "held_out": {"faces", "champion", "candidate"}}, "latency": {"champion_ms",
    "candidate_ms", "ratio"}, "left_out": [face_key]}``; shares in [0, 1].
    """

    number = models.PositiveIntegerField(unique=True)
    mode = models.CharField(max_length=8, choices=Mode)
    trigger = models.CharField(max_length=16, choices=Trigger, default=Trigger.HAND)
    requested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    state = models.CharField(max_length=16, choices=RunState, default=RunState.QUEUED)
    seed = models.PositiveIntegerField(default=0)
    config = models.JSONField(default=dict)
    snapshot = models.ForeignKey(
        DatasetSnapshot, null=True, on_delete=models.PROTECT, related_name="runs"
    )
    parent = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="+")
    start = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="+")
    candidate = models.OneToOneField(
        ModelVersion,
        null=True,
        on_delete=models.PROTECT,
        related_name="training_run",
    )

    attempts = models.PositiveSmallIntegerField(default=0)
    lease_token = models.UUIDField(null=True)
    lease_expires_at = models.DateTimeField(null=True)
    # Nobody reads or writes it; it stays while the release before this one may run.
    heartbeat_at = models.DateTimeField(null=True)
    queued_at = models.DateTimeField()
    put_off_since = models.DateTimeField(null=True)
    started_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)
    cancel_requested_at = models.DateTimeField(null=True)
    cancelled_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )

    stage = models.CharField(max_length=120, blank=True, default="")
    progress_done = models.PositiveIntegerField(default=0)
    progress_total = models.PositiveIntegerField(default=0)
    curves = models.JSONField(default=list)
    message = models.CharField(max_length=1000, blank=True, default="")

    outcome = models.CharField(
        max_length=8, choices=GateOutcome, blank=True, default=""
    )
    decision = models.JSONField(default=dict)
    report = models.JSONField(default=dict)

    class Meta:
        ordering = ["-number"]
        constraints = [
            models.UniqueConstraint(
                models.Case(
                    models.When(state__in=["queued", "running"], then=models.Value(1))
                ),
                name="one_run_at_a_time",
            ),
            _is_one_of("mode", Mode, "run_mode_is_known"),
            _is_one_of("trigger", Trigger, "run_trigger_is_known"),
            _is_one_of("state", RunState, "run_state_is_known"),
            _is_one_of("outcome", GateOutcome, "run_outcome_is_known", empty=True),
            models.CheckConstraint(
                condition=models.Q(
                    state="running",
                    lease_token__isnull=False,
                    lease_expires_at__isnull=False,
                )
                | models.Q(
                    ~models.Q(state="running"),
                    lease_token__isnull=True,
                    lease_expires_at__isnull=True,
                ),
                name="run_lease_while_running",
            ),
            models.CheckConstraint(
                condition=models.Q(
                    state="done",
                    outcome__gt="",
                    candidate__isnull=False,
                    snapshot__isnull=False,
                )
                | models.Q(~models.Q(state="done"), outcome=""),
                name="run_done_has_outcome",
            ),
            models.CheckConstraint(
                condition=models.Q(~models.Q(state="failed"))
                | models.Q(message__gt=""),
                name="run_failed_has_reason",
            ),
            models.CheckConstraint(
                condition=models.Q(
                    state__in=["queued", "running"], ended_at__isnull=True
                )
                | models.Q(
                    ~models.Q(state__in=["queued", "running"]), ended_at__isnull=False
                ),
                name="run_ended_has_time",
            ),
        ]

    def __str__(self) -> str:
        return f"run {self.number} ({self.mode}, {self.state})"

    @property
    def is_finished(self) -> bool:
        return self.state not in UNFINISHED

    @property
    def left_out(self) -> set[uuid.UUID]:
        """Faces of its data set that were to train and did not, for they nearly are
        faces that judge: of the frozen evaluation set or, in a full run, of test."""
        return {uuid.UUID(key) for key in self.report.get("left_out", ())}


class RunLine(models.Model):
    """One line of a run's log, in order of ``pk``."""

    run = models.ForeignKey(TrainingRun, on_delete=models.CASCADE, related_name="lines")
    created_at = models.DateTimeField(auto_now_add=True)
    text = models.CharField(max_length=500)

    class Meta:
        ordering = ["pk"]

    def __str__(self) -> str:
        return self.text


class FaceComparison(models.Model):
    """What parent and candidate of a run said of one curated face of its snapshot.

    ``champion`` and ``candidate`` are four probabilities in ``EMOTIONS`` order.
    ``fixed`` says that only the candidate is right, ``broken`` that only the
    champion was. Whether the face trained the candidate stands in
    ``snapshot_face.split``. Erased with the face.
    """

    run = models.ForeignKey(
        TrainingRun, on_delete=models.CASCADE, related_name="comparisons"
    )
    snapshot_face = models.ForeignKey(
        SnapshotFace, on_delete=models.CASCADE, related_name="comparisons"
    )
    face = models.ForeignKey(
        Face, on_delete=models.CASCADE, related_name="run_comparisons"
    )
    champion = models.JSONField()
    candidate = models.JSONField()
    fixed = models.BooleanField()
    broken = models.BooleanField()

    class Meta:
        ordering = ["pk"]
        constraints = [
            models.UniqueConstraint(
                fields=["run", "face"], name="one_comparison_per_face_and_run"
            ),
            models.CheckConstraint(
                condition=~models.Q(fixed=True, broken=True),
                name="comparison_is_one_thing",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.snapshot_face_id} in {self.run_id}"


class Shadow(TimedModel):
    """That a candidate reads live faces beside the champion, until ``ends_at`` or
    until somebody ends it (``ended_at``).

    Only faces of visitors that may be used for training are read, from ``created_at``
    on. What the candidate says is a ``Prediction`` of its own; where it differs, the
    face goes to curation. ``faces`` and ``differed`` count.
    """

    candidate = models.ForeignKey(
        ModelVersion, on_delete=models.PROTECT, related_name="shadows"
    )
    champion = models.ForeignKey(
        ModelVersion, on_delete=models.PROTECT, related_name="+"
    )
    requested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    ends_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True)
    faces = models.PositiveIntegerField(default=0)
    differed = models.PositiveIntegerField(default=0)

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["candidate"],
                condition=models.Q(ended_at__isnull=True),
                name="one_shadow_per_candidate",
            ),
            models.CheckConstraint(
                condition=models.Q(differed__lte=models.F("faces")),
                name="shadow_differed_is_a_part",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.candidate_id} beside {self.champion_id}"


class DriftReading(TimedModel):
    """How far the faces of one day lie from those that the champion knows: its answers
    from those on the frozen evaluation set, the rest from what it learned from.

    ``measures`` is a list of ``{"name", "words", "value", "warn_above", "warns",
    "labels", "reference", "live"}``: ``value`` is a population stability index,
    ``reference`` and ``live`` are shares over ``labels``.
    """

    model_version = models.ForeignKey(
        ModelVersion, on_delete=models.PROTECT, related_name="drift"
    )
    day = models.DateField()
    faces = models.PositiveIntegerField()
    measures = models.JSONField()
    warns = models.BooleanField(default=False)

    class Meta:
        ordering = ["-day"]
        constraints = [
            models.UniqueConstraint(
                fields=["model_version", "day"], name="one_drift_reading_a_day"
            )
        ]

    def __str__(self) -> str:
        return f"{self.model_version_id} on {self.day}"
