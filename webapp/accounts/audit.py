"""What people with rights did: a record that is only ever added to.

The database itself refuses to change a row. It names people by name, not by a key, so
that it outlives their accounts. Log-ins stand in django-axes' tables, promotions in
the registry's, votes in curation's history; everything else that people do on the site
and that changes who may do what, or takes labels out, is written here. What the
server's own commands take out, as a backup does, is not: whoever runs those owns the
database.
"""

from __future__ import annotations

from typing import Any, Final

from django.db.models import QuerySet

from webapp.accounts.models import AuditEntry, User

_SHOWN: Final = 50


def record(*, actor: User | None, action: str, subject: str, **details: Any) -> None:
    """Add an entry, in the transaction of the act itself: no act without its entry."""
    AuditEntry.objects.create(
        actor=actor.username if actor else "",
        action=action,
        subject=subject,
        details=details,
    )


def recent_entries(*, count: int = _SHOWN) -> QuerySet[AuditEntry]:
    """Newest first."""
    return AuditEntry.objects.all()[:count]
