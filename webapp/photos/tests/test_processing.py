from __future__ import annotations

import errno
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest
from django.core.files.storage import FileSystemStorage, default_storage
from django.db import connection
from django.test import Client
from django.utils import timezone

from ml.runtime import ProviderUnavailable
from tests.models import write_tiny_model
from tests.pictures import encode, landscape
from webapp.photos import tasks
from webapp.photos.access import photo_secret
from webapp.photos.models import (
    MAX_ATTEMPTS,
    Face,
    FailureReason,
    Photo,
    PhotoStatus,
    Prediction,
)
from webapp.photos.services import processing, serving
from webapp.photos.services.erasure import delete_photo
from webapp.photos.services.serving import ModelServer
from webapp.photos.tests.factories import PhotoFactory
from webapp.registry.models import ModelVersion
from webapp.registry.services import promote_model_version, register_model_version

pytestmark = pytest.mark.django_db


def test_queued_photo_becomes_done_with_its_faces(champion: ModelVersion) -> None:
    photo = PhotoFactory()

    tasks.process_photo(str(photo.pk))

    photo.refresh_from_db()
    assert photo.status == PhotoStatus.DONE
    assert photo.model_version == champion
    assert photo.lease_token is None
    face = Face.objects.get(photo=photo)
    assert face.index == 1
    assert not face.assumed
    assert 170 < face.x < 190
    assert bytes(face.crop).startswith(b"\x89PNG")
    prediction = Prediction.objects.get(face=face)
    total = prediction.happy + prediction.sad + prediction.surprise + prediction.neutral
    assert total == pytest.approx(1, abs=1e-6)


def test_boxes_are_in_pixels_of_the_original(champion: ModelVersion) -> None:
    photo = PhotoFactory(width_px=1024, height_px=2048)

    tasks.process_photo(str(photo.pk))

    face = Face.objects.get(photo=photo)
    assert 340 < face.x < 380
    assert 220 < face.y < 280


def test_second_message_for_a_done_photo_changes_nothing(
    champion: ModelVersion,
) -> None:
    photo = PhotoFactory()
    tasks.process_photo(str(photo.pk))
    before = list(Prediction.objects.values())

    tasks.process_photo(str(photo.pk))

    assert list(Prediction.objects.values()) == before


def test_message_for_a_deleted_photo_is_no_error() -> None:
    tasks.process_photo("00000000-0000-4000-8000-000000000000")


def test_photo_without_a_face_is_done_and_empty(champion: ModelVersion) -> None:
    photo = PhotoFactory(width_px=640, height_px=480)
    Path(default_storage.path(photo.file_name)).write_bytes(encode(landscape()))

    tasks.process_photo(str(photo.pk))

    photo.refresh_from_db()
    assert photo.status == PhotoStatus.DONE
    assert photo.faces_found == 0


def test_claimed_photo_cannot_be_claimed_again() -> None:
    photo = PhotoFactory()

    assert processing.claim_photo(photo_id=photo.pk) is not None
    assert processing.claim_photo(photo_id=photo.pk) is None


@pytest.mark.django_db(transaction=True)
def test_of_twenty_claims_at_once_one_wins() -> None:
    photo = PhotoFactory()
    winners: list[Photo] = []
    start = threading.Barrier(20)

    def claim() -> None:
        start.wait()
        try:
            claimed = processing.claim_photo(photo_id=photo.pk)
            if claimed is not None:
                winners.append(claimed)
        finally:
            connection.close()

    threads = [threading.Thread(target=claim) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(winners) == 1


def test_stale_lease_returns_to_queue(champion: ModelVersion) -> None:
    photo = PhotoFactory()
    lost = processing.claim_photo(photo_id=photo.pk)
    assert lost is not None
    _expire_lease(photo)

    processing.sweep_photos()

    photo.refresh_from_db()
    assert photo.status == PhotoStatus.QUEUED
    assert photo.attempts == 1


def test_worker_that_lost_its_lease_writes_nothing(champion: ModelVersion) -> None:
    photo = PhotoFactory()
    slow = processing.claim_photo(photo_id=photo.pk)
    assert slow is not None
    _expire_lease(photo)
    processing.sweep_photos()

    processing.process_claimed_photo(photo=slow)

    photo.refresh_from_db()
    assert photo.status == PhotoStatus.QUEUED
    assert not Face.objects.filter(photo=photo).exists()


def test_worker_that_lost_its_lease_cannot_give_the_photo_back() -> None:
    photo, slow = _lost_to_another()

    assert not processing.give_back_photo(photo=slow, reason=FailureReason.TIMEOUT)

    photo.refresh_from_db()
    assert photo.status == PhotoStatus.PROCESSING


def test_photo_that_loses_every_worker_fails_with_a_reason() -> None:
    photo = PhotoFactory()
    for _ in range(MAX_ATTEMPTS):
        assert processing.claim_photo(photo_id=photo.pk) is not None
        _expire_lease(photo)
        processing.sweep_photos()

    photo.refresh_from_db()
    assert photo.status == PhotoStatus.FAILED
    assert photo.failure_reason == FailureReason.WORKER_LOST
    assert processing.claim_photo(photo_id=photo.pk) is None


def test_photo_whose_file_is_gone_fails_after_three_attempts(
    champion: ModelVersion,
) -> None:
    photo = PhotoFactory()
    default_storage.delete(photo.file_name)

    for _ in range(MAX_ATTEMPTS):
        tasks.process_photo(str(photo.pk))

    photo.refresh_from_db()
    assert photo.status == PhotoStatus.FAILED
    assert photo.failure_reason == FailureReason.UNREADABLE


def test_photo_whose_file_cannot_be_opened_for_now_waits(
    champion: ModelVersion, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo = PhotoFactory()

    def busy(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(FileSystemStorage, "_open", busy)
    for _ in range(MAX_ATTEMPTS):
        tasks.process_photo(str(photo.pk))
    picture = client.get(f"/photos/{photo.pk}/image?secret={photo_secret(photo.pk)}")

    assert picture.status_code == 503
    photo.refresh_from_db()
    assert (photo.status, photo.attempts) == (PhotoStatus.QUEUED, 0)


def test_without_any_model_the_photo_waits_and_is_read_once_there_is_one(
    tmp_path: Path,
) -> None:
    photo = PhotoFactory()

    for _ in range(MAX_ATTEMPTS + 1):
        tasks.process_photo(str(photo.pk))

    photo.refresh_from_db()
    assert (photo.status, photo.attempts) == (PhotoStatus.QUEUED, 0)
    assert photo.queued_at > timezone.now() + timedelta(seconds=2)
    assert photo.put_off_since is not None

    version = register_model_version(path=write_tiny_model(tmp_path, "tiny-1"))
    promote_model_version(model_version=version, promoted_by=None, reason="test")
    tasks.process_photo(str(photo.pk))

    photo.refresh_from_db()
    assert (photo.status, photo.put_off_since) == (PhotoStatus.DONE, None)


def test_host_without_the_gpu_that_it_is_to_use_takes_no_attempt_from_a_photo(
    champion: ModelVersion, missing_gpu: None
) -> None:
    photo = PhotoFactory()

    for _ in range(MAX_ATTEMPTS + 1):
        tasks.process_photo(str(photo.pk))

    photo.refresh_from_db()
    assert (photo.status, photo.attempts) == (PhotoStatus.QUEUED, 0)


def test_store_that_is_away_is_not_asked_for_a_new_champion_before_every_photo(
    champion: ModelVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = ModelServer()
    assert server.champion().version == champion
    newer = register_model_version(path=write_tiny_model(tmp_path, "tiny-2"))
    promote_model_version(model_version=newer, promoted_by=None, reason="test")
    asked = []

    def refuse(_: FileSystemStorage, name: str, mode: str) -> None:
        asked.append(name)
        raise OSError(errno.EIO, "the disk does not answer")

    with monkeypatch.context() as away:
        away.setattr(FileSystemStorage, "_open", refuse)
        away.setattr(serving, "_LOAD_AGAIN_AFTER_SECONDS", 600.0)
        for _ in range(3):
            assert server.champion().version == champion
    assert asked == [newer.file_name]

    monkeypatch.setattr(serving, "_LOAD_AGAIN_AFTER_SECONDS", 0.0)
    assert server.champion().version == newer


def test_host_without_the_gpu_that_it_is_to_use_hears_so_without_any_model(
    missing_gpu: None,
) -> None:
    with pytest.raises(ProviderUnavailable):
        ModelServer().warm_up()


def test_without_any_model_for_an_hour_the_photo_fails_and_says_so() -> None:
    photo = PhotoFactory()
    tasks.process_photo(str(photo.pk))
    Photo.objects.update(put_off_since=timezone.now() - timedelta(minutes=61))

    for _ in range(MAX_ATTEMPTS):
        tasks.process_photo(str(photo.pk))

    photo.refresh_from_db()
    assert photo.failure_reason == FailureReason.MODEL
    assert photo.put_off_since is None


def test_photo_that_is_put_off_again_remembers_the_first_time() -> None:
    photo = PhotoFactory()
    tasks.process_photo(str(photo.pk))
    first = timezone.now() - timedelta(minutes=59)
    Photo.objects.update(put_off_since=first)

    tasks.process_photo(str(photo.pk))

    photo.refresh_from_db()
    assert (photo.status, photo.put_off_since) == (PhotoStatus.QUEUED, first)


def test_patience_begins_anew_where_nobody_was_there_to_try() -> None:
    photo = PhotoFactory()
    tasks.process_photo(str(photo.pk))
    long_ago = timezone.now() - timedelta(hours=2)
    Photo.objects.update(put_off_since=long_ago, queued_at=long_ago)

    tasks.process_photo(str(photo.pk))

    photo.refresh_from_db()
    assert (photo.status, photo.attempts) == (PhotoStatus.QUEUED, 0)
    assert photo.put_off_since is not None
    assert photo.put_off_since > long_ago


def test_photo_that_lay_for_an_hour_without_a_worker_is_put_off_like_any_other() -> (
    None
):
    photo = PhotoFactory()
    Photo.objects.update(created_at=timezone.now() - timedelta(minutes=61))

    for _ in range(MAX_ATTEMPTS + 1):
        tasks.process_photo(str(photo.pk))

    photo.refresh_from_db()
    assert (photo.status, photo.attempts) == (PhotoStatus.QUEUED, 0)


def test_worker_that_lost_its_lease_cannot_put_the_photo_off() -> None:
    photo, slow = _lost_to_another()

    processing.process_claimed_photo(photo=slow)

    photo.refresh_from_db()
    assert (photo.status, photo.attempts) == (PhotoStatus.PROCESSING, 2)


def test_photo_deleted_while_it_is_read_stays_deleted(champion: ModelVersion) -> None:
    photo = PhotoFactory()
    claimed = processing.claim_photo(photo_id=photo.pk)
    assert claimed is not None
    delete_photo(photo=photo)

    processing.process_claimed_photo(photo=claimed)

    assert not Photo.objects.filter(pk=photo.pk).exists()
    assert not Face.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_lease_is_renewed_while_the_work_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(processing, "_RENEW_EVERY_SECONDS", 0.05)
    photo = PhotoFactory()
    claimed = processing.claim_photo(photo_id=photo.pk)
    assert claimed is not None
    first = claimed.lease_expires_at

    deadline = time.monotonic() + 60
    with processing._lease_kept(claimed):
        while True:
            photo.refresh_from_db()
            if photo.lease_expires_at > first or time.monotonic() > deadline:
                break
            time.sleep(0.02)

    assert photo.lease_expires_at > first


def test_promoted_version_reads_the_next_photo_without_a_restart(
    champion: ModelVersion, tmp_path: Path
) -> None:
    first, second = PhotoFactory(), PhotoFactory()
    tasks.process_photo(str(first.pk))
    path = write_tiny_model(tmp_path, "tiny-22", bias=(0, 50, 0, 0))
    candidate = register_model_version(path=path, parent=champion)
    promote_model_version(model_version=candidate, promoted_by=None, reason="better")

    tasks.process_photo(str(second.pk))

    prediction = Prediction.objects.get(face__photo=second)
    assert prediction.model_version == candidate
    assert prediction.sad > 0.99
    assert Prediction.objects.get(face__photo=first).model_version == champion


def test_champion_with_a_changed_file_does_not_load_and_the_last_good_one_serves(
    champion: ModelVersion, tmp_path: Path
) -> None:
    first, second = PhotoFactory(), PhotoFactory()
    tasks.process_photo(str(first.pk))
    candidate = register_model_version(path=write_tiny_model(tmp_path, "tiny-22"))
    stored = Path(default_storage.path(candidate.file_name))
    stored.write_bytes(stored.read_bytes() + b"x")
    promote_model_version(model_version=candidate, promoted_by=None, reason="oops")

    tasks.process_photo(str(second.pk))

    assert Prediction.objects.get(face__photo=second).model_version == champion


def _lost_to_another() -> tuple[Photo, Photo]:
    """A photo that another worker has by now, and as the slow one still knows it."""
    photo = PhotoFactory()
    slow = processing.claim_photo(photo_id=photo.pk)
    assert slow is not None
    _expire_lease(photo)
    processing.sweep_photos()
    processing.claim_photo(photo_id=photo.pk)
    return photo, slow


def _expire_lease(photo: Photo) -> None:
    Photo.objects.filter(pk=photo.pk).update(
        lease_expires_at=timezone.now() - timedelta(seconds=1)
    )
