"""``manage.py restore FILE``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from webapp.accounts.services import said_of_closed
from webapp.operations.backup import BackupError, restore_backup


class Command(BaseCommand):
    """Bring back what ``backup`` saved, all of it or nothing."""

    help = "Restores FILE into an empty site; stop web, workers and beat before."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", type=Path)
        parser.add_argument(
            "--replace",
            action="store_true",
            help="Give up all that is there: photos, people, labels, runs, the audit.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        path: Path = options["file"]
        try:
            summary = restore_backup(path=path, replace=options["replace"])
        except BackupError as error:
            raise CommandError(str(error)) from error
        if summary.passwords_closed:
            self.stderr.write(said_of_closed(summary.passwords_closed))
        self.stdout.write(
            f"{path}: {summary.rows} rows and {summary.files} files are back; "
            f"{summary.erased_meanwhile} photos were due for erasure and are gone"
        )
