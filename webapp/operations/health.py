"""Is this site fit to serve: database, storage, model, and broker and beat beside
them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from django.core.files.storage import default_storage
from django.db import Error as DatabaseError
from django.db import connection

from ml.manifest import ManifestError, ModelFileError, verify_model
from webapp.core.storage import StorageAway
from webapp.operations.selectors import beat_is_present
from webapp.photos.services.queue import count_waiting_messages
from webapp.registry.selectors import get_champion, read_model_file

_MODEL_GOOD_FOR_SECONDS: Final = 30.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Check:
    """One part. ``needed``: without it the site cannot serve; else it is worse, and
    goes on. ``words`` say what is wrong, without a secret or a path."""

    name: str
    needed: bool
    words: str = ""

    @property
    def ok(self) -> bool:
        return not self.words


class Unwell(Exception):
    """A part is not well; says what."""


def check_all() -> list[Check]:
    """Every part, the ones that are needed first."""
    return [
        _run("database", True, _database),
        _run("storage", True, _storage),
        _run("model", True, _model),
        _run("broker", False, _broker),
        _run("beat", False, _beat),
    ]


def overall(checks: list[Check]) -> str:
    """``ok``, ``degraded`` or ``unavailable``."""
    if any(check.needed and not check.ok for check in checks):
        return "unavailable"
    return "ok" if all(check.ok for check in checks) else "degraded"


def _run(name: str, needed: bool, check: Callable[[], None]) -> Check:
    try:
        check()
    except Unwell as error:
        logger.warning("%s: %s (%s)", name, error, error.__cause__)
        return Check(name, needed, str(error))
    return Check(name, needed)


def _database() -> None:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError as error:
        raise Unwell("the database does not answer") from error


def _storage() -> None:
    try:
        default_storage.probe()  # type: ignore[attr-defined]
    except OSError as error:
        raise Unwell("no file can be kept now") from error


_verified: dict[str, float] = {}
"""Until when a file, by its hash, need not be read again."""


def _model() -> None:
    try:
        champion = get_champion()
    except DatabaseError as error:
        raise Unwell("the registry cannot be asked") from error
    if champion is None:
        raise Unwell("no model is registered: run manage.py bootstrap")
    if _verified.get(champion.sha256, 0.0) > time.monotonic():
        return
    _verified.clear()
    try:
        manifest, data = read_model_file(champion)
        verify_model(data, manifest)
    except StorageAway as error:
        raise Unwell(
            f"the file of version {champion.version} cannot be read now"
        ) from error
    except (ManifestError, ModelFileError) as error:
        raise Unwell(
            f"the file of version {champion.version} is not the one that was registered"
        ) from error
    _verified[champion.sha256] = time.monotonic() + _MODEL_GOOD_FOR_SECONDS


def _broker() -> None:
    if count_waiting_messages() is None:
        raise Unwell("the broker does not answer: photos are read by the sweep, later")


def _beat() -> None:
    try:
        present = beat_is_present()
    except DatabaseError as error:
        raise Unwell("the database cannot be asked for it") from error
    if not present:
        raise Unwell(
            "no beat is in sight: workers that read sweep and erase alone; hours, "
            "curation and training stand still"
        )
