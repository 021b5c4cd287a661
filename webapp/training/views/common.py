"""What the pages of training share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from webapp.accounts.access import role_required
from webapp.accounts.models import Role, User
from webapp.registry.models import ModelVersion
from webapp.training import selectors_pages as pages
from webapp.training.charts import matrix_rows

admins_only: Final = role_required(Role.ADMIN)


def training_page(
    request: HttpRequest,
    name: str,
    context: dict[str, Any],
    tab: str = "",
    status: int = 200,
) -> HttpResponse:
    return render(
        request,
        f"training/{name}.html",
        {"tab": tab, **context},
        status=status,
    )


def person_of(request: HttpRequest) -> User:
    assert isinstance(request.user, User)
    return request.user


def attachment(data: bytes, content_type: str, name: str) -> HttpResponse:
    response = HttpResponse(data, content_type=content_type)
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    response["Cache-Control"] = "private, no-store"
    return response


def comparison(decision: dict[str, Any], report: dict[str, Any]) -> dict[str, Any]:
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


def version_named(
    known: Sequence[ModelVersion], name: str | None
) -> ModelVersion | None:
    return next((version for version in known if version.version == name), None)
