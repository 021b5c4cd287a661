"""A run that was judged, without the seconds that training takes: tiny networks, a
real data set, a real comparison."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from django.utils import timezone

from ml.inference import EmotionClassifier
from ml.labels import EMOTIONS
from ml.manifest import load_manifest, manifest_path, read_model
from tests.models import write_tiny_model
from webapp.registry.models import ModelVersion
from webapp.registry.services import promote_model_version, register_model_version
from webapp.training.models import FaceComparison, RunState, TrainingRun
from webapp.training.services.base import load_version
from webapp.training.services.comparing import JudgedFaces, compare
from webapp.training.services.runs import request_run
from webapp.training.services.snapshots import build_snapshot

FACES = 240


def tiny_champion(folder: Path, version: str = "tiny-1") -> ModelVersion:
    """It serves."""
    made = register_model_version(path=write_tiny_model(folder, version))
    promote_model_version(model_version=made, promoted_by=None, reason="test")
    return made


def judged_run(
    *, champion: ModelVersion, folder: Path, outcome: str = "promote"
) -> TrainingRun:
    """A head run on the faces that are labelled by now; of these the candidate fixes
    the even ones and breaks every fifth."""
    run = request_run(mode="head", requested_by=None)
    snapshot = build_snapshot(
        base={
            "kind": "features",
            "body_sha256": champion.sha256,
            "sha256": "f" * 64,
            "train": 6000,
            "evaluation": FACES,
        }
    )
    path = write_tiny_model(
        folder, f"{champion.version}-head-{run.number}", (0.02, 0.0, 0.01, 0.0)
    )
    crops = np.random.default_rng(0).integers(0, 255, (FACES, 48, 48, 1), np.uint8)
    labels = np.arange(FACES) % len(EMOTIONS)
    before, _ = load_version(champion)
    verdict = compare(
        champion=before,
        candidate=EmotionClassifier(load_manifest(path), read_model(path)),
        base=JudgedFaces(labels, crops=crops),
        curated=JudgedFaces(
            labels[:40],
            crops=crops[:40],
            slices={"dark faces": np.arange(40) < 30},
        ),
    )
    manifest = replace(
        load_manifest(path),
        metrics={
            "frozen_evaluation": {"consensus": verdict.report["sets"][0]["candidate"]}
        },
        training={
            "retraining": {
                "number": run.number,
                "mode": run.mode,
                "seed": run.seed,
                "start": champion.version,
                "judged_against": champion.version,
                "snapshot": {
                    "number": snapshot.number,
                    "sha256": snapshot.sha256,
                    "base": snapshot.base,
                    "counts": snapshot.counts,
                },
            }
        },
    )
    manifest_path(path).write_text(manifest.to_json(), encoding="utf-8")
    candidate = register_model_version(path=path, parent=champion)
    flags = {"faces": 3, "champion": 0, "candidate": 2}
    now = timezone.now()
    TrainingRun.objects.filter(pk=run.pk).update(
        state=RunState.DONE,
        snapshot=snapshot,
        candidate=candidate,
        outcome=outcome,
        decision={**verdict.to_dict(), "outcome": outcome},
        report={**verdict.report, "flags": {**flags, "held_out": flags}},
        started_at=now,
        ended_at=now,
    )
    FaceComparison.objects.bulk_create(
        FaceComparison(
            run=run,
            snapshot_face=row,
            face_id=row.face_key,
            champion=[0.1, 0.1, 0.1, 0.7],
            candidate=[0.7, 0.1, 0.1, 0.1],
            fixed=i % 2 == 0,
            broken=i % 2 == 1 and i % 5 == 0,
        )
        for i, row in enumerate(snapshot.faces.all())
    )
    run.refresh_from_db()
    return run
