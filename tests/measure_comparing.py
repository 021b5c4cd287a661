"""How long does a comparison of two versions keep an admin waiting?

    python -m pytest -s tests/measure_comparing.py

On a site of its own, with the shipped model, a version that shares its body and one
that does not, and a data set that holds out a thousand drawn faces. The page is asked
twice for each pair. Stands here, as it draws its faces by the factories of tests.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest
from django.conf import LazySettings
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from benchmarks.latency import machine
from ml.inference import SHIPPED_MODEL, EmotionClassifier
from ml.labels import EMOTIONS
from ml.manifest import manifest_path, read_model, sha256_of
from ml.retraining import (
    SHIPPED_RETRAINING,
    load_retraining,
    save_retraining,
    with_head,
)
from webapp.accounts.models import Role
from webapp.curation.tests.factories import PersonFactory
from webapp.registry.models import ModelVersion
from webapp.registry.selectors import features_name
from webapp.registry.services import register_model_version, register_shipped_model
from webapp.training.models import DatasetSnapshot, SnapshotFace, Split
from webapp.training.tests.factories import Labeller

FACES: Final = 1000


def another(folder: Path, version: str, *, own_body: bool) -> ModelVersion:
    """The shipped network with another head; of a body of its own, if it says so."""
    own = EmotionClassifier.load()
    scale = 1.02 if own_body else 1.01
    file = with_head(read_model(SHIPPED_MODEL), own.head_weight * scale, own.head_bias)
    body = {} if own_body else {"body_sha256": own.manifest.sha256}
    manifest = replace(
        own.manifest,
        version=version,
        sha256=sha256_of(file),
        size_bytes=len(file),
        training=body,
    )
    path = folder / f"{version}.onnx"
    path.write_bytes(file)
    manifest_path(path).write_text(manifest.to_json(), encoding="utf-8")
    if own_body:
        data = load_retraining(own.manifest, SHIPPED_RETRAINING)
        kept = folder / "media" / features_name(manifest.sha256)
        kept.parent.mkdir(parents=True, exist_ok=True)
        save_retraining(kept, replace(data, model_sha256=manifest.sha256))
    return register_model_version(path=path)


@pytest.mark.django_db
def test_waiting_for_a_comparison(tmp_path: Path, settings: LazySettings) -> None:
    settings.MEDIA_ROOT = tmp_path / "media"
    shipped = register_shipped_model()
    head = another(tmp_path, "head", own_body=False)
    full = another(tmp_path, "full", own_body=True)
    labeller = Labeller(shipped)
    snapshot = DatasetSnapshot.objects.create(
        number=1, sha256="0" * 64, labels_sha256="0" * 64
    )
    for number in range(FACES):
        emotion = EMOTIONS[number % len(EMOTIONS)]
        face = labeller.face(emotion, flagged=False)
        SnapshotFace.objects.create(
            snapshot=snapshot,
            face=face,
            face_key=face.pk,
            photo_key=face.photo_id,
            label=emotion.value,
            shares=[0.25] * 4,
            weight=1.0,
            split=Split.EVALUATION,
            decided_at=timezone.now(),
        )
    client = Client()
    client.force_login(PersonFactory(role=Role.ADMIN))
    print(f"\n{machine()}; {FACES:,} held-out faces")
    for name, right in (("the same body", head), ("another body", full)):
        chosen = {"left": shipped.version, "right": right.version}
        for turn in ("first", "again"):
            started_at = time.perf_counter()
            page = client.get(reverse("training:compare"), chosen)
            seconds = time.perf_counter() - started_at
            assert page.status_code == 200, page.content
            print(f"{name}, {turn}: {seconds:.2f} s", flush=True)
