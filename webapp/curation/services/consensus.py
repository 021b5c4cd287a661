"""Votes become a consensus, and the queue follows: derived with every change."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from django.db import transaction
from django.db.models import Count
from django.utils import timezone

from ml.consensus import (
    MIN_WEIGHED_PEOPLE,
    NO_LABEL,
    VERDICTS,
    decide,
    weigh_votes,
)
from ml.labels import EMOTIONS
from webapp.core.errors import NotFound
from webapp.curation.models import (
    MAX_SLOTS,
    Claim,
    ClaimStatus,
    Consensus,
    ConsensusMethod,
    ConsensusState,
    Correction,
    QueueItem,
    QueueStatus,
    Source,
)
from webapp.curation.services.priority import priorities, served_probabilities
from webapp.photos.models import Face

Float64Array = npt.NDArray[np.float64]

SKIPS_TO_JUDGE: Final = 3
"""A face that so many passed over goes to an adjudicator: nobody else will."""

MIN_WEIGHED_VOTES: Final = 20
"""Somebody who has said less is not weighed yet."""

_QUALITY_STEP: Final = 0.001
"""A quality that moved by less is left as it is: with every vote all of them move."""

_BATCH: Final = 500

_VOTING: Final = (Source.ANNOTATOR, Source.ADJUDICATOR)
_BY_VOTES: Final = (ConsensusMethod.MAJORITY, ConsensusMethod.WEIGHTED)

logger = logging.getLogger(__name__)


def lock_consensus(*, face_id: uuid.UUID) -> Consensus:
    """The face's consensus, locked until the transaction ends: votes on one face
    wait for each other. Raises ``NotFound`` where the face is gone."""
    locked = Consensus.objects.select_for_update().filter(face_id=face_id)
    consensus = locked.first()
    if consensus is None:
        # Asked within the transaction: its owner may have deleted it since it was
        # shown.
        if not Face.objects.filter(pk=face_id).exists():
            raise NotFound("This face is gone: its owner deleted the photo.")
        Consensus.objects.get_or_create(face_id=face_id)
        consensus = locked.get()
    return consensus


def refresh_consensus(*, consensus: Consensus) -> Consensus:
    """Derive a locked consensus and its place on the queue from the votes."""
    face_id = consensus.face_id
    votes = Correction.objects.filter(
        face_id=face_id, retracted_at__isnull=True, source__in=_VOTING
    )
    rows = list(votes.values_list("verdict", "source"))
    tally = [sum(verdict == word for verdict, _ in rows) for word in VERDICTS]
    judged = next((v for v, source in rows if source == Source.ADJUDICATOR), None)
    decision = decide(tally)
    state, verdict = ConsensusState(decision.state), decision.verdict or ""
    method = ConsensusMethod.MAJORITY
    if judged is not None:
        state, verdict = ConsensusState.DECIDED, judged
        method = ConsensusMethod.ADJUDICATED
    elif state == ConsensusState.OPEN and _skips(face_id) >= SKIPS_TO_JUDGE:
        state = ConsensusState.DISPUTED
    decided = state == ConsensusState.DECIDED
    if not decided:
        consensus.decided_at = None
    elif consensus.decided_at is None or consensus.verdict != verdict:
        consensus.decided_at = timezone.now()
    if state != ConsensusState.DISPUTED:
        consensus.disputed_at = None
    elif consensus.disputed_at is None or consensus.state != state:
        consensus.disputed_at = timezone.now()
    consensus.state = state
    consensus.verdict = verdict
    consensus.method = method if decided else ConsensusMethod.NONE
    consensus.tally = tally
    consensus.votes = len(rows)
    consensus.agreement = max(tally) / len(rows) if rows else 0.0
    consensus.quality = None
    consensus.save()
    _move_on_queue(consensus, decision.people_needed)
    return consensus


def _move_on_queue(consensus: Consensus, people_needed: int) -> None:
    items = QueueItem.objects.filter(face_id=consensus.face_id)
    if consensus.state != ConsensusState.OPEN:
        items.update(status=QueueStatus.SETTLED, slots=min(people_needed, MAX_SLOTS))
        return
    for item in items:
        items.update(
            status=QueueStatus.WAITING,
            slots=min(people_needed, MAX_SLOTS),
            priority=priorities(items=[item])[item.pk],
        )


def _skips(face_id: uuid.UUID) -> int:
    return Claim.objects.filter(face_id=face_id, status=ClaimStatus.SKIPPED).count()


def weigh_people() -> int:
    """From five annotators on, decide by how reliable each of them is.

    Looks at every face that a majority decided and replaces its verdict by the
    weighed one, with its quality, where all who voted on it are weighed: the others'
    word must not count for nothing. What an adjudicator said stays; so do disputes,
    which a human judges. Returns how many verdicts changed.
    """
    tallies: dict[uuid.UUID, list[int]] = dict(
        Consensus.objects.filter(
            state=ConsensusState.DECIDED,
            method__in=_BY_VOTES,
        ).values_list("face_id", "tally")
    )
    faces = list(tallies)
    votes = Correction.objects.filter(
        retracted_at__isnull=True, source=Source.ANNOTATOR
    )
    people = list(
        votes.values("author")
        .annotate(given=Count("pk"))
        .filter(given__gte=MIN_WEIGHED_VOTES)
        .values_list("author", flat=True)
        .order_by("author")
    )
    if len(people) < MIN_WEIGHED_PEOPLE:
        return _give_others_back(set())
    column = {person: index for index, person in enumerate(people)}
    row = {face: index for index, face in enumerate(faces)}
    table = np.full((len(faces), len(people)), NO_LABEL, np.int64)
    for face, author, verdict in votes.values_list("face", "author", "verdict"):
        if face in row and author in column:
            table[row[face], column[author]] = VERDICTS.index(verdict)
    voted = (table != NO_LABEL).any(axis=1)
    spoken = (table[voted] != NO_LABEL).any(axis=0)
    if spoken.sum() < MIN_WEIGHED_PEOPLE:
        return _give_others_back(set())
    chosen = [face for face, keep in zip(faces, voted, strict=True) if keep]
    # From the other faces, too, it is learnt what each person says.
    weighed = weigh_votes(table[voted][:, spoken], _model_voices(chosen))
    counts = (table[voted] != NO_LABEL).sum(axis=1)
    decided = [
        (face_id, (VERDICTS[int(verdict)], float(quality)))
        for face_id, verdict, quality, count in zip(
            chosen, weighed.verdicts, weighed.quality, counts, strict=True
        )
        if count == sum(tallies[face_id])
    ]
    changed = sum(
        _set_weighed(dict(decided[start : start + _BATCH]), tallies)
        for start in range(0, len(decided), _BATCH)
    )
    logger.info("%s faces of %s people weighed", len(decided), int(spoken.sum()))
    return changed + _give_others_back({face_id for face_id, _ in decided})


def _give_others_back(weighed: set[uuid.UUID]) -> int:
    """Undo what an earlier weighing said of faces that are not ``weighed`` any more;
    how many verdicts changed."""
    before = Consensus.objects.filter(method=ConsensusMethod.WEIGHTED)
    others = set(before.values_list("face_id", flat=True)) - weighed
    return sum(_give_back_to_majority(face_id) for face_id in sorted(others))


@transaction.atomic
def _give_back_to_majority(face_id: uuid.UUID) -> bool:
    """Whether that changes the face's verdict."""
    row = (
        Consensus.objects.select_for_update()
        .filter(face_id=face_id, method=ConsensusMethod.WEIGHTED)
        .first()
    )
    if row is None:
        return False
    before = row.verdict
    return refresh_consensus(consensus=row).verdict != before


@transaction.atomic
def _set_weighed(
    weighed: dict[uuid.UUID, tuple[str, float]], tallies: dict[uuid.UUID, list[int]]
) -> int:
    """Enter verdict and quality by face; how many verdicts changed. ``tallies`` are
    those that were weighed."""
    rows = (
        Consensus.objects.select_for_update()
        # A vote that came meanwhile may have made it something else: that stays.
        .filter(face_id__in=list(weighed), method__in=_BY_VOTES)
        # As bulk labels lock them, so that neither waits for the other's.
        .order_by("face_id")
    )
    changed = 0
    for row in rows:
        if row.tally != tallies[row.face_id]:
            continue
        verdict, quality = weighed[row.face_id]
        if row.verdict != verdict:
            row.decided_at = timezone.now()
            changed += 1
        elif row.quality is not None and abs(row.quality - quality) < _QUALITY_STEP:
            continue
        row.verdict = verdict
        row.method = ConsensusMethod.WEIGHTED
        row.quality = quality
        row.save(update_fields=["verdict", "method", "quality", "decided_at"])
    return changed


def _model_voices(face_ids: Sequence[uuid.UUID]) -> Float64Array:
    """(N, 4) of the version that each photo was read by; even where none read it."""
    out = np.full((len(face_ids), len(EMOTIONS)), 1 / len(EMOTIONS))
    row = {face: index for index, face in enumerate(face_ids)}
    for face, values in served_probabilities(face_ids=face_ids).items():
        out[row[face]] = values
    return out
