"""When runs start by themselves."""

from __future__ import annotations

from typing import Final

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import (
    require_http_methods,
)

from webapp.core.errors import DomainError
from webapp.core.responses import see_other
from webapp.training import selectors_pages as pages
from webapp.training.services import acts
from webapp.training.services.triggers import EVERY_HOURS, Schedule
from webapp.training.views.common import (
    admins_only,
    person_of,
    training_page,
)

_HOURS_SUFFIX: Final = "h"
HOW_OFTEN: Final = [
    ("*", "every day"),
    ("1", "Mondays"),
    ("2", "Tuesdays"),
    ("3", "Wednesdays"),
    ("4", "Thursdays"),
    ("5", "Fridays"),
    ("6", "Saturdays"),
    ("0", "Sundays"),
    *(
        (f"{hours}{_HOURS_SUFFIX}", f"every {hours} hours" if hours > 1 else "hourly")
        for hours in reversed(EVERY_HOURS)
        if hours < 24
    ),
]


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
@admins_only
def schedule(request: HttpRequest) -> HttpResponse:
    error, status = "", 200
    if request.method == "POST":
        try:
            acts.change_schedule(person=person_of(request), schedule=_posted(request))
        except DomainError as refusal:
            error, status = str(refusal), refusal.http_status
        else:
            messages.success(request, "The schedule is in force.")
            return see_other("training:schedule")
    current, next_at = pages.current_schedule()
    # What was posted and refused stands there to be mended.
    context = {
        "enabled": request.POST.get("enabled") == "1" if error else current.enabled,
        "time": request.POST.get("time")
        if error
        else f"{current.hour:02}:{current.minute:02}",
        "next_at": next_at,
        "choices": HOW_OFTEN,
        "often": request.POST.get("often") if error else _how_often(current),
        "ready": pages.readiness(),
        "error": error,
    }
    return training_page(request, "schedule", context, tab="schedule", status=status)


def _posted(request: HttpRequest) -> Schedule:
    hour, colon, minute = request.POST.get("time", "").partition(":")
    try:
        if not colon:
            raise ValueError
        numbers = int(hour), int(minute)
    except ValueError as error:
        raise DomainError("Please give a time as 03:00.", "bad_time") from error
    often = request.POST.get("often", "*")
    if often not in dict(HOW_OFTEN):
        raise DomainError("Please choose how often from the list.", "bad_schedule")
    several = often.endswith(_HOURS_SUFFIX)
    return Schedule(
        enabled=request.POST.get("enabled") == "1",
        hour=numbers[0],
        minute=numbers[1],
        day_of_week="*" if several else often,
        every_hours=int(often.removesuffix(_HOURS_SUFFIX)) if several else 24,
    )


def _how_often(schedule: Schedule) -> str:
    """The code in ``HOW_OFTEN``."""
    if schedule.every_hours < 24:
        return f"{schedule.every_hours}{_HOURS_SUFFIX}"
    return schedule.day_of_week
