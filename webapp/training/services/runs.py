"""A run's life: asked for, claimed, carried through; or failed, or cancelled, or dead
and taken up again."""

from __future__ import annotations

import logging
import uuid
from dataclasses import asdict
from typing import Any, Final

from celery.exceptions import SoftTimeLimitExceeded
from django.conf import settings
from django.db import Error as DatabaseError
from django.db import IntegrityError, transaction
from django.db.models import F, Max, Q
from django.db.models.functions import Coalesce, Now
from django.utils import timezone

from ml.retraining import RetrainingError
from webapp.accounts.models import Role, User
from webapp.accounts.roles import has_role
from webapp.core.clock import CLOCK_SLACK_SECONDS, in_seconds
from webapp.core.errors import DomainError, NotAllowed
from webapp.core.storage import StorageAway
from webapp.registry.models import ModelVersion
from webapp.registry.selectors import get_champion
from webapp.training.configs import parse_config
from webapp.training.errors import AlreadyRunning, NothingNew, RunRefused
from webapp.training.models import (
    MAX_ATTEMPTS,
    UNFINISHED,
    Mode,
    RunState,
    TrainingRun,
    Trigger,
)
from webapp.training.services import base as bases
from webapp.training.services import snapshots
from webapp.training.services.job import (
    LEASE_SECONDS,
    Job,
    Stopped,
    keep_lease,
    lease_end,
)
from webapp.training.services.lineage import choose_start
from webapp.training.services.queue import count_waiting_messages, wake_trainer
from webapp.training.services.run_dirs import remove_run_dir
from webapp.training.services.training import train_and_judge

MAX_SEED: Final = 2**31 - 1
_MESSAGE_LOST_AFTER_SECONDS: Final = 2.0
_AWAY_FOR_SECONDS: Final = 60.0
_AWAY_AT_MOST_SECONDS: Final = 24 * 3600.0

logger = logging.getLogger(__name__)


def request_run(
    *,
    mode: str,
    requested_by: User | None,
    trigger: Trigger = Trigger.HAND,
    seed: int = 0,
    config: dict[str, Any] | None = None,
) -> TrainingRun:
    """Ask for a run; a training worker takes it up.

    ``config`` holds what differs from the defaults of ``configs``. ``requested_by``
    is None for the schedule and the command line.

    Raises:
        NotAllowed: ``requested_by`` is no admin.
        RunRefused: Mode, seed or config is wrong, or a full run has no data folder.
        NothingNew: A head run with the same labels, start and settings was held
            against the version that serves already; or it has no label to learn from.
        AlreadyRunning: Another run is queued or running.
    """
    if requested_by is not None and not has_role(requested_by, Role.ADMIN):
        raise NotAllowed("Only an admin may train a model.")
    champion, start, settled = check_request(mode=mode, seed=seed, config=config)
    try:
        with transaction.atomic():
            most = TrainingRun.objects.aggregate(most=Max("number"))["most"] or 0
            run = TrainingRun.objects.create(
                number=most + 1,
                mode=mode,
                trigger=trigger,
                requested_by=requested_by,
                seed=seed,
                config=settled,
                parent=champion,
                start=start,
                queued_at=Now(),
            )
            # As the database told it; until then it is an expression.
            run.refresh_from_db(fields=["queued_at"])
            transaction.on_commit(lambda: wake_trainer(run.pk), robust=True)
    except IntegrityError as error:
        raise _already_running() from error
    return run


def check_request(
    *, mode: str, seed: int = 0, config: dict[str, Any] | None = None
) -> tuple[ModelVersion, ModelVersion, dict[str, Any]]:
    """Champion, start and settled config of a run that could begin now.

    Raises ``RunRefused``, ``NothingNew`` or ``AlreadyRunning``, see ``request_run``;
    a page asks so before it offers the button.
    """
    if mode not in Mode.values:
        raise RunRefused(f"A mode is head or full, not {str(mode)[:20]!r}.")
    if not 0 <= seed <= MAX_SEED:
        raise RunRefused(f"A seed is a whole number from 0 to {MAX_SEED}.")
    kind = Mode(mode)
    settled = asdict(parse_config(kind, config))
    champion = get_champion()
    if champion is None:
        raise RunRefused("No model is registered yet: run manage.py bootstrap.")
    if kind == Mode.FULL and not settings.DATASET_DIR:
        bases.need_data_folder()
    if TrainingRun.objects.filter(state__in=UNFINISHED).exists():
        raise _already_running()
    start = choose_start(champion=champion, mode=kind)
    _check_news(kind, champion, start, seed, settled)
    return champion, start, settled


def cancel_run(*, run: TrainingRun, cancelled_by: User | None) -> bool:
    """End a run that is not finished: at once where it waits, within seconds where a
    worker has it. False where it was finished already. Raises ``NotAllowed``."""
    if cancelled_by is not None and not has_role(cancelled_by, Role.ADMIN):
        raise NotAllowed("Only an admin may cancel a run.")
    now = timezone.now()
    with transaction.atomic():
        # One step for both states: between two the sweep could move it past them.
        wished = TrainingRun.objects.filter(pk=run.pk, state__in=UNFINISHED).update(
            cancel_requested_at=now, cancelled_by=cancelled_by
        )
        waited = TrainingRun.objects.filter(
            pk=run.pk, state=RunState.QUEUED, cancel_requested_at__isnull=False
        ).update(state=RunState.CANCELLED, ended_at=now, message="")
    if waited:
        remove_run_dir(run)
    return bool(wished)


def claim_run(*, run_id: uuid.UUID) -> TrainingRun | None:
    """Lease a queued run; None where somebody else has it or it is not wanted."""
    token = uuid.uuid4()
    claimed = TrainingRun.objects.filter(
        pk=run_id, state=RunState.QUEUED, attempts__lt=MAX_ATTEMPTS
    ).update(
        state=RunState.RUNNING,
        lease_token=token,
        lease_expires_at=lease_end(),
        attempts=F("attempts") + 1,
        message="",
    )
    if not claimed:
        return None
    TrainingRun.objects.filter(pk=run_id, started_at__isnull=True).update(
        started_at=timezone.now()
    )
    return (
        TrainingRun.objects.select_related("parent", "start", "snapshot")
        .filter(pk=run_id, lease_token=token)
        .first()
    )


def run_claimed(*, run: TrainingRun) -> None:
    """Carry a claimed run to its end: done, failed with a reason, or cancelled.

    Never raises for what data or training can do. Where the worker dies, or the
    database goes away, the lease runs out and the sweep queues the run again. Where
    the store is away, the run waits a minute, and no attempt is counted; it fails
    where the store has been away for a day, or refuses for good.
    """
    with keep_lease(run) as job:
        try:
            train_and_judge(job)
        except Stopped:
            _end_cancelled(job)
        except DatabaseError:
            raise
        except SoftTimeLimitExceeded:
            _fail(job, "It took longer than a run may take. Choose fewer epochs.")
        except StorageAway as error:
            _put_off(job, error)
        except DomainError as error:
            _fail(job, str(error))
        except RetrainingError as error:
            _fail(job, f"The head could not be refitted: {error}.")
        except OSError as error:
            _fail(job, f"A file could not be read or written: {error}.")
        except Exception as error:
            # The border of the job: whatever a network raises is this run's failure.
            logger.exception("run %s failed", run.number)
            _fail(job, f"Something unexpected went wrong: {error!r}.")


def sweep_runs() -> int:
    """Set going what stands still; how many runs that were. Runs any number of times.

    A run whose worker died goes back to the queue; after ``MAX_ATTEMPTS`` deaths
    without a checkpoint in between it is failed.
    """
    moved = 0
    for run in TrainingRun.objects.filter(_lease_is_over(), state=RunState.RUNNING):
        moved += _take_back(run)
    waiting = TrainingRun.objects.filter(
        Q(queued_at__lt=in_seconds(-_MESSAGE_LOST_AFTER_SECONDS))
        | Q(queued_at__gt=in_seconds(_AWAY_FOR_SECONDS + CLOCK_SLACK_SECONDS)),
        state=RunState.QUEUED,
    ).first()
    if waiting is not None and count_waiting_messages() == 0:
        moved += wake_trainer(waiting.pk)
    return moved


def _already_running() -> AlreadyRunning:
    return AlreadyRunning(
        "A run is under way already. Wait for its end, or cancel it first."
    )


def _check_news(
    mode: Mode,
    champion: ModelVersion,
    start: ModelVersion,
    seed: int,
    config: dict[str, Any],
) -> None:
    if mode == Mode.FULL:
        # The folder, too, may be another by now; only people ask for full runs.
        return
    labels = snapshots.current_labels()
    if not labels:
        raise NothingNew(
            "There is nothing to learn from yet: no face has been decided by people "
            "whose photo may be used for training. Label some faces first."
        )
    # The same model is worth a run where another champion has come since: the gate
    # has not compared it with that one.
    same = TrainingRun.objects.filter(
        Q(parent=champion) | Q(candidate=champion),
        state=RunState.DONE,
        mode=mode,
        start=start,
        seed=seed,
        config=config,
        snapshot__labels_sha256=snapshots.labels_sha256(labels),
    ).first()
    if same is not None:
        raise NothingNew(
            f"Nothing is new since run {same.number}: the same labels and settings "
            "would give the same model. Label more faces; by the API and "
            "manage.py retrain, another seed or setting will do as well."
        )


def _fail(job: Job, message: str) -> None:
    failed = job.mine.update(
        state=RunState.FAILED,
        message=message[:1000],
        stage="",
        ended_at=timezone.now(),
        lease_token=None,
        lease_expires_at=None,
    )
    if failed:
        job.say(f"Failed: {message}")
        remove_run_dir(job.run)


def _put_off(job: Job, error: StorageAway) -> None:
    """Give it back as if it had never been claimed: the sweep wakes a worker once it
    is due. A store that is away for a day may refuse for good: then it fails."""
    wanted = job.mine.filter(cancel_requested_at__isnull=True)
    long_ago = in_seconds(-_AWAY_AT_MOST_SECONDS)
    if wanted.filter(put_off_since__lte=long_ago).exists():
        _fail(
            job,
            f"The files were out of reach for a day: {error}. See to their store, then "
            "start another run.",
        )
        return
    message = f"Put off, the files are out of reach: {error}"
    put_off = wanted.update(
        state=RunState.QUEUED,
        queued_at=in_seconds(_AWAY_FOR_SECONDS),
        put_off_since=Coalesce("put_off_since", Now()),
        attempts=F("attempts") - 1,
        message=message[:1000],
        stage="",
        progress_done=0,
        progress_total=0,
        lease_token=None,
        lease_expires_at=None,
    )
    if put_off:
        job.say(f"{message}. It is tried again every minute, for a day.")
    else:
        _end_cancelled(job)


def _end_cancelled(job: Job) -> None:
    """Where the stop was a person's wish; a lost lease is somebody else's run now."""
    ended = job.mine.filter(cancel_requested_at__isnull=False).update(
        state=RunState.CANCELLED,
        stage="",
        ended_at=timezone.now(),
        lease_token=None,
        lease_expires_at=None,
    )
    if ended:
        job.say("Cancelled.")
        remove_run_dir(job.run)


def _lease_is_over() -> Q:
    return Q(lease_expires_at__lt=Now()) | Q(
        lease_expires_at__gt=in_seconds(LEASE_SECONDS + CLOCK_SLACK_SECONDS)
    )


def _take_back(run: TrainingRun) -> bool:
    """End the lease of a dead worker; False where it was renewed meanwhile."""
    dead = TrainingRun.objects.filter(
        _lease_is_over(),
        pk=run.pk,
        state=RunState.RUNNING,
        lease_token=run.lease_token,
    )
    now = timezone.now()
    ended: dict[str, Any] = {"lease_token": None, "lease_expires_at": None, "stage": ""}
    cancelled = dead.filter(cancel_requested_at__isnull=False).update(
        state=RunState.CANCELLED, ended_at=now, **ended
    )
    unwished = dead.filter(cancel_requested_at__isnull=True)
    failed = unwished.filter(attempts__gte=MAX_ATTEMPTS).update(
        state=RunState.FAILED,
        message=(
            f"The training worker died {run.attempts} times without getting any "
            "further. Look at its log and at the memory of its host, then start "
            "another run."
        ),
        ended_at=now,
        **ended,
    )
    if cancelled or failed:
        remove_run_dir(run)
        return True
    queued = unwished.update(state=RunState.QUEUED, queued_at=Now(), **ended)
    if queued:
        wake_trainer(run.pk)
    return bool(queued)
