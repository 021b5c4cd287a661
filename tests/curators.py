"""Sixty drawn faces on their way through a running site: visitors give and flag them,
two annotators label them, as people would."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from ml.labels import EMOTIONS
from ml.tests.faces import draw_face
from tests.pictures import as_form, encode
from tests.stack import Stack

_LABEL = """
import json, os
from webapp.accounts.models import User
from webapp.curation.services.claims import claim_faces
from webapp.curation.services.votes import submit_correction

truth = json.loads(os.environ["TRUTH"])
for name in ("ada", "ben"):
    person, _ = User.objects.get_or_create(username=name)
    while claims := claim_faces(person=person, count=10):
        for claim in claims:
            verdict = truth[str(claim.face.photo_id)]
            submit_correction(person=person, claim_id=claim.pk, verdict=verdict)
"""

_READ = """
import json, time
from webapp.training.models import TrainingRun

def told(run):
    return {
        "number": run.number, "state": run.state, "message": run.message,
        "outcome": run.outcome, "attempts": run.attempts, "curves": run.curves,
        "report": run.report, "stage": run.stage,
        "candidate": run.candidate.version if run.candidate else "",
        "lines": [line.text for line in run.lines.all()],
    }
"""

_READ_ALL = """
print(json.dumps([told(run) for run in TrainingRun.objects.order_by("number")]))
"""

# Asks the database itself: to start a process for each look takes longer than epochs.
_WAIT = """
import os
number, attempts, epochs = json.loads(os.environ["AWAITED"])
deadline = time.monotonic() + 900
while time.monotonic() < deadline:
    run = told(TrainingRun.objects.get(number=number))
    begun = sum(line.startswith("Attempt") for line in run["lines"])
    so_far = attempts and begun >= attempts and len(run["curves"]) >= epochs
    if so_far or run["state"] not in ("queued", "running"):
        break
    time.sleep(0.1)
print(json.dumps(run))
"""


def drawn_photos(count: int, seed: int = 0) -> list[tuple[bytes, str]]:
    """JPEG and emotion of faces, the four emotions in turn."""
    generator = np.random.default_rng(seed)
    photos = []
    for number in range(count):
        emotion = EMOTIONS[number % len(EMOTIONS)]
        face = draw_face(emotion, generator).resize((96, 96), Image.Resampling.BICUBIC)
        photos.append((encode(face.convert("RGB")), emotion.value))
    return photos


def give(stack: Stack, image: bytes) -> dict[str, Any]:
    """Upload a photo whose faces may train; what the API says of it."""
    body, kind = as_form(image, train="true")
    status, photo = stack.request("POST", "/api/v1/photos", body, kind)
    assert status == 202, photo
    return dict(photo)


def read(stack: Stack, photo: dict[str, Any]) -> dict[str, Any]:
    return stack.result(f"/api/v1/photos/{photo['id']}?secret={photo['secret']}")


def flag(stack: Stack, photo: dict[str, Any], verdict: str) -> str:
    """Say what the only face of a photo is; the receipt's address."""
    status, answer = stack.request(
        "POST",
        f"/api/v1/photos/{photo['id']}/faces/1/flag?secret={photo['secret']}",
        json.dumps({"verdict": verdict}).encode(),
        "application/json",
    )
    assert status == 201, answer
    return str(answer["receipt"])


def label(stack: Stack, truth: dict[str, str]) -> None:
    """Two annotators empty the queue; ``truth`` is the emotion by photo."""
    _shell(stack, _LABEL, TRUTH=json.dumps(truth))


def training_runs(stack: Stack) -> Sequence[dict[str, Any]]:
    return list(json.loads(_shell(stack, _READ + _READ_ALL)))


def wait_for_run(
    stack: Stack, number: int, *, attempts: int = 0, epochs: int = 0
) -> dict[str, Any]:
    """A run once it has begun so many ``attempts`` and has got through so many
    ``epochs``; without, once it has ended."""
    awaited = json.dumps([number, attempts, epochs])
    run = dict(json.loads(_shell(stack, _READ + _WAIT, AWAITED=awaited)))
    assert attempts == 0 or run["state"] in ("queued", "running"), run
    assert attempts or run["state"] not in ("queued", "running"), run
    return run


def _shell(stack: Stack, code: str, **given: str) -> str:
    return stack.manage("shell", "--no-imports", "-c", code, **given)
