"""Before the vote nothing tells what the model, the visitor or anybody else said."""

from __future__ import annotations

import json
import re
import uuid
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from webapp.accounts.models import User
from webapp.curation.models import Claim, Correction, GoldFace, QueueItem
from webapp.curation.selectors import live_accuracy, settled_until
from webapp.curation.services.claims import claim_faces
from webapp.curation.services.flags import submit_flag
from webapp.curation.services.quality import add_gold
from webapp.curation.services.votes import submit_correction, undo
from webapp.curation.tests.factories import (
    FaceFactory,
    PersonFactory,
    QueuedFaceFactory,
    let_labels_settle,
    refresh_faces,
)
from webapp.photos.models import Face

pytestmark = pytest.mark.django_db

Person = tuple[Client, User]

_UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")
_CHANGES = re.compile(
    r'(csrfmiddlewaretoken" value="\w+")|("(?:expires|oldest)_at":"[^"]+")|'
    r"(person\d+)|('Expires', '[^']+')|('X-Request-ID', '\w+')"
)


def known_face(model: str, visitor: str, other: str) -> Face:
    """A face of which the model, a visitor and an annotator said these words."""
    words = ("happy", "sad", "surprise", "neutral")
    face = QueuedFaceFactory(
        probabilities=tuple(0.97 if word == model else 0.01 for word in words)
    )
    submit_flag(face=face, visitor_key="v" * 64, verdict=visitor)
    Correction.objects.create(
        face=face,
        author=PersonFactory(),
        verdict=other,
        source="annotator",
        comment=f"clearly {other}",
    )
    return face


def every_response(client: Client, person: User, face: Face) -> dict[str, str]:
    """What an annotator can read before the vote, by address, with everything that
    differs by chance made alike."""
    texts: dict[str, str] = {}

    def keep(name: str, response: object) -> None:
        body = response.content  # type: ignore[attr-defined]
        headers = sorted(response.headers.items())  # type: ignore[attr-defined]
        text = f"{response.status_code} {headers} {body!r}"  # type: ignore[attr-defined]
        texts[name] = _CHANGES.sub("", _UUID.sub("ID", text))

    keep("desk", client.get(reverse("curation:desk")))
    keep("claims", client.post(reverse("api-claims"), {"count": 1}, "application/json"))
    keep("renew", client.post(reverse("api-claims-renew")))
    claim = Claim.objects.get(person=person)
    assert claim.face_id == face.pk
    for name in ("face", "photo"):
        keep(name, client.get(reverse(f"curation:{name}", args=[claim.pk])))
    for name in ("history", "judged-face", "judged-photo"):
        keep(name, client.get(reverse(f"curation:{name}", args=[face.pk])))
    for name in ("disputes", "alike", "people"):
        keep(name, client.get(reverse(f"curation:{name}")))
    keep("me", client.get(reverse("curation:me")))
    for name in ("api-history", "api-judge", "api-gold"):
        keep(name, client.get(reverse(name, args=[face.pk])))
    keep("dashboard", client.get(reverse("curation:dashboard")))
    for name in ("api-disputes", "api-people", "api-me", "api-queue"):
        keep(name, client.get(reverse(name)))
    keep("photo-api", client.get(f"/api/v1/photos/{face.photo_id}"))
    keep("photo-page", client.get(f"/photos/{face.photo_id}/"))
    keep("export", client.get(reverse("curation:export", args=["csv"])))
    return texts


def world(model: str, visitor: str, other: str) -> dict[str, str]:
    Face.objects.all().delete()
    client, person = Client(), PersonFactory()
    client.force_login(person)
    face = known_face(model, visitor, other)
    return every_response(client, person, face)


@pytest.mark.parametrize(
    ("model", "visitor", "other"),
    [
        ("sad", "neutral", "happy"),
        ("neutral", "unclear", "not_a_face"),
        ("surprise", "sad", "sad"),
    ],
)
def test_no_response_before_the_vote_depends_on_what_was_said(
    model: str, visitor: str, other: str
) -> None:
    """Two sites that differ in nothing but what was said answer byte for byte the
    same."""
    plain = world("happy", "surprise", "neutral")

    for name, text in world(model, visitor, other).items():
        assert text == plain[name], name


def figures(client: Client) -> dict[str, Any]:
    """Of the queue; how many faces are before somebody tells nothing."""
    found = client.get(reverse("api-queue")).json()
    return {name: value for name, value in found.items() if name != "held"}


def say_sad(others: list[str], *, is_gold: bool = False) -> tuple[Client, str]:
    """Somebody says that a face is sad of which others had said these words hours ago,
    and which is gold as long; the page of the queue as they see it then. No figure
    moved by that."""
    Face.objects.all().delete()
    client, person = Client(), PersonFactory()
    client.force_login(person)
    face = QueuedFaceFactory(queued__sampled=True)
    for word in others:
        Correction.objects.create(
            face=face, author=PersonFactory(), verdict=word, source="annotator"
        )
    refresh_faces([face.pk])
    let_labels_settle()
    if is_gold:
        add_gold(face_id=face.pk, verdict=others[0], chosen_by=None)
        GoldFace.objects.update(created_at=settled_until())
    claim = Claim.objects.create(
        face=face,
        person=person,
        slot=None if is_gold else len(others) + 1,
        is_gold=is_gold,
        expires_at="2100-01-01T00:00Z",
    )
    before, live = figures(client), live_accuracy(until=settled_until())
    submit_correction(person=person, claim_id=claim.pk, verdict="sad")
    assert figures(client) == before
    assert live_accuracy(until=settled_until()) == live
    return client, client.get(reverse("curation:dashboard")).content.decode()


@pytest.mark.parametrize(
    ("agree", "differ", "counted"),
    [
        (["sad"], ["happy"], {"decided": 1, "new_labels": 1, "agreement": 1.0}),
        (["sad", "happy"], ["neutral", "happy"], {"decided": 1, "waiting": 0}),
        (["neutral", "happy"], ["sad", "happy"], {"disputed": 1, "waiting": 0}),
    ],
)
def test_queue_does_not_tell_who_voted_whether_others_agree(
    agree: list[str], differ: list[str], counted: dict[str, float]
) -> None:
    _, other = say_sad(differ)
    client, page = say_sad(agree)
    assert _CHANGES.sub("", page) == _CHANGES.sub("", other)
    assert figures(client)["waiting"] == 1

    let_labels_settle()

    assert figures(client).items() >= counted.items()


@pytest.mark.parametrize(
    "others",
    [
        ["sad", "sad"],
        ["happy", "happy"],
        # A tie by that, and a dispute that ends by it.
        ["happy", "happy", "sad"],
        ["happy", "sad", "happy", "sad"],
    ],
)
def test_queue_does_not_tell_who_voted_that_a_face_was_gold(
    others: list[str], judge: Person
) -> None:
    client, _ = say_sad(others, is_gold=True)
    names = ("decided", "disputed", "waiting")

    assert [figures(client)[name] for name in names] == [0, 0, 0]
    assert sum(figures(judge[0])[name] for name in names) == 1
    assert live_accuracy(until=settled_until()).labelled == 1


def test_adjudicators_see_the_queue_as_it_is(judge: Person) -> None:
    say_sad(["sad"])

    assert figures(judge[0])["decided"] == 1


def test_gold_faces_answer_like_all_others() -> None:
    ordinary = world("happy", "surprise", "neutral")
    Face.objects.all().delete()
    client, person = Client(), PersonFactory()
    client.force_login(person)
    face = known_face("happy", "surprise", "neutral")
    QueueItem.objects.all().delete()
    add_gold(face_id=face.pk, verdict="happy", chosen_by=None)
    Claim.objects.create(
        face=face, person=person, is_gold=True, expires_at="2100-01-01T00:00Z"
    )

    answers = every_response(client, person, face)
    for name in ("dashboard", "api-queue"):
        # They count how many faces wait and how many are gold, of all.
        assert answers.pop(name) != ordinary.pop(name)
    assert answers == ordinary


def test_why_a_face_is_on_the_queue_is_not_told(annotator: Person) -> None:
    client, _ = annotator
    for reason in ("flag", "unsure", "suspect", "sample"):
        QueuedFaceFactory(queued=reason)

    page = client.get(reverse("curation:desk")).content.decode()
    answer = client.post(reverse("api-claims"), {"count": 4}, "application/json").json()

    for reason in ("flag", "unsure", "suspect", "sample"):
        assert reason not in page
    assert len(answer["claims"]) == 4
    for claim in answer["claims"]:
        assert set(claim) == {"id", "face", "photo", "expires_at"}


def test_claims_do_not_name_their_face(annotator: Person) -> None:
    """Whoever knew a face's id could look for it elsewhere."""
    client, person = annotator
    face = FaceFactory()
    QueuedFaceFactory()
    (claim,) = claim_faces(person=person)

    page = client.get(reverse("curation:desk")).content.decode()

    ids = {uuid.UUID(text) for text in _UUID.findall(page)}
    assert ids == {claim.pk}
    assert face.pk not in ids


def test_nobody_looks_and_then_changes_their_vote(annotator: Person) -> None:
    """What others said, and what was decided, comes when the vote can no longer be
    changed, and never before."""
    client, person = annotator
    face = known_face("happy", "surprise", "neutral")
    (claim,) = claim_faces(person=person)
    submit_correction(person=person, claim_id=claim.pk, verdict="neutral")
    history = reverse("api-history", args=[face.pk])
    page = reverse("curation:history", args=[face.pk])
    change = reverse("api-vote", args=[claim.pk])
    sad = json.dumps({"verdict": "sad"})

    refusal = client.get(history)
    assert refusal.status_code == client.get(page).status_code == 403
    assert "an hour after" in refusal.json()["detail"]
    me = client.get(reverse("curation:me")).content.decode()
    assert page not in me
    assert "told an hour later" in me
    assert client.get(reverse("api-me")).json()["agreement"] is None
    assert client.put(change, sad, "application/json").status_code == 200
    undo(person=person)
    submit_correction(person=person, claim_id=claim.pk, verdict="neutral")

    let_labels_settle()

    assert client.get(history).status_code == client.get(page).status_code == 200
    assert page in client.get(reverse("curation:me")).content.decode()
    assert client.get(reverse("api-me")).json()["agreement"] == 1.0
    assert client.put(change, sad, "application/json").status_code == 409
    assert client.post(reverse("api-undo")).status_code == 409


def test_nobody_learns_which_face_was_gold_while_they_can_change_it(
    annotator: Person,
) -> None:
    client, person = annotator
    face = FaceFactory()
    add_gold(face_id=face.pk, verdict="happy", chosen_by=None)
    claim = Claim.objects.create(
        face=face, person=person, is_gold=True, expires_at="2100-01-01T00:00Z"
    )
    submit_correction(person=person, claim_id=claim.pk, verdict="sad")
    assert client.get(reverse("api-me")).json()["gold_answers"] == 0

    let_labels_settle()

    assert client.get(reverse("api-me")).json()["gold_answers"] == 1
