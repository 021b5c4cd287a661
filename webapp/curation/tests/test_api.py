from __future__ import annotations

import json
import uuid
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from webapp.accounts.models import User
from webapp.curation.models import Claim, Consensus, Correction, GoldFace, Pause
from webapp.curation.services.claims import claim_faces
from webapp.curation.services.votes import submit_correction
from webapp.curation.tests.factories import (
    PersonFactory,
    QueuedFaceFactory,
    let_labels_settle,
)
from webapp.photos.models import Photo

pytestmark = pytest.mark.django_db

Person = tuple[Client, User]
ROOT = "/api/v1/curation"
NOBODYS = uuid.UUID(int=7)
"""Always the same: a test keeps its name from run to run."""


def call(client: Client, method: str, path: str, body: Any = None) -> Any:
    return client.generic(
        method,
        path,
        data=b"" if body is None else json.dumps(body).encode(),
        content_type="application/json",
    )


def test_face_goes_through_the_api_from_claim_to_label(annotator: Person) -> None:
    client, _ = annotator
    face = QueuedFaceFactory()
    (claim,) = call(client, "POST", f"{ROOT}/claims", {}).json()["claims"]
    assert client.get(claim["face"]).status_code == 200

    body = {"verdict": "sad", "duration_ms": 700, "key": "2", "comment": "teary"}
    answer = call(client, "POST", f"{ROOT}/claims/{claim['id']}/verdict", body)

    assert answer.status_code == 201
    assert answer.json()["today"] == 1
    changed = call(
        client,
        "PUT",
        f"{ROOT}/claims/{claim['id']}/verdict",
        {"verdict": "happy", "comment": "tears of joy"},
    )
    assert changed.status_code == 200
    said = Correction.objects.filter(face=face).values_list("verdict", "comment")
    assert list(said) == [("sad", "teary"), ("happy", "tears of joy")]
    for body in ({}, {"claim": claim["id"]}):
        assert call(client, "POST", f"{ROOT}/undo", body).json()["id"] == claim["id"]
    assert Correction.objects.filter(face=face).count() == 2
    assert call(client, "POST", f"{ROOT}/claims/{claim['id']}/skip").status_code == 204
    assert Claim.objects.get().status == "skipped"


def test_faces_are_renewed_and_given_back(annotator: Person) -> None:
    client, _ = annotator
    QueuedFaceFactory.create_batch(3)
    call(client, "POST", f"{ROOT}/claims", {"count": 3})

    assert call(client, "POST", f"{ROOT}/claims/renew").json() == {"held": 3}
    assert call(client, "POST", f"{ROOT}/claims/renew", {"seconds": 20}).json() == {
        "held": 3
    }
    soon = timezone.now() + timedelta(seconds=21)
    assert Claim.objects.filter(expires_at__lt=soon).count() == 3
    assert call(client, "DELETE", f"{ROOT}/claims").json() == {"held": 3}


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", "/claims", {"count": 0}, 400, "bad_count"),
        ("POST", "/claims", {"count": 99}, 400, "bad_count"),
        ("POST", "/claims/renew", {"seconds": 0}, 400, "bad_lease"),
        ("POST", "/claims/renew", {"seconds": 601}, 400, "bad_lease"),
        (
            "POST",
            f"/claims/{NOBODYS}/verdict",
            {"verdict": "sad"},
            404,
            "claim_lost",
        ),
        (
            "POST",
            f"/claims/{NOBODYS}/verdict",
            {"verdict": "angry"},
            400,
            "bad_verdict",
        ),
        ("POST", f"/claims/{NOBODYS}/verdict", {}, 400, "bad_verdict"),
        (
            "POST",
            f"/claims/{NOBODYS}/verdict",
            {"verdict": "sad", "key": "=1+1"},
            400,
            "bad_verdict",
        ),
        ("POST", f"/claims/{NOBODYS}/skip", None, 404, "claim_lost"),
        ("POST", "/undo", None, 409, "nothing_to_undo"),
        ("POST", "/undo", {"claim": str(NOBODYS)}, 409, "nothing_to_undo"),
        ("POST", "/undo", {"claim": "x"}, 400, "bad_claim"),
        ("GET", f"/faces/{NOBODYS}/history", None, 403, "blind"),
    ],
)
def test_refusals_have_a_code_and_a_sentence(
    annotator: Person, method: str, path: str, body: Any, status: int, code: str
) -> None:
    response = call(annotator[0], method, ROOT + path, body)

    assert response.status_code == status
    assert response.json()["code"] == code
    assert len(response.json()["detail"]) > 10


def test_history_of_a_face_that_its_visitor_took_back_is_gone(
    annotator: Person,
) -> None:
    client, person = annotator
    face = QueuedFaceFactory()
    (claim,) = claim_faces(person=person)
    submit_correction(person=person, claim_id=claim.pk, verdict="sad")
    let_labels_settle()
    url = f"{ROOT}/faces/{face.pk}/history"
    assert client.get(url).status_code == 200

    Photo.objects.update(training_consent_at=None)

    assert client.get(url).status_code == 404


PATHS = [
    ("POST", "/claims", "annotator"),
    ("DELETE", "/claims", "annotator"),
    ("POST", "/claims/renew", "annotator"),
    ("POST", "/undo", "annotator"),
    ("GET", "/queue", "annotator"),
    ("GET", "/me", "annotator"),
    ("GET", "/people", "adjudicator"),
    ("GET", "/disputes", "adjudicator"),
    ("POST", f"/faces/{NOBODYS}/verdict", "adjudicator"),
    ("PUT", f"/faces/{NOBODYS}/gold", "adjudicator"),
    ("POST", "/bulk", "adjudicator"),
    ("DELETE", f"/bulk/{NOBODYS}", "adjudicator"),
    ("DELETE", "/people/x/pause", "admin"),
]


@pytest.mark.parametrize(("method", "path", "role"), PATHS)
def test_each_address_asks_for_its_role(
    client: Client, annotator: Person, judge: Person, method: str, path: str, role: str
) -> None:
    assert call(client, method, ROOT + path).status_code in (401, 403)
    if role != "annotator":
        assert call(annotator[0], method, ROOT + path).status_code == 403
    if role == "admin":
        assert call(judge[0], method, ROOT + path).status_code == 403


def test_adjudicator_reads_disputes_decides_and_takes_back(judge: Person) -> None:
    client, _ = judge
    face = QueuedFaceFactory()
    for verdict in ("happy", "sad", "unclear"):
        person = PersonFactory()
        (claim,) = claim_faces(person=person)
        submit_correction(person=person, claim_id=claim.pk, verdict=verdict)
    (row,) = client.get(f"{ROOT}/disputes").json()
    assert row["tally"]["unclear"] == 1
    since = datetime.fromisoformat(row["since"])
    assert since == Consensus.objects.get().disputed_at

    url = f"{ROOT}/faces/{face.pk}"
    assert call(client, "POST", f"{url}/verdict", {"verdict": "sad"}).status_code == 201
    assert call(client, "PUT", f"{url}/gold").status_code == 204
    assert GoldFace.objects.count() == 1
    assert call(client, "DELETE", f"{url}/gold").status_code == 204
    assert len(client.get(f"{url}/history").json()) == 4
    assert call(client, "DELETE", f"{url}/verdict").status_code == 204
    assert Consensus.objects.get().state == "disputed"


def test_many_at_once_and_back(judge: Person) -> None:
    client, _ = judge
    faces = [str(face.pk) for face in QueuedFaceFactory.create_batch(3)]

    answer = call(client, "POST", f"{ROOT}/bulk", {"faces": faces, "verdict": "sad"})

    batch = answer.json()["batch"]
    assert call(client, "DELETE", f"{ROOT}/bulk/{batch}").json() == {"held": 3}
    assert call(client, "DELETE", f"{ROOT}/bulk/{batch}").status_code == 409


def test_figures_of_the_queue_and_of_people(admin: Person) -> None:
    client, _ = admin
    QueuedFaceFactory.create_batch(2)
    person = PersonFactory()
    (claim,) = claim_faces(person=person)
    submit_correction(person=person, claim_id=claim.pk, verdict="sad", duration_ms=900)

    assert client.get(f"{ROOT}/queue").json()["waiting"] == 2
    rows = {row["person"]: row for row in client.get(f"{ROOT}/people").json()}
    assert rows[person.username]["median_ms"] == 900
    assert client.get(f"{ROOT}/me").json()["votes"] == 0


def test_people_take_as_many_queries_as_one(
    judge: Person, django_assert_num_queries: Any
) -> None:
    client, _ = judge
    with CaptureQueriesContext(connection) as alone:
        assert len(client.get(f"{ROOT}/people").json()) == 1
    PersonFactory.create_batch(12)
    QueuedFaceFactory.create_batch(3)
    for person in User.objects.all()[:5]:
        (claim,) = claim_faces(person=person)
        submit_correction(person=person, claim_id=claim.pk, verdict="sad")

    with django_assert_num_queries(len(alone)):
        rows = client.get(f"{ROOT}/people").json()

    assert sum(row["votes"] for row in rows) == 5


def test_admin_lifts_a_pause_and_invites(admin: Person) -> None:
    client, _ = admin
    person = PersonFactory()
    Pause.objects.create(person=person, reason="x")

    url = f"{ROOT}/people/{person.username}/pause"
    assert call(client, "DELETE", url).status_code == 204
    assert call(client, "DELETE", f"{ROOT}/people/nobody/pause").status_code == 404
    answer = call(client, "POST", "/api/v1/invitations", {"role": "annotator"})
    assert answer.status_code == 201
    assert Client().get(answer.json()["link"]).status_code == 200


def test_cookie_alone_writes_nothing() -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(PersonFactory())

    assert call(client, "POST", f"{ROOT}/claims", {}).status_code == 403


def test_decision_on_a_face_that_is_gone_is_not_taken_back(judge: Person) -> None:
    answer = call(judge[0], "DELETE", f"{ROOT}/faces/{NOBODYS}/verdict")

    assert answer.status_code == 404
    schema = judge[0].get("/api/schema/?format=json").json()
    described = schema["paths"]["/api/v1/curation/faces/{face_id}/verdict"]["delete"]
    assert "404" in described["responses"]


def test_schema_describes_curation(client: Client) -> None:
    schema = client.get("/api/schema/?format=json").json()

    described = {path for path in schema["paths"] if "curation" in path}
    assert len(described) >= 14
    for path in described:
        for operation in schema["paths"][path].values():
            assert operation["summary"]
