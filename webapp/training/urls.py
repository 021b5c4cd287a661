from django.urls import path

from webapp.training import views

app_name = "training"

urlpatterns = [
    path("training/", views.runs, name="runs"),
    path("training/start/", views.start, name="start"),
    path("training/runs/<int:number>/", views.run, name="run"),
    path("training/runs/<int:number>/cancel/", views.cancel, name="cancel"),
    path("training/runs/<int:number>/gate/", views.gate, name="gate"),
    path("training/versions/", views.versions, name="versions"),
    path("training/compare/", views.compare, name="compare"),
    path("training/rollback/", views.rollback, name="rollback"),
    path("training/versions/<str:version>/", views.version, name="version"),
    path(
        "training/versions/<str:version>/model.onnx",
        views.model_file,
        name="model-file",
    ),
    path(
        "training/versions/<str:version>/manifest.json",
        views.manifest,
        name="manifest",
    ),
    path("training/versions/<str:version>/card.md", views.card, name="card"),
    path("training/versions/<str:version>/promote/", views.promote, name="promote"),
    path(
        "training/versions/<str:version>/retrain-without/",
        views.retrain_without,
        name="retrain-without",
    ),
    path("training/data-sets/", views.snapshots, name="snapshots"),
    path("training/data-sets/<int:number>/", views.snapshot, name="snapshot"),
    path(
        "training/data-sets/<int:number>/manifest.txt",
        views.snapshot_manifest,
        name="snapshot-manifest",
    ),
    path("training/schedule/", views.schedule, name="schedule"),
    path("training/watch/", views.watch, name="watch"),
    path("training/shadows/start/", views.start_shadow, name="start-shadow"),
    path(
        "training/shadows/<uuid:shadow_id>/stop/", views.stop_shadow, name="stop-shadow"
    ),
]
