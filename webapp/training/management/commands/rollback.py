"""``manage.py rollback``: bring back the version that served before."""

from __future__ import annotations

import argparse
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from webapp.core.errors import DomainError
from webapp.core.storage import StorageAway
from webapp.training.management.people import admin_named
from webapp.training.services.promotion import roll_back


class Command(BaseCommand):
    """Undo the last promotion."""

    help = "Bring back the version that served before the champion."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--reason", default="")
        parser.add_argument("--by", default="", help="the admin who decides, by name")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            promotion = roll_back(
                rolled_back_by=admin_named(options["by"]), reason=options["reason"]
            )
        except (DomainError, StorageAway) as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"Version {promotion.model_version.version} serves again.")
