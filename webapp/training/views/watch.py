"""Shadow and drift."""

from __future__ import annotations

import uuid
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import (
    require_POST,
    require_safe,
)

from webapp.core.errors import DomainError
from webapp.core.responses import see_other
from webapp.curation.charts import share_rows
from webapp.photos.selectors import EMOTION_WORDS
from webapp.registry.selectors import get_champion
from webapp.training import selectors
from webapp.training import selectors_pages as pages
from webapp.training.charts import drift_plots
from webapp.training.services import readings
from webapp.training.views.common import (
    admins_only,
    person_of,
    training_page,
    version_named,
)


@never_cache
@require_safe
@admins_only
def watch(request: HttpRequest) -> HttpResponse:
    champion = get_champion()
    found = selectors.drift_readings(days=pages.DRIFT_DAYS)
    context = {
        "champion": champion,
        "shadows": selectors.shadows()[:20],
        "candidates": pages.shadow_candidates(),
        "chosen": request.GET.get("candidate", ""),
        "max_hours": readings.MAX_HOURS,
        "latest": found[-1] if found else None,
        "drift": [
            (measure, plot, _shares(measure)) for measure, plot in drift_plots(found)
        ],
    }
    return training_page(request, "watch", context, tab="watch")


@require_POST
@admins_only
def start_shadow(request: HttpRequest) -> HttpResponse:
    candidate = version_named(
        list(pages.shadow_candidates()), request.POST.get("candidate")
    )
    hours = request.POST.get("hours", "24")
    try:
        if candidate is None:
            raise DomainError("Choose a candidate first.", "bad_candidate")
        if not hours.isascii() or not hours.isdigit():
            raise DomainError("Hours are a whole number.", "bad_hours")
        readings.start_shadow(
            candidate=candidate, requested_by=person_of(request), hours=int(hours[:6])
        )
        messages.success(
            request, f"Version {candidate.version} reads along from now on."
        )
    except DomainError as error:
        messages.error(request, str(error))
    return see_other("training:watch")


@require_POST
@admins_only
def stop_shadow(request: HttpRequest, shadow_id: uuid.UUID) -> HttpResponse:
    shown = pages.get_shadow(shadow_id=shadow_id)
    if readings.end_shadow(shadow=shown, ended_by=person_of(request)):
        messages.success(
            request, f"Version {shown.candidate.version} reads along no more."
        )
    return see_other("training:watch")


def _shares(measure: dict[str, Any]) -> list[tuple[str, str, str]]:
    """(label, share of the training data, share of now), as words."""
    before, now = (
        share_rows(
            dict(zip(measure["labels"], measure[side], strict=True)), EMOTION_WORDS
        )
        for side in ("reference", "live")
    )
    return [
        (left.word, left.value, right.value)
        for left, right in zip(before, now, strict=True)
    ]
