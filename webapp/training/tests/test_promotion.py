from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import LazySettings
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from ml.inference import SHIPPED_MODEL
from tests.models import write_tiny_model
from webapp.accounts.models import Role, User
from webapp.core.errors import Conflict, NotAllowed
from webapp.curation.tests.factories import PersonFactory
from webapp.photos.services.erasure import delete_photo
from webapp.photos.services.serving import ModelServer
from webapp.registry.models import ModelVersion, Promotion
from webapp.registry.selectors import get_champion
from webapp.registry.services import register_model_version
from webapp.training.errors import NothingNew, ReasonNeeded
from webapp.training.models import GateOutcome, SnapshotFace, Split, TrainingRun
from webapp.training.services import triggers
from webapp.training.services.promotion import (
    promote_version,
    roll_back,
    version_before,
)
from webapp.training.services.triggers import after_run
from webapp.training.tasks import promote_what_was_missed, sweep_runs
from webapp.training.tests.factories import Labeller, head_run, take_files_away

pytestmark = pytest.mark.django_db


def candidate_of(run: TrainingRun) -> ModelVersion:
    assert run.candidate is not None
    return run.candidate


@pytest.fixture
def run(labeller: Labeller) -> TrainingRun:
    labeller.faces(5)
    run = head_run()
    assert run.outcome == GateOutcome.PROMOTE, run.decision
    return run


def test_what_the_gate_lets_through_needs_no_reason(
    run: TrainingRun, admin: User
) -> None:
    promotion = promote_version(model_version=candidate_of(run), promoted_by=admin)

    assert get_champion() == candidate_of(run)
    assert promotion.previous == run.parent
    assert promotion.promoted_by == admin
    assert promotion.reason == "The gate said promote (run 1)."


@pytest.mark.parametrize(
    ("outcome", "said"), [("hold", "is undecided"), ("reject", "rejects it")]
)
def test_what_the_gate_does_not_let_through_needs_one(
    run: TrainingRun, admin: User, outcome: str, said: str
) -> None:
    TrainingRun.objects.filter(pk=run.pk).update(
        outcome=outcome, decision={"findings": [{"reason": "Worse: much."}]}
    )
    for empty in ("", "   ", "\x00", "\u200b\u00ad \ufe0f", "\u3164", "\u2800\n"):
        with pytest.raises(ReasonNeeded, match=f"gate {said}. Worse: much"):
            promote_version(
                model_version=candidate_of(run), promoted_by=admin, reason=empty
            )
    assert get_champion() == run.parent

    promotion = promote_version(
        model_version=candidate_of(run), promoted_by=admin, reason="I tried it."
    )
    assert promotion.reason == "I tried it."


def test_only_admins_promote_and_roll_back(run: TrainingRun) -> None:
    judge = PersonFactory(role=Role.ADJUDICATOR)
    with pytest.raises(NotAllowed):
        promote_version(model_version=candidate_of(run), promoted_by=judge, reason="x")
    with pytest.raises(NotAllowed):
        roll_back(rolled_back_by=judge)


def test_gates_word_holds_against_the_champion_that_it_compared_with(
    run: TrainingRun, admin: User, tmp_path: Path
) -> None:
    other = register_model_version(path=write_tiny_model(tmp_path, "other"))
    with pytest.raises(ReasonNeeded, match="has not judged version other"):
        promote_version(model_version=other, promoted_by=admin)
    promote_version(model_version=other, promoted_by=admin, reason="a trial")

    with pytest.raises(ReasonNeeded, match="but other serves by now"):
        promote_version(model_version=candidate_of(run), promoted_by=admin)
    promote_version(model_version=candidate_of(run), promoted_by=admin, reason="Yes.")
    assert get_champion() == candidate_of(run)


def test_training_again_is_possible_where_another_candidate_was_promoted_meanwhile(
    run: TrainingRun, admin: User
) -> None:
    sibling = head_run(config={"curated_weight": 2})
    promote_version(model_version=candidate_of(sibling), promoted_by=admin, reason="y")
    with pytest.raises(ReasonNeeded, match="train again"):
        promote_version(model_version=candidate_of(run), promoted_by=admin)
    with pytest.raises(NothingNew, match=f"since run {sibling.number}"):
        head_run(config=sibling.config)

    again = head_run()

    assert again.parent == candidate_of(sibling)
    assert candidate_of(again).sha256 == candidate_of(run).sha256
    with pytest.raises(NothingNew, match=f"since run {again.number}"):
        head_run()


def test_version_that_answers_with_no_number_never_serves(
    champion: ModelVersion, admin: User, tmp_path: Path
) -> None:
    path = write_tiny_model(tmp_path, "broken", (float("nan"), 0.0, 0.0, 0.0))
    broken = register_model_version(path=path)

    with pytest.raises(Conflict, match=r"cannot serve: .* is no number"):
        promote_version(model_version=broken, promoted_by=admin, reason="let us see")

    assert get_champion() == champion


def test_champion_is_not_promoted_again(run: TrainingRun, admin: User) -> None:
    promote_version(model_version=candidate_of(run), promoted_by=admin)
    with pytest.raises(Conflict, match="serves already"):
        promote_version(
            model_version=candidate_of(run), promoted_by=admin, reason="again"
        )
    assert Promotion.objects.count() == 2


def test_version_whose_file_was_changed_is_never_champion(
    run: TrainingRun, admin: User, home: Path
) -> None:
    path = home / "media" / candidate_of(run).file_name
    path.write_bytes(path.read_bytes()[:-1] + b"x")

    with pytest.raises(Conflict, match=r"The champion stays.*or promote another"):
        promote_version(model_version=candidate_of(run), promoted_by=admin)

    assert get_champion() == run.parent


def test_champion_whose_file_is_changed_later_does_not_load_and_the_last_one_serves(
    run: TrainingRun, admin: User, home: Path
) -> None:
    server = ModelServer()
    assert server.champion().version == run.parent
    promote_version(model_version=candidate_of(run), promoted_by=admin)
    path = home / "media" / candidate_of(run).file_name
    good = path.read_bytes()
    path.write_bytes(SHIPPED_MODEL.read_bytes())

    assert server.champion().version == run.parent

    path.write_bytes(good)
    assert server.champion().version == candidate_of(run)


def test_running_worker_asks_before_each_photo(run: TrainingRun, admin: User) -> None:
    server = ModelServer()
    assert server.champion().version == run.parent
    promote_version(model_version=candidate_of(run), promoted_by=admin)
    assert server.champion().version == candidate_of(run)
    roll_back(rolled_back_by=admin)
    assert server.champion().version == run.parent


def test_rollback_goes_back_step_by_step(
    champion: ModelVersion, admin: User, tmp_path: Path
) -> None:
    names = ["a", "bb", "ccc"]
    versions = [
        register_model_version(path=write_tiny_model(tmp_path, name)) for name in names
    ]
    for version in versions:
        promote_version(model_version=version, promoted_by=admin, reason="trial")

    went_to = []
    while version_before() is not None:
        promotion = roll_back(rolled_back_by=admin, reason="worse")
        went_to.append(promotion.model_version.version)

    assert went_to == ["bb", "a", champion.version]
    assert promotion.reason == "Rolled back from a. worse"
    with pytest.raises(Conflict, match="no earlier version"):
        roll_back(rolled_back_by=admin)
    # After a rollback something new lies on top of what serves.
    promote_version(model_version=versions[2], promoted_by=admin, reason="after all")
    assert roll_back(rolled_back_by=admin).model_version == champion


def test_rollback_finds_its_way_where_the_clock_was_set_back(
    champion: ModelVersion, admin: User, tmp_path: Path
) -> None:
    for name in ("a", "bb"):
        version = register_model_version(path=write_tiny_model(tmp_path, name))
        promote_version(model_version=version, promoted_by=admin, reason="trial")
        # The next one comes an hour before this one, as far as the clock can tell.
        Promotion.objects.filter(model_version=version).update(
            created_at=timezone.now() + timedelta(hours=1)
        )

    went_to = [roll_back(rolled_back_by=admin).model_version.version for _ in range(2)]

    assert went_to == ["a", champion.version]


def test_rollback_from_a_version_that_serves_no_more_changes_nothing(
    run: TrainingRun, admin: User, tmp_path: Path
) -> None:
    promote_version(model_version=candidate_of(run), promoted_by=admin)
    other = register_model_version(path=write_tiny_model(tmp_path, "other"))
    promote_version(model_version=other, promoted_by=admin, reason="a trial")
    roll_back(rolled_back_by=admin, expected_champion=other)

    with pytest.raises(Conflict, match="has become champion meanwhile, not other any"):
        roll_back(rolled_back_by=admin, expected_champion=other)

    assert get_champion() == candidate_of(run)


def test_automatic_promotion_is_off_unless_switched_on(
    run: TrainingRun, settings: LazySettings
) -> None:
    after_run(run_id=run.pk)
    assert get_champion() == run.parent

    settings.AUTO_PROMOTE = True
    after_run(run_id=run.pk)
    after_run(run_id=run.pk)

    assert get_champion() == run.candidate
    promotion = Promotion.objects.first()
    assert promotion is not None
    assert promotion.promoted_by is None
    assert promotion.reason.startswith("Automatic: the gate said promote")


def test_automatic_promotion_leaves_what_the_gate_holds(
    run: TrainingRun, settings: LazySettings
) -> None:
    settings.AUTO_PROMOTE = True
    TrainingRun.objects.filter(pk=run.pk).update(outcome="hold")

    after_run(run_id=run.pk)

    assert get_champion() == run.parent


def test_automatic_promotion_that_a_dead_worker_missed_is_made_up_for_once(
    run: TrainingRun, settings: LazySettings, admin: User
) -> None:
    promote_what_was_missed()
    assert get_champion() == run.parent

    settings.AUTO_PROMOTE = True
    promote_what_was_missed()
    assert get_champion() == run.candidate

    roll_back(rolled_back_by=admin)
    promote_what_was_missed()
    assert get_champion() == run.parent


@pytest.mark.parametrize(
    "change",
    [{"outcome": "hold"}, {"ended_at": timezone.now() - timedelta(days=2)}],
)
def test_making_up_leaves_what_was_never_to_be_promoted_by_itself(
    run: TrainingRun, settings: LazySettings, change: dict[str, Any]
) -> None:
    settings.AUTO_PROMOTE = True
    TrainingRun.objects.filter(pk=run.pk).update(**change)

    promote_what_was_missed()

    assert get_champion() == run.parent


def test_what_learned_from_a_face_that_is_gone_serves_only_with_a_reason(
    run: TrainingRun, settings: LazySettings, admin: User
) -> None:
    settings.AUTO_PROMOTE = True
    learned = SnapshotFace.objects.filter(split=Split.TRAIN).first()
    assert learned is not None
    assert learned.face is not None
    delete_photo(photo=learned.face.photo)

    after_run(run_id=run.pk)
    promote_what_was_missed()
    assert get_champion() == run.parent
    with pytest.raises(ReasonNeeded, match="learned from, 1 may not be used"):
        promote_version(model_version=candidate_of(run), promoted_by=admin)

    promote_version(
        model_version=candidate_of(run), promoted_by=admin, reason="for a day"
    )
    assert get_champion() == run.candidate


def test_what_was_promoted_meanwhile_is_not_called_a_failure(
    run: TrainingRun, settings: LazySettings, caplog: pytest.LogCaptureFixture
) -> None:
    """Worker and beat may both come to it."""
    settings.AUTO_PROMOTE = True
    promote_version(model_version=candidate_of(run), promoted_by=None)

    after_run(run_id=run.pk)

    assert get_champion() == run.candidate
    assert "is not promoted" not in caplog.text


def test_automatic_promotion_that_loses_a_race_is_not_called_a_failure(
    run: TrainingRun,
    settings: LazySettings,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings.AUTO_PROMOTE = True
    may_serve = triggers.why_reason_is_needed

    def meanwhile(*given: Any) -> str:
        promote_version(model_version=candidate_of(run), promoted_by=None)
        return may_serve(*given)

    monkeypatch.setattr(triggers, "why_reason_is_needed", meanwhile)
    after_run(run_id=run.pk)

    assert Promotion.objects.filter(model_version=candidate_of(run)).count() == 1
    assert "is not promoted" not in caplog.text


def test_runs_are_swept_without_trying_to_promote(
    run: TrainingRun, settings: LazySettings
) -> None:
    """Every few seconds is too often to read a model's file."""
    settings.AUTO_PROMOTE = True

    sweep_runs()

    assert get_champion() == run.parent
    beaten = {
        entry["task"]: entry["schedule"].run_every.total_seconds()
        for entry in settings.CELERY_BEAT_SCHEDULE.values()
    }
    assert beaten[promote_what_was_missed.name] >= 60


def test_promotion_waits_for_a_store_that_is_away(
    run: TrainingRun,
    settings: LazySettings,
    admin: User,
    client: Client,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings.AUTO_PROMOTE = True
    candidate = candidate_of(run)
    client.force_login(admin)
    page = reverse("training:version", args=[candidate.version])
    with monkeypatch.context() as patched:
        take_files_away(patched)
        after_run(run_id=run.pk)
        with pytest.raises(CommandError, match="cannot be opened"):
            call_command("promote", candidate.version)
        answer = client.post(
            reverse("training:promote", args=[candidate.version]),
            {"champion": run.parent.version},
        )
        shown = client.get(page).content.decode()
        listed = client.get(reverse("training:versions")).content.decode()
        file = client.get(reverse("training:model-file", args=[candidate.version]))

    assert get_champion() == run.parent
    assert (answer.status_code, file.status_code) == (503, 503)
    assert "out of reach for now" in shown
    assert "out of reach for now" in listed
    assert "Restore the file" not in shown
    assert "hash differs" not in listed

    promote_what_was_missed()
    assert get_champion() == candidate
    with monkeypatch.context() as patched:
        take_files_away(patched)
        with pytest.raises(CommandError, match="cannot be opened"):
            call_command("rollback")
    assert get_champion() == candidate


@pytest.mark.django_db(transaction=True)
def test_two_promotions_at_once_have_one_winner(
    champion: ModelVersion, tmp_path: Path
) -> None:
    admin = PersonFactory(role=Role.ADMIN)
    versions = [
        register_model_version(path=write_tiny_model(tmp_path, "v" * (i + 1)))
        for i in range(4)
    ]
    start = threading.Barrier(len(versions))
    won: list[str] = []
    lost: list[str] = []

    def run(version: ModelVersion) -> None:
        start.wait()
        try:
            promote_version(
                model_version=version,
                promoted_by=admin,
                reason="mine",
                expected_champion=champion,
            )
            won.append(version.version)
        except Conflict as error:
            lost.append(str(error))
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=[version]) for version in versions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (len(won), len(lost)) == (1, 3)
    assert all("has become champion meanwhile" in words for words in lost)
    assert ModelVersion.objects.get(is_champion=True).version == won[0]
    assert Promotion.objects.count() == 2
