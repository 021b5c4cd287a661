from __future__ import annotations

from importlib import import_module

import pytest
from django.apps import apps
from django.conf import LazySettings
from django.core.management import call_command
from django.http import HttpResponse
from django.test import Client, RequestFactory
from django.urls import reverse

from webapp.accounts import audit
from webapp.accounts.api_keys import create_api_key, find_api_key
from webapp.accounts.models import AuditEntry, Role, User
from webapp.accounts.services import (
    close_known_passwords,
    invite_person,
    open_invitations,
    seed_demo_people,
)
from webapp.accounts.visitors import (
    COOKIE_NAME,
    new_visitor,
    remember_visitor,
    visitor_of,
)
from webapp.core.errors import DomainError


@pytest.mark.django_db
def test_demo_has_one_annotator_and_one_admin(settings: LazySettings) -> None:
    settings.DEMO = True

    people = seed_demo_people()
    seed_demo_people()

    assert sorted(role for _, _, role in people) == [Role.ADMIN, Role.ANNOTATOR]
    assert User.objects.count() == 2
    for name, password, _ in people:
        assert User.objects.get(username=name).check_password(password)


@pytest.mark.django_db
def test_public_site_has_no_known_passwords(settings: LazySettings) -> None:
    settings.DEMO = False

    with pytest.raises(DomainError):
        seed_demo_people()

    assert not User.objects.exists()


@pytest.mark.django_db
def test_published_passwords_of_a_demo_open_no_public_site(
    settings: LazySettings,
) -> None:
    settings.DEMO = True
    people = seed_demo_people()
    (first, _, _), (second, _, password) = people
    changed = User.objects.get(username=first)
    changed.set_password("another one entirely")
    changed.save()
    assert close_known_passwords() == []
    settings.DEMO = False

    assert close_known_passwords() == [second]
    assert close_known_passwords() == []

    assert User.objects.get(username=first).check_password("another one entirely")
    assert not User.objects.get(username=second).check_password(password)
    entry = AuditEntry.objects.get()
    assert (entry.action, entry.subject) == ("voided a known password", second)


@pytest.mark.django_db
def test_who_knew_a_published_password_has_no_other_way_back(
    settings: LazySettings,
) -> None:
    settings.DEMO = True
    (_, (name, _, _)) = seed_demo_people()
    known = User.objects.get(username=name)
    _, key = create_api_key(person=known, name="nightly", may_train=True)
    invite_person(role=Role.ADMIN, invited_by=known, note="me")
    other = User.objects.create_user("other", role=Role.ADMIN)
    invitation, _ = invite_person(role=Role.ADMIN, invited_by=other)
    _, kept = create_api_key(person=other, name="nightly", may_train=True)
    settings.DEMO = False

    close_known_passwords()

    rows = [find_api_key(key=text) for text in (key, kept)]
    assert [row and row.may_train for row in rows] == [False, True]
    assert open_invitations().get() == invitation
    withdrawn, taken = audit.recent_entries(count=2)
    assert (withdrawn.actor, withdrawn.action, withdrawn.subject) == (
        "",
        "withdrew an invitation",
        "me",
    )
    assert (taken.actor, taken.action, taken.subject) == (
        "",
        "took the right to train from API keys",
        name,
    )


@pytest.mark.django_db
def test_changed_demo_password_stays_changed(settings: LazySettings) -> None:
    settings.DEMO = True
    ((name, password, _), *_rest) = seed_demo_people()
    user = User.objects.get(username=name)
    user.set_password("another one entirely")
    user.save()

    seed_demo_people()

    assert not User.objects.get(username=name).check_password(password)


@pytest.mark.django_db
def test_demo_leaves_a_name_to_whoever_has_it_in_other_letters(
    settings: LazySettings,
) -> None:
    settings.DEMO = True
    User.objects.create_user("ADA")

    people = seed_demo_people()

    assert [name for name, *_ in people] == ["max"]
    assert set(User.objects.values_list("username", flat=True)) == {"ADA", "max"}


@pytest.mark.django_db
def test_admin_gives_no_name_that_reads_like_anothers(client: Client) -> None:
    admin = User.objects.create_superuser("root", role=Role.ADMIN)
    ada, old = User.objects.create_user("ada"), User.objects.create_user("ROOT")
    client.force_login(admin)

    def change(person: User, username: str) -> int:
        address = f"/admin/accounts/user/{person.pk}/change/"
        answer = client.post(address, {"username": username})
        taken = b"taken, in whatever case." in answer.content
        return 409 if taken else answer.status_code

    assert change(ada, "Root") == 409
    # Who reads alike since before this was looked at can still be changed.
    assert change(old, "ROOT") == 302
    # One's own name in other letters is nobody else's.
    assert change(ada, "Ada") == 302


@pytest.mark.django_db
def test_people_change_their_own_password_and_end_other_sessions(
    client: Client,
) -> None:
    eve = User.objects.create_user("eve", password="right-password-1")
    elsewhere = Client()
    for browser in (client, elsewhere):
        browser.force_login(eve)
    fields = {
        "old_password": "right-password-1",
        "new_password1": "another one entirely",
        "new_password2": "another one entirely",
    }

    for wrong in ({"old_password": "x"}, {"new_password2": "x"}):
        refused = client.post("/accounts/password/", {**fields, **wrong})
        assert 'role="alert"' in refused.content.decode()
    page = client.post("/accounts/password/", fields, follow=True)

    assert "Your password is changed." in page.content.decode()
    eve.refresh_from_db()
    assert eve.check_password("another one entirely")
    assert elsewhere.get("/accounts/password/").status_code == 302


@pytest.mark.django_db
def test_the_log_in_page_of_a_second_tab_leads_on_once_the_first_has_logged_in() -> (
    None
):
    User.objects.create_user("eve", password="right-password-1")
    browser = Client(enforce_csrf_checks=True)
    address = "/accounts/login/?next=/accounts/password/"
    token = browser.get(address).context["csrf_token"]
    fields = {
        "username": "eve",
        "password": "right-password-1",
        "csrfmiddlewaretoken": str(token),
    }
    first = browser.post(address, fields)
    assert first["Location"] == "/accounts/password/"

    second = browser.post(address, fields, follow=True)

    assert second.redirect_chain == [(address, 302), ("/accounts/password/", 302)]
    # Where nobody is logged in, the same is a form that was open for too long.
    browser.cookies.clear()
    assert browser.post(address, fields).status_code == 403


@pytest.mark.django_db
@pytest.mark.parametrize("leads_to", ["/accounts/login/", "/accounts/login/?next=/"])
def test_a_log_in_page_that_leads_to_itself_does_not_go_round_in_circles(
    client: Client, leads_to: str
) -> None:
    client.force_login(User.objects.create_user("eve"))

    response = client.get("/accounts/login/", {"next": leads_to})

    assert response.status_code == 302
    assert not response["Location"].startswith("/accounts/login/")


@pytest.mark.django_db
def test_five_wrong_passwords_lock_the_door(client: Client) -> None:
    User.objects.create_user("eve", password="right-password-1")
    for _ in range(5):
        client.post("/accounts/login/", {"username": "eve", "password": "wrong"})

    response = client.post(
        "/accounts/login/", {"username": "eve", "password": "right-password-1"}
    )

    assert response.status_code == 429
    assert "_auth_user_id" not in client.session


def test_visitor_survives_the_way_through_a_cookie() -> None:
    visitor, response = new_visitor(), HttpResponse()
    remember_visitor(response, visitor)
    request = RequestFactory().get("/")
    request.COOKIES[COOKIE_NAME] = response.cookies[COOKIE_NAME].value

    assert visitor_of(request) == visitor
    assert response.cookies[COOKIE_NAME]["httponly"]
    assert response.cookies[COOKIE_NAME]["samesite"] == "Lax"
    assert visitor.token not in visitor.key


@pytest.mark.parametrize("token", ["", "short", "a" * 44, "../" * 14 + "a", "ä" * 43])
def test_cookie_that_we_did_not_make_is_nobody(token: str) -> None:
    request = RequestFactory().get("/")
    request.COOKIES[COOKIE_NAME] = token

    assert visitor_of(request) is None


@pytest.mark.django_db
class TestDjangosAdmin:
    @pytest.fixture
    def admin(self, client: Client) -> User:
        admin = User.objects.create_superuser("max", password="a word of max")
        client.force_login(admin)
        return admin

    def test_nobody_changes_rights_there_not_even_their_own(
        self, client: Client, admin: User
    ) -> None:
        eve = User.objects.create_user("eve")
        form = {"username": "eve", "role": "admin", "is_superuser": "on"}

        for person in (eve, admin):
            address = reverse("admin:accounts_user_change", args=[person.pk])
            answer = client.post(address, form | {"username": person.username})
            assert answer.status_code == 302

        eve.refresh_from_db()
        admin.refresh_from_db()
        assert (eve.role, eve.is_superuser) == (Role.ANNOTATOR, False)
        assert admin.is_active
        assert admin.is_superuser

    def test_nobody_is_made_or_deleted_there(self, client: Client, admin: User) -> None:
        eve = User.objects.create_user("eve")

        assert client.get(reverse("admin:accounts_user_add")).status_code == 403
        address = reverse("admin:accounts_user_delete", args=[eve.pk])
        assert client.post(address, {"post": "yes"}).status_code == 403

    def test_new_name_and_new_password_are_written_down(
        self, client: Client, admin: User
    ) -> None:
        eve = User.objects.create_user("eve")
        words = {"password1": "look twice at it", "password2": "look twice at it"}

        client.post(
            reverse("admin:accounts_user_change", args=[eve.pk]), {"username": "eva"}
        )
        client.post(
            reverse("admin:auth_user_password_change", args=[eve.pk]),
            words | {"usable_password": "true"},
        )

        set_, edited = audit.recent_entries()
        assert (edited.actor, edited.action, edited.subject) == (
            "max",
            "edited an account",
            "eve",
        )
        assert edited.details == {"fields": ["username"], "name": "eva"}
        assert (set_.action, set_.subject) == ("set a password", "eva")
        eve.refresh_from_db()
        assert eve.check_password(words["password1"])

    def test_new_password_takes_what_was_made_under_the_old_one(
        self, client: Client, admin: User
    ) -> None:
        bo = User.objects.create_user("bo", role=Role.ADMIN)
        invite_person(role=Role.ADMIN, invited_by=bo, note="a friend")
        _, key = create_api_key(person=bo, name="nightly", may_train=True)
        words = {"password1": "look twice at it", "password2": "look twice at it"}

        client.post(
            reverse("admin:auth_user_password_change", args=[bo.pk]),
            words | {"usable_password": "true"},
        )

        row = find_api_key(key=key)
        assert row is not None
        assert not row.may_train
        assert not open_invitations().exists()
        withdrawn, taken = audit.recent_entries(count=2)
        assert (withdrawn.actor, withdrawn.subject) == ("max", "a friend")
        assert taken.action == "took the right to train from API keys"
        assert (taken.actor, taken.subject) == ("max", "bo")
        assert taken.details == {"keys": ["nightly"]}

    def test_a_name_of_dots_which_no_address_can_hold_is_refused(
        self, client: Client, admin: User
    ) -> None:
        eve = User.objects.create_user("eve")

        answer = client.post(
            reverse("admin:accounts_user_change", args=[eve.pk]), {"username": ".."}
        )

        assert b"A name needs more than dots." in answer.content
        eve.refresh_from_db()
        assert eve.username == "eve"

    def test_schedule_of_the_site_is_not_edited_there(
        self, client: Client, admin: User
    ) -> None:
        """An erasure could be switched off, unseen, and a run start at an hour that
        the page of the schedule cannot show."""
        page = client.get(reverse("admin:index")).content.decode()

        assert "django_celery_beat" not in page


@pytest.mark.django_db
def test_whoever_the_command_line_made_is_called_an_admin() -> None:
    """Among the people nobody with all rights looks like an annotator."""
    call_command("createsuperuser", username="root", email="", interactive=False)

    assert User.objects.get().role == Role.ADMIN


@pytest.mark.django_db
def test_those_of_earlier_releases_are_called_so_after_an_upgrade() -> None:
    root = User.objects.create_superuser("root", role=Role.ANNOTATOR)
    eve = User.objects.create_user("eve")
    migration = import_module("webapp.accounts.migrations.0006_superusers_are_admins")

    migration.name_them(apps, None)

    root.refresh_from_db()
    eve.refresh_from_db()
    assert (root.role, eve.role) == (Role.ADMIN, Role.ANNOTATOR)
