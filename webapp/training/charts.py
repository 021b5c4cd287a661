"""Curves, matrices and days as SVG geometry: the server computes, the template only
draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from ml.labels import EMOTIONS
from webapp.photos.selectors import EMOTION_WORDS
from webapp.training.models import DriftReading

WIDTH: Final = 600
HEIGHT: Final = 220
_LEFT: Final = 56
_RIGHT: Final = 12
_CEILING: Final = 16
_FLOOR: Final = 188
_MOST_TICKS: Final = 6

_MOST_DOTS: Final = 40


@dataclass(frozen=True, slots=True)
class Dot:
    x: float
    y: float
    title: str


@dataclass(frozen=True, slots=True)
class Line:
    """One curve: ``d`` is its path, ``number`` (from 1) its colour and dash."""

    name: str
    number: int
    d: str
    dots: tuple[Dot, ...]
    last: str


@dataclass(frozen=True, slots=True)
class LinePlot:
    """Curves over steps; ``words`` says it to who does not see it. ``levels`` are
    (y, word) of the lines across, ``ticks`` (x, word) below."""

    words: str
    lines: tuple[Line, ...]
    levels: tuple[tuple[float, str], ...]
    ticks: tuple[tuple[float, str], ...]
    threshold_y: float | None = None
    width: int = WIDTH
    height: int = HEIGHT
    left: int = _LEFT
    floor: int = _FLOOR


def line_plot(
    series: Sequence[tuple[str, Sequence[float | None]]],
    *,
    steps: Sequence[str],
    what: str,
    form: str = "{:.3f}",
    bounds: tuple[float, float] | None = None,
    threshold: float | None = None,
) -> LinePlot | None:
    """Curves with one value a step; None where there is no value at all.

    ``bounds`` widen what is shown; ``threshold`` is drawn as a line of its own.
    """
    values = [v for _, points in series for v in points if v is not None]
    if not values:
        return None
    shown = [*values, *([threshold] if threshold is not None else []), *(bounds or ())]
    low, high = min(shown), max(shown)
    if high - low < 1e-9:
        # One value, or always the same: in the middle of a narrow band.
        room = max(abs(low) * 0.02, 1e-3)
        low, high = low - room, high + room

    def y(value: float) -> float:
        share = (value - low) / (high - low)
        return round(float(_FLOOR - share * (_FLOOR - _CEILING)), 2)

    reach = WIDTH - _LEFT - _RIGHT
    gaps = max(len(steps) - 1, 1)

    def x(index: int) -> float:
        middle = reach / 2 if len(steps) == 1 else reach * index / gaps
        return round(_LEFT + middle, 2)

    lines = []
    for number, (name, points) in enumerate(series, start=1):
        at = [(i, v) for i, v in enumerate(points) if v is not None]
        if not at:
            continue
        path = "M" + "L".join(f"{x(i)} {y(v)}" for i, v in at)
        dots = at if len(at) <= _MOST_DOTS else at[-1:]
        lines.append(
            Line(
                name,
                number,
                path,
                tuple(
                    Dot(x(i), y(v), f"{name}, {steps[i]}: {form.format(v)}")
                    for i, v in dots
                ),
                form.format(at[-1][1]),
            )
        )
    every = -(-len(steps) // _MOST_TICKS)
    ticks = tuple(
        (x(i), step) for i, step in enumerate(steps) if i % every == 0 or not i
    )
    middle = (low + high) / 2
    return LinePlot(
        words=f"{what}: "
        + "; ".join(f"{line.name} {line.last} at last" for line in lines),
        lines=tuple(lines),
        levels=tuple((y(v), form.format(v)) for v in (low, middle, high)),
        ticks=ticks,
        threshold_y=None if threshold is None else y(threshold),
    )


def run_plots(curves: Sequence[dict[str, Any]]) -> list[tuple[str, LinePlot]]:
    """(title, plot) of a run's curves; empty for a run that has none."""
    steps = [f"epoch {record['epoch']}" for record in curves]
    loss = line_plot(
        [
            ("Training", _column(curves, "train_loss")),
            ("Validation", _column(curves, "validation_loss")),
        ],
        steps=steps,
        what="Loss by epoch",
    )
    right = line_plot(
        [
            ("Accuracy", _column(curves, "validation_accuracy")),
            ("Macro F1", _column(curves, "validation_macro_f1")),
        ],
        steps=steps,
        what="On validation, by epoch",
        form="{:.1%}",
    )
    found = [("Loss", loss), ("On validation", right)]
    return [(title, plot) for title, plot in found if plot is not None]


def drift_plots(
    readings: Sequence[DriftReading],
) -> list[tuple[dict[str, Any], LinePlot]]:
    """(latest measure, its plot over days) of each thing that may shift; ``readings``
    oldest first."""
    days = [f"{reading.day:%d %b}" for reading in readings]
    names = list(
        dict.fromkeys(m["name"] for reading in readings for m in reading.measures)
    )
    plots = []
    for name in names:
        rows = [
            next((m for m in reading.measures if m["name"] == name), None)
            for reading in readings
        ]
        latest = next(row for row in reversed(rows) if row)
        plot = line_plot(
            [("Shift", [row["value"] if row else None for row in rows])],
            steps=days,
            what=latest["words"],
            form="{:.2f}",
            bounds=(0.0, 0.0),
            threshold=latest["warn_above"],
        )
        assert plot is not None  # The latest row has a value.
        plots.append((latest, plot))
    return plots


@dataclass(frozen=True, slots=True)
class Cell:
    """One field of a matrix. ``shade`` is 0 to 5, by its share of the row."""

    count: int
    shade: int
    is_right: bool
    words: str


@dataclass(frozen=True, slots=True)
class MatrixRow:
    code: str
    word: str
    cells: tuple[Cell, ...]


def matrix_rows(confusion: Sequence[Sequence[int]]) -> list[MatrixRow]:
    """Rows are the truth, columns what was read."""
    words = [EMOTION_WORDS[emotion.value] for emotion in EMOTIONS]
    rows = []
    for i, counts in enumerate(confusion):
        total = max(sum(counts), 1)
        cells = tuple(
            Cell(
                count,
                round(5 * count / total),
                i == j,
                f"{count} {words[i].lower()} faces read as {words[j].lower()}",
            )
            for j, count in enumerate(counts)
        )
        rows.append(MatrixRow(EMOTIONS[i].value, words[i], cells))
    return rows


def _column(curves: Sequence[dict[str, Any]], name: str) -> list[float | None]:
    return [record.get(name) for record in curves]
