from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.conf import LazySettings
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from webapp.accounts import audit
from webapp.accounts.models import Invitation, Role, User
from webapp.accounts.roles import has_role
from webapp.accounts.services import (
    accept_invitation,
    change_person,
    invite_person,
    open_invitations,
    withdraw_invitation,
)
from webapp.core.errors import Conflict, DomainError, NotAllowed, NotFound

pytestmark = pytest.mark.django_db

PASSWORD = "correct horse battery"


@pytest.fixture
def admin() -> User:
    return User.objects.create_user("root", role=Role.ADMIN)


def secret_for(admin: User, role: Role = Role.ANNOTATOR) -> str:
    return invite_person(role=role, invited_by=admin)[1]


def test_link_makes_one_account_and_logs_it_in(admin: User, client: Client) -> None:
    url = reverse("accounts:invitation", args=[secret_for(admin, Role.ADJUDICATOR)])
    assert client.get(url)["Referrer-Policy"] == "strict-origin"

    client.post(url, {"username": "eve", "password": PASSWORD})

    person = User.objects.get(username="eve")
    assert person.role == Role.ADJUDICATOR
    assert not person.is_staff
    assert client.session["_auth_user_id"] == str(person.pk)
    assert Client().get(url).status_code == 404
    assert Invitation.objects.get().accepted_by == person


def test_secret_is_not_kept(admin: User) -> None:
    secret = secret_for(admin)

    assert secret not in str(Invitation.objects.values().get())


def test_invited_admin_is_one(admin: User) -> None:
    person = accept_invitation(
        secret=secret_for(admin, Role.ADMIN), username="eve", password=PASSWORD
    )

    assert has_role(person, Role.ADMIN)
    assert person.is_staff


def test_old_withdrawn_and_wrong_links_open_nothing(admin: User) -> None:
    old, withdrawn = secret_for(admin), secret_for(admin)
    Invitation.objects.filter(pk=Invitation.objects.last().pk).update(
        expires_at=timezone.now() - timedelta(seconds=1)
    )
    for invitation in Invitation.objects.filter(expires_at__gt=timezone.now()):
        withdraw_invitation(invitation=invitation)

    for secret in (old, withdrawn, "guess"):
        with pytest.raises(NotFound, match="ask for a new one"):
            accept_invitation(secret=secret, username="eve", password=PASSWORD)


@pytest.mark.parametrize("change", [{"is_active": False}, {"role": Role.ADJUDICATOR}])
def test_who_is_no_admin_any_more_does_not_come_back_by_their_own_link(
    admin: User, change: dict[str, Any]
) -> None:
    other = User.objects.create_user("other", role=Role.ADMIN)
    secret = secret_for(other, Role.ADMIN)
    change_person(person=other, changed_by=admin, **change)

    with pytest.raises(NotFound, match="may invite nobody any more"):
        accept_invitation(secret=secret, username="back", password=PASSWORD)

    assert not open_invitations().exists()
    withdrawn = audit.recent_entries()[0]
    assert (withdrawn.actor, withdrawn.action) == ("root", "withdrew an invitation")

    # Nor does the link open again with the account.
    change_person(person=other, changed_by=admin, role=Role.ADMIN, is_active=True)
    assert not open_invitations().exists()


@pytest.mark.parametrize(
    ("name", "password", "error"),
    [
        ("eve", "short", DomainError),
        ("eve", "12345678901", DomainError),
        ("a b c", PASSWORD, DomainError),
        ("", PASSWORD, DomainError),
        ("..", PASSWORD, DomainError),
        ("\N{ARABIC LIGATURE SALLALLAHOU ALAYHE WASALLAM}" * 9, PASSWORD, DomainError),
        ("\N{LATIN SMALL LIGATURE FFI}" * 51, PASSWORD, DomainError),
        ("root", PASSWORD, Conflict),
        # Two accounts that read alike are one person pretending to be another.
        ("ROOT", PASSWORD, Conflict),
    ],
)
def test_bad_name_or_password_leaves_the_link_as_it_was(
    admin: User, client: Client, name: str, password: str, error: type[Exception]
) -> None:
    secret = secret_for(admin)
    with pytest.raises(error):
        accept_invitation(secret=secret, username=name, password=password)

    url = reverse("accounts:invitation", args=[secret])
    response = client.post(url, {"username": name, "password": password})

    assert response.status_code in (400, 409)
    assert b'role="alert"' in response.content
    assert User.objects.count() == 1
    assert accept_invitation(secret=secret, username="eve", password=PASSWORD)


def test_case_of_letters_beyond_ascii_counts_as_little(admin: User) -> None:
    User.objects.create_user("Zo\N{LATIN SMALL LETTER E WITH DIAERESIS}")

    with pytest.raises(Conflict, match="is taken"):
        accept_invitation(
            secret=secret_for(admin),
            username="zo\N{LATIN CAPITAL LETTER E WITH DIAERESIS}",
            password=PASSWORD,
        )


def test_roles_include_the_ones_before() -> None:
    judge = User(username="j", role=Role.ADJUDICATOR)

    assert has_role(judge, Role.ANNOTATOR)
    assert has_role(judge, Role.ADJUDICATOR)
    assert not has_role(judge, Role.ADMIN)
    judge.is_active = False
    assert not has_role(judge, Role.ANNOTATOR)


def test_nobody_changes_their_own_account(admin: User) -> None:
    with pytest.raises(DomainError, match="another admin"):
        change_person(person=admin, changed_by=admin, is_active=False)


def test_role_of_another_can_be_changed(admin: User) -> None:
    person = User.objects.create_user("eve")

    change_person(person=person, changed_by=admin, role=Role.ADMIN)
    person.refresh_from_db()
    assert person.is_staff
    change_person(person=person, changed_by=admin, role=Role.ANNOTATOR)
    person.refresh_from_db()
    assert not person.is_superuser


def test_a_change_keeps_what_another_admin_changed_meanwhile(admin: User) -> None:
    person = User.objects.create_user("eve")
    seen_before = User.objects.get(pk=person.pk)

    change_person(person=person, changed_by=admin, is_active=False)
    change_person(person=seen_before, changed_by=admin, role=Role.ADJUDICATOR)

    person.refresh_from_db()
    assert not person.is_active
    assert person.role == Role.ADJUDICATOR


def test_two_admins_cannot_demote_each_other(admin: User) -> None:
    other = User.objects.create_user("other", role=Role.ADMIN)
    admin_before, other_before = (User.objects.get(pk=p.pk) for p in (admin, other))

    change_person(person=other, changed_by=admin, role=Role.ANNOTATOR)
    with pytest.raises(NotAllowed):
        change_person(person=admin_before, changed_by=other_before, is_active=False)

    admin.refresh_from_db()
    assert has_role(admin, Role.ADMIN)


def test_five_wrong_passwords_lock_out_with_a_sentence(
    client: Client, settings: LazySettings
) -> None:
    User.objects.create_user("eve", password=PASSWORD)
    url = reverse("accounts:login")
    for _ in range(settings.AXES_FAILURE_LIMIT):
        response = client.post(url, {"username": "eve", "password": "wrong"})

    assert response.status_code == 429
    assert response["Retry-After"] == "900"
    assert b"wait 15 minutes" in response.content
    right = client.post(url, {"username": "eve", "password": PASSWORD})
    assert right.status_code == 429
