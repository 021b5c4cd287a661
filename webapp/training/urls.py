from django.urls import path

from webapp.training.views import runs, schedule, snapshots, versions, watch

app_name = "training"

urlpatterns = [
    path("training/", runs.runs, name="runs"),
    path("training/start/", runs.start, name="start"),
    path("training/runs/<int:number>/", runs.run, name="run"),
    path("training/runs/<int:number>/cancel/", runs.cancel, name="cancel"),
    path("training/runs/<int:number>/gate/", runs.gate, name="gate"),
    path("training/versions/", versions.versions, name="versions"),
    path("training/compare/", versions.compare, name="compare"),
    path("training/rollback/", versions.rollback, name="rollback"),
    path("training/versions/<str:version>/", versions.version, name="version"),
    path(
        "training/versions/<str:version>/model.onnx",
        versions.model_file,
        name="model-file",
    ),
    path(
        "training/versions/<str:version>/manifest.json",
        versions.manifest,
        name="manifest",
    ),
    path("training/versions/<str:version>/card.md", versions.card, name="card"),
    path("training/versions/<str:version>/promote/", versions.promote, name="promote"),
    path(
        "training/versions/<str:version>/retrain-without/",
        versions.retrain_without,
        name="retrain-without",
    ),
    path("training/data-sets/", snapshots.snapshots, name="snapshots"),
    path("training/data-sets/<int:number>/", snapshots.snapshot, name="snapshot"),
    path(
        "training/data-sets/<int:number>/manifest.txt",
        snapshots.snapshot_manifest,
        name="snapshot-manifest",
    ),
    path("training/schedule/", schedule.schedule, name="schedule"),
    path("training/watch/", watch.watch, name="watch"),
    path("training/shadows/start/", watch.start_shadow, name="start-shadow"),
    path(
        "training/shadows/<uuid:shadow_id>/stop/", watch.stop_shadow, name="stop-shadow"
    ),
]
