"""Plots over hours as SVG geometry: the server computes, the template only draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

WIDTH: Final = 600
HEIGHT: Final = 160
_FLOOR: Final = 136
_CEILING: Final = 22


@dataclass(frozen=True, slots=True)
class HourBar:
    """One hour's bar and what a reader hears."""

    x: float
    y: float
    width: float
    height: float
    title: str


@dataclass(frozen=True, slots=True)
class HourPlot:
    """Bars over hours; ``words`` says it all to who does not see it. ``ticks`` are
    (x, word), ``peak`` what stands at the top."""

    words: str
    bars: tuple[HourBar, ...]
    ticks: tuple[tuple[float, str], ...]
    peak: str
    peak_y: float = float(_CEILING)
    width: int = WIDTH
    height: int = HEIGHT
    floor: int = _FLOOR


def hour_plot(
    values: Sequence[tuple[datetime, float]], *, what: str, unit: str = ""
) -> HourPlot:
    """Bars of a value for each hour, oldest first."""
    highest = max((value for _, value in values), default=0.0)
    step = WIDTH / max(len(values), 1)
    reach = _FLOOR - _CEILING
    bars = tuple(
        HourBar(
            x=round(index * step + step * 0.15, 2),
            y=round(_FLOOR - reach * value / max(highest, 1e-9), 2),
            width=round(step * 0.7, 2),
            height=round(reach * value / max(highest, 1e-9), 2),
            title=f"{hour:%d %b %H:00}: {value:g}{unit}",
        )
        for index, (hour, value) in enumerate(values)
    )
    ticks = tuple(
        (round((index + 0.5) * step, 2), f"{hour:%H:00}")
        for index, (hour, _) in enumerate(values)
        if hour.hour % 6 == 0
    )
    peak = f"{highest:g}{unit}"
    return HourPlot(f"{what}, {len(values)} hours, at most {peak}", bars, ticks, peak)
