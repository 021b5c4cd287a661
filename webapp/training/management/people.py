"""Who acts on the command line."""

from __future__ import annotations

from django.core.management.base import CommandError

from webapp.accounts.models import User


def admin_named(username: str) -> User | None:
    """The person of that name, so that the record shows them; None without a name.
    Raises ``CommandError``."""
    if not username:
        return None
    person = User.objects.filter(username=username).first()
    if person is None:
        raise CommandError(f"There is nobody of the name {username!r}.")
    return person
