"""Faces drawn by code: four expressions that a network can learn to tell apart.

No picture of a person is needed to test training, and none is used.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from ml.consensus import NO_LABEL, VOTE_COLUMNS
from ml.data import SPLITS, FaceSet, LabelSource, make_targets
from ml.labels import EMOTIONS, Emotion

UInt8Array = npt.NDArray[np.uint8]

_SCALE = 4


def draw_face(
    emotion: Emotion, generator: np.random.Generator, size_px: int = 48
) -> Image.Image:
    """A grey cartoon face that fills its square, a little different each time."""
    side = size_px * _SCALE
    unit = side / 48

    def jitter(amount: float) -> float:
        return float(generator.uniform(-amount, amount))

    ground, skin = int(generator.integers(20, 110)), int(generator.integers(140, 230))
    picture = Image.new("L", (side, side), ground)
    pen = ImageDraw.Draw(picture)
    cx, cy = (24 + jitter(1.5)) * unit, (24 + jitter(1.5)) * unit
    rx, ry = (17 + jitter(1.5)) * unit, (21 + jitter(1.5)) * unit
    pen.ellipse((cx - rx, cy - ry, cx + rx, cy + ry), fill=skin)
    dark = max(skin - 120, 0)
    line = max(1, round(1.6 * unit))
    surprised = emotion is Emotion.SURPRISE
    lift = 3.5 if surprised else (-0.5 if emotion is Emotion.SAD else 0.5)
    open_eye = 3.0 if surprised else 1.8
    for side_sign in (-1, 1):
        ex, ey = cx + side_sign * 7 * unit, cy - 4 * unit
        pen.ellipse(
            (ex - 2.5 * unit, ey - open_eye * unit, ex + 2.5 * unit, ey + 1.8 * unit),
            fill=dark,
        )
        inner = 3.0 if emotion is Emotion.SAD else 0.0
        brow = ey - (5 + lift) * unit
        pen.line(
            (
                ex - side_sign * 3 * unit,
                brow - inner * unit,
                ex + side_sign * 3 * unit,
                brow,
            ),
            fill=dark,
            width=line,
        )
    pen.line((cx, cy - 2 * unit, cx, cy + 4 * unit), fill=dark, width=line)
    mx, my = cx, cy + 10 * unit
    if emotion is Emotion.HAPPY:
        box = (mx - 8 * unit, my - 8 * unit, mx + 8 * unit, my + 4 * unit)
        pen.chord(box, 20, 160, fill=dark)
    elif emotion is Emotion.SAD:
        box = (mx - 7 * unit, my, mx + 7 * unit, my + 10 * unit)
        pen.arc(box, 200, 340, fill=dark, width=line)
    elif surprised:
        pen.ellipse(
            (mx - 4 * unit, my - 4 * unit, mx + 4 * unit, my + 7 * unit), fill=dark
        )
    else:
        pen.line((mx - 7 * unit, my, mx + 7 * unit, my), fill=dark, width=line)
    small = picture.resize((size_px, size_px), Image.Resampling.BOX)
    grain = generator.normal(0, 3, (size_px, size_px))
    pixels = np.clip(np.asarray(small, np.float64) + grain, 0, 255)
    return Image.fromarray(pixels.astype(np.uint8))


def draw_set(
    per_emotion: int,
    seed: int = 0,
    *,
    channels: int = 1,
    votes: bool = False,
    source: LabelSource = "consensus",
) -> FaceSet:
    """A set in memory; with votes, eight of ten are for the emotion drawn."""
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(EMOTIONS)), per_emotion).astype(np.int64)
    crops = np.stack(
        [
            np.asarray(draw_face(EMOTIONS[label], generator))[:, :, None]
            for label in labels
        ]
    )
    ballots = None
    if votes:
        ballots = np.zeros((len(labels), len(VOTE_COLUMNS)), np.int64)
        ballots[np.arange(len(labels)), labels] = 8
        ballots[:, VOTE_COLUMNS.index("unknown")] = 1
        ballots[:, VOTE_COLUMNS.index("anger")] = 1
    return FaceSet(
        files=tuple(f"{seed}/{i}.png" for i in range(len(labels))),
        crops=np.repeat(crops, channels, axis=3),
        folder_labels=labels,
        targets=make_targets(labels, ballots, source),
        weights=np.ones(len(labels), np.float32),
        votes=ballots,
    )


def write_dataset(
    folder: Path, per_emotion: int | Mapping[str, int] = 3, seed: int = 0
) -> Path:
    """A folder with train, validation and test, of drawn faces; returns it."""
    generator = np.random.default_rng(seed)
    for split in SPLITS:
        count = per_emotion if isinstance(per_emotion, int) else per_emotion[split]
        for emotion in EMOTIONS:
            place = folder / split / emotion.value
            place.mkdir(parents=True)
            for number in range(count):
                draw_face(emotion, generator).save(place / f"{number:03}.png")
    return folder


def write_annotations(
    folder: Path, votes_by_file: Mapping[str, tuple[int, ...]]
) -> None:
    """``annotations.csv`` in ``folder``; votes in ``VOTE_COLUMNS`` order."""
    with (folder / "annotations.csv").open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["file", *(f"votes_{word}" for word in VOTE_COLUMNS)])
        for file, votes in votes_by_file.items():
            writer.writerow([file, *votes])


def ballots_for(label: int, share: int = 8) -> tuple[int, ...]:
    """Ten votes, ``share`` of them for one of ``VOTE_COLUMNS``; the rest unknown."""
    votes = [0] * len(VOTE_COLUMNS)
    if label != NO_LABEL:
        votes[label] = share
    votes[VOTE_COLUMNS.index("unknown")] += 10 - sum(votes)
    return tuple(votes)
