"""Who may do what: one order of roles, asked by pages and the API alike."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Final

from django.contrib.auth.models import AnonymousUser
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.views import APIView

from webapp.accounts.models import Role, User

View = Callable[..., HttpResponseBase]

_RANK: Final = {role: rank for rank, role in enumerate(Role)}


def has_role(user: User | AnonymousUser, role: Role) -> bool:
    """Whether an active person has the role or one above it."""
    if not isinstance(user, User) or not user.is_active:
        return False
    return user.is_superuser or _RANK[Role(user.role)] >= _RANK[role]


def role_required(role: Role) -> Callable[[View], View]:
    """A page for people of that role: strangers log in first, others get a 403."""

    def decorate(view: View) -> View:
        @wraps(view)
        def guarded(
            request: HttpRequest, *args: Any, **kwargs: Any
        ) -> HttpResponseBase:
            if not request.user.is_authenticated:
                return redirect_to_login(request.get_full_path())
            if not has_role(request.user, role):
                raise PermissionDenied
            return view(request, *args, **kwargs)

        return guarded

    return decorate


class IsAnnotator(BasePermission):
    """Everybody with an account."""

    role: Role = Role.ANNOTATOR

    def has_permission(self, request: Request, view: APIView | Any) -> bool:
        return has_role(request.user, self.role)


class IsAdjudicator(IsAnnotator):
    role = Role.ADJUDICATOR


class IsAdmin(IsAnnotator):
    role = Role.ADMIN
