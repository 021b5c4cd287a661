"""The page of one's own API keys."""

from __future__ import annotations

import uuid

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_variables
from django.views.decorators.http import require_http_methods, require_POST

from webapp.accounts.access import role_required
from webapp.accounts.api_keys import (
    MAX_KEYS,
    MAX_NAME_LENGTH,
    api_keys_of,
    create_api_key,
    revoke_api_key,
)
from webapp.accounts.models import Role, User
from webapp.accounts.roles import has_role
from webapp.core.errors import DomainError
from webapp.core.responses import see_other


@never_cache
@role_required(Role.ANNOTATOR)
@require_http_methods(["GET", "HEAD", "POST"])
@sensitive_variables("new_key")
def api_keys(request: HttpRequest) -> HttpResponse:
    """List them; a POST makes one and shows it in its answer, which nobody stores."""
    person = request.user
    assert isinstance(person, User)
    status, error, new_key, new_name = 200, "", "", ""
    may_train = request.POST.get("may_train") == "1"
    if request.method == "POST":
        name = request.POST.get("name", "")
        try:
            row, new_key = create_api_key(person=person, name=name, may_train=may_train)
        except DomainError as refusal:
            status, error, new_name = refusal.http_status, str(refusal), name
        else:
            new_name = row.name
    context = {
        "keys": api_keys_of(person=person),
        "error": error,
        "new_key": new_key,
        "new_name": new_name,
        "may_train": may_train,
        "is_admin": has_role(person, Role.ADMIN),
        "max_keys": MAX_KEYS,
        "max_name_length": MAX_NAME_LENGTH,
        "api_url": request.build_absolute_uri("/api/v1/photos"),
    }
    return render(request, "accounts/api_keys.html", context, status=status)


@role_required(Role.ANNOTATOR)
@require_POST
def revoke(request: HttpRequest, key_id: uuid.UUID) -> HttpResponse:
    person = request.user
    assert isinstance(person, User)
    revoke_api_key(person=person, key_id=key_id)
    messages.success(request, "The key is revoked. Its photos are being erased.")
    return see_other("accounts:api-keys")
