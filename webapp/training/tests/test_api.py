"""The same by the API: one shape of list, one shape of refusal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from tests.models import write_tiny_model
from webapp.accounts.api_keys import create_api_key
from webapp.accounts.models import AuditEntry, Role, User
from webapp.photos.models import Photo
from webapp.registry.models import ModelVersion
from webapp.registry.selectors import get_champion
from webapp.registry.services import register_model_version
from webapp.training.models import RunState, TrainingRun
from webapp.training.services import promotion
from webapp.training.tests.factories import Labeller
from webapp.training.tests.judged import judged_run, tiny_champion

pytestmark = pytest.mark.django_db

API = "/api/v1/training"


@pytest.fixture
def champion(db: None, tmp_path: Path) -> ModelVersion:
    return tiny_champion(tmp_path)


@pytest.fixture
def run(labeller: Labeller, tmp_path: Path) -> TrainingRun:
    labeller.faces(5)
    return judged_run(champion=labeller.version, folder=tmp_path)


@pytest.fixture
def api(client: Client, admin: User) -> Client:
    client.force_login(admin)
    return client


def get(api: Client, path: str = "", **query: str) -> Any:
    response = api.get(f"{API}{path}", query)
    assert response.status_code == 200, response.content
    assert response["Cache-Control"] == "private, no-store"
    return response.json()


def send(api: Client, path: str, data: Any = None, status: int = 200) -> Any:
    response = api.post(f"{API}{path}", data or {}, content_type="application/json")
    assert response.status_code == status, response.content
    return response.json()


def test_readiness_says_what_is_missing_and_why_not(
    api: Client, labeller: Labeller
) -> None:
    labeller.faces(1)

    said = get(api)

    assert (said["new_labels"], said["missing"]) == (4, 46)
    assert said["refusals"]["head"] == ""
    assert "FER_DATASET_DIR" in said["refusals"]["full"]


def test_a_run_is_started_followed_and_cancelled(
    api: Client, labeller: Labeller
) -> None:
    labeller.faces(2)

    made = send(
        api, "/runs", {"mode": "head", "config": {"curated_weight": 7.0}}, status=202
    )
    refused = send(api, "/runs", {"mode": "head"}, status=409)
    shown = get(api, "/runs/1")
    cancelled = send(api, "/runs/1/cancel", status=202)
    again = send(api, "/runs/1/cancel", status=409)

    assert made["state"] == RunState.QUEUED
    assert made["config"]["curated_weight"] == 7.0
    assert refused["code"] == "already_running"
    assert shown["log"][0]["text"].endswith("asked for it.")
    assert shown["progress"]["seconds_left"] is None
    assert cancelled["state"] == RunState.CANCELLED
    assert again["code"] == "conflict"


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"mode": "x"},
        {"mode": "head", "seed": -1},
        {"mode": "head", "config": {"nothing": 1}},
        {"mode": "head", "config": 3},
        {"mode": "head", "reason": "x" * 1000},
    ],
)
def test_a_run_that_cannot_be_is_refused_in_words(
    api: Client, labeller: Labeller, wrong: dict[str, Any]
) -> None:
    labeller.faces(1)

    said = send(api, "/runs", wrong, status=400)

    assert set(said) == {"code", "detail"}
    assert not TrainingRun.objects.exists()


def test_gate_tells_decision_report_and_faces(api: Client, run: TrainingRun) -> None:
    said = get(api, "/runs/1/gate")
    faces = get(api, "/runs/1/gate/faces", change="fixed")
    gone = faces["results"][0]["face_id"]
    Photo.objects.filter(faces=gone).update(training_consent_at=None)
    fewer = get(api, "/runs/1/gate/faces", change="fixed")

    assert said["decision"]["outcome"] == "promote"
    assert said["report"]["flags"]["candidate"] == 2
    assert faces["count"] == run.comparisons.filter(fixed=True).count()
    assert fewer["count"] == faces["count"] - 1
    assert gone not in [row["face_id"] for row in fewer["results"]]


def test_versions_come_with_manifest_card_and_state(
    api: Client, run: TrainingRun
) -> None:
    listed = get(api, "/versions")
    names = [row["version"] for row in listed["results"]]
    shown = get(api, f"/versions/{names[0]}")

    assert (listed["count"], names) == (2, ["tiny-1-head-1", "tiny-1"])
    assert shown["file_trouble"] == ""
    assert shown["parent"] == "tiny-1"
    assert shown["run"] == run.number
    assert shown["manifest"]["sha256"] == shown["sha256"]
    assert "must not be used for" in shown["card"]


def test_promotion_and_rollback_name_the_champion_they_know(
    api: Client, run: TrainingRun
) -> None:
    known = {"champion": "tiny-1"}
    made = send(api, "/versions/tiny-1-head-1/promote", known, status=201)
    late = send(api, "/versions/tiny-1-head-1/promote", known, status=409)
    wrong = send(api, "/rollback", known, status=409)
    unknown = send(api, "/rollback", {"champion": "gone-version"}, status=409)
    back = send(api, "/rollback", {"champion": "tiny-1-head-1"}, status=201)
    gone = {"champion": "gone-version"}
    refused = send(api, "/versions/tiny-1-head-1/promote", gone, status=409)

    assert made["previous"] == "tiny-1"
    for said in (late, wrong, unknown, refused):
        assert said["code"] == "conflict"
        assert "has become champion meanwhile" in said["detail"]
    assert back["version"] == "tiny-1"
    assert get_champion() == run.parent
    assert get(api, "/promotions")["count"] == 3


def test_promotion_against_the_gate_needs_a_reason(
    api: Client, run: TrainingRun
) -> None:
    TrainingRun.objects.update(outcome="reject")

    said = send(
        api, "/versions/tiny-1-head-1/promote", {"champion": "tiny-1"}, status=422
    )

    assert said["code"] == "reason_needed"
    assert get_champion() == run.parent


def test_of_two_rollbacks_at_once_the_second_goes_no_further(
    api: Client,
    admin: User,
    run: TrainingRun,
    tmp_path: Path,
    another_rolls_back_first: Callable[[], None],
) -> None:
    newest = register_model_version(path=write_tiny_model(tmp_path, "newest"))
    candidate = ModelVersion.objects.get(version="tiny-1-head-1")
    for version in (candidate, newest):
        promotion.promote_version(
            model_version=version, promoted_by=admin, reason="trial"
        )
    another_rolls_back_first()

    send(api, "/rollback", {"champion": "newest"}, status=409)

    assert get_champion() == candidate


def test_number_that_is_none_is_refused_by_its_name(api: Client) -> None:
    put = api.put(
        f"{API}/schedule",
        '{"enabled": true, "hour": 1e999}',
        content_type="application/json",
    )

    assert put.status_code == 400
    assert put.json()["detail"] == "hour: A valid integer is required."


def test_data_sets_schedule_shadows_and_drift(api: Client, run: TrainingRun) -> None:
    frozen = get(api, "/data-sets/1")
    assert frozen["intact"]
    assert frozen["seen_by"] == ["tiny-1-head-1"]
    assert get(api, "/data-sets")["count"] == 1

    put = api.put(
        f"{API}/schedule",
        {"enabled": True, "hour": 4, "day_of_week": "1"},
        content_type="application/json",
    )
    assert put.status_code == 200
    assert put.json() == get(api, "/schedule")
    assert put.json()["next_at"].endswith("T04:00:00Z")

    shadow = send(api, "/shadows", {"candidate": "tiny-1-head-1"}, status=201)
    assert get(api, "/shadows")["results"][0]["ended_at"] is None
    assert api.delete(f"{API}/shadows/{shadow['id']}").status_code == 204
    assert get(api, "/shadows")["results"][0]["ended_at"]
    assert get(api, "/drift") == []


@pytest.mark.parametrize(
    "path",
    [
        *("/runs/9", "/runs/9/gate", "/runs/9/gate/faces", "/runs?page=9"),
        *("/versions/none", "/data-sets/9", "/compare?left=a&right=b"),
    ],
)
def test_what_is_not_there_is_404_in_words(api: Client, path: str) -> None:
    response = api.get(f"{API}{path}")

    assert response.status_code == 404
    assert response.json()["code"] == "not_found"


def test_an_admins_api_key_trains_nothing(client: Client, admin: User) -> None:
    """A key does not carry its person's role."""
    _, key = create_api_key(person=admin, name="program")

    response = client.get(f"{API}/runs", headers={"Authorization": f"Bearer {key}"})

    assert response.status_code == 403


def test_a_key_with_the_right_to_train_acts_for_its_admin_as_long_as_they_are_one(
    client: Client, admin: User, champion: ModelVersion
) -> None:
    _, key = create_api_key(person=admin, name="program", may_train=True)

    def put() -> int:
        return client.put(
            f"{API}/schedule",
            {"enabled": True, "every_hours": 6},
            content_type="application/json",
            headers={"Authorization": f"Bearer {key}"},
        ).status_code

    assert put() == 200
    entry = AuditEntry.objects.get(action="changed the training schedule")
    assert entry.actor == admin.username
    admin.is_superuser = False
    admin.role = Role.ADJUDICATOR
    admin.save()
    assert put() == 403
