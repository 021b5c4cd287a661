"""Twenty people at once, on whichever database the tests run on.

``CURATION_TEST_FACES=1000`` runs it at the size that ``docs/curation.md`` reports.
"""

from __future__ import annotations

import os
import random
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import pytest
from django.db import OperationalError, connection, transaction
from django.utils import timezone

from webapp.accounts.models import User
from webapp.core.errors import Conflict
from webapp.curation.errors import ClaimLost
from webapp.curation.models import (
    Claim,
    Consensus,
    Correction,
    QueueItem,
    QueueStatus,
    Reason,
)
from webapp.curation.services import transfer
from webapp.curation.services.claims import claim_faces
from webapp.curation.services.consensus import lock_consensus
from webapp.curation.services.votes import submit_correction
from webapp.curation.tests.factories import (
    ModelVersionFactory,
    PersonFactory,
    drawn_crop,
)
from webapp.photos.models import Face, Photo, PhotoStatus
from webapp.photos.services.erasure import delete_photo

pytestmark = pytest.mark.django_db(transaction=True)

CLIENTS = 20
FACES = int(os.environ.get("CURATION_TEST_FACES", "200"))
LIMIT_SECONDS = 300.0

T = TypeVar("T")


def fill(count: int) -> None:
    version = ModelVersionFactory()
    now = timezone.now()
    photos = Photo.objects.bulk_create(
        Photo(
            visitor_key="v" * 64,
            file_name=f"photos/none/{number}.jpg",
            width_px=48,
            height_px=48,
            status=PhotoStatus.DONE,
            model_version=version,
            queued_at=now,
            done_at=now,
            training_consent_at=now,
            upload_sha256="0" * 64,
        )
        for number in range(count)
    )
    crop = drawn_crop()
    faces = Face.objects.bulk_create(
        Face(
            photo=photo,
            index=1,
            x=0,
            y=0,
            width=48,
            height=48,
            detector_score=0.9,
            assumed=False,
            quality={},
            crop=crop,
        )
        for photo in photos
    )
    QueueItem.objects.bulk_create(
        QueueItem(face=face, reason=Reason.FLAG, priority=random.random())
        for face in faces
    )
    Consensus.objects.bulk_create(Consensus(face=face) for face in faces)


def somebody_is_asked() -> bool:
    return QueueItem.objects.filter(status=QueueStatus.WAITING).exists()


class Client:
    """Takes faces and labels them until there are none left for it."""

    def __init__(self, person: User, seed: int, start: threading.Barrier) -> None:
        self.person = person
        self.random = random.Random(seed)
        self.start = start
        self.given: list[tuple[uuid.UUID, str]] = []
        self.seen: list[uuid.UUID] = []
        self.told_to_wait = 0

    def persist(self, action: Callable[[], T]) -> T:
        """As the desk does: where the site is too busy, ask again."""
        while True:
            try:
                return action()
            except OperationalError:
                self.told_to_wait += 1
                assert self.told_to_wait < 100

    def run(self) -> None:
        try:
            self.start.wait(120)
            # Nothing left for this one may be no end: a third is asked where two
            # disagree.
            deadline = time.monotonic() + LIMIT_SECONDS
            while time.monotonic() < deadline and self.persist(somebody_is_asked):
                claims = self.persist(lambda: claim_faces(person=self.person, count=2))
                for claim in claims:
                    self.seen.append(claim.face_id)
                    # Three in four say happy, so most are decided and some disputed.
                    verdict = "happy" if self.random.random() < 0.75 else "sad"
                    self.persist(
                        partial(
                            submit_correction,
                            person=self.person,
                            claim_id=claim.pk,
                            verdict=verdict,
                        )
                    )
                    self.given.append((claim.face_id, verdict))
                if not claims:
                    time.sleep(0.5)
        finally:
            connection.close()


def test_twenty_parallel_clients_get_no_slot_twice_and_lose_no_vote() -> None:
    fill(FACES)
    start = threading.Barrier(CLIENTS)
    clients = [Client(PersonFactory(), seed, start) for seed in range(CLIENTS)]

    began = time.monotonic()
    with ThreadPoolExecutor(CLIENTS) as pool:
        for job in [pool.submit(client.run) for client in clients]:
            job.result()
    seconds = time.monotonic() - began

    given = [(client.person.pk, *vote) for client in clients for vote in client.given]
    seen = [(client.person.pk, face) for client in clients for face in client.seen]
    slots = list(Claim.objects.values_list("face_id", "slot"))
    kept = list(
        Correction.objects.filter(retracted_at=None).values_list(
            "author_id", "face_id", "verdict"
        )
    )
    print(
        f"\n{connection.vendor}: {CLIENTS} people gave {len(given)} votes on {FACES} "
        f"faces in {seconds:.1f} s; double slots {len(slots) - len(set(slots))}, "
        f"repeats {len(seen) - len(set(seen))}, lost votes {len(given) - len(kept)}, "
        f"told to wait {sum(client.told_to_wait for client in clients)} times"
    )
    assert len(seen) == len(set(seen))
    assert len(slots) == len(set(slots))
    assert sorted(given) == sorted(kept)
    # Everything is settled, by exactly as many votes as it took.
    assert not QueueItem.objects.filter(status=QueueStatus.WAITING).exists()
    votes = Counter(face for _, face, _ in given)
    for consensus in Consensus.objects.all():
        assert consensus.votes == votes[consensus.face_id] == sum(consensus.tally)
        assert consensus.votes == (2 if max(consensus.tally) == consensus.votes else 3)


def test_twenty_clients_after_two_slots_get_one_each() -> None:
    fill(1)
    start = threading.Barrier(CLIENTS)
    people = [PersonFactory() for _ in range(CLIENTS)]

    def grab(person: User) -> int:
        try:
            start.wait(120)
            return len(claim_faces(person=person))
        finally:
            connection.close()

    with ThreadPoolExecutor(CLIENTS) as pool:
        got = list(pool.map(grab, people))

    assert sum(got) == 2


def test_one_person_in_many_windows_gets_one_set_of_faces() -> None:
    fill(10)
    person = PersonFactory()
    start = threading.Barrier(8)

    def grab(_: int) -> set[uuid.UUID]:
        try:
            start.wait(120)
            return {claim.pk for claim in claim_faces(person=person, count=3)}
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        windows = list(pool.map(grab, range(8)))

    assert Claim.objects.count() == 3
    assert all(window == windows[0] for window in windows)


def test_vote_and_a_file_that_brings_the_same_one_do_not_block_each_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The vote comes while the file's rows are entered and not yet counted."""
    fill(1)
    person = PersonFactory()
    (claim,) = claim_faces(person=person)
    row = {
        "id": str(uuid.uuid4()),
        "face_id": str(claim.face_id),
        "verdict": "sad",
        "source": "annotator",
        "author": person.username,
        "created_at": timezone.now().isoformat(),
    }
    refresh = transfer.refresh_consensus

    with ThreadPoolExecutor(1) as desk:

        def vote() -> None:
            try:
                submit_correction(person=person, claim_id=claim.pk, verdict="happy")
            finally:
                connection.close()

        def refresh_later(**given: Any) -> None:
            votes.append(desk.submit(vote))
            # It is given the time to get as far as it can.
            time.sleep(1)
            refresh(**given)

        votes: list[Future[None]] = []
        monkeypatch.setattr(transfer, "refresh_consensus", refresh_later)
        transfer.import_rows(rows=[row])
        with pytest.raises((Conflict, ClaimLost)):
            votes[0].result(120)

    assert Correction.objects.get().verdict == "sad"
    assert Consensus.objects.get().votes == 1


def somebody_waits() -> bool:
    """For a lock of this database: others have tests of their own."""
    if connection.vendor != "postgresql":
        # Whoever wants to write beside another waits, and no table tells of it.
        time.sleep(0.5)
        return True
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_locks JOIN pg_stat_activity "
            "USING (pid) WHERE NOT granted AND datname = current_database()"
        )
        (waiting,) = cursor.fetchone()
    return bool(waiting)


def test_photo_is_deleted_whatever_is_said_of_it_at_that_moment() -> None:
    """The vote has locked the consensus of a face that is being deleted, and comes to
    the claim, which is gone by half."""
    fill(1)
    person = PersonFactory()
    (claim,) = claim_faces(person=person)

    def delete() -> None:
        try:
            delete_photo(photo=Photo.objects.get())
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as visitor:
        with transaction.atomic():
            lock_consensus(face_id=claim.face_id)
            if connection.vendor == "postgresql":
                with connection.cursor() as cursor:
                    # Of two that wait for each other, the deletion is ended.
                    cursor.execute("SET LOCAL deadlock_timeout = '1min'")
            deletion = visitor.submit(delete)
            while not (somebody_waits() or deletion.done()):
                time.sleep(0.01)
            submit_correction(person=person, claim_id=claim.pk, verdict="sad")
        deletion.result(120)

    assert not Photo.objects.exists()
