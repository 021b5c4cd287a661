from __future__ import annotations

import pytest
from django.db import connection, transaction

from webapp.core.durability import redoable


def level() -> object:
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute("PRAGMA synchronous")
        else:
            cursor.execute("SHOW synchronous_commit")
        (value,) = cursor.fetchone()
    return {2: "on", 1: "off"}.get(value, value)


@pytest.mark.django_db(transaction=True)
class TestRedoable:
    def test_waits_for_no_disk_inside_and_for_it_again_afterwards(self) -> None:
        assert level() == "on"
        with redoable():
            assert level() == "off"
        assert level() == "on"

    def test_is_over_where_the_work_failed(self) -> None:
        with pytest.raises(ZeroDivisionError), redoable():
            _ = 1 / 0
        assert level() == "on"

    def test_leaves_a_transaction_as_it_is(self) -> None:
        with transaction.atomic(), redoable():
            assert level() == "on"

    def test_lost_connection_is_not_used_again(self) -> None:
        with redoable():
            assert connection.connection is not None
            connection.connection.close()
        assert level() == "on"
