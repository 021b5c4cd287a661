"""A visitor: a browser with a random token in a cookie, of which we keep only a hash,
or a program with an API key."""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from typing import Final

from django.conf import settings
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from rest_framework.request import Request

from webapp.accounts.models import ApiKey

COOKIE_NAME: Final = "mien_visitor"
_COOKIE_AGE_SECONDS: Final = 365 * 24 * 3600
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, slots=True)
class Visitor:
    """``key`` (64 hex digits) owns what a visitor gave.

    Of a browser it is the hash of ``token``, which lives in the browser alone; of
    an API key it stands in the key's row, and the token is empty.
    """

    key: str
    token: str = ""

    @property
    def is_browser(self) -> bool:
        return bool(self.token)


def visitor_of(request: HttpRequest | Request) -> Visitor | None:
    """The visitor whose API key or else whose cookie came with the request, if any."""
    auth = getattr(request, "auth", None)
    if isinstance(auth, ApiKey):
        return Visitor(auth.visitor_key)
    token = request.COOKIES.get(COOKIE_NAME, "")
    return _browser(token) if _TOKEN.fullmatch(token) else None


def new_visitor() -> Visitor:
    """A visitor with 256 bits of randomness, not yet remembered anywhere."""
    return _browser(secrets.token_urlsafe(32))


def remember_visitor(response: HttpResponseBase, visitor: Visitor) -> None:
    """Give the browser its token: HttpOnly, same site, secure where the site is.

    A program with an API key gets none.
    """
    if not visitor.is_browser:
        return
    response.set_cookie(
        COOKIE_NAME,
        visitor.token,
        max_age=_COOKIE_AGE_SECONDS,
        httponly=True,
        secure=settings.SESSION_COOKIE_SECURE,
        samesite="Lax",
    )


def _browser(token: str) -> Visitor:
    return Visitor(hashlib.sha256(token.encode()).hexdigest(), token)
