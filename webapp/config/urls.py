"""All addresses of the site."""

from __future__ import annotations

from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path
from drf_spectacular.views import SpectacularAPIView

from webapp.core import views as core_views
from webapp.curation import visitor_api
from webapp.photos import api as photos_api

api_patterns: list[URLPattern | URLResolver] = [
    path("photos", photos_api.PhotosView.as_view(), name="api-photos"),
    path("photos/<uuid:photo_id>", photos_api.PhotoView.as_view(), name="api-photo"),
    path(
        "photos/<uuid:photo_id>/links",
        photos_api.PhotoLinksView.as_view(),
        name="api-photo-links",
    ),
    path(
        "photos/<uuid:photo_id>/faces/<int:index>/flag",
        visitor_api.FlagView.as_view(),
        name="api-flag",
    ),
    path("batches", photos_api.BatchesView.as_view(), name="api-batches"),
    path("batches/<uuid:batch_id>", photos_api.BatchView.as_view(), name="api-batch"),
    path("live", photos_api.LiveView.as_view(), name="api-live"),
    path("", include("webapp.curation.api_urls")),
    path("", include("webapp.training.api_urls")),
]

urlpatterns = [
    path("", include("webapp.photos.urls")),
    path("", include("webapp.curation.visitor_urls")),
    path("", include("webapp.curation.urls")),
    path("", include("webapp.training.urls")),
    path("", include("webapp.operations.urls")),
    path("accounts/", include("webapp.accounts.urls")),
    path("admin/", admin.site.urls),
    path("api/v1/", include(api_patterns)),
    path("api/schema/", SpectacularAPIView.as_view(), name="api-schema"),
    path("api/docs/", core_views.ApiDocsView.as_view(), name="api-docs"),
    path("livez", core_views.livez, name="livez"),
]

handler400 = "webapp.core.views.bad_request"
handler403 = "webapp.core.views.permission_denied"
handler404 = "webapp.core.views.not_found"
handler500 = "webapp.core.views.server_error"
