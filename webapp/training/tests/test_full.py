"""Full runs, on a data folder of drawn faces."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from django.conf import LazySettings
from django.core.files.storage import default_storage

from ml.checkpoint import CHECKPOINT_FILE
from ml.data import find_layout, load_for_training, load_split
from ml.inference import EmotionClassifier
from ml.labels import Emotion
from ml.manifest import InputSpec
from ml.tests.faces import ballots_for, write_annotations, write_dataset
from ml.tests.small import SMALL, small_network, write_exported
from ml.train_config import TrainConfig
from webapp.photos.services.erasure import delete_photo
from webapp.registry.models import ModelVersion
from webapp.registry.selectors import features_name, read_model_file
from webapp.registry.services import promote_model_version, register_model_version
from webapp.training.models import RunState, Split, TrainingRun
from webapp.training.services import base as bases
from webapp.training.services import full, runs
from webapp.training.services import job as jobs
from webapp.training.services.curated import read_curated
from webapp.training.services.job import Stopped
from webapp.training.services.promotion import promote_version
from webapp.training.services.run_dirs import run_dir
from webapp.training.services.snapshots import build_snapshot
from webapp.training.tests.factories import Labeller, head_run

pytestmark = pytest.mark.django_db

CONFIG = {"epochs": 2, "batch_size": 16, "learning_rate": 0.001}


@pytest.fixture(autouse=True)
def folder(settings: LazySettings, tmp_path: Path) -> Path:
    settings.DATASET_DIR = str(write_dataset(tmp_path / "faces", 12))
    return tmp_path / "faces"


@pytest.fixture(scope="module")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Taught by another, as the one that ships was."""
    config = TrainConfig(SMALL, teachers=("e" * 64,), teacher_share=0.5)
    path = tmp_path_factory.mktemp("small") / "small.onnx"
    return write_exported(small_network(), config, path)


@pytest.fixture
def champion(db: None, small_model: Path) -> ModelVersion:
    """What ships is trained further in ``tests/test_training_loop.py``."""
    made = register_model_version(path=small_model)
    promote_model_version(model_version=made, promoted_by=None, reason="test")
    return made


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def start() -> TrainingRun:
    return runs.request_run(mode="full", requested_by=None, config=CONFIG)


def work(run: TrainingRun) -> TrainingRun:
    claimed = runs.claim_run(run_id=run.pk)
    assert claimed is not None
    runs.run_claimed(run=claimed)
    run.refresh_from_db()
    return run


def die_after_an_epoch(run: TrainingRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its worker dies once the first epoch is kept; the sweep queues it again."""
    keep = jobs.Job.keep_curves

    def die(self: jobs.Job, history: Any) -> None:
        keep(self, history)
        raise SystemExit

    claimed = runs.claim_run(run_id=run.pk)
    assert claimed is not None
    with monkeypatch.context() as patched:
        patched.setattr(jobs.Job, "keep_curves", die)
        with pytest.raises(SystemExit):
            runs.run_claimed(run=claimed)
    assert (run_dir(run) / CHECKPOINT_FILE).exists()
    run.refresh_from_db()
    assert (run.state, len(run.curves)) == (RunState.RUNNING, 1)
    TrainingRun.objects.filter(pk=run.pk).update(lease_expires_at=run.queued_at)
    runs.sweep_runs()


def without_times(run: TrainingRun) -> tuple[Any, ...]:
    """What must be the same of two runs that did the same."""
    curves = [{**row, "duration_seconds": 0} for row in run.curves]
    report = {name: value for name, value in run.report.items() if name != "latency"}
    return curves, report


def test_full_run_trains_the_whole_network_and_goes_on_after_a_kill(
    labeller: Labeller, monkeypatch: pytest.MonkeyPatch
) -> None:
    labeller.faces(3)
    whole = work(start())

    assert whole.state == RunState.DONE, whole.message
    assert [row["epoch"] for row in whole.curves] == [1, 2]
    assert whole.candidate is not None
    loaded = EmotionClassifier(*read_model_file(whole.candidate))
    champion = EmotionClassifier(*read_model_file(whole.parent))
    assert loaded.manifest.architecture == champion.manifest.architecture
    # Nobody taught it, though the champion had teachers.
    config = loaded.manifest.training["config"]
    assert champion.manifest.training["config"]["teachers"]
    assert (config["teachers"], config["teacher_share"]) == ([], 0.0)
    # Its answers are judged on the folder's validation faces and the curated ones.
    assert whole.snapshot is not None
    judging = sum(whole.snapshot.counts["evaluation"].values())
    assert whole.report["sets"][0]["faces"] == 48 + judging
    assert any("of the base" in row["name"] for row in whole.report["slices"])
    assert not run_dir(whole).exists()
    # Later head runs need no folder: the new body's features are kept.
    assert default_storage.exists(features_name(whole.candidate.sha256))

    # The same again, but its worker dies after the first epoch.
    broken = start()
    die_after_an_epoch(broken, monkeypatch)

    work(broken)

    assert broken.state == RunState.DONE, broken.message
    assert broken.lines.filter(text="Going on after epoch 1.").exists()
    assert without_times(broken) == without_times(whole)

    # A head run from the new champion, on the features that it left.
    promote_version(
        model_version=whole.candidate, promoted_by=None, reason="to go on from it"
    )
    head = head_run()
    assert head.state == RunState.DONE, head.message
    assert head.start == whole.candidate


def test_full_run_begins_anew_where_a_face_is_gone_since_its_worker_died(
    labeller: Labeller, monkeypatch: pytest.MonkeyPatch
) -> None:
    labeller.faces(2)
    run = start()
    die_after_an_epoch(run, monkeypatch)
    assert run.snapshot is not None
    learned = run.snapshot.faces.filter(split=Split.TRAIN).first()
    assert learned is not None
    assert learned.face is not None
    delete_photo(photo=learned.face.photo)

    work(run)

    assert run.state == RunState.DONE, run.message
    said = list(run.lines.values_list("text", flat=True))
    assert "A face is gone since: training begins anew without it." in said
    assert not any(text.startswith("Going on after") for text in said)
    assert [row["epoch"] for row in run.curves] == [1, 2]


def test_run_that_begins_anew_without_a_checkpoint_still_counts_its_deaths(
    labeller: Labeller,
) -> None:
    """A worker that dies at once, each time, must come to an end."""
    labeller.faces(1)
    run = start()
    TrainingRun.objects.filter(pk=run.pk).update(attempts=3)
    claimed = runs.claim_run(run_id=run.pk)
    assert claimed is not None
    rows = list(build_snapshot(base={}).faces.all())
    where = run_dir(run)
    with jobs.keep_lease(claimed) as job:
        full._begin(job, where, read_curated(rows, InputSpec()))
        full._begin(job, where, read_curated(rows[1:], InputSpec()))
        run.refresh_from_db()
        assert (run.attempts, run.lines.count()) == (4, 0)

        # A checkpoint of which nobody knows what it learned from.
        (where / CHECKPOINT_FILE).write_bytes(b"some epochs")
        (where / full._FACES_FILE).unlink()
        job.keep_curves([])
        TrainingRun.objects.filter(pk=run.pk).update(attempts=5)
        full._begin(job, where, read_curated(rows[1:], InputSpec()))

    run.refresh_from_db()
    assert not (where / CHECKPOINT_FILE).exists()
    assert (run.attempts, run.lines.count()) == (5, 1)


def test_mistake_in_the_program_leaves_a_traceback(
    labeller: Labeller,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    labeller.faces(1)
    run = start()

    def mistaken(*given: Any, **more: Any) -> None:
        raise ValueError("shapes do not fit")

    monkeypatch.setattr(full, "train", mistaken)
    work(run)

    assert run.state == RunState.FAILED
    assert "Something unexpected went wrong" in run.message
    assert any(record.exc_info for record in caplog.records)


def test_cancelled_full_run_ends_between_two_batches(
    labeller: Labeller, monkeypatch: pytest.MonkeyPatch
) -> None:
    labeller.faces(1)
    run = start()
    check = jobs.Job.check

    def cancel_while_training(self: jobs.Job) -> None:
        check(self)
        if self.run.snapshot is not None and "Training" in stages():
            runs.cancel_run(run=self.run, cancelled_by=None)
            raise Stopped

    def stages() -> str:
        return str(TrainingRun.objects.get(pk=run.pk).stage)

    leftover = run_dir(run).with_name("of-a-run-that-ended-elsewhere")
    leftover.mkdir(parents=True)
    monkeypatch.setattr(jobs.Job, "check", cancel_while_training)
    work(run)

    assert run.state == RunState.CANCELLED
    assert run.candidate is None
    assert not run_dir(run).exists()
    assert not leftover.exists()


def test_folder_with_odd_names_and_links_is_trained_on(folder: Path) -> None:
    sad = folder / "train" / "sad"
    (sad / "nowhere.png").symlink_to(folder / "nowhere")
    (sad / "000.png").rename(sad / os.fsdecode(b"na\xefve.png"))

    layout = bases.need_data_folder()
    faces = load_split(layout, "train", InputSpec())
    before = bases.describe_folder(layout, faces, faces)["sha256"]
    (sad / "nowhere.png").unlink()

    assert bases.describe_folder(layout, faces, faces)["sha256"] != before


def test_other_votes_make_another_data_set(folder: Path) -> None:
    def described(share: int) -> dict[str, Any]:
        pictures = sorted(folder.glob("*/*/*.png"))
        votes = {
            path.relative_to(folder).as_posix(): ballots_for(
                Emotion(path.parent.name).position, share
            )
            for path in pictures
        }
        write_annotations(folder, votes)
        layout = find_layout(folder)
        faces = load_for_training(layout, InputSpec(size_px=48, channels=1))
        return bases.describe_folder(layout, *faces)

    assert described(8) == described(8)
    assert described(8)["sha256"] != described(7)["sha256"]


def test_folder_that_is_none_fails_with_a_sentence(
    labeller: Labeller, settings: LazySettings, tmp_path: Path
) -> None:
    settings.DATASET_DIR = str(tmp_path / "nowhere")

    run = work(start())

    assert run.state == RunState.FAILED
    assert "FER_DATASET_DIR cannot be used" in run.message
