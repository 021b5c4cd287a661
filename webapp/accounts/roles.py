"""The order of roles."""

from __future__ import annotations

from typing import Final

from django.contrib.auth.models import AnonymousUser

from webapp.accounts.models import Role, User

_RANK: Final = {role: rank for rank, role in enumerate(Role)}


def has_role(user: User | AnonymousUser, role: Role) -> bool:
    """Whether an active person has the role or one above it."""
    if not isinstance(user, User) or not user.is_active:
        return False
    return user.is_superuser or _RANK[Role(user.role)] >= _RANK[role]
