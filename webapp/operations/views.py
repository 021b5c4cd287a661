"""For machines: is it well, what does it count. For admins: the same on a page."""

from __future__ import annotations

from typing import Final

from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from webapp.accounts.access import role_required
from webapp.accounts.audit import recent_entries
from webapp.accounts.models import Role
from webapp.operations import selectors
from webapp.operations.charts import hour_plot
from webapp.operations.exposition import may_read, web_exposition
from webapp.operations.health import check_all, overall
from webapp.operations.hours import measure_answer_change
from webapp.photos.consent import retention_words
from webapp.registry.selectors import get_champion

_STATUS: Final = {"ok": 200, "degraded": 200, "unavailable": 503}


@never_cache
@require_safe
def readyz(request: HttpRequest) -> HttpResponse:
    """Whether to send visitors here: 200 also where it is merely degraded."""
    checks = check_all()
    state = overall(checks)
    return JsonResponse(
        {
            "status": state,
            "checks": {check.name: check.words or "ok" for check in checks},
        },
        status=_STATUS[state],
    )


@never_cache
@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """Prometheus's format, for who has the token; to others there is nothing here."""
    if not may_read(request.headers.get("Authorization", "")):
        raise Http404
    return HttpResponse(web_exposition(), content_type=CONTENT_TYPE_LATEST)


@never_cache
@require_safe
@role_required(Role.ADMIN)
def status(request: HttpRequest) -> HttpResponse:
    hours = selectors.last_hours()
    checks = check_all()
    context = {
        "checks": checks,
        "overall": overall(checks),
        "owed": selectors.owed_photos(),
        "champion": get_champion(),
        "workers": selectors.present_workers(),
        "readers": selectors.count_readers(),
        "answer_change": measure_answer_change(),
        "plots": [
            (
                "Photos read",
                hour_plot([(h.at, h.photos) for h in hours], what="Photos"),
            ),
            (
                "Upload to result, slowest 5 % begin at",
                hour_plot(
                    [(h.at, h.wait_p95_ms) for h in hours],
                    what="95th percentile of the wait",
                    unit=" ms",
                ),
            ),
            (
                "Photos that failed",
                hour_plot([(h.at, h.failed) for h in hours], what="Failed photos"),
            ),
            (
                "Faces it was not sure of",
                hour_plot(
                    [(h.at, h.not_sure_percent) for h in hours],
                    what="Share of not sure",
                    unit=" %",
                ),
            ),
        ],
        "entries": recent_entries(),
        "retention": retention_words(),
    }
    return render(request, "operations/status.html", context)
