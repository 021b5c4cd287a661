"""State changes around people."""

from __future__ import annotations

from typing import Final

from django.conf import settings
from django.db import transaction

from webapp.accounts.models import Role, User
from webapp.core.errors import DomainError

DEMO_PEOPLE: Final = (
    ("ada", Role.ANNOTATOR, "look-twice-ada"),
    ("max", Role.ADMIN, "look-twice-max"),
)
"""Name, role, password. Known to everybody, hence for a demo alone."""


@transaction.atomic
def seed_demo_people() -> list[tuple[str, str, str]]:
    """One annotator and one admin: (user name, password, role) of each.

    Runs any number of times; a password that was changed since stays changed.
    Raises ``DomainError`` outside a demo.
    """
    if not settings.DEMO:
        raise DomainError(
            "Demo people have known passwords: they exist only with MIEN_DEMO=1.",
            code="not_a_demo",
        )
    for name, role, password in DEMO_PEOPLE:
        if not User.objects.filter(username=name).exists():
            is_admin = role == Role.ADMIN
            User.objects.create_user(
                name,
                password=password,
                role=role,
                is_staff=is_admin,
                is_superuser=is_admin,
            )
    return [(name, password, role.value) for name, role, password in DEMO_PEOPLE]
