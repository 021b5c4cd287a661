from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from django.conf import LazySettings
from django.core.management import CommandError, call_command
from django.db import IntegrityError, InterfaceError, connection, transaction
from django.utils import timezone

from ml.inference import EmotionClassifier
from ml.labels import Emotion
from webapp.accounts.models import User
from webapp.core.errors import NotAllowed
from webapp.core.tests.queries import query_limit
from webapp.curation.models import Correction
from webapp.curation.tests.factories import PersonFactory
from webapp.photos.models import Face
from webapp.photos.services.erasure import delete_photo
from webapp.registry.models import ModelVersion
from webapp.registry.selectors import read_model_file
from webapp.training.configs import FullConfig
from webapp.training.errors import AlreadyRunning, NothingNew, RunRefused
from webapp.training.models import (
    MAX_ATTEMPTS,
    FaceComparison,
    RunState,
    SnapshotFace,
    Split,
    TrainingRun,
)
from webapp.training.selectors import trained_step
from webapp.training.services import judging, runs, training
from webapp.training.services.curated import CuratedFaces
from webapp.training.services.job import Job, lease_end
from webapp.training.services.lineage import versions_with_gone_faces
from webapp.training.services.run_dirs import run_dir
from webapp.training.services.snapshots import _drawn, build_snapshot
from webapp.training.tests.factories import Labeller, head_run, put_off, take_files_away

pytestmark = pytest.mark.django_db


def test_head_run_makes_a_judged_candidate(labeller: Labeller) -> None:
    labeller.faces(8)

    run = head_run()

    assert run.state == RunState.DONE, run.message
    assert run.outcome == run.decision["outcome"] == "promote", run.decision
    candidate, snapshot = run.candidate, run.snapshot
    assert candidate is not None
    assert snapshot is not None
    assert candidate.parent == run.start
    assert not candidate.is_champion
    loaded = EmotionClassifier(*read_model_file(candidate))
    assert loaded.manifest.version == candidate.version
    retraining = loaded.manifest.training["retraining"]
    assert retraining["snapshot"]["sha256"] == snapshot.sha256
    assert FaceComparison.objects.filter(run=run).count() == 32
    names = [row["name"] for row in run.report["sets"]]
    assert names == ["the frozen evaluation set", "the curated hold-out"]
    assert run.report["sets"][0]["faces"] == snapshot.base["evaluation"] + sum(
        snapshot.counts["evaluation"].values()
    )
    flags = run.report["flags"]
    assert flags["faces"] == 32
    assert flags["candidate"] >= flags["champion"] > 25
    assert "of visitors' photos in 4 is held out, so about" in run.decision["notes"][0]
    assert run.lines.count() > 3
    json.dumps([run.report, run.decision], allow_nan=False)


def test_more_faces_than_a_query_takes_ids_are_judged(
    labeller: Labeller, monkeypatch: pytest.MonkeyPatch
) -> None:
    labeller.faces(1)
    rows = list(build_snapshot(base={}).faces.all())
    monkeypatch.setattr(judging, "_BATCH", 2)

    with query_limit(2):
        slices = judging._slices(rows)

    assert sum(slices["faces easy to read"]) == len(rows) == 4


def test_answers_that_are_no_numbers_are_right_on_no_face(labeller: Labeller) -> None:
    labeller.face(Emotion.HAPPY)
    rows = list(build_snapshot(base={}).faces.all())
    curated = CuratedFaces(rows, np.zeros((1, 48, 48, 1), np.uint8))
    happy, nothing = np.array([[0.7, 0.1, 0.1, 0.1]]), np.full((1, 4), np.nan)

    (row,) = judging._comparisons(TrainingRun(), curated, happy, nothing)

    assert (row.fixed, row.broken) == (False, True)
    assert judging._right_of([row]) == {"faces": 1, "champion": 1, "candidate": 0}


def test_same_snapshot_seed_and_machine_give_the_same_model_and_metrics(
    labeller: Labeller, settings: LazySettings
) -> None:
    labeller.faces(5)
    first = head_run()
    TrainingRun.objects.filter(pk=first.pk).update(seed=99)

    second = head_run()

    assert first.snapshot == second.snapshot
    assert first.candidate.sha256 == second.candidate.sha256  # type: ignore[union-attr]
    for run in (first, second):
        del run.report["latency"]
    assert first.report == second.report


def test_without_labels_there_is_no_run_and_it_says_so(champion: ModelVersion) -> None:
    with pytest.raises(NothingNew, match="Label some faces first"):
        runs.request_run(mode="head", requested_by=None)

    assert not TrainingRun.objects.exists()


def test_nothing_new_since_the_last_run_starts_none(labeller: Labeller) -> None:
    labeller.faces(3)
    head_run()

    with pytest.raises(NothingNew, match="Nothing is new since run 1") as refused:
        runs.request_run(mode="head", requested_by=None)
    # The page has no settings.
    assert "by the API and manage.py retrain" in str(refused.value)
    assert TrainingRun.objects.count() == 1

    labeller.faces(1)
    assert runs.request_run(mode="head", requested_by=None).number == 2


def test_full_run_asked_for_again_is_not_refused(
    labeller: Labeller, settings: LazySettings
) -> None:
    """The data folder may be another by now."""
    settings.DATASET_DIR = "/somewhere"
    labeller.faces(2)
    done = head_run()
    config = asdict(FullConfig())
    TrainingRun.objects.filter(pk=done.pk).update(mode="full", config=config)

    assert runs.request_run(mode="full", requested_by=None).number == 2


def test_name_of_a_version_stays_within_what_a_manifest_takes() -> None:
    run = TrainingRun(mode="full", number=1234, start=ModelVersion(version="m" * 60))

    name = training._version_name(run)

    assert len(name) == 60
    assert name.endswith("m-full-1234")


def test_same_labels_with_another_setting_are_worth_a_run(labeller: Labeller) -> None:
    labeller.faces(2)
    head_run()

    run = head_run(config={"curated_weight": 20})

    assert run.config["curated_weight"] == 20.0
    assert run.snapshot.number == 1  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"mode": "quick"}, "head or full"),
        ({"mode": "head", "seed": -1}, "whole number"),
        ({"mode": "head", "config": {"epochs": 3}}, "no setting 'epochs'"),
        ({"mode": "head", "config": {"stay": "much"}}, "must be a float"),
        ({"mode": "head", "config": {"keep_answers": 1}}, "must be a bool"),
        ({"mode": "head", "config": {"curated_weight": -1}}, "between 0 and 1000"),
        ({"mode": "head", "config": {"stay": 10**400}}, "stay must be a float"),
        ({"mode": "full", "config": {"epochs": 0}}, "between 1 and 1000"),
        ({"mode": "full"}, "Set FER_DATASET_DIR"),
    ],
)
def test_what_cannot_be_run_is_refused_in_words(
    labeller: Labeller, given: dict[str, Any], words: str
) -> None:
    labeller.faces(1)
    with pytest.raises(RunRefused, match=words):
        runs.request_run(requested_by=None, **given)
    assert not TrainingRun.objects.exists()


def test_only_admins_train_and_cancel(labeller: Labeller, admin: User) -> None:
    labeller.faces(1)
    annotator = PersonFactory()
    with pytest.raises(NotAllowed):
        runs.request_run(mode="head", requested_by=annotator)
    run = runs.request_run(mode="head", requested_by=admin)
    with pytest.raises(NotAllowed):
        runs.cancel_run(run=run, cancelled_by=annotator)


def test_second_run_waits_for_nobody_it_is_refused(labeller: Labeller) -> None:
    labeller.faces(1)
    run = runs.request_run(mode="head", requested_by=None)

    with pytest.raises(AlreadyRunning):
        runs.request_run(mode="head", requested_by=None, seed=1)
    with pytest.raises(IntegrityError), transaction.atomic():
        TrainingRun.objects.create(
            number=2,
            mode="head",
            parent=run.parent,
            start=run.start,
            queued_at=timezone.now(),
        )


def test_a_run_is_claimed_once(labeller: Labeller) -> None:
    labeller.faces(1)
    run = runs.request_run(mode="head", requested_by=None)

    assert runs.claim_run(run_id=run.pk) is not None
    assert runs.claim_run(run_id=run.pk) is None


def test_waiting_run_is_cancelled_at_once(labeller: Labeller, admin: User) -> None:
    labeller.faces(1)
    run = runs.request_run(mode="head", requested_by=None)

    assert runs.cancel_run(run=run, cancelled_by=admin)

    run.refresh_from_db()
    assert run.state == RunState.CANCELLED
    assert run.cancelled_by == admin
    assert runs.claim_run(run_id=run.pk) is None
    assert not runs.cancel_run(run=run, cancelled_by=admin)


def test_running_run_hears_that_it_is_cancelled(labeller: Labeller) -> None:
    labeller.faces(1)
    run = runs.request_run(mode="head", requested_by=None)
    claimed = runs.claim_run(run_id=run.pk)
    assert claimed is not None

    assert runs.cancel_run(run=run, cancelled_by=None)
    runs.run_claimed(run=claimed)

    run.refresh_from_db()
    assert run.state == RunState.CANCELLED
    assert not ModelVersion.objects.filter(shipped=False).exists()


def dead(run: TrainingRun) -> None:
    """Its worker has not been heard of for a minute."""
    TrainingRun.objects.filter(pk=run.pk).update(
        lease_expires_at=timezone.now() - timedelta(minutes=1)
    )


def test_run_of_a_dead_worker_goes_on_and_the_old_one_writes_nothing(
    labeller: Labeller,
) -> None:
    labeller.faces(2)
    run = runs.request_run(mode="head", requested_by=None)
    late = runs.claim_run(run_id=run.pk)
    assert late is not None
    dead(run)

    assert runs.sweep_runs() >= 1
    second = runs.claim_run(run_id=run.pk)
    assert second is not None
    runs.run_claimed(run=late)
    run.refresh_from_db()
    assert run.state == RunState.RUNNING
    assert run.lease_token == second.lease_token
    runs.run_claimed(run=second)

    run.refresh_from_db()
    assert run.state == RunState.DONE, run.message
    assert run.attempts == 2
    assert ModelVersion.objects.filter(shipped=False).count() == 1


def test_run_of_a_dead_worker_waits_for_no_clock_that_went_back(
    labeller: Labeller,
) -> None:
    labeller.faces(1)
    run = runs.request_run(mode="head", requested_by=None)
    assert runs.claim_run(run_id=run.pk) is not None
    TrainingRun.objects.update(lease_expires_at=timezone.now() + timedelta(hours=1))

    assert runs.sweep_runs() == 1

    run.refresh_from_db()
    assert run.state == RunState.QUEUED


def test_run_that_waits_waits_for_no_clock_that_went_back(
    labeller: Labeller, monkeypatch: pytest.MonkeyPatch
) -> None:
    labeller.faces(1)
    run = runs.request_run(mode="head", requested_by=None)
    TrainingRun.objects.update(queued_at=timezone.now() + timedelta(hours=1))
    woken: list[uuid.UUID] = []
    monkeypatch.setattr(runs, "count_waiting_messages", lambda: 0)
    monkeypatch.setattr(runs, "wake_trainer", lambda pk: not woken.append(pk))

    assert runs.sweep_runs() == 1

    assert woken == [run.pk]


@pytest.mark.parametrize("hours", [1, -1])
def test_host_whose_clock_is_wrong_neither_takes_nor_keeps_a_run_for_long(
    labeller: Labeller, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    """An hour ahead and an hour behind: the database's clock is the same to all."""
    right = timezone.now
    labeller.faces(1)
    monkeypatch.setattr(timezone, "now", lambda: right() + timedelta(hours=hours))

    run = runs.request_run(mode="head", requested_by=None)
    assert abs(run.queued_at - right()) < timedelta(seconds=60)
    claimed = runs.claim_run(run_id=run.pk)
    assert claimed is not None
    runs.sweep_runs()

    run.refresh_from_db()
    assert (run.state, run.lease_token) == (RunState.RUNNING, claimed.lease_token)
    assert run.lease_expires_at is not None
    assert abs(run.lease_expires_at - right()) < timedelta(seconds=60)


def test_run_whose_workers_always_die_is_given_up_with_a_reason(
    labeller: Labeller,
) -> None:
    labeller.faces(1)
    run = runs.request_run(mode="head", requested_by=None)
    for _ in range(MAX_ATTEMPTS):
        assert runs.claim_run(run_id=run.pk) is not None
        dead(run)
        runs.sweep_runs()

    run.refresh_from_db()
    assert run.state == RunState.FAILED
    assert "died 6 times" in run.message
    assert runs.claim_run(run_id=run.pk) is None


def test_cancelled_run_of_a_dead_worker_is_cancelled_by_the_sweep(
    labeller: Labeller,
) -> None:
    labeller.faces(1)
    run = runs.request_run(mode="head", requested_by=None)
    runs.claim_run(run_id=run.pk)
    runs.cancel_run(run=run, cancelled_by=None)
    dead(run)
    run_dir(run).mkdir(parents=True)

    runs.sweep_runs()

    run.refresh_from_db()
    assert run.state == RunState.CANCELLED
    assert not run_dir(run).exists(), "a cancelled run keeps its checkpoint"


@contextmanager
def meanwhile(act: Callable[[], object], *, before: bool) -> Iterator[None]:
    """Another process acts right before, or after, the first UPDATE of the block."""
    waiting = [act]

    def watch(execute: Any, sql: str, *rest: Any) -> Any:
        now = waiting.pop() if waiting and sql.startswith("UPDATE") else None
        if now and before:
            now()
        result = execute(sql, *rest)
        if now and not before:
            now()
        return result

    with connection.execute_wrapper(watch):
        yield
    assert not waiting


def test_worker_that_renews_its_lease_during_the_sweep_keeps_its_run(
    labeller: Labeller,
) -> None:
    labeller.faces(1)
    run = runs.request_run(mode="head", requested_by=None)
    claimed = runs.claim_run(run_id=run.pk)
    assert claimed is not None
    dead(run)

    def renew() -> None:
        TrainingRun.objects.filter(pk=run.pk).update(lease_expires_at=lease_end())

    with meanwhile(renew, before=True):
        assert runs.sweep_runs() == 0

    run.refresh_from_db()
    assert (run.state, run.lease_token) == (RunState.RUNNING, claimed.lease_token)


def test_run_that_is_cancelled_during_the_sweep_does_not_go_on(
    labeller: Labeller,
) -> None:
    labeller.faces(1)
    run = runs.request_run(mode="head", requested_by=None)
    assert runs.claim_run(run_id=run.pk) is not None
    dead(run)

    def cancel() -> None:
        assert runs.cancel_run(run=run, cancelled_by=None)

    with meanwhile(cancel, before=True):
        runs.sweep_runs()
    assert runs.claim_run(run_id=run.pk) is None
    runs.sweep_runs()

    run.refresh_from_db()
    assert run.state == RunState.CANCELLED


def test_run_that_the_sweep_moves_while_it_is_cancelled_does_not_go_on(
    labeller: Labeller,
) -> None:
    labeller.faces(1)
    run = runs.request_run(mode="head", requested_by=None)
    assert runs.claim_run(run_id=run.pk) is not None
    dead(run)

    with meanwhile(runs.sweep_runs, before=False):
        assert runs.cancel_run(run=run, cancelled_by=None)

    run.refresh_from_db()
    assert run.state == RunState.CANCELLED


def test_run_whose_connection_to_the_database_broke_is_taken_up_again(
    labeller: Labeller, monkeypatch: pytest.MonkeyPatch
) -> None:
    labeller.faces(1)
    run = runs.request_run(mode="head", requested_by=None)
    claimed = runs.claim_run(run_id=run.pk)
    assert claimed is not None

    def broken(job: Job) -> None:
        raise InterfaceError("connection already closed")

    monkeypatch.setattr(runs, "train_and_judge", broken)
    with pytest.raises(InterfaceError):
        runs.run_claimed(run=claimed)

    run.refresh_from_db()
    assert run.state == RunState.RUNNING
    dead(run)
    runs.sweep_runs()
    run.refresh_from_db()
    assert run.state == RunState.QUEUED


def training_face(faces: Sequence[Face], split: Split = Split.TRAIN) -> Face:
    """One that trains (or judges) in whatever data set it comes into."""
    return next(face for face in faces if _drawn([face.photo_id]) == split)


def test_face_erased_before_training_teaches_nothing(labeller: Labeller) -> None:
    faces = labeller.faces(3)
    kept = training_face(faces)
    run = runs.request_run(mode="head", requested_by=None)
    claimed = runs.claim_run(run_id=run.pk)
    assert claimed is not None
    for face in faces:
        if face != kept:
            delete_photo(photo=face.photo)

    runs.run_claimed(run=claimed)

    run.refresh_from_db()
    assert run.state == RunState.DONE, run.message
    row = SnapshotFace.objects.get()
    assert (row.face_key, row.split) == (kept.pk, Split.TRAIN)


def test_run_without_a_face_that_trains_fails_with_a_sentence(
    labeller: Labeller,
) -> None:
    faces = labeller.faces(3)
    kept = training_face(faces, split=Split.EVALUATION)
    for face in faces:
        if face != kept:
            delete_photo(photo=face.photo)

    run = head_run()

    assert run.state == RunState.FAILED
    assert "No labelled face is left" in run.message


def test_run_with_a_damaged_champion_fails_with_a_sentence(
    labeller: Labeller, champion: ModelVersion, home: Any
) -> None:
    labeller.faces(1)
    (home / "media" / champion.file_name).write_bytes(b"no model")

    run = head_run()

    assert run.state == RunState.FAILED
    assert "Restore its file" in run.message


def test_run_waits_for_a_store_that_is_away(
    labeller: Labeller, monkeypatch: pytest.MonkeyPatch
) -> None:
    labeller.faces(1)
    run = runs.request_run(mode="head", requested_by=None)

    put_off(run, monkeypatch)

    assert (run.state, run.attempts) == (RunState.QUEUED, 0)
    assert run.queued_at > timezone.now()
    last = run.lines.last()
    assert last is not None
    assert "the files are out of reach" in last.text
    assert "the files are out of reach" in run.message

    claimed = runs.claim_run(run_id=run.pk)
    assert claimed is not None
    runs.run_claimed(run=claimed)
    run.refresh_from_db()
    assert (run.state, run.message) == (RunState.DONE, "")


def test_run_that_is_put_off_again_says_so_once(
    labeller: Labeller, monkeypatch: pytest.MonkeyPatch
) -> None:
    labeller.faces(1)
    run = put_off(runs.request_run(mode="head", requested_by=None), monkeypatch)
    since, lines = run.put_off_since, list(run.lines.values_list("text", flat=True))
    # As one that was away in the middle of its work.
    TrainingRun.objects.filter(pk=run.pk).update(progress_done=2, progress_total=3)

    put_off(run, monkeypatch)

    assert run.put_off_since == since is not None
    assert list(run.lines.values_list("text", flat=True)) == lines
    assert (run.progress_done, run.progress_total) == (0, 0)


def test_run_fails_where_the_store_is_away_for_a_day(
    labeller: Labeller, monkeypatch: pytest.MonkeyPatch
) -> None:
    labeller.faces(1)
    run = put_off(runs.request_run(mode="head", requested_by=None), monkeypatch)
    TrainingRun.objects.filter(pk=run.pk).update(
        put_off_since=timezone.now() - timedelta(days=1)
    )

    put_off(run, monkeypatch)

    assert run.state == RunState.FAILED
    assert "out of reach for a day" in run.message
    assert "See to their store" in run.message


def test_run_that_is_put_off_and_cancelled_keeps_no_message(
    labeller: Labeller, monkeypatch: pytest.MonkeyPatch
) -> None:
    labeller.faces(1)
    run = put_off(runs.request_run(mode="head", requested_by=None), monkeypatch)

    assert runs.cancel_run(run=run, cancelled_by=None)

    run.refresh_from_db()
    assert (run.state, run.message) == (RunState.CANCELLED, "")


def test_command_line_tries_a_run_again_that_is_put_off(
    labeller: Labeller,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    labeller.faces(6)
    monkeypatch.setattr(runs, "_AWAY_FOR_SECONDS", 0.0)
    patched = pytest.MonkeyPatch()
    take_files_away(patched)

    original = runs._put_off

    def put_off_once(job: Job, error: Any) -> None:
        patched.undo()
        original(job, error)

    monkeypatch.setattr(runs, "_put_off", put_off_once)
    try:
        call_command("retrain", "--here", "--timeout", "60")
    finally:
        patched.undo()

    said = capsys.readouterr().out
    assert "the files are out of reach" in said
    assert ": promote" in said


def test_snapshot_that_was_changed_is_not_trained_on(labeller: Labeller) -> None:
    labeller.faces(2)
    first = head_run()
    SnapshotFace.objects.filter(snapshot=first.snapshot, label="happy").update(
        label="sad"
    )
    run = runs.request_run(mode="head", requested_by=None, seed=1)
    TrainingRun.objects.filter(pk=run.pk).update(snapshot=first.snapshot)
    claimed = runs.claim_run(run_id=run.pk)
    assert claimed is not None

    runs.run_claimed(run=claimed)

    run.refresh_from_db()
    assert run.state == RunState.FAILED
    assert "its hash differs" in run.message


def test_run_after_one_whose_data_set_was_changed_freezes_another(
    labeller: Labeller,
) -> None:
    labeller.faces(2)
    first = head_run()
    SnapshotFace.objects.filter(snapshot=first.snapshot, label="happy").update(
        label="sad"
    )

    again = head_run(seed=1)

    assert again.state == RunState.DONE
    assert again.snapshot is not None
    assert again.snapshot != first.snapshot
    assert again.snapshot.faces.filter(label="happy").count() == 2


def test_face_of_the_frozen_evaluation_set_never_trains(
    labeller: Labeller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after an import of the folder that the evaluation set was made of."""
    from webapp.training.services import base
    from webapp.training.services.snapshots import decode_crop

    faces = labeller.faces(2)
    known = training_face(faces)
    original: Callable[..., Any] = base.load_base_features

    def with_known(classifier: EmotionClassifier) -> Any:
        data, digest = original(classifier)
        crop = decode_crop(bytes(known.crop), classifier.manifest.input)
        feature = classifier.features(crop[None]).astype("f2").astype("f4")
        data.evaluation_features[0] = feature[0]
        return data, digest

    monkeypatch.setattr(base, "load_base_features", with_known)
    run = head_run()

    assert SnapshotFace.objects.get(face_key=known.pk).split == Split.TRAIN
    assert run.lines.filter(text__contains="1 curated faces are left out").exists()
    assert run.left_out == {known.pk}
    assert run.candidate is not None
    step = trained_step(flag=Correction.objects.get(face=known))
    assert step is not None
    assert (
        f"nearly is a face that judges, so version {run.candidate.version} did not "
        "learn from it." in step.words
    )
    delete_photo(photo=known.photo)
    assert versions_with_gone_faces() == {}


def test_command_line_follows_a_run_to_its_end(
    labeller: Labeller, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(CommandError) as refused:
        call_command("retrain", "--here")
    assert refused.value.returncode == 3
    labeller.faces(6)

    call_command("retrain", "--mode", "head", "--here", "--set", "curated_weight=4")

    said = capsys.readouterr().out
    shipped = labeller.version.version
    candidate = f"{shipped}-head-1"
    assert f"Version {candidate}: promote" in said
    assert f"manage.py promote {candidate}" in said
    call_command("promote", candidate)
    assert ModelVersion.objects.get(is_champion=True).version == candidate
    call_command("rollback", "--reason", "only trying")
    assert ModelVersion.objects.get(is_champion=True).version == shipped
    with pytest.raises(CommandError, match="no earlier version"):
        call_command("rollback")
    with pytest.raises(CommandError, match="There is no version 'x'; there are"):
        call_command("promote", "x")
    with pytest.raises(CommandError, match="There is nobody"):
        call_command("promote", candidate, "--by", "nobody")
    with pytest.raises(CommandError, match="NAME=VALUE"):
        call_command("retrain", "--set", "stay")
    with pytest.raises(CommandError, match="must be a number"):
        call_command("retrain", "--set", "stay=much")
