"""A broker that is away keeps nobody waiting."""

from __future__ import annotations

import socket
import time
import uuid

import pytest
from celery import Celery

from tests.services import free_port
from webapp.core import queues

TASK = "webapp.photos.tasks.process_photo"


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> Celery:
    """The site's app, whose broker nobody runs."""
    app = Celery(set_as_current=False)
    app.config_from_object("django.conf:settings", namespace="CELERY")
    app.conf.broker_url = f"redis://127.0.0.1:{free_port()}/0"
    monkeypatch.setattr(queues, "current_app", app)
    return app


@pytest.mark.timed
def test_broker_that_refuses_costs_no_time(away: Celery) -> None:
    began_at = time.monotonic()

    assert not queues.wake(TASK, uuid.uuid4(), "inference")

    assert time.monotonic() - began_at < 1


@pytest.mark.timed
def test_broker_that_never_answers_is_waited_for_once(away: Celery) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        away.conf.broker_url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        began_at = time.monotonic()

        woken = [queues.wake(TASK, uuid.uuid4(), "inference") for _ in range(10)]

        assert not any(woken)
        assert time.monotonic() - began_at < 5


def test_broker_that_is_back_is_asked_again(
    away: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queues, "_ASK_AGAIN_AFTER_SECONDS", 0.0)
    asked = []

    def refuse(*_: object, **__: object) -> None:
        asked.append(1)
        raise ConnectionRefusedError

    monkeypatch.setattr(away, "send_task", refuse)
    for _ in range(2):
        queues.wake(TASK, uuid.uuid4(), "inference")

    assert len(asked) == 2
