from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import current_app
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.db import IntegrityError, connection
from django.db.models import F
from django.utils import timezone

from tests.pictures import astronaut, encode
from webapp.photos import tasks
from webapp.photos.models import Batch, Face, Photo
from webapp.photos.services import erasure, processing
from webapp.photos.services.batches import BatchGone, submit_batch
from webapp.photos.services.consent import set_consent
from webapp.photos.services.erasure import (
    delete_photo,
    erase_expired_photos,
    remove_orphan_files,
)
from webapp.photos.services.processing import claim_photo, sweep_photos
from webapp.photos.services.queue import (
    INFERENCE_QUEUE,
    count_waiting_messages,
    wake_worker,
)
from webapp.photos.tests.factories import PhotoFactory
from webapp.registry.models import ModelVersion

pytestmark = pytest.mark.django_db(transaction=True)

_now = timezone.now


@pytest.fixture(autouse=True)
def empty_queue() -> None:
    with current_app.connection_for_write() as connection:
        connection.default_channel.queue_declare(INFERENCE_QUEUE, durable=True)
        connection.default_channel.queue_purge(INFERENCE_QUEUE)


def aged_photo(seconds: int) -> Photo:
    return PhotoFactory(queued_at=timezone.now() - timedelta(seconds=seconds))


def test_photo_whose_message_was_lost_gets_a_new_one() -> None:
    aged_photo(60)

    sweep_photos()

    assert count_waiting_messages() == 1


def test_photo_that_merely_waits_gets_no_second_message() -> None:
    for photo in (aged_photo(60), aged_photo(50)):
        wake_worker(photo.pk)

    sweep_photos()
    sweep_photos()

    assert count_waiting_messages() == 2


def test_fresh_photo_is_left_alone() -> None:
    PhotoFactory()

    assert sweep_photos() == 0


def test_photo_that_waits_for_a_model_is_woken_once_it_is_due() -> None:
    photo = PhotoFactory()
    tasks.process_photo(str(photo.pk))
    assert count_waiting_messages() == 0
    assert sweep_photos() == 0
    Photo.objects.update(queued_at=F("queued_at") - timedelta(seconds=8))

    assert sweep_photos() == 1

    assert count_waiting_messages() == 1


def test_lease_that_is_renewed_while_the_sweep_runs_stays_its_workers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    photo = PhotoFactory()
    claim_photo(photo_id=photo.pk)
    Photo.objects.update(lease_expires_at=timezone.now() - timedelta(seconds=1))
    give_back = processing.give_back_photo

    def late(**given: Any) -> bool:
        Photo.objects.update(lease_expires_at=timezone.now() + timedelta(seconds=4))
        return give_back(**given)

    monkeypatch.setattr(processing, "give_back_photo", late)

    assert sweep_photos() == 0

    photo.refresh_from_db()
    assert photo.status == "processing"


def test_photo_of_a_killed_worker_waits_for_no_clock_that_went_back() -> None:
    photo = PhotoFactory()
    claim_photo(photo_id=photo.pk)
    Photo.objects.update(lease_expires_at=timezone.now() + timedelta(hours=1))

    assert sweep_photos() == 1

    photo.refresh_from_db()
    assert photo.status == "queued"


def test_photo_that_waits_waits_for_no_clock_that_went_back() -> None:
    aged_photo(-3600)

    assert sweep_photos() == 1

    assert count_waiting_messages() == 1


def test_host_whose_clock_is_wrong_neither_takes_nor_keeps_a_photo_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An hour ahead and an hour behind: the database's clock is the same to all."""
    for hours in (1, -1):
        photo = PhotoFactory()
        monkeypatch.setattr(
            processing.timezone, "now", lambda h=hours: _now() + timedelta(hours=h)
        )

        claim_photo(photo_id=photo.pk)
        sweep_photos()
        photo.refresh_from_db()
        assert photo.status == "processing"
        assert photo.lease_expires_at is not None
        assert abs(photo.lease_expires_at - _now()) < timedelta(seconds=10)

        monkeypatch.undo()


def test_without_a_broker_the_sweep_waits_and_the_photo_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    photo = aged_photo(60)
    monkeypatch.setattr(current_app.conf, "broker_read_url", "redis://127.0.0.1:1/0")
    monkeypatch.setattr(current_app.conf, "broker_write_url", "redis://127.0.0.1:1/0")

    assert sweep_photos() == 0

    photo.refresh_from_db()
    assert photo.status == "queued"


def test_broker_that_goes_once_it_has_answered_is_away_and_no_crash(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    photo = aged_photo(60)

    def closed(*_: Any) -> int:
        raise redis.exceptions.ConnectionError("Connection closed by server.")

    monkeypatch.setattr("kombu.transport.redis.Channel._size", closed)

    assert sweep_photos() == 0

    photo.refresh_from_db()
    assert photo.status == "queued"


def test_worker_goes_on_sweeping_whatever_happened_to_one_sweep(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sweeps = iter([OSError("the broker is away"), RuntimeError(), SystemExit()])

    def fail() -> None:
        raise next(sweeps)

    with pytest.raises(SystemExit):
        tasks._go_on(fail, every_seconds=0.0)


def test_worker_that_reads_erases_what_has_expired_without_the_beat() -> None:
    PhotoFactory(expires_at=timezone.now() - timedelta(seconds=1))

    for act, _ in tasks._KEPT_UP:
        act()

    assert not Photo.objects.exists()


def test_expired_photo_is_erased_with_its_file() -> None:
    kept = PhotoFactory()
    gone = PhotoFactory(expires_at=timezone.now() - timedelta(seconds=1))

    assert erase_expired_photos() == 1

    assert list(Photo.objects.all()) == [kept]
    assert not default_storage.exists(gone.file_name)
    assert default_storage.exists(kept.file_name)


def test_all_that_a_busy_minute_took_in_is_erased_in_one() -> None:
    """The site takes in some fifty photos a second."""
    now = timezone.now()
    Photo.objects.bulk_create(
        Photo(
            visitor_key="v" * 64,
            file_name=f"photos/aa/{number}.jpg",
            width_px=1,
            height_px=1,
            queued_at=now,
            expires_at=now - timedelta(seconds=1),
            upload_sha256="",
        )
        for number in range(300)
    )

    assert erase_expired_photos() == 300


def test_what_is_not_erased_in_time_waits_for_the_next_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for _ in range(2):
        PhotoFactory(expires_at=timezone.now() - timedelta(seconds=1))
    monkeypatch.setattr(erasure, "_ERASING_SECONDS", -1.0)
    assert erase_expired_photos() == 0
    monkeypatch.undo()

    assert erase_expired_photos() == 2


@pytest.mark.parametrize("hours", [48, -48])
def test_host_whose_clock_is_wrong_erases_nothing_early_and_lets_nothing_live_on(
    monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    """As it takes photos in, and as it erases them."""
    picture = encode(astronaut())

    def files() -> Iterator[tuple[str, bytes]]:
        yield "a.jpg", picture
        assert erase_expired_photos() == 0
        yield "b.jpg", picture

    with monkeypatch.context() as wrong:
        wrong.setattr(timezone, "now", lambda: _now() + timedelta(hours=hours))
        batch = submit_batch(files=files(), visitor_key="v" * 64)
        assert erase_expired_photos() == 0
        set_consent(photos=batch.photos.all(), keep=True)
        set_consent(photos=batch.photos.all(), keep=False)

    assert erase_expired_photos() == 0
    for photo in batch.photos.all():
        assert photo.expires_at is not None
        assert abs(photo.expires_at - _now() - timedelta(hours=24)) < timedelta(hours=1)
    Photo.objects.update(expires_at=_now() - timedelta(seconds=1))
    assert erase_expired_photos() == 2


def test_batch_whose_process_ended_while_it_came_in_goes_with_its_photos() -> None:
    picture = encode(astronaut())
    whole = submit_batch(files=[("a.jpg", picture)], visitor_key="v" * 64, keep=True)

    def files() -> Iterator[tuple[str, bytes]]:
        yield "a.jpg", picture
        # What a process leaves that is killed now.
        erase_expired_photos()
        assert Photo.objects.exclude(batch=whole).count() == 1
        Batch.objects.update(created_at=timezone.now() - timedelta(minutes=11))
        erase_expired_photos()
        yield "b.jpg", picture

    with pytest.raises(BatchGone):
        submit_batch(files=files(), visitor_key="v" * 64, keep=True)

    assert list(Batch.objects.all()) == [whole]
    assert [photo.batch for photo in Photo.objects.all()] == [whole]


def test_deleted_photo_leaves_no_file() -> None:
    photo = PhotoFactory()

    delete_photo(photo=photo)

    assert not default_storage.exists(photo.file_name)


def test_deletion_that_somebodys_word_on_a_face_gets_into_is_done_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    photo = PhotoFactory()
    delete_once, tries = erasure._delete_once, iter([True, False])

    def meet(photo: Photo) -> None:
        if next(tries):
            raise IntegrityError("a correction still names the face")
        delete_once(photo)

    monkeypatch.setattr(erasure, "_delete_once", meet)

    delete_photo(photo=photo)

    assert not Photo.objects.exists()


def test_nothing_of_a_deleted_photo_is_left_in_the_database_files(
    champion: ModelVersion,
) -> None:
    photo = PhotoFactory()
    tasks.process_photo(str(photo.pk))
    crop = bytes(Face.objects.get(photo=photo).crop)[60:120]
    delete_photo(photo=photo)

    tasks.erase_expired_photos()

    if connection.vendor == "sqlite":
        database = Path(connection.settings_dict["NAME"])
        files = database.parent.glob(f"{database.name}*")
        assert not any(crop in path.read_bytes() for path in files)
    assert not Face.objects.exists()


def test_orphan_file_is_removed_once_it_is_old() -> None:
    photo = PhotoFactory()
    old = default_storage.save("photos/aa/old.jpg", ContentFile(b"x"))
    new = default_storage.save("photos/aa/new.jpg", ContentFile(b"x"))
    hour_ago = time.time() - 3600
    for name in (old, photo.file_name):
        os.utime(Path(default_storage.path(name)), (hour_ago, hour_ago))

    assert remove_orphan_files() == 1

    assert not default_storage.exists(old)
    assert default_storage.exists(new)
    assert default_storage.exists(photo.file_name)


def test_file_that_goes_while_orphans_are_looked_for_stops_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old = default_storage.save("photos/aa/old.jpg", ContentFile(b"x"))
    os.utime(Path(default_storage.path(old)), (time.time() - 3600,) * 2)
    listdir = erasure._listdir

    def as_it_was(path: str) -> tuple[list[str], list[str]]:
        folders, names = listdir(path)
        return folders, ["deleted-meanwhile.jpg", *names]

    monkeypatch.setattr(erasure, "_listdir", as_it_was)

    assert remove_orphan_files() == 1

    assert not default_storage.exists(old)


def test_orphans_that_a_slow_store_leaves_no_time_for_wait_for_the_next_sweep(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("photos/aa/old.jpg", "photos/bb/old.jpg"):
        default_storage.save(name, ContentFile(b"x"))
        os.utime(Path(default_storage.path(name)), (time.time() - 3600,) * 2)
    with monkeypatch.context() as slow:
        slow.setattr(erasure, "_ERASING_SECONDS", -1.0)
        assert remove_orphan_files() == 0

    assert remove_orphan_files() == 2


def test_no_folder_is_always_the_last_in_which_orphans_are_looked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for number in range(20):
        default_storage.save(f"photos/{number}/new.jpg", ContentFile(b"x"))
    listdir = erasure._listdir
    asked: list[str] = []

    def listed(path: str) -> tuple[list[str], list[str]]:
        asked.append(path)
        return listdir(path)

    monkeypatch.setattr(erasure, "_listdir", listed)
    for _ in range(4):
        remove_orphan_files()

    assert len(asked) == 4 * 21
    assert len({tuple(asked[first : first + 21]) for first in range(0, 84, 21)}) > 1


def test_orphan_sweep_of_an_empty_site_finds_nothing() -> None:
    assert remove_orphan_files() == 0
