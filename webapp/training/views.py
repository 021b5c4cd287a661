"""The pages of training: form, service, render. For admins alone."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from typing import Any, Final

from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import (
    require_http_methods,
    require_POST,
    require_safe,
)

from ml.gate import GateRules
from webapp.accounts.access import role_required
from webapp.accounts.models import Role, User
from webapp.core.errors import Conflict, DomainError
from webapp.curation.charts import count_rows, share_rows
from webapp.photos.selectors import EMOTION_WORDS
from webapp.photos.views.common import is_htmx, see_other
from webapp.registry.models import ModelVersion
from webapp.registry.selectors import get_champion, read_model_file
from webapp.training import selectors
from webapp.training import selectors_pages as pages
from webapp.training.cards import model_card
from webapp.training.charts import LinePlot, drift_plots, line_plot, matrix_rows
from webapp.training.charts import run_plots as plots_of_run
from webapp.training.errors import ReasonNeeded
from webapp.training.models import Mode, TrainingRun
from webapp.training.services import acts, promotion, readings
from webapp.training.services.runs import cancel_run
from webapp.training.services.snapshots import manifest_text, snapshot_is_intact
from webapp.training.services.triggers import EVERY_HOURS, Schedule
from webapp.training.services.versions import compare_versions

POLL_MS: Final = 1500
_PLOTTED_RUNS: Final = 20
_PLOTTED_CURVES: Final = 5
_FACES_SHOWN: Final = 24

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

admins_only: Final = role_required(Role.ADMIN)


# --- Runs -------------------------------------------------------------------------


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
        "has_data_folder": bool(settings.DATASET_DIR),
        "max_reason_length": acts.MAX_REASON_LENGTH,
    }
    return _page(request, "runs", context, tab="runs")


@require_POST
@admins_only
def start(request: HttpRequest) -> HttpResponse:
    try:
        made = acts.start_run(
            person=_person(request),
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
        return _page(request, "_run", context)
    return _page(request, "run", context, tab="runs")


@require_POST
@admins_only
def cancel(request: HttpRequest, number: int) -> HttpResponse:
    shown = selectors.get_run(number=number)
    if cancel_run(run=shown, cancelled_by=_person(request)):
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
        **_comparison(shown.decision, shown.report),
    }
    return _page(request, "gate", context, tab="runs")


# --- Versions -----------------------------------------------------------------------


@never_cache
@require_safe
@admins_only
def versions(request: HttpRequest) -> HttpResponse:
    page = pages.page_of(selectors.version_rows(), request.GET.get("page", ""))
    context = {
        "page": page,
        "rows": pages.check_versions(list(page)),
        "promotions": selectors.promotions()[:50],
        "before": promotion.version_before(),
        "auto_promote": settings.AUTO_PROMOTE,
    }
    return _page(request, "versions", context, tab="versions")


@never_cache
@require_safe
@admins_only
def version(request: HttpRequest, version: str) -> HttpResponse:
    found = selectors.get_version(version=version)
    (row,) = pages.check_versions([found])
    context = {
        "version": row.version,
        "row": row,
        "run": row.run,
        "card": model_card(row=row),
        "champion": get_champion(),
        "promotions": selectors.promotions().filter(model_version=row.version),
    }
    return _page(request, "version", context, tab="versions")


@require_safe
@admins_only
def model_file(request: HttpRequest, version: str) -> HttpResponse:
    """The ONNX file, where it is the one meant."""
    shown = selectors.get_version(version=version).version
    trouble = pages.file_trouble(model_version=shown)
    if trouble:
        raise DomainError(f"This file is not handed out: {trouble}.", "bad_file")
    _, data = read_model_file(shown)
    return _file(data, "application/octet-stream", f"{shown.version}.onnx")


@require_safe
@admins_only
def manifest(request: HttpRequest, version: str) -> HttpResponse:
    shown = selectors.get_version(version=version).version
    text = json.dumps(shown.manifest, indent=2) + "\n"
    return _file(text.encode(), "application/json", f"{shown.version}.json")


@require_safe
@admins_only
def card(request: HttpRequest, version: str) -> HttpResponse:
    row = selectors.get_version(version=version)
    return _file(
        model_card(row=row).to_markdown().encode(),
        "text/markdown; charset=utf-8",
        f"{row.version.version}-card.md",
    )


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
@admins_only
def promote(request: HttpRequest, version: str) -> HttpResponse:
    """Ask, then do. The form names the champion that was looked at: where another
    one serves by then, nothing happens."""
    found = selectors.get_version(version=version)
    shown = found.version
    reason = request.POST.get("reason", "")
    error, status = "", 200
    if request.method == "POST":
        try:
            _promote(request, shown, reason)
        except DomainError as refusal:
            error, status = str(refusal), refusal.http_status
        else:
            return see_other("training:versions")
    context = {
        "version": shown,
        "run": found.run,
        "champion": get_champion(),
        "needs_reason": pages.promotion_needs_reason(model_version=shown),
        "reason": reason,
        "error": error,
        "max_reason_length": promotion.MAX_REASON_LENGTH,
    }
    return _page(request, "promote", context, tab="versions", status=status)


def _promote(request: HttpRequest, shown: ModelVersion, reason: str) -> None:
    needed = pages.promotion_needs_reason(model_version=shown)
    if needed and not reason.strip():
        raise ReasonNeeded(f"{needed} Please say why it should serve nevertheless.")
    expected = ModelVersion.objects.filter(
        version=request.POST.get("champion", "")
    ).first()
    promotion.promote_version(
        model_version=shown,
        promoted_by=_person(request),
        reason=reason,
        expected_champion=expected,
    )
    messages.success(
        request, f"Version {shown.version} serves now, from the next photo on."
    )


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
@admins_only
def rollback(request: HttpRequest) -> HttpResponse:
    error, status = "", 200
    if request.method == "POST":
        try:
            _same_champion(request)
            made = promotion.roll_back(
                rolled_back_by=_person(request), reason=request.POST.get("reason", "")
            )
        except DomainError as refusal:
            error, status = str(refusal), refusal.http_status
        else:
            messages.success(
                request,
                f"Version {made.model_version.version} serves again, from the next "
                "photo on.",
            )
            return see_other("training:versions")
    context = {
        "champion": get_champion(),
        "before": promotion.version_before(),
        "error": error,
        "max_reason_length": promotion.MAX_REASON_LENGTH,
    }
    return _page(request, "rollback", context, tab="versions", status=status)


def _same_champion(request: HttpRequest) -> None:
    """Of two that roll back at once, the second must not go one further back."""
    champion = get_champion()
    if champion is not None and champion.version != request.POST.get("champion"):
        raise Conflict(
            f"Version {champion.version} has become champion meanwhile. Look at it, "
            "and decide anew."
        )


@require_POST
@admins_only
def retrain_without(request: HttpRequest, version: str) -> HttpResponse:
    shown = selectors.get_version(version=version).version
    try:
        made = acts.retrain_without(person=_person(request), model_version=shown)
    except DomainError as error:
        messages.error(request, str(error))
        return see_other("training:version", version)
    return see_other("training:run", made.number)


@never_cache
@require_safe
@admins_only
def compare(request: HttpRequest) -> HttpResponse:
    known = [row.version for row in selectors.version_rows()]
    left = _named(known, request.GET.get("left"))
    right = _named(known, request.GET.get("right"))
    context: dict[str, Any] = {"versions": known, "left": left, "right": right}
    status = 200
    if left and right:
        context |= {"left_name": left.version, "right_name": right.version}
        context["figures"] = _manifest_figures(left, right)
        try:
            made = compare_versions(left=left, right=right)
        except DomainError as error:
            context["error"], status = str(error), error.http_status
        else:
            context |= _comparison(made.decision, made.report)
    return _page(request, "compare", context, tab="compare", status=status)


# --- Data sets ----------------------------------------------------------------------


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
    return _page(request, "snapshots", context, tab="snapshots")


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
    return _page(request, "snapshot", context, tab="snapshots")


@require_safe
@admins_only
def snapshot_manifest(request: HttpRequest, number: int) -> HttpResponse:
    shown = selectors.get_snapshot(number=number)
    return _file(
        manifest_text(snapshot=shown).encode(),
        "text/plain; charset=utf-8",
        f"data-set-{shown.number}.txt",
    )


# --- Schedule -----------------------------------------------------------------------


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
@admins_only
def schedule(request: HttpRequest) -> HttpResponse:
    error, status = "", 200
    if request.method == "POST":
        try:
            acts.change_schedule(person=_person(request), schedule=_posted(request))
        except DomainError as refusal:
            error, status = str(refusal), refusal.http_status
        else:
            messages.success(request, "The schedule is in force.")
            return see_other("training:schedule")
    current, next_at = pages.current_schedule()
    context = {
        "schedule": current,
        "time": f"{current.hour:02}:{current.minute:02}",
        "next_at": next_at,
        "choices": HOW_OFTEN,
        "often": _how_often(current),
        "ready": pages.readiness(),
        "error": error,
    }
    return _page(request, "schedule", context, tab="schedule", status=status)


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


# --- Shadow and drift -----------------------------------------------------------------


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
    return _page(request, "watch", context, tab="watch")


@require_POST
@admins_only
def start_shadow(request: HttpRequest) -> HttpResponse:
    candidate = _named(list(pages.shadow_candidates()), request.POST.get("candidate"))
    hours = request.POST.get("hours", "24")
    try:
        if candidate is None:
            raise DomainError("Choose a candidate first.", "bad_candidate")
        if not hours.isascii() or not hours.isdigit():
            raise DomainError("Hours are a whole number.", "bad_hours")
        readings.start_shadow(
            candidate=candidate, requested_by=_person(request), hours=int(hours[:6])
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
    if readings.end_shadow(shadow=shown, ended_by=_person(request)):
        messages.success(
            request, f"Version {shown.candidate.version} reads along no more."
        )
    return see_other("training:watch")


# --- What pages share -----------------------------------------------------------------


def _comparison(decision: dict[str, Any], report: dict[str, Any]) -> dict[str, Any]:
    """What ``_comparison.html`` shows: of a run, or made on request."""
    sets = pages.set_comparisons(report)
    return {
        "decision": decision,
        "report": report,
        "sets": [(row, _matrices(row.measured)) for row in sets],
    }


def _matrices(measured: dict[str, Any]) -> list[tuple[str, Any]]:
    return [
        (who, matrix_rows(measured[who]["confusion"]))
        for who in ("champion", "candidate")
        if measured[who]
    ]


def _manifest_figures(
    left: ModelVersion, right: ModelVersion
) -> list[tuple[str, list[pages.FigureRow]]]:
    """Figures of sets that stand in both manifests."""
    before, after = (v.manifest.get("metrics", {}) for v in (left, right))
    found = []
    for name in before:
        for source in before[name]:
            other = after.get(name, {}).get(source)
            if other:
                title = f"{name.replace('_', ' ')}, {source} labels"
                found.append((title, pages.figure_rows(before[name][source], other)))
    return found


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


def _progress(run: TrainingRun) -> float:
    if not run.progress_total:
        return 0.0
    return round(100 * min(run.progress_done / run.progress_total, 1), 1)


def _named(known: Sequence[ModelVersion], name: str | None) -> ModelVersion | None:
    return next((version for version in known if version.version == name), None)


def _file(data: bytes, content_type: str, name: str) -> HttpResponse:
    response = HttpResponse(data, content_type=content_type)
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    response["Cache-Control"] = "private, no-store"
    return response


def _page(
    request: HttpRequest,
    name: str,
    context: dict[str, Any],
    tab: str = "",
    status: int = 200,
) -> HttpResponse:
    return render(
        request,
        f"training/{name}.html",
        {
            "tab": tab,
            "modes": [mode.value for mode in Mode],
            **context,
        },
        status=status,
    )


def _person(request: HttpRequest) -> User:
    assert isinstance(request.user, User)
    return request.user
