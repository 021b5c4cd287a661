"""A full run: the whole network goes on learning, on the whole data. Imports torch:
only a training worker ever loads this module."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ml.checkpoint import CHECKPOINT_FILE, load_result
from ml.consensus import NO_LABEL
from ml.data import FaceSet, LabelSource, Layout, load_split
from ml.duplicates import resembles
from ml.export import EIGHT_BITS, ExportError, export_result, write_model
from ml.inference import EmotionClassifier
from ml.labels import EMOTIONS
from ml.manifest import ModelFileError, read_model, write_atomically
from ml.models import ModelConfig
from ml.train import train
from ml.train_config import EpochRecord, TrainConfig, TrainingError, config_from_dict
from webapp.training.configs import FullConfig
from webapp.training.errors import RunFailed, RunRefused
from webapp.training.services.base import load_faces
from webapp.training.services.curated import CuratedFaces
from webapp.training.services.job import Job

BoolArray = npt.NDArray[np.bool_]

_EMA_DECAY: Final = 0.999
_FACES_FILE: Final = "curated.sha256"


def load_folder(layout: Layout, start: EmotionClassifier) -> tuple[FaceSet, FaceSet]:
    """(train, validation) of the data folder."""
    return load_faces(layout, start.manifest)


def fine_tune(
    job: Job,
    config: FullConfig,
    start: EmotionClassifier,
    start_data: bytes,
    layout: Layout,
    train_faces: FaceSet,
    validation: FaceSet,
    taught: CuratedFaces,
    run_dir: Path,
    version: str,
) -> tuple[EmotionClassifier, bytes, BoolArray]:
    """Train from where ``run_dir`` holds a checkpoint that learned from the same
    curated faces ``taught``, or from ``start``; the candidate, loaded, its file, and
    which of ``taught`` were left out, bool (N,).

    Raises ``RunRefused``, ``RunFailed`` or ``Stopped``.
    """
    settings = _train_config(job, config, start, train_faces)
    curated, left_out = _curated(job, layout, start, train_faces, taught, config)
    _begin(job, run_dir, taught)
    done = _resumed(job, run_dir)

    def on_epoch(record: EpochRecord) -> None:
        done.append(record)
        job.keep_curves(done)
        job.say(
            f"Epoch {record.epoch} of {settings.epochs}: loss "
            f"{record.train_loss:.4f}, on validation {record.validation_loss:.4f}, "
            f"accuracy {100 * record.validation_accuracy:.2f} %."
        )

    def on_batch(number: int, total: int) -> None:
        job.check()
        if number == total or number % 10 == 0:
            epochs = len(done)
            job.step(
                f"Training, epoch {epochs + 1} of {settings.epochs}",
                epochs * total + number,
                settings.epochs * total,
            )

    source: LabelSource = "folder" if validation.votes is None else "consensus"
    if (validation.labels(source) == NO_LABEL).all():
        raise RunFailed("No face of the data folder's validation has a label.")
    try:
        with tempfile.TemporaryDirectory() as folder:
            first = Path(folder) / "start.onnx"
            write_model(first, start_data, start.manifest)
            result = train(
                settings,
                _joined(train_faces, curated),
                validation,
                run_dir,
                on_epoch=on_epoch,
                on_batch=on_batch,
                pretrained=[first],
            )
            job.step("Exporting")
            path = Path(folder) / f"{version}.onnx"
            manifest = export_result(
                result,
                path,
                validation,
                version=version,
                flip=bool(start.manifest.training.get("flip_folded")),
                eight_bits=bool(start.manifest.training.get(EIGHT_BITS)),
                source=source,
            )
            data = read_model(path)
    except (TrainingError, ExportError, ModelFileError) as error:
        raise RunFailed(f"The network could not be trained: {error}") from error
    manifest = replace(manifest, parent=start.manifest.version)
    return EmotionClassifier(manifest, data), data, left_out


def _begin(job: Job, run_dir: Path, taught: CuratedFaces) -> None:
    """Write down which curated faces train. A checkpoint that learned from others goes:
    it knows a face that may not be used any more."""
    keys = "\n".join(str(row.face_key) for row in taught.rows)
    digest = hashlib.sha256(keys.encode()).hexdigest()
    path = run_dir / _FACES_FILE
    learned = path.read_text() if path.exists() else ""
    if (run_dir / CHECKPOINT_FILE).exists() and learned != digest:
        shutil.rmtree(run_dir)
        job.drop_curves()
        job.say("A face is gone since: training begins anew without it.")
    run_dir.mkdir(parents=True, exist_ok=True)
    write_atomically(path, digest.encode())


def _resumed(job: Job, run_dir: Path) -> list[EpochRecord]:
    """The epochs that a checkpoint of this run holds."""
    if not (run_dir / CHECKPOINT_FILE).exists():
        return []
    try:
        history = load_result(run_dir).history
    except TrainingError as error:
        raise RunFailed(str(error)) from error
    job.say(f"Going on after epoch {len(history)}.")
    return list(history)


def _train_config(
    job: Job, config: FullConfig, start: EmotionClassifier, faces: FaceSet
) -> TrainConfig:
    raw: dict[str, Any] | None = start.manifest.training.get("config")
    if not raw:
        raise RunRefused(
            f"The manifest of version {start.manifest.version} does not say how its "
            "network is built, so nothing can be trained from it. Choose a head run."
        )
    own = config_from_dict(raw)
    model: ModelConfig = replace(own.model, outputs=faces.targets.shape[1])
    return replace(
        own,
        model=model,
        seed=job.run.seed,
        epochs=config.epochs,
        faces_per_epoch=config.faces_per_epoch or None,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        warmup_epochs=min(0.5, config.epochs / 4),
        ema_decay=_EMA_DECAY,
        device="auto",
        precision="auto",
        loader_threads=0,
        # Nobody's word is mixed in, whatever the shipped network was taught by.
        teachers=(),
        teacher_share=0.0,
    )


def _curated(
    job: Job,
    layout: Layout,
    start: EmotionClassifier,
    train_faces: FaceSet,
    taught: CuratedFaces,
    config: FullConfig,
) -> tuple[FaceSet, BoolArray]:
    """Curated faces as the folder's are, less those of validation and test, and which
    these are."""
    crops, shares = taught.crops, taught.shares
    keep = np.ones(len(crops), bool)
    if len(crops):
        for split in ("validation", "test"):
            held = load_split(layout, split, start.manifest.input, with_others=True)
            keep &= ~resembles(crops, held.crops)
    if not keep.all():
        job.say(
            f"{int((~keep).sum())} curated faces are left out: they are faces of "
            "validation or test."
        )
    wide = np.zeros((int(keep.sum()), train_faces.targets.shape[1]), np.float32)
    wide[:, : len(EMOTIONS)] = shares[keep]
    faces = FaceSet(
        files=tuple(f"curated/{i}" for i in np.flatnonzero(keep)),
        crops=crops[keep],
        folder_labels=shares[keep].argmax(axis=1).astype(np.int64),
        targets=wide,
        weights=(config.curated_weight * taught.weights[keep]).astype(np.float32),
    )
    return faces, ~keep


def _joined(left: FaceSet, right: FaceSet) -> FaceSet:
    return FaceSet(
        files=left.files + right.files,
        crops=np.concatenate([left.crops, right.crops]),
        folder_labels=np.concatenate([left.folder_labels, right.folder_labels]),
        targets=np.concatenate([left.targets, right.targets]),
        weights=np.concatenate([left.weights, right.weights]),
    )
