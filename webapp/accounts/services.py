"""State changes around people."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from django.conf import settings
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from webapp.accounts import audit
from webapp.accounts.api_keys import take_right_to_train
from webapp.accounts.models import Invitation, Role, User
from webapp.accounts.roles import has_role
from webapp.core.errors import Conflict, DomainError, NotAllowed, NotFound

INVITATION_LIFETIME: Final = timedelta(days=7)

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
        if not User(username=name).name_is_taken():
            is_admin = role == Role.ADMIN
            User.objects.create_user(
                name,
                password=password,
                role=role,
                is_staff=is_admin,
                is_superuser=is_admin,
            )
    known = set(User.objects.values_list("username", flat=True))
    return [
        (name, password, role.value)
        for name, role, password in DEMO_PEOPLE
        if name in known
    ]


@transaction.atomic
def close_known_passwords() -> list[str]:
    """Outside a demo, void the published passwords of its people; who had one.

    They come with a demo's database or its backup, and with them goes what whoever
    knew one may have made to come back by: open invitations, and the right of API
    keys to train. ``manage.py changepassword`` opens such an account again.
    """
    if settings.DEMO:
        return []
    closed = []
    for name, _, password in DEMO_PEOPLE:
        person = User.objects.select_for_update().filter(username=name).first()
        if person is None or not person.check_password(password):
            continue
        person.set_unusable_password()
        person.save(update_fields=["password"])
        audit.record(actor=None, action="voided a known password", subject=name)
        take_right_to_train(person=person)
        withdraw_invitations_of(person=person)
        closed.append(name)
    return closed


def said_of_closed(names: Sequence[str]) -> str:
    """What to tell the operator about ``close_known_passwords``."""
    return (
        f"The demo's published passwords do not open this site any more: "
        f"{', '.join(names)}. Their open invitations and their API keys' right to "
        f"train are gone, too. Give a new one with: manage.py changepassword {names[0]}"
    )


@transaction.atomic
def invite_person(
    *, role: Role, invited_by: User, note: str = ""
) -> tuple[Invitation, str]:
    """An invitation and its secret, which is shown once and not kept."""
    secret = secrets.token_urlsafe(32)
    invitation = Invitation.objects.create(
        role=role,
        note=note,
        secret_hash=_hash(secret),
        expires_at=timezone.now() + INVITATION_LIFETIME,
        invited_by=invited_by,
    )
    audit.record(actor=invited_by, action="invited", subject=note or "-", role=role)
    return invitation, secret


def open_invitations() -> QuerySet[Invitation]:
    """Those whose link makes an account, newest first. Whoever invited is an active
    admin still: who is none any more must not come back by a link of their own."""
    admins = User.objects.filter(
        Q(role=Role.ADMIN) | Q(is_superuser=True), is_active=True
    )
    return Invitation.objects.filter(
        used_at__isnull=True, expires_at__gt=timezone.now(), invited_by__in=admins
    )


def get_open_invitation(*, secret: str) -> Invitation:
    """The invitation that a link opens; ``NotFound`` where it opens none any more."""
    invitation = open_invitations().filter(secret_hash=_hash(secret)).first()
    if invitation is None:
        raise NotFound(
            "This invitation has been used or withdrawn, is older than a week, or "
            "whoever made it may invite nobody any more. Please ask for a new one."
        )
    return invitation


@transaction.atomic
def accept_invitation(*, secret: str, username: str, password: str) -> User:
    """Make the account that an invitation promises, once.

    Raises ``NotFound`` for a link that is void, ``Conflict`` for a name that is
    taken, in whatever case, and ``DomainError`` for a name or a password that will
    not do.
    """
    invitation = get_open_invitation(secret=secret)
    # One character may become many: its length is known after this alone.
    username = User.normalize_username(username)
    person = User(username=username, role=invitation.role)
    try:
        person.full_clean(exclude=["password"], validate_unique=False)
        validate_password(password, person)
    except ValidationError as error:
        raise DomainError(" ".join(error.messages), code="invalid_account") from error
    # Of two who hold the same link, one gets in.
    used = Invitation.objects.filter(pk=invitation.pk, used_at__isnull=True).update(
        used_at=timezone.now()
    )
    if not used:
        raise NotFound("This invitation was used a moment ago.")
    # Two who choose one name in letters of another case wait for each other.
    User.objects.select_for_update(no_key=True).order_by("pk").first()
    if person.name_is_taken():
        raise _name_taken(username)
    is_admin = invitation.role == Role.ADMIN
    try:
        with transaction.atomic():
            person = User.objects.create_user(
                username,
                password=password,
                role=invitation.role,
                is_staff=is_admin,
                is_superuser=is_admin,
            )
    except IntegrityError as error:
        raise _name_taken(username) from error
    Invitation.objects.filter(pk=invitation.pk).update(accepted_by=person)
    inviter = invitation.invited_by
    audit.record(
        actor=person,
        action="joined",
        subject=person.username,
        role=person.role,
        invited_by=inviter.username if inviter else "",
    )
    return person


@transaction.atomic
def withdraw_invitation(
    *, invitation: Invitation, withdrawn_by: User | None = None
) -> None:
    """Void a link that nobody has used; a used one stays as it is."""
    unused = Invitation.objects.filter(pk=invitation.pk, used_at__isnull=True)
    if unused.delete()[0]:
        audit.record(
            actor=withdrawn_by,
            action="withdrew an invitation",
            subject=invitation.note or "-",
            role=invitation.role,
        )


def withdraw_invitations_of(*, person: User, withdrawn_by: User | None = None) -> None:
    """Void all links of a person that nobody has used."""
    unused = Invitation.objects.filter(invited_by=person, used_at__isnull=True)
    for invitation in unused:
        withdraw_invitation(invitation=invitation, withdrawn_by=withdrawn_by)


@transaction.atomic
def change_person(
    *,
    person: User,
    changed_by: User,
    role: Role | None = None,
    is_active: bool | None = None,
) -> None:
    """Give a role, or close and open an account; nobody does that to themselves.

    So the last admin cannot lock everybody out, nor the last two each other. Their
    votes stay; the open invitations of who is no active admin any more are withdrawn.
    """
    if person.pk == changed_by.pk:
        raise DomainError(
            "You cannot change your own account here. Please ask another admin.",
            code="own_account",
        )
    # What is written is what stands there now, not what the page was made from.
    rows = User.objects.select_for_update().filter(pk__in=[person.pk, changed_by.pk])
    now = {row.pk: row for row in rows.order_by("pk")}
    if not has_role(now[changed_by.pk], Role.ADMIN):
        raise NotAllowed("Only an admin may change an account.")
    person = now[person.pk]
    before = {"role": person.role, "is_active": person.is_active}
    if role is not None:
        person.role = role
        person.is_staff = person.is_superuser = role == Role.ADMIN
    if is_active is not None:
        person.is_active = is_active
    person.save(update_fields=["role", "is_staff", "is_superuser", "is_active"])
    after = {"role": str(person.role), "is_active": person.is_active}
    audit.record(
        actor=changed_by,
        action="changed an account",
        subject=person.username,
        before=before,
        after=after,
    )
    if not has_role(person, Role.ADMIN):
        # Else they would open again with the account.
        withdraw_invitations_of(person=person, withdrawn_by=changed_by)


def _name_taken(username: str) -> Conflict:
    return Conflict(
        f"The name {username} is taken. Please choose another.", code="name_taken"
    )


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
