from django.urls import path

from webapp.photos import views

app_name = "photos"

urlpatterns = [
    path("", views.home, name="home"),
    path("photos/", views.upload, name="upload"),
    path("photos/<uuid:photo_id>/", views.result, name="result"),
    path("photos/<uuid:photo_id>/image", views.image, name="image"),
    path("photos/<uuid:photo_id>/delete/", views.delete, name="delete"),
]
