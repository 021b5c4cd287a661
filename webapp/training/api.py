"""Training over the API: the same services as the pages, for admins, and for programs
that one of them gave a key with that right."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from typing import Any

from drf_spectacular.utils import (
    OpenApiParameter,
    OpenApiResponse,
    extend_schema,
    inline_serializer,
)
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from webapp.accounts.access import MayTrain, trainer_of
from webapp.accounts.models import User
from webapp.core.api import ErrorSerializer
from webapp.core.errors import Conflict, NotFound
from webapp.photos.api import validated
from webapp.registry.models import ModelVersion
from webapp.training import selectors
from webapp.training import selectors_pages as pages
from webapp.training import serializers as shapes
from webapp.training.services import acts, promotion, readings
from webapp.training.services.runs import cancel_run
from webapp.training.services.snapshots import snapshot_is_intact
from webapp.training.services.triggers import Schedule
from webapp.training.services.versions import compare_versions

_ERROR = OpenApiResponse(ErrorSerializer)
_READ = {401: _ERROR, 403: _ERROR, 404: _ERROR}
_WRITE = {400: _ERROR, 409: _ERROR, **_READ}

_PAGE = OpenApiParameter("page", int, description="From 1; 20 rows each.")


def _list_of(shape: type[serializers.Serializer[Any]]) -> serializers.Serializer[Any]:
    """``count`` of all, and one page of them."""
    name = shape.__name__.removesuffix("Serializer")
    return inline_serializer(
        f"{name}Page",
        {"count": serializers.IntegerField(), "results": shape(many=True)},
    )


class AdminView(APIView):
    permission_classes = [MayTrain]

    def answer_page(
        self,
        request: Request,
        rows: Any,
        shape: type[serializers.Serializer[Any]],
        made: Callable[[Sequence[Any]], Sequence[Any]] = list,
    ) -> Response:
        page = pages.page_of(rows, request.query_params.get("page", ""))
        results = shape(made(list(page)), many=True).data
        return _private({"count": page.paginator.count, "results": results})


class ReadinessView(AdminView):
    @extend_schema(
        operation_id="get_training_readiness",
        summary="Is a training worth while, and could it begin",
        responses={200: shapes.ReadinessSerializer, **_READ},
    )
    def get(self, request: Request) -> Response:
        return _private(shapes.ReadinessSerializer(pages.readiness()).data)


class RunsView(AdminView):
    @extend_schema(
        operation_id="list_runs",
        summary="All runs, newest first",
        parameters=[_PAGE],
        responses={200: _list_of(shapes.RunSerializer), **_READ},
    )
    def get(self, request: Request) -> Response:
        return self.answer_page(request, selectors.all_runs(), shapes.RunSerializer)

    @extend_schema(
        operation_id="start_run",
        summary="Start a run",
        description="409 where nothing is new, or another run is under way.",
        request=shapes.RunRequestSerializer,
        responses={202: shapes.RunDetailSerializer, **_WRITE},
    )
    def post(self, request: Request) -> Response:
        fields = validated(shapes.RunRequestSerializer(data=request.data), "bad_run")
        run = acts.start_run(person=_trainer(request), **fields)
        return Response(
            shapes.RunDetailSerializer(run).data, status=status.HTTP_202_ACCEPTED
        )


class RunView(AdminView):
    @extend_schema(
        operation_id="get_run",
        summary="A run with progress, curves and log",
        responses={200: shapes.RunDetailSerializer, **_READ},
    )
    def get(self, request: Request, number: int) -> Response:
        run = selectors.get_run(number=number)
        return _private(shapes.RunDetailSerializer(run).data)


class CancelView(AdminView):
    @extend_schema(
        operation_id="cancel_run",
        summary="Cancel a run",
        request=None,
        responses={202: shapes.RunDetailSerializer, **_WRITE},
    )
    def post(self, request: Request, number: int) -> Response:
        run = selectors.get_run(number=number)
        if not cancel_run(run=run, cancelled_by=_trainer(request)):
            raise Conflict(f"Run {run.number} had ended already.")
        run = selectors.get_run(number=number)
        return Response(
            shapes.RunDetailSerializer(run).data, status=status.HTTP_202_ACCEPTED
        )


class GateView(AdminView):
    @extend_schema(
        operation_id="get_gate",
        summary="What the gate says of a run, and what was measured",
        responses={200: shapes.JudgementSerializer, 409: _ERROR, **_READ},
    )
    def get(self, request: Request, number: int) -> Response:
        run = selectors.get_run(number=number)
        if not run.outcome:
            raise Conflict(
                f"The gate has not judged run {run.number}: it is {run.state}."
            )
        return _private(shapes.JudgementSerializer(run).data)


class GateFacesView(AdminView):
    @extend_schema(
        operation_id="list_gate_faces",
        summary="Faces that the candidate fixes or breaks",
        description="Of photos that may still be used for training.",
        parameters=[
            OpenApiParameter("change", str, enum=["fixed", "broken"]),
            _PAGE,
        ],
        responses={200: _list_of(shapes.ComparedFaceSerializer), **_READ},
    )
    def get(self, request: Request, number: int) -> Response:
        change = request.query_params.get("change", "fixed")
        if change not in ("fixed", "broken"):
            raise NotFound("A change is fixed or broken.")
        rows = pages.changed_faces(run=selectors.get_run(number=number), change=change)
        return self.answer_page(request, rows, shapes.ComparedFaceSerializer)


class VersionsView(AdminView):
    @extend_schema(
        operation_id="list_versions",
        summary="All versions, newest first",
        parameters=[_PAGE],
        responses={200: _list_of(shapes.VersionSerializer), **_READ},
    )
    def get(self, request: Request) -> Response:
        return self.answer_page(
            request,
            selectors.version_rows(),
            shapes.VersionSerializer,
            pages.check_versions,
        )


class VersionView(AdminView):
    @extend_schema(
        operation_id="get_version",
        summary="A version with manifest and model card",
        responses={200: shapes.VersionDetailSerializer, **_READ},
    )
    def get(self, request: Request, version: str) -> Response:
        (row,) = pages.check_versions([selectors.get_version(version=version)])
        return _private(shapes.VersionDetailSerializer(row).data)


class CompareView(AdminView):
    @extend_schema(
        operation_id="compare_versions",
        summary="Any two versions side by side",
        parameters=[
            OpenApiParameter("left", str, required=True, description="As champion."),
            OpenApiParameter("right", str, required=True, description="As candidate."),
        ],
        responses={200: shapes.JudgementSerializer, 400: _ERROR, **_READ},
    )
    def get(self, request: Request) -> Response:
        left, right = (
            _named(request.query_params.get(side, "")) for side in ("left", "right")
        )
        made = compare_versions(left=left, right=right)
        return _private(shapes.JudgementSerializer(made).data)


class PromoteView(AdminView):
    @extend_schema(
        operation_id="promote_version",
        summary="Let a version serve",
        description=(
            "In force in every worker from its next photo on. 422 where a reason "
            "is needed and none is given."
        ),
        request=shapes.PromotionRequestSerializer,
        responses={201: shapes.PromotionSerializer, 422: _ERROR, **_WRITE},
    )
    def post(self, request: Request, version: str) -> Response:
        candidate = selectors.get_version(version=version).version
        fields = validated(
            shapes.PromotionRequestSerializer(data=request.data), "bad_promotion"
        )
        made = promotion.promote_version(
            model_version=candidate,
            promoted_by=_trainer(request),
            reason=fields.get("reason", ""),
            expected_champion=promotion.looked_at_champion(name=fields["champion"]),
        )
        return Response(
            shapes.PromotionSerializer(made).data, status=status.HTTP_201_CREATED
        )


class RollbackView(AdminView):
    @extend_schema(
        operation_id="roll_back",
        summary="Bring back the version that served before",
        request=shapes.PromotionRequestSerializer,
        responses={201: shapes.PromotionSerializer, **_WRITE},
    )
    def post(self, request: Request) -> Response:
        fields = validated(
            shapes.PromotionRequestSerializer(data=request.data), "bad_promotion"
        )
        made = promotion.roll_back(
            rolled_back_by=_trainer(request),
            reason=fields.get("reason", ""),
            expected_champion=promotion.looked_at_champion(name=fields["champion"]),
        )
        return Response(
            shapes.PromotionSerializer(made).data, status=status.HTTP_201_CREATED
        )


class PromotionsView(AdminView):
    @extend_schema(
        operation_id="list_promotions",
        summary="Who made which version champion, newest first",
        parameters=[_PAGE],
        responses={200: _list_of(shapes.PromotionSerializer), **_READ},
    )
    def get(self, request: Request) -> Response:
        return self.answer_page(
            request, selectors.promotions(), shapes.PromotionSerializer
        )


class RetrainWithoutView(AdminView):
    @extend_schema(
        operation_id="retrain_without",
        summary="Retrain a version without faces that were erased or withdrawn",
        request=None,
        responses={202: shapes.RunDetailSerializer, **_WRITE},
    )
    def post(self, request: Request, version: str) -> Response:
        run = acts.retrain_without(
            person=_trainer(request),
            model_version=selectors.get_version(version=version).version,
        )
        return Response(
            shapes.RunDetailSerializer(run).data, status=status.HTTP_202_ACCEPTED
        )


class SnapshotsView(AdminView):
    @extend_schema(
        operation_id="list_data_sets",
        summary="All data sets, newest first",
        parameters=[_PAGE],
        responses={200: _list_of(shapes.SnapshotSerializer), **_READ},
    )
    def get(self, request: Request) -> Response:
        return self.answer_page(
            request,
            selectors.all_snapshots(),
            shapes.SnapshotSerializer,
            pages.snapshot_figures,
        )


class SnapshotView(AdminView):
    @extend_schema(
        operation_id="get_data_set",
        summary="A data set",
        responses={200: shapes.SnapshotDetailSerializer, **_READ},
    )
    def get(self, request: Request, number: int) -> Response:
        snapshot = selectors.get_snapshot(number=number)
        (figures,) = pages.snapshot_figures([snapshot])
        data = shapes.SnapshotSerializer(figures).data
        return _private({**data, "intact": snapshot_is_intact(snapshot=snapshot)})


class ScheduleView(AdminView):
    @extend_schema(
        operation_id="get_schedule",
        summary="When a run starts by itself",
        responses={200: shapes.CurrentScheduleSerializer, **_READ},
    )
    def get(self, request: Request) -> Response:
        return _schedule()

    @extend_schema(
        operation_id="set_schedule",
        summary="Put a schedule in force",
        request=shapes.ScheduleSerializer,
        responses={200: shapes.CurrentScheduleSerializer, **_WRITE},
    )
    def put(self, request: Request) -> Response:
        fields = validated(shapes.ScheduleSerializer(data=request.data), "bad_schedule")
        acts.change_schedule(person=_trainer(request), schedule=Schedule(**fields))
        return _schedule()


class ShadowsView(AdminView):
    @extend_schema(
        operation_id="list_shadows",
        summary="Candidates that read along, newest first",
        parameters=[_PAGE],
        responses={200: _list_of(shapes.ShadowSerializer), **_READ},
    )
    def get(self, request: Request) -> Response:
        return self.answer_page(request, selectors.shadows(), shapes.ShadowSerializer)

    @extend_schema(
        operation_id="start_shadow",
        summary="Let a candidate read along",
        request=shapes.ShadowRequestSerializer,
        responses={201: shapes.ShadowSerializer, **_WRITE},
    )
    def post(self, request: Request) -> Response:
        fields = validated(
            shapes.ShadowRequestSerializer(data=request.data), "bad_shadow"
        )
        shadow = readings.start_shadow(
            candidate=_named(fields["candidate"]),
            requested_by=_trainer(request),
            hours=fields["hours"],
        )
        return Response(
            shapes.ShadowSerializer(shadow).data, status=status.HTTP_201_CREATED
        )


class ShadowView(AdminView):
    @extend_schema(
        operation_id="stop_shadow",
        summary="Let it read along no more",
        responses={204: None, **_READ},
    )
    def delete(self, request: Request, shadow_id: uuid.UUID) -> Response:
        readings.end_shadow(
            shadow=pages.get_shadow(shadow_id=shadow_id),
            ended_by=_trainer(request),
        )
        return Response(status=status.HTTP_204_NO_CONTENT)


class DriftView(AdminView):
    @extend_schema(
        operation_id="list_drift",
        summary="How far live faces lie from those that the champion knows",
        responses={200: shapes.DriftSerializer(many=True), **_READ},
    )
    def get(self, request: Request) -> Response:
        found = selectors.drift_readings(days=pages.DRIFT_DAYS)
        return _private(shapes.DriftSerializer(found, many=True).data)


def _schedule() -> Response:
    schedule, next_at = pages.current_schedule()
    return _private(
        shapes.CurrentScheduleSerializer(
            {
                "enabled": schedule.enabled,
                "hour": schedule.hour,
                "minute": schedule.minute,
                "day_of_week": schedule.day_of_week,
                "every_hours": schedule.every_hours,
                "next_at": next_at,
            }
        ).data
    )


def _trainer(request: Request) -> User:
    """Who asks; the permission has made sure of it."""
    person = trainer_of(request)
    assert person is not None
    return person


def _named(name: str) -> ModelVersion:
    version = ModelVersion.objects.filter(version=name).first()
    if version is None:
        raise NotFound(f"There is no version {name[:60]!r}.")
    return version


def _private(data: Any) -> Response:
    return Response(data, headers={"Cache-Control": "private, no-store"})
