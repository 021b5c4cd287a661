"""What an evaluation leaves in a folder: the figures and the numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import numpy as np

from ml import figures
from ml.consensus import NO_LABEL
from ml.data import FaceSet, LabelSource
from ml.evaluate import EvalReport, read_set
from ml.inference import EmotionClassifier, softmax
from ml.labels import EMOTIONS
from ml.manifest import write_atomically

_SAMPLES: Final = 32


def write_report(
    folder: Path,
    classifier: EmotionClassifier,
    faces: FaceSet,
    source: LabelSource,
    report: EvalReport,
) -> None:
    """``report.json``, confusion, reliability, and sample predictions.

    The samples show the user's pictures: they stay in the user's folder.
    """
    labelled = faces.take(faces.labels(source) != NO_LABEL)
    labels = labelled.labels(source)
    logits = read_set(classifier, labelled.crops)
    probabilities = softmax(logits, classifier.manifest.calibration.temperature)
    predicted = probabilities.argmax(axis=1)
    confidence = probabilities.max(axis=1)
    write_atomically(
        folder / "report.json", (json.dumps(report.to_dict(), indent=2) + "\n").encode()
    )
    pages = {
        "confusion": figures.confusion({f"{source} labels": report.confusion}),
        "reliability": figures.reliability(
            confidence, predicted == labels, f"calibration error {report.ece:.4f}"
        ),
    }
    # Half of them the surest mistakes, half drawn: what goes wrong, and what it is
    # like on the whole.
    wrong = np.flatnonzero(predicted != labels)
    surest = wrong[np.argsort(-confidence[wrong], kind="stable")][: _SAMPLES // 2]
    drawn = np.random.default_rng(0).permutation(len(labels))[: _SAMPLES // 2]
    for name, chosen in (("mistakes", surest), ("samples", drawn)):
        if len(chosen):
            captions = [
                f"{EMOTIONS[labels[i]]}\n{EMOTIONS[predicted[i]]} {confidence[i]:.2f}"
                for i in chosen
            ]
            pages[name] = figures.face_grid(
                labelled.crops[chosen], f"{name}: is, read as", captions
            )
    for name, figure in pages.items():
        write_atomically(folder / f"{name}.png", figures.to_png(figure))
