"""What workers do for training. Every task may run twice and be killed anywhere."""

from __future__ import annotations

import uuid

from celery import shared_task

from webapp.training.services import drift, readings, runs, snapshots, triggers

_DAY_SECONDS = 24 * 3600


# Acknowledged early: a run lives by its lease, and its message may be lost.
@shared_task(
    acks_late=False, soft_time_limit=7 * _DAY_SECONDS, time_limit=8 * _DAY_SECONDS
)
def run_training(run_id: str) -> None:
    run = runs.claim_run(run_id=uuid.UUID(run_id))
    if run is not None:
        runs.run_claimed(run=run)
        triggers.after_run(run_id=run.pk)


@shared_task
def sweep_runs() -> None:
    runs.sweep_runs()


@shared_task
def promote_what_was_missed() -> None:
    triggers.promote_what_was_missed()


@shared_task
def mark_gone_faces() -> None:
    snapshots.mark_gone_faces()


@shared_task
def train_when_enough() -> None:
    triggers.train_when_enough()


@shared_task
def train_on_schedule() -> None:
    triggers.train_on_schedule()


@shared_task
def read_again() -> None:
    readings.read_shadows()
    readings.read_again()


@shared_task
def measure_drift() -> None:
    drift.measure_drift()
