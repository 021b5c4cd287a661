"""Figures as PNG bytes. Matplotlib without a display, and without its global state."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ml.evaluate import CALIBRATION_BINS, calibration_bins
from ml.labels import EMOTIONS

COLOURS: Final = ("#d98c00", "#3568b8", "#b0357e", "#6b7280")
"""One an emotion; told apart in grey, too."""


def to_png(figure: Figure, dpi: int = 110) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(
        buffer, format="png", dpi=dpi, bbox_inches="tight", metadata={"Software": None}
    )
    return buffer.getvalue()


def curves(histories: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Training and validation curves of runs, by name."""
    figure = Figure(figsize=(11, 3.6))
    panels = figure.subplots(1, 3)
    for name, rows in histories.items():
        epochs = [row["epoch"] for row in rows]
        for panel, key in zip(
            panels,
            ("train_loss", "validation_loss", "validation_accuracy"),
            strict=True,
        ):
            panel.plot(epochs, [row[key] for row in rows], label=name)
            panel.set_title(key.replace("_", " "))
            panel.set_xlabel("epoch")
            panel.grid(alpha=0.3)
    panels[-1].legend(fontsize=8)
    figure.tight_layout()
    return figure


def confusion(matrices: Mapping[str, Sequence[Sequence[int]]]) -> Figure:
    """Confusion matrices by title: rows are the truth; colours are shares of a row."""
    columns = min(len(matrices), 4)
    rows = math.ceil(len(matrices) / columns)
    figure = Figure(figsize=(0.6 + 3.8 * columns, 4.0 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for title, matrix in matrices.items():
        _draw_matrix(next(panels), np.asarray(matrix), title)
    for empty in panels:
        empty.set_axis_off()
    return figure


def _draw_matrix(axes: Axes, counts: npt.NDArray[np.int64], title: str) -> None:
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    names = [emotion.value for emotion in EMOTIONS]
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("read as")
    axes.set_ylabel("is")
    axes.set_title(title)
    for i in range(len(names)):
        for j in range(len(names)):
            colour = "white" if shares[i, j] > 0.5 else "black"
            axes.text(
                j,
                i,
                f"{counts[i, j]}\n{shares[i, j]:.1%}",
                ha="center",
                va="center",
                color=colour,
                fontsize=8,
            )


def reliability(
    confidence: npt.NDArray[np.floating], correct: npt.NDArray[np.bool_], title: str
) -> Figure:
    """Accuracy over confidence, and how many faces lie where."""
    bins = calibration_bins(confidence)
    counts = np.bincount(bins, minlength=CALIBRATION_BINS)
    hits = np.bincount(bins, correct, CALIBRATION_BINS)
    filled = counts > 0
    middles = (np.arange(CALIBRATION_BINS) + 0.5) / CALIBRATION_BINS
    figure = Figure(figsize=(4.4, 4.6))
    upper, lower = figure.subplots(2, 1, height_ratios=[3, 1], sharex=True)
    upper.plot([0, 1], [0, 1], color="grey", linewidth=1)
    upper.bar(
        middles[filled],
        hits[filled] / counts[filled],
        width=0.9 / CALIBRATION_BINS,
        color=COLOURS[1],
    )
    upper.set_ylabel("accuracy")
    upper.set_title(title)
    lower.bar(middles, counts, width=0.9 / CALIBRATION_BINS, color=COLOURS[3])
    lower.set_xlabel("confidence")
    lower.set_ylabel("faces")
    return figure


def bars(
    values: Mapping[str, tuple[float, tuple[float, float] | None]],
    title: str,
    label: str,
) -> Figure:
    """Horizontal bars with intervals: name -> (value, (low, high))."""
    names = list(values)
    figure = Figure(figsize=(7, 0.42 * len(names) + 1.2))
    axes = figure.subplots()
    heights = [values[name][0] for name in names]
    axes.barh(range(len(names)), heights, color=COLOURS[1])
    for row, name in enumerate(names):
        interval = values[name][1]
        if interval is not None:
            axes.plot(interval, (row, row), color="black", linewidth=1.5)
        axes.text(0.005, row, f"{heights[row]:.3f}", va="center", color="white")
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel(label)
    axes.set_title(title)
    axes.grid(axis="x", alpha=0.3)
    return figure


def counts(by_split: Mapping[str, Mapping[str, int]]) -> Figure:
    """Faces a class, a group of bars a split."""
    figure = Figure(figsize=(7, 3.4))
    axes = figure.subplots()
    splits = list(by_split)
    width = 0.8 / max(len(EMOTIONS), 1)
    for k, emotion in enumerate(EMOTIONS):
        heights = [by_split[split].get(emotion.value, 0) for split in splits]
        places = np.arange(len(splits)) + (k - 1.5) * width
        axes.bar(places, heights, width, label=emotion.value, color=COLOURS[k])
    axes.set_xticks(range(len(splits)), splits)
    axes.set_ylabel("pictures")
    axes.legend(fontsize=8)
    axes.set_title("Pictures by split and class")
    return figure


def histograms(
    values: Mapping[str, npt.NDArray[np.floating]], title: str, label: str
) -> Figure:
    """One line a class that has any."""
    figure = Figure(figsize=(6, 3.2))
    axes = figure.subplots()
    for k, (name, row) in enumerate(values.items()):
        if not len(row):
            continue
        axes.hist(
            row,
            bins=40,
            histtype="step",
            density=True,
            label=name,
            color=COLOURS[k % len(COLOURS)],
        )
    axes.set_xlabel(label)
    axes.set_ylabel("density")
    axes.set_title(title)
    axes.legend(fontsize=8)
    return figure


def face_grid(
    crops: npt.NDArray[np.uint8],
    title: str,
    captions: Sequence[str] = (),
    columns: int = 8,
) -> Figure:
    """Pictures of faces, for the eyes of the person whose data they are."""
    rows = max(1, -(-len(crops) // columns))
    figure = Figure(figsize=(columns * 1.1, rows * (1.35 if captions else 1.1) + 0.4))
    panels = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    for number, panel in enumerate(panels):
        panel.axis("off")
        if number < len(crops):
            _show(panel, crops[number])
            if captions:
                panel.set_title(captions[number], fontsize=6)
    figure.suptitle(title)
    return figure


def _show(panel: Axes, crop: npt.NDArray[np.uint8]) -> None:
    if crop.shape[-1] == 1:
        panel.imshow(crop[:, :, 0], cmap="gray", vmin=0, vmax=255)
    else:
        panel.imshow(crop)
