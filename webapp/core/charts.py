"""Plots as SVG geometry: the server computes, the template only draws."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final, TypeVar

WIDTH: Final = 600
HEIGHT: Final = 160
_FLOOR: Final = 136
_CEILING: Final = 22

Moment = TypeVar("Moment", bound=date)


@dataclass(frozen=True, slots=True)
class Bar:
    """Where it stands in the plot, and what a reader hears."""

    x: float
    y: float
    width: float
    height: float
    title: str


@dataclass(frozen=True, slots=True)
class BarPlot:
    """Bars over time; ``words`` says it all to who does not see it. ``ticks`` are
    (x, word), ``peak`` what stands at the top."""

    words: str
    bars: tuple[Bar, ...]
    ticks: tuple[tuple[float, str], ...]
    peak: str
    peak_y: float = float(_CEILING)
    width: int = WIDTH
    height: int = HEIGHT
    floor: int = _FLOOR


def bar_plot(
    values: Sequence[tuple[Moment, float]],
    *,
    words: str,
    form: str,
    tick_form: str,
    ticked: Callable[[int, Moment], bool],
    unit: str = "",
) -> BarPlot:
    """One bar a moment, oldest first. ``words`` names ``{number}`` of bars and the
    ``{peak}``; ``form`` is how a bar's moment is written, ``tick_form`` how it
    is below those bars that are ``ticked``."""
    highest = max((value for _, value in values), default=0.0)
    step = WIDTH / max(len(values), 1)
    tall = [
        (_FLOOR - _CEILING) * value / highest if highest else 0.0 for _, value in values
    ]
    peak = f"{highest:g}{unit}"
    return BarPlot(
        words.format(number=len(values), peak=peak),
        tuple(
            Bar(
                x=round(index * step + step * 0.15, 2),
                y=round(_FLOOR - tall[index], 2),
                width=round(step * 0.7, 2),
                height=round(tall[index], 2),
                title=f"{moment.strftime(form)}: {value:g}{unit}",
            )
            for index, (moment, value) in enumerate(values)
        ),
        tuple(
            (round((index + 0.5) * step, 2), moment.strftime(tick_form))
            for index, (moment, _) in enumerate(values)
            if ticked(index, moment)
        ),
        peak,
    )
