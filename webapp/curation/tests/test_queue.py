from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from django.conf import LazySettings
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from webapp.core.errors import DomainError
from webapp.curation import tasks
from webapp.curation.models import Correction, QueueItem, Reason
from webapp.curation.order import ORDERS, Signals, uncertainty
from webapp.curation.services import priority
from webapp.curation.services.flags import retract_flag, submit_flag
from webapp.curation.services.priority import chance_of, priorities, reorder_queue
from webapp.curation.services.queue import enqueue_faces, fill_queue
from webapp.curation.tests.factories import (
    FaceFactory,
    QueuedFaceFactory,
    let_expire,
)
from webapp.photos.models import Face, Photo

pytestmark = pytest.mark.django_db

VISITOR = "v" * 64


def flag(face: Face, verdict: str = "sad", visitor: str = VISITOR) -> Correction:
    return submit_flag(face=face, visitor_key=visitor, verdict=verdict)


def without_consent(**fields: object) -> Face:
    return FaceFactory(photo__training_consent_at=None, **fields)


def test_flag_with_consent_puts_the_face_on_the_queue() -> None:
    face = FaceFactory()

    flag(face)

    assert QueueItem.objects.get().face == face
    assert QueueItem.objects.get().reason == "flag"


def test_flag_without_consent_asks_nobody_until_consent_comes() -> None:
    face = without_consent()
    flag(face)
    assert fill_queue() == 0

    face.photo.training_consent_at = timezone.now()
    face.photo.save()

    assert fill_queue() == 1
    assert QueueItem.objects.get().reason == "flag"


def test_expired_photo_comes_to_no_queue_before_it_is_erased() -> None:
    face = without_consent()
    flag(face)
    Photo.objects.update(training_consent_at=timezone.now())
    let_expire(face)

    assert fill_queue() == 0


def test_flag_alone_decides_nothing() -> None:
    face = FaceFactory()
    for visitor in "abc":
        flag(face, visitor=visitor * 64)

    face.consensus.refresh_from_db()
    assert face.consensus.state == "open"
    assert face.consensus.votes == 0


def test_second_flag_of_a_visitor_takes_the_place_of_the_first() -> None:
    face = FaceFactory()
    first = flag(face, "sad")

    assert flag(face, "sad").pk == first.pk
    second = flag(face, "neutral")

    first.refresh_from_db()
    assert first.retracted_at is not None
    assert second.retracted_at is None
    assert QueueItem.objects.count() == 1


def test_flag_can_be_taken_back() -> None:
    face = FaceFactory()
    flag(face)

    assert retract_flag(face=face, visitor_key=VISITOR)
    assert not retract_flag(face=face, visitor_key=VISITOR)
    assert not retract_flag(face=face, visitor_key="w" * 64)


def test_flag_without_words_or_visitor_is_refused() -> None:
    with pytest.raises(DomainError, match="A verdict is one of"):
        flag(FaceFactory(), "angry")
    with pytest.raises(DomainError, match="needs its visitor"):
        flag(FaceFactory(), visitor="")


def test_unsure_faces_come_by_themselves_once(settings: LazySettings) -> None:
    settings.CURATION_SAMPLE_PERCENT = 0
    unsure = FaceFactory(probabilities=(0.3, 0.3, 0.2, 0.2))
    FaceFactory(probabilities=(0.9, 0.1, 0.0, 0.0))

    assert fill_queue() == 1
    assert fill_queue() == 0

    assert QueueItem.objects.get().face == unsure
    assert QueueItem.objects.get().reason == "unsure"


def test_what_is_there_for_a_weaker_reason_is_written_in_the_order_of_locks() -> None:
    """Bulk labels go by the id of the face, whatever is due first."""
    faces = QueuedFaceFactory.create_batch(3, queued="sample")
    faces.sort(key=lambda face: face.pk)
    for number, face in enumerate(faces):
        QueueItem.objects.filter(face=face).update(priority=number)
    items = [face.queue_item.pk.hex for face in faces]

    with CaptureQueriesContext(connection) as queries:
        enqueue_faces(face_ids=[face.pk for face in faces], reason=Reason.DIFFER)

    written = [
        query["sql"].replace("-", "") for query in queries if "UPDATE" in query["sql"]
    ]
    assert [item in sql for item, sql in zip(items, written, strict=True)] == [True] * 3


def test_random_sample_takes_its_share_of_consented_faces(
    settings: LazySettings,
) -> None:
    settings.CURATION_SAMPLE_PERCENT = 50
    sampled = FaceFactory(pk=uuid.UUID(int=2**126))
    FaceFactory(pk=uuid.UUID(int=2**127 + 2**126))
    without_consent(pk=uuid.UUID(int=2**125))

    fill_queue()

    item = QueueItem.objects.get()
    assert (item.face, item.reason, item.sampled) == (sampled, "sample", True)


def test_face_that_an_admin_brought_in_is_no_sample_of_what_visitors_bring(
    settings: LazySettings,
) -> None:
    """A gold face of a data folder is in no queue item: the model is sure of it."""
    settings.CURATION_SAMPLE_PERCENT = 100
    gold, differing = FaceFactory.create_batch(2, photo__consent_version="import")

    assert fill_queue() == 0
    enqueue_faces(face_ids=[differing.pk], reason=Reason.DIFFER)

    item = QueueItem.objects.get()
    assert (item.face, item.sampled) == (differing, False)
    assert not hasattr(gold, "queue_item")


def test_sampled_face_that_is_flagged_speaks_for_all_still(
    settings: LazySettings,
) -> None:
    settings.CURATION_SAMPLE_PERCENT = 100
    settings.CURATION_ORDER = "flags_first"
    face = FaceFactory()
    fill_queue()
    before = QueueItem.objects.get().priority

    flag(face)

    item = QueueItem.objects.get()
    assert (item.reason, item.sampled) == ("flag", True)
    assert item.priority > before


def test_weaker_reason_changes_nothing() -> None:
    face = FaceFactory()
    flag(face)

    assert enqueue_faces(face_ids=[face.pk], reason=Reason.MANUAL) == 0
    assert QueueItem.objects.get().reason == "flag"


def test_unread_and_unconsented_faces_are_left_out() -> None:
    face = without_consent()

    assert enqueue_faces(face_ids=[face.pk, uuid.uuid4()], reason=Reason.MANUAL) == 0


PLAIN = Signals(
    reason="unsure", probabilities=(0.9, 0.1, 0.0, 0.0), votes=0, flags=0, chance=0.5
)


@pytest.mark.parametrize("name", ORDERS)
def test_every_order_finishes_what_is_begun(name: str) -> None:
    begun = replace(PLAIN, votes=1, chance=0.0)

    assert ORDERS[name](begun) > ORDERS[name](replace(PLAIN, chance=0.99, flags=9))


def test_default_order_asks_for_doubt_first_and_then_for_what_is_waited_for() -> None:
    order = ORDERS["teaches_most"]
    doubtful = replace(PLAIN, probabilities=(0.3, 0.3, 0.2, 0.2))

    assert order(doubtful) > order(replace(PLAIN, reason="flag")) > order(PLAIN)


def test_flags_can_be_asked_for_first() -> None:
    order = ORDERS["flags_first"]
    doubtful = replace(PLAIN, probabilities=(0.3, 0.3, 0.2, 0.2))
    flagged = replace(PLAIN, flags=1)

    assert order(replace(flagged, flags=2)) > order(flagged) > order(doubtful)


def test_uncertainty_is_the_gap_between_the_two_best() -> None:
    assert uncertainty((0.5, 0.5, 0, 0)) == 1
    assert uncertainty((0, 1, 0, 0)) == 0
    assert uncertainty(None) == 1


def test_another_order_rearranges_the_queue(settings: LazySettings) -> None:
    faces = [FaceFactory() for _ in range(5)]
    enqueue_faces(face_ids=[face.pk for face in faces], reason=Reason.MANUAL)
    settings.CURATION_ORDER = "by_chance"

    assert reorder_queue() == 5
    assert reorder_queue() == 0
    items = list(QueueItem.objects.order_by("-priority"))
    chances = [chance_of(item.face_id) for item in items]
    assert chances == sorted(chances, reverse=True)


def test_face_that_moves_while_the_queue_is_ordered_stays_there(
    settings: LazySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    faces = [FaceFactory() for _ in range(2)]
    enqueue_faces(face_ids=[face.pk for face in faces], reason=Reason.MANUAL)
    settings.CURATION_ORDER = "by_chance"

    def vote_meanwhile(*, items: Sequence[QueueItem]) -> dict[uuid.UUID, float]:
        computed = priorities(items=items)
        QueueItem.objects.filter(face=faces[0]).update(priority=7.0)
        return computed

    monkeypatch.setattr(priority, "priorities", vote_meanwhile)

    assert reorder_queue() == 1
    assert QueueItem.objects.get(face=faces[0]).priority == 7.0
    assert QueueItem.objects.get(face=faces[1]).priority == chance_of(faces[1].pk)


def test_ordering_that_runs_out_of_time_keeps_what_is_done(
    settings: LazySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    faces = [FaceFactory() for _ in range(5)]
    enqueue_faces(face_ids=[face.pk for face in faces], reason=Reason.MANUAL)
    settings.CURATION_ORDER = "by_chance"
    monkeypatch.setattr(priority, "_BATCH", 2)
    steps = iter(range(5))

    def ends_in_the_third_step(*, items: Sequence[QueueItem]) -> dict[uuid.UUID, float]:
        if next(steps) == 2:
            raise SoftTimeLimitExceeded
        return priorities(items=items)

    monkeypatch.setattr(priority, "priorities", ends_in_the_third_step)
    with pytest.raises(SoftTimeLimitExceeded):
        reorder_queue()

    placed = [
        item.priority == chance_of(item.face_id) for item in QueueItem.objects.all()
    ]
    assert sum(placed) == 4


def test_all_that_waits_is_not_ordered_anew_each_time_that_faces_come(
    settings: LazySettings,
) -> None:
    face = FaceFactory()
    enqueue_faces(face_ids=[face.pk], reason=Reason.UNSURE)
    settings.CURATION_ORDER = "by_chance"
    before = QueueItem.objects.get().priority

    tasks.fill_queue()
    assert QueueItem.objects.get().priority == before

    tasks.reorder_queue()
    assert QueueItem.objects.get().priority == chance_of(face.pk)
    beaten = {entry["task"] for entry in settings.CELERY_BEAT_SCHEDULE.values()}
    assert {tasks.fill_queue.name, tasks.reorder_queue.name} <= beaten
