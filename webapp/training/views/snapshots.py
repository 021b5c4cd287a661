"""Data sets, as they were frozen."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import (
    require_safe,
)

from webapp.curation.charts import count_rows
from webapp.photos.selectors import EMOTION_WORDS
from webapp.training import selectors
from webapp.training import selectors_pages as pages
from webapp.training.services.snapshots import manifest_text, snapshot_is_intact
from webapp.training.views.common import (
    admins_only,
    attachment,
    training_page,
)


@never_cache
@require_safe
@admins_only
def snapshots(request: HttpRequest) -> HttpResponse:
    page = pages.page_of(selectors.all_snapshots(), request.GET.get("page", ""))
    context = {
        "page": page,
        "rows": pages.snapshot_figures(list(page)),
        "ready": pages.readiness(),
    }
    return training_page(request, "snapshots", context, tab="snapshots")


@never_cache
@require_safe
@admins_only
def snapshot(request: HttpRequest, number: int) -> HttpResponse:
    shown = selectors.get_snapshot(number=number)
    (figures,) = pages.snapshot_figures([shown])
    context = {
        "snapshot": shown,
        "figures": figures,
        "intact": snapshot_is_intact(snapshot=shown),
        "splits": [
            (title, count_rows(shown.counts.get(split, {}), EMOTION_WORDS))
            for split, title in (("train", "They train"), ("evaluation", "They judge"))
        ],
        "rows": figures.versions(),
        "runs": selectors.all_runs().filter(snapshot=shown),
    }
    return training_page(request, "snapshot", context, tab="snapshots")


@require_safe
@admins_only
def snapshot_manifest(request: HttpRequest, number: int) -> HttpResponse:
    shown = selectors.get_snapshot(number=number)
    return attachment(
        manifest_text(snapshot=shown).encode(),
        "text/plain; charset=utf-8",
        f"data-set-{shown.number}.txt",
    )
