"""Correction, Claim, QueueItem, Consensus, and what measures people.

A face on the queue goes

    waiting -> settled   (decided, disputed, or withdrawn)
    settled -> waiting   (a vote was undone, or an import changed the votes)

and ``services.consensus`` alone moves it, from the votes that are there: nothing
here is counted up or down. A Claim goes ``held -> voted`` or ``held -> skipped``;
one that ran out or was given back is deleted, so that its slot is free.
"""

from __future__ import annotations

from typing import Final

from django.conf import settings
from django.db import models

from ml.consensus import VERDICTS
from webapp.core.models import TimedModel
from webapp.photos.models import Face

MAX_SLOTS: Final = 3
"""Two people are asked; where they disagree, a third."""

MAX_COMMENT_LENGTH: Final = 500
MAX_BULK: Final = 200
"""Faces that one click may concern."""

MAX_FOLDER_LENGTH: Final = 500
MAX_DURATION_MS: Final = 3_600_000


class Verdict(models.TextChoices):
    """What a human can say of a face: the four emotions, or that it is none."""

    HAPPY = "happy"
    SAD = "sad"
    SURPRISE = "surprise", "Surprised"
    NEUTRAL = "neutral"
    UNCLEAR = "unclear"
    NOT_A_FACE = "not_a_face", "Not a face"


KEYS: Final[dict[str, str]] = {
    verdict: str(number) for number, verdict in enumerate(Verdict.values, start=1)
}
"""The key of each verdict at the desk."""


class Source(models.TextChoices):
    """In which role somebody spoke; it decides what their word weighs."""

    VISITOR = "visitor"
    ANNOTATOR = "annotator"
    ADJUDICATOR = "adjudicator"
    IMPORT = "import"


class Reason(models.TextChoices):
    """Why a face is on the queue."""

    FLAG = "flag"
    UNSURE = "unsure"
    DIFFER = "differ"
    SAMPLE = "sample"
    SUSPECT = "suspect"
    MANUAL = "manual"


class QueueStatus(models.TextChoices):
    WAITING = "waiting"
    SETTLED = "settled"


class ClaimStatus(models.TextChoices):
    HELD = "held"
    VOTED = "voted"
    SKIPPED = "skipped"


class ConsensusState(models.TextChoices):
    OPEN = "open"
    DECIDED = "decided"
    DISPUTED = "disputed"


class ConsensusMethod(models.TextChoices):
    """How a decision came about."""

    NONE = "none"
    MAJORITY = "majority"
    WEIGHTED = "weighted"
    ADJUDICATED = "adjudicated"


assert tuple(Verdict.values) == VERDICTS


def _is_one_of(
    field: str, choices: type[models.TextChoices], name: str
) -> models.CheckConstraint:
    return models.CheckConstraint(
        condition=models.Q(**{f"{field}__in": list(choices.values)}), name=name
    )


class Correction(TimedModel):
    """What one human said of one Face. Append-only: a change of mind is another row,
    and the old one gets ``retracted_at``. What an adjudication took the place of has
    the very moment of that as its own: where it is undone, it counts again.

    Either ``author`` (staff) or ``visitor_key`` (the hash of a browser's token) says
    who. A visitor's Correction is a Flag. ``duration_ms`` is how long the face was
    looked at, ``key`` the key that was pressed; both are empty where nobody
    measured. ``batch`` ties together what was labelled in one go.
    """

    face = models.ForeignKey(Face, on_delete=models.CASCADE, related_name="corrections")
    author = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        on_delete=models.PROTECT,
        related_name="corrections",
    )
    visitor_key = models.CharField(max_length=64, blank=True, default="")
    verdict = models.CharField(max_length=16, choices=Verdict)
    source = models.CharField(max_length=16, choices=Source)
    duration_ms = models.PositiveIntegerField(null=True)
    key = models.CharField(max_length=16, blank=True, default="")
    comment = models.CharField(max_length=MAX_COMMENT_LENGTH, blank=True, default="")
    batch = models.UUIDField(null=True, db_index=True)
    retracted_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["created_at", "pk"]
        indexes = [
            models.Index(fields=["author", "-created_at"], name="correction_of_author")
        ]
        constraints = [
            _is_one_of("verdict", Verdict, "correction_verdict_is_known"),
            _is_one_of("source", Source, "correction_source_is_known"),
            models.CheckConstraint(
                condition=models.Q(
                    source="visitor", author__isnull=True, visitor_key__gt=""
                )
                | models.Q(
                    ~models.Q(source="visitor"), author__isnull=False, visitor_key=""
                ),
                name="correction_has_one_author",
            ),
            models.CheckConstraint(
                condition=models.Q(duration_ms__isnull=True)
                | models.Q(duration_ms__lte=MAX_DURATION_MS),
                name="correction_duration_is_bounded",
            ),
            models.UniqueConstraint(
                fields=["face", "author"],
                condition=models.Q(retracted_at__isnull=True, author__isnull=False),
                name="one_correction_per_person_and_face",
            ),
            models.UniqueConstraint(
                fields=["face", "visitor_key"],
                condition=models.Q(retracted_at__isnull=True)
                & ~models.Q(visitor_key=""),
                name="one_flag_per_visitor_and_face",
            ),
            models.UniqueConstraint(
                fields=["face"],
                condition=models.Q(retracted_at__isnull=True, source="adjudicator"),
                name="one_adjudication_per_face",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.verdict} of {self.face_id}"


class QueueItem(TimedModel):
    """That a face is to be labelled, why, and how soon.

    ``slots`` is how many people are asked. ``sampled`` says that chance alone chose
    the face, so that it may speak for all. ``priority`` is the order's, higher is
    sooner.
    """

    face = models.OneToOneField(
        Face, on_delete=models.CASCADE, related_name="queue_item"
    )
    reason = models.CharField(max_length=16, choices=Reason)
    sampled = models.BooleanField(default=False)
    status = models.CharField(
        max_length=16, choices=QueueStatus, default=QueueStatus.WAITING
    )
    slots = models.PositiveSmallIntegerField(default=2)
    priority = models.FloatField(default=0.0)

    class Meta:
        ordering = ["-priority", "created_at"]
        indexes = [
            models.Index(
                fields=["-priority", "created_at"],
                condition=models.Q(status="waiting"),
                name="queue_waiting",
            )
        ]
        constraints = [
            _is_one_of("reason", Reason, "queue_reason_is_known"),
            _is_one_of("status", QueueStatus, "queue_status_is_known"),
            models.CheckConstraint(
                condition=models.Q(slots__gte=1, slots__lte=MAX_SLOTS),
                name="queue_slots_are_bounded",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.face_id} ({self.reason})"


class Claim(TimedModel):
    """An annotator's lease on a Face, until ``expires_at``; afterwards, that they
    voted or skipped, ``ended_at``. A gold face takes no slot. ``undone_at`` says
    that the face came back to its annotator by undo."""

    face = models.ForeignKey(Face, on_delete=models.CASCADE, related_name="claims")
    person = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="claims"
    )
    slot = models.PositiveSmallIntegerField(null=True)
    is_gold = models.BooleanField(default=False)
    status = models.CharField(
        max_length=16, choices=ClaimStatus, default=ClaimStatus.HELD
    )
    expires_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)
    undone_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["created_at"]
        indexes = [
            models.Index(fields=["person", "status"], name="claim_of_person"),
            models.Index(
                fields=["expires_at"],
                condition=models.Q(status="held"),
                name="claim_held_until",
            ),
        ]
        constraints = [
            _is_one_of("status", ClaimStatus, "claim_status_is_known"),
            models.UniqueConstraint(
                fields=["face", "person"], name="nobody_sees_a_face_twice"
            ),
            models.UniqueConstraint(
                fields=["face", "slot"],
                condition=models.Q(slot__isnull=False),
                name="one_person_per_slot",
            ),
            models.CheckConstraint(
                condition=models.Q(slot__isnull=True)
                | models.Q(slot__gte=1, slot__lte=MAX_SLOTS),
                name="claim_slot_is_bounded",
            ),
            models.CheckConstraint(
                condition=models.Q(is_gold=True, slot__isnull=True)
                | models.Q(status="skipped", slot__isnull=True)
                | models.Q(
                    ~models.Q(status="skipped"), is_gold=False, slot__isnull=False
                ),
                name="claim_takes_a_slot",
            ),
            models.CheckConstraint(
                condition=models.Q(
                    status="held", expires_at__isnull=False, ended_at__isnull=True
                )
                | models.Q(
                    ~models.Q(status="held"),
                    expires_at__isnull=True,
                    ended_at__isnull=False,
                    undone_at__isnull=True,
                ),
                name="claim_lease_while_held",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.face_id} by {self.person_id} ({self.status})"


class Consensus(TimedModel):
    """What a Face's current Corrections add up to; derived, and derived again with
    every vote.

    ``tally`` counts votes in ``ml.consensus.VERDICTS`` order; ``agreement`` is the
    share of the most frequent verdict, in [0, 1]. ``quality`` is how likely the
    verdict is right, in [0, 1], where people were weighed; else null. ``disputed_at``
    is when it came to be disputed, null where it is not.
    """

    face = models.OneToOneField(
        Face, on_delete=models.CASCADE, related_name="consensus"
    )
    state = models.CharField(
        max_length=16, choices=ConsensusState, default=ConsensusState.OPEN
    )
    verdict = models.CharField(max_length=16, choices=Verdict, blank=True, default="")
    method = models.CharField(
        max_length=16, choices=ConsensusMethod, default=ConsensusMethod.NONE
    )
    tally = models.JSONField(default=list)
    votes = models.PositiveSmallIntegerField(default=0)
    agreement = models.FloatField(default=0.0)
    quality = models.FloatField(null=True)
    decided_at = models.DateTimeField(null=True, db_index=True)
    disputed_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            _is_one_of("state", ConsensusState, "consensus_state_is_known"),
            _is_one_of("method", ConsensusMethod, "consensus_method_is_known"),
            models.CheckConstraint(
                condition=models.Q(
                    models.Q(verdict__in=list(Verdict.values)),
                    ~models.Q(method="none"),
                    state="decided",
                    decided_at__isnull=False,
                )
                | models.Q(
                    ~models.Q(state="decided"),
                    verdict="",
                    method="none",
                    decided_at__isnull=True,
                ),
                name="consensus_decided_has_verdict",
            ),
            models.CheckConstraint(
                condition=models.Q(agreement__gte=0, agreement__lte=1),
                name="consensus_agreement_is_a_share",
            ),
            models.CheckConstraint(
                condition=models.Q(quality__isnull=True)
                | models.Q(quality__gte=0, quality__lte=1),
                name="consensus_quality_is_a_share",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.face_id}: {self.verdict or self.state}"


class GoldFace(TimedModel):
    """A Face whose verdict is known beyond doubt: it measures annotators."""

    face = models.OneToOneField(Face, on_delete=models.CASCADE, related_name="gold")
    verdict = models.CharField(max_length=16, choices=Verdict)
    chosen_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )

    class Meta:
        ordering = ["created_at"]
        constraints = [_is_one_of("verdict", Verdict, "gold_verdict_is_known")]

    def __str__(self) -> str:
        return f"{self.face_id}: {self.verdict}"


class Pause(TimedModel):
    """That somebody labels no more for now, since when, why, and who lifted it."""

    person = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="pauses"
    )
    reason = models.CharField(max_length=MAX_COMMENT_LENGTH)
    lifted_at = models.DateTimeField(null=True)
    lifted_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["person"],
                condition=models.Q(lifted_at__isnull=True),
                name="one_pause_at_a_time",
            )
        ]

    def __str__(self) -> str:
        return f"{self.person_id} since {self.created_at:%Y-%m-%d}"


class DatasetImport(TimedModel):
    """A data folder that an admin had looked through, with how far it got.

    Goes ``queued -> running -> done`` or ``failed``; ``message`` says why. A worker
    that died leaves ``heartbeat_at`` behind, and the sweep queues the import again:
    faces that are there already are passed over. ``seen`` is how far any worker got,
    ``attempts`` how many have begun since one got further.
    """

    class Status(models.TextChoices):
        QUEUED = "queued"
        RUNNING = "running"
        DONE = "done"
        FAILED = "failed"

    folder = models.CharField(max_length=MAX_FOLDER_LENGTH)
    options = models.JSONField(default=dict)
    status = models.CharField(max_length=16, choices=Status, default=Status.QUEUED)
    seen = models.PositiveIntegerField(default=0)
    total = models.PositiveIntegerField(default=0)
    queued_faces = models.PositiveIntegerField(default=0)
    message = models.CharField(max_length=1000, blank=True, default="")
    attempts = models.PositiveSmallIntegerField(default=0, db_default=0)
    heartbeat_at = models.DateTimeField(null=True)
    done_at = models.DateTimeField(null=True)
    started_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(status__in=["queued", "running", "done", "failed"]),
                name="dataset_import_status_is_known",
            )
        ]

    def __str__(self) -> str:
        return f"{self.folder} ({self.status})"
