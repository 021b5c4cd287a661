"""What sets a run going without a person: enough new labels, or the schedule."""

from __future__ import annotations

import logging
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone
from django_celery_beat.models import CrontabSchedule, PeriodicTask

from webapp.accounts.models import Role, User
from webapp.accounts.roles import has_role
from webapp.core.errors import DomainError, NotAllowed
from webapp.core.storage import StorageAway
from webapp.curation.selectors import count_new_labels
from webapp.registry.models import Promotion
from webapp.registry.selectors import get_champion, is_champion
from webapp.training.errors import AlreadyRunning, NothingNew, RunRefused
from webapp.training.models import (
    UNFINISHED,
    GateOutcome,
    Mode,
    RunState,
    TrainingRun,
    Trigger,
)
from webapp.training.services.promotion import promote_version, why_reason_is_needed
from webapp.training.services.runs import request_run

SCHEDULE_NAME: Final = "retrain-on-schedule"
SCHEDULE_TASK: Final = "webapp.training.tasks.train_on_schedule"
EVERY_HOURS: Final = (1, 2, 3, 4, 6, 8, 12, 24)
"""What divides a day: each day is then like the other."""

_MISSED_WITHIN: Final = timedelta(days=1)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a head run starts by itself, in UTC. ``day_of_week`` is 0 (Sunday) to 6,
    or ``*`` for every day. Where ``every_hours`` is less than a day, it starts that
    often, on every day, and ``hour`` is one of the hours."""

    enabled: bool
    hour: int = 3
    minute: int = 0
    day_of_week: str = "*"
    every_hours: int = 24

    @property
    def hours(self) -> list[int]:
        """The hours of a day at which it starts, in [0, 23]."""
        return list(range(self.hour % self.every_hours, 24, self.every_hours))


def last_run_at() -> datetime | None:
    """When a worker took up the latest run (or, until then, when it was asked for),
    however it ended: what was decided by then has had its chance, and does not start a
    run that fails again and again."""
    run = TrainingRun.objects.order_by("-created_at").first()
    return None if run is None else run.started_at or run.created_at


def train_when_enough() -> TrainingRun | None:
    """Start a head run once ``RETRAIN_AFTER_LABELS`` labels are new; None where they
    are not, or a run is under way."""
    if TrainingRun.objects.filter(state__in=UNFINISHED).exists():
        return None
    if count_new_labels() < settings.RETRAIN_AFTER_LABELS:
        return None
    return _request(Trigger.LABELS)


def train_on_schedule() -> TrainingRun | None:
    """Start a head run where anything is new; None, and a line in the log, if not."""
    return _request(Trigger.SCHEDULE)


def get_schedule() -> Schedule:
    """The schedule in force; disabled where none was ever set."""
    row = (
        PeriodicTask.objects.select_related("crontab")
        .filter(name=SCHEDULE_NAME)
        .first()
    )
    if row is None or row.crontab is None:
        return Schedule(enabled=False)
    hours = row.crontab.hour.split(",")
    return Schedule(
        enabled=row.enabled,
        hour=int(hours[0]),
        minute=int(row.crontab.minute),
        day_of_week=row.crontab.day_of_week,
        every_hours=24 // len(hours),
    )


@transaction.atomic
def set_schedule(*, schedule: Schedule, changed_by: User | None) -> None:
    """Put a schedule in force; the beat sees it within seconds.

    Raises ``NotAllowed``, or ``RunRefused`` for a time that is none.
    """
    if changed_by is not None and not has_role(changed_by, Role.ADMIN):
        raise NotAllowed("Only an admin may change the schedule.")
    if not (0 <= schedule.hour <= 23 and 0 <= schedule.minute <= 59):
        raise RunRefused("A time is 00:00 to 23:59.")
    if schedule.day_of_week not in {"*", *(str(day) for day in range(7))}:
        raise RunRefused("A day of the week is 0 (Sunday) to 6, or * for every day.")
    if schedule.every_hours not in EVERY_HOURS:
        raise RunRefused(
            f"A run starts every {', '.join(map(str, EVERY_HOURS[:-1]))} or 24 hours."
        )
    if schedule.every_hours < 24 and schedule.day_of_week != "*":
        raise RunRefused(
            "What starts several times a day starts on every day: leave the day of "
            "the week at *."
        )
    when = {
        "minute": str(schedule.minute),
        "hour": ",".join(map(str, schedule.hours)),
        "day_of_week": schedule.day_of_week,
        "day_of_month": "*",
        "month_of_year": "*",
        "timezone": ZoneInfo("UTC"),
    }
    # Nothing forbids two rows of one time: two tabs at once may each have made one.
    crontab = CrontabSchedule.objects.filter(
        **when
    ).first() or CrontabSchedule.objects.create(**when)
    PeriodicTask.objects.update_or_create(
        name=SCHEDULE_NAME,
        defaults={
            "task": SCHEDULE_TASK,
            "crontab": crontab,
            "interval": None,
            "queue": "default",
            "enabled": schedule.enabled,
            "description": "A head run, where anything is new.",
        },
    )


def after_run(*, run_id: uuid.UUID) -> None:
    """Promote what the gate lets through, where that is switched on
    (``MIEN_AUTO_PROMOTE``)."""
    run = _done_runs().filter(pk=run_id, outcome=GateOutcome.PROMOTE).first()
    if run is None or not settings.AUTO_PROMOTE:
        return
    if why_not := _promote(run):
        logger.warning("run %s is not promoted: %s", run.number, why_not)


def promote_what_was_missed() -> None:
    """``after_run`` for the newest run, where its worker died before it came to that,
    or the store of the files was away.

    A version that was ever promoted is left alone: whoever rolled it back meant it.
    So is one of an earlier day, which was left to an admin.
    """
    run = _done_runs().order_by("-number").first()
    if run is None or not settings.AUTO_PROMOTE:
        return
    if run.ended_at is None or run.ended_at < timezone.now() - _MISSED_WITHIN:
        return
    if Promotion.objects.filter(model_version=run.candidate).exists():
        return
    if why_not := _promote(run):
        # Its worker has warned already, or will.
        logger.info("run %s is still not promoted: %s", run.number, why_not)


def _done_runs() -> QuerySet[TrainingRun]:
    return TrainingRun.objects.select_related("candidate", "parent").filter(
        state=RunState.DONE
    )


def _promote(run: TrainingRun) -> str:
    """Why what a run made may not serve without a person's word, or cannot; empty
    where it serves, whoever saw to that."""
    assert run.candidate is not None  # The database says so of what is done.
    champion = get_champion()
    if champion == run.candidate:
        return ""
    if why := why_reason_is_needed(run.candidate, run, champion):
        return why
    try:
        promote_version(
            model_version=run.candidate,
            promoted_by=None,
            reason=f"Automatic: the gate said promote (run {run.number}).",
            expected_champion=run.parent,
        )
    except (DomainError, StorageAway) as error:
        return "" if is_champion(run.candidate) else str(error)
    return ""


def _request(trigger: Trigger) -> TrainingRun | None:
    try:
        return request_run(mode=Mode.HEAD, requested_by=None, trigger=trigger)
    except (NothingNew, AlreadyRunning, RunRefused) as error:
        logger.info("no run (%s): %s", trigger, error)
        return None
