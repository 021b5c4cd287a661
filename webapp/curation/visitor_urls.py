from django.urls import path

from webapp.curation import visitor_views

app_name = "flags"

urlpatterns = [
    path(
        "photos/<uuid:photo_id>/faces/<int:index>/flag/",
        visitor_views.flag,
        name="flag",
    ),
    path(
        "receipts/<uuid:flag_id>/<str:secret>/", visitor_views.receipt, name="receipt"
    ),
    path(
        "receipts/<uuid:flag_id>/<str:secret>/take-back/",
        visitor_views.take_back,
        name="take-back",
    ),
]
