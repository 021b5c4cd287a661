from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from webapp.core.errors import DomainError
from webapp.curation.errors import ClaimLost, Paused
from webapp.curation.models import Claim, Pause, QueueItem
from webapp.curation.services.claims import (
    claim_faces,
    give_back_claims,
    release_expired_claims,
    renew_claims,
)
from webapp.curation.services.quality import add_gold
from webapp.curation.services.votes import skip_face, submit_correction
from webapp.curation.tests.factories import (
    WAYS_OUT_OF_REACH,
    FaceFactory,
    PersonFactory,
    QueuedFaceFactory,
)
from webapp.photos.models import Face

pytestmark = pytest.mark.django_db


def expire(claim: Claim) -> None:
    Claim.objects.filter(pk=claim.pk).update(
        expires_at=timezone.now() - timedelta(seconds=1)
    )


def test_two_people_share_a_face_and_a_third_gets_none() -> None:
    face = QueuedFaceFactory()
    people = [PersonFactory() for _ in range(3)]

    claims = [claim_faces(person=person) for person in people]

    assert [[claim.slot for claim in held] for held in claims] == [[1], [2], []]
    assert claims[0][0].face_id == face.pk


def test_asking_again_gives_the_same_face_with_ten_more_minutes() -> None:
    QueuedFaceFactory.create_batch(3)
    person = PersonFactory()
    (first,) = claim_faces(person=person)
    Claim.objects.update(expires_at=timezone.now() + timedelta(minutes=1))

    (again,) = claim_faces(person=person)

    assert again.pk == first.pk
    assert again.expires_at > timezone.now() + timedelta(minutes=9)


def test_claims_are_filled_up_and_nobody_hoards() -> None:
    QueuedFaceFactory.create_batch(5)
    person = PersonFactory()
    claim_faces(person=person, count=2)

    assert len(claim_faces(person=person, count=4)) == 4
    assert Claim.objects.count() == 4
    with pytest.raises(DomainError, match="1 to 10"):
        claim_faces(person=person, count=11)


def test_higher_priority_comes_first() -> None:
    low = QueuedFaceFactory(queued__priority=1.0)
    high = QueuedFaceFactory(queued__priority=2.0)

    claims = claim_faces(person=PersonFactory(), count=2)

    assert [claim.face_id for claim in claims] == [high.pk, low.pk]


def test_stale_claim_returns_to_queue() -> None:
    QueuedFaceFactory(queued__slots=1)
    (stale,) = claim_faces(person=PersonFactory())
    expire(stale)

    (fresh,) = claim_faces(person=PersonFactory())

    assert fresh.slot == stale.slot
    assert not Claim.objects.filter(pk=stale.pk).exists()


def test_vote_on_a_lease_that_ran_out_counts_while_nobody_else_took_the_face() -> None:
    QueuedFaceFactory(queued__slots=1)
    late, other = PersonFactory(), PersonFactory()
    (claim,) = claim_faces(person=late)
    expire(claim)

    assert submit_correction(person=late, claim_id=claim.pk, verdict="sad")

    QueuedFaceFactory(queued__slots=1)
    (claim,) = claim_faces(person=late)
    expire(claim)
    claim_faces(person=other)
    with pytest.raises(ClaimLost):
        submit_correction(person=late, claim_id=claim.pk, verdict="sad")


def test_renewed_claims_do_not_expire() -> None:
    QueuedFaceFactory()
    person = PersonFactory()
    (claim,) = claim_faces(person=person)
    Claim.objects.update(expires_at=timezone.now() + timedelta(seconds=5))

    assert renew_claims(person=person) == 1
    assert release_expired_claims() == 0
    claim.refresh_from_db()
    assert claim.expires_at > timezone.now() + timedelta(minutes=9)


def test_given_back_face_is_there_for_others() -> None:
    QueuedFaceFactory(queued__slots=1)
    person, other = PersonFactory(), PersonFactory()
    claim_faces(person=person)

    assert give_back_claims(person=person) == 1
    assert len(claim_faces(person=other)) == 1
    assert give_back_claims(person=person) == 0


def test_nobody_gives_back_what_others_hold() -> None:
    QueuedFaceFactory()
    claim_faces(person=PersonFactory())

    assert give_back_claims(person=PersonFactory()) == 0
    assert Claim.objects.exists()


def test_seen_face_never_comes_back() -> None:
    QueuedFaceFactory(queued__slots=3)
    QueuedFaceFactory(queued__slots=3)
    person = PersonFactory()
    first, second = claim_faces(person=person, count=2)
    submit_correction(person=person, claim_id=first.pk, verdict="happy")
    skip_face(person=person, claim_id=second.pk)

    assert claim_faces(person=person) == []


@pytest.mark.parametrize("put_out_of_reach", WAYS_OUT_OF_REACH)
def test_face_without_consent_is_given_to_nobody(
    put_out_of_reach: Callable[[Face], None],
) -> None:
    put_out_of_reach(QueuedFaceFactory())

    assert claim_faces(person=PersonFactory()) == []


def test_paused_person_gets_a_friendly_word_and_no_face() -> None:
    QueuedFaceFactory()
    person = PersonFactory()
    Pause.objects.create(person=person, reason="Thank you. Let us talk first.")

    with pytest.raises(Paused, match="Thank you"):
        claim_faces(person=person)


def test_one_face_in_twenty_at_least_is_gold() -> None:
    QueuedFaceFactory.create_batch(120)
    for _ in range(12):
        add_gold(face_id=FaceFactory().pk, verdict="happy", chosen_by=None)
    person = PersonFactory()

    kinds = []
    for _ in range(100):
        (claim,) = claim_faces(person=person)
        kinds.append(claim.is_gold)
        submit_correction(person=person, claim_id=claim.pk, verdict="happy")

    assert all(any(kinds[start : start + 20]) for start in range(80))
    gaps = gaps_between(kinds)
    assert len(set(gaps)) > 1
    assert min(gaps) > 10


def gaps_between(kinds: list[bool]) -> list[int]:
    places = [place for place, is_gold in enumerate(kinds) if is_gold]
    return [b - a for a, b in pairwise(places)]


def test_gold_face_is_shown_to_nobody_twice() -> None:
    add_gold(face_id=FaceFactory().pk, verdict="happy", chosen_by=None)
    QueuedFaceFactory.create_batch(60)
    person = PersonFactory()

    for _ in range(61):
        (claim,) = claim_faces(person=person)
        submit_correction(person=person, claim_id=claim.pk, verdict="happy")

    assert Claim.objects.filter(is_gold=True).count() == 1
    assert claim_faces(person=person) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"slot": 1},
        {"slot": 4},
        {"slot": None},
        {"slot": 2, "expires_at": None},
        {"slot": 2, "status": "voted"},
        {"slot": 2, "status": "lost"},
        {"slot": 2, "is_gold": True},
    ],
)
def test_database_refuses_claims_that_must_never_be(wrong: dict[str, object]) -> None:
    face = QueuedFaceFactory()
    claim_faces(person=PersonFactory())
    fields = {
        "face": face,
        "person": PersonFactory(),
        "expires_at": timezone.now(),
        **wrong,
    }

    with pytest.raises(IntegrityError), transaction.atomic():
        Claim.objects.create(**fields)


def test_database_refuses_a_second_claim_of_one_person() -> None:
    QueuedFaceFactory()
    (claim,) = claim_faces(person=PersonFactory())

    with pytest.raises(IntegrityError), transaction.atomic():
        Claim.objects.create(
            face=claim.face, person=claim.person, slot=2, expires_at=timezone.now()
        )


def test_deleted_photo_takes_its_claims_along() -> None:
    face = QueuedFaceFactory()
    person = PersonFactory()
    (claim,) = claim_faces(person=person)
    face.photo.delete()

    assert not QueueItem.objects.exists()
    with pytest.raises(ClaimLost):
        submit_correction(person=person, claim_id=claim.pk, verdict="sad")
