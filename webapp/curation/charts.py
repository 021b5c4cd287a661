"""Plots as SVG geometry: the server computes, the template only draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final

WIDTH: Final = 600
HEIGHT: Final = 160
_FLOOR: Final = 136
_CEILING: Final = 22


@dataclass(frozen=True, slots=True)
class Column:
    """One day: where its bar stands in the plot, and what a reader hears."""

    x: float
    y: float
    width: float
    height: float
    title: str


@dataclass(frozen=True, slots=True)
class DayPlot:
    """Bars over days. ``ticks`` are (x, word), ``peak`` the number at the top."""

    columns: tuple[Column, ...]
    ticks: tuple[tuple[float, str], ...]
    peak: int
    peak_y: float
    total: int
    width: int = WIDTH
    height: int = HEIGHT
    floor: int = _FLOOR


def day_plot(days: Sequence[tuple[date, int]]) -> DayPlot:
    """Columns of a count for each day, oldest first."""
    peak = max((count for _, count in days), default=0)
    step = WIDTH / max(len(days), 1)
    reach = _FLOOR - _CEILING
    columns = tuple(
        Column(
            x=round(index * step + step * 0.15, 2),
            y=round(_FLOOR - reach * count / max(peak, 1), 2),
            width=round(step * 0.7, 2),
            height=round(reach * count / max(peak, 1), 2),
            title=f"{day:%d %b}: {count}",
        )
        for index, (day, count) in enumerate(days)
    )
    ticks = tuple(
        (round((index + 0.5) * step, 2), f"{day:%d %b}")
        for index, (day, _) in enumerate(days)
        if index % 7 == 3
    )
    return DayPlot(
        columns, ticks, peak, float(_CEILING), sum(count for _, count in days)
    )


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a bar list: ``percent`` of the longest bar, in [0, 100]."""

    code: str
    word: str
    value: str
    percent: float


def count_rows(counts: dict[str, int], words: dict[str, str]) -> list[Row]:
    """Bars for counts, relative to the largest."""
    most = max(counts.values(), default=0)
    return [
        Row(
            code,
            words.get(code, code),
            str(count),
            round(100 * count / max(most, 1), 1),
        )
        for code, count in counts.items()
    ]


def share_rows(shares: dict[str, float | None], words: dict[str, str]) -> list[Row]:
    """Bars for shares of one; what is unknown is a dash."""
    return [
        Row(
            code,
            words.get(code, code),
            "-" if share is None else f"{100 * share:.0f} %",
            0.0 if share is None else round(100 * share, 1),
        )
        for code, share in shares.items()
    ]
