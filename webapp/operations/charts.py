"""Plots over hours."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from webapp.core.charts import BarPlot, bar_plot


def hour_plot(
    values: Sequence[tuple[datetime, float]], *, what: str, unit: str = ""
) -> BarPlot:
    """Bars of a value for each hour, oldest first."""
    return bar_plot(
        values,
        words=f"{what}, {{number}} hours, at most {{peak}}",
        form="%d %b %H:00",
        tick_form="%H:00",
        ticked=lambda _, hour: hour.hour % 6 == 0,
        unit=unit,
    )
