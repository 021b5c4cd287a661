"""What an admin does on a page or by the API, with what the record keeps of it."""

from __future__ import annotations

from typing import Any, Final

from django.db import transaction

from webapp.accounts import audit
from webapp.accounts.models import User
from webapp.registry.models import ModelVersion
from webapp.training.errors import NothingNew
from webapp.training.models import RunLine, TrainingRun, Trigger
from webapp.training.services.lineage import versions_with_gone_faces
from webapp.training.services.runs import request_run
from webapp.training.services.triggers import Schedule, set_schedule

MAX_REASON_LENGTH: Final = 300


@transaction.atomic
def start_run(
    *,
    person: User,
    mode: str,
    reason: str = "",
    seed: int = 0,
    config: dict[str, Any] | None = None,
    trigger: Trigger = Trigger.HAND,
) -> TrainingRun:
    """Ask for a run; who asked and why is the first line of its log. Raises what
    ``request_run`` does."""
    run = request_run(
        mode=mode, requested_by=person, trigger=trigger, seed=seed, config=config
    )
    why = " ".join(reason.split())[:MAX_REASON_LENGTH]
    RunLine.objects.create(
        run=run, text=f"{person.username} asked for it" + (f": {why}" if why else ".")
    )
    audit.record(
        actor=person,
        action="started a training run",
        subject=f"run {run.number}",
        mode=mode,
        reason=why,
    )
    return run


def retrain_without(*, person: User, model_version: ModelVersion) -> TrainingRun:
    """A run of the same kind as the one that made a version, without the faces that
    may not be used any more. Raises ``NothingNew`` where it learned from none, and
    what ``request_run`` does."""
    gone = versions_with_gone_faces().get(model_version.pk, 0)
    if not gone:
        raise NothingNew(
            f"Version {model_version.version} learned from no face that was erased or "
            "withdrawn: there is nothing to forget."
        )
    made_by = TrainingRun.objects.get(candidate=model_version)
    return start_run(
        person=person,
        mode=made_by.mode,
        seed=made_by.seed,
        config=made_by.config,
        reason=f"{model_version.version} learned from {gone} faces that may not be "
        "used any more.",
        trigger=Trigger.ERASURE,
    )


@transaction.atomic
def change_schedule(*, person: User, schedule: Schedule) -> None:
    """Put a schedule in force. Raises what ``set_schedule`` does."""
    set_schedule(schedule=schedule, changed_by=person)
    audit.record(
        actor=person,
        action="changed the training schedule",
        subject="on" if schedule.enabled else "off",
        time=f"{schedule.hour:02}:{schedule.minute:02}",
        day_of_week=schedule.day_of_week,
        every_hours=schedule.every_hours,
    )
