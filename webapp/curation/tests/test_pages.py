from __future__ import annotations

import io
import tempfile
import uuid
import zipfile
from collections.abc import Callable
from typing import Any

import pytest
from django.conf import LazySettings
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.test import Client
from django.urls import reverse
from PIL import Image

from tests.pictures import astronaut, encode
from webapp.accounts.api_keys import create_api_key, ended_visitor_keys
from webapp.accounts.models import Role, User
from webapp.accounts.services import invite_person
from webapp.curation.models import Claim, Consensus, Correction, GoldFace, Pause
from webapp.curation.services.claims import claim_faces
from webapp.curation.services.flags import submit_flag
from webapp.curation.services.votes import (
    adjudicate,
    adjudicate_many,
    submit_correction,
)
from webapp.curation.tests.factories import (
    WAYS_OUT_OF_REACH,
    PersonFactory,
    QueuedFaceFactory,
    let_labels_settle,
)
from webapp.photos.models import Face

pytestmark = pytest.mark.django_db

Person = tuple[Client, User]


def dispute() -> Face:
    face = QueuedFaceFactory()
    for verdict in ("happy", "sad", "unclear"):
        person = PersonFactory()
        (claim,) = claim_faces(person=person)
        submit_correction(
            person=person, claim_id=claim.pk, verdict=verdict, comment=f"so {verdict}"
        )
    return face


PAGES = {
    "annotator": ["dashboard", "desk", "me"],
    "judge": ["disputes", "alike", "golds", "people"],
}


@pytest.mark.parametrize("name", [*PAGES["annotator"], *PAGES["judge"]])
def test_strangers_log_in_first(client: Client, name: str) -> None:
    response = client.get(reverse(f"curation:{name}"))

    assert response.status_code == 302
    assert response["Location"].startswith("/accounts/login/")


def test_who_was_logged_out_comes_back_to_the_form(client: Client) -> None:
    """Nobody is led to an address that answers a POST alone."""
    form = reverse("curation:people")
    url = reverse("curation:invite")
    data = {"role": "annotator"}

    answer = client.post(url, data, headers={"Referer": f"http://testserver{form}"})
    assert answer["Location"] == f"/accounts/login/?next={form}"
    page = client.get(answer["Location"]).content.decode()
    assert "You were logged out, and nothing was changed." in page
    assert 'class="notice notice-error"' in page

    for elsewhere in ("http://evil.example/x", ""):
        answer = client.post(url, data, headers={"Referer": elsewhere})
        assert answer["Location"] == "/accounts/login/?next=/"


@pytest.mark.parametrize("name", PAGES["judge"])
def test_annotators_do_not_judge(annotator: Person, name: str) -> None:
    assert annotator[0].get(reverse(f"curation:{name}")).status_code == 403


@pytest.mark.parametrize("name", [*PAGES["annotator"], *PAGES["judge"]])
def test_pages_stand_on_an_empty_site_and_on_a_full_one(
    admin: Person, name: str
) -> None:
    assert admin[0].get(reverse(f"curation:{name}")).status_code == 200
    dispute()
    QueuedFaceFactory.create_batch(3)

    response = admin[0].get(reverse(f"curation:{name}"))

    assert response.status_code == 200
    assert b"style=" not in response.content
    assert b"{{" not in response.content


def test_desk_works_as_a_plain_form(annotator: Person) -> None:
    client, person = annotator
    QueuedFaceFactory.create_batch(2)
    client.get(reverse("curation:desk"))
    first = Claim.objects.get(person=person)

    client.post(reverse("curation:vote", args=[first.pk]), {"verdict": "sad"})
    client.post(reverse("curation:undo"))
    client.post(reverse("curation:vote", args=[first.pk]), {"verdict": "happy"})
    client.get(reverse("curation:desk"))
    second = Claim.objects.get(person=person, status="held")
    client.post(reverse("curation:vote", args=[second.pk]), {"verdict": "skip"})

    said = Correction.objects.filter(author=person, retracted_at=None)
    assert [row.verdict for row in said] == ["happy"]
    assert b"Nothing waits for you" in client.get(reverse("curation:desk")).content


def test_nobody_takes_a_face_by_asking_whether_the_desk_is_there(
    annotator: Person,
) -> None:
    QueuedFaceFactory()

    assert annotator[0].head(reverse("curation:desk")).status_code == 200

    assert not Claim.objects.exists()


def test_lost_face_is_explained_and_the_desk_goes_on(annotator: Person) -> None:
    client, _ = annotator
    url = reverse("curation:vote", args=[uuid.uuid4()])

    response = client.post(url, {"verdict": "sad"}, follow=True)

    assert "not yours any more" in response.content.decode()


def test_stopping_gives_the_faces_back(annotator: Person) -> None:
    client, person = annotator
    QueuedFaceFactory()
    client.get(reverse("curation:desk"))

    client.post(reverse("curation:stop"))

    assert not Claim.objects.filter(person=person).exists()


def test_paused_person_reads_why(annotator: Person) -> None:
    client, person = annotator
    Pause.objects.create(person=person, reason="Thank you. Let us talk.")

    response = client.get(reverse("curation:desk"))

    assert response.status_code == 403
    assert b"Thank you. Let us talk." in response.content


def test_pictures_are_for_who_holds_the_face(annotator: Person) -> None:
    client, person = annotator
    face = QueuedFaceFactory(photo__width_px=512, photo__height_px=512, x=180, y=70)
    default_storage.save(face.photo.file_name, ContentFile(encode(astronaut())))
    (claim,) = claim_faces(person=person)
    stranger = Client()
    stranger.force_login(PersonFactory())

    for name in ("face", "photo"):
        url = reverse(f"curation:{name}", args=[claim.pk])
        picture = Image.open(io.BytesIO(client.get(url).content))
        assert picture.format == "JPEG"
        assert stranger.get(url).status_code == 404
        assert Client().get(url).status_code == 302
    assert picture.size == (512, 512)


@pytest.mark.parametrize("put_out_of_reach", WAYS_OUT_OF_REACH)
def test_nobody_sees_a_face_after_its_owner_took_it_back(
    judge: Person, put_out_of_reach: Callable[[Face], None]
) -> None:
    client, person = judge
    taken_back, other = QueuedFaceFactory(), QueuedFaceFactory()
    claim, _ = claim_faces(person=person, count=2)
    assert claim.face_id == taken_back.pk
    put_out_of_reach(taken_back)

    for name in ("face", "photo"):
        url = reverse(f"curation:{name}", args=[claim.pk])
        assert client.get(url).status_code == 404
    for name in ("history", "judged-face", "judged-photo"):
        url = reverse(f"curation:{name}", args=[taken_back.pk])
        assert client.get(url).status_code == 404
    grid = client.get(reverse("curation:alike"), {"seed": taken_back.pk})
    assert str(taken_back.pk) not in grid.content.decode()
    answer = client.post(
        reverse("curation:vote", args=[claim.pk]), {"verdict": "sad"}, follow=True
    ).content.decode()
    assert "its owner took it back" in answer
    assert [held.face_id for held in claim_faces(person=person)] == [other.pk]


def test_pictures_are_open_as_long_as_the_label_can_be_changed(
    annotator: Person,
) -> None:
    client, person = annotator
    QueuedFaceFactory()
    (claim,) = claim_faces(person=person)
    submit_correction(person=person, claim_id=claim.pk, verdict="sad")
    urls = [reverse(f"curation:{name}", args=[claim.pk]) for name in ("face", "photo")]
    for url in urls:
        response = client.get(url)
        assert response.status_code == 200
        assert response["Cache-Control"] == "private, no-store"

    let_labels_settle()

    for url in urls:
        assert client.get(url).status_code == 404


@pytest.mark.parametrize("stored", [b"no picture", encode(astronaut())[:2000]])
def test_damaged_photo_is_shown_by_its_crop_and_a_damaged_crop_is_404(
    annotator: Person, stored: bytes
) -> None:
    client, person = annotator
    face = QueuedFaceFactory()
    default_storage.save(face.photo.file_name, ContentFile(stored))
    (claim,) = claim_faces(person=person)
    urls = [reverse(f"curation:{name}", args=[claim.pk]) for name in ("face", "photo")]
    for url in urls:
        picture = Image.open(io.BytesIO(client.get(url).content))
        assert picture.size == (48, 48)

    Face.objects.update(crop=face.crop[:60])

    for url in urls:
        response = client.get(url)
        assert response.status_code == 404
        assert b"The picture of this face is damaged" in response.content


def test_picture_of_a_photo_that_is_gone_is_the_crop(annotator: Person) -> None:
    client, person = annotator
    QueuedFaceFactory()
    (claim,) = claim_faces(person=person)

    for name in ("face", "photo"):
        response = client.get(reverse(f"curation:{name}", args=[claim.pk]))
        assert Image.open(io.BytesIO(response.content)).size == (48, 48)


def test_adjudicator_sees_all_votes_and_comments_and_decides(judge: Person) -> None:
    client, _ = judge
    face = dispute()
    page = client.get(reverse("curation:disputes")).content.decode()
    for words in ("so happy", "so sad", "so unclear"):
        assert words in page

    client.post(
        reverse("curation:judge", args=[face.pk]),
        {"verdict": "sad", "comment": "the brows", "disputed": "1"},
    )

    assert Consensus.objects.get(face=face).verdict == "sad"
    assert b"Everybody agrees" in client.get(reverse("curation:disputes")).content
    client.post(reverse("curation:judge", args=[face.pk]), {"verdict": "retract"})
    assert Consensus.objects.get(face=face).state == "disputed"


def test_second_of_two_adjudicators_does_not_overrule_unawares(
    judge: Person, admin: Person
) -> None:
    face = dispute()
    url = reverse("curation:judge", args=[face.pk])
    for client, _ in (judge, admin):
        assert str(face.pk) in client.get(reverse("curation:disputes")).content.decode()
    seen = {"comment": "", "disputed": "1"}

    for _ in range(2):
        page = judge[0].post(url, {"verdict": "sad", **seen}, follow=True)
        assert "Decided." in page.content.decode()
    page = admin[0].post(url, {"verdict": "happy", **seen}, follow=True)

    assert "decided this face meanwhile" in page.content.decode()
    assert Consensus.objects.get(face=face).verdict == "sad"
    admin[0].post(url, {"verdict": "happy"})
    assert Consensus.objects.get(face=face).verdict == "happy"


def test_face_becomes_gold_and_is_gold_no_longer(judge: Person) -> None:
    client, _ = judge
    face = dispute()
    url = reverse("curation:gold", args=[face.pk])
    client.post(url, {"gold": "1"})
    assert not GoldFace.objects.exists()

    client.post(reverse("curation:judge", args=[face.pk]), {"verdict": "sad"})
    for _ in range(2):
        page = client.post(url, {"gold": "1"}, follow=True).content.decode()
        assert GoldFace.objects.get().verdict == "sad"
    assert 'name="gold" value="0"' in page
    page = client.post(url, follow=True).content.decode()
    assert "whether the face is to be gold" in page
    assert GoldFace.objects.exists()
    for _ in range(2):
        page = client.post(url, {"gold": "0"}, follow=True).content.decode()
        assert not GoldFace.objects.exists()
    assert 'name="gold" value="1"' in page


def test_grid_labels_many_and_takes_them_back(judge: Person) -> None:
    client, _ = judge
    faces = QueuedFaceFactory.create_batch(3)
    url = reverse("curation:alike")

    response = client.post(
        url, {"face": [face.pk for face in faces[:2]], "verdict": "neutral"}
    )

    assert response.status_code == 303
    assert Consensus.objects.filter(verdict="neutral").count() == 2
    page = client.get(response["Location"]).content.decode()
    batch = Correction.objects.first().batch
    assert reverse("curation:undo-alike", args=[batch]) in page
    client.post(reverse("curation:undo-alike", args=[batch]))
    assert not Consensus.objects.filter(verdict="neutral").exists()
    assert client.post(url, {"verdict": "sad"}).status_code == 303
    page = client.post(url, {"face": "x", "verdict": "sad"}, follow=True)
    assert "Select faces of this page." in page.content.decode()


def test_grid_overrules_nothing_that_was_decided(judge: Person) -> None:
    client, _ = judge
    decided, waiting = QueuedFaceFactory.create_batch(2)
    url = reverse("curation:alike")
    assert page_has_box(client.get(url), decided)
    adjudicate(
        person=PersonFactory(role=Role.ADJUDICATOR),
        face_id=decided.pk,
        verdict="happy",
    )
    said = {"face": [decided.pk, waiting.pk], "verdict": "sad"}

    page = client.post(url, said, follow=True).content.decode()
    assert "1 face was left out" in page
    page = client.post(url, {**said, "face": decided.pk}, follow=True).content.decode()
    assert "have been decided" in page
    grid = client.get(url, {"seed": decided.pk})

    assert Consensus.objects.get(face=decided).verdict == "happy"
    assert Consensus.objects.get(face=waiting).verdict == "sad"
    assert "Decided already" in grid.content.decode()
    assert not page_has_box(grid, decided)


def page_has_box(response: Any, face: Face) -> bool:
    return f'name="face" value="{face.pk}"' in response.content.decode()


def test_pages_count_one_of_something_rightly(
    judge: Person, settings: LazySettings
) -> None:
    client, person = judge
    settings.RETRAIN_AFTER_LABELS = 2
    batch = adjudicate_many(
        person=person, face_ids=[QueuedFaceFactory().pk], verdict="sad"
    )

    page = client.get(reverse("curation:dashboard")).content.decode()
    assert "<b>1 more</b> makes a training" in page
    assert "1 label in 30 days" in page
    url = reverse("curation:undo-alike", args=[batch])
    assert "1 label taken back." in client.post(url, follow=True).content.decode()


def test_history_says_in_words_who_decided(judge: Person) -> None:
    client, person = judge
    face = dispute()
    submit_flag(face=face, visitor_key="v" * 64, verdict="happy")
    adjudicate(person=person, face_id=face.pk, verdict="sad")

    page = client.get(reverse("curation:history", args=[face.pk])).content.decode()

    assert "<dt>Decided by</dt><dd>an adjudicator</dd>" in page
    assert "<td>Visitor</td>" in page
    assert "When (UTC)" in page


def test_people_come_in_pages(judge: Person) -> None:
    client, _ = judge
    PersonFactory.create_batch(25, is_active=False)
    url = reverse("curation:people")

    first = client.get(url).content.decode()
    last = client.get(url, {"page": 2}).content.decode()

    assert "Page 1 of 2" in first
    assert (first.count('<th scope="row">'), last.count('<th scope="row">')) == (25, 1)


def test_annotator_sees_their_own_figures_and_nobody_elses(annotator: Person) -> None:
    client, _ = annotator
    other = PersonFactory()

    assert client.get(reverse("curation:me")).status_code == 200
    url = reverse("curation:person", args=[other.username])
    assert client.get(url).status_code == 403


def test_admin_changes_roles_closes_accounts_and_lifts_pauses(admin: Person) -> None:
    client, me = admin
    person = PersonFactory()
    Pause.objects.create(person=person, reason="x")
    url = reverse("curation:change-person", args=[person.username])

    for action in ("adjudicator", "close", "lift"):
        assert client.post(url, {"action": action}).status_code == 303
    person.refresh_from_db()
    assert (person.role, person.is_active) == ("adjudicator", False)
    assert not Pause.objects.filter(lifted_at=None).exists()

    client.post(
        reverse("curation:change-person", args=[me.username]), {"action": "close"}
    )
    me.refresh_from_db()
    assert me.is_active


def test_admin_ends_the_keys_of_a_closed_account(admin: Person) -> None:
    client, _ = admin
    person = PersonFactory(is_active=False)
    url = reverse("curation:person", args=[person.username])
    assert "revoke-keys" not in client.get(url).content.decode()
    row, _ = create_api_key(person=person, name="booth")
    assert "Revoke 1 API key<" in client.get(url).content.decode()

    answer = client.post(
        reverse("curation:change-person", args=[person.username]),
        {"action": "revoke-keys"},
    )

    assert answer.status_code == 303
    assert list(ended_visitor_keys()) == [row.visitor_key]


def test_open_invitations_tell_who_made_them(admin: Person) -> None:
    client, me = admin
    for note, by in (("mine", me), ("theirs", PersonFactory(username="closed"))):
        invite_person(role=Role.ANNOTATOR, note=note, invited_by=by)

    page = client.get(reverse("curation:people")).content.decode()

    assert "for <bdi>mine</bdi>" in page
    assert f"by <bdi>{me.username}</bdi>" in page
    assert "theirs" not in page


@pytest.mark.parametrize("kind", ["csv", "jsonl", "zip"])
def test_labels_are_taken_along(
    judge: Person, annotator: Person, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What kills the process meanwhile leaves no face behind: no folder is made.
    monkeypatch.setattr(tempfile, "mkdtemp", None)
    face = dispute()
    url = reverse("curation:export", args=[kind])
    assert annotator[0].get(url).status_code == 403

    response = judge[0].get(url)

    assert response["Cache-Control"] == "private, no-store"
    data = b"".join(response.streaming_content)
    if kind == "zip":
        names = zipfile.ZipFile(io.BytesIO(data)).namelist()
        assert names == [f"mien/open/{face.pk}.png", "mien/manifest.jsonl"]
    else:
        assert data.count(b"so happy") == 1
