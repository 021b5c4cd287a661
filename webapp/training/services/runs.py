"""A run's life: asked for, claimed, trained, judged, finished; or cancelled, or dead
and taken up again."""

from __future__ import annotations

import logging
import shutil
import tempfile
import uuid
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from celery.exceptions import SoftTimeLimitExceeded
from django.conf import settings
from django.db import DatabaseError, IntegrityError, transaction
from django.db.models import F, Max
from django.utils import timezone
from PIL import Image

from ml.consensus import NO_LABEL
from ml.data import FaceSet, Layout
from ml.inference import EmotionClassifier
from ml.labels import EMOTIONS
from ml.manifest import ModelManifest, manifest_path, write_atomically
from ml.preprocessing import whole_picture
from ml.quality import HINTS, face_quality
from ml.retraining import RetrainingError
from webapp.accounts.models import Role, User
from webapp.accounts.roles import has_role
from webapp.core.errors import DomainError, NotAllowed
from webapp.curation.models import Correction, Source
from webapp.photos.models import Face
from webapp.registry.models import ModelVersion
from webapp.registry.selectors import get_champion
from webapp.registry.services import register_model_version
from webapp.training.configs import FullConfig, HeadConfig, parse_config
from webapp.training.errors import AlreadyRunning, NothingNew, RunFailed, RunRefused
from webapp.training.models import (
    MAX_ATTEMPTS,
    UNFINISHED,
    DatasetSnapshot,
    FaceComparison,
    Mode,
    RunState,
    SnapshotFace,
    Split,
    TrainingRun,
    Trigger,
)
from webapp.training.services import base as bases
from webapp.training.services import comparing, head, snapshots
from webapp.training.services.comparing import JudgedFaces, Verdict
from webapp.training.services.job import Job, Stopped, keep_lease, lease_end
from webapp.training.services.lineage import choose_start
from webapp.training.services.queue import count_waiting_messages, wake_trainer

UInt8Array = npt.NDArray[np.uint8]
Float32Array = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

MAX_SEED: Final = 2**31 - 1
_MESSAGE_LOST_AFTER: Final = timedelta(seconds=2)
_BATCH: Final = 500

logger = logging.getLogger(__name__)


def request_run(
    *,
    mode: str,
    requested_by: User | None,
    trigger: Trigger = Trigger.HAND,
    seed: int = 0,
    config: dict[str, Any] | None = None,
) -> TrainingRun:
    """Ask for a run; a training worker takes it up.

    ``config`` holds what differs from the defaults of ``configs``. ``requested_by``
    is None for the schedule and the command line.

    Raises:
        NotAllowed: ``requested_by`` is no admin.
        RunRefused: Mode, seed or config is wrong, or a full run has no data folder.
        NothingNew: The same labels, start and settings were tried already.
        AlreadyRunning: Another run is queued or running.
    """
    if requested_by is not None and not has_role(requested_by, Role.ADMIN):
        raise NotAllowed("Only an admin may train a model.")
    champion, start, settled = check_request(mode=mode, seed=seed, config=config)
    try:
        with transaction.atomic():
            most = TrainingRun.objects.aggregate(most=Max("number"))["most"] or 0
            run = TrainingRun.objects.create(
                number=most + 1,
                mode=mode,
                trigger=trigger,
                requested_by=requested_by,
                seed=seed,
                config=settled,
                parent=champion,
                start=start,
                queued_at=timezone.now(),
            )
            transaction.on_commit(lambda: wake_trainer(run.pk), robust=True)
    except IntegrityError as error:
        raise _already_running() from error
    return run


def check_request(
    *, mode: str, seed: int = 0, config: dict[str, Any] | None = None
) -> tuple[ModelVersion, ModelVersion, dict[str, Any]]:
    """Champion, start and settled config of a run that could begin now.

    Raises ``RunRefused``, ``NothingNew`` or ``AlreadyRunning``, see ``request_run``;
    a page asks so before it offers the button.
    """
    if mode not in Mode.values:
        raise RunRefused(f"A mode is head or full, not {str(mode)[:20]!r}.")
    if not 0 <= seed <= MAX_SEED:
        raise RunRefused(f"A seed is a whole number from 0 to {MAX_SEED}.")
    kind = Mode(mode)
    settled = asdict(parse_config(kind, config))
    champion = get_champion()
    if champion is None:
        raise RunRefused("No model is registered yet: run manage.py bootstrap.")
    if kind == Mode.FULL and not settings.DATASET_DIR:
        bases.need_data_folder()
    if TrainingRun.objects.filter(state__in=UNFINISHED).exists():
        raise _already_running()
    start = choose_start(champion=champion, mode=kind)
    _check_news(kind, start, seed, settled)
    return champion, start, settled


def cancel_run(*, run: TrainingRun, cancelled_by: User | None) -> bool:
    """End a run that is not finished: at once where it waits, within seconds where a
    worker has it. False where it was finished already. Raises ``NotAllowed``."""
    if cancelled_by is not None and not has_role(cancelled_by, Role.ADMIN):
        raise NotAllowed("Only an admin may cancel a run.")
    now = timezone.now()
    waiting = TrainingRun.objects.filter(pk=run.pk, state=RunState.QUEUED).update(
        state=RunState.CANCELLED,
        ended_at=now,
        cancel_requested_at=now,
        cancelled_by=cancelled_by,
    )
    if waiting:
        _remove_run_dir(run)
        return True
    wished = TrainingRun.objects.filter(pk=run.pk, state=RunState.RUNNING)
    return bool(wished.update(cancel_requested_at=now, cancelled_by=cancelled_by))


def claim_run(*, run_id: uuid.UUID) -> TrainingRun | None:
    """Lease a queued run; None where somebody else has it or it is not wanted."""
    token = uuid.uuid4()
    now = timezone.now()
    claimed = TrainingRun.objects.filter(
        pk=run_id, state=RunState.QUEUED, attempts__lt=MAX_ATTEMPTS
    ).update(
        state=RunState.RUNNING,
        lease_token=token,
        lease_expires_at=lease_end(),
        heartbeat_at=now,
        attempts=F("attempts") + 1,
    )
    if not claimed:
        return None
    TrainingRun.objects.filter(pk=run_id, started_at__isnull=True).update(
        started_at=now
    )
    return (
        TrainingRun.objects.select_related("parent", "start", "snapshot")
        .filter(pk=run_id, lease_token=token)
        .first()
    )


def run_claimed(*, run: TrainingRun) -> None:
    """Carry a claimed run to its end: done, failed with a reason, or cancelled.

    Never raises for what data or training can do. Where the worker dies, or the
    database goes away, the lease runs out and the sweep queues the run again.
    """
    with keep_lease(run) as job:
        try:
            _train_and_judge(job)
        except Stopped:
            _end_cancelled(job)
        except DatabaseError:
            raise
        except SoftTimeLimitExceeded:
            _fail(job, "It took longer than a run may take. Choose fewer epochs.")
        except DomainError as error:
            _fail(job, str(error))
        except RetrainingError as error:
            _fail(job, f"The head could not be refitted: {error}.")
        except OSError as error:
            _fail(job, f"A file could not be read or written: {error}.")
        except Exception as error:
            # The border of the job: whatever a network raises is this run's failure.
            logger.exception("run %s failed", run.number)
            _fail(job, f"Something unexpected went wrong: {error!r}.")


def sweep_runs() -> int:
    """Set going what stands still; how many runs that were. Runs any number of times.

    A run whose worker died goes back to the queue; after ``MAX_ATTEMPTS`` deaths
    without a checkpoint in between it is failed.
    """
    now = timezone.now()
    moved = 0
    stranded = TrainingRun.objects.filter(
        state=RunState.RUNNING, lease_expires_at__lt=now
    )
    for run in stranded:
        moved += _take_back(run)
    waiting = TrainingRun.objects.filter(
        state=RunState.QUEUED, queued_at__lt=now - _MESSAGE_LOST_AFTER
    ).first()
    if waiting is not None and count_waiting_messages() == 0:
        moved += wake_trainer(waiting.pk)
    return moved


def _already_running() -> AlreadyRunning:
    return AlreadyRunning(
        "A run is under way already. Wait for its end, or cancel it first."
    )


def _check_news(
    mode: Mode, start: ModelVersion, seed: int, config: dict[str, Any]
) -> None:
    labels = snapshots.current_labels()
    if not labels and mode == Mode.HEAD:
        raise NothingNew(
            "There is nothing to learn from yet: no face has been decided by people "
            "whose photo may be used for training. Label some faces first."
        )
    same = TrainingRun.objects.filter(
        state=RunState.DONE,
        mode=mode,
        start=start,
        seed=seed,
        config=config,
        snapshot__labels_sha256=snapshots.labels_sha256(labels),
    ).first()
    if same is not None:
        raise NothingNew(
            f"Nothing is new since run {same.number}: the same labels and settings "
            "would give the same model. Label more faces, or change a setting."
        )


@dataclass(frozen=True, slots=True)
class _Curated:
    """Faces of a snapshot with their crops, as one version takes them."""

    rows: list[SnapshotFace]
    crops: UInt8Array

    @property
    def shares(self) -> Float32Array:
        shares = [row.shares for row in self.rows]
        return np.asarray(shares, np.float32).reshape(len(shares), len(EMOTIONS))

    @property
    def weights(self) -> Float32Array:
        return np.asarray([row.weight for row in self.rows], np.float32)

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        words = [emotion.value for emotion in EMOTIONS]
        return np.asarray([words.index(row.label) for row in self.rows], np.int64)


def _train_and_judge(job: Job) -> None:
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
    model, calibration = head.refit(
        job, config, start, start_data, data, features, taught.shares, taught.weights
    )
    job.say(
        f"The head was refitted on {len(taught.rows)} curated faces and "
        f"{len(data.features)} of the base."
    )
    candidate = head.child_of(start, model, calibration, _version_name(job.run))
    known = {data.model_sha256: data.evaluation_features}
    body = bases.body_sha256(champion.manifest)
    if body not in known:
        others, _ = bases.load_base_features(champion)
        if np.array_equal(others.evaluation_labels, data.evaluation_labels):
            known[body] = others.evaluation_features
    frozen = JudgedFaces(data.evaluation_labels, features=known)
    _judge_and_finish(job, snapshot, champion, candidate, model, frozen, taught, judged)


def _run_full(
    job: Job, start: EmotionClassifier, start_data: bytes, champion: EmotionClassifier
) -> None:
    # Torch: half a gigabyte that nobody else should pay for.
    from webapp.training.services import full

    config = parse_config(Mode.FULL, job.run.config)
    assert isinstance(config, FullConfig)
    layout: Layout = bases.need_data_folder()
    _remove_leftovers(job.run)
    job.step("Reading the data folder")
    train_faces, validation = full.load_folder(layout, start)
    job.say(
        f"The data folder has {len(train_faces)} faces to train on and "
        f"{len(validation)} to judge by."
    )
    snapshot = _snapshot(job, bases.describe_folder(layout, train_faces, validation))
    taught, judged = _curated_faces(job, snapshot, start.manifest)
    candidate, model = full.fine_tune(
        job,
        config,
        start,
        start_data,
        layout,
        train_faces,
        validation,
        taught.crops,
        taught.shares,
        taught.weights,
        run_dir(job.run),
        _version_name(job.run),
    )
    job.step("Keeping features for later head runs")
    bases.keep_features(candidate, train_faces, validation)
    frozen_faces = validation.take(validation.consensus != NO_LABEL)
    frozen = JudgedFaces(
        frozen_faces.consensus,
        crops=frozen_faces.crops,
        slices=_slices_of_folder(frozen_faces),
    )
    _judge_and_finish(job, snapshot, champion, candidate, model, frozen, taught, judged)


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
) -> tuple[_Curated, _Curated]:
    """(those that train, those that judge), without faces erased meanwhile."""
    out = []
    spec = manifest.input
    for split in (Split.TRAIN, Split.EVALUATION):
        job.check()
        rows = snapshots.usable_faces(snapshot=snapshot, split=split)
        crops = snapshots.read_crops([row.face_key for row in rows], spec)
        there = [
            (row, crop)
            for row, crop in zip(rows, crops, strict=True)
            if crop is not None
        ]
        shape = (0, spec.size_px, spec.size_px, spec.channels)
        out.append(
            _Curated(
                [row for row, _ in there],
                np.stack([crop for _, crop in there])
                if there
                else np.zeros(shape, np.uint8),
            )
        )
    return out[0], out[1]


def _features(
    job: Job, classifier: EmotionClassifier, crops: UInt8Array
) -> Float32Array:
    parts = []
    for start in range(0, len(crops), _BATCH):
        job.step("Computing features", start, len(crops))
        parts.append(classifier.features(crops[start : start + _BATCH]))
    return np.concatenate(parts)


def _judge_and_finish(
    job: Job,
    snapshot: DatasetSnapshot,
    champion: EmotionClassifier,
    candidate: EmotionClassifier,
    model: bytes,
    frozen: JudgedFaces,
    taught: _Curated,
    judged: _Curated,
) -> None:
    job.step("Judging the candidate")
    curated = JudgedFaces(
        judged.labels, crops=judged.crops, slices=_slices(judged.rows)
    )
    verdict = comparing.compare(
        champion=champion, candidate=candidate, base=frozen, curated=curated
    )
    learned = JudgedFaces(taught.labels, crops=taught.crops)
    comparisons = [
        *_comparisons(job.run, judged, verdict.champion, verdict.candidate),
        *_comparisons(
            job.run,
            taught,
            comparing.answers_of(champion, learned),
            comparing.answers_of(candidate, learned),
        ),
    ]
    report = {**verdict.report, "flags": _accepted_flags(comparisons)}
    manifest = replace(
        candidate.manifest,
        created_at=job.run.created_at.isoformat(timespec="seconds"),
        metrics=_metrics(verdict, candidate.manifest),
        training={
            **candidate.manifest.training,
            "retraining": {
                "run": str(job.run.pk),
                "number": job.run.number,
                "mode": job.run.mode,
                "seed": job.run.seed,
                "config": job.run.config,
                "start": job.run.start.version,
                "judged_against": job.run.parent.version,
                "snapshot": {
                    "number": snapshot.number,
                    "sha256": snapshot.sha256,
                    "base": snapshot.base,
                    "counts": snapshot.counts,
                },
            },
        },
    )
    _finish(job, manifest, model, verdict, report, comparisons)


def _finish(
    job: Job,
    manifest: ModelManifest,
    model: bytes,
    verdict: Verdict,
    report: dict[str, Any],
    comparisons: list[FaceComparison],
) -> None:
    """Version, comparisons and outcome in one transaction, or nothing."""
    job.check()
    outcome = verdict.decision.outcome.value
    # Before the row, so that people can read it beside the outcome.
    with tempfile.TemporaryDirectory() as folder, transaction.atomic():
        path = Path(folder) / f"{manifest.version}.onnx"
        write_atomically(path, model)
        write_atomically(manifest_path(path), manifest.to_json().encode())
        version = register_model_version(path=path, parent=job.run.start)
        # Erased while the run went on: what was said of them is not kept.
        there = set(
            Face.objects.filter(
                pk__in=[row.face_id for row in comparisons]
            ).values_list("pk", flat=True)
        )
        FaceComparison.objects.filter(run=job.run).delete()
        FaceComparison.objects.bulk_create(
            [row for row in comparisons if row.face_id in there], batch_size=_BATCH
        )
        finished = job.mine.filter(cancel_requested_at__isnull=True).update(
            state=RunState.DONE,
            candidate=version,
            outcome=outcome,
            decision=verdict.to_dict(),
            report=report,
            stage="",
            ended_at=timezone.now(),
            lease_token=None,
            lease_expires_at=None,
        )
        if not finished:
            raise Stopped
        job.say(
            f"Version {version.version} was made; the gate says {outcome}. "
            f"{verdict.decision.reasons[0]}"
        )
    _remove_run_dir(job.run)


def _fail(job: Job, message: str) -> None:
    failed = job.mine.update(
        state=RunState.FAILED,
        message=message[:1000],
        stage="",
        ended_at=timezone.now(),
        lease_token=None,
        lease_expires_at=None,
    )
    if failed:
        job.say(f"Failed: {message}")
        _remove_run_dir(job.run)


def _end_cancelled(job: Job) -> None:
    """Where the stop was a person's wish; a lost lease is somebody else's run now."""
    ended = job.mine.filter(cancel_requested_at__isnull=False).update(
        state=RunState.CANCELLED,
        stage="",
        ended_at=timezone.now(),
        lease_token=None,
        lease_expires_at=None,
    )
    if ended:
        job.say("Cancelled.")
        _remove_run_dir(job.run)


def _take_back(run: TrainingRun) -> bool:
    """End the lease of a dead worker."""
    dead = TrainingRun.objects.filter(
        pk=run.pk, state=RunState.RUNNING, lease_token=run.lease_token
    )
    now = timezone.now()
    ended: dict[str, Any] = {"lease_token": None, "lease_expires_at": None, "stage": ""}
    if run.cancel_requested_at is not None:
        moved = dead.update(state=RunState.CANCELLED, ended_at=now, **ended)
    elif run.attempts >= MAX_ATTEMPTS:
        moved = dead.update(
            state=RunState.FAILED,
            message=(
                f"The training worker died {run.attempts} times without getting any "
                "further. Look at its log and at the memory of its host, then start "
                "another run."
            ),
            ended_at=now,
            **ended,
        )
    else:
        moved = dead.update(state=RunState.QUEUED, queued_at=now, **ended)
        if moved:
            wake_trainer(run.pk)
    if moved and run.attempts >= MAX_ATTEMPTS:
        _remove_run_dir(run)
    return bool(moved)


def _version_name(run: TrainingRun) -> str:
    """``mien-1`` -> ``mien-1-head-3``, whatever stood between."""
    root = run.start.version
    for mode in Mode.values:
        root = root.split(f"-{mode}-")[0]
    return f"{root[:60]}-{run.mode}-{run.number}"


def run_dir(run: TrainingRun) -> Path:
    """Where a full run keeps its checkpoint, on the host that trains."""
    return Path(settings.MIEN_HOME) / "training" / str(run.pk)


def _remove_leftovers(run: TrainingRun) -> None:
    """Checkpoints of runs that ended on another host: only one runs at a time."""
    for path in run_dir(run).parent.glob("*"):
        if path != run_dir(run):
            shutil.rmtree(path, ignore_errors=True)


def _remove_run_dir(run: TrainingRun) -> None:
    shutil.rmtree(run_dir(run), ignore_errors=True)


def _slices(rows: list[SnapshotFace]) -> dict[str, BoolArray]:
    """Masks over curated faces, by how hard they are to read and where they are
    from."""
    qualities = dict(
        Face.objects.filter(pk__in=[row.face_key for row in rows]).values_list(
            "pk", "quality"
        )
    )
    hints = [set(qualities.get(row.face_key, {}).get("hints", ())) for row in rows]
    masks = {
        f"{code} faces": np.array([code in found for found in hints], bool)
        for code in HINTS
    }
    masks["faces easy to read"] = np.array([not found for found in hints], bool)
    for reason in sorted({row.reason for row in rows if row.reason}):
        masks[f"faces queued as {reason}"] = np.array(
            [row.reason == reason for row in rows], bool
        )
    return {name: mask for name, mask in masks.items() if mask.any()}


def _slices_of_folder(faces: FaceSet) -> dict[str, BoolArray]:
    """The quarters of the base that are hardest to read."""
    qualities = []
    for crop in faces.crops:
        image = Image.fromarray(crop[:, :, 0] if crop.shape[2] == 1 else crop)
        qualities.append(face_quality(image, whole_picture(image)))
    brightness = np.array([quality.brightness for quality in qualities])
    sharpness = np.array([quality.sharpness for quality in qualities])
    return {
        "the darkest quarter of the base": brightness <= np.quantile(brightness, 0.25),
        "the brightest quarter of the base": brightness
        >= np.quantile(brightness, 0.75),
        "the most blurred quarter of the base": sharpness
        <= np.quantile(sharpness, 0.25),
    }


def _comparisons(
    run: TrainingRun,
    curated: _Curated,
    champion: npt.NDArray[np.float64],
    candidate: npt.NDArray[np.float64],
) -> list[FaceComparison]:
    before = champion.argmax(axis=1) == curated.labels
    after = candidate.argmax(axis=1) == curated.labels
    return [
        FaceComparison(
            run=run,
            snapshot_face=row,
            face_id=row.face_key,
            champion=_numbers(champion[i]),
            candidate=_numbers(candidate[i]),
            fixed=bool(after[i] and not before[i]),
            broken=bool(before[i] and not after[i]),
        )
        for i, row in enumerate(curated.rows)
    ]


def _numbers(values: npt.NDArray[np.float64]) -> list[float | None]:
    """JSON knows no NaN."""
    return [round(float(v), 6) if np.isfinite(v) else None for v in values]


def _accepted_flags(comparisons: list[FaceComparison]) -> dict[str, Any]:
    """Of flagged faces on which people agreed with the visitor: how many each version
    gets right, and the same of those that were held out."""
    labels = {row.face_id: row.snapshot_face.label for row in comparisons}
    flagged: set[uuid.UUID] = set()
    ids = list(labels)
    for start in range(0, len(ids), _BATCH):
        flags = Correction.objects.filter(
            face__in=ids[start : start + _BATCH],
            source=Source.VISITOR,
            retracted_at__isnull=True,
        ).values_list("face_id", "verdict")
        flagged |= {face for face, verdict in flags if labels[face] == verdict}
    rows = [row for row in comparisons if row.face_id in flagged]
    held_out = [row for row in rows if row.snapshot_face.split == Split.EVALUATION]
    return {**_right_of(rows), "held_out": _right_of(held_out)}


def _right_of(rows: list[FaceComparison]) -> dict[str, int]:
    words = [emotion.value for emotion in EMOTIONS]

    def right(answers: list[float | None], label: str) -> bool:
        values = [value if value is not None else -1.0 for value in answers]
        return words[values.index(max(values))] == label

    return {
        "faces": len(rows),
        "champion": sum(right(row.champion, row.snapshot_face.label) for row in rows),
        "candidate": sum(right(row.candidate, row.snapshot_face.label) for row in rows),
    }


def _metrics(verdict: Verdict, manifest: ModelManifest) -> dict[str, Any]:
    """What the candidate reached, for its manifest; a full run's own beside it."""
    return {
        **manifest.metrics,
        **{
            name: {"consensus": row["candidate"]}
            for row, name in zip(
                verdict.report["sets"],
                ("frozen_evaluation", "curated_hold_out"),
                strict=False,
            )
            if row["candidate"]
        },
    }
