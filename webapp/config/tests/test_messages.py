"""Workers outlive what a broker does: one that could not say that a job is done takes
the next one all the same, and so does one whose broker takes no word for a while."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kombu import Connection, Exchange, Message, Queue
from kombu.exceptions import OperationalError

from tests.stack import ROOT
from webapp.config import broker, serve
from webapp.config.celery import app
from webapp.config.processes import ProcessGroup

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
    options = {**app.conf.broker_transport_options, "socket_timeout": 2.0}
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
            take(connection, got, 60)
            (first,) = got
            process.send_signal(signal.SIGSTOP)
            with pytest.raises((OperationalError, *connection.connection_errors)):
                getattr(first, answer)()
            process.send_signal(signal.SIGCONT)
            got.clear()

            take(connection, got, 60)

    assert [message.payload["number"] for message in got] == [1]


@pytest.mark.parametrize(
    ("ill", "well"),
    [
        (["CONFIG", "SET", "maxmemory", "1"], ["CONFIG", "SET", "maxmemory", "0"]),
        (["REPLICAOF", "127.0.0.1", "1"], ["REPLICAOF", "NO", "ONE"]),
    ],
    ids=["full", "replica"],
)
def test_worker_outlives_a_broker_that_takes_no_word(
    server: tuple[subprocess.Popen[bytes], str],
    tmp_path: Path,
    ill: list[str],
    well: list[str],
) -> None:
    _, url = server
    log, group = tmp_path / "worker.log", ProcessGroup()
    environment = serve.worker_environment(
        {**os.environ, "MIEN_BROKER_URL": url, "MIEN_HOME": str(tmp_path)}
    )
    with log.open("wb") as output, Connection(url) as connection:
        worker = subprocess.Popen(
            serve.training_command(environment),
            cwd=ROOT,
            env=environment | {"DJANGO_SETTINGS_MODULE": "webapp.config.settings"},
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=group.id,
        )

        def wait_for(words: str, times: int = 1) -> None:
            deadline = time.monotonic() + 120
            while log.read_text().count(words) < times:
                assert worker.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.05)

        def publish(task: str) -> None:
            app.send_task(task, queue="training", connection=connection)

        try:
            publish("nobody-knows-the-first")
            wait_for("nobody-knows-the-first")
            # It has the second in its socket by the time that it cannot answer.
            worker.send_signal(signal.SIGSTOP)
            publish("nobody-knows-the-second")
            connection.default_channel.client.execute_command(*ill)
            worker.send_signal(signal.SIGCONT)
            wait_for("Trying to reconnect", 2)
            connection.default_channel.client.execute_command(*well)

            publish("nobody-knows-the-third")

            wait_for("nobody-knows-the-third")
        finally:
            group.kill()
            worker.wait()
