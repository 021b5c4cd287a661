"""Logging in, invitations, one's own password, the page of whoever tried too often."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib import messages
from django.contrib.auth import login
from django.contrib.auth import views as auth_views
from django.contrib.messages.views import SuccessMessageMixin
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse_lazy
from django.utils.decorators import method_decorator
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods

from webapp.accounts.log_ins import count_log_in
from webapp.accounts.services import (
    accept_invitation,
    get_open_invitation,
)
from webapp.core.errors import DomainError
from webapp.core.responses import error_response


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
@sensitive_post_parameters("password")
def invitation(request: HttpRequest, secret: str) -> HttpResponse:
    """Where an invitation leads: choose a name and a password, and be logged in."""
    opened = get_open_invitation(secret=secret)
    context: dict[str, Any] = {"invitation": opened, "name": ""}
    status = 200
    if request.method == "POST":
        count_log_in(request)
        context["name"] = request.POST.get("username", "").strip()
        try:
            person = accept_invitation(
                secret=secret,
                username=context["name"],
                password=request.POST.get("password", ""),
            )
        except DomainError as error:
            context["error"], status = str(error), error.http_status
        else:
            login(request, person, "django.contrib.auth.backends.ModelBackend")
            messages.success(request, f"Welcome, {person.username}.")
            return redirect(settings.LOGIN_REDIRECT_URL)
    response = render(request, "accounts/invitation.html", context, status=status)
    # The address is the secret: no other page may learn it. Browsers hide where the
    # form comes from, too, if told to say nothing; its protection would refuse it.
    response["Referrer-Policy"] = "strict-origin"
    return response


@method_decorator(
    # Not by http_method_names: Django leads people on before it looks at those.
    require_http_methods(["GET", "HEAD", "POST"]),
    name="dispatch",
)
class LoginView(auth_views.LoginView):
    """Who is logged in already, in another tab perhaps, goes on to where this leads."""

    template_name = "accounts/login.html"
    redirect_authenticated_user = True

    def get_redirect_url(self, *args: Any, **kwargs: Any) -> str:
        """Never this page itself: who is logged in would go round in circles."""
        url = super().get_redirect_url(*args, **kwargs)
        return "" if urlsplit(url).path == self.request.path else url


class PasswordView(SuccessMessageMixin, auth_views.PasswordChangeView):  # type: ignore[type-arg]
    """Change one's own password, which ends one's sessions elsewhere."""

    http_method_names = ["get", "head", "post"]
    template_name = "accounts/password.html"
    success_url = reverse_lazy("accounts:password")
    success_message = "Your password is changed."

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        count_log_in(request)
        return super().post(request, *args, **kwargs)


def locked_out(
    request: HttpRequest, credentials: dict[str, Any] | None = None, *args: Any
) -> HttpResponse:
    """What django-axes answers after too many wrong passwords."""
    minutes = round(settings.AXES_COOLOFF_TIME * 60)
    response = error_response(
        request,
        429,
        "locked_out",
        f"Too many wrong passwords for this name. Please wait {minutes} minutes, then "
        "try again.",
    )
    response["Retry-After"] = str(minutes * 60)
    return response
