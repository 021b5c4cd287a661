"""What an evaluation leaves in a folder: the figures and the numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ml import figures
from ml.data import FaceSet
from ml.evaluate import EvalReport
from ml.labels import EMOTIONS
from ml.manifest import write_atomically

IntArray = npt.NDArray[np.int64]
Float64Array = npt.NDArray[np.float64]

_SAMPLES: Final = 32


def write_report(
    folder: Path,
    labelled: FaceSet,
    labels: IntArray,
    probabilities: Float64Array,
    report: EvalReport,
    answer: dict[str, Any],
) -> None:
    """``report.json``, which holds ``answer``, confusion, reliability, and sample
    predictions.

    Of the N faces that were judged: ``labels`` (N,) and ``probabilities`` (N, 4).
    The samples show the user's pictures: they stay in the user's folder.
    """
    predicted = probabilities.argmax(axis=1)
    confidence = probabilities.max(axis=1)
    write_atomically(
        folder / "report.json", (json.dumps(answer, indent=2) + "\n").encode()
    )
    pages = {
        "confusion": figures.confusion(
            {f"{answer['labels']} labels": report.confusion}
        ),
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
