from __future__ import annotations

import os
import weakref
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone
from PIL import Image

from ml.images import DecodedImage, decode_image, read_file
from ml.labels import EMOTIONS
from tests.models import write_tiny_model
from webapp.core.errors import DomainError
from webapp.curation import tasks
from webapp.curation.models import Correction, DatasetImport, GoldFace, QueueItem
from webapp.curation.services import imports
from webapp.curation.services.imports import (
    ImportOptions,
    claim_dataset_import,
    run_dataset_import,
    start_dataset_import,
    sweep_dataset_imports,
)
from webapp.curation.services.queue import enqueue_faces
from webapp.photos.models import Face, Photo
from webapp.photos.services.serving import ModelServer
from webapp.registry.services import promote_model_version, register_model_version

pytestmark = pytest.mark.django_db

PER_CLASS = 3


@pytest.fixture(autouse=True)
def champion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that finds everybody happy."""
    monkeypatch.setattr("webapp.curation.services.imports.model_server", ModelServer())
    path = write_tiny_model(tmp_path, "all-happy", bias=(9.0, 0.0, 0.0, 0.0))
    version = register_model_version(path=path)
    promote_model_version(model_version=version, promoted_by=None, reason="test")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data set of drawn pictures, and one file that is none."""
    generator = np.random.default_rng(0)
    for emotion in EMOTIONS:
        place = tmp_path / "data" / "train" / emotion.value
        place.mkdir(parents=True)
        for number in range(PER_CLASS):
            pixels = generator.integers(0, 255, (48, 48), np.uint8)
            Image.fromarray(pixels).save(place / f"{number}.png")
    (tmp_path / "data" / "train" / "sad" / "broken.png").write_bytes(b"no picture")
    return tmp_path / "data"


def run(folder: Path, **options: object) -> DatasetImport:
    row = start_dataset_import(
        folder=folder, options=ImportOptions(**options), started_by=None
    )
    tasks.import_dataset(str(row.pk))
    row.refresh_from_db()
    return row


def test_faces_whose_folder_the_model_doubts_come_onto_the_queue(folder: Path) -> None:
    row = run(folder)

    assert (row.status, row.message) == ("done", "")
    assert (row.seen, row.total) == (13, 13)
    assert row.queued_faces == QueueItem.objects.count() == 3 * PER_CLASS
    assert {item.reason for item in QueueItem.objects.all()} == {"suspect"}
    assert not any(item.sampled for item in QueueItem.objects.all())


def test_folder_is_one_opinion_and_no_vote(folder: Path) -> None:
    run(folder)

    said = Correction.objects.all()
    assert {row.source for row in said} == {"import"}
    assert {row.author.username for row in said} == {"folder-data"}
    assert not said[0].author.is_active
    assert said[0].face.consensus.votes == 0


def test_folder_looked_through_again_changes_nothing(folder: Path) -> None:
    run(folder)
    photos = Photo.objects.count()

    assert run(folder).queued_faces == 0
    assert Photo.objects.count() == photos


def test_everything_can_be_queued_up_to_a_limit_and_some_made_gold(
    folder: Path,
) -> None:
    run(folder, everything=True, gold=2)

    assert GoldFace.objects.count() == 2
    assert QueueItem.objects.count() == 4 * PER_CLASS - 2
    assert {gold.verdict for gold in GoldFace.objects.all()} == {"happy"}


def test_limit_holds_to_the_face_and_over_the_death_of_a_worker(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imports, "_STEP", 4)
    entered = iter(range(100))

    def dies_in_the_third_step(**fields: object) -> int:
        if next(entered) == 2:
            raise SystemExit
        return enqueue_faces(**fields)

    monkeypatch.setattr(imports, "enqueue_faces", dies_in_the_third_step)
    options = ImportOptions(everything=True, limit=7, gold=2)
    row = start_dataset_import(folder=folder, options=options, started_by=None)
    with pytest.raises(SystemExit):
        tasks.import_dataset(str(row.pk))
    row.refresh_from_db()
    assert row.queued_faces == QueueItem.objects.count() < 7
    assert GoldFace.objects.count() == 2

    DatasetImport.objects.update(status=DatasetImport.Status.QUEUED)
    tasks.import_dataset(str(row.pk))

    row.refresh_from_db()
    assert row.status == "done"
    assert row.queued_faces == QueueItem.objects.count() == 7
    assert GoldFace.objects.count() == 2


def test_a_second_worker_does_not_take_the_same_import(folder: Path) -> None:
    row = start_dataset_import(folder=folder, options=ImportOptions(), started_by=None)

    assert claim_dataset_import(import_id=row.pk) is not None
    assert claim_dataset_import(import_id=row.pk) is None


def test_import_of_a_dead_worker_goes_on(folder: Path) -> None:
    row = start_dataset_import(folder=folder, options=ImportOptions(), started_by=None)
    claim_dataset_import(import_id=row.pk)
    assert sweep_dataset_imports() == 0
    long_ago = timezone.now() - timedelta(minutes=5)
    DatasetImport.objects.update(heartbeat_at=long_ago, created_at=long_ago)

    assert sweep_dataset_imports() == 1

    tasks.import_dataset(str(row.pk))
    row.refresh_from_db()
    assert row.status == "done"


def test_what_cannot_be_opened_is_passed_over(folder: Path) -> None:
    sad = folder / "train" / "sad"
    (sad / "nowhere.png").symlink_to(sad / "gone.png")
    os.mkfifo(sad / "pipe.png")

    row = run(folder)

    assert (row.status, row.message) == ("done", "")
    assert (row.seen, row.total) == (15, 15)
    assert row.queued_faces == 3 * PER_CLASS


def test_large_pictures_are_stored_as_those_of_visitors_and_read_one_by_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = folder / "train" / "sad"
    for number in range(3):
        Image.new("RGB", (2400, 1200), (number, 0, 0)).save(place / f"{number}.png")
    alive: list[weakref.ref[Image.Image]] = []

    def decode(*given: Any) -> DecodedImage:
        assert not any(pixels() for pixels in alive)
        decoded = decode_image(*given)
        alive.append(weakref.ref(decoded.pixels))
        return decoded

    monkeypatch.setattr(imports, "decode_image", decode)

    assert run(folder).status == "done"

    assert len(alive) == 4 * PER_CLASS
    large = Photo.objects.filter(width_px=1920, height_px=960)
    assert large.count() == 3
    sizes = Face.objects.filter(photo__in=large).values_list("width", "height")
    assert set(sizes) == {(1920.0, 960.0)}


def die_again(row: DatasetImport) -> None:
    """Another worker takes the import, and dies in the midst of it; its heart stops."""
    assert claim_dataset_import(import_id=row.pk) is not None
    claimed = DatasetImport.objects.get()
    with pytest.raises(SystemExit):
        run_dataset_import(dataset_import=claimed)
    long_ago = timezone.now() - timedelta(minutes=5)
    DatasetImport.objects.update(heartbeat_at=long_ago, created_at=long_ago)
    sweep_dataset_imports()
    row.refresh_from_db()


def test_import_that_kills_its_workers_at_one_place_fails(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imports, "_STEP", 4)
    deadly = folder / "train" / "sad" / "2.png"

    def dies_of_one(path: Path) -> bytes:
        if path == deadly:
            raise SystemExit
        return read_file(path)

    monkeypatch.setattr(imports, "read_file", dies_of_one)
    row = start_dataset_import(folder=folder, options=ImportOptions(), started_by=None)
    die_again(row)
    assert (row.status, row.seen, row.attempts) == ("queued", 4, 0)
    deadly = folder / "train" / "neutral" / "2.png"
    die_again(row)
    assert (row.status, row.seen, row.attempts) == ("queued", 12, 0)

    for attempts in (1, 2):
        die_again(row)
        assert (row.status, row.seen, row.attempts) == ("queued", 12, attempts)
    die_again(row)

    assert (row.status, row.attempts) == ("failed", 3)
    assert "3 workers died at the same files" in row.message
    assert row.done_at is not None


def test_folder_that_vanishes_meanwhile_fails_the_import(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = start_dataset_import(folder=folder, options=ImportOptions(), started_by=None)
    listed = imports._list(folder, ImportOptions())
    monkeypatch.setattr(imports, "_list", lambda *_: listed)
    folder.rename(folder.with_name("elsewhere"))

    tasks.import_dataset(str(row.pk))

    row.refresh_from_db()
    assert row.status == "failed"
    assert "is there no more" in row.message


def test_folder_that_vanished_fails_with_the_reason(folder: Path) -> None:
    row = start_dataset_import(folder=folder, options=ImportOptions(), started_by=None)
    folder.rename(folder.with_name("elsewhere"))

    tasks.import_dataset(str(row.pk))

    row.refresh_from_db()
    assert row.status == "failed"
    assert "no folder" in row.message


@pytest.mark.parametrize(
    ("place", "options", "words"),
    [
        ("data", {"limit": -1}, "0 or more"),
        ("data", {"gold": -1}, "0 or more"),
        ("data/train/sad/broken.png", {}, "is no folder"),
        ("x" * 5000, {}, "cannot be looked through: File name too long"),
        ("deep", {}, "path is longer than 500 letters"),
    ],
)
def test_import_that_cannot_be_is_refused_before_it_begins(
    folder: Path, place: str, options: dict[str, int], words: str
) -> None:
    if place == "deep":
        deep = folder.parent.joinpath(*["d" * 100] * 5)
        deep.parent.mkdir(parents=True)
        folder.rename(deep)
        place = str(deep)

    with pytest.raises(DomainError, match=words):
        start_dataset_import(
            folder=folder.parent / place,
            options=ImportOptions(**options),
            started_by=None,
        )

    assert not DatasetImport.objects.exists()


def test_folder_whose_name_is_no_utf8_is_to_be_renamed(folder: Path) -> None:
    odd = folder.rename(folder.with_name(os.fsdecode(b"na\xefve")))

    with pytest.raises(DomainError, match="is no UTF-8"):
        start_dataset_import(folder=odd, options=ImportOptions(), started_by=None)


def test_command_shows_progress_and_refuses_clearly(folder: Path) -> None:
    out = StringIO()
    call_command("import_dataset", folder, here=True, stdout=out)
    assert "13 of 13 looked at, 9 queued" in out.getvalue()
    assert Face.objects.count() == 9

    with pytest.raises(CommandError, match="is no folder"):
        call_command("import_dataset", folder / "nothing")
    with pytest.raises(CommandError, match="judges models"):
        call_command("import_dataset", folder, split="test")
    with pytest.raises(CommandError, match="A split is one of"):
        call_command("import_dataset", folder, split="all")
