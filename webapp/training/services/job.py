"""A run while a worker has it: its lease, its log, and whether it should stop."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from django.db import Error as DatabaseError
from django.db import connection
from django.db.models import QuerySet
from django.db.models.expressions import CombinedExpression

from webapp.core.clock import in_seconds
from webapp.training.models import RunLine, RunState, TrainingRun

if TYPE_CHECKING:
    from ml.train_config import EpochRecord

LEASE_SECONDS: Final = 8.0
"""Longer than any pause of a worker that is alive; a killed one's run waits as long."""

RENEW_EVERY_SECONDS: Final = 2.0
_MAX_LINE: Final = 500

logger = logging.getLogger(__name__)


class Stopped(Exception):
    """The run was cancelled, or this worker has lost it: write nothing more."""


@dataclass(slots=True)
class Job:
    """The one worker's hold on a run. Every write is conditional on the lease."""

    run: TrainingRun
    token: uuid.UUID
    _stop: threading.Event

    @property
    def mine(self) -> QuerySet[TrainingRun]:
        """The row, for as long as it is this worker's."""
        return TrainingRun.objects.filter(
            pk=self.run.pk, state=RunState.RUNNING, lease_token=self.token
        )

    def check(self) -> None:
        """Raises ``Stopped`` where the run is not wanted, or not ours, any more."""
        if self._stop.is_set():
            raise Stopped

    def step(self, stage: str, done: int = 0, total: int = 0) -> None:
        """Say what is done now. Raises ``Stopped``."""
        self.check()
        self._write(stage=stage, progress_done=done, progress_total=total)

    def say(self, text: str) -> None:
        """A line for the log that people read. What a run said before it was put off
        is not said again at each new try."""
        logger.info("run %s: %s", self.run.number, text)
        line = text[:_MAX_LINE]
        if self.run.put_off_since and self.run.lines.filter(text=line).exists():
            return
        RunLine.objects.create(run=self.run, text=line)

    def drop_curves(self) -> None:
        """Those of a checkpoint that was thrown away. Raises ``Stopped``."""
        self._write(curves=[])

    def keep_curves(self, history: Sequence[EpochRecord]) -> None:
        """A checkpoint was written: the curves so far. The count of attempts starts
        anew, for the run is getting on."""
        self._write(
            curves=[asdict(record) for record in history],
            attempts=1,
            put_off_since=None,
        )

    def _write(self, **fields: Any) -> None:
        if not self.mine.update(**fields):
            raise Stopped


@contextmanager
def keep_lease(run: TrainingRun) -> Iterator[Job]:
    """Renew the lease while the block runs, and hear whether it should end."""
    assert run.lease_token is not None
    ended, stop = threading.Event(), threading.Event()
    job = Job(run, run.lease_token, stop)

    def renew() -> None:
        try:
            while not ended.wait(RENEW_EVERY_SECONDS):
                try:
                    kept = job.mine.filter(cancel_requested_at__isnull=True).update(
                        lease_expires_at=lease_end()
                    )
                except DatabaseError as error:
                    logger.warning("run %s: lease not renewed: %s", run.number, error)
                    continue
                if not kept:
                    stop.set()
                    return
        finally:
            connection.close()

    thread = threading.Thread(target=renew, name=f"lease-{run.pk}", daemon=True)
    thread.start()
    try:
        yield job
    finally:
        ended.set()


def lease_end() -> CombinedExpression:
    """Of a lease that begins or is renewed now, by the database's clock."""
    return in_seconds(LEASE_SECONDS)
