"""Plots over days, and lists of bars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from webapp.core.charts import BarPlot, bar_plot


def day_plot(days: Sequence[tuple[date, int]]) -> BarPlot:
    """Bars of how many labels each day brought, oldest first."""
    total = sum(count for _, count in days)
    noun = "label" if total == 1 else "labels"
    return bar_plot(
        days,
        words=f"{total} {noun} in {{number}} days, at most {{peak}} a day",
        form="%d %b",
        tick_form="%d %b",
        ticked=lambda index, _: index % 7 == 3,
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
