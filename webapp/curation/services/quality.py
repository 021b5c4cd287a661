"""Gold faces, and the pause of whoever misses too many of them."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from django.db import transaction
from django.db.models import F, Max, OuterRef, Q, Subquery, Window
from django.db.models.functions import RowNumber
from django.utils import timezone

from ml.consensus import decide
from webapp.accounts.models import User
from webapp.core.errors import DomainError, NotFound
from webapp.curation.models import (
    MAX_BULK,
    ClaimStatus,
    Consensus,
    ConsensusMethod,
    ConsensusState,
    Correction,
    GoldFace,
    Pause,
    Reason,
    Source,
    Verdict,
)

GOLD_WINDOW: Final = 30
GOLD_MINIMUM: Final = 10
"""Fewer answers say nothing yet."""

GOLD_PASS: Final = 0.7

LABELS_PER_GOLD: Final = 15
"""As many as lie between two gold faces on average; see ``claims``."""

_FRIENDLY: Final = (
    "Thank you for your labels. On the faces whose answer we know, {wrong} of your "
    "last {answers} were different, so we stop here for the moment: nothing is lost. "
    "Please talk to an admin; looking at the examples together mostly helps."
)


@dataclass(frozen=True, slots=True)
class GoldScore:
    """Of a person's last answers on gold faces, how many there are and how many
    were right."""

    answers: int
    right: int

    @property
    def accuracy(self) -> float | None:
        return self.right / self.answers if self.answers else None

    @property
    def is_too_low(self) -> bool:
        return self.answers >= GOLD_MINIMUM and self.right < GOLD_PASS * self.answers


def gold_scores(*, people: Sequence[User], until: datetime) -> dict[int, GoldScore]:
    """Of each person, by id, over the last thirty gold answers up to a moment, since
    the last pause was lifted."""
    lifted = (
        Pause.objects.filter(person=OuterRef("author"))
        .order_by()
        .values("person")
        .annotate(last=Max("lifted_at"))
        .values("last")
    )
    answers = (
        Correction.objects.filter(
            author__in=people,
            created_at__lte=until,
            source=Source.ANNOTATOR,
            retracted_at__isnull=True,
            face__gold__isnull=False,
            face__claims__person=F("author"),
            face__claims__is_gold=True,
            face__claims__status=ClaimStatus.VOTED,
        )
        .alias(lifted=Subquery(lifted))
        .filter(Q(lifted__isnull=True) | Q(created_at__gt=F("lifted")))
        .annotate(
            place=Window(RowNumber(), partition_by="author", order_by="-created_at")
        )
        .filter(place__lte=GOLD_WINDOW)
        .values_list("author", "verdict", "face__gold__verdict")
    )
    right: dict[int, list[bool]] = {person.pk: [] for person in people}
    for author, given, known in answers:
        right[author].append(given == known)
    return {pk: GoldScore(len(rows), sum(rows)) for pk, rows in right.items()}


def gold_score(*, person: User) -> GoldScore:
    """Of one person, up to now."""
    return gold_scores(people=[person], until=timezone.now())[person.pk]


def pause_if_unreliable(*, person: User) -> Pause | None:
    """Pause somebody who is right on too few gold faces; None where they are not."""
    score = gold_score(person=person)
    if not score.is_too_low:
        return None
    pause, _ = Pause.objects.get_or_create(
        person=person,
        lifted_at=None,
        defaults={
            "reason": _FRIENDLY.format(
                wrong=score.answers - score.right, answers=score.answers
            )
        },
    )
    return pause


def lift_pause(*, person: User, lifted_by: User) -> bool:
    """Let somebody label again, with a clean slate; False where nobody paused them."""
    return bool(
        Pause.objects.filter(person=person, lifted_at__isnull=True).update(
            lifted_at=timezone.now(), lifted_by=lifted_by
        )
    )


def choose_gold(*, face_id: uuid.UUID, chosen_by: User | None) -> GoldFace:
    """Let a decided face measure people, with the verdict that it has now.

    The same again changes nothing. Raises ``DomainError`` where nothing is decided,
    and where weighing decided against most votes: that is not beyond doubt.
    """
    consensus = Consensus.objects.filter(face_id=face_id).first()
    if consensus is None or consensus.state != ConsensusState.DECIDED:
        raise DomainError(
            "Only a face that has been decided can be gold.", code="not_decided"
        )
    if (
        consensus.method == ConsensusMethod.WEIGHTED
        and consensus.verdict != decide(consensus.tally).verdict
    ):
        raise DomainError(
            "Most people said something else of this face than what was decided by "
            "weighing them: an adjudicator has to decide it before it can be gold.",
            code="doubtful",
        )
    return add_gold(
        face_id=face_id, verdict=Verdict(consensus.verdict), chosen_by=chosen_by
    )


def choose_many_gold(*, face_ids: Sequence[uuid.UUID], chosen_by: User) -> None:
    """Let many decided faces measure people: all of them, or none."""
    if not 1 <= len(face_ids) <= MAX_BULK:
        raise DomainError(
            f"Select 1 to {MAX_BULK} faces, not {len(face_ids)}.", code="bad_count"
        )
    with transaction.atomic():
        for face_id in sorted(set(face_ids)):
            choose_gold(face_id=face_id, chosen_by=chosen_by)


def add_gold(
    *, face_id: uuid.UUID, verdict: Verdict, chosen_by: User | None
) -> GoldFace:
    """Let a face measure people, with a verdict that is known from elsewhere."""
    gold, _ = GoldFace.objects.get_or_create(
        face_id=face_id, defaults={"verdict": verdict, "chosen_by": chosen_by}
    )
    return gold


def follow_decision(*, consensus: Consensus) -> None:
    """A gold face measures by what an adjudicator says of it. One that is decided no
    more, since a decision was taken back, measures by what its data folder says, if
    that made it gold; another is in doubt and measures nobody."""
    face_id = consensus.face_id
    gold = GoldFace.objects.filter(face_id=face_id)
    verdict: str | None = consensus.verdict
    if consensus.state != ConsensusState.DECIDED:
        verdict = (
            Correction.objects.filter(
                face_id=face_id, source=Source.IMPORT, retracted_at__isnull=True
            )
            # What came onto the queue from a folder was made gold by people.
            .exclude(face__queue_item__reason=Reason.SUSPECT)
            .values_list("verdict", flat=True)
            .first()
        )
    if verdict:
        gold.update(verdict=verdict)
    else:
        gold.delete()


def drop_gold(*, face_id: uuid.UUID) -> None:
    """A gold face that turned out to be doubtful measures nobody any more."""
    deleted, _ = GoldFace.objects.filter(face_id=face_id).delete()
    if not deleted:
        raise NotFound("This face is no gold face.")
