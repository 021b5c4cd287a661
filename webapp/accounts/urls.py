from django.contrib.auth import views
from django.urls import path

from webapp.accounts import api_key_views
from webapp.accounts import views as account_views

app_name = "accounts"

urlpatterns = [
    path("login/", account_views.LoginView.as_view(), name="login"),
    path("logout/", views.LogoutView.as_view(), name="logout"),
    path("password/", account_views.PasswordView.as_view(), name="password"),
    path("invitations/<str:secret>/", account_views.invitation, name="invitation"),
    path("api-keys/", api_key_views.api_keys, name="api-keys"),
    path(
        "api-keys/<uuid:key_id>/revoke/",
        api_key_views.revoke,
        name="api-key-revoke",
    ),
]
