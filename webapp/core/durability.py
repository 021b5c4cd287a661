"""What need not wait for the disk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from django.db import Error as DatabaseError
from django.db import connection

_SETTINGS: Final = {
    "sqlite": ("PRAGMA synchronous=NORMAL", "PRAGMA synchronous=FULL"),
    "postgresql": ("SET synchronous_commit TO off", "SET synchronous_commit TO on"),
}


@contextmanager
def redoable() -> Iterator[None]:
    """What is committed inside may be undone by a power cut, though by no crash of
    ours: for what the database then still knows to be owed, and is done again.

    The order stays: where a later commit has reached the disk, this one has, too. So
    nobody's word about a result outlives the result. Within a transaction it does
    nothing: that one's end decides.
    """
    if connection.in_atomic_block:
        yield
        return
    relaxed, durable = _SETTINGS[connection.vendor]
    with connection.cursor() as cursor:
        cursor.execute(relaxed)
    try:
        yield
    finally:
        try:
            with connection.cursor() as cursor:
                cursor.execute(durable)
        except DatabaseError:
            # A new connection is durable; this one must not be used again.
            connection.close()
