"""Leases on faces: of any number of people at once, nobody gets another's slot, and
nobody sees a face twice.

The database forbids both. The locks here only keep people from running into that:
each person's claims wait for each other, and a queue item is given out by one
transaction at a time.
"""

from __future__ import annotations

import hashlib
import uuid
from datetime import datetime, timedelta
from typing import Final

from django.db import transaction
from django.db.models import (
    Count,
    Exists,
    F,
    IntegerField,
    OuterRef,
    QuerySet,
    Subquery,
)
from django.db.models.functions import Coalesce
from django.utils import timezone

from webapp.accounts.models import User
from webapp.core.errors import DomainError
from webapp.curation.errors import ClaimLost, Paused
from webapp.curation.models import (
    Claim,
    ClaimStatus,
    Correction,
    GoldFace,
    Pause,
    QueueItem,
    QueueStatus,
    Source,
)
from webapp.photos.selectors import training_allowed

LEASE: Final = timedelta(minutes=10)
CHANGE_WINDOW: Final = timedelta(hours=1)
"""So long a label or a skip can be changed and undone. Only then its person may learn
what others said: nobody can look first and agree afterwards."""

MAX_HELD: Final = 10
"""Faces that one person may have before them; more would keep them from others."""

_GOLD_GAP: Final = (10, 19)
"""A gold face comes after so many others, drawn anew each time: at least one in
twenty, and nobody can count them off."""

_SWEEP_LIMIT: Final = 200
_ATTEMPTS: Final = 4


def claim_faces(*, person: User, count: int = 1) -> list[Claim]:
    """The faces that a person has before them, filled up to ``count``, oldest first.

    Renews what they hold; so asking again after a lost answer, or from a second
    window, gives the same faces. Fewer come where the queue holds no more for this
    person. Raises ``Paused``, and ``DomainError`` for a count out of range.
    """
    if not 1 <= count <= MAX_HELD:
        raise DomainError(
            f"Ask for 1 to {MAX_HELD} faces at a time, not {count}.", code="bad_count"
        )
    release_expired_claims()
    with transaction.atomic():
        # One at a time for each person; others are not held up.
        User.objects.select_for_update(no_key=True).get(pk=person.pk)
        refuse_paused(person=person)
        held = Claim.objects.filter(person=person, status=ClaimStatus.HELD)
        held.exclude(training_allowed("face__photo")).delete()
        held.update(expires_at=_lease_end())
        for number in range(count - held.count()):
            if not _claim_gold(person) and not _claim_next(
                person, may_wait=number == 0
            ):
                break
        return list(held_claims(person=person)[:count])


def held_claims(*, person: User) -> QuerySet[Claim]:
    """What a person has before them, in the order in which it is to be shown: a face
    that undo brought back comes first."""
    return Claim.objects.filter(
        person=person, status=ClaimStatus.HELD, expires_at__gt=timezone.now()
    ).order_by(F("undone_at").desc(nulls_last=True), "created_at", "pk")


def renew_claims(*, person: User, lease: timedelta = LEASE) -> int:
    """Ten more minutes for everything that a person holds; how many faces.

    A page that is being left asks for a shorter ``lease``: long enough for the one
    that takes its place to renew it, or else the faces go to others.
    """
    now = timezone.now()
    return Claim.objects.filter(
        person=person, status=ClaimStatus.HELD, expires_at__gt=now
    ).update(expires_at=now + lease)


def give_back_claims(*, person: User) -> int:
    """End all leases of a person without a vote; how many.

    The faces go to somebody else, or come back to this person another day: a face
    that was prefetched has not been seen.
    """
    held = Claim.objects.filter(person=person, status=ClaimStatus.HELD)
    deleted, _ = held.delete()
    return deleted


def release_expired_claims() -> int:
    """Free the slots of leases that ran out; how many."""
    past = Claim.objects.filter(status=ClaimStatus.HELD, expires_at__lte=timezone.now())
    # Mostly there are none: look before taking a lock that others wait for.
    if not past.exists():
        return 0
    with transaction.atomic():
        expired = list(
            past.select_for_update(skip_locked=True).values_list("pk", flat=True)[
                :_SWEEP_LIMIT
            ]
        )
        deleted, _ = Claim.objects.filter(
            pk__in=expired, status=ClaimStatus.HELD
        ).delete()
        return deleted


def get_claim(*, person: User, claim_id: uuid.UUID) -> Claim:
    """A claim of this person; ``ClaimLost`` where there is none any more, and where
    the visitor has taken back that people look at the face, or its time is up."""
    claim = Claim.objects.filter(
        training_allowed("face__photo"), pk=claim_id, person=person
    ).first()
    if claim is None:
        raise ClaimLost
    return claim


def changeable_claims(*, person: User) -> QuerySet[Claim]:
    """What a person has labelled or skipped and can still change, the last one
    first. What they adjudicated since is not changed from the desk, and what its
    visitor took back is shown to nobody."""
    adjudicated = Correction.objects.filter(
        face=OuterRef("face"),
        author=person,
        source=Source.ADJUDICATOR,
        retracted_at__isnull=True,
    )
    return Claim.objects.filter(
        ~Exists(adjudicated),
        training_allowed("face__photo"),
        person=person,
        status__in=[ClaimStatus.VOTED, ClaimStatus.SKIPPED],
        ended_at__gt=timezone.now() - CHANGE_WINDOW,
    ).order_by("-ended_at", "-pk")


def get_visible_claim(*, person: User, claim_id: uuid.UUID) -> Claim:
    """A claim whose face is before this person, or comes back when they look back;
    ``ClaimLost`` for all others."""
    claim = get_claim(person=person, claim_id=claim_id)
    if (
        claim.status != ClaimStatus.HELD
        and not changeable_claims(person=person).filter(pk=claim.pk).exists()
    ):
        raise ClaimLost
    return claim


def take_slot(*, face_id: uuid.UUID, settled: bool = False) -> int | None:
    """The smallest free slot of a face whose queue item is locked; None without one,
    and, unless ``settled`` is given, where it waits for nobody."""
    item = QueueItem.objects.filter(face_id=face_id).first()
    if item is None or not (settled or item.status == QueueStatus.WAITING):
        return None
    taken = set(
        Claim.objects.filter(face_id=face_id, slot__isnull=False).values_list(
            "slot", flat=True
        )
    )
    if len(taken) >= item.slots:
        return None
    return next(slot for slot in range(1, item.slots + 1) if slot not in taken)


def refuse_paused(*, person: User) -> None:
    """Raises ``Paused`` with the reason while a person is paused."""
    pause = Pause.objects.filter(person=person, lifted_at__isnull=True).first()
    if pause is not None:
        raise Paused(pause.reason)


def waiting_for(person: User) -> QuerySet[QueueItem]:
    """Items with a free slot whose face this person has not had before them."""
    live = (
        Claim.objects.filter(face=OuterRef("face"), slot__isnull=False)
        .order_by()
        .values("face")
        .annotate(count=Count("pk"))
        .values("count")
    )
    return (
        QueueItem.objects.filter(
            ~Exists(Claim.objects.filter(face=OuterRef("face"), person=person)),
            ~Exists(
                Correction.objects.filter(
                    face=OuterRef("face"), author=person, retracted_at__isnull=True
                )
            ),
            training_allowed("face__photo"),
            status=QueueStatus.WAITING,
        )
        .annotate(
            live=Coalesce(Subquery(live, output_field=IntegerField()), 0),
        )
        .filter(live__lt=F("slots"))
        .order_by("-priority", "created_at", "pk")
    )


def _claim_next(person: User, *, may_wait: bool) -> bool:
    """The next face of the queue; False where there is none.

    What another transaction is giving out is passed over. Should that be all that is
    left, wait for it; but not while holding items oneself, or two would wait for
    each other.
    """
    waiting = waiting_for(person)
    for _ in range(_ATTEMPTS):
        item = _lock(waiting, skip_locked=True).first()
        if item is None and may_wait:
            item = _lock(waiting, skip_locked=False).first()
        if item is None:
            return False
        # Counted anew under the lock: the query above may have seen an older state.
        slot = take_slot(face_id=item.face_id)
        if slot is not None:
            Claim.objects.create(
                face_id=item.face_id, person=person, slot=slot, expires_at=_lease_end()
            )
            return True
    return False


def _lock(items: QuerySet[QueueItem], *, skip_locked: bool) -> QuerySet[QueueItem]:
    return items.select_for_update(of=("self",), no_key=True, skip_locked=skip_locked)


def _claim_gold(person: User) -> bool:
    """A gold face, if one is due and there is one that this person has not seen."""
    claims = Claim.objects.filter(person=person)
    last = claims.filter(is_gold=True).order_by("-created_at").first()
    since = claims.filter(is_gold=False)
    if last is not None:
        since = since.filter(created_at__gt=last.created_at)
    if since.count() < _gold_gap(person, claims.filter(is_gold=True).count()):
        return False
    gold = (
        GoldFace.objects.filter(
            ~Exists(Claim.objects.filter(face=OuterRef("face"), person=person)),
            ~Exists(Correction.objects.filter(face=OuterRef("face"), author=person)),
            training_allowed("face__photo"),
        )
        .order_by("?")
        .first()
    )
    if gold is None:
        return False
    Claim.objects.create(
        face_id=gold.face_id, person=person, is_gold=True, expires_at=_lease_end()
    )
    return True


def _gold_gap(person: User, seen: int) -> int:
    digest = hashlib.sha256(f"{person.pk}:{seen}".encode()).digest()
    low, high = _GOLD_GAP
    return low + digest[0] % (high - low + 1)


def _lease_end() -> datetime:
    return timezone.now() + LEASE
