from __future__ import annotations

import gc
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError

from webapp.config import env
from webapp.core.sqlite import base

pytestmark = pytest.mark.django_db


def connect(path: Path) -> base.DatabaseWrapper:
    settings: dict[str, Any] = {
        "ATOMIC_REQUESTS": False,
        "AUTOCOMMIT": True,
        "CONN_MAX_AGE": 0,
        "CONN_HEALTH_CHECKS": False,
        "TIME_ZONE": None,
        **env.database(f"sqlite://{path}"),
    }
    return base.DatabaseWrapper(settings, alias="beside")


def test_writer_waits_its_turn_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "db.sqlite3"
    first = connect(path)
    with first.cursor() as cursor:
        cursor.execute("CREATE TABLE t (n INTEGER)")
        cursor.execute("BEGIN IMMEDIATE")

    def write() -> None:
        second = connect(path)
        with second.cursor() as cursor:
            cursor.execute("INSERT INTO t VALUES (%s)", [1])
            cursor.executemany("INSERT INTO t VALUES (%s)", ([n] for n in (2, 3)))
        second.close()

    thread = threading.Thread(target=write)
    thread.start()
    time.sleep(0.3)
    with first.cursor() as cursor:
        cursor.execute("COMMIT")
        thread.join(60)
        cursor.execute("SELECT n FROM t ORDER BY n")
        assert [n for (n,) in cursor.fetchall()] == [1, 2, 3]
    first.close()


def test_new_connection_waits_for_who_has_the_whole_database(tmp_path: Path) -> None:
    path = tmp_path / "db.sqlite3"
    owner = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    owner.execute("CREATE TABLE t (n INTEGER)")
    owner.execute("BEGIN EXCLUSIVE")
    threading.Timer(0.3, lambda: owner.execute("COMMIT")).start()

    connection = connect(path)
    with connection.cursor() as cursor:
        cursor.execute("SELECT n FROM t")
        assert cursor.fetchall() == []
    connection.close()
    owner.close()


def test_patience_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "PATIENCE_SECONDS", 0.2)
    path = tmp_path / "db.sqlite3"
    first, second = connect(path), connect(path)
    with first.cursor() as cursor:
        cursor.execute("BEGIN IMMEDIATE")

    with pytest.raises(OperationalError, match="locked"), second.cursor() as cursor:
        cursor.execute("BEGIN IMMEDIATE")

    first.close()
    second.close()


def test_wrong_statement_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "PATIENCE_SECONDS", 60.0)
    connection = connect(tmp_path / "db.sqlite3")
    began = time.monotonic()

    with pytest.raises(OperationalError), connection.cursor() as cursor:
        cursor.execute("SELECT nothing FROM nowhere")

    assert time.monotonic() - began < base.PATIENCE_SECONDS / 2
    connection.close()


def test_garbage_of_a_waiting_thread_does_not_stop_the_one_it_waits_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cursor of a connection that waits is collected by the lock's holder."""
    monkeypatch.setattr(base, "PATIENCE_SECONDS", 60.0)
    path = tmp_path / "db.sqlite3"
    holder, waiter = connect(path), connect(path)
    for connection in (holder, waiter):
        connection.ensure_connection()
        connection.inc_thread_sharing()
    with holder.cursor() as cursor:
        cursor.execute("CREATE TABLE t (n INTEGER)")
    # A cursor amid its rows, reachable from itself alone.
    garbage: list[Any] = [waiter.cursor()]
    garbage[0].execute("SELECT 1 UNION SELECT 2")
    garbage.append(garbage)
    gc.disable()
    try:
        with holder.cursor() as cursor:
            cursor.execute("BEGIN IMMEDIATE")
        del garbage

        got_it = threading.Event()

        def wait() -> None:
            with waiter.cursor() as cursor:
                cursor.execute("BEGIN IMMEDIATE")
                cursor.execute("COMMIT")
            got_it.set()

        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.1)
        began = time.monotonic()
        gc.collect()
        stood_still = time.monotonic() - began
    finally:
        gc.enable()
    with holder.cursor() as cursor:
        cursor.execute("COMMIT")
    thread.join(60)

    assert stood_still < base.PATIENCE_SECONDS / 2
    assert got_it.is_set()
    holder.close()
    waiter.close()
