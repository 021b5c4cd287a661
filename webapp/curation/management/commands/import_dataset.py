"""Look a data folder through and put its suspect faces onto the queue."""

from __future__ import annotations

import time
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from webapp.core.errors import DomainError
from webapp.curation.models import DatasetImport
from webapp.curation.services.imports import (
    ImportOptions,
    claim_dataset_import,
    run_dataset_import,
    start_dataset_import,
)


class Command(BaseCommand):
    help = (
        "Looks a data folder (train, validation; in each a folder an emotion) through "
        "in the background, and puts the faces whose folder the model doubts onto the "
        "curation queue. Whoever imports a folder answers for the right to train on it."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("folder", type=Path)
        parser.add_argument("--split", default="train")
        parser.add_argument(
            "--everything", action="store_true", help="queue every face"
        )
        parser.add_argument(
            "--limit", type=int, default=0, help="end after so many queued faces"
        )
        parser.add_argument(
            "--gold",
            type=int,
            default=0,
            help="make so many faces gold, of which folder and model are sure",
        )
        parser.add_argument(
            "--wait", action="store_true", help="show the progress until the end"
        )
        parser.add_argument(
            "--here", action="store_true", help="work in this process, not a worker"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            row = start_dataset_import(
                folder=options["folder"],
                options=ImportOptions(
                    split=options["split"],
                    everything=options["everything"],
                    limit=options["limit"],
                    gold=options["gold"],
                ),
                started_by=None,
            )
        except DomainError as error:
            raise CommandError(str(error)) from error
        if options["here"]:
            claimed = claim_dataset_import(import_id=row.pk)
            if claimed is not None:
                run_dataset_import(dataset_import=claimed)
        if not (options["wait"] or options["here"]):
            self.stdout.write("Started. The page of the queue shows how far it is.")
            return
        self._follow(row)

    def _follow(self, row: DatasetImport) -> None:
        shown = -1
        ended = (DatasetImport.Status.DONE, DatasetImport.Status.FAILED)
        while True:
            row.refresh_from_db()
            if row.seen != shown:
                shown = row.seen
                self.stdout.write(
                    f"{row.seen} of {row.total} looked at, {row.queued_faces} queued"
                )
            if row.status in ended:
                break
            time.sleep(0.5)
        if row.status == DatasetImport.Status.FAILED:
            raise CommandError(row.message)
        self.stdout.write("Done.")
