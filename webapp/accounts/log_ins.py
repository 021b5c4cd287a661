"""Logging in: how often an address may try, and what is kept of each try."""

from __future__ import annotations

from typing import Any

from axes.backends import AxesStandaloneBackend
from axes.handlers.database import AxesDatabaseHandler
from django.http import HttpRequest

from webapp.accounts.models import User
from webapp.core.logs import route_of
from webapp.core.rates import address_group, check_rate, client_address


def count_log_in(request: HttpRequest) -> None:
    """To be asked before a password is hashed, which is slow on purpose. Raises
    ``RateLimited`` where too many came from one address, whatever their names."""
    check_rate(scope="login", identities=[address_group(client_address(request))])


class LogInBackend(AxesStandaloneBackend):  # type: ignore[misc]
    """Asked first, whichever page somebody logs in on: it lets nobody in, but sends
    away who tries too often, by the address alone or with one name."""

    def authenticate(
        self,
        request: HttpRequest | None,
        username: str | None = None,
        password: str | None = None,
        **kwargs: Any,
    ) -> None:
        if request is not None:
            count_log_in(request)
        super().authenticate(request, username, password, **kwargs)


class LogInRecord(AxesDatabaseHandler):  # type: ignore[misc]
    """Keeps the route and not the address, which may be an invitation's secret."""

    def user_login_failed(
        self,
        sender: Any,
        credentials: dict[str, Any],
        request: HttpRequest | None = None,
        **kwargs: Any,
    ) -> None:
        _leave_out_address(request)
        super().user_login_failed(sender, credentials, request, **kwargs)

    def user_logged_in(
        self, sender: Any, request: HttpRequest, user: User, **kwargs: Any
    ) -> None:
        _leave_out_address(request)
        super().user_logged_in(sender, request, user, **kwargs)

    def user_logged_out(
        self, sender: Any, request: HttpRequest, user: User | None, **kwargs: Any
    ) -> None:
        _leave_out_address(request)
        super().user_logged_out(sender, request, user, **kwargs)


def _leave_out_address(request: HttpRequest | None) -> None:
    if request is not None:
        request.axes_path_info = route_of(request)  # type: ignore[attr-defined]
