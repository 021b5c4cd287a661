from __future__ import annotations

import json

import pytest

from ml.inference import EmotionClassifier
from webapp.registry.selectors import read_model_file
from webapp.training.models import (
    FaceComparison,
    RunState,
    TrainingRun,
)
from webapp.training.services import runs
from webapp.training.tests.factories import Labeller

pytestmark = pytest.mark.django_db


def head_run(**given: object) -> TrainingRun:
    """A head run, from the wish to its end."""
    run = runs.request_run(mode="head", requested_by=None, **given)  # type: ignore[arg-type]
    claimed = runs.claim_run(run_id=run.pk)
    assert claimed is not None
    runs.run_claimed(run=claimed)
    run.refresh_from_db()
    return run


def test_head_run_makes_a_judged_candidate(labeller: Labeller) -> None:
    labeller.faces(8)

    run = head_run()

    assert run.state == RunState.DONE, run.message
    assert run.outcome == run.decision["outcome"] == "promote", run.decision
    candidate = run.candidate
    assert candidate is not None
    assert candidate.parent == run.start
    assert not candidate.is_champion
    loaded = EmotionClassifier(*read_model_file(candidate))
    assert loaded.manifest.version == candidate.version
    retraining = loaded.manifest.training["retraining"]
    assert retraining["snapshot"]["sha256"] == run.snapshot.sha256  # type: ignore[union-attr]
    assert FaceComparison.objects.filter(run=run).count() == 32
    names = [row["name"] for row in run.report["sets"]]
    assert names == ["the frozen evaluation set", "the curated hold-out"]
    flags = run.report["flags"]
    assert flags["faces"] == 32
    assert flags["candidate"] >= flags["champion"] > 25
    assert run.lines.count() > 3
    json.dumps([run.report, run.decision], allow_nan=False)
