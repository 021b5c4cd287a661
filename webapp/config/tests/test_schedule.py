from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone
from django_celery_beat.models import PeriodicTask

from webapp.config.celery import app
from webapp.config.schedule import QuickScheduler


@pytest.mark.django_db(transaction=True)
def test_sweep_is_due_as_soon_as_the_beat_is_up_and_slow_tasks_are_not() -> None:
    # The second one finds the rows of the first, as after a SIGKILL.
    for _ in range(2):
        scheduler = QuickScheduler(app)
        assert scheduler.schedule["sweep-photos"].is_due().is_due
        assert not scheduler.schedule["measure-drift"].is_due().is_due


@pytest.mark.django_db(transaction=True)
def test_what_an_admin_has_stopped_stays_stopped() -> None:
    QuickScheduler(app)
    PeriodicTask.objects.filter(name="sweep-photos").update(enabled=False)
    assert "sweep-photos" not in QuickScheduler(app).schedule


@pytest.mark.django_db(transaction=True)
def test_a_clock_that_was_set_back_stops_no_erasure() -> None:
    QuickScheduler(app)
    row = PeriodicTask.objects.filter(name="erase-expired-photos")
    row.update(last_run_at=timezone.now() + timedelta(hours=1))

    entry = QuickScheduler(app).schedule["erase-expired-photos"]

    assert entry.is_due().next <= 60
