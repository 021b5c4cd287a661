"""``Authorization: Bearer <API key>``, as DRF and the API's description know it."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import AnonymousUser
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from webapp.accounts.api_keys import find_api_key
from webapp.accounts.models import ApiKey

_SCHEME = b"bearer"


class ApiKeyAuthentication(BaseAuthentication):
    """A key makes its program a visitor, not the person: ``auth`` is the key, and
    ``user`` nobody."""

    def authenticate(self, request: Request) -> tuple[AnonymousUser, ApiKey] | None:
        scheme, _, text = get_authorization_header(request).partition(b" ")
        if scheme.lower() != _SCHEME:
            return None
        key = find_api_key(key=text.strip().decode("latin-1"))
        if key is None:
            raise AuthenticationFailed(
                "This API key is not known, or was revoked. Make a new one on the "
                "page of your account.",
                code="invalid_api_key",
            )
        return AnonymousUser(), key

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


class ApiKeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """What the API's description says of it."""

    target_class = ApiKeyAuthentication
    name = "apiKey"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {
            "type": "http",
            "scheme": "bearer",
            "description": (
                "An API key of a person with an account. Photos that come with it "
                "belong to the key. Without one, a cookie stands for the browser."
            ),
        }
