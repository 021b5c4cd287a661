"""``manage.py backup FILE``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from webapp.operations.backup import BackupError, save_backup


class Command(BaseCommand):
    """Save all rows and files; the site may go on meanwhile."""

    help = "Writes every row and every file to FILE, readable by you alone."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", type=Path)

    def handle(self, *args: Any, **options: Any) -> None:
        path: Path = options["file"]
        try:
            summary = save_backup(path=path)
        except BackupError as error:
            raise CommandError(str(error)) from error
        self.stdout.write(
            f"{path}: {summary.rows} rows, {summary.files} files, "
            f"{summary.size_bytes} bytes"
        )
