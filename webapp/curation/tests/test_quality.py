from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from ml.consensus import WeightedConsensus
from webapp.accounts.models import Role, User
from webapp.core.errors import DomainError, NotFound
from webapp.curation.models import (
    Claim,
    ClaimStatus,
    Consensus,
    Correction,
    GoldFace,
    Pause,
    Reason,
    Verdict,
)
from webapp.curation.selectors import (
    gold_candidates,
    person_figures,
    queue_figures,
    training_labels,
)
from webapp.curation.services import consensus
from webapp.curation.services.consensus import weigh_people
from webapp.curation.services.quality import (
    add_gold,
    choose_gold,
    choose_many_gold,
    drop_gold,
    gold_score,
    lift_pause,
    pause_if_unreliable,
)
from webapp.curation.services.queue import enqueue_faces
from webapp.curation.services.votes import (
    adjudicate,
    adjudicate_many,
    retract_adjudication,
    submit_correction,
    undo_batch,
)
from webapp.curation.tests.factories import (
    FaceFactory,
    PersonFactory,
    QueuedFaceFactory,
    refresh_faces,
)
from webapp.photos.models import Face

pytestmark = pytest.mark.django_db


def answer_gold(person: User, answers: str) -> None:
    """One gold face for each letter: r is answered right, w wrong."""
    judge = PersonFactory(role=Role.ADJUDICATOR)
    for answer in answers:
        face = FaceFactory()
        adjudicate(person=judge, face_id=face.pk, verdict="happy")
        choose_gold(face_id=face.pk, chosen_by=judge)
        claim = Claim.objects.create(
            face=face, person=person, is_gold=True, expires_at="2100-01-01T00:00Z"
        )
        submit_correction(
            person=person,
            claim_id=claim.pk,
            verdict="happy" if answer == "r" else "sad",
        )


def test_ten_answers_are_needed_before_anybody_is_judged() -> None:
    person = PersonFactory()

    answer_gold(person, "w" * 9)

    assert gold_score(person=person).answers == 9
    assert pause_if_unreliable(person=person) is None


def test_under_seven_in_ten_right_is_paused_with_a_friendly_word() -> None:
    person = PersonFactory()

    answer_gold(person, "r" * 6 + "w" * 4)

    pause = Pause.objects.get(person=person)
    assert pause.lifted_at is None
    assert "4 of your last 10" in pause.reason
    assert pause_if_unreliable(person=person) == pause


def test_seven_in_ten_right_is_enough() -> None:
    person = PersonFactory()

    answer_gold(person, "r" * 7 + "w" * 3)

    assert gold_score(person=person).accuracy == pytest.approx(0.7)
    assert not Pause.objects.exists()


def test_only_the_last_thirty_answers_count() -> None:
    person = PersonFactory()

    answer_gold(person, "w" * 3 + "r" * 30)

    score = gold_score(person=person)
    assert (score.answers, score.right) == (30, 30)


def test_lifted_pause_gives_a_clean_slate() -> None:
    person, admin = PersonFactory(), PersonFactory(role=Role.ADMIN)
    answer_gold(person, "w" * 10)

    assert lift_pause(person=person, lifted_by=admin)
    assert not lift_pause(person=person, lifted_by=admin)

    assert gold_score(person=person).answers == 0
    answer_gold(person, "w" * 9)
    assert not Pause.objects.filter(lifted_at=None).exists()


def test_wrong_answer_on_a_gold_face_does_not_change_its_verdict() -> None:
    answer_gold(PersonFactory(), "w")

    consensus = Consensus.objects.get()
    assert (consensus.verdict, consensus.votes) == ("happy", 2)


def test_only_decided_faces_become_gold() -> None:
    with pytest.raises(DomainError, match="decided"):
        choose_gold(face_id=FaceFactory().pk, chosen_by=None)


def test_gold_face_can_be_dropped() -> None:
    answer_gold(PersonFactory(), "r")
    face = Face.objects.get()

    drop_gold(face_id=face.pk)

    with pytest.raises(NotFound):
        drop_gold(face_id=face.pk)


def test_overruled_gold_face_measures_by_what_was_decided_last() -> None:
    person = PersonFactory()
    answer_gold(person, "r")
    face = Face.objects.get()
    judge = PersonFactory(role=Role.ADJUDICATOR)

    batch = adjudicate_many(person=judge, face_ids=[face.pk], verdict="sad")
    assert gold_score(person=person).right == 0

    undo_batch(person=judge, batch=batch)
    assert gold_score(person=person).right == 1


def test_gold_face_in_doubt_measures_nobody() -> None:
    person = PersonFactory()
    answer_gold(person, "w")
    face = Face.objects.get()
    judge = Correction.objects.get(source="adjudicator").author

    retract_adjudication(person=judge, face_id=face.pk)

    assert not GoldFace.objects.exists()
    assert gold_score(person=person).answers == 0


@pytest.mark.parametrize("at_once", [False, True])
def test_gold_face_of_a_data_folder_outlives_a_decision_that_is_taken_back(
    at_once: bool,
) -> None:
    face, judge = FaceFactory(), PersonFactory(role=Role.ADJUDICATOR)
    Correction.objects.create(
        face=face, author=PersonFactory(), verdict="happy", source="import"
    )
    gold = add_gold(face_id=face.pk, verdict=Verdict.HAPPY, chosen_by=None)

    if at_once:
        batch = adjudicate_many(person=judge, face_ids=[face.pk], verdict="sad")
    else:
        adjudicate(person=judge, face_id=face.pk, verdict="sad")
    gold.refresh_from_db()
    assert gold.verdict == "sad"
    if at_once:
        undo_batch(person=judge, batch=batch)
    else:
        retract_adjudication(person=judge, face_id=face.pk)

    gold.refresh_from_db()
    assert gold.verdict == "happy"


def test_what_a_folder_says_of_a_suspect_face_is_no_known_answer() -> None:
    face, judge = FaceFactory(), PersonFactory(role=Role.ADJUDICATOR)
    Correction.objects.create(
        face=face, author=PersonFactory(), verdict="happy", source="import"
    )
    enqueue_faces(face_ids=[face.pk], reason=Reason.SUSPECT)
    adjudicate(person=judge, face_id=face.pk, verdict="sad")
    choose_gold(face_id=face.pk, chosen_by=judge)

    retract_adjudication(person=judge, face_id=face.pk)

    assert not GoldFace.objects.exists()


def labelled(face: Face, votes: dict[User, str]) -> None:
    for person, verdict in votes.items():
        Claim.objects.create(
            face=face,
            person=person,
            slot=list(votes).index(person) + 1,
            status=ClaimStatus.VOTED,
            ended_at="2026-01-01T00:00Z",
        )
        Correction.objects.create(
            face=face, author=person, verdict=verdict, source="annotator"
        )


def crowd_of(size: int) -> list[User]:
    """People of whom the last two always say neutral; the rest is right."""
    people = [PersonFactory() for _ in range(size)]
    words = ("happy", "sad", "surprise")
    for number in range(60):
        word = words[number % 3]
        face = FaceFactory(
            probabilities=tuple(
                0.85 if emotion == word else 0.05
                for emotion in ("happy", "sad", "surprise", "neutral")
            )
        )
        good = people[number % (size - 2)]
        other = people[(number + 1) % (size - 2)]
        votes = {good: word, other: word, people[-1 - number % 2]: "neutral"}
        if number == 0:
            votes = {good: word, people[-1]: "neutral", people[-2]: "neutral"}
        labelled(face, votes)
    refresh_faces(Face.objects.values_list("pk", flat=True))
    return people


def test_from_five_people_on_reliability_outweighs_number() -> None:
    crowd_of(5)
    contested = Consensus.objects.get(verdict="neutral")
    assert contested.method == "majority"

    with CaptureQueriesContext(connection) as queries:
        assert weigh_people() == 1
    assert sum(query["sql"].startswith("SAVEPOINT") for query in queries) == 1

    contested.refresh_from_db()
    assert (contested.verdict, contested.method) == ("happy", "weighted")
    assert Consensus.objects.exclude(quality=None).count() == 60
    with CaptureQueriesContext(connection) as queries:
        assert weigh_people() == 0
    assert not [query for query in queries if query["sql"].startswith("UPDATE")]


def test_nobody_who_is_weighed_overrules_those_who_are_not_yet() -> None:
    veteran = crowd_of(5)[0]
    face = FaceFactory(probabilities=(0.05, 0.85, 0.05, 0.05))
    labelled(face, {PersonFactory(): "happy", PersonFactory(): "happy", veteran: "sad"})
    refresh_faces([face.pk])

    weigh_people()

    row = face.consensus
    assert (row.verdict, row.method, row.quality) == ("happy", "majority", None)


def test_what_was_weighed_goes_back_to_the_majority_where_not_all_are_any_more() -> (
    None
):
    veteran = crowd_of(5)[0]
    face = FaceFactory(probabilities=(0.05, 0.85, 0.05, 0.05))
    labelled(face, {PersonFactory(): "happy", PersonFactory(): "happy", veteran: "sad"})
    refresh_faces([face.pk])
    row = Consensus.objects.filter(face=face)
    row.update(verdict="sad", method="weighted", quality=0.97)

    assert weigh_people() >= 1

    assert row.values_list("verdict", "method", "quality").get() == (
        "happy",
        "majority",
        None,
    )


def test_vote_that_changes_while_people_are_weighed_is_not_decided_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    crowd_of(5)
    contested = Consensus.objects.get(verdict="neutral")
    weigh = consensus.weigh_votes

    def changing(*given: Any) -> WeightedConsensus:
        Correction.objects.filter(face=contested.face_id, verdict="neutral").update(
            verdict="sad"
        )
        refresh_faces([contested.face_id])
        return weigh(*given)

    monkeypatch.setattr(consensus, "weigh_votes", changing)

    weigh_people()

    contested.refresh_from_db()
    assert (contested.verdict, contested.method) == ("sad", "majority")


def test_below_five_people_the_majority_stays() -> None:
    crowd_of(4)

    assert weigh_people() == 0
    assert not Consensus.objects.filter(method="weighted").exists()


def test_too_few_who_are_weighed_leave_no_verdict_of_an_earlier_weighing() -> None:
    crowd_of(4)
    row = Consensus.objects.filter(verdict="happy").first()
    assert row is not None
    Consensus.objects.filter(pk=row.pk).update(
        verdict="sad", method="weighted", quality=0.97
    )

    assert weigh_people() == 1

    row.refresh_from_db()
    assert (row.verdict, row.method, row.quality) == ("happy", "majority", None)


def test_adjudicator_is_not_measured_against_their_own_decision() -> None:
    face, judge = QueuedFaceFactory(), PersonFactory(role=Role.ADJUDICATOR)
    for verdict in ("happy", "sad", "neutral"):
        vote(PersonFactory(), face, verdict)
    adjudicate(person=judge, face_id=face.pk, verdict="happy")
    Correction.objects.update(created_at=timezone.now() - timedelta(days=1))

    figures = person_figures(person=judge)

    assert (figures.votes, figures.agreement) == (1, None)


def test_agreement_is_told_of_those_who_did_not_see_each_others_votes() -> None:
    judge = PersonFactory(role=Role.ADJUDICATOR)
    for said in (["happy", "happy"], ["sad", "sad"], ["happy", "sad", "neutral"]):
        face = QueuedFaceFactory()
        for verdict in said:
            vote(PersonFactory(), face, verdict)
    before = queue_figures()

    adjudicate(person=judge, face_id=face.pk, verdict="sad")

    after = queue_figures()
    assert before.agreement == pytest.approx((1 + 1 + 1 / 3) / 3)
    assert (after.agreement, after.kappa) == (before.agreement, before.kappa)


class TestGoldCandidates:
    def test_only_faces_on_which_all_agree_are_offered(self) -> None:
        agreed, disputed = QueuedFaceFactory.create_batch(2)
        for verdict in ("happy", "happy"):
            vote(PersonFactory(), agreed, verdict)
        for verdict in ("sad", "unclear", "sad"):
            vote(PersonFactory(), disputed, verdict)

        assert [row.face_id for row in gold_candidates()] == [agreed.pk]

    def test_chosen_ones_are_offered_no_more_and_train_nothing(self) -> None:
        face = QueuedFaceFactory()
        for _ in range(2):
            vote(PersonFactory(), face, "happy")
        assert [label.face_id for label in training_labels()] == [face.pk]

        judge = PersonFactory(role=Role.ADJUDICATOR)
        choose_many_gold(face_ids=[face.pk], chosen_by=judge)

        assert face.gold.verdict == "happy"
        assert not gold_candidates().exists()
        assert list(training_labels()) == []

    @pytest.mark.parametrize("said", [["sad", "sad"], ["sad", "sad", "happy"]])
    def test_what_weighing_made_of_the_votes_is_not_beyond_doubt(
        self, said: list[str]
    ) -> None:
        face, judge = QueuedFaceFactory(), PersonFactory(role=Role.ADJUDICATOR)
        for verdict in said:
            vote(PersonFactory(), face, verdict)
        rows = Consensus.objects.filter(face=face)
        rows.update(method="weighted", verdict="happy")

        assert not gold_candidates().exists()
        with pytest.raises(DomainError, match="adjudicator"):
            choose_gold(face_id=face.pk, chosen_by=judge)

        rows.update(verdict="sad")
        assert gold_candidates().count() == (len(said) == 2)
        adjudicate(person=judge, face_id=face.pk, verdict="happy")
        assert choose_gold(face_id=face.pk, chosen_by=judge).verdict == "happy"

    def test_an_undecided_one_among_them_makes_none_gold(self) -> None:
        face, undecided = QueuedFaceFactory.create_batch(2)
        for _ in range(2):
            vote(PersonFactory(), face, "happy")
        judge = PersonFactory(role=Role.ADJUDICATOR)

        with pytest.raises(DomainError, match="has been decided"):
            choose_many_gold(face_ids=[face.pk, undecided.pk], chosen_by=judge)
        with pytest.raises(DomainError, match="Select 1 to"):
            choose_many_gold(face_ids=[], chosen_by=judge)

        assert gold_candidates().count() == 1


def vote(person: User, face: Face, verdict: str) -> None:
    """One annotator's vote on a face of the queue."""
    taken = Claim.objects.filter(face=face, slot__isnull=False).count()
    claim = Claim.objects.create(
        face=face, person=person, slot=taken + 1, expires_at="2100-01-01T00:00Z"
    )
    submit_correction(person=person, claim_id=claim.pk, verdict=verdict)
