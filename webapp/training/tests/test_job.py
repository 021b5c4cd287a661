"""A worker's hold on a run, as two processes see it."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
from django.utils import timezone

from webapp.training.models import RunState, TrainingRun
from webapp.training.services import job, runs
from webapp.training.services.job import Stopped, keep_lease
from webapp.training.tests.factories import Labeller

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def run(labeller: Labeller, monkeypatch: pytest.MonkeyPatch) -> TrainingRun:
    monkeypatch.setattr(job, "RENEW_EVERY_SECONDS", 0.05)
    labeller.faces(1)
    asked = runs.request_run(mode="head", requested_by=None)
    claimed = runs.claim_run(run_id=asked.pk)
    assert claimed is not None
    return claimed


def stopped(held: job.Job) -> bool:
    """Within a minute."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            held.check()
        except Stopped:
            return True
        time.sleep(0.02)
    return False


def test_lease_is_renewed_while_work_goes_on(run: TrainingRun) -> None:
    soon = timezone.now() + timedelta(seconds=0.5)
    TrainingRun.objects.filter(pk=run.pk).update(lease_expires_at=soon)

    with keep_lease(run) as held:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            row = TrainingRun.objects.get(pk=run.pk)
            assert row.lease_expires_at is not None
            if row.lease_expires_at > soon:
                break
            time.sleep(0.02)
        held.step("Counting", 1, 2)

    row.refresh_from_db()
    assert row.lease_expires_at > soon
    assert (row.stage, row.progress_done, row.progress_total) == ("Counting", 1, 2)


def test_worker_hears_that_its_run_is_cancelled(run: TrainingRun) -> None:
    with keep_lease(run) as held:
        held.check()
        runs.cancel_run(run=run, cancelled_by=None)
        assert stopped(held)


def test_worker_hears_that_its_run_was_given_to_another(run: TrainingRun) -> None:
    with keep_lease(run) as held:
        TrainingRun.objects.filter(pk=run.pk).update(
            state=RunState.QUEUED, lease_token=None, lease_expires_at=None
        )
        assert stopped(held)
        with pytest.raises(Stopped):
            held.keep_curves([])
