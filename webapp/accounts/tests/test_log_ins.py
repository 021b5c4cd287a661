"""How often an address may try a password, and what is kept of each try."""

from __future__ import annotations

import pytest
from axes.models import AccessAttempt, AccessLog
from django.apps import apps
from django.conf import LazySettings
from django.test import Client
from django.urls import reverse

from webapp.accounts.models import Invitation, Role, User
from webapp.accounts.services import invite_person

pytestmark = pytest.mark.django_db

LOG_IN = "/accounts/login/"
WRONG = {"username": "eve", "password": "wrong"}


@pytest.fixture
def admin() -> User:
    return User.objects.create_superuser("max")


def from_address(address: str) -> Client:
    return Client(REMOTE_ADDR=address)


def test_wrong_passwords_from_all_of_an_ipv6_network_lock_one_door() -> None:
    for number in range(5):
        from_address(f"2001:db8:1:2::{number}").post(LOG_IN, WRONG)

    assert from_address("2001:db8:1:2:aaaa::9").post(LOG_IN, WRONG).status_code == 429
    assert from_address("2001:db8:1:3::9").post(LOG_IN, WRONG).status_code == 200


def test_address_that_tries_many_names_waits(settings: LazySettings) -> None:
    settings.RATES = settings.RATES | {"login": "3/hour"}
    eve = User.objects.create_user("eve", password="right-password-1")
    client = from_address("198.51.100.11")
    for name in ("adam", "bert", "carl"):
        client.post(LOG_IN, {"username": name, "password": "Summer2026!"})

    right = {"username": "eve", "password": "right-password-1"}
    answer = client.post(LOG_IN, right)
    elsewhere = from_address("198.51.100.12")
    elsewhere.post(LOG_IN, right)

    assert answer.status_code == 429
    assert 0 < int(answer["Retry-After"]) <= 3600
    assert "_auth_user_id" not in client.session
    assert elsewhere.session["_auth_user_id"] == str(eve.pk)


@pytest.mark.parametrize("door", ["django's admin", "password", "invitation"])
def test_no_other_door_lets_more_passwords_through(
    settings: LazySettings, admin: User, door: str
) -> None:
    settings.RATES = settings.RATES | {"login": "2/hour"}
    client = from_address(f"198.51.100.{20 + len(door)}")
    if door == "django's admin":
        url = reverse("admin:login")
    elif door == "password":
        client.force_login(admin)
        url = reverse("accounts:password")
    else:
        secret = invite_person(role=Role.ANNOTATOR, invited_by=admin)[1]
        url = reverse("accounts:invitation", args=[secret])

    said = [
        client.post(url, WRONG | {"old_password": "guess"}).status_code
        for _ in range(3)
    ]

    assert said[2] == 429
    assert 429 not in said[:2]


def test_secret_of_an_invitation_is_in_no_column_once_it_is_used(admin: User) -> None:
    secret = invite_person(role=Role.ANNOTATOR, invited_by=admin)[1]
    client = from_address("198.51.100.40")
    client.post(
        reverse("accounts:invitation", args=[secret]),
        {"username": "eve", "password": "correct horse battery"},
    )
    client.post(reverse("accounts:logout"))

    assert Invitation.objects.get().accepted_by is not None
    for model in apps.get_models():
        for row in model._default_manager.values():
            assert secret not in str(row), model
    log = AccessLog.objects.get()
    assert (log.username, log.path_info) == ("eve", "accounts:invitation")
    assert log.logout_time is not None


def test_admin_reads_the_record_of_log_ins_and_deletes_nothing_of_it(
    admin: User,
) -> None:
    from_address("198.51.100.50").post(LOG_IN, WRONG)
    client = Client()
    client.force_login(admin)
    log = AccessLog.objects.create(username="max", ip_address="192.0.2.1")

    for row in (log, AccessAttempt.objects.get()):
        name = f"admin:axes_{row._meta.model_name}"
        assert client.get(reverse(f"{name}_changelist")).status_code == 200
        one = reverse(f"{name}_delete", args=[row.pk])
        assert client.post(one, {"post": "yes"}).status_code == 403
        client.post(
            reverse(f"{name}_changelist"),
            {"action": "delete_selected", "_selected_action": row.pk, "post": "yes"},
        )
        row.refresh_from_db()
