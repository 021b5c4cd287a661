"""What training refuses, in words for the person who asked."""

from __future__ import annotations

from webapp.core.errors import Conflict, DomainError


class NothingNew(Conflict):
    """The same labels, start and settings would give the same model again."""

    code = "nothing_new"


class AlreadyRunning(Conflict):
    """One run is queued or running; the database allows no second one."""

    code = "already_running"


class RunRefused(DomainError):
    """A run of this kind cannot be made here; says what is missing."""

    code = "run_refused"


class RunFailed(DomainError):
    """A run cannot go on; says why. Trying again would not help."""

    code = "run_failed"


class ReasonNeeded(DomainError):
    """The gate's word is not enough: then a person must say why."""

    code = "reason_needed"
    http_status = 422


class CannotCompare(DomainError):
    """Two versions have no faces in common that both could be asked about."""

    code = "cannot_compare"
