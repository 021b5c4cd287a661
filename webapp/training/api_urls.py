from django.urls import path

from webapp.training import api

urlpatterns = [
    path("training", api.ReadinessView.as_view(), name="api-training"),
    path("training/runs", api.RunsView.as_view(), name="api-runs"),
    path("training/runs/<int:number>", api.RunView.as_view(), name="api-run"),
    path(
        "training/runs/<int:number>/cancel",
        api.CancelView.as_view(),
        name="api-run-cancel",
    ),
    path("training/runs/<int:number>/gate", api.GateView.as_view(), name="api-gate"),
    path(
        "training/runs/<int:number>/gate/faces",
        api.GateFacesView.as_view(),
        name="api-gate-faces",
    ),
    path("training/versions", api.VersionsView.as_view(), name="api-versions"),
    path("training/compare", api.CompareView.as_view(), name="api-compare"),
    path("training/rollback", api.RollbackView.as_view(), name="api-rollback"),
    path(
        "training/versions/<str:version>",
        api.VersionView.as_view(),
        name="api-version",
    ),
    path(
        "training/versions/<str:version>/promote",
        api.PromoteView.as_view(),
        name="api-promote",
    ),
    path(
        "training/versions/<str:version>/retrain-without",
        api.RetrainWithoutView.as_view(),
        name="api-retrain-without",
    ),
    path("training/promotions", api.PromotionsView.as_view(), name="api-promotions"),
    path("training/data-sets", api.SnapshotsView.as_view(), name="api-data-sets"),
    path(
        "training/data-sets/<int:number>",
        api.SnapshotView.as_view(),
        name="api-data-set",
    ),
    path("training/schedule", api.ScheduleView.as_view(), name="api-schedule"),
    path("training/shadows", api.ShadowsView.as_view(), name="api-shadows"),
    path(
        "training/shadows/<uuid:shadow_id>",
        api.ShadowView.as_view(),
        name="api-shadow",
    ),
    path("training/drift", api.DriftView.as_view(), name="api-drift"),
]
