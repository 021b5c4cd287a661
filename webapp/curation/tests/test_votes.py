from __future__ import annotations

import uuid
from datetime import timedelta
from functools import partial
from importlib import import_module

import pytest
from django.apps import apps
from django.db import IntegrityError, transaction
from django.utils import timezone

from webapp.accounts.models import Role, User
from webapp.core.errors import Conflict, DomainError, NotAllowed, NotFound
from webapp.curation.errors import ClaimLost, NothingToUndo, Paused
from webapp.curation.models import Claim, Consensus, Correction, Pause, QueueItem
from webapp.curation.selectors import disputed_faces
from webapp.curation.services import votes
from webapp.curation.services.claims import claim_faces, give_back_claims
from webapp.curation.services.consensus import lock_consensus
from webapp.curation.services.votes import (
    adjudicate,
    adjudicate_many,
    retract_adjudication,
    revise_correction,
    skip_face,
    submit_correction,
    undo,
    undo_batch,
)
from webapp.curation.tests.factories import (
    FaceFactory,
    PersonFactory,
    QueuedFaceFactory,
    let_labels_settle,
)
from webapp.photos.models import Face, Photo

pytestmark = pytest.mark.django_db


def vote(person: User, verdict: str, **fields: object) -> Correction:
    (claim,) = claim_faces(person=person)
    return submit_correction(
        person=person, claim_id=claim.pk, verdict=verdict, **fields
    )


def consensus_of(face: Face) -> Consensus:
    return Consensus.objects.get(face=face)


def judge() -> User:
    return PersonFactory(role=Role.ADJUDICATOR)


def test_vote_keeps_who_when_how_long_and_which_key() -> None:
    QueuedFaceFactory()
    person = PersonFactory()

    correction = vote(person, "sad", duration_ms=850, key="2", comment="teary")

    correction.refresh_from_db()
    assert (correction.author, correction.source) == (person, "annotator")
    assert (correction.duration_ms, correction.key) == (850, "2")
    assert correction.comment == "teary"


def test_two_that_agree_decide_and_the_face_leaves_the_queue() -> None:
    face = QueuedFaceFactory()
    for _ in range(2):
        vote(PersonFactory(), "sad")

    consensus = consensus_of(face)
    assert (consensus.state, consensus.verdict) == ("decided", "sad")
    assert (consensus.method, consensus.agreement) == ("majority", 1.0)
    assert consensus.tally == [0, 2, 0, 0, 0, 0]
    assert QueueItem.objects.get().status == "settled"
    assert claim_faces(person=PersonFactory()) == []


def test_disagreement_asks_a_third_and_the_majority_decides() -> None:
    face = QueuedFaceFactory()
    vote(PersonFactory(), "sad")
    vote(PersonFactory(), "neutral")
    assert consensus_of(face).state == "open"
    assert QueueItem.objects.get().slots == 3

    vote(PersonFactory(), "sad")

    consensus = consensus_of(face)
    assert consensus.verdict == "sad"
    assert consensus.agreement == pytest.approx(2 / 3)


def test_three_opinions_go_to_an_adjudicator_who_decides() -> None:
    face = QueuedFaceFactory()
    for verdict in ("sad", "neutral", "unclear"):
        vote(PersonFactory(), verdict)
    assert consensus_of(face).state == "disputed"
    assert QueueItem.objects.get().status == "settled"

    adjudicate(person=judge(), face_id=face.pk, verdict="sad", comment="see the mouth")

    consensus = consensus_of(face)
    assert (consensus.verdict, consensus.method) == ("sad", "adjudicated")
    assert consensus.tally == [0, 2, 0, 1, 1, 0]


def test_face_that_three_people_skip_goes_to_an_adjudicator() -> None:
    face = QueuedFaceFactory()
    for _ in range(3):
        person = PersonFactory()
        (claim,) = claim_faces(person=person)
        skip_face(person=person, claim_id=claim.pk)

    assert consensus_of(face).state == "disputed"


def test_skipped_face_goes_to_somebody_else() -> None:
    QueuedFaceFactory(queued__slots=1)
    person = PersonFactory()
    (claim,) = claim_faces(person=person)

    skip_face(person=person, claim_id=claim.pk)
    skip_face(person=person, claim_id=claim.pk)

    assert len(claim_faces(person=PersonFactory())) == 1
    assert not Correction.objects.exists()


def test_the_same_vote_again_changes_nothing_and_another_is_refused() -> None:
    QueuedFaceFactory()
    person = PersonFactory()
    (claim,) = claim_faces(person=person)
    first = submit_correction(person=person, claim_id=claim.pk, verdict="sad")

    again = submit_correction(person=person, claim_id=claim.pk, verdict="sad")

    assert again.pk == first.pk
    with pytest.raises(Conflict, match="undo"):
        submit_correction(person=person, claim_id=claim.pk, verdict="happy")
    with pytest.raises(Conflict, match="undo"):
        skip_face(person=person, claim_id=claim.pk)
    assert Correction.objects.count() == 1


def test_nobody_votes_on_what_others_hold() -> None:
    QueuedFaceFactory()
    (claim,) = claim_faces(person=PersonFactory())

    with pytest.raises(ClaimLost):
        submit_correction(person=PersonFactory(), claim_id=claim.pk, verdict="sad")


@pytest.mark.parametrize("verdict", ["", "angry", "Happy", "x" * 200])
def test_verdict_that_is_none_is_refused(verdict: str) -> None:
    QueuedFaceFactory()
    with pytest.raises(DomainError, match="A verdict is one of happy, sad"):
        vote(PersonFactory(), verdict)


def test_comment_that_is_too_long_is_refused() -> None:
    QueuedFaceFactory()
    with pytest.raises(DomainError, match="500"):
        vote(PersonFactory(), "sad", comment="x" * 501)


def test_undo_brings_the_face_back_and_keeps_the_history() -> None:
    face = QueuedFaceFactory()
    QueuedFaceFactory()
    vote(PersonFactory(), "sad")
    person = PersonFactory()
    vote(person, "sad")
    assert consensus_of(face).state == "decided"

    claim = undo(person=person)

    assert claim.face_id == face.pk
    assert consensus_of(face).state == "open"
    assert QueueItem.objects.get(face=face).status == "waiting"
    assert claim_faces(person=person)[0].pk == claim.pk
    submit_correction(person=person, claim_id=claim.pk, verdict="neutral")
    said = Correction.objects.filter(author=person).values_list("verdict", flat=True)
    assert list(said) == ["sad", "neutral"]
    assert Correction.objects.get(verdict="neutral").retracted_at is None
    assert Correction.objects.filter(author=person, retracted_at=None).count() == 1


def test_an_undo_that_is_sent_again_takes_no_second_label_back() -> None:
    first, _ = QueuedFaceFactory.create_batch(2)
    person = PersonFactory()
    vote(person, "sad")
    (second,) = claim_faces(person=person)
    submit_correction(person=person, claim_id=second.pk, verdict="happy")

    for _ in range(2):
        assert undo(person=person, claim_id=second.pk) == second

    assert Correction.objects.get(retracted_at__isnull=True).face == first
    vote(person, "neutral")
    assert undo(person=person, claim_id=second.pk) == second


def test_undo_of_a_named_face_takes_no_other_back() -> None:
    QueuedFaceFactory()
    person = PersonFactory()
    vote(person, "sad")

    with pytest.raises(NothingToUndo):
        undo(person=person, claim_id=uuid.uuid4())

    assert Correction.objects.get().retracted_at is None


def test_undo_brings_a_skipped_face_back() -> None:
    QueuedFaceFactory()
    person = PersonFactory()
    (claim,) = claim_faces(person=person)
    skip_face(person=person, claim_id=claim.pk)

    undo(person=person)

    assert claim_faces(person=person)[0].pk == claim.pk
    assert submit_correction(person=person, claim_id=claim.pk, verdict="sad")


def test_skipped_face_that_others_took_does_not_come_back() -> None:
    QueuedFaceFactory(queued__slots=1)
    person = PersonFactory()
    (claim,) = claim_faces(person=person)
    skip_face(person=person, claim_id=claim.pk)
    QueueItem.objects.update(slots=1)
    claim_faces(person=PersonFactory())

    with pytest.raises(NothingToUndo, match="Others"):
        undo(person=person)


def test_vote_on_a_face_that_one_skipped_is_told_so() -> None:
    QueuedFaceFactory()
    person = PersonFactory()
    (claim,) = claim_faces(person=person)
    skip_face(person=person, claim_id=claim.pk)

    with pytest.raises(Conflict, match="passed this face over"):
        submit_correction(person=person, claim_id=claim.pk, verdict="sad")


def test_undo_passes_over_a_skipped_face_that_others_took() -> None:
    QueuedFaceFactory.create_batch(2, queued__slots=1)
    person = PersonFactory()
    first = vote(person, "happy")
    (claim,) = claim_faces(person=person)
    skip_face(person=person, claim_id=claim.pk)
    QueueItem.objects.update(slots=1)
    claim_faces(person=PersonFactory())

    assert undo(person=person).face_id == first.face_id

    with pytest.raises(NothingToUndo, match="Others"):
        undo(person=person)


def test_third_to_skip_a_face_can_take_it_back() -> None:
    face = QueuedFaceFactory()
    person = PersonFactory()
    for somebody in (PersonFactory(), PersonFactory(), person):
        (claim,) = claim_faces(person=somebody)
        skip_face(person=somebody, claim_id=claim.pk)
    assert consensus_of(face).state == "disputed"

    undo(person=person)

    assert consensus_of(face).state == "open"
    assert claim_faces(person=person)[0].face_id == face.pk


def test_undo_goes_twenty_steps_back_and_no_further() -> None:
    QueuedFaceFactory.create_batch(25)
    person = PersonFactory()
    for _ in range(25):
        vote(person, "happy")

    for _ in range(20):
        undo(person=person)

    with pytest.raises(NothingToUndo, match="20 steps"):
        undo(person=person)
    assert Correction.objects.filter(retracted_at=None).count() == 5


def test_undone_face_that_was_given_back_waits_for_others() -> None:
    QueuedFaceFactory(queued__slots=1)
    person = PersonFactory()
    vote(person, "happy")
    undo(person=person)
    give_back_claims(person=person)

    assert len(claim_faces(person=PersonFactory())) == 1


def test_undo_passes_over_a_face_whose_consent_was_taken_back() -> None:
    QueuedFaceFactory.create_batch(2)
    person = PersonFactory()
    first, second = vote(person, "happy"), vote(person, "sad")
    Photo.objects.filter(faces=second.face).update(training_consent_at=None)

    assert undo(person=person).face_id == first.face_id

    second.refresh_from_db()
    assert second.retracted_at is None


def test_nothing_to_undo_is_said() -> None:
    with pytest.raises(NothingToUndo):
        undo(person=PersonFactory())


def test_vote_can_be_changed_on_the_way_back() -> None:
    face = QueuedFaceFactory()
    person = PersonFactory()
    (claim,) = claim_faces(person=person)
    submit_correction(person=person, claim_id=claim.pk, verdict="sad")

    revise_correction(person=person, claim_id=claim.pk, verdict="neutral")

    assert consensus_of(face).tally == [0, 0, 0, 1, 0, 0]
    assert Correction.objects.filter(author=person).count() == 2


def test_vote_of_more_than_an_hour_ago_stays() -> None:
    QueuedFaceFactory()
    person = PersonFactory()
    (claim,) = claim_faces(person=person)
    submit_correction(person=person, claim_id=claim.pk, verdict="happy")
    let_labels_settle()

    with pytest.raises(Conflict, match="of the last hour"):
        revise_correction(person=person, claim_id=claim.pk, verdict="sad")
    with pytest.raises(NothingToUndo, match="of the last hour"):
        undo(person=person)


def test_vote_that_was_undone_meanwhile_is_not_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    QueuedFaceFactory()
    person = PersonFactory()
    (claim,) = claim_faces(person=person)
    submit_correction(person=person, claim_id=claim.pk, verdict="sad")

    def undone_first(**fields: uuid.UUID) -> Consensus:
        monkeypatch.setattr(votes, "lock_consensus", lock_consensus)
        undo(person=person)
        return lock_consensus(**fields)

    monkeypatch.setattr(votes, "lock_consensus", undone_first)
    with pytest.raises(Conflict):
        revise_correction(person=person, claim_id=claim.pk, verdict="happy")

    assert Correction.objects.get().verdict == "sad"


def test_the_same_vote_with_another_comment_is_not_swallowed() -> None:
    QueuedFaceFactory()
    person = PersonFactory()
    (claim,) = claim_faces(person=person)
    submit_correction(person=person, claim_id=claim.pk, verdict="sad")

    with pytest.raises(Conflict, match="undo"):
        submit_correction(
            person=person, claim_id=claim.pk, verdict="sad", comment="teary"
        )


def test_face_of_which_its_holder_has_spoken_elsewhere_goes_out_of_their_way() -> None:
    face, person = QueuedFaceFactory(), PersonFactory()
    (claim,) = claim_faces(person=person)
    Correction.objects.create(
        face=face, author=person, verdict="sad", source="annotator"
    )

    with pytest.raises(Conflict, match="go on with the next") as refusal:
        submit_correction(person=person, claim_id=claim.pk, verdict="happy")

    assert refusal.value.code == "voted"
    assert claim_faces(person=person) == []
    assert Correction.objects.get().verdict == "sad"


def test_paused_person_cannot_vote() -> None:
    QueuedFaceFactory()
    person = PersonFactory()
    (claim,) = claim_faces(person=person)
    Pause.objects.create(person=person, reason="Let us talk first.")

    with pytest.raises(Paused):
        submit_correction(person=person, claim_id=claim.pk, verdict="sad")


def test_annotator_cannot_adjudicate() -> None:
    with pytest.raises(NotAllowed, match="adjudicator"):
        adjudicate(person=PersonFactory(), face_id=FaceFactory().pk, verdict="sad")


def test_adjudicator_who_had_voted_speaks_once() -> None:
    face = QueuedFaceFactory()
    person = judge()
    vote(person, "happy")

    adjudicate(person=person, face_id=face.pk, verdict="sad")

    assert consensus_of(face).tally == [0, 1, 0, 0, 0, 0]


def test_later_adjudication_takes_the_place_of_the_first() -> None:
    face = QueuedFaceFactory()
    adjudicate(person=judge(), face_id=face.pk, verdict="happy")
    second = judge()
    adjudicate(person=second, face_id=face.pk, verdict="sad")
    assert consensus_of(face).verdict == "sad"

    retract_adjudication(person=second, face_id=face.pk)

    assert consensus_of(face).state == "open"
    with pytest.raises(NothingToUndo):
        retract_adjudication(person=second, face_id=face.pk)


def test_face_whose_consent_was_taken_back_meanwhile_is_not_adjudicated() -> None:
    face = QueuedFaceFactory()
    Photo.objects.filter(pk=face.photo_id).update(training_consent_at=None)

    with pytest.raises(NotFound, match="took the photo back"):
        adjudicate(person=judge(), face_id=face.pk, verdict="happy")

    assert not Correction.objects.exists()


def test_adjudicated_face_that_is_gone_is_said() -> None:
    with pytest.raises(NotFound):
        adjudicate(person=judge(), face_id=uuid.uuid4(), verdict="sad")


def test_many_faces_are_labelled_and_taken_back_in_one_go() -> None:
    faces = QueuedFaceFactory.create_batch(3)
    person = judge()

    batch = adjudicate_many(
        person=person, face_ids=[face.pk for face in faces], verdict="not_a_face"
    )
    assert {consensus_of(face).verdict for face in faces} == {"not_a_face"}

    assert undo_batch(person=person, batch=batch) == 3
    assert {consensus_of(face).state for face in faces} == {"open"}
    with pytest.raises(NothingToUndo):
        undo_batch(person=person, batch=batch)


def dispute(face: Face) -> list[User]:
    """Two differ on a face, and a third with both."""
    people = PersonFactory.create_batch(3)
    for slot, (person, verdict) in enumerate(
        zip(people, ("happy", "sad", "neutral"), strict=True), start=1
    ):
        claim = Claim.objects.create(
            face=face, person=person, slot=slot, expires_at="2100-01-01T00:00Z"
        )
        submit_correction(person=person, claim_id=claim.pk, verdict=verdict)
    return people


def test_disputes_are_told_by_how_long_they_are_disputed() -> None:
    queued_first, queued_last = QueuedFaceFactory.create_batch(2)
    began = timezone.now()
    dispute(queued_last)
    between = timezone.now()
    *_, third = dispute(queued_first)

    rows = list(disputed_faces())

    assert [row.face for row in rows] == [queued_last, queued_first]
    assert began < rows[0].since < between < rows[1].since
    # Somebody takes their word back, and says the same again.
    claim = undo(person=third)
    assert consensus_of(queued_first).disputed_at is None
    submit_correction(person=third, claim_id=claim.pk, verdict="neutral")
    assert list(disputed_faces())[1].since > rows[1].since


def test_disputes_of_earlier_releases_have_their_last_word_as_their_moment() -> None:
    disputed, waiting = QueuedFaceFactory.create_batch(2)
    dispute(disputed)
    Consensus.objects.update(disputed_at=None)
    said = Correction.objects.latest("created_at").created_at
    migration = import_module("webapp.curation.migrations.0004_fill_disputed_at")

    migration.fill(apps, None)

    moment = consensus_of(disputed).disputed_at
    assert moment is not None
    assert abs(moment - said) < timedelta(seconds=1)
    assert consensus_of(waiting).disputed_at is None


def test_bulk_labels_leave_alone_what_was_decided_meanwhile() -> None:
    decided, waiting, last = QueuedFaceFactory.create_batch(3)
    adjudicate(person=judge(), face_id=decided.pk, verdict="happy")
    person = judge()
    label = partial(
        adjudicate_many, person=person, verdict="neutral", while_undecided=True
    )

    batch = label(face_ids=[decided.pk, waiting.pk, last.pk])

    assert consensus_of(decided).verdict == "happy"
    assert consensus_of(waiting).verdict == consensus_of(last).verdict == "neutral"
    # The same again, of somebody who clicked twice.
    assert label(face_ids=[decided.pk, waiting.pk, last.pk]) == batch
    # Taking that batch back would reach further than these.
    for fewer in ([decided.pk], [waiting.pk]):
        with pytest.raises(Conflict, match="decided"):
            label(face_ids=fewer)
    assert Correction.objects.count() == 3


def test_undone_bulk_label_brings_back_what_it_took_the_place_of() -> None:
    voted, judged = QueuedFaceFactory(), QueuedFaceFactory()
    person, other = judge(), judge()
    mine = claim_faces(person=person, count=2)
    mistake = next(claim for claim in mine if claim.face_id == judged.pk)
    submit_correction(person=person, claim_id=mistake.pk, verdict="happy")
    undo(person=person)
    for claim in mine:
        submit_correction(person=person, claim_id=claim.pk, verdict="sad")
    adjudicate(person=other, face_id=judged.pk, verdict="surprise")

    batch = adjudicate_many(
        person=person, face_ids=[voted.pk, judged.pk], verdict="neutral"
    )
    undo_batch(person=person, batch=batch)

    assert consensus_of(voted).tally == [0, 1, 0, 0, 0, 0]
    assert consensus_of(judged).verdict == "surprise"
    assert consensus_of(judged).tally == [0, 1, 1, 0, 0, 0]


def test_undone_bulk_label_leaves_what_was_said_meanwhile() -> None:
    face = QueuedFaceFactory()
    person, other = judge(), judge()
    adjudicate(person=other, face_id=face.pk, verdict="happy")
    batch = adjudicate_many(person=person, face_ids=[face.pk], verdict="neutral")
    Correction.objects.create(
        face=face, author=other, verdict="sad", source="annotator"
    )

    undo_batch(person=person, batch=batch)

    assert consensus_of(face).tally == [0, 1, 0, 0, 0, 0]


def test_own_vote_counts_again_once_the_decision_is_taken_back() -> None:
    face, person = QueuedFaceFactory(), judge()
    vote(person, "happy")
    adjudicate(person=person, face_id=face.pk, verdict="sad")

    retract_adjudication(person=person, face_id=face.pk)

    assert consensus_of(face).tally == [1, 0, 0, 0, 0, 0]


def test_own_vote_counts_again_however_often_one_decided() -> None:
    face, person = QueuedFaceFactory(), judge()
    vote(person, "happy")
    adjudicate(person=person, face_id=face.pk, verdict="sad")
    adjudicate(person=person, face_id=face.pk, verdict="neutral")

    retract_adjudication(person=person, face_id=face.pk)

    assert consensus_of(face).tally == [1, 0, 0, 0, 0, 0]


def test_own_vote_counts_again_once_whoever_overruled_takes_that_back() -> None:
    face, person, other = QueuedFaceFactory(), judge(), judge()
    vote(person, "happy")
    adjudicate(person=person, face_id=face.pk, verdict="sad")
    adjudicate(person=other, face_id=face.pk, verdict="neutral")
    adjudicate(person=person, face_id=face.pk, verdict="sad")
    adjudicate(person=other, face_id=face.pk, verdict="surprise")

    retract_adjudication(person=other, face_id=face.pk)

    assert consensus_of(face).tally == [1, 0, 0, 0, 0, 0]


def test_of_two_own_votes_the_later_counts_again() -> None:
    face, person, other = QueuedFaceFactory(), judge(), judge()
    vote(person, "happy")
    adjudicate(person=person, face_id=face.pk, verdict="sad")
    adjudicate(person=other, face_id=face.pk, verdict="neutral")
    submit_correction(
        person=person, claim_id=undo(person=person).pk, verdict="surprise"
    )
    adjudicate(person=person, face_id=face.pk, verdict="sad")

    retract_adjudication(person=person, face_id=face.pk)

    assert consensus_of(face).tally == [0, 0, 1, 0, 0, 0]


def test_vote_that_its_person_undid_meanwhile_does_not_count_again() -> None:
    face, person, other = QueuedFaceFactory(), judge(), judge()
    vote(person, "happy")
    adjudicate(person=person, face_id=face.pk, verdict="sad")
    adjudicate(person=other, face_id=face.pk, verdict="neutral")
    claim = undo(person=person)

    retract_adjudication(person=other, face_id=face.pk)
    submit_correction(person=person, claim_id=claim.pk, verdict="surprise")

    assert consensus_of(face).tally == [0, 0, 1, 0, 0, 0]


def test_undo_at_the_desk_leaves_what_was_decided_elsewhere() -> None:
    earlier, face = QueuedFaceFactory(), QueuedFaceFactory()
    person = judge()
    first, second = claim_faces(person=person, count=2)
    submit_correction(person=person, claim_id=first.pk, verdict="happy")
    submit_correction(person=person, claim_id=second.pk, verdict="happy")
    adjudicate(person=person, face_id=second.face_id, verdict="sad")

    with pytest.raises(Conflict, match="last hour"):
        revise_correction(person=person, claim_id=second.pk, verdict="neutral")
    undone = undo(person=person)

    assert undone.face_id == first.face_id
    assert {earlier.pk, face.pk} == {first.face_id, second.face_id}
    assert consensus_of(second.face).verdict == "sad"


def test_face_that_its_holder_adjudicates_is_before_them_no_more() -> None:
    face, person = QueuedFaceFactory(), judge()
    (claim,) = claim_faces(person=person)
    adjudicate(person=person, face_id=face.pk, verdict="sad")

    with pytest.raises(ClaimLost):
        submit_correction(person=person, claim_id=claim.pk, verdict="happy")
    assert claim_faces(person=person) == []
    assert consensus_of(face).verdict == "sad"


def test_bulk_labels_are_all_or_none() -> None:
    face = QueuedFaceFactory()

    with pytest.raises(NotFound):
        adjudicate_many(
            person=judge(), face_ids=[face.pk, uuid.uuid4()], verdict="happy"
        )
    with pytest.raises(DomainError, match="1 to 200"):
        adjudicate_many(person=judge(), face_ids=[], verdict="happy")

    assert not Correction.objects.exists()


@pytest.mark.parametrize(
    "wrong",
    [
        {"verdict": "angry"},
        {"source": "nobody"},
        {"source": "visitor"},
        {"author": None},
        {"visitor_key": "a" * 64},
        {"duration_ms": 3_600_001},
    ],
)
def test_database_refuses_corrections_that_must_never_be(
    wrong: dict[str, object],
) -> None:
    fields = {
        "face": FaceFactory(),
        "author": PersonFactory(),
        "verdict": "sad",
        "source": "annotator",
        **wrong,
    }

    with pytest.raises(IntegrityError), transaction.atomic():
        Correction.objects.create(**fields)


def test_database_refuses_two_current_corrections_of_one_person() -> None:
    face, person = FaceFactory(), PersonFactory()
    for source in ("annotator", "adjudicator"):
        fields = {"face": face, "author": person, "verdict": "sad", "source": source}
        if source == "annotator":
            Correction.objects.create(**fields)
        else:
            with pytest.raises(IntegrityError), transaction.atomic():
                Correction.objects.create(**fields)


@pytest.mark.parametrize(
    "wrong",
    [
        {"state": "decided"},
        {"state": "decided", "verdict": "sad"},
        {"verdict": "sad"},
        {"agreement": 1.5},
        {"quality": -0.1},
    ],
)
def test_database_refuses_a_consensus_that_contradicts_itself(
    wrong: dict[str, object],
) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        Consensus.objects.create(face=FaceFactory(), **wrong)


def test_face_that_is_deleted_while_it_is_skipped_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    face, person = QueuedFaceFactory(), PersonFactory()
    (claim,) = claim_faces(person=person)
    Consensus.objects.all().delete()
    face.photo.delete()
    monkeypatch.setattr(votes, "get_claim", lambda **_: claim)

    with pytest.raises(NotFound, match="This face is gone"):
        skip_face(person=person, claim_id=claim.pk)

    assert not Consensus.objects.exists()


def test_claims_of_the_deleted_face_are_gone() -> None:
    face = QueuedFaceFactory()
    vote(PersonFactory(), "sad")
    face.photo.delete()

    assert not Claim.objects.exists()
    assert not Correction.objects.exists()
    assert not Consensus.objects.exists()
