"""A visitor's browser: a random token in a cookie, of which we keep only a hash."""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from typing import Final

from django.conf import settings
from django.http import HttpRequest
from django.http.response import HttpResponseBase

COOKIE_NAME: Final = "mien_visitor"
_COOKIE_AGE_SECONDS: Final = 365 * 24 * 3600
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, slots=True)
class Visitor:
    """``token`` lives in the browser alone; ``key`` (64 hex digits) is its hash."""

    token: str

    @property
    def key(self) -> str:
        return hashlib.sha256(self.token.encode()).hexdigest()


def visitor_of(request: HttpRequest) -> Visitor | None:
    """The visitor whose cookie came with the request, if any."""
    token = request.COOKIES.get(COOKIE_NAME, "")
    return Visitor(token) if _TOKEN.fullmatch(token) else None


def new_visitor() -> Visitor:
    """A visitor with 256 bits of randomness, not yet remembered anywhere."""
    return Visitor(secrets.token_urlsafe(32))


def remember_visitor(response: HttpResponseBase, visitor: Visitor) -> None:
    """Give the browser its token: HttpOnly, same site, secure where the site is."""
    response.set_cookie(
        COOKIE_NAME,
        visitor.token,
        max_age=_COOKIE_AGE_SECONDS,
        httponly=True,
        secure=settings.SESSION_COOKIE_SECURE,
        samesite="Lax",
    )
