"""The pages of training, as an admin's browser without scripts sees them."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from django.conf import LazySettings
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.db import connection
from django.http import HttpResponse
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from ml.labels import EMOTIONS
from ml.manifest import sha256_of
from tests.models import write_tiny_model
from webapp.accounts.models import AuditEntry, Role, User
from webapp.curation.tests.factories import PersonFactory
from webapp.photos.models import Photo
from webapp.registry.models import ModelVersion, Promotion
from webapp.registry.selectors import get_champion
from webapp.registry.services import register_model_version, register_shipped_model
from webapp.training import selectors_pages
from webapp.training.models import (
    DatasetSnapshot,
    DriftReading,
    RunState,
    Shadow,
    TrainingRun,
)
from webapp.training.services import runs
from webapp.training.services.promotion import promote_version
from webapp.training.services.triggers import Schedule, get_schedule
from webapp.training.tests.factories import Labeller, head_run, put_off
from webapp.training.tests.judged import judged_run, tiny_champion

pytestmark = pytest.mark.django_db

LISTS = ["runs", "versions", "compare", "snapshots", "schedule", "watch", "rollback"]


@pytest.fixture
def page(client: Client, admin: User) -> Client:
    client.force_login(admin)
    return client


@pytest.fixture
def champion(db: None, tmp_path: Path) -> ModelVersion:
    return tiny_champion(tmp_path)


@pytest.fixture
def run(labeller: Labeller, tmp_path: Path) -> TrainingRun:
    labeller.faces(5)
    return judged_run(champion=labeller.version, folder=tmp_path)


def candidate(run: TrainingRun) -> ModelVersion:
    assert run.candidate is not None
    return run.candidate


def snapshot(run: TrainingRun) -> DatasetSnapshot:
    assert run.snapshot is not None
    return run.snapshot


def words(response: HttpResponse) -> str:
    assert response.status_code == 200, response
    assert b"style=" not in response.content
    assert b"{{" not in response.content
    return " ".join(response.content.decode().split())


def test_others_are_kept_out(client: Client) -> None:
    assert client.get(reverse("training:runs"))["Location"].startswith("/accounts/")
    for role in (Role.ANNOTATOR, Role.ADJUDICATOR):
        client.force_login(PersonFactory(role=role))
        for name in LISTS:
            assert client.get(reverse(f"training:{name}")).status_code == 403


def test_a_session_that_ended_loads_the_whole_page_anew(client: Client) -> None:
    """A log-in page would be put into the page of the run."""
    url = reverse("training:runs")

    answer = client.get(url, headers={"HX-Request": "true"})

    assert answer["HX-Refresh"] == "true"
    assert answer.content == b""
    assert client.get(url).status_code == 302


@pytest.mark.parametrize("name", LISTS)
def test_lists_stand_on_a_site_without_a_model(page: Client, name: str) -> None:
    words(page.get(reverse(f"training:{name}")))


def test_page_of_runs_reads_all_labels_once_for_each_mode(
    page: Client, labeller: Labeller
) -> None:
    labeller.faces(2)
    with CaptureQueriesContext(connection) as asked:
        words(page.get(reverse("training:runs")))

    assert len(asked) <= 30


@pytest.mark.parametrize("name", LISTS)
def test_lists_stand_after_a_run(page: Client, name: str, run: TrainingRun) -> None:
    words(page.get(reverse(f"training:{name}")))


def test_first_visit_says_how_many_labels_are_missing(
    page: Client, labeller: Labeller
) -> None:
    labeller.faces(3)

    said = words(page.get(reverse("training:runs")))

    assert "No run yet.</b> 12 new labels, 38 to go." in said
    assert "Set FER_DATASET_DIR" in said


def test_a_run_is_not_offered_where_nothing_is_new(
    page: Client, run: TrainingRun
) -> None:
    said = words(page.get(reverse("training:runs")))

    assert "Nothing is new since run 1" in said
    assert ">Start</button>" not in said


def test_starting_a_run_says_who_and_why(
    page: Client, admin: User, labeller: Labeller
) -> None:
    labeller.faces(2)

    response = page.post(
        reverse("training:start"), {"mode": "head", "reason": "New lamps"}
    )
    made = TrainingRun.objects.get()

    assert response["Location"] == f"/training/runs/{made.number}/"
    assert made.requested_by == admin
    said = words(page.get(response["Location"]))
    assert f"{admin.username} asked for it: New lamps" in said
    assert "It waits for a training worker" in said
    assert AuditEntry.objects.get().details["reason"] == "New lamps"


def test_run_that_is_put_off_says_what_it_waits_for(
    page: Client, labeller: Labeller, monkeypatch: pytest.MonkeyPatch
) -> None:
    labeller.faces(1)
    run = put_off(runs.request_run(mode="head", requested_by=None), monkeypatch)

    said = words(page.get(reverse("training:run", args=[run.number])))

    assert "It waits for the files" in said
    assert "Put off, the files are out of reach" in said
    assert "It waits for a training worker" not in said


def test_a_refused_start_says_why(page: Client, labeller: Labeller) -> None:
    response = page.post(reverse("training:start"), {"mode": "head"}, follow=True)

    assert "There is nothing to learn from yet" in words(response)
    assert not TrainingRun.objects.exists()
    said = words(page.post(reverse("training:start"), {"mode": "x"}, follow=True))
    assert "A mode is head or full" in said


def test_a_run_under_way_is_asked_for_until_it_ends(
    page: Client, run: TrainingRun
) -> None:
    address = reverse("training:run", args=[run.number])
    TrainingRun.objects.filter(pk=run.pk).update(
        state=RunState.RUNNING,
        mode="full",
        outcome="",
        ended_at=None,
        lease_token="7c9e6679-7425-40de-944b-e07fc1f90ae7",
        lease_expires_at=timezone.now(),
        stage="Training, epoch 2 of 4",
        progress_done=25,
        progress_total=100,
        config={"epochs": 4},
        curves=[
            {
                "epoch": 1,
                "train_loss": 0.9,
                "validation_loss": 0.8,
                "validation_accuracy": 0.7,
                "validation_macro_f1": 0.6,
                "learning_rate": 0.1,
                "duration_seconds": 20.0,
            }
        ],
    )

    part = words(page.get(address, headers={"HX-Request": "true"}))
    whole = words(page.get(address))

    for said in (part, whole):
        assert 'hx-get="/training/runs/1/"' in said
        assert "Training, epoch 2 of 4" in said
        assert "About 1 min 0 s left." in said
        assert "Loss by epoch: Training 0.900 at last; Validation 0.800" in said
    assert "<html" not in part
    assert '<noscript><meta http-equiv="refresh"' in whole

    TrainingRun.objects.filter(pk=run.pk).update(
        state=RunState.CANCELLED,
        ended_at=timezone.now(),
        lease_token=None,
        lease_expires_at=None,
    )
    assert "hx-get" not in words(page.get(address))


def test_a_run_is_cancelled_once(page: Client, admin: User, labeller: Labeller) -> None:
    labeller.faces(2)
    page.post(reverse("training:start"), {"mode": "head"})
    address = reverse("training:cancel", args=[1])

    said = words(page.post(address, follow=True))
    again = words(page.post(address, follow=True))

    assert f"Cancelled by <bdi>{admin.username}</bdi>" in said
    assert "Run 1 had ended already." in again
    assert TrainingRun.objects.get().state == RunState.CANCELLED


def test_gate_shows_reasons_figures_and_flags(page: Client, run: TrainingRun) -> None:
    said = words(page.get(reverse("training:gate", args=[run.number])))

    for finding in run.decision["findings"]:
        assert finding["reason"].replace("'", "&#x27;") in said
    report = run.report["sets"][0]["candidate"]
    assert f"{100 * report['accuracy']:.1f} %" in said
    assert said.count("<caption>tiny-1") == 2 * len(run.report["sets"])
    flags = run.report["flags"]
    assert f"<b>{flags['candidate']} of {flags['faces']}</b>" in said
    assert f"Promote {candidate(run).version}" in said


def test_gate_shows_only_faces_that_may_still_be_used(
    page: Client, run: TrainingRun
) -> None:
    address = reverse("training:gate", args=[run.number])
    changed = list(run.comparisons.filter(fixed=True))
    assert len(changed) >= 2
    gone, kept = changed[0], changed[1]
    Photo.objects.filter(faces=gone.face_id).update(training_consent_at=None)

    said = words(page.get(address))

    assert reverse("curation:judged-face", args=[kept.face_id]) in said
    assert str(gone.face_id) not in said


def test_a_run_without_a_judgement_has_no_gate(page: Client, run: TrainingRun) -> None:
    TrainingRun.objects.filter(pk=run.pk).update(
        state=RunState.FAILED, outcome="", message="It broke."
    )

    assert "has not judged this run" in words(
        page.get(reverse("training:gate", args=[run.number]))
    )
    assert "It broke." in words(page.get(reverse("training:run", args=[run.number])))


def test_version_page_has_its_card_and_files(page: Client, run: TrainingRun) -> None:
    version = candidate(run)
    said = words(page.get(reverse("training:version", args=[version.version])))
    model = page.get(reverse("training:model-file", args=[version.version]))
    manifest = page.get(reverse("training:manifest", args=[version.version]))
    card = page.get(reverse("training:card", args=[version.version]))

    assert version.sha256 in said
    assert "What it must not be used for" in said
    assert "article 5(1)(f)" in said
    assert "dark faces" in said
    assert sha256_of(model.content) == version.sha256
    assert json.loads(manifest.content) == version.manifest
    text = card.content.decode()
    assert text.startswith(f"# Model card: {version.version}\n")
    assert f"Data set {snapshot(run).number}, SHA-256 {snapshot(run).sha256}." in text
    assert "| emotion | precision | recall | F1 | faces |" in text
    assert "not what a person feels" in text


def test_a_changed_file_is_named_and_not_handed_out(
    page: Client, run: TrainingRun
) -> None:
    version = candidate(run)
    default_storage.delete(version.file_name)
    default_storage.save(version.file_name, ContentFile(b"something else"))

    assert "hash differs" in words(page.get(reverse("training:versions")))
    assert "Its file does not load" in words(
        page.get(reverse("training:version", args=[version.version]))
    )
    refused = page.get(reverse("training:model-file", args=[version.version]))
    assert refused.status_code == 400
    assert b"something else" not in refused.content


def test_promotion_is_asked_for_and_done(
    page: Client, admin: User, run: TrainingRun
) -> None:
    address = reverse("training:promote", args=[candidate(run).version])
    said = words(page.get(address))
    assert "(if you like)" in said
    assert get_champion() == run.parent

    done = page.post(address, {"champion": "tiny-1"}, follow=True)

    assert "serves now, from the next photo on" in words(done)
    assert get_champion() == candidate(run)
    made = Promotion.objects.first()
    assert made is not None
    assert made.promoted_by == admin
    assert "It serves already." in words(page.get(address))


def test_promotion_against_the_gate_needs_a_reason(
    page: Client, run: TrainingRun
) -> None:
    TrainingRun.objects.filter(pk=run.pk).update(outcome="hold")
    address = reverse("training:promote", args=[candidate(run).version])
    assert "The gate is undecided." in words(page.get(address))

    refused = page.post(address, {"champion": "tiny-1", "reason": " "})

    assert refused.status_code == 422
    assert b"Please say why" in refused.content
    assert get_champion() == run.parent

    page.post(address, {"champion": "tiny-1", "reason": "I looked at each face."})
    assert get_champion() == candidate(run)
    assert "I looked at each face." in words(page.get(reverse("training:versions")))


@pytest.mark.parametrize("reason", ["\x00", "\u200b\u200b", " \u2800 "])
def test_reason_that_nobody_can_read_is_none(
    page: Client, run: TrainingRun, reason: str
) -> None:
    TrainingRun.objects.filter(pk=run.pk).update(outcome="hold")
    address = reverse("training:promote", args=[candidate(run).version])

    refused = page.post(address, {"champion": "tiny-1", "reason": reason})

    assert refused.status_code == 422
    assert b"Please say why" in refused.content
    assert get_champion() == run.parent


@pytest.mark.parametrize("named", [{}, {"champion": ""}, {"champion": "gone-version"}])
def test_promotion_that_names_no_champion_or_an_unknown_one_changes_nothing(
    page: Client, run: TrainingRun, named: dict[str, str]
) -> None:
    address = reverse("training:promote", args=[candidate(run).version])

    refused = page.post(address, named)

    assert refused.status_code == 409
    assert b"Version tiny-1 has become champion meanwhile" in refused.content
    assert get_champion() == run.parent


def test_promotion_against_another_champion_changes_nothing(
    page: Client, run: TrainingRun
) -> None:
    version = candidate(run).version
    page.post(reverse("training:promote", args=[version]), {"champion": "tiny-1"})
    late = page.post(
        reverse("training:promote", args=["tiny-1"]),
        {"champion": "tiny-1", "reason": "back"},
    )

    assert late.status_code == 409
    assert get_champion() == candidate(run)


def test_rollback_brings_the_one_before_back_once(
    page: Client, admin: User, run: TrainingRun
) -> None:
    promote_version(model_version=candidate(run), promoted_by=admin)
    address = reverse("training:rollback")
    seen = {"champion": candidate(run).version, "reason": "Odd faces."}
    assert "with <b>tiny-1</b> again" in words(page.get(address))

    done = page.post(address, seen, follow=True)
    again = page.post(address, seen)

    assert "Version tiny-1 serves again" in words(done)
    assert "Odd faces." in words(done)
    assert again.status_code == 409
    assert get_champion() == run.parent


def test_way_between_the_pages_of_versions_is_no_way_back_to_a_version(
    page: Client,
    admin: User,
    run: TrainingRun,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(selectors_pages, "PAGE_SIZE", 1)
    promote_version(model_version=candidate(run), promoted_by=admin)
    address = reverse("training:versions")

    assert ">Older</a>" in words(page.get(address))
    second = words(page.get(address, {"page": 2}))
    assert "Roll back to tiny-1" in second
    assert ">Newer</a>" in second


def test_of_two_rollbacks_at_once_the_second_goes_no_further(
    page: Client,
    admin: User,
    run: TrainingRun,
    tmp_path: Path,
    another_rolls_back_first: Callable[[], None],
) -> None:
    newest = register_model_version(path=write_tiny_model(tmp_path, "newest"))
    for version in (candidate(run), newest):
        promote_version(model_version=version, promoted_by=admin, reason="trial")
    another_rolls_back_first()

    late = page.post(
        reverse("training:rollback"), {"champion": "newest", "reason": "Odd faces."}
    )

    assert late.status_code == 409
    assert b"Odd faces.</textarea>" in late.content
    assert get_champion() == candidate(run)


def test_any_two_versions_are_compared(page: Client) -> None:
    shipped = register_shipped_model()
    Labeller(shipped).faces(5)
    run = head_run()
    version = candidate(run).version
    address = reverse("training:compare")

    said = words(page.get(address, {"left": shipped.version, "right": version}))

    assert f"What the gate would say of {version}" in said
    row = run.report["sets"][0]
    assert f"{row['faces']} faces" in said
    assert f"{row['fixed']} fixed, {row['broken']} broken" in said
    assert "What their manifests say" not in said
    same = page.get(address, {"left": version, "right": version})
    assert same.status_code == 400
    assert b"Choose two different versions" in same.content


def test_versions_that_cannot_be_compared_say_why(
    page: Client, run: TrainingRun
) -> None:
    chosen = {"left": "tiny-1", "right": candidate(run).version}

    response = page.get(reverse("training:compare"), chosen)

    assert response.status_code == 400
    assert b"There are no features of version tiny-1" in response.content


def test_schedule_is_set_and_told(page: Client, admin: User) -> None:
    address = reverse("training:schedule")

    said = words(
        page.post(address, {"enabled": "1", "time": "04:30", "often": "1"}, follow=True)
    )

    assert get_schedule() == Schedule(True, 4, 30, "1")
    assert "Next: <b>Monday" in said
    assert AuditEntry.objects.get().action == "changed the training schedule"
    words(page.post(address, {"time": "04:30", "often": "1"}, follow=True))
    assert not get_schedule().enabled


def test_schedule_may_come_several_times_a_day(page: Client) -> None:
    address = reverse("training:schedule")

    said = words(
        page.post(
            address, {"enabled": "1", "time": "04:30", "often": "6h"}, follow=True
        )
    )

    assert get_schedule().hours == [4, 10, 16, 22]
    assert '<option value="6h" selected>every 6 hours' in said


@pytest.mark.parametrize("often", ["5h", "0h", "h", "-6h", "every", "8", ""])
def test_how_often_that_is_none_is_refused(page: Client, often: str) -> None:
    response = page.post(
        reverse("training:schedule"), {"enabled": "1", "time": "04:30", "often": often}
    )

    assert response.status_code == 400
    assert b'role="alert"' in response.content
    assert not get_schedule().enabled
    # What else was typed is not lost.
    assert b'name="enabled" value="1" checked' in response.content
    assert b'value="04:30"' in response.content


@pytest.mark.parametrize("time", ["", "4", "25:00", "a:b", "04:61"])
def test_a_time_that_is_none_is_refused(page: Client, time: str) -> None:
    response = page.post(
        reverse("training:schedule"), {"enabled": "1", "time": time, "often": "*"}
    )

    assert response.status_code == 400
    assert b'role="alert"' in response.content
    assert not get_schedule().enabled


@pytest.mark.parametrize(
    ("day", "expected"),
    [("*", "2026-01-01T03:00"), ("4", "2026-01-01T03:00"), ("0", "2026-01-04T03:00")],
)
def test_next_time_is_the_next_that_fits(day: str, expected: str) -> None:
    # A Thursday.
    now = datetime(2026, 1, 1, 2, 59, tzinfo=UTC)
    schedule = Schedule(True, 3, 0, day)

    at = selectors_pages.next_run_at(schedule, now=now)

    assert at is not None
    assert at.isoformat().startswith(expected)
    late = selectors_pages.next_run_at(schedule, now=now + timedelta(minutes=1))
    assert late is not None
    assert late > at or at.day == 4


def test_next_time_of_several_a_day() -> None:
    schedule = Schedule(True, hour=3, minute=15, every_hours=8)

    at = [
        selectors_pages.next_run_at(
            schedule, now=datetime(2026, 1, 1, hour, 20, tzinfo=UTC)
        )
        for hour in (0, 3, 12, 20)
    ]

    assert [f"{moment:%d %H:%M}" for moment in at if moment] == [
        "01 03:15",
        "01 11:15",
        "01 19:15",
        "02 03:15",
    ]


def test_data_set_tells_what_is_in_it(page: Client, run: TrainingRun) -> None:
    frozen = snapshot(run)
    said = words(page.get(reverse("training:snapshot", args=[frozen.number])))
    listed = page.get(reverse("training:snapshot-manifest", args=[frozen.number]))

    assert frozen.sha256 in said
    assert "as it was frozen" in said
    assert candidate(run).version in said
    assert sha256_of(listed.content) == frozen.sha256
    assert frozen.faces.count() == 5 * len(EMOTIONS)


def test_erased_faces_show_at_data_set_and_version_with_a_way_out(
    page: Client, run: TrainingRun
) -> None:
    learned = snapshot(run).faces.filter(split="train").first()
    assert learned is not None
    Photo.objects.filter(pk=learned.photo_key).delete()
    version = candidate(run).version

    data_sets = words(page.get(reverse("training:snapshots")))
    shown = words(page.get(reverse("training:version", args=[version])))
    made = page.post(reverse("training:retrain-without", args=[version]), follow=True)

    assert '<td class="number">1</td><td class="number">0</td>' in data_sets
    assert "It learned from 1 face that was erased or withdrawn" in shown
    assert "Run 2: waits for a worker" in words(made)
    second = TrainingRun.objects.get(number=2)
    assert (second.trigger, second.mode) == ("erasure", "head")
    assert second.config == run.config


def test_retrain_without_is_refused_where_nothing_is_gone(
    page: Client, run: TrainingRun
) -> None:
    made = page.post(
        reverse("training:retrain-without", args=[candidate(run).version]), follow=True
    )

    assert "there is nothing to forget" in words(made)
    assert TrainingRun.objects.count() == 1


def test_shadow_is_started_and_stopped(page: Client, run: TrainingRun) -> None:
    version = candidate(run).version
    start = reverse("training:start-shadow")

    said = words(page.post(start, {"candidate": version, "hours": "24"}, follow=True))
    assert "reads along</b> until" in said
    shadow = Shadow.objects.get()
    stopped = page.post(reverse("training:stop-shadow", args=[shadow.pk]), follow=True)

    assert "ended" in words(stopped)
    shadow.refresh_from_db()
    assert shadow.ended_at is not None
    for wrong in (
        {"candidate": "nobody", "hours": "24"},
        {"candidate": version, "hours": "0"},
        {"candidate": version, "hours": "many"},
    ):
        words(page.post(start, wrong, follow=True))
    assert Shadow.objects.count() == 1


def test_drift_is_drawn_with_its_threshold(
    page: Client, champion: ModelVersion
) -> None:
    def measure(value: float) -> dict[str, object]:
        return {
            "name": "predictions",
            "words": "What the model says",
            "value": value,
            "warn_above": 0.2,
            "warns": value > 0.2,
            "labels": [emotion.value for emotion in EMOTIONS],
            "reference": [0.4, 0.1, 0.1, 0.4],
            "live": [0.1, 0.7, 0.1, 0.1],
        }

    today = timezone.now().date()
    for back, value in ((1, 0.05), (0, 0.9)):
        DriftReading.objects.create(
            model_version=champion,
            day=today - timedelta(days=back),
            faces=80,
            measures=[measure(value)],
            warns=value > 0.2,
        )

    said = words(page.get(reverse("training:watch")))

    assert "It drifts." in said
    assert "What the model says: 0.90" in said
    assert "warns above" in said
    assert "70 %" in said


def test_automatic_promotion_is_told(
    page: Client, settings: LazySettings, champion: ModelVersion
) -> None:
    assert "waits for an admin" in words(page.get(reverse("training:versions")))
    settings.AUTO_PROMOTE = True
    assert "is promoted by itself" in words(page.get(reverse("training:versions")))


@pytest.mark.parametrize(
    "address",
    [
        "/training/runs/99/",
        "/training/runs/99999999999999999999/",
        "/training/runs/99/gate/",
        "/training/versions/none/",
        "/training/versions/none/promote/",
        "/training/data-sets/99/",
        "/training/?page=99",
        "/training/?page=x",
    ],
)
def test_what_is_not_there_is_not_found(page: Client, address: str) -> None:
    assert page.get(address).status_code == 404
