from django.urls import path

from webapp.photos.views import camera, history, result, upload

app_name = "photos"

urlpatterns = [
    path("", upload.home, name="home"),
    path("photos/", upload.upload, name="upload"),
    path("camera/", camera.camera, name="camera"),
    path("examples/<slug:name>/try", upload.try_example, name="try-example"),
    path("photos/mine/", history.mine, name="mine"),
    path("photos/mine/delete/", history.delete_all, name="delete-all"),
    path("photos/<uuid:photo_id>/", result.result, name="result"),
    path("photos/<uuid:photo_id>/image", result.image, name="image"),
    path("photos/<uuid:photo_id>/thumbnail", result.thumbnail, name="thumbnail"),
    path("photos/<uuid:photo_id>/heat/<int:index>", result.heat, name="heat"),
    path("photos/<uuid:photo_id>/mien.png", result.annotated, name="annotated"),
    path("photos/<uuid:photo_id>/mien.json", result.export_json, name="export-json"),
    path("photos/<uuid:photo_id>/mien.csv", result.export_csv, name="export-csv"),
    path("photos/<uuid:photo_id>/delete/", result.delete, name="delete"),
    path("photos/<uuid:photo_id>/consent/", result.consent, name="consent"),
    path("photos/<uuid:photo_id>/share/", result.share, name="share"),
    path("photos/<uuid:photo_id>/unshare/", result.unshare, name="unshare"),
    path("s/<str:token>/", result.shared, name="shared"),
    path("s/<str:token>/image", result.shared_image, name="shared-image"),
    path("s/<str:token>/heat/<int:index>", result.shared_heat, name="shared-heat"),
    path("batches/<uuid:batch_id>/", history.batch, name="batch"),
    path("batches/<uuid:batch_id>/mien.csv", history.batch_csv, name="batch-csv"),
    path("batches/<uuid:batch_id>/delete/", history.batch_delete, name="batch-delete"),
]
