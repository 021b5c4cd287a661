"""A worker that could not say that a job is done takes the next one all the same."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kombu import Connection, Exchange, Message, Queue
from kombu.exceptions import OperationalError

from webapp.config import broker
from webapp.config.celery import app

QUEUE = Queue("letters", Exchange("letters"), routing_key="letters")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    path = broker.socket_path(tmp_path)
    process = subprocess.Popen(
        [broker.find_server(), "--port", "0", "--unixsocket", str(path), "--save", ""],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
    )
    while not path.exists():
        time.sleep(0.01)
    try:
        yield process, f"redis+socket://{path}"
    finally:
        process.kill()
        process.wait()
        broker.tidy(tmp_path)


def take(connection: Connection, got: list[Message], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not got:
        with contextlib.suppress(TimeoutError):
            connection.drain_events(timeout=0.2)


@pytest.mark.parametrize("answer", ["ack", "reject", "requeue"])
def test_message_that_could_not_be_answered_does_not_block_the_next(
    server: tuple[subprocess.Popen[bytes], str], answer: str
) -> None:
    process, url = server
    options = {**app.conf.broker_transport_options, "socket_timeout": 0.3}
    got: list[Message] = []
    with Connection(url, transport_options=options) as connection:
        producer = connection.Producer()
        for number in range(2):
            producer.publish(
                {"number": number},
                exchange=QUEUE.exchange,
                routing_key="letters",
                declare=[QUEUE],
            )
        consumer = connection.Consumer(
            QUEUE, on_message=got.append, accept=["json"], prefetch_count=1
        )
        with consumer:
            take(connection, got, 5)
            (first,) = got
            process.send_signal(signal.SIGSTOP)
            with pytest.raises((OperationalError, *connection.connection_errors)):
                getattr(first, answer)()
            process.send_signal(signal.SIGCONT)
            got.clear()

            take(connection, got, 5)

    assert [message.payload["number"] for message in got] == [1]
