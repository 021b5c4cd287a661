"""A candidate is judged against the champion, and what came of it written down."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from django.db import transaction
from django.utils import timezone
from PIL import Image

from ml.data import FaceSet
from ml.gate import is_right
from ml.inference import EmotionClassifier
from ml.labels import EMOTIONS
from ml.manifest import ModelManifest, manifest_path, write_atomically
from ml.preprocessing import whole_picture
from ml.quality import HINTS, face_quality
from webapp.curation.models import Correction, Source
from webapp.photos.models import Face
from webapp.registry.services import register_model_version
from webapp.training.models import (
    DatasetSnapshot,
    FaceComparison,
    RunState,
    SnapshotFace,
    Split,
    TrainingRun,
)
from webapp.training.services import comparing
from webapp.training.services.comparing import JudgedFaces, Verdict
from webapp.training.services.curated import CuratedFaces
from webapp.training.services.job import Job, Stopped
from webapp.training.services.run_dirs import remove_run_dir

Float32Array = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

_BATCH: Final = 500


def judge_and_finish(
    job: Job,
    snapshot: DatasetSnapshot,
    *,
    champion: EmotionClassifier,
    candidate: EmotionClassifier,
    model: bytes,
    frozen: JudgedFaces,
    taught: CuratedFaces,
    judged: CuratedFaces,
    left_out: BoolArray,
    taught_features: Mapping[str, Float32Array] | None = None,
) -> None:
    """Ask the gate, and keep the candidate with all that was found.

    ``model`` is the candidate's file, ``frozen`` the base's evaluation faces,
    ``taught`` and ``judged`` the curated faces that trained and those that did not,
    ``left_out`` says which of the former nearly are faces that judge, bool (N,);
    ``taught_features`` what bodies, by their SHA-256, made of the former already,
    float32 (N, C). Raises ``Stopped`` or ``CannotCompare``.
    """
    job.step("Judging the candidate")
    curated = JudgedFaces(
        judged.labels, crops=judged.crops, slices=_slices(judged.rows)
    )
    verdict = comparing.compare(
        champion=champion, candidate=candidate, base=frozen, curated=curated
    )
    learned = JudgedFaces(
        taught.labels, crops=taught.crops, features=taught_features or {}
    )
    comparisons = [
        *_comparisons(job.run, judged, verdict.champion, verdict.candidate),
        *_comparisons(
            job.run,
            taught,
            comparing.answers_of(champion, learned),
            comparing.answers_of(candidate, learned),
        ),
    ]
    report = {
        **verdict.report,
        "flags": _accepted_flags(comparisons),
        "left_out": [
            str(row.face_key)
            for row, known in zip(taught.rows, left_out, strict=True)
            if known
        ],
    }
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
        there = dict(_qualities([row.face_id for row in comparisons if row.face_id]))
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
    remove_run_dir(job.run)


def _slices(rows: list[SnapshotFace]) -> dict[str, BoolArray]:
    """Masks over curated faces, by how hard they are to read and where they are
    from."""
    qualities = dict(_qualities([row.face_key for row in rows]))
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


def _qualities(
    keys: Sequence[uuid.UUID],
) -> Iterator[tuple[uuid.UUID, dict[str, Any]]]:
    """(id, quality) of the faces that are still there."""
    # SQLite takes only so many ids in one query.
    for start in range(0, len(keys), _BATCH):
        faces = Face.objects.filter(pk__in=keys[start : start + _BATCH])
        yield from faces.values_list("pk", "quality")


def slices_of_folder(faces: FaceSet) -> dict[str, BoolArray]:
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
    curated: CuratedFaces,
    champion: npt.NDArray[np.float64],
    candidate: npt.NDArray[np.float64],
) -> list[FaceComparison]:
    before = is_right(champion, curated.labels)
    after = is_right(candidate, curated.labels)
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
        values = [value for value in answers if value is not None]
        # A candidate whose answers are no numbers is rejected, and shown all the same.
        return len(values) == len(words) and words[values.index(max(values))] == label

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
