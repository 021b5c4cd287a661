"""Bring exported corrections back."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from webapp.core.errors import DomainError
from webapp.curation.services.transfer import (
    import_rows,
    read_csv,
    read_folder,
    read_jsonl,
)


class Command(BaseCommand):
    help = (
        "Brings corrections back from a .csv, a .jsonl or an exported folder: all of "
        "them, or none. What is here already stays as it is."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("path", type=Path)

    def handle(self, *args: Any, **options: Any) -> None:
        path: Path = options["path"]
        try:
            if path.is_dir():
                report = import_rows(rows=read_folder(path))
            elif (suffix := path.suffix.lower()) in (".csv", ".jsonl"):
                read = read_csv if suffix == ".csv" else read_jsonl
                # A spreadsheet puts a mark before the first column.
                with path.open(encoding="utf-8-sig", newline="") as handle:
                    report = import_rows(rows=read(handle))
            else:
                raise CommandError(f"{path} is no .csv, no .jsonl and no folder.")
        except UnicodeDecodeError as error:
            raise CommandError(f"{path} is no UTF-8: save it as that.") from error
        except (DomainError, OSError) as error:
            raise CommandError(str(error)) from error
        self.stdout.write(
            f"{report.new} new, {report.known} known already, "
            f"{report.missing_faces} of faces that are not here."
        )
