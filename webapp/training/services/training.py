"""A candidate is trained as a run asks, and handed on to be judged."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ml.consensus import NO_LABEL
from ml.data import Layout
from ml.inference import EmotionClassifier
from ml.manifest import ModelManifest
from webapp.training.configs import FullConfig, HeadConfig, parse_config
from webapp.training.errors import RunFailed
from webapp.training.models import DatasetSnapshot, Mode, Split, TrainingRun
from webapp.training.services import base as bases
from webapp.training.services import head, snapshots
from webapp.training.services.comparing import JudgedFaces
from webapp.training.services.curated import CuratedFaces, read_curated
from webapp.training.services.job import Job, Stopped
from webapp.training.services.judging import judge_and_finish, slices_of_folder
from webapp.training.services.run_dirs import remove_leftovers, run_dir

UInt8Array = npt.NDArray[np.uint8]
Float32Array = npt.NDArray[np.float32]

_BATCH: Final = 500
_MAX_NAME: Final = 60
"""Of a version; a manifest with a longer one is refused."""


def train_and_judge(job: Job) -> None:
    """Carry a claimed run through. Raises ``Stopped``, ``RunFailed``, other
    ``DomainError``, ``RetrainingError`` or ``OSError``."""
    run = job.run
    job.say(
        f"Attempt {run.attempts}: a {run.mode} run from version {run.start.version}, "
        f"seed {run.seed}."
    )
    job.step("Loading the model")
    start, start_data = bases.load_version(run.start)
    champion = (
        start if run.parent_id == run.start_id else bases.load_version(run.parent)[0]
    )
    if run.mode == Mode.HEAD:
        _run_head(job, start, start_data, champion)
    else:
        _run_full(job, start, start_data, champion)


def _run_head(
    job: Job, start: EmotionClassifier, start_data: bytes, champion: EmotionClassifier
) -> None:
    config = parse_config(Mode.HEAD, job.run.config)
    assert isinstance(config, HeadConfig)
    job.step("Reading the features")
    data, digest = bases.load_base_features(start)
    snapshot = _snapshot(job, bases.describe_features(data, digest))
    taught, judged = _curated_faces(job, snapshot, start.manifest)
    if not taught.rows:
        raise RunFailed(
            "No labelled face is left to learn from: those of the data set were erased "
            "or are all held out. Label more faces."
        )
    features = _features(job, start, taught.crops)
    job.step("Refitting the head")
    model, calibration, left_out = head.refit(
        job, config, start, start_data, data, features, taught.shares, taught.weights
    )
    job.say(
        f"The head was refitted on {int((~left_out).sum())} curated faces and "
        f"{len(data.features)} of the base."
    )
    candidate = head.child_of(start, model, calibration, _version_name(job.run))
    known = {data.model_sha256: data.evaluation_features}
    body = champion.manifest.body_sha256
    if body not in known:
        others, _ = bases.load_base_features(champion)
        if np.array_equal(others.evaluation_labels, data.evaluation_labels):
            known[body] = others.evaluation_features
    judge_and_finish(
        job,
        snapshot,
        champion=champion,
        candidate=candidate,
        model=model,
        frozen=JudgedFaces(data.evaluation_labels, features=known),
        taught=taught,
        judged=judged,
        left_out=left_out,
        taught_features={data.model_sha256: features},
    )


def _run_full(
    job: Job, start: EmotionClassifier, start_data: bytes, champion: EmotionClassifier
) -> None:
    # Torch: half a gigabyte that nobody else should pay for.
    from webapp.training.services import full

    config = parse_config(Mode.FULL, job.run.config)
    assert isinstance(config, FullConfig)
    layout: Layout = bases.need_data_folder()
    remove_leftovers(job.run)
    job.step("Reading the data folder")
    train_faces, validation = full.load_folder(layout, start)
    job.say(
        f"The data folder has {len(train_faces)} faces to train on and "
        f"{len(validation)} to judge by."
    )
    snapshot = _snapshot(job, bases.describe_folder(layout, train_faces, validation))
    taught, judged = _curated_faces(job, snapshot, start.manifest)
    candidate, model, left_out = full.fine_tune(
        job,
        config,
        start,
        start_data,
        layout,
        train_faces,
        validation,
        taught,
        run_dir(job.run),
        _version_name(job.run),
    )
    job.step("Keeping features for later head runs")
    bases.keep_features(candidate, train_faces, validation)
    frozen_faces = validation.take(validation.consensus != NO_LABEL)
    judge_and_finish(
        job,
        snapshot,
        champion=champion,
        candidate=candidate,
        model=model,
        frozen=JudgedFaces(
            frozen_faces.consensus,
            crops=frozen_faces.crops,
            slices=slices_of_folder(frozen_faces),
        ),
        taught=taught,
        judged=judged,
        left_out=left_out,
    )


def _snapshot(job: Job, base: dict[str, Any]) -> DatasetSnapshot:
    """The run's own, from its first attempt on."""
    run = job.run
    if run.snapshot is not None:
        if not snapshots.snapshot_is_intact(snapshot=run.snapshot):
            raise RunFailed(
                f"Data set {run.snapshot.number} is not what was frozen any more: its "
                "hash differs. Start another run."
            )
        return run.snapshot
    job.step("Freezing the data set")
    snapshot = snapshots.build_snapshot(base=base)
    if not job.mine.update(snapshot=snapshot):
        raise Stopped
    run.snapshot = snapshot
    counts = snapshot.counts
    job.say(
        f"Data set {snapshot.number}: {sum(counts['train'].values())} curated faces "
        f"train, {sum(counts['evaluation'].values())} judge, {counts['set_aside']} are "
        f"set aside; {counts['new']} are new."
    )
    return snapshot


def _curated_faces(
    job: Job, snapshot: DatasetSnapshot, manifest: ModelManifest
) -> tuple[CuratedFaces, CuratedFaces]:
    """(those that train, those that judge), without faces erased meanwhile."""
    parts = []
    for split in (Split.TRAIN, Split.EVALUATION):
        job.check()
        rows = snapshots.usable_faces(snapshot=snapshot, split=split)
        parts.append(read_curated(rows, manifest.input))
    return parts[0], parts[1]


def _features(
    job: Job, classifier: EmotionClassifier, crops: UInt8Array
) -> Float32Array:
    parts = []
    for start in range(0, len(crops), _BATCH):
        job.step("Computing features", start, len(crops))
        parts.append(classifier.features(crops[start : start + _BATCH]))
    return np.concatenate(parts)


def _version_name(run: TrainingRun) -> str:
    """``mien-1`` -> ``mien-1-head-3``, whatever stood between."""
    root = run.start.version
    for mode in Mode.values:
        root = root.split(f"-{mode}-")[0]
    end = f"-{run.mode}-{run.number}"
    return root[: _MAX_NAME - len(end)] + end
