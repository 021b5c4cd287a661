"""SQLite whose threads wait for the write lock outside of SQLite.

SQLite waits inside its own code, with the connection's mutex held. Should another
thread, the one that has the write lock, collect garbage meanwhile and finalise a
cursor of the waiting connection, it waits for that mutex while it holds Python's
own lock: the whole process stands still until SQLite's timeout, ten seconds, and
whoever waited is refused. So SQLite itself waits only for a moment
(the settings say how long), and what failed for a busy database is tried again from
here, after a short random sleep, which also is fairer than SQLite's own back-off.

Only statements outside of a transaction are tried again, ``BEGIN IMMEDIATE`` among
them: they have changed nothing. Inside one the lock is there already.
"""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

from django.db.backends.sqlite3 import base

PATIENCE_SECONDS: Final = 10.0
_SLEEP_SECONDS: Final = (0.001, 0.015)

T = TypeVar("T")


def _persist(run: Callable[[], T], may_retry: Callable[[], bool]) -> T:
    """Run again what a busy database refused, for as long as patience lasts."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return run()
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not busy or not may_retry() or time.monotonic() > deadline:
                raise
        time.sleep(random.uniform(*_SLEEP_SECONDS))


class PatientCursor(base.SQLiteCursorWrapper):
    """Tries again, for ten seconds, what a busy database refused."""

    def execute(self, query: str, params: Any = None) -> Any:
        return self._persist(lambda: super(PatientCursor, self).execute(query, params))

    def executemany(self, query: str, param_list: Any) -> Any:
        # An iterator would be empty on the second attempt.
        rows = list(param_list)
        return self._persist(
            lambda: super(PatientCursor, self).executemany(query, rows)
        )

    def _persist(self, run: Callable[[], T]) -> T:
        return _persist(run, lambda: not self.connection.in_transaction)


class DatabaseWrapper(base.DatabaseWrapper):
    """Django's own, with cursors that are patient, and so is a new connection: its
    first commands may meet a log that is just being emptied."""

    def get_new_connection(self, conn_params: dict[str, Any]) -> sqlite3.Connection:
        connect = super().get_new_connection
        connection: sqlite3.Connection = _persist(
            lambda: connect(conn_params), lambda: True
        )
        return connection

    def create_cursor(self, name: str | None = None) -> PatientCursor:
        return self.connection.cursor(factory=PatientCursor)  # type: ignore[no-any-return]
