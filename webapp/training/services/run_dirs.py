"""Where a full run keeps its checkpoint, on the host that trains."""

from __future__ import annotations

import shutil
from pathlib import Path

from django.conf import settings

from webapp.training.models import TrainingRun


def run_dir(run: TrainingRun) -> Path:
    """The run's own; it may not be there yet."""
    return Path(settings.MIEN_HOME) / "training" / str(run.pk)


def remove_run_dir(run: TrainingRun) -> None:
    shutil.rmtree(run_dir(run), ignore_errors=True)


def remove_leftovers(run: TrainingRun) -> None:
    """Checkpoints of runs that ended on another host: only one runs at a time."""
    for path in run_dir(run).parent.glob("*"):
        if path != run_dir(run):
            shutil.rmtree(path, ignore_errors=True)
