"""What pages and the API ask before they answer: one order of roles for both."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.shortcuts import resolve_url
from django.utils.http import url_has_allowed_host_and_scheme
from django_htmx.http import HttpResponseClientRefresh
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.views import APIView

from webapp.accounts.models import ApiKey, Role, User
from webapp.accounts.roles import has_role

View = Callable[..., HttpResponseBase]


def role_required(role: Role) -> Callable[[View], View]:
    """A page for people of that role: strangers log in first, others get a 403."""

    def decorate(view: View) -> View:
        @wraps(view)
        def guarded(
            request: HttpRequest, *args: Any, **kwargs: Any
        ) -> HttpResponseBase:
            if not request.user.is_authenticated:
                if getattr(request, "htmx", False):
                    # A log-in page is no part of a page: load the whole of it.
                    return HttpResponseClientRefresh()
                return _log_in_first(request)
            if not has_role(request.user, role):
                raise PermissionDenied
            return view(request, *args, **kwargs)

        return guarded

    return decorate


def _log_in_first(request: HttpRequest) -> HttpResponseBase:
    """Lead to the log-in page, and from there to what was asked for; to the page of
    the form where something was posted, for its address answers no GET."""
    if request.method in ("GET", "HEAD"):
        return redirect_to_login(request.get_full_path())
    messages.error(
        request, "You were logged out, and nothing was changed. Please do it again."
    )
    came_from = request.headers.get("Referer", "")
    if not url_has_allowed_host_and_scheme(came_from, {request.get_host()}):
        came_from = resolve_url(settings.LOGIN_REDIRECT_URL)
    return redirect_to_login(urlsplit(came_from).path)


class IsAnnotator(BasePermission):
    """Everybody with an account."""

    role: Role = Role.ANNOTATOR

    def has_permission(self, request: Request, view: APIView | Any) -> bool:
        return has_role(request.user, self.role)


class IsAdjudicator(IsAnnotator):
    role = Role.ADJUDICATOR


class IsAdmin(IsAnnotator):
    role = Role.ADMIN


def trainer_of(request: Request) -> User | None:
    """The admin who asks: logged in, or by a key of theirs that may train."""
    # Their static types name DRF's own tokens and Django's base class of users.
    key: object = request.auth
    person: object = request.user
    if isinstance(key, ApiKey) and key.may_train:
        person = key.person
    if isinstance(person, User) and has_role(person, Role.ADMIN):
        return person
    return None


class MayTrain(BasePermission):
    """An admin, or a program to which one gave that right."""

    def has_permission(self, request: Request, view: APIView | Any) -> bool:
        return trainer_of(request) is not None
