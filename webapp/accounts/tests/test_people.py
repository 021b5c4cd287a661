from __future__ import annotations

import pytest
from django.conf import LazySettings
from django.http import HttpResponse
from django.test import Client, RequestFactory

from webapp.accounts.models import Role, User
from webapp.accounts.services import seed_demo_people
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

    def change(person: User, username: str) -> HttpResponse:
        address = f"/admin/accounts/user/{person.pk}/change/"
        fields = client.get(address).context["adminform"].form.initial
        joined = {"date_joined_0": "2026-01-01", "date_joined_1": "12:00:00"}
        return client.post(
            address,
            {"username": username, "role": fields["role"], "is_active": "on", **joined},
        )

    refused = change(ada, "Root")
    added = client.post(
        "/admin/accounts/user/add/",
        {
            "username": "Ada",
            "usable_password": "true",
            "password1": "correct horse battery",
            "password2": "correct horse battery",
            "role": Role.ANNOTATOR,
        },
    )

    assert b"The name Root is taken, in whatever case." in refused.content
    assert b"already exists" in added.content
    assert User.objects.count() == 3
    # Who reads alike since before this was looked at can still be changed.
    assert change(old, "ROOT").status_code == 302
    # One's own name in other letters is nobody else's.
    assert change(ada, "Ada").status_code == 302


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
