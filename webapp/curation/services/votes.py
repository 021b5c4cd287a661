"""What annotators and adjudicators say, and take back."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Final

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from webapp.accounts.models import Role, User
from webapp.accounts.roles import has_role
from webapp.core.errors import Conflict, DomainError, NotAllowed, NotFound
from webapp.curation.errors import ClaimLost, NothingToUndo
from webapp.curation.models import (
    MAX_BULK,
    MAX_COMMENT_LENGTH,
    MAX_DURATION_MS,
    Claim,
    ClaimStatus,
    Consensus,
    ConsensusState,
    Correction,
    QueueItem,
    Source,
    Verdict,
)
from webapp.curation.services.claims import (
    LEASE,
    changeable_claims,
    get_claim,
    refuse_paused,
    take_slot,
)
from webapp.curation.services.consensus import lock_consensus, refresh_consensus
from webapp.curation.services.quality import follow_decision, pause_if_unreliable
from webapp.curation.services.queue import usable_faces

UNDO_STEPS: Final = 20


def submit_correction(
    *,
    person: User,
    claim_id: uuid.UUID,
    verdict: str,
    duration_ms: int | None = None,
    key: str = "",
    comment: str = "",
) -> Correction:
    """An annotator's word on a face that they hold.

    The same again, after a lost answer, changes nothing. A lease that ran out while
    nobody else took the face still counts. Raises ``ClaimLost`` where somebody else
    has it, ``Conflict`` where this person has said something else already, or has
    their word from elsewhere (the claim ends), and ``Paused``.
    """
    word = _verdict(verdict)
    _check_comment(comment)
    claim = get_claim(person=person, claim_id=claim_id)
    with transaction.atomic():
        refuse_paused(person=person)
        consensus = lock_consensus(face_id=claim.face_id)
        held = Claim.objects.filter(pk=claim.pk, status=ClaimStatus.HELD)
        spoken = Correction.objects.filter(
            face_id=claim.face_id, author=person, retracted_at__isnull=True
        ).exists()
        if spoken:
            # A file brought it while the face was before them.
            ended, _ = held.delete()
        elif held.update(
            status=ClaimStatus.VOTED,
            expires_at=None,
            undone_at=None,
            ended_at=timezone.now(),
        ):
            return _cast(
                claim=claim,
                consensus=consensus,
                person=person,
                verdict=word,
                duration_ms=duration_ms,
                key=key,
                comment=comment,
            )
    if spoken and ended:
        raise Conflict(
            "You have labelled this face already, elsewhere. Please go on with the "
            "next one.",
            code="voted",
        )
    return _given_before(claim, word, comment)


def skip_face(*, person: User, claim_id: uuid.UUID) -> None:
    """Pass a face over: it goes to somebody else and never comes back to this
    person. The same again changes nothing. Raises ``ClaimLost``."""
    claim = get_claim(person=person, claim_id=claim_id)
    with transaction.atomic():
        consensus = lock_consensus(face_id=claim.face_id)
        skipped = Claim.objects.filter(pk=claim.pk, status=ClaimStatus.HELD).update(
            status=ClaimStatus.SKIPPED,
            slot=None,
            expires_at=None,
            undone_at=None,
            ended_at=timezone.now(),
        )
        if skipped:
            refresh_consensus(consensus=consensus)
        elif Claim.objects.filter(pk=claim.pk, status=ClaimStatus.VOTED).exists():
            raise Conflict("You have labelled this face already; undo that first.")


def undo(*, person: User, claim_id: uuid.UUID | None = None) -> Claim:
    """Take back the last vote or skip; its face is before this person again.

    ``claim_id`` names the one to take back, and no other is: the same again, after a
    lost answer, changes nothing. Up to twenty steps in a row, each for an hour. The
    retracted vote stays in the history, and a skipped face that others have labelled
    is passed over. Raises ``NothingToUndo``.
    """
    with transaction.atomic():
        User.objects.select_for_update(no_key=True).get(pk=person.pk)
        undone = Claim.objects.filter(
            person=person, status=ClaimStatus.HELD, undone_at__isnull=False
        )
        changeable = changeable_claims(person=person)
        if claim_id is not None:
            before = undone.filter(pk=claim_id).first()
            if before is not None:
                return before
            changeable = changeable.filter(pk=claim_id)
        if undone.count() >= UNDO_STEPS:
            raise NothingToUndo(
                f"That were {UNDO_STEPS} steps back: please label these faces first."
            )
        refusal = NothingToUndo("There is nothing to undo of the last hour.")
        for claim in changeable:
            try:
                # By itself, so that the locks of a face passed over are free again.
                with transaction.atomic():
                    return _reopen(claim)
            except NothingToUndo as taken:
                refusal = taken
        raise refusal


def revise_correction(
    *, person: User, claim_id: uuid.UUID, verdict: str, comment: str = ""
) -> Correction:
    """Change a vote of the last hour, without losing one's place.

    Raises ``ClaimLost``, ``Conflict`` or ``Paused``.
    """
    word = _verdict(verdict)
    _check_comment(comment)
    claim = get_claim(person=person, claim_id=claim_id)
    with transaction.atomic():
        refuse_paused(person=person)
        consensus = lock_consensus(face_id=claim.face_id)
        # Asked under the lock: an undo may have brought the face back meanwhile.
        voted = changeable_claims(person=person).filter(status=ClaimStatus.VOTED)
        if not voted.filter(pk=claim.pk).exists():
            raise Conflict(
                "Only a label of the last hour can be changed.", code="too_late"
            )
        _retract(face_id=claim.face_id, person=person)
        return _cast(
            claim=claim,
            consensus=consensus,
            person=person,
            verdict=word,
            comment=comment,
        )


def adjudicate(
    *,
    person: User,
    face_id: uuid.UUID,
    verdict: str,
    comment: str = "",
    key: str = "",
    batch: uuid.UUID | None = None,
    while_disputed: bool = False,
) -> Correction:
    """An adjudicator's word: it decides, whatever the votes say.

    It takes the place of an earlier adjudication, and of the adjudicator's own vote.
    With ``while_disputed`` it is for whoever saw the face as disputed: ``Conflict``
    where it is that no more; the same again changes nothing. Raises ``NotFound``
    where the face is gone, its visitor has taken back that people look at it, or its
    time is up, and ``NotAllowed`` where the person is no adjudicator.
    """
    word = _verdict(verdict)
    _check_comment(comment)
    if not has_role(person, Role.ADJUDICATOR):
        raise NotAllowed("Only an adjudicator can decide that.")
    with transaction.atomic():
        consensus = lock_consensus(face_id=face_id)
        # It may have been before this person when that happened.
        if not usable_faces().filter(pk=face_id).exists():
            raise NotFound("This face is gone: its owner took the photo back.")
        current = Correction.objects.filter(face_id=face_id, retracted_at__isnull=True)
        if while_disputed and consensus.state != ConsensusState.DISPUTED:
            mine = current.filter(author=person, source=Source.ADJUDICATOR)
            if again := mine.filter(verdict=word, comment=comment).first():
                return again
            raise Conflict(
                "Somebody has decided this face meanwhile, or changed their vote. "
                "Please go on with the next one; the page of its history overrules.",
                code="decided",
            )
        # It is theirs no more at the desk: they have said what they see.
        Claim.objects.filter(
            face_id=face_id, person=person, status=ClaimStatus.HELD
        ).delete()
        replaced = list(
            current.filter(Q(author=person) | Q(source=Source.ADJUDICATOR)).values_list(
                "pk", flat=True
            )
        )
        current.filter(pk__in=replaced).update(retracted_at=timezone.now())
        correction = _append(
            face_id=face_id,
            person=person,
            source=Source.ADJUDICATOR,
            verdict=word,
            key=key,
            comment=comment,
            batch=batch,
        )
        # One moment for both tells what comes back where the word is taken back.
        Correction.objects.filter(pk__in=replaced).update(
            retracted_at=correction.created_at
        )
        follow_decision(consensus=refresh_consensus(consensus=consensus))
    return correction


def adjudicate_many(
    *,
    person: User,
    face_ids: Sequence[uuid.UUID],
    verdict: str,
    while_undecided: bool = False,
) -> uuid.UUID:
    """Label many faces in one go; the id under which that can be undone.

    With ``while_undecided`` it is for whoever saw them as undecided: those that are
    that no more are left out. ``Conflict`` where this leaves none; the same again
    changes nothing.
    """
    if not 1 <= len(face_ids) <= MAX_BULK:
        raise DomainError(
            f"Select 1 to {MAX_BULK} faces, not {len(face_ids)}.", code="bad_count"
        )
    batch = uuid.uuid4()
    with transaction.atomic():
        # Always in one order, so that two such batches wait instead of locking up.
        for face_id in sorted(set(face_ids)):
            if while_undecided and (
                lock_consensus(face_id=face_id).state == ConsensusState.DECIDED
            ):
                continue
            adjudicate(
                person=person, face_id=face_id, verdict=verdict, batch=batch, key="bulk"
            )
        if Correction.objects.filter(batch=batch).exists():
            return batch
        if before := _same_again(person, face_ids, verdict):
            return before
    raise Conflict(
        "All of these faces have been decided meanwhile. Please go on with others; "
        "the page of a face's history overrules.",
        code="decided",
    )


def _same_again(
    person: User, face_ids: Sequence[uuid.UUID], verdict: str
) -> uuid.UUID | None:
    """The person's batch that said this of these faces, and of no other: taking it
    back must not reach further."""
    standing = Correction.objects.filter(
        author=person, verdict=verdict, batch__isnull=False, retracted_at__isnull=True
    )
    last = standing.filter(face_id__in=face_ids).order_by("-created_at").first()
    if last is None:
        return None
    whole = standing.filter(batch=last.batch)
    return None if whole.exclude(face_id__in=face_ids).exists() else last.batch


def undo_batch(*, person: User, batch: uuid.UUID) -> int:
    """Take back what was labelled in one go; how many faces. What these labels had
    taken the place of counts again.

    Raises ``NotFound`` for another person's labels, ``NothingToUndo`` the second time.
    """
    with transaction.atomic():
        mine = Correction.objects.filter(batch=batch, author=person)
        if not mine.exists():
            raise NotFound("You have labelled nothing under this id.")
        faces = sorted(
            mine.filter(retracted_at__isnull=True).values_list("face_id", flat=True)
        )
        for face_id in faces:
            consensus = lock_consensus(face_id=face_id)
            for correction in mine.filter(face_id=face_id, retracted_at__isnull=True):
                _take_back(correction, restored=[Source.ANNOTATOR, Source.ADJUDICATOR])
            follow_decision(consensus=refresh_consensus(consensus=consensus))
    if not faces:
        raise NothingToUndo("These labels have been taken back already.")
    return len(faces)


def retract_adjudication(*, person: User, face_id: uuid.UUID) -> None:
    """Take one's own decision back: the votes count again, one's own among them.
    ``NothingToUndo``."""
    with transaction.atomic():
        consensus = lock_consensus(face_id=face_id)
        mine = Correction.objects.filter(
            face_id=face_id,
            author=person,
            source=Source.ADJUDICATOR,
            retracted_at__isnull=True,
        ).first()
        if mine is None:
            raise NothingToUndo("You have not decided this face.")
        _take_back(mine, restored=[Source.ANNOTATOR])
        follow_decision(consensus=refresh_consensus(consensus=consensus))


def _reopen(claim: Claim) -> Claim:
    consensus = lock_consensus(face_id=claim.face_id)
    slot = claim.slot
    if claim.status == ClaimStatus.VOTED:
        _retract(face_id=claim.face_id, person=claim.person)
    elif not claim.is_gold:
        QueueItem.objects.select_for_update(no_key=True).filter(
            face_id=claim.face_id
        ).first()
        # Where the skip itself made it a face for the adjudicator, it is one no more.
        was_open = consensus.state != ConsensusState.DECIDED
        slot = take_slot(face_id=claim.face_id, settled=True) if was_open else None
        if slot is None:
            raise NothingToUndo(
                "Others have labelled the face that you skipped. Please go on."
            )
    now = timezone.now()
    Claim.objects.filter(pk=claim.pk).update(
        status=ClaimStatus.HELD,
        slot=slot,
        expires_at=now + LEASE,
        ended_at=None,
        undone_at=now,
    )
    refresh_consensus(consensus=consensus)
    claim.refresh_from_db()
    return claim


def _given_before(claim: Claim, verdict: Verdict, comment: str) -> Correction:
    correction = Correction.objects.filter(
        face_id=claim.face_id, author_id=claim.person_id, retracted_at__isnull=True
    ).first()
    if correction is None:
        if Claim.objects.filter(pk=claim.pk, status=ClaimStatus.SKIPPED).exists():
            raise Conflict(
                "You have passed this face over already; undo that first.",
                code="skipped",
            )
        raise ClaimLost
    if (correction.verdict, correction.comment) != (verdict, comment):
        raise Conflict(
            "You have labelled this face already; undo that first.", code="voted"
        )
    return correction


def _cast(
    *,
    claim: Claim,
    consensus: Consensus,
    person: User,
    verdict: Verdict,
    comment: str,
    duration_ms: int | None = None,
    key: str = "",
) -> Correction:
    """A vote on what somebody had before them, and what follows from it."""
    correction = _append(
        face_id=claim.face_id,
        person=person,
        source=Source.ANNOTATOR,
        verdict=verdict,
        duration_ms=duration_ms,
        key=key,
        comment=comment,
    )
    refresh_consensus(consensus=consensus)
    if claim.is_gold:
        pause_if_unreliable(person=person)
    return correction


def _append(
    *,
    face_id: uuid.UUID,
    person: User,
    source: Source,
    verdict: Verdict,
    duration_ms: int | None = None,
    key: str = "",
    comment: str = "",
    batch: uuid.UUID | None = None,
) -> Correction:
    if duration_ms is not None:
        duration_ms = min(max(duration_ms, 0), MAX_DURATION_MS)
    return Correction.objects.create(
        face_id=face_id,
        author=person,
        source=source,
        verdict=verdict,
        duration_ms=duration_ms,
        key=key[:16],
        comment=comment,
        batch=batch,
    )


def _retract(*, face_id: uuid.UUID, person: User) -> None:
    Correction.objects.filter(
        face_id=face_id, author=person, retracted_at__isnull=True
    ).update(retracted_at=timezone.now())


def _take_back(adjudication: Correction, *, restored: Sequence[Source]) -> None:
    """What it had taken the place of, as far as it is one of the named, counts again,
    unless its author has said something else meanwhile, or is about to: the face is
    before them again. Of an adjudication that does not come back, what that had taken
    the place of does. The consensus is locked."""
    of_face = Correction.objects.filter(face_id=adjudication.face_id)
    of_face.filter(pk=adjudication.pk).update(retracted_at=timezone.now())
    current = of_face.filter(retracted_at__isnull=True)
    held = Claim.objects.filter(face_id=adjudication.face_id, status=ClaimStatus.HELD)
    spoken: set[int | None] = {
        *current.values_list("author_id", flat=True),
        *held.values_list("person_id", flat=True),
    }
    moments = [adjudication.created_at]
    for moment in moments:  # It grows, from the latest on.
        for row in of_face.filter(retracted_at=moment).order_by("-created_at", "-pk"):
            if row.source in restored and row.author_id not in spoken:
                spoken.add(row.author_id)
                of_face.filter(pk=row.pk).update(retracted_at=None)
            elif row.source == Source.ADJUDICATOR and row.created_at not in moments:
                moments.append(row.created_at)


def _verdict(value: str) -> Verdict:
    try:
        return Verdict(value)
    except ValueError:
        raise DomainError(
            f"A verdict is one of {', '.join(Verdict.values)}, not {value[:40]!r}.",
            code="bad_verdict",
        ) from None


def _check_comment(comment: str) -> None:
    if len(comment) > MAX_COMMENT_LENGTH:
        raise DomainError(
            f"A comment has at most {MAX_COMMENT_LENGTH} characters.",
            code="comment_too_long",
        )
