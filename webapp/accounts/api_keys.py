"""API keys: made, listed, used and revoked by the people with an account.

A key makes its program a visitor: it owns what it uploads and sees nothing else. It
does not carry the person's role, so that a key which leaks can neither label nor
administrate. An admin may give it one right, and has to say so: to train and promote.
"""

from __future__ import annotations

import hashlib
import secrets
from datetime import timedelta
from typing import Any, Final

from django.db import IntegrityError, transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from webapp.accounts import audit
from webapp.accounts.models import ApiKey, Role, User
from webapp.accounts.roles import has_role
from webapp.core.errors import Conflict, DomainError, NotAllowed, NotFound

MAX_KEYS: Final = 10
MAX_NAME_LENGTH: Final = 60
_PREFIX: Final = "mien_"
_HINT_LENGTH: Final = len(_PREFIX) + 4
_USED_AGAIN_AFTER: Final = timedelta(minutes=1)
"""A row is not written on every request."""


def create_api_key(
    *, person: User, name: str, may_train: bool = False
) -> tuple[ApiKey, str]:
    """A new key's row and the key itself, which is shown once and not kept.

    Raises ``DomainError`` for a name that will not do, ``NotAllowed`` where somebody
    gives a right that is not theirs, and ``Conflict`` where the person has a key of
    that name or ``MAX_KEYS`` already.
    """
    if may_train and not has_role(person, Role.ADMIN):
        raise NotAllowed("Only an admin may make a key that trains and promotes.")
    name = " ".join(name.split())
    if not name or len(name) > MAX_NAME_LENGTH:
        raise DomainError(
            f"Please give the key a name of 1 to {MAX_NAME_LENGTH} characters.",
            code="invalid_name",
        )
    key = _PREFIX + secrets.token_urlsafe(32)
    try:
        with transaction.atomic():
            # The person's row is the lock: of two at once, one counts after the other.
            User.objects.select_for_update().get(pk=person.pk)
            if api_keys_of(person=person).count() >= MAX_KEYS:
                raise Conflict(
                    f"You have {MAX_KEYS} keys already. Please revoke one first.",
                    code="too_many_keys",
                )
            row = ApiKey.objects.create(
                person=person,
                name=name,
                key_sha256=_hash(key),
                hint=key[:_HINT_LENGTH],
                visitor_key=_hash("visitor of " + secrets.token_urlsafe(32)),
                may_train=may_train,
            )
            if may_train:
                audit.record(
                    actor=person,
                    action="made an API key that may train",
                    subject=name,
                    hint=row.hint,
                )
            else:
                # What it is called is its person's own business.
                audit.record(
                    actor=person, action="made an API key", subject=person.username
                )
    except IntegrityError as error:
        raise Conflict(
            f"You have a key named {name} already. Please choose another name.",
            code="name_taken",
        ) from error
    return row, key


def api_keys_of(*, person: User) -> QuerySet[ApiKey]:
    """A person's keys that open something, newest first."""
    return ApiKey.objects.filter(person=person, revoked_at__isnull=True)


def revoke_api_key(*, person: User, key_id: Any) -> None:
    """End a key at once; its photos are due for erasure. ``NotFound`` for another's."""
    keys = api_keys_of(person=person).filter(pk=key_id)
    if not _revoke(keys, person=person, revoked_by=person):
        raise NotFound("You have no such key; it may have been revoked already.")


def revoke_keys_of(*, person: User, revoked_by: User) -> int:
    """End all keys of somebody, whose account may be closed; their photos are due for
    erasure, kept ones too. How many keys; ``NotAllowed`` for who is no admin."""
    if not has_role(revoked_by, Role.ADMIN):
        raise NotAllowed("Only an admin may revoke the keys of somebody else.")
    return _revoke(api_keys_of(person=person), person=person, revoked_by=revoked_by)


@transaction.atomic
def take_right_to_train(*, person: User, taken_by: User | None = None) -> None:
    """Leave a person's keys open, and none of them with the right to train."""
    rows = api_keys_of(person=person).select_for_update().filter(may_train=True)
    names = [row.name for row in rows]
    if not names:
        return
    api_keys_of(person=person).filter(may_train=True).update(may_train=False)
    audit.record(
        actor=taken_by,
        action="took the right to train from API keys",
        subject=person.username,
        keys=names,
    )


def find_api_key(*, key: str) -> ApiKey | None:
    """The open key of an active person, marked as used; else None."""
    found = ApiKey.objects.filter(
        key_sha256=_hash(key), revoked_at__isnull=True, person__is_active=True
    ).first()
    if found is not None:
        now = timezone.now()
        # Asked here: SQLite would wait for the one who writes to find nothing to do.
        if not found.last_used_at or found.last_used_at < now - _USED_AGAIN_AFTER:
            ApiKey.objects.filter(pk=found.pk).update(last_used_at=now)
    return found


def ended_visitor_keys() -> QuerySet[ApiKey, str]:
    """The owners that no key stands for any more: their photos are to be erased."""
    ended = Q(revoked_at__isnull=False) | Q(person__isnull=True)
    return ApiKey.objects.filter(ended).values_list("visitor_key", flat=True)


@transaction.atomic
def _revoke(keys: QuerySet[ApiKey], *, person: User, revoked_by: User) -> int:
    count = keys.update(revoked_at=timezone.now())
    if count:
        audit.record(
            actor=revoked_by,
            action="revoked API keys",
            subject=person.username,
            count=count,
        )
    return count


def _hash(text: str) -> str:
    """SHA-256 in hex: a key of 256 random bits needs no salt."""
    return hashlib.sha256(text.encode()).hexdigest()
