"""Versions: looked at, compared, promoted, rolled back."""

from __future__ import annotations

import json
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import (
    require_http_methods,
    require_POST,
    require_safe,
)

from webapp.core.errors import DomainError
from webapp.core.responses import see_other
from webapp.registry.models import ModelVersion
from webapp.registry.selectors import get_champion, read_model_file
from webapp.training import selectors
from webapp.training import selectors_pages as pages
from webapp.training.cards import model_card
from webapp.training.services import acts, promotion
from webapp.training.services.versions import compare_versions
from webapp.training.views.common import (
    admins_only,
    attachment,
    comparison,
    person_of,
    training_page,
    version_named,
)


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
    return training_page(request, "versions", context, tab="versions")


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
    return training_page(request, "version", context, tab="versions")


@require_safe
@admins_only
def model_file(request: HttpRequest, version: str) -> HttpResponse:
    """The ONNX file, where it is the one meant."""
    shown = selectors.get_version(version=version).version
    trouble = pages.file_trouble(model_version=shown)
    if trouble:
        raise DomainError(f"This file is not handed out: {trouble}.", "bad_file")
    _, data = read_model_file(shown)
    return attachment(data, "application/octet-stream", f"{shown.version}.onnx")


@require_safe
@admins_only
def manifest(request: HttpRequest, version: str) -> HttpResponse:
    shown = selectors.get_version(version=version).version
    text = json.dumps(shown.manifest, indent=2) + "\n"
    return attachment(text.encode(), "application/json", f"{shown.version}.json")


@require_safe
@admins_only
def card(request: HttpRequest, version: str) -> HttpResponse:
    row = selectors.get_version(version=version)
    return attachment(
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
    shown, champion = found.version, get_champion()
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
        "champion": champion,
        "why_reason_is_needed": promotion.why_reason_is_needed(
            shown, found.run, champion
        ),
        "reason": reason,
        "error": error,
        "max_reason_length": promotion.MAX_REASON_LENGTH,
    }
    return training_page(request, "promote", context, tab="versions", status=status)


def _promote(request: HttpRequest, shown: ModelVersion, reason: str) -> None:
    promotion.promote_version(
        model_version=shown,
        promoted_by=person_of(request),
        reason=reason,
        expected_champion=_looked_at(request),
    )
    messages.success(
        request, f"Version {shown.version} serves now, from the next photo on."
    )


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
@admins_only
def rollback(request: HttpRequest) -> HttpResponse:
    reason = request.POST.get("reason", "")
    error, status = "", 200
    if request.method == "POST":
        try:
            made = promotion.roll_back(
                rolled_back_by=person_of(request),
                reason=reason,
                expected_champion=_looked_at(request),
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
        "reason": reason,
        "error": error,
        "max_reason_length": promotion.MAX_REASON_LENGTH,
    }
    return training_page(request, "rollback", context, tab="versions", status=status)


def _looked_at(request: HttpRequest) -> ModelVersion | None:
    return promotion.looked_at_champion(name=request.POST.get("champion", ""))


@require_POST
@admins_only
def retrain_without(request: HttpRequest, version: str) -> HttpResponse:
    shown = selectors.get_version(version=version).version
    try:
        made = acts.retrain_without(person=person_of(request), model_version=shown)
    except DomainError as error:
        messages.error(request, str(error))
        return see_other("training:version", version)
    return see_other("training:run", made.number)


@never_cache
@require_safe
@admins_only
def compare(request: HttpRequest) -> HttpResponse:
    known = [row.version for row in selectors.version_rows()]
    left = version_named(known, request.GET.get("left"))
    right = version_named(known, request.GET.get("right"))
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
            context |= comparison(made.decision, made.report)
    return training_page(request, "compare", context, tab="compare", status=status)


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
