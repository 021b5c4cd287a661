from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from celery.exceptions import SoftTimeLimitExceeded
from django.conf import LazySettings
from django.db import connection
from django.utils import timezone
from django_celery_beat.models import CrontabSchedule, PeriodicTask

from ml.labels import EMOTIONS, Emotion
from tests.models import write_tiny_model
from webapp.accounts.models import User
from webapp.core.errors import Conflict, NotAllowed
from webapp.core.storage import StorageAway
from webapp.curation.models import Consensus, Correction, QueueItem, Reason
from webapp.curation.receipts import get_receipt, receipt_secret
from webapp.curation.selectors import queue_figures
from webapp.curation.services.queue import IMPORTED
from webapp.curation.tests.factories import (
    FaceFactory,
    PersonFactory,
    ReadPhotoFactory,
    let_expire,
)
from webapp.photos.models import Face, Photo, Prediction
from webapp.photos.services.consent import set_consent
from webapp.photos.services.serving import ModelServer, NoModelServes
from webapp.registry.models import ModelVersion
from webapp.registry.selectors import read_model_file
from webapp.registry.services import register_model_version
from webapp.training import selectors, tasks
from webapp.training.errors import RunRefused
from webapp.training.models import (
    DriftReading,
    RunState,
    Shadow,
    SnapshotFace,
    Split,
    TrainingRun,
    Trigger,
)
from webapp.training.services import drift, readings, runs, triggers
from webapp.training.services.promotion import promote_version, roll_back
from webapp.training.services.snapshots import build_snapshot
from webapp.training.tests.factories import Labeller, head_run, take_files_away

pytestmark = pytest.mark.django_db


@pytest.fixture
def candidate(labeller: Labeller) -> ModelVersion:
    labeller.faces(4)
    candidate = head_run().candidate
    assert candidate is not None
    return candidate


def live_faces(labeller: Labeller, count: int, said: int) -> list[Face]:
    """Faces that came in and nobody labelled; the champion said ``said``."""
    values = [0.1] * 4
    values[said] = 0.7
    faces = [labeller.face(Emotion.NEUTRAL, probabilities=values) for _ in range(count)]
    QueueItem.objects.filter(face__in=faces).delete()
    Consensus.objects.filter(face__in=faces).delete()
    return faces


def test_shadow_reads_live_faces_and_differences_go_to_curation(
    labeller: Labeller, candidate: ModelVersion, admin: User
) -> None:
    shadow = readings.start_shadow(candidate=candidate, requested_by=admin)
    same = live_faces(labeller, 3, said=3)
    other = live_faces(labeller, 2, said=0)
    kept_out, expired, imported = live_faces(labeller, 3, said=0)
    Photo.objects.filter(pk=imported.photo_id).update(consent_version=IMPORTED)
    set_consent(photos=Photo.objects.filter(pk=kept_out.photo_id), train=False)
    let_expire(expired)

    assert readings.read_shadows() == 5
    assert readings.read_shadows() == 0

    read = Prediction.objects.filter(model_version=candidate)
    assert {row.face_id for row in read} == {face.pk for face in same + other}
    said = {
        row.face_id: max(EMOTIONS, key=lambda e: float(getattr(row, e.value)))
        for row in read
    }
    differing = {face.pk for face in same if said[face.pk] is not Emotion.NEUTRAL}
    differing |= {face.pk for face in other if said[face.pk] is not Emotion.HAPPY}
    assert 0 < len(differing) < 5
    queued = QueueItem.objects.filter(reason=Reason.DIFFER)
    assert {item.face_id for item in queued} == differing
    shadow.refresh_from_db()
    assert (shadow.faces, shadow.differed) == (5, len(differing))
    # What the visitor was told is untouched.
    assert Prediction.objects.filter(face=other[0]).count() == 2


def test_shadow_ends_by_itself_and_by_hand(
    labeller: Labeller, candidate: ModelVersion, admin: User
) -> None:
    shadow = readings.start_shadow(candidate=candidate, requested_by=admin, hours=1)
    with pytest.raises(Conflict, match="beside the champion already"):
        readings.start_shadow(candidate=candidate, requested_by=admin)
    with pytest.raises(NotAllowed):
        readings.end_shadow(shadow=shadow, ended_by=PersonFactory())
    assert readings.end_shadow(shadow=shadow, ended_by=admin)
    assert not readings.end_shadow(shadow=shadow, ended_by=admin)
    second = readings.start_shadow(candidate=candidate, requested_by=admin)
    Shadow.objects.filter(pk=second.pk).update(
        ends_at=timezone.now() - timedelta(minutes=1)
    )
    live_faces(labeller, 1, said=0)

    assert readings.read_shadows() == 0
    second.refresh_from_db()
    assert second.ended_at is not None


def test_champion_and_broken_candidates_cast_no_shadow(
    labeller: Labeller, candidate: ModelVersion, admin: User, home: Path
) -> None:
    with pytest.raises(Conflict, match="reads every face already"):
        readings.start_shadow(candidate=labeller.version, requested_by=admin)
    with pytest.raises(NotAllowed):
        readings.start_shadow(candidate=candidate, requested_by=PersonFactory())
    (home / "media" / candidate.file_name).write_bytes(b"no model")
    readings._load.cache_clear()
    with pytest.raises(Conflict, match="cannot read along"):
        readings.start_shadow(candidate=candidate, requested_by=admin)


def tiny(folder: Path, name: str, bias: tuple[float, ...] = ()) -> ModelVersion:
    return register_model_version(path=write_tiny_model(folder, name, bias))


def test_shadow_that_answers_with_no_number_ends_and_stops_nobody_else(
    labeller: Labeller, tmp_path: Path, admin: User
) -> None:
    broken = tiny(tmp_path, "broken", (float("nan"), 0.0, 0.0, 0.0))
    sound = tiny(tmp_path, "sound")
    with pytest.raises(Conflict, match=r"cannot read along: .* is no number"):
        readings.start_shadow(candidate=broken, requested_by=admin)
    for candidate in (broken, sound):
        Shadow.objects.create(
            candidate=candidate,
            champion=labeller.version,
            ends_at=timezone.now() + timedelta(hours=1),
        )
    spoken = labeller.face(Emotion.SAD)
    Prediction.objects.filter(face=spoken).delete()

    tasks.read_again()

    assert [
        (shadow.candidate, shadow.ended_at is not None, shadow.faces)
        for shadow in Shadow.objects.order_by("created_at")
    ] == [(broken, True, 0), (sound, False, 1)]
    assert Prediction.objects.filter(
        face=spoken, model_version=labeller.version
    ).exists()


def test_shadow_waits_for_a_store_that_is_away(
    labeller: Labeller, tmp_path: Path, admin: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    shadow = readings.start_shadow(
        candidate=tiny(tmp_path, "sound"), requested_by=admin
    )
    live_faces(labeller, 1, said=0)
    readings._load.cache_clear()
    with monkeypatch.context() as patched:
        take_files_away(patched)
        assert readings.read_shadows() == 0

    shadow.refresh_from_db()
    assert shadow.ended_at is None
    assert readings.read_shadows() == 1


def test_shadow_that_cannot_be_loaded_keeps_nobody_from_writing(
    labeller: Labeller, tmp_path: Path, admin: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On SQLite a transaction that may write keeps all others from it."""
    readings.start_shadow(candidate=tiny(tmp_path, "sound"), requested_by=admin)
    depths = []

    def hangs(*given: Any) -> None:
        depths.append(len(connection.savepoint_ids))
        raise StorageAway("it does not answer")

    monkeypatch.setattr(readings, "_load", hangs)
    outside = len(connection.savepoint_ids)

    assert readings.read_shadows() == 0
    assert depths == [outside]


def test_soft_time_limit_ends_the_whole_turn(
    labeller: Labeller, tmp_path: Path, admin: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What goes on after it is killed, with whoever reads photos beside it."""
    readings.start_shadow(candidate=tiny(tmp_path, "sound"), requested_by=admin)
    spoken = labeller.face(Emotion.SAD)
    Prediction.objects.filter(face=spoken).delete()

    def too_long(*given: Any) -> None:
        raise SoftTimeLimitExceeded

    monkeypatch.setattr(readings, "_load", too_long)
    with pytest.raises(SoftTimeLimitExceeded):
        tasks.read_again()

    assert not Prediction.objects.filter(face=spoken).exists()


def test_model_file_that_is_out_of_reach_is_not_called_damaged(
    champion: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = ModelServer()
    with monkeypatch.context() as patched:
        take_files_away(patched)
        with pytest.raises(StorageAway):
            read_model_file(champion)
        with pytest.raises(NoModelServes):
            server.champion()

    assert server.champion().version == champion


def test_receipt_follows_a_flag_into_the_model(labeller: Labeller, admin: User) -> None:
    faces = labeller.faces(4)

    def last_step(face: Face) -> tuple[bool, str]:
        flag = Correction.objects.get(face=face, source="visitor")
        receipt = get_receipt(flag_id=flag.pk, secret=receipt_secret(flag.pk))
        step = receipt.steps[-1]
        assert step.code == "trained"
        return step.done, step.words

    assert last_step(faces[0]) == (
        False,
        "It is taken into the next data set that the model is trained on.",
    )
    run = head_run()
    assert run.candidate is not None
    learned = SnapshotFace.objects.filter(split=Split.TRAIN).first()
    judging = SnapshotFace.objects.filter(split=Split.EVALUATION).first()
    assert learned is not None
    assert judging is not None
    done, words = last_step(learned.face)  # type: ignore[arg-type]
    assert done
    assert words.startswith(
        f"It is in data set 1, and version {run.candidate.version} learned from it. "
        "It does not serve"
    )
    assert "among the faces that judge" in last_step(judging.face)[1]  # type: ignore[arg-type]

    promote_version(model_version=run.candidate, promoted_by=admin)
    assert readings.read_again() == 16
    assert readings.read_again() == 0

    words = last_step(learned.face)[1]  # type: ignore[arg-type]
    assert "Since " in words
    assert "The model now says " in words

    roll_back(rolled_back_by=admin)
    words = last_step(learned.face)[1]  # type: ignore[arg-type]
    assert "Such a version served from " in words
    assert "another one does by now" in words
    assert "Since " not in words


def test_receipt_does_not_wait_for_a_run_that_has_ended(labeller: Labeller) -> None:
    face = labeller.face(Emotion.SAD)
    flag = Correction.objects.get(face=face)
    run = runs.request_run(mode="head", requested_by=None)
    TrainingRun.objects.update(snapshot=build_snapshot(base={}))
    step = selectors.trained_step(flag=flag)
    assert step is not None
    assert step.words == "It is in data set 1, from which a version is being made."

    runs.cancel_run(run=run, cancelled_by=None)

    step = selectors.trained_step(flag=flag)
    assert step is not None
    assert not step.done
    assert "from which no version was made" in step.words


def test_enough_new_labels_start_a_run_and_too_few_do_not(
    labeller: Labeller, settings: LazySettings
) -> None:
    settings.RETRAIN_AFTER_LABELS = 8
    labeller.faces(1)
    assert triggers.train_when_enough() is None
    labeller.faces(1)

    run = triggers.train_when_enough()

    assert run is not None
    assert (run.trigger, run.mode) == (Trigger.LABELS, "head")
    assert triggers.train_when_enough() is None
    run.state, run.ended_at = RunState.CANCELLED, timezone.now()
    run.save()
    # What a run had its chance to learn from starts no other one.
    assert triggers.train_when_enough() is None


def test_the_queue_and_training_count_the_same_labels_after_a_cancelled_run(
    labeller: Labeller,
) -> None:
    labeller.faces(1)
    run = triggers.train_on_schedule()
    assert run is not None
    run.state, run.ended_at = RunState.CANCELLED, timezone.now()
    run.save()
    labeller.face(Emotion.SAD)

    counted = selectors.training_figures().new_labels

    assert counted == queue_figures().new_labels == 1


def test_label_that_came_while_a_run_waited_for_its_worker_is_not_new_after_it(
    labeller: Labeller,
) -> None:
    labeller.faces(1)
    waiting = triggers.train_on_schedule()
    assert waiting is not None
    labeller.faces(1)

    claimed = runs.claim_run(run_id=waiting.pk)
    assert claimed is not None
    runs.run_claimed(run=claimed)

    waiting.refresh_from_db()
    assert waiting.snapshot is not None
    assert waiting.snapshot.faces.count() == 8
    assert selectors.training_figures().new_labels == 0


def test_schedule_starts_a_run_only_where_something_is_new(labeller: Labeller) -> None:
    assert triggers.train_on_schedule() is None
    labeller.faces(1)

    run = triggers.train_on_schedule()

    assert run is not None
    assert run.trigger == Trigger.SCHEDULE


def test_schedule_is_kept_where_the_beat_finds_it(admin: User) -> None:
    assert not triggers.get_schedule().enabled
    wanted = triggers.Schedule(enabled=True, hour=4, minute=30, day_of_week="1")

    triggers.set_schedule(schedule=wanted, changed_by=admin)

    assert triggers.get_schedule() == wanted
    task = PeriodicTask.objects.get(name=triggers.SCHEDULE_NAME)
    assert (task.task, task.queue) == (triggers.SCHEDULE_TASK, "default")
    off = triggers.Schedule(enabled=False, hour=4, minute=30, day_of_week="1")
    triggers.set_schedule(schedule=off, changed_by=admin)
    assert triggers.get_schedule() == off
    assert PeriodicTask.objects.filter(task=triggers.SCHEDULE_TASK).count() == 1
    with pytest.raises(RunRefused, match="00:00 to 23:59"):
        triggers.set_schedule(
            schedule=triggers.Schedule(True, hour=24), changed_by=admin
        )
    with pytest.raises(RunRefused, match="0 \\(Sunday\\) to 6"):
        triggers.set_schedule(
            schedule=triggers.Schedule(True, day_of_week="7"), changed_by=admin
        )
    with pytest.raises(NotAllowed):
        triggers.set_schedule(schedule=off, changed_by=PersonFactory())


def test_schedule_that_two_tabs_made_twice_can_be_set_again(admin: User) -> None:
    wanted = triggers.Schedule(enabled=True, hour=4, minute=30)
    triggers.set_schedule(schedule=wanted, changed_by=admin)
    twin = CrontabSchedule.objects.get(hour="4", minute="30")
    twin.pk = None
    twin.save()

    triggers.set_schedule(schedule=wanted, changed_by=admin)

    assert triggers.get_schedule() == wanted


def test_schedule_of_several_times_a_day(admin: User) -> None:
    wanted = triggers.Schedule(True, hour=9, minute=30, every_hours=6)

    triggers.set_schedule(schedule=wanted, changed_by=admin)

    task = PeriodicTask.objects.get(name=triggers.SCHEDULE_NAME)
    assert task.crontab is not None
    assert (task.crontab.hour, task.crontab.minute) == ("3,9,15,21", "30")
    kept = triggers.get_schedule()
    assert kept.hours == wanted.hours == [3, 9, 15, 21]
    assert (kept.every_hours, kept.day_of_week) == (6, "*")
    with pytest.raises(RunRefused, match="every 1, 2, 3, 4, 6, 8, 12 or 24 hours"):
        triggers.set_schedule(
            schedule=triggers.Schedule(True, every_hours=5), changed_by=admin
        )
    with pytest.raises(RunRefused, match="leave the day"):
        triggers.set_schedule(
            schedule=triggers.Schedule(True, day_of_week="1", every_hours=6),
            changed_by=admin,
        )


def test_drift_warns_of_faces_that_are_not_like_those_trained_on(
    champion: ModelVersion,
) -> None:
    assert drift.measure_drift() is None
    photo = ReadPhotoFactory(model_version=champion)
    for index in range(60):
        FaceFactory(photo=photo, index=index + 1)
    let_expire(FaceFactory(photo__model_version=champion))
    imported = FaceFactory(photo__model_version=champion).photo
    Photo.objects.filter(pk=imported.pk).update(consent_version=IMPORTED)

    reading = drift.measure_drift()

    assert reading is not None
    assert (reading.faces, reading.warns) == (60, True)
    names = {row["name"] for row in reading.measures}
    assert {"predictions", "confidence", "features"} <= names
    assert drift.measure_drift() == reading
    assert DriftReading.objects.count() == 1
    assert selectors.drift_readings() == [reading]


def test_shift_of_the_last_emotions_faces_is_seen() -> None:
    """Features lie in the order of their emotions."""
    generator = np.random.default_rng(0)
    reference = np.zeros((4000, 8))
    reference[:2000, :4] = generator.normal(0, 1, (2000, 4))
    reference[2000:, 7] = generator.normal(0, 10, 2000)
    live = np.zeros((200, 8))
    live[:, 7] = 30

    assert drift._compare_features(reference, live).warns


def test_no_drift_where_both_are_drawn_from_the_same(champion: ModelVersion) -> None:
    generator = np.random.default_rng(0)
    warned = 0
    for _ in range(300):
        live = generator.multinomial(60, [0.4, 0.1, 0.1, 0.4]).astype(float)
        reference = generator.multinomial(1600, [0.4, 0.1, 0.1, 0.4]).astype(float)
        value = drift.stability_index(reference, live)
        warned += value > drift.threshold(4, 1600, 60)
    assert warned <= 3
    shifted = np.array([6.0, 24.0, 24.0, 6.0])
    assert drift.stability_index(reference, shifted) > drift.threshold(4, 1600, 60)
