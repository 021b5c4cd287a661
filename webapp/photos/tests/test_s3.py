"""Files in an S3-compatible store: moto's server stands in for one."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.conf import LazySettings
from django.core.exceptions import SuspiciousOperation
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.test import Client
from django.utils import timezone
from moto.server import ThreadedMotoServer

from tests.pictures import astronaut, encode
from tests.services import free_port
from webapp.config import env
from webapp.core.storage import StorageAway
from webapp.photos import tasks
from webapp.photos.models import Photo, PhotoStatus
from webapp.photos.services import erasure
from webapp.photos.tests.factories import PhotoFactory
from webapp.registry.models import ModelVersion


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"{host}:{port}"
    server.stop()


@pytest.fixture
def store(server: str, settings: LazySettings) -> Any:
    use_store(settings, f"s3://key:secret@{server}/photos?tls=0")
    default_storage.prepare()
    return default_storage


def use_store(settings: LazySettings, url: str) -> None:
    settings.STORAGES = {**settings.STORAGES, "default": env.storage(url)}


def test_object_is_written_read_listed_and_deleted(store: Any) -> None:
    name = store.save("photos/ab/abcd.jpg", ContentFile(b"\xff\xd8 photo"))

    with store.open(name) as handle:
        assert handle.read() == b"\xff\xd8 photo"
    assert store.exists(name)
    assert store.size(name) == 8
    assert store.listdir("photos") == (["ab"], [])
    assert store.listdir("photos/ab") == ([], ["abcd.jpg"])
    assert abs(timezone.now() - store.get_modified_time(name)) < timedelta(minutes=5)
    store.delete(name)
    assert not store.exists(name)
    assert store.listdir("photos") == ([], [])
    store.delete(name)


def test_missing_object_is_a_missing_file(store: Any) -> None:
    for ask in (store.open, store.size, store.get_modified_time):
        with pytest.raises(FileNotFoundError):
            ask("photos/no.jpg")


def test_nobody_is_sent_to_the_store(store: Any) -> None:
    with pytest.raises(NotImplementedError, match="no public address"):
        store.url("photos/ab/abcd.jpg")


def test_preparing_twice_changes_nothing(store: Any) -> None:
    store.save("photos/a.jpg", ContentFile(b"x"))
    store.prepare()
    store.probe()

    assert store.exists("photos/a.jpg")
    store.delete("photos/a.jpg")


def test_store_that_takes_no_object_is_not_well(store: Any) -> None:
    """Full or read-only: it answers, and what it holds can be read."""
    store.probe()
    assert store.listdir("")[1] == []
    client = store.connection.meta.client
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Deny",
                "Principal": "*",
                "Action": "s3:PutObject",
                "Resource": f"arn:aws:s3:::{store.bucket_name}/*",
            }
        ],
    }
    client.put_bucket_policy(Bucket=store.bucket_name, Policy=json.dumps(policy))
    try:
        client.head_bucket(Bucket=store.bucket_name)
        with pytest.raises(StorageAway, match="refuses"):
            store.probe()
    finally:
        client.delete_bucket_policy(Bucket=store.bucket_name)


def test_bucket_that_is_gone_is_not_well(server: str, settings: LazySettings) -> None:
    use_store(settings, f"s3://key:secret@{server}/nowhere?tls=0")

    with pytest.raises(StorageAway, match="refuses nowhere"):
        default_storage.probe()


def test_name_cannot_leave_its_place(store: Any) -> None:
    for name in ("photos/../inside.jpg", "/etc/passwd", "../other"):
        with pytest.raises(SuspiciousOperation):
            store.save(name, ContentFile(b"x"))


def test_store_that_is_away_is_an_os_error(settings: LazySettings) -> None:
    use_store(settings, f"s3://key:secret@127.0.0.1:{free_port()}/photos?tls=0")

    for ask in (default_storage.open, default_storage.exists):
        with pytest.raises(StorageAway, match="does not answer"):
            ask("photos/a.jpg")
    with pytest.raises(StorageAway):
        default_storage.probe()


@pytest.mark.django_db
def test_photo_goes_in_is_shown_to_its_owner_alone_and_is_erased(
    store: Any, client: Client, django_capture_on_commit_callbacks: Any
) -> None:
    picture = ContentFile(encode(astronaut()), name="photo.jpg")
    accepted = client.post("/api/v1/photos", {"image": picture})
    assert accepted.status_code == 202
    photo = Photo.objects.get()
    address = f"/photos/{photo.pk}/image"

    shown = client.get(address)

    assert shown.status_code == 200
    assert b"".join(shown.streaming_content).startswith(b"\xff\xd8")
    assert shown.headers["Content-Type"] == "image/jpeg"
    assert shown.headers["X-Content-Type-Options"] == "nosniff"
    assert Client().get(address).status_code == 404
    with django_capture_on_commit_callbacks(execute=True):
        erasure.delete_photo(photo=photo)
    assert not store.exists(photo.file_name)


@pytest.mark.django_db
def test_object_without_a_row_is_swept_once_it_is_old(
    store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.save("photos/00/orphan.jpg", ContentFile(b"x"))
    assert erasure.remove_orphan_files() == 0
    monkeypatch.setattr(erasure, "_ORPHAN_AFTER", timedelta(seconds=-60))

    assert erasure.remove_orphan_files() == 1
    assert not store.exists("photos/00/orphan.jpg")


@pytest.mark.timed
@pytest.mark.django_db
def test_photo_waits_for_a_store_that_hangs_within_the_time_it_has(
    champion: ModelVersion, settings: LazySettings
) -> None:
    warm, photo = PhotoFactory(), PhotoFactory()
    tasks.process_photo(str(warm.pk))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        use_store(settings, f"s3://key:secret@127.0.0.1:{port}/photos?tls=0")
        began_at = time.monotonic()

        tasks.process_photo(str(photo.pk))

        seconds = time.monotonic() - began_at
    photo.refresh_from_db()
    assert (photo.status, photo.attempts) == (PhotoStatus.QUEUED, 0)
    # Else it would be interrupted first, which counts as an attempt.
    assert seconds < 0.75 * settings.CELERY_TASK_SOFT_TIME_LIMIT


@pytest.mark.django_db
def test_store_that_is_away_is_503_and_takes_no_photo(
    settings: LazySettings, client: Client
) -> None:
    use_store(settings, f"s3://key:secret@127.0.0.1:{free_port()}/photos?tls=0")

    answer = client.post(
        "/api/v1/photos",
        {"image": ContentFile(encode(astronaut()), name="photo.jpg")},
    )

    assert answer.status_code == 503
    assert answer.headers["Retry-After"]
    assert not Photo.objects.exists()


@pytest.mark.parametrize("loaded", [True, False], ids=["with", "without"])
@pytest.mark.django_db
def test_photo_waits_for_a_store_that_is_away_with_or_without_a_loaded_model(
    store: Any,
    champion: ModelVersion,
    settings: LazySettings,
    loaded: bool,
    django_capture_on_commit_callbacks: Any,
) -> None:
    photo, before = PhotoFactory(), PhotoFactory()
    if loaded:
        tasks.process_photo(str(before.pk))
    here = settings.STORAGES
    use_store(settings, f"s3://key:secret@127.0.0.1:{free_port()}/photos?tls=0")

    with django_capture_on_commit_callbacks() as woken:
        tasks.process_photo(str(photo.pk))

    photo.refresh_from_db()
    assert (photo.status, photo.attempts) == (PhotoStatus.QUEUED, 0)
    assert photo.queued_at > timezone.now() + timedelta(seconds=2)
    assert woken == []

    settings.STORAGES = here
    tasks.process_photo(str(photo.pk))

    photo.refresh_from_db()
    assert photo.status == PhotoStatus.DONE
    for name in (photo.file_name, before.file_name):
        # Other tests look into the same store.
        store.delete(name)
