"""Everything that must be there before the first request, in one process.

Django's own checks come first, so that what is broken is said once and not by every
process. Runs any number of times, and takes two seconds where nothing is left to do.
It reports on stderr; what it writes on stdout is meant for the person who starts the
site.
"""

from __future__ import annotations

import hashlib
import inspect
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from django.conf import settings
from django.contrib.staticfiles.finders import get_finders
from django.contrib.staticfiles.storage import staticfiles_storage
from django.core.files.storage import default_storage
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DEFAULT_DB_ALIAS, connections
from django.db import Error as DatabaseError
from django.db.migrations.executor import MigrationExecutor

from ml.manifest import ManifestError, ModelFileError, write_atomically
from webapp.accounts.services import (
    close_known_passwords,
    said_of_closed,
    seed_demo_people,
)
from webapp.registry.services import register_shipped_model

NOT_SERVED: Final = ["*.js.map", "*/redoc", "rest_framework"]
"""Half of all bytes: maps for debugging the packages' scripts, a second viewer of the
API, and DRF's own pages. Nobody links to them."""


class Command(BaseCommand):
    """Migrate, collect static files, register the shipped model, seed a demo."""

    help = (
        "Prepares database, static files, the shipped model and, in a demo, its "
        "people. Safe to run again."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--without-static",
            action="store_true",
            help="Leave static files alone: an image brings its own.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            self._prepare(with_static=not options["without_static"])
        except DatabaseError as error:
            # Not up, no password, no space, or a file that is no database.
            raise CommandError(f"The database cannot be used: {error}") from error
        except (ManifestError, ModelFileError) as error:
            raise CommandError(f"The model that ships is broken: {error}") from error
        except OSError as error:
            raise CommandError(f"Files cannot be kept: {error}") from error

    def _prepare(self, *, with_static: bool) -> None:
        self._migrate()
        if with_static:
            self._collect_static()
        default_storage.prepare()  # type: ignore[attr-defined]
        register_shipped_model()
        if settings.DEMO:
            for username, password, role in seed_demo_people():
                self.stdout.write(f"{role}: {username}, password {password}")
        elif closed := close_known_passwords():
            self.stderr.write(said_of_closed(closed))

    def _migrate(self) -> None:
        """Only with something to apply: the signals afterwards take a second."""
        executor = MigrationExecutor(connections[DEFAULT_DB_ALIAS])
        targets = executor.loader.graph.leaf_nodes()
        if not executor.migration_plan(targets):
            return
        self.stderr.write("Bringing the database up to date ...")
        call_command("migrate", interactive=False, verbosity=0)

    def _collect_static(self) -> None:
        """Only where a file changed: hashing and compressing takes seconds."""
        fingerprint = _static_fingerprint()
        stamp = Path(settings.STATIC_ROOT) / ".fingerprint"
        if stamp.exists() and stamp.read_text(encoding="utf-8") == fingerprint:
            return
        self.stderr.write("Collecting static files ...")
        call_command(
            "collectstatic",
            interactive=False,
            verbosity=0,
            ignore_patterns=NOT_SERVED,
        )
        write_atomically(stamp, fingerprint.encode())


def _static_fingerprint() -> str:
    """Changes with every source file and with the code that processes them."""
    code = Path(inspect.getfile(type(staticfiles_storage)))
    words = [version("django"), version("whitenoise"), _state(code)]
    for finder in get_finders():
        for path, storage in finder.list(NOT_SERVED):
            words.append(f"{path} {_state(Path(storage.path(path)))}")
    return hashlib.sha256("\n".join(sorted(words)).encode()).hexdigest()


def _state(path: Path) -> str:
    found = path.stat()
    return f"{path} {found.st_size} {found.st_mtime_ns}"
