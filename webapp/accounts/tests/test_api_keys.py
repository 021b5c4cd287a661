"""API keys: made once, shown once, and the visitor of their own photos."""

from __future__ import annotations

import hashlib
import re
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from webapp.accounts.api_keys import (
    MAX_KEYS,
    api_keys_of,
    create_api_key,
    ended_visitor_keys,
    find_api_key,
    revoke_api_key,
    revoke_keys_of,
)
from webapp.accounts.models import ApiKey, AuditEntry, Role, User
from webapp.core.errors import Conflict, DomainError, NotAllowed, NotFound

pytestmark = pytest.mark.django_db

PAGE = "/accounts/api-keys/"


@pytest.fixture
def ada() -> User:
    return User.objects.create_user("ada", password="look-twice-ada")


@pytest.fixture
def max_() -> User:
    return User.objects.create_user("max", password="look-twice-max")


def test_key_that_was_used_a_moment_ago_writes_nothing(
    ada: User, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    """Else each program that merely reads waits for whoever writes."""
    _, key = create_api_key(person=ada, name="booth")
    assert find_api_key(key=key)

    with django_assert_num_queries(1):
        assert find_api_key(key=key)


class TestMaking:
    def test_of_a_key_only_its_hash_is_kept(self, ada: User) -> None:
        row, key = create_api_key(person=ada, name="booth")

        kept = ApiKey.objects.filter(pk=row.pk).values().get()
        assert kept["key_sha256"] == hashlib.sha256(key.encode()).hexdigest()
        assert all(key not in str(value) for value in kept.values())
        assert key.startswith(kept["hint"])
        assert len(key) >= 48

    def test_two_keys_are_two_visitors(self, ada: User) -> None:
        first, _ = create_api_key(person=ada, name="one")
        second, _ = create_api_key(person=ada, name="two")

        assert first.visitor_key != second.visitor_key

    @pytest.mark.parametrize("name", ["", "  \n", "x" * 61])
    def test_a_name_is_needed(self, ada: User, name: str) -> None:
        with pytest.raises(DomainError, match="name of 1 to 60"):
            create_api_key(person=ada, name=name)

    def test_a_name_is_free_again_once_its_key_is_revoked(self, ada: User) -> None:
        row, _ = create_api_key(person=ada, name="booth")
        with pytest.raises(Conflict, match="named booth already"):
            create_api_key(person=ada, name=" booth ")

        revoke_api_key(person=ada, key_id=row.pk)

        create_api_key(person=ada, name="booth")

    def test_there_are_not_more_than_ten(self, ada: User) -> None:
        for number in range(MAX_KEYS):
            create_api_key(person=ada, name=f"key {number}")

        with pytest.raises(Conflict, match="revoke one first"):
            create_api_key(person=ada, name="one more")

    def test_the_right_to_train_is_an_admins_to_give_and_is_written_down(
        self, ada: User
    ) -> None:
        with pytest.raises(NotAllowed, match="Only an admin"):
            create_api_key(person=ada, name="nightly", may_train=True)
        assert not AuditEntry.objects.exists()
        ada.role = Role.ADMIN
        ada.save()

        plain, _ = create_api_key(person=ada, name="booth")
        row, _ = create_api_key(person=ada, name="nightly", may_train=True)

        assert (plain.may_train, row.may_train) == (False, True)
        entry = AuditEntry.objects.get(action="made an API key that may train")
        assert (entry.actor, entry.subject) == ("ada", "nightly")
        assert entry.details == {"hint": row.hint}


class TestUsing:
    def test_use_is_noted_but_not_on_every_request(self, ada: User) -> None:
        row, key = create_api_key(person=ada, name="booth")

        assert find_api_key(key=key) == row
        row.refresh_from_db()
        first = row.last_used_at
        assert first is not None
        find_api_key(key=key)
        row.refresh_from_db()
        assert row.last_used_at == first

        ApiKey.objects.update(last_used_at=timezone.now() - timedelta(minutes=2))
        find_api_key(key=key)
        row.refresh_from_db()
        assert row.last_used_at is not None
        assert row.last_used_at >= first

    def test_a_revoked_key_opens_nothing(self, ada: User) -> None:
        row, key = create_api_key(person=ada, name="booth")
        revoke_api_key(person=ada, key_id=row.pk)

        assert find_api_key(key=key) is None
        assert list(ended_visitor_keys()) == [row.visitor_key]

    def test_making_and_revoking_are_written_down(self, ada: User) -> None:
        row, _ = create_api_key(person=ada, name="booth")
        revoke_api_key(person=ada, key_id=row.pk)

        revoked, made = AuditEntry.objects.all()

        assert (made.actor, made.action, made.subject) == (
            "ada",
            "made an API key",
            "ada",
        )
        assert (revoked.actor, revoked.action, revoked.subject) == (
            "ada",
            "revoked API keys",
            "ada",
        )
        assert (made.details, revoked.details) == ({}, {"count": 1})

    def test_an_admin_ends_all_keys_of_an_account_be_it_closed(
        self, ada: User, max_: User
    ) -> None:
        keys = [create_api_key(person=ada, name=name)[0] for name in ("one", "two")]
        _, other = create_api_key(person=max_, name="mine")
        User.objects.filter(pk=ada.pk).update(is_active=False)
        with pytest.raises(NotAllowed):
            revoke_keys_of(person=ada, revoked_by=max_)
        max_.role = Role.ADMIN
        max_.save()

        assert revoke_keys_of(person=ada, revoked_by=max_) == 2

        assert set(ended_visitor_keys()) == {key.visitor_key for key in keys}
        assert find_api_key(key=other) is not None
        entry = AuditEntry.objects.get(action="revoked API keys")
        assert (entry.actor, entry.subject, entry.details) == (
            "max",
            "ada",
            {"count": 2},
        )

    def test_the_key_of_a_closed_account_opens_nothing(self, ada: User) -> None:
        _, key = create_api_key(person=ada, name="booth")
        ada.is_active = False
        ada.save()

        assert find_api_key(key=key) is None

    def test_a_deleted_account_leaves_its_keys_as_ended(self, ada: User) -> None:
        row, key = create_api_key(person=ada, name="booth")
        ada.delete()

        assert find_api_key(key=key) is None
        assert list(ended_visitor_keys()) == [row.visitor_key]

    def test_nobody_revokes_the_key_of_another(self, ada: User, max_: User) -> None:
        row, key = create_api_key(person=ada, name="booth")

        with pytest.raises(NotFound):
            revoke_api_key(person=max_, key_id=row.pk)
        assert find_api_key(key=key) == row


class TestPage:
    def test_strangers_log_in_first(self, client: Client) -> None:
        response = client.get(PAGE)

        assert response.status_code == 302
        assert response["Location"].startswith("/accounts/login/")

    def test_a_key_is_shown_once(self, client: Client, ada: User) -> None:
        client.force_login(ada)

        made = client.post(PAGE, {"name": "booth"})

        key = made.context["new_key"]
        assert key in made.content.decode()
        assert "no-store" in made["Cache-Control"]
        assert find_api_key(key=key) is not None
        again = client.get(PAGE).content.decode()
        assert key not in again
        assert "booth" in again

    def test_a_name_twice_is_refused_in_words(self, client: Client, ada: User) -> None:
        client.force_login(ada)
        client.post(PAGE, {"name": "booth"})

        response = client.post(PAGE, {"name": "booth"})

        assert response.status_code == 409
        assert "Please choose another name." in response.content.decode()

    def test_a_refused_name_leaves_the_right_chosen(
        self, client: Client, max_: User
    ) -> None:
        User.objects.filter(pk=max_.pk).update(role=Role.ADMIN)
        client.force_login(max_)

        page = client.post(PAGE, {"name": " ", "may_train": "1"}).content.decode()

        assert re.search(r'id="may-train"[^>]* checked', page)

    def test_a_name_is_shown_as_text(self, client: Client, ada: User) -> None:
        client.force_login(ada)

        page = client.post(PAGE, {"name": "<script>x</script>"}).content.decode()

        assert "<script>x" not in page
        assert "&lt;script&gt;x" in page

    def test_only_an_admin_is_offered_the_right_to_train(
        self, client: Client, ada: User
    ) -> None:
        client.force_login(ada)
        assert "may_train" not in client.get(PAGE).content.decode()
        asked = client.post(PAGE, {"name": "nightly", "may_train": "1"})
        assert asked.status_code == 403
        assert "Only an admin" in asked.content.decode()
        ada.role = Role.ADMIN
        ada.save()

        made = client.post(PAGE, {"name": "nightly", "may_train": "1"})

        assert made.status_code == 200
        assert "May train and promote" in made.content.decode()
        assert api_keys_of(person=ada).get().may_train

    def test_revoking_is_one_form(self, client: Client, ada: User) -> None:
        client.force_login(ada)
        row, _ = create_api_key(person=ada, name="booth")

        response = client.post(f"{PAGE}{row.pk}/revoke/")

        assert (response.status_code, response["Location"]) == (303, PAGE)
        assert not api_keys_of(person=ada).exists()
        assert client.post(f"{PAGE}{row.pk}/revoke/").status_code == 404
        assert client.get(f"{PAGE}{row.pk}/revoke/").status_code == 405
