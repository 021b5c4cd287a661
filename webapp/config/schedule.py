"""The schedule in the database, started quickly: until the beat is back, nobody finds
what a lost message leaves behind."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from celery.schedules import schedstate, schedule
from django.db import transaction
from django_celery_beat.schedulers import DatabaseScheduler, ModelEntry

_URGENT_BELOW_SECONDS: Final = 5.0
_LONG_AGO: Final = datetime(2000, 1, 1, tzinfo=UTC)


class SteadyEntry(ModelEntry):  # type: ignore[misc]
    """Goes on where the clock was set back: what ran last an hour from now, as far as
    it can tell, would wait for that hour and its interval."""

    last_run_at: datetime

    def is_due(self) -> schedstate:
        now = self._default_now()
        if self.last_run_at > now:
            self.last_run_at = self.model.last_run_at = now
        due: schedstate = super().is_due()
        return due


class QuickScheduler(DatabaseScheduler):  # type: ignore[misc]
    """Writes what the settings schedule in one transaction, and what runs every few
    seconds is due as soon as it is up."""

    Entry = SteadyEntry

    def update_from_dict(self, mapping: dict[str, dict[str, Any]]) -> None:
        """Make the rows of ``mapping`` say what it says."""
        with transaction.atomic():
            entries = {
                name: self.Entry.from_entry(name, app=self.app, **fields)
                for name, fields in mapping.items()
            }
            # Else each waits its first interval from now on: the row is new again.
            for name in _urgent(mapping):
                entry = entries[name]
                entry.last_run_at = entry.model.last_run_at = _LONG_AGO
                entry.model.save(update_fields=["last_run_at"])
        # Reading it reads the rows anew, and ends a transaction of its own.
        self.schedule.update(
            {name: entry for name, entry in entries.items() if entry.model.enabled}
        )


def _urgent(mapping: dict[str, dict[str, Any]]) -> list[str]:
    """Names of what is sent so often that once more harms nothing."""
    return [
        name
        for name, fields in mapping.items()
        if isinstance(every := fields["schedule"], schedule)
        and every.run_every.total_seconds() < _URGENT_BELOW_SECONDS
    ]
