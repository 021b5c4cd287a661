"""Progress bars on the terminal, as the callbacks that the rooms take."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from ml.data import Progress as Report

console = Console(stderr=True, markup=False, emoji=False)
"""What people are told on the way; answers go to standard output. Brackets in names of
files are no markup, and words between colons no pictures."""


@contextmanager
def progress_bars() -> Iterator[Report]:
    """A bar each time that something starts; on the error stream."""
    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )

    def start(title: str, total: int) -> Callable[[], None]:
        task = bars.add_task(title, total=total)
        return lambda: bars.advance(task)

    with bars:
        yield start
