"""Runs: started, watched, cancelled, judged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import (
    require_POST,
    require_safe,
)

from ml.gate import GateRules
from webapp.core.errors import DomainError
from webapp.core.responses import is_htmx, see_other
from webapp.registry.selectors import get_champion
from webapp.training import selectors
from webapp.training import selectors_pages as pages
from webapp.training.charts import LinePlot, line_plot
from webapp.training.charts import run_plots as plots_of_run
from webapp.training.models import TrainingRun
from webapp.training.services import acts
from webapp.training.services.runs import cancel_run
from webapp.training.views.common import (
    admins_only,
    comparison,
    person_of,
    training_page,
)

POLL_MS: Final = 1500
_PLOTTED_RUNS: Final = 20
_PLOTTED_CURVES: Final = 5
_FACES_SHOWN: Final = 24


@never_cache
@require_safe
@admins_only
def runs(request: HttpRequest) -> HttpResponse:
    latest = list(selectors.all_runs()[:_PLOTTED_RUNS])
    context = {
        "page": pages.page_of(selectors.all_runs(), request.GET.get("page", "")),
        "ready": pages.readiness(),
        "champion": get_champion(),
        "schedule": pages.current_schedule(),
        "plots": _plots_of_runs(latest[::-1]),
        "max_reason_length": acts.MAX_REASON_LENGTH,
    }
    return training_page(request, "runs", context, tab="runs")


@require_POST
@admins_only
def start(request: HttpRequest) -> HttpResponse:
    try:
        made = acts.start_run(
            person=person_of(request),
            mode=request.POST.get("mode", ""),
            reason=request.POST.get("reason", ""),
        )
    except DomainError as error:
        messages.error(request, str(error))
        return see_other("training:runs")
    return see_other("training:run", made.number)


@never_cache
@require_safe
@admins_only
def run(request: HttpRequest, number: int) -> HttpResponse:
    """The whole page, or the part that is exchanged while the run goes on."""
    shown = selectors.get_run(number=number)
    context = {
        "run": shown,
        "plots": plots_of_run(shown.curves),
        "log": pages.run_log(run=shown),
        "seconds_left": selectors.seconds_left(run=shown, now=timezone.now()),
        "seconds_taken": pages.seconds_taken(shown),
        "progress_percent": _progress(shown),
        "poll_ms": None if shown.is_finished else POLL_MS,
    }
    if is_htmx(request):
        return training_page(request, "_run", context)
    return training_page(request, "run", context, tab="runs")


@require_POST
@admins_only
def cancel(request: HttpRequest, number: int) -> HttpResponse:
    shown = selectors.get_run(number=number)
    if cancel_run(run=shown, cancelled_by=person_of(request)):
        messages.success(request, f"Run {shown.number} is being cancelled.")
    else:
        messages.error(request, f"Run {shown.number} had ended already.")
    return see_other("training:run", number)


@never_cache
@require_safe
@admins_only
def gate(request: HttpRequest, number: int) -> HttpResponse:
    shown = selectors.get_run(number=number)
    changes = {
        change: pages.changed_faces(run=shown, change=change)
        for change in ("fixed", "broken")
    }
    context = {
        "run": shown,
        "is_champion": bool(shown.candidate and shown.candidate.is_champion),
        "rules": GateRules(),
        "faces": [
            (change, found.count(), found[:_FACES_SHOWN])
            for change, found in changes.items()
        ],
        "faces_shown": _FACES_SHOWN,
        "left_name": shown.parent.version,
        "right_name": shown.candidate.version if shown.candidate else "",
        **comparison(shown.decision, shown.report),
    }
    return training_page(request, "gate", context, tab="runs")


def _plots_of_runs(oldest_first: Sequence[TrainingRun]) -> list[tuple[str, LinePlot]]:
    """Accuracy from run to run, and the curves of those that have some."""

    def accuracy(run: TrainingRun, who: str) -> float | None:
        sets = run.report.get("sets") or [{}]
        report = sets[0].get(who)
        return report["accuracy"] if report else None

    judged = [run for run in oldest_first if run.report.get("sets")]
    curved = [run for run in oldest_first if run.curves][-_PLOTTED_CURVES:]
    epochs = max((len(run.curves) for run in curved), default=0)

    def curve(run: TrainingRun, name: str) -> list[float | None]:
        values: list[float | None] = [row.get(name) for row in run.curves]
        return values + [None] * (epochs - len(values))

    steps = [f"epoch {number}" for number in range(1, epochs + 1)]
    plots = [
        (
            "Accuracy on the frozen evaluation set",
            line_plot(
                [
                    ("Candidate", [accuracy(run, "candidate") for run in judged]),
                    ("Champion", [accuracy(run, "champion") for run in judged]),
                ],
                steps=[f"run {run.number}" for run in judged],
                what="Accuracy by run",
                form="{:.1%}",
            ),
        ),
        *(
            (
                title,
                line_plot(
                    [(f"Run {run.number}", curve(run, name)) for run in curved],
                    steps=steps,
                    what=title,
                    form=form,
                ),
            )
            for title, name, form in (
                ("Validation loss of full runs", "validation_loss", "{:.3f}"),
                ("Validation accuracy of full runs", "validation_accuracy", "{:.1%}"),
            )
        ),
    ]
    return [(title, plot) for title, plot in plots if plot is not None]


def _progress(run: TrainingRun) -> float:
    if not run.progress_total:
        return 0.0
    return round(100 * min(run.progress_done / run.progress_total, 1), 1)
