"""``manage.py promote VERSION``: let a version serve."""

from __future__ import annotations

import argparse
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from webapp.core.errors import DomainError
from webapp.core.storage import StorageAway
from webapp.registry.models import ModelVersion
from webapp.training.management.people import admin_named
from webapp.training.services.promotion import promote_version


class Command(BaseCommand):
    """Make a version the champion."""

    help = "Let a version serve, in every worker, from its next photo on."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("version")
        parser.add_argument(
            "--reason", default="", help="needed where the gate did not say promote"
        )
        parser.add_argument("--by", default="", help="the admin who decides, by name")

    def handle(self, *args: Any, **options: Any) -> None:
        version = ModelVersion.objects.filter(version=options["version"]).first()
        if version is None:
            known = ", ".join(ModelVersion.objects.values_list("version", flat=True))
            raise CommandError(
                f"There is no version {options['version']!r}; there are {known}."
            )
        try:
            promotion = promote_version(
                model_version=version,
                promoted_by=admin_named(options["by"]),
                reason=options["reason"],
            )
        except (DomainError, StorageAway) as error:
            raise CommandError(str(error)) from error
        before = promotion.previous.version if promotion.previous else "none"
        self.stdout.write(f"Version {version.version} serves now; before: {before}.")
