"""What the API says of training; the pages show the same."""

from __future__ import annotations

from typing import Any

from django.utils import timezone
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from webapp.registry.models import ModelVersion, Promotion
from webapp.training import selectors
from webapp.training import selectors_pages as pages
from webapp.training.cards import model_card
from webapp.training.models import (
    DriftReading,
    FaceComparison,
    GateOutcome,
    Mode,
    RunState,
    Shadow,
    TrainingRun,
    Trigger,
)
from webapp.training.services.acts import MAX_REASON_LENGTH
from webapp.training.services.promotion import (
    MAX_REASON_LENGTH as MAX_PROMOTION_REASON_LENGTH,
)
from webapp.training.services.readings import MAX_HOURS
from webapp.training.services.runs import MAX_SEED
from webapp.training.services.triggers import EVERY_HOURS


class ReadinessSerializer(serializers.Serializer[Any]):
    """Whether a training is worth while and could begin now."""

    new_labels = serializers.IntegerField(
        source="figures.new_labels",
        help_text="Labels that no run has had a chance to learn from.",
    )
    retrain_after = serializers.IntegerField(
        source="figures.labels_needed", help_text="So many start a run by themselves."
    )
    missing = serializers.IntegerField()
    auto_promote = serializers.BooleanField(
        source="figures.promotes_itself",
        help_text="Whether what the gate lets through serves without anybody's word.",
    )
    refusals = serializers.DictField(
        child=serializers.CharField(allow_blank=True),
        help_text="For each mode why no run can begin now; empty where it can.",
    )


class RunRequestSerializer(serializers.Serializer[Any]):
    mode = serializers.ChoiceField(choices=Mode.choices)
    reason = serializers.CharField(
        required=False,
        allow_blank=True,
        max_length=MAX_REASON_LENGTH,
        help_text="For the log.",
    )
    seed = serializers.IntegerField(required=False, min_value=0, max_value=MAX_SEED)
    config = serializers.DictField(
        required=False, help_text="What differs from the defaults of the mode."
    )


class ProgressSerializer(serializers.Serializer[Any]):
    stage = serializers.CharField()
    done = serializers.IntegerField(source="progress_done")
    total = serializers.IntegerField(source="progress_total")
    seconds_taken = serializers.SerializerMethodField()
    seconds_left = serializers.SerializerMethodField()

    def get_seconds_taken(self, run: TrainingRun) -> float | None:
        return pages.seconds_taken(run)

    def get_seconds_left(self, run: TrainingRun) -> float | None:
        return selectors.seconds_left(run=run, now=timezone.now())


class RunSerializer(serializers.Serializer[Any]):
    """One line of the list of runs."""

    number = serializers.IntegerField()
    mode = serializers.ChoiceField(choices=Mode.choices)
    state = serializers.ChoiceField(choices=RunState.choices)
    outcome = serializers.ChoiceField(
        choices=GateOutcome.choices, allow_blank=True, help_text="The gate's."
    )
    trigger = serializers.ChoiceField(choices=Trigger.choices)
    requested_by = serializers.CharField(
        source="requested_by.username", default=None, allow_null=True
    )
    snapshot = serializers.IntegerField(
        source="snapshot.number", default=None, allow_null=True
    )
    candidate = serializers.CharField(
        source="candidate.version", default=None, allow_null=True
    )
    judged_against = serializers.CharField(source="parent.version")
    start = serializers.CharField(source="start.version")
    created_at = serializers.DateTimeField()
    started_at = serializers.DateTimeField(allow_null=True)
    ended_at = serializers.DateTimeField(allow_null=True)
    message = serializers.CharField(
        help_text="Why it failed, or was put off; else empty."
    )


class LineSerializer(serializers.Serializer[Any]):
    at = serializers.DateTimeField()
    text = serializers.CharField()


class RunDetailSerializer(RunSerializer):
    seed = serializers.IntegerField()
    config = serializers.DictField()
    progress = ProgressSerializer(source="*")
    curves = serializers.ListField(
        child=serializers.DictField(), help_text="One row an epoch; empty for heads."
    )
    log = serializers.SerializerMethodField()

    @extend_schema_field(LineSerializer(many=True))
    def get_log(self, run: TrainingRun) -> list[dict[str, Any]]:
        return [{"at": at, "text": text} for at, text in pages.run_log(run=run)]


class FindingSerializer(serializers.Serializer[Any]):
    outcome = serializers.ChoiceField(choices=GateOutcome.choices)
    reason = serializers.CharField()
    more_labels = serializers.IntegerField(allow_null=True)


class DecisionSerializer(serializers.Serializer[Any]):
    outcome = serializers.ChoiceField(choices=GateOutcome.choices)
    findings = FindingSerializer(many=True)
    notes = serializers.ListField(child=serializers.CharField())
    more_labels = serializers.IntegerField(
        allow_null=True,
        help_text="To settle a hold takes at least about so many more labels of "
        "visitors' photos, all of one emotion where the finding speaks of one. null "
        "where it is no hold, or no number would settle it.",
    )


class JudgementSerializer(serializers.Serializer[Any]):
    """The gate's decision, and what was measured: sets, slices, flags, latency."""

    decision = DecisionSerializer()
    report = serializers.DictField()


class ComparedFaceSerializer(serializers.Serializer[Any]):
    """A face that the candidate fixed or broke."""

    face_id = serializers.UUIDField()
    label = serializers.CharField(  # type: ignore[assignment]
        source="snapshot_face.label"
    )
    split = serializers.CharField(source="snapshot_face.split")
    champion = serializers.ListField(
        child=serializers.FloatField(allow_null=True),
        help_text="Four probabilities: happy, sad, surprise, neutral.",
    )
    candidate = serializers.ListField(child=serializers.FloatField(allow_null=True))
    change = serializers.SerializerMethodField(help_text="fixed or broken.")

    def get_change(self, row: FaceComparison) -> str:
        return "fixed" if row.fixed else "broken"


class VersionSerializer(serializers.Serializer[Any]):
    """A version with the state of its file."""

    version = serializers.CharField(source="version.version")
    is_champion = serializers.BooleanField(source="version.is_champion")
    shipped = serializers.BooleanField(source="version.shipped")
    sha256 = serializers.CharField(source="version.sha256")
    # The base class calls the serializer around it by the same name.
    parent = serializers.CharField(  # type: ignore[assignment]
        source="version.parent.version", default=None, allow_null=True
    )
    run = serializers.IntegerField(source="run.number", default=None, allow_null=True)
    snapshot = serializers.IntegerField(
        source="run.snapshot.number", default=None, allow_null=True
    )
    outcome = serializers.CharField(source="run.outcome", default="", allow_blank=True)
    accuracy = serializers.FloatField(
        allow_null=True,
        help_text="On the frozen evaluation set or, where it shipped, on validation.",
    )
    file_trouble = serializers.CharField(
        source="trouble", help_text="Why its file does not load; empty where it does."
    )
    gone_faces = serializers.IntegerField(
        help_text="It learned from so many faces that were erased or withdrawn."
    )
    created_at = serializers.DateTimeField(source="version.created_at")


class VersionDetailSerializer(VersionSerializer):
    manifest = serializers.DictField(source="version.manifest")
    card = serializers.SerializerMethodField(help_text="The model card, Markdown.")

    def get_card(self, row: pages.CheckedVersion) -> str:
        return model_card(row=row).to_markdown()


class PromotionRequestSerializer(serializers.Serializer[Any]):
    reason = serializers.CharField(
        required=False,
        allow_blank=True,
        max_length=MAX_PROMOTION_REASON_LENGTH,
        help_text="To promote, needed where the gate did not say promote, or said so "
        "against another champion, and where the version learned from faces that may "
        "not be used any more. To roll back, never needed.",
    )
    champion = serializers.CharField(
        help_text="The version that serves, as you know it: where another one does, "
        "nothing happens."
    )


class PromotionSerializer(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    version = serializers.CharField(source="model_version.version")
    previous = serializers.CharField(
        source="previous.version", default=None, allow_null=True
    )
    by = serializers.SerializerMethodField(help_text="Null for the system itself.")
    reason = serializers.CharField()
    at = serializers.DateTimeField(source="created_at")

    def get_by(self, row: Promotion) -> str | None:
        return row.promoted_by.username if row.promoted_by else None


class SnapshotSerializer(serializers.Serializer[Any]):
    number = serializers.IntegerField(source="snapshot.number")
    sha256 = serializers.CharField(source="snapshot.sha256")
    created_at = serializers.DateTimeField(source="snapshot.created_at")
    base = serializers.DictField(source="snapshot.base")
    counts = serializers.DictField(source="snapshot.counts")
    faces = serializers.IntegerField()
    erased = serializers.IntegerField()
    withdrawn = serializers.IntegerField()
    seen_by = serializers.SerializerMethodField()

    def get_seen_by(self, row: pages.SnapshotFigures) -> list[str]:
        return [version.version for version in row.seen_by]


class SnapshotDetailSerializer(SnapshotSerializer):
    intact = serializers.BooleanField(
        help_text="Whether the list still is what was frozen."
    )


class ScheduleSerializer(serializers.Serializer[Any]):
    """A head run by the clock, in UTC."""

    enabled = serializers.BooleanField()
    hour = serializers.IntegerField(min_value=0, max_value=23, default=3)
    minute = serializers.IntegerField(min_value=0, max_value=59, default=0)
    day_of_week = serializers.ChoiceField(
        choices=["*", *(str(day) for day in range(7))],
        default="*",
        help_text="0 (Sunday) to 6, or * for every day.",
    )
    every_hours = serializers.ChoiceField(
        choices=EVERY_HOURS,
        default=24,
        help_text="How often; less than 24 goes with every day alone, and hour is one "
        "of the hours.",
    )


class CurrentScheduleSerializer(ScheduleSerializer):
    next_at = serializers.DateTimeField(allow_null=True)


class ShadowRequestSerializer(serializers.Serializer[Any]):
    candidate = serializers.CharField(help_text="The name of a version.")
    hours = serializers.IntegerField(min_value=1, max_value=MAX_HOURS, default=24)


class ShadowSerializer(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    candidate = serializers.CharField(source="candidate.version")
    champion = serializers.CharField(source="champion.version")
    faces = serializers.IntegerField()
    differed = serializers.IntegerField()
    created_at = serializers.DateTimeField()
    ends_at = serializers.DateTimeField()
    ended_at = serializers.DateTimeField(allow_null=True)
    requested_by = serializers.SerializerMethodField()

    def get_requested_by(self, row: Shadow) -> str | None:
        return row.requested_by.username if row.requested_by else None


class DriftSerializer(serializers.Serializer[Any]):
    """One day of the champion: its answers against those on the frozen evaluation
    set, features and qualities against what it learned from."""

    day = serializers.DateField()
    version = serializers.SerializerMethodField()
    faces = serializers.IntegerField()
    warns = serializers.BooleanField()
    measures = serializers.ListField(child=serializers.DictField())

    def get_version(self, row: DriftReading) -> str:
        version: ModelVersion = row.model_version
        return version.version
