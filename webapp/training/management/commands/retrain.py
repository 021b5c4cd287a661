"""``manage.py retrain``: train from the command line."""

from __future__ import annotations

import argparse
import json
import time
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError
from django.db.models.functions import Now

from webapp.core.errors import DomainError
from webapp.training.errors import NothingNew
from webapp.training.models import GateOutcome, Mode, RunState, TrainingRun
from webapp.training.services.runs import claim_run, request_run, run_claimed
from webapp.training.services.triggers import after_run

NOTHING_NEW: Final = 3
CODES: Final = {GateOutcome.PROMOTE: 0, GateOutcome.HOLD: 4, GateOutcome.REJECT: 5}
CANCELLED: Final = 6
STILL_RUNNING: Final = 7
_LOOK_EVERY_SECONDS: Final = 0.5


class Command(BaseCommand):
    """Ask for a run, follow it, and say what the gate says."""

    help = (
        "Train a candidate on what people labelled. Exit code with --wait or --here: "
        "0 the gate says promote, 4 hold, 5 reject; 3 nothing is new; 6 cancelled; 7 "
        "still running after --timeout; 1 it failed or was refused."
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--mode",
            choices=list(Mode.values),
            default=Mode.HEAD.value,
            help="head: seconds, everywhere; full: needs the data folder",
        )
        parser.add_argument("--seed", type=int, default=0)
        parser.add_argument(
            "--set",
            action="append",
            default=[],
            metavar="NAME=VALUE",
            help="a setting of the run, as curated_weight=10; may be repeated",
        )
        how = parser.add_mutually_exclusive_group()
        how.add_argument(
            "--wait", action="store_true", help="follow the run to its end"
        )
        how.add_argument(
            "--here",
            action="store_true",
            help="train in this process, not on a training worker",
        )
        parser.add_argument(
            "--timeout",
            type=float,
            default=24 * 3600,
            help="seconds that --wait waits, and --here for files out of reach",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            run = request_run(
                mode=options["mode"],
                requested_by=None,
                seed=options["seed"],
                config=_settings(options["set"]),
            )
        except NothingNew as error:
            raise CommandError(str(error), returncode=NOTHING_NEW) from error
        except DomainError as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"Run {run.number} is queued.")
        if options["here"] or options["wait"]:
            self._follow(run, options["timeout"], here=options["here"])

    def _train(self, run: TrainingRun) -> None:
        claimed = claim_run(run_id=run.pk)
        # A worker that was quicker has it: then there is only to wait.
        if claimed is not None:
            run_claimed(run=claimed)
            after_run(run_id=run.pk)

    def _follow(self, run: TrainingRun, timeout: float, *, here: bool) -> None:
        deadline = time.monotonic() + timeout
        shown = 0
        while True:
            # Again where it was put off: there may be no training worker.
            due = TrainingRun.objects.filter(
                pk=run.pk, state=RunState.QUEUED, queued_at__lte=Now()
            )
            if here and due.exists():
                self._train(run)
            run.refresh_from_db()
            finished = run.is_finished
            for line in run.lines.filter(pk__gt=shown):
                shown = line.pk
                self.stdout.write(f"  {line.text}")
            if finished:
                break
            if time.monotonic() > deadline:
                raise CommandError(
                    f"Run {run.number} is still {run.state}. It goes on without this "
                    "command, if a training worker runs.",
                    returncode=STILL_RUNNING,
                )
            time.sleep(_LOOK_EVERY_SECONDS)
        self._report(run)

    def _report(self, run: TrainingRun) -> None:
        if run.state == RunState.FAILED:
            raise CommandError(f"Run {run.number} failed. {run.message}")
        if run.state == RunState.CANCELLED:
            raise CommandError(f"Run {run.number} was cancelled.", returncode=CANCELLED)
        assert run.candidate is not None  # The database says so of what is done.
        outcome = GateOutcome(run.outcome)
        self.stdout.write(f"Version {run.candidate.version}: {outcome.value}")
        for finding in run.decision["findings"]:
            self.stdout.write(f"  {finding['reason']}")
        for note in run.decision["notes"]:
            self.stdout.write(f"  {note}")
        if CODES[outcome]:
            raise CommandError(
                f"The gate says {outcome.value}. To promote it nevertheless: manage.py "
                f"promote {run.candidate.version} --reason WHY",
                returncode=CODES[outcome],
            )
        self.stdout.write(f"To let it serve: manage.py promote {run.candidate.version}")


def _settings(given: list[str]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise CommandError(f"--set wants NAME=VALUE, not {text!r}.")
        try:
            out[name] = json.loads(value)
        except ValueError:
            raise CommandError(
                f"{name} must be a number, true or false, not {value!r}."
            ) from None
    return out
